"""The job: one file to score, and what an earlier run has already said about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from daemon.arrival import Arrival
from daemon.reading import Reading


@dataclass(frozen=True, slots=True)
class Kept:
    """Lines of an earlier run that hold: ``length_bytes`` of a file of lines."""

    source: str
    offset: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class Stamp:
    """The state of a file when it was found; the same stamp means the same content, as for the service's ledger."""

    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, arrival: Arrival) -> Stamp:
        """Of both halves, where a recording is a pair."""
        partner = _stat(arrival.companion) if arrival.companion else cls(0, 0)
        return cls(arrival.size_bytes + partner.size_bytes, max(arrival.mtime_ns, partner.mtime_ns))

    def with_curves(self, curves: int) -> Mapping[str, int]:
        """What a line says of the file: this, and how many curves it has."""
        return {"size_bytes": self.size_bytes, "mtime_ns": self.mtime_ns, "curves": curves}


@dataclass(frozen=True, slots=True)
class Job:
    """``arrival`` is read from its curve ``first`` on, unless earlier runs have answered all of it."""

    arrival: Arrival
    stamp: Stamp | None = None
    kept: Kept | None = None
    is_answered: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One curve of a file of ``curves``."""

    reading: Reading
    curves: int
    stamp: Stamp | None = None


def _stat(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return Stamp(0, 0)
    return Stamp(found.st_size, found.st_mtime_ns)
