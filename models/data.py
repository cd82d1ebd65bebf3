"""The data: curves as envelopes and labels, which is all that training needs of them.

An envelope is 1 kB where a curve is 32 kB, and the picture is drawn from it by the code that serves; so 100,000 curves
fit into memory and training cannot see another picture than service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from models.curve import Curve
from models.frontend import prepare
from models.profile import RasterProfile
from models.raster import envelope

CHUNK = 256
Progress = Callable[[int], None]  # curves done


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """N curves ready to learn from."""

    edges: NDArray[np.float32]  # (N, 2, W) in signal units
    labels: NDArray[np.float32]  # (N,), 1 is an event

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def __add__(self, other: Examples) -> Examples:
        edges = np.concatenate((self.edges, other.edges))
        return Examples(edges, np.concatenate((self.labels, other.labels)))

    def repeat(self, times: int) -> Examples:
        """The same curves ``times`` over: how a few labelled ones are heard among many simulated."""
        return Examples(np.tile(self.edges, (times, 1, 1)), np.tile(self.labels, times))

    def save(self, path: Path) -> None:
        """Two plain numpy arrays side by side, whole or not at all."""
        for name, array in (("edges", self.edges), ("labels", self.labels)):
            fresh = path.with_name(f".{path.name}-{name}.new")
            with fresh.open("wb") as file:
                np.save(file, array, allow_pickle=False)
            fresh.replace(path.with_name(f"{path.name}-{name}.npy"))

    @classmethod
    def load(cls, path: Path) -> Examples | None:
        """What :meth:`save` wrote, or None when it is not there whole."""
        files = [path.with_name(f"{path.name}-{name}.npy") for name in ("edges", "labels")]
        if not all(file.is_file() for file in files):
            return None
        try:
            edges, labels = (np.load(file, allow_pickle=False) for file in files)
        except (ValueError, EOFError):  # cut off by a power failure: drawn again
            return None
        return cls(edges, labels) if edges.shape[0] == labels.shape[0] else None


def gather(pairs: Iterable[tuple[Curve, bool]], profile: RasterProfile, progress: Progress | None = None) -> Examples:
    """Curves with their labels -> examples; curves that could get no score are left out, as they are in service."""
    edges, labels = [np.zeros((0, 2, profile.columns), np.float32)], [np.zeros(0, np.float32)]
    for chunk in _chunks(pairs):
        prepared = prepare([curve for curve, _ in chunk], profile)
        able = [(item.signal, event) for item, (_, event) in zip(prepared, chunk, strict=True)]
        kept = [(signal, event) for signal, event in able if signal is not None]
        edges.append(envelope([signal for signal, _ in kept], profile))
        labels.append(np.array([event for _, event in kept], np.float32))
        if progress is not None:
            progress(len(chunk))
    return Examples(np.concatenate(edges), np.concatenate(labels))


def _chunks(pairs: Iterable[tuple[Curve, bool]]) -> Iterator[list[tuple[Curve, bool]]]:
    chunk: list[tuple[Curve, bool]] = []
    for pair in pairs:
        chunk.append(pair)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def order(examples: Examples, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch; from seed and number alone, so that a resumed run goes on as it would have."""
    shuffled = np.random.default_rng((seed, epoch)).permutation(len(examples))
    return cast(NDArray[np.int64], shuffled.astype(np.int64))
