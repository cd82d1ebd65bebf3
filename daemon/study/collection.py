"""The collection: labelled real curves in memory, prepared once, for studies that look at them many times."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.progress import progress
from daemon.learn.labelled import LabelledCurve, Row, curves_of, read_labels, refuse
from models.curve import Curve
from models.frontend import prepare
from models.profile import RasterProfile
from models.raster import envelope
from models.train import Examples


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """N curves that can be scored, with their labels."""

    rows: tuple[Row, ...]
    curves: tuple[Curve, ...]
    edges: NDArray[np.float32]  # (N, 2, W) in signal units
    reasons: tuple[tuple[str, ...], ...]  # what the front-end says of each
    systems: NDArray[np.str_]  # (N,)
    labels: NDArray[np.str_]  # (N,): keep, discard, unsure
    left_out: int  # curves that can get no score, and so stand nowhere here

    def __len__(self) -> int:
        return len(self.curves)

    @property
    def events(self) -> NDArray[np.bool_]:
        """(N,)."""
        return np.asarray(self.labels == "keep", np.bool_)

    @property
    def digest(self) -> str:
        """What the curves and labels are, in a few digits."""
        parts = (self.edges.tobytes(), "\n".join(self.labels).encode(), "\n".join(self.systems).encode())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @property
    def sure(self) -> NDArray[np.bool_]:
        """(N,): not `unsure`."""
        return np.asarray(self.labels != "unsure", np.bool_)

    def examples(self, chosen: NDArray[np.bool_]) -> Examples:
        """The sure ones among ``chosen``, (N,), to learn from."""
        chosen = chosen & self.sure
        return Examples(self.edges[chosen], self.events[chosen].astype(np.float32))


def collect(folders: Sequence[Path], profile: RasterProfile, system_column: str = "system") -> Collection:
    """Open every labelled curve. UserError (65) for rows that make no sense, one line each, and when there is none."""
    found = read_labels(folders, system_column)
    problems: list[str] = []
    rows = sum(len(folder.rows) for folder in found)
    items = list(progress(curves_of(found, problems), "reading labelled curves", rows))
    refuse(problems)
    prepared = prepare([item.curve for item in items], profile)
    able = [place for place, one in enumerate(prepared) if one.signal is not None]
    if not able:
        raise UserError(BAD_DATA, "the labelled folders hold no curve that can be scored")

    def named(of: Callable[[LabelledCurve], str]) -> NDArray[np.str_]:
        return np.array([of(items[place]) for place in able])

    return Collection(
        rows=tuple(items[place].row for place in able),
        curves=tuple(items[place].curve for place in able),
        edges=envelope([signal for one in prepared if (signal := one.signal) is not None], profile),
        reasons=tuple(prepared[place].reasons for place in able),
        systems=named(lambda item: item.row.system),
        labels=named(lambda item: item.row.label),
        left_out=len(items) - len(able),
    )
