"""The families of file formats: what reading costs depends on them more than on anything else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.formats import open_file
from daemon.formats.errors import Unfinished, Unreadable
from daemon.sources import Arrival
from daemon.sources.existing import find
from models.curve import Curve

POINTS = 4096  # of a retract: what the bars speak of
OTHERS = "others"
_SUFFIXES = (".jpk", ".jpk-force", ".jpk-qi-data", ".jpk-qi-series", ".jpk-force-map")
_NAMES = ("JPK", "NanoScope", OTHERS)
_NANOSCOPE = b"\\*F"
_MOST = 8  # files


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Files of one curve each. Of JPK and NanoScope those whose retracts come closest to POINTS."""

    name: str
    arrivals: tuple[Arrival, ...]
    curves: tuple[Curve, ...]

    @property
    def points(self) -> int:
        """Of the shortest retract."""
        return min(map(len, self.curves))


def families(folders: Iterable[Path]) -> list[Family]:
    """The families of which ``folders`` hold a file that can be read."""
    found: dict[str, list[tuple[Arrival, Curve]]] = {name: [] for name in _NAMES}
    for arrival in find(folders):
        try:
            curves = open_file(arrival.file, arrival.companion)
        except (Unfinished, Unreadable, OSError):
            continue
        if len(curves) == 1:
            found[_name_of(arrival.file)].append((arrival, curves[0]))
    return [_family(name, pairs) for name, pairs in found.items() if pairs]


def _family(name: str, pairs: Sequence[tuple[Arrival, Curve]]) -> Family:
    if name != OTHERS:
        nearest = min(_distance(curve) for _, curve in pairs)
        pairs = [(arrival, curve) for arrival, curve in pairs if _distance(curve) <= nearest][:_MOST]
    return Family(name, tuple(arrival for arrival, _ in pairs), tuple(curve for _, curve in pairs))


def _distance(curve: Curve) -> float:
    """From POINTS, in octaves, to a tenth: 4000 points are as good as 4096."""
    return round(abs(math.log2(len(curve) / POINTS)), 1)


def _name_of(file: Path) -> str:
    if file.suffix.lower() in _SUFFIXES:
        return "JPK"
    with file.open("rb") as opened:
        return "NanoScope" if opened.read(3) == _NANOSCOPE and file.suffix.lower() != ".txt" else OTHERS
