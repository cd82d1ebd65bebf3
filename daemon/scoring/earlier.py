"""What earlier runs have said: file by file, found again by its path and the state it was in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from daemon.arrival import Arrival
from daemon.scoring.job import Job, Kept, Stamp
from daemon.scoring.line import Line


@dataclass(slots=True, eq=False)
class _Told:
    """The lines on one file: its curves from 0 to ``answered - 1``."""

    first: Line
    kept: Kept
    answered: int = 1

    def takes(self, line: Line, kept: Kept) -> bool:
        """Whether this line is on the next curve of the file."""
        return (
            line.curve == self.answered
            and (line.path, line.sha256, line.mtime_ns) == (self.first.path, self.first.sha256, self.first.mtime_ns)
            and kept.source == self.kept.source
        )


class Earlier:
    """The answers of earlier runs; each is given away once."""

    def __init__(self, lines: Iterable[tuple[Line, Kept]]) -> None:
        self._told: defaultdict[tuple[str, Stamp], list[_Told]] = defaultdict(list)
        self.kept = 0  # curves whose answers have been given away
        for told in _by_file(lines):
            line = told.first
            self._told[line.path, Stamp(line.size_bytes, line.mtime_ns)].append(told)

    def job(self, arrival: Arrival) -> Job:
        """What is left to do about a file."""
        stamp = Stamp.of(arrival)
        told = self._told.get((arrival.path, stamp))
        if not told:
            return Job(arrival, stamp)
        known = max(told, key=lambda one: one.answered)
        told.remove(known)
        line = known.first
        if known.answered < line.curves and line.sha256 is None:
            return Job(arrival, stamp)
        self.kept += known.answered
        if known.answered >= line.curves:
            return Job(arrival, stamp, known.kept, is_answered=True)
        return Job(arrival.portion(known.answered, line.sha256 or "", line.curves), stamp, known.kept)


def _by_file(lines: Iterable[tuple[Line, Kept]]) -> Iterator[_Told]:
    told: _Told | None = None
    for line, kept in lines:
        if told is not None and told.takes(line, kept):
            told.answered += 1
            told.kept = replace(told.kept, length_bytes=told.kept.length_bytes + kept.length_bytes)
            continue
        if told is not None:
            yield told
        told = _Told(line, kept) if line.curve == 0 else None  # a row without its beginning is judged anew
    if told is not None:
        yield told
