"""The signals that engines are compared on: of real curves and simulated ones, the same for every engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.formats.walk import find
from daemon.progress import progress
from daemon.reader import read_files
from deploy.classifier import Signals
from models.curve import Curve
from models.frontend import prepare
from models.profile import RasterProfile
from models.simulate import simulate

SIMULATED_SEED = 4_000_000  # added to the seed: curves that no training has drawn


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """N curves that can be scored."""

    names: tuple[str, ...]  # path#index, or "simulated N"
    signals: tuple[NDArray[np.float32], ...]  # as models.frontend.prepare gives them
    reasons: tuple[tuple[str, ...], ...]
    real: int  # so many of them, and they come first

    def save(self, path: Path) -> None:
        """The signals alone, for another process."""
        lengths = np.array([len(signal) for signal in self.signals], np.int64)
        np.savez(path, samples=np.concatenate(self.signals), lengths=lengths)


def load(path: Path) -> Signals:
    """What ``save`` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return np.split(stored["samples"], np.cumsum(stored["lengths"])[:-1])


def gather(
    folders: Sequence[Path], simulated: int, seed: int, profile: RasterProfile, prevalence: float = 0.5
) -> Curves:
    """Every curve below ``folders`` that can be scored, then ``simulated`` ones, ``prevalence`` of them events."""
    names: list[str] = []
    signals: list[NDArray[np.float32]] = []
    reasons: list[tuple[str, ...]] = []
    real = 0
    stream = simulate(simulated, seed + SIMULATED_SEED, prevalence)
    drawn = (item.curve for item in progress(stream, "simulating", simulated))
    for is_real, named in ((True, _read(folders)), (False, ((f"simulated {n}", one) for n, one in enumerate(drawn)))):
        for name, curve in named:
            (prepared,) = prepare([curve], profile)
            if prepared.signal is not None:
                names.append(name)
                signals.append(prepared.signal)
                reasons.append(prepared.reasons)
                real += is_real
    return Curves(tuple(names), tuple(signals), tuple(reasons), real)


def _read(folders: Sequence[Path]) -> Iterator[tuple[str, Curve]]:
    """In reader processes, as what lies in a folder may be anything."""
    for file in progress(read_files(find(folders)), "reading"):
        for reading in file.readings:
            if reading.curve is not None:
                yield f"{reading.arrival.path}#{reading.index}", reading.curve
