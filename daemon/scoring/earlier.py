"""What earlier runs have said: file by file, found again by its path and the state it was in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from daemon.arrival import Arrival
from daemon.scoring.job import Job, Kept, Stamp
from daemon.scoring.line import Line

Key = tuple[str, Stamp]


@dataclass(slots=True, eq=False)
class _Told:
    """The lines on one file: its curves from 0 to ``answered - 1``. There may be a hundred thousand of these."""

    curves: int  # of the file
    sha256: str | None
    kept: Kept
    answered: int = 1

    def takes(self, line: Line, kept: Kept) -> bool:
        """Whether this line, on a file of the same name and state, is on the next curve of it."""
        return (line.curve, line.sha256, kept.source) == (self.answered, self.sha256, self.kept.source)


class Earlier:
    """The answers of earlier runs; each is given away once."""

    def __init__(self, lines: Iterable[tuple[Line, Kept]]) -> None:
        self._told: defaultdict[Key, list[_Told]] = defaultdict(list)
        self.kept = 0  # curves whose answers have been given away
        for key, told in _by_file(lines):
            self._told[key].append(told)

    def strangers(self, found: Iterable[Arrival]) -> int:
        """How many answers are on none of these files, and would be lost with them.

        A file is known by its name below the folder that was given, and other folders have the same names: where of
        several files not one is as it was, all are taken for others.
        """
        missing = {path for path, _ in self._told}
        is_known = len(missing) < 2
        for arrival in found:
            if is_known and not missing:
                return 0
            missing.discard(arrival.path)
            is_known = is_known or (arrival.path, Stamp.of(arrival)) in self._told
        lost = (told for (path, _), told in self._told.items() if path in missing or not is_known)
        return sum(one.answered for told in lost for one in told)

    def job(self, arrival: Arrival) -> Job:
        """What is left to do about a file."""
        stamp = Stamp.of(arrival)
        told = self._told.get((arrival.path, stamp))
        if not told:
            return Job(arrival, stamp)
        known = max(told, key=lambda one: one.answered)
        told.remove(known)
        if known.sha256 is None:  # could not be opened at all, and may come back as it was
            return Job(arrival, stamp)
        is_answered = known.answered >= known.curves
        self.kept += known.answered
        if is_answered:
            return Job(arrival, stamp, known.kept, is_answered=True)
        return Job(arrival.portion(known.answered, known.sha256, known.curves), stamp, known.kept)


def _by_file(lines: Iterable[tuple[Line, Kept]]) -> Iterator[tuple[Key, _Told]]:
    key: Key | None = None
    told: _Told | None = None
    for line, kept in lines:
        its_key = (line.path, Stamp(line.size_bytes, line.mtime_ns))
        if told is not None and key == its_key and told.takes(line, kept):
            told.answered += 1
            told.kept = replace(told.kept, length_bytes=told.kept.length_bytes + kept.length_bytes)
            continue
        if key is not None and told is not None:
            yield key, told
        # a row without its beginning is judged anew
        key, told = its_key, _Told(line.curves, line.sha256, kept) if line.curve == 0 else None
    if key is not None and told is not None:
        yield key, told
