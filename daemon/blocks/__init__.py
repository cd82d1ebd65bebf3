"""Blocks: what many files and archives are cut into, so that many computers can judge them, and what is done with one.

A block is some files, in the order in which they were found, or some rows of one archive, in their order. It is judged
or read by the very stages that `score` and `pack` have on one computer (``daemon.batch``, ``daemon.archive``), on a
node: a part of a cluster, with an engine and processes of its own that read. The node answers in pieces, each of which
says how far it has come, so that whatever it says no more can be asked of another one from there on.

Everything that travels is one of the types below, as bytes. Nothing in here knows what carries it.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from daemon.archive import Archive, BadArchive, Part, Portion, portions, prepare_portions, score_portions, start_workers
from daemon.archive import state_of as archive_state
from daemon.archive.writer import pack_row, read_rows
from daemon.batch import Judged, score_jobs
from daemon.batch.output import write_line
from daemon.common.ending import Closing
from daemon.formats.limits import MIB
from daemon.formats.text_rule import TextRule
from daemon.judging import Judge
from daemon.processes.worker_pool import WorkerPool
from daemon.reading.ahead import Job, Stamp
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival, Ignored
from deploy.classifier import usable_cores
from deploy.serving import Model
from models.raster import RasterProfile

#: A block of files ends with the one that reaches either, one of an archive with its rows: some seconds of a core.
MOST_FILES, MOST_BYTES, MOST_ROWS = 1024, 256 * MIB, 8192
#: The first blocks are smaller, so that every node has something to do while the folders are still looked through.
_FIRST_FILES, _GROWS_AFTER = 128, 16
_ANSWER_BYTES = 128 << 10  # of contents in one answer, unless one alone is longer
_ANSWER_S = 2.0  # after which what there is is told
PATIENCE_S = 120.0  # that a node may say nothing; a large file takes longer, and is given longer


@dataclass(frozen=True, slots=True)
class FileBlock:
    """Some files, each from the curve on that its job says; ``number`` counts the blocks of a run from 0."""

    number: int
    jobs: tuple[Job, ...]

    @property
    def name(self) -> str:
        """Its first file, for whoever is told of it."""
        return str(self.jobs[0].arrival.file) if self.jobs else ""

    @property
    def largest_bytes(self) -> int:
        """Of its files: how long a node may say nothing follows from it."""
        return max((job.arrival.size_bytes for job in self.jobs), default=0)

    def behind(self, reached: Reached) -> FileBlock:
        """What is left of it."""
        left = list(self.jobs[reached.jobs :])
        if left and reached.curve:
            arrival = left[0].arrival.portion(reached.curve, reached.sha256, reached.total)
            left[0] = replace(left[0], arrival=arrival)
        return FileBlock(self.number, tuple(left))


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Rows of one archive from ``first`` (counted from 0) on, as portions of its parts, which touch each other."""

    number: int
    first: int
    portions: tuple[Portion, ...]

    @property
    def name(self) -> str:
        return str(self.portions[0].archive.path) if self.portions else ""

    largest_bytes = 0  # rows are told as they are read

    @property
    def count(self) -> int:
        return sum(portion.count for portion in self.portions)

    def behind(self, reached: Reached) -> RowBlock:
        """What is left of it."""
        left, skip = [], reached.rows
        for one in self.portions:
            told = min(skip, one.count)
            skip -= told
            if told < one.count:
                left.append(Portion(one.archive, one.part, one.first + told, one.count - told))
        return RowBlock(self.number, self.first + reached.rows, tuple(left))


Block = FileBlock | RowBlock


def cut(jobs: Iterable[Job], number: int = 0) -> Iterator[Block]:
    """The jobs that are not answered yet, in blocks numbered from ``number`` on, none looked for before its turn."""
    waiting: list[Job] = []
    size_bytes = 0
    for job in (one for one in jobs if not one.is_answered):
        waiting.append(job)
        size_bytes += job.arrival.size_bytes
        most = min(_FIRST_FILES << (number // _GROWS_AFTER), MOST_FILES)
        if len(waiting) >= most or size_bytes >= MOST_BYTES:
            yield FileBlock(number, tuple(waiting))
            number, waiting, size_bytes = number + 1, [], 0
    if waiting:
        yield FileBlock(number, tuple(waiting))


def cut_rows(archive: Archive, told: Sequence[tuple[int, int]] = (), number: int = 0) -> Iterator[Block]:
    """The rows of an archive that nobody has told yet; ``told``: spans (first, stop) of rows, in any order."""
    row = start = 0
    waiting: list[Portion] = []
    spans = sorted(told)
    for portion in portions([archive]):
        for one, first in _apart(portion, row, spans):
            count = sum(each.count for each in waiting)
            if waiting and (count + one.count > MOST_ROWS or first != start + count):
                yield RowBlock(number, start, tuple(waiting))
                number, waiting = number + 1, []
            if not waiting:
                start = first
            waiting.append(one)
        row += portion.count
    if waiting:
        yield RowBlock(number, start, tuple(waiting))


def cut_archives(archives: Iterable[Archive], told: Callable[[Archive], Sequence[tuple[int, int]]]) -> Iterator[Block]:
    """The rows of all of them that are left, as :func:`cut_rows`."""
    number = 0
    for one in archives:
        for block in cut_rows(one, told(one), number):
            number = block.number + 1
            yield block


def _apart(portion: Portion, row: int, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[Portion, int]]:
    """What lies in none of the spans, each piece with its first row; that of the portion is ``row``."""
    at, stop = row, row + portion.count
    for first, end in [*spans, (stop, stop)]:
        if end <= at or first > stop:
            continue
        if first > at:
            yield Portion(portion.archive, portion.part, portion.first + at - row, first - at), at
        at = max(at, end)


# What travels.


class Reached(Struct, frozen=True, array_like=True):
    """How far a block is told: ``rows`` of it; of files whole ``jobs``, and of the next one curves below ``curve``."""

    rows: int = 0
    jobs: int = 0
    curve: int = 0
    sha256: str | None = None  # of that file, which has ``total`` curves
    total: int = 1


class Answer(Struct, frozen=True, array_like=True):
    """A piece of what is known of a block, curve by curve, in order.

    ``contents[i]`` and ``formats[i]`` are of the row ``first + i`` of the block, as :class:`Row` says them.
    """

    first: int
    contents: tuple[bytes, ...]
    formats: tuple[str | None, ...]
    reached: Reached
    ignored: tuple[tuple[int, str], ...] = ()  # files passed over since the last answer: job of the block, kind
    is_last: bool = False
    code: int = 0  # where the rest cannot be judged, as an exit code: 65, 74; 69 where it is the node that cannot
    trouble: str = ""  # and why, one line

    def behind(self, told: Reached) -> Answer:
        """Without what was told before, perhaps by another node."""
        skip = max(told.rows - self.first, 0)
        contents, formats = self.contents[skip:], self.formats[skip:]
        kinds = tuple(one for one in self.ignored if one[0] >= told.jobs)
        return msgspec.structs.replace(self, first=self.first + skip, contents=contents, formats=formats, ignored=kinds)


def row_of(block: Block, answer: Answer) -> tuple[Archive | None, int]:
    """For rows of an archive: which one, and which of its rows an answer begins with."""
    if isinstance(block, FileBlock):
        return None, 0
    return block.portions[0].archive, block.first + answer.first


class _File(Struct, frozen=True, array_like=True):
    """A job as it travels: names are bytes, for not all of them are UTF-8."""

    file: bytes
    path: bytes
    folder: bytes | None
    companion: bytes | None
    state: tuple[int, int, bool]  # size, mtime, whether the name belongs to a format
    stamp: tuple[int, int] | None
    rest: tuple[int, str | None, int] | None  # first curve, sha256 and curves, of one that is told in part


class _Files(Struct, frozen=True, array_like=True, tag="files"):
    number: int
    files: tuple[_File, ...]


class _Rows(Struct, frozen=True, array_like=True, tag="rows"):
    number: int
    first: int
    archive: bytes
    state: tuple[int, ...]
    parts: tuple[tuple[dict[str, Any], int, int], ...]  # header, first row, rows


_BLOCK = msgspec.msgpack.Decoder(_Files | _Rows)
_PACK = msgspec.msgpack.Encoder()
_QUICK = 1  # of zlib: half the size in a tenth of the time that a line takes to be made


def pack(message: Struct, level: int = _QUICK) -> bytes:
    """A message as it travels; ``level`` is one of zlib's, 0 for what would hardly become smaller."""
    return zlib.compress(_PACK.encode(message), level)


def unpack_answer(content: bytes) -> Answer:
    """The inverse of :func:`pack`. ValueError for what is none, as of all that follow."""
    return msgspec.msgpack.decode(zlib.decompress(content), type=Answer)


def pack_block(block: Block) -> bytes:
    """A block as it travels."""
    if isinstance(block, FileBlock):
        return pack(_Files(block.number, tuple(map(_file_of, block.jobs))))
    archive = block.portions[0].archive
    parts = tuple((one.part.to_header(), one.first, one.count) for one in block.portions)
    return pack(_Rows(block.number, block.first, os.fsencode(archive.path.absolute()), archive.state, parts))


def unpack_block(content: bytes) -> Block:
    """The inverse, on a node. BadArchive where the archive is another one there."""
    found = _BLOCK.decode(zlib.decompress(content))
    if isinstance(found, _Files):
        return FileBlock(found.number, tuple(map(_job_of, found.files)))
    path = Path(os.fsdecode(found.archive))
    state = archive_state(path.stat())
    if state[2:] != tuple(found.state[2:]):  # device and inode are numbers of each computer's own
        raise BadArchive("is not the file here that it is where the run was started, or it has changed; score it again")
    parts = [(Part.checked(header, state[2]), first, count) for header, first, count in found.parts]
    archive = Archive(path, sum(count for _, _, count in parts), tuple(part for part, _, _ in parts), state)
    return RowBlock(found.number, found.first, tuple(Portion(archive, *one) for one in parts))


def _file_of(job: Job) -> _File:
    arrival = job.arrival
    return _File(
        os.fsencode(os.path.abspath(arrival.file)),
        os.fsencode(arrival.path),
        None if arrival.folder is None else os.fsencode(arrival.folder),
        None if arrival.companion is None else os.fsencode(os.path.abspath(arrival.companion)),
        (arrival.size_bytes, arrival.mtime_ns, arrival.claimed),
        None if job.stamp is None else (job.stamp.size_bytes, job.stamp.mtime_ns),
        (arrival.first, arrival.sha256, arrival.total) if arrival.first else None,
    )


def _job_of(file: _File) -> Job:
    size_bytes, mtime_ns, is_claimed = file.state
    arrival = Arrival(
        source="score",
        path=os.fsdecode(file.path),
        file=Path(os.fsdecode(file.file)),
        companion=None if file.companion is None else Path(os.fsdecode(file.companion)),
        size_bytes=size_bytes,
        mtime_ns=mtime_ns,
        folder=None if file.folder is None else os.fsdecode(file.folder),
        noticed_s=time.monotonic(),
        claimed=is_claimed,
        final=True,
    )
    if file.rest is not None:
        arrival = arrival.portion(*file.rest)
    return Job(arrival, None if file.stamp is None else Stamp(*file.stamp))


# What is done with one.


class Children(Closing):
    """The processes that read for whoever works on block after block; they begin when they are first needed.

    Without a ``profile`` curves come with their samples, and are prepared for nothing.
    """

    def __init__(self, profile: RasterProfile | None, rules: Sequence[TextRule] = ()) -> None:
        self._profile, self._rules = profile, rules
        self._readers: ReaderPool | None = None
        self._workers: WorkerPool | None = None

    @property
    def readers(self) -> ReaderPool:
        """Of files."""
        if self._readers is None:
            self._readers = ReaderPool(max(2, usable_cores()), profile=self._profile, bare=True, rules=self._rules)
        return self._readers

    @property
    def workers(self) -> WorkerPool:
        """Of archives."""
        if self._workers is None:
            self._workers = start_workers()
        return self._workers

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Closes them if it is left early: they have something in hand that nobody waits for."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """What they have in hand is forgotten; the next block starts others."""
        for one in (self._readers, self._workers):
            if one is not None:
                one.close()
        self._readers = self._workers = None


@dataclass(frozen=True, slots=True)
class Row:
    """What becomes of one curve, and which of its file's ``curves`` it is."""

    content: bytes  # the line that `score --out` writes of it, with its end; or what `pack` writes (``pack_row``)
    format: str | None
    folder: str | None
    path: str
    curve: int
    curves: int
    sha256: str | None


def judge(
    block: Block, model: Model, judge: Judge, children: Children, ignored: Ignored, rules: Sequence[TextRule] = ()
) -> Generator[Row]:
    """A verdict on every curve of a block, in order, by the stages of `score` on one computer.

    Files that turn out to be no curves are counted in ``ignored``. Raises BadArchive, WorkersBroken, ReaderBroken.
    """
    batches: Iterable[Sequence[object]]
    with children.at_work():
        if isinstance(block, FileBlock):
            batches = score_jobs(block.jobs, model, judge, None, ignored, rules, children.readers)
        else:
            prepared = prepare_portions(iter(block.portions), model.bundle.profile, children.workers)
            batches = score_portions(prepared, model, judge)
        for one in chain.from_iterable(batches):
            if isinstance(one, Judged):
                of, line = one.decision, write_line(one.decision, one.file)
                yield Row(line, one.format, of.folder, of.path, of.curve, one.curves, of.sha256)


def read(block: FileBlock, children: Children, ignored: Ignored, *, with_distance: bool) -> Generator[Row]:
    """What an archive holds of every curve of a block, in order, by the stages of `pack` on one computer.

    Files that turn out to be no curves are counted in ``ignored``. Raises ReaderBroken.
    """
    with children.at_work():
        for arrival, of, curve in read_rows(block.jobs, ignored, children.readers):
            content = pack_row(of, curve, with_distance=with_distance)
            yield Row(content, of.format, arrival.folder, of.path, of.index, of.curves, of.sha256)


def answers(block: Block, told: Reached, rows: Iterable[Row], kinds: Mapping[str, str]) -> Iterator[Answer]:
    """The rows of a block that are left behind what was ``told``, piece by piece; the last one says so.

    ``kinds``: path -> kind, of files that held no curve; each is told with the next curve, however early it was read.
    """
    place = _Place(block, told, kinds)
    waiting: list[Row] = []
    size_bytes, since_s = 0, time.monotonic()

    def answer(*, is_last: bool = False) -> Answer:
        first, ignored = place.reached.rows - len(waiting), tuple(place.ignored)
        contents, formats = tuple(row.content for row in waiting), tuple(row.format for row in waiting)
        return Answer(first, contents, formats, place.reached, ignored, is_last)

    for row in rows:
        waiting.append(row)
        place.pass_on(row)
        size_bytes += len(row.content)
        if size_bytes >= _ANSWER_BYTES or time.monotonic() > since_s + _ANSWER_S:
            yield answer()
            waiting, place.ignored, size_bytes, since_s = [], [], 0, time.monotonic()
    place.look_for(_NOWHERE)
    yield answer(is_last=True)


_NOWHERE: tuple[str | None, str] = (None, "")


class _Place:
    """Where in its block the telling is."""

    def __init__(self, block: Block, told: Reached, kinds: Mapping[str, str]) -> None:
        self.reached, self._before, self._kinds = told, told.jobs, kinds
        self._jobs = iter(enumerate(block.jobs)) if isinstance(block, FileBlock) else None
        self._file, self._curve, self._number = _NOWHERE, 0, -1
        self.ignored: list[tuple[int, str]] = []  # jobs that were passed over, each with its kind

    def pass_on(self, row: Row) -> None:
        """That curve is told too."""
        if self._jobs is None:
            self.reached = Reached(rows=self.reached.rows + 1)
            return
        file = row.folder, row.path
        if file != self._file or row.curve != self._curve:
            self._number = self.look_for(file)
        self._curve = row.curve + 1
        is_whole = self._curve >= row.curves
        rest = (0, None, 1) if is_whole else (self._curve, row.sha256, row.curves)
        self.reached = Reached(self.reached.rows + 1, self._before + self._number + is_whole, *rest)
        self._file = _NOWHERE if is_whole else file

    def look_for(self, file: tuple[str | None, str]) -> int:
        """The job that it is; those before it held no curve."""
        for at, job in self._jobs or ():
            if (job.arrival.folder, job.arrival.path) == file:
                return at
            if kind := self._kinds.get(str(job.arrival.file)):
                self.ignored.append((self._before + at, kind))
        return -1
