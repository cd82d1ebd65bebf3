"""Reading what is there instead of waiting for what comes: all curves of files and folders, in order.

As many processes read ahead as there are cores, and only a few curves are held. Later portions of a map go to every
process at once; each opens the map for itself and keeps it open.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from daemon.common import ending
from daemon.formats import NAMES, event_path
from daemon.formats.limits import MIB, PORTION_CURVES
from daemon.formats.text_rule import TextRule
from daemon.reading import FileReading, Reading
from daemon.reading.pool import ReaderPool
from daemon.sources import UNCLAIMED, Arrival, Ignored
from models.raster import RasterProfile

_PAUSE_S = 0.002  # in which answers gather: nobody waits for a single one
_CURVES = 64  # read ahead for each reader process
_BYTES = 256 * MIB  # of curves that wait for their turn; beyond, only what the next answer needs is read


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


def read_ahead(
    jobs: Iterable[Job],
    workers: int,
    profile: RasterProfile | None = None,
    ignored: Ignored | None = None,
    rules: Sequence[TextRule] = (),
    pool: ReaderPool | None = None,
) -> Iterator[Kept | Piece]:
    """The curves of every job in order, each job's kept lines before them. Raises ``ReaderBroken``.

    With a ``profile`` the curves come prepared for it, and without their samples. Files that turn out to be no curves
    are counted in ``ignored``. The reader processes live as long as the iteration; those of a ``pool`` that was
    started for this profile and these rules stay, and are of no more use where the iteration is left before its end.
    """
    with nullcontext(pool) if pool else ReaderPool(workers, profile=profile, bare=True, rules=rules) as readers:
        yield from _Line(jobs, readers, _CURVES * workers, Ignored() if ignored is None else ignored)


def read_curves(arrivals: Iterable[Arrival], workers: int = 2) -> Iterator[Reading]:
    """The curves of every file in order, with their samples, or why they could not be had. Raises ``ReaderBroken``."""
    for item in read_ahead(map(Job, arrivals), workers):
        if isinstance(item, Piece):
            yield item.reading


class _Line:
    """The files that are open, the first of which is handed on."""

    def __init__(self, jobs: Iterable[Job], pool: ReaderPool, most: int, ignored: Ignored) -> None:
        self._jobs, self._pool, self._most, self._ignored = iter(jobs), pool, most, ignored
        self._files: deque[_File] = deque()
        self._maps: list[_File] = []  # of these, the ones that have more curves than have been asked for
        self._questions: dict[int, _Question] = {}  # by the id of their arrival
        self._coming: list[Arrival] = []  # to be submitted together, for each submission wakes every reader
        self._curves = self._bytes = 0  # asked for or waiting

    def __iter__(self) -> Iterator[Kept | Piece]:
        while True:
            self._ask()
            if not self._files:
                return
            while self._files:
                yield from self._hand_on(self._files[0])
                if not self._files[0].is_over:
                    break
                self._files.popleft()
            if self._files and self._files[0].in_flight:
                ending.pause(_PAUSE_S)
                for answer in self._pool.collect(ending.LOOK_S):
                    self._enter(answer)

    def _ask(self) -> None:
        """As much as may be under way, and always what the first file needs; not for every single one that came."""
        if self._files and self._files[0] in self._maps and self._files[0].is_idle:
            self._ask_portion(self._files[0])
        if self._curves <= self._most * 3 // 4:
            while self._maps and self._has_room():
                self._ask_portion(self._maps[0])
            while not self._maps and self._has_room() and (job := next(self._jobs, None)) is not None:
                self._begin(job)
        if self._coming:
            self._pool.submit(self._coming)
            self._coming = []

    def _has_room(self) -> bool:
        return self._curves < self._most and self._bytes < _BYTES and len(self._files) < 4 * self._most

    def _begin(self, job: Job) -> None:
        file = _File(job.arrival, job.stamp, job.kept)
        self._files.append(file)
        if job.is_answered:
            file.total = 0
        elif job.arrival.first:  # an earlier run knows how many there are
            file.total = job.arrival.total
            file.asked = file.told = job.arrival.first
            self._maps.append(file)
        else:
            self._put(_Question(file, job.arrival, None, 1))

    def _ask_portion(self, file: _File) -> None:
        first, file.asked = file.asked, min(file.asked + PORTION_CURVES, file.total or 0)
        self._submit(file, first, file.asked)
        if file.asked == file.total:
            self._maps.remove(file)

    def _submit(self, file: _File, first: int, stop: int) -> None:
        arrival = file.arrival.portion(first, file.arrival.sha256 or "", file.total or 0)
        self._put(_Question(file, arrival, stop, stop - first))

    def _put(self, question: _Question) -> None:
        self._questions[id(question.arrival)] = question
        question.file.in_flight += 1
        self._curves += question.curves
        self._coming.append(question.arrival)

    def _enter(self, answer: FileReading) -> None:
        """Note what came; ask again for what did not fit into the answer."""
        question = self._questions.pop(id(answer.arrival))
        file, stop = question.file, question.stop
        file.in_flight -= 1
        self._curves -= question.curves
        readings = answer.readings
        if answer.outcome == "unclaimed" and stop is None:
            file_path = answer.arrival.file
            reason = answer.reason or NAMES.why_ignored(file_path.name) or UNCLAIMED
            self._ignored.note(reason, str(file_path))
        if stop is not None and not readings:  # what is known to be there is answered, whatever the reader says
            # Curves that an earlier portion has counted: the file is another one now, if nobody wants it any more.
            why = "changed" if answer.outcome == "unclaimed" else answer.reason or "unreadable"
            first = answer.arrival.first
            readings = tuple(Reading(answer.arrival, i, file.arrival.sha256, None, why) for i in range(first, stop))
        last = readings[-1] if readings else None
        if stop is None:
            stop = file.asked = last.index + 1 if last else 0
            file.total = answer.total if last and last.sha256 else stop
            if last is not None and stop < file.total:
                file.arrival = answer.arrival.portion(0, last.sha256 or "", file.total)
                self._maps.append(file)
        for reading in readings:
            if reading.index < stop:
                file.pieces[reading.index] = Piece(reading, file.total or 0, file.stamp)
                self._curves += 1
                self._bytes += _bytes_of(reading)
        if last is not None and last.index + 1 < stop:
            self._submit(file, last.index + 1, stop)

    def _hand_on(self, file: _File) -> Iterator[Kept | Piece]:
        if file.kept is not None:
            yield file.kept
            file.kept = None
        while (piece := file.pieces.pop(file.told, None)) is not None:
            file.told += 1
            self._curves -= 1
            self._bytes -= _bytes_of(piece.reading)
            yield piece


@dataclass(slots=True, eq=False)
class _File:
    """What is known of one job."""

    arrival: Arrival
    stamp: Stamp | None
    kept: Kept | None
    total: int | None = None  # curves of the file; None: nobody has opened it yet
    asked: int = 0  # curves below this have been asked for,
    told: int = 0  # and those below this handed on
    in_flight: int = 0
    pieces: dict[int, Piece] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.told == self.total

    @property
    def is_idle(self) -> bool:
        return not self.in_flight and not self.pieces


@dataclass(frozen=True, slots=True)
class _Question:
    file: _File
    arrival: Arrival
    stop: int | None  # curves below this; None: as many as come
    curves: int  # that it is believed to bring


def _bytes_of(reading: Reading) -> int:
    curve = reading.curve
    if curve is None:
        return 0
    arrays = (curve.force, curve.distance, curve.approach_force)
    return sum(array.nbytes for array in arrays if array is not None)


def _stat(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return Stamp(0, 0)
    return Stamp(found.st_size, found.st_mtime_ns)


class Found:
    """The arrivals of some files and folders, in sorted order.

    After an iteration ``ignored`` counts what was passed over unopened, ``link`` is the first link to a folder among
    it, and ``unlisted`` names the folders that could not be looked into.
    """

    def __init__(self, paths: Iterable[Path | str], source: str = "score") -> None:
        self._paths = [Path(path) for path in paths]
        self._source = source
        self._begin()

    def _begin(self) -> None:
        self.ignored, self.unlisted = Ignored(), list[Path]()
        self.link: Path | None = None

    def __iter__(self) -> Iterator[Arrival]:
        self._begin()
        for path in self._paths:
            if path.is_dir():
                for file, other in self._files(path):
                    yield self._arrival(file, file.relative_to(path).as_posix(), other, os.path.abspath(path))
            else:
                other = NAMES.find_other(path) if NAMES.is_first_half(path.name) else None
                yield self._arrival(path, str(path), other)

    def _files(self, folder: Path) -> Iterator[tuple[Path, Path | None]]:
        """All files below a folder that may be curves, in the order of their paths, each with its other half.

        Hidden folders are passed over, and links to folders, which could lead round in circles.
        """
        try:
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            self.unlisted.append(folder)
            return
        names = frozenset(entry.name for entry in ordered if entry.is_file())
        for entry in ordered:
            path = Path(entry.path)
            if not entry.is_dir():
                reason = self._why_ignored(entry)
                if reason is None:
                    other = NAMES.pick_other(entry.name, names) if NAMES.is_first_half(entry.name) else None
                    yield path, None if other is None else path.with_name(other)
                else:
                    self.ignored.note(reason, entry.name)
            elif entry.is_symlink():
                self.ignored.note("link")
                self.link = self.link or path
            elif not entry.name.startswith("."):
                yield from self._files(path)

    def _why_ignored(self, entry: os.DirEntry[str]) -> str | None:
        if (reason := NAMES.why_ignored(entry.name)) is not None:
            return reason
        return None if entry.is_file() or entry.is_symlink() else "not_regular"

    def _arrival(self, file: Path, shown: str, companion: Path | None, folder: str | None = None) -> Arrival:
        try:
            stat = file.stat()
            size_bytes, mtime_ns = stat.st_size, stat.st_mtime_ns
        except OSError:
            size_bytes = mtime_ns = 0  # the reader says what is wrong with it
        return Arrival(
            source=self._source,
            path=event_path(shown),
            file=file,
            companion=companion,
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            folder=folder,
            noticed_s=time.monotonic(),
            claimed=NAMES.claim(file.name) is True,
            final=True,
        )


def find(paths: Iterable[Path | str], source: str = "score") -> Found:
    """Every file under ``paths`` that is a curve file, or may be one: paths relative to the folder they were found in.

    Halves of Asylum pairs are joined. Iterate over the result; then its ``ignored`` says what was passed over.
    """
    return Found(paths, source)
