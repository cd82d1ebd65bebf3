"""What a run of ``score`` says: a line a curve, printed, or kept in a file with which a run that was ended goes on.

At any moment the file holds whole lines in the order of the curves, and perhaps a torn one at its end. Where files have
changed or come since, the lines from there on are set aside beside it until each is taken back or judged anew: so no
answer is lost, whenever the run is ended. A file that holds verdicts on curves that are not there is refused.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from daemon.batch import Judged, VerdictCounts
from daemon.common.ending import Closing
from daemon.common.errors import ALREADY_RUNNING, BAD_DATA, INPUT_OUTPUT, UserError
from daemon.common.locks import lock_where_possible
from daemon.common.stdio import progress, write_bytes
from daemon.common.text import clean
from daemon.judging import Decision, Judge
from daemon.ledger import events, wire
from daemon.reading.ahead import Job, Kept, Stamp
from daemon.sources import Arrival
from models.files import unfinished

OPENING = b'{"path":'  # how every line begins
_LINES = 64  # between two flushes
_COPY_BYTES = 1 << 20
_LONGEST_BYTES = 1 << 20  # far more than any line has
_FRESH = "--fresh begins anew"

_Key = tuple[str, Stamp]  # by which a file is found again: its path, and the state it was in


def tell(batches: Iterable[Iterable[Kept | Judged]], counts: VerdictCounts, *, json: bool, quiet: bool) -> None:
    """Print a line a curve as they come, or none where ``quiet``."""
    for item in progress(chain.from_iterable(batches), "scoring"):
        if isinstance(item, Kept):
            continue
        counts.count(item)
        if json and not quiet:
            write_bytes(write_line(item.decision))
        elif not quiet:
            print(_line(item.decision))


def _line(decision: Decision) -> str:
    score = "     -" if decision.score is None else f"{decision.score:6.4f}"
    why = ", ".join(reason for reason in decision.reasons if reason != "score")
    return f"{decision.verdict:<8} {score}  {clean(decision.path)}#{decision.curve}" + (f"  ({why})" if why else "")


def note(batches: Iterable[Iterable[Kept | Judged]], counts: VerdictCounts, output: ResumableOutput) -> None:
    """Write a line a curve into the output, which is finished then."""
    waiting = 0
    for item in progress(chain.from_iterable(batches), "scoring"):
        if isinstance(item, Kept):
            output.keep(item)
            continue
        counts.count(item)
        output.write(write_line(item.decision, item.file))
        waiting += 1
        if waiting % _LINES == 0:
            output.flush()
    output.finish()


class ResumableOutput(Closing):
    """The file of one run. UserError for one that holds something else, and for one that another run is writing."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path, self.aside = path, path.with_name(f".{path.name}.aside")
        self._buffer: list[bytes] = []
        self._file = _open(path)
        try:
            _look(self._file, path)
            if fresh:
                self.aside.unlink(missing_ok=True)
                self._file.truncate(0)
            self._size = _cut(self._file)
        except BaseException:
            self._file.close()
            raise
        self._at = 0  # the lines before this byte are the run's; those behind it are looked at yet
        self._tail = 0  # of these, bytes that were set aside

    def lines(self, judge: Judge) -> Iterator[tuple[Line, Kept]]:
        """What earlier runs have said. UserError when another judge said it, or when it is no verdict."""
        engines: set[str] = set()
        for file in (self.path, self.aside):
            if not file.exists():
                continue
            with file.open("rb") as lines:
                offset = 0
                for number, content in enumerate(lines, start=1):
                    line = self._read(content, file, number, judge)
                    engines.add(line.engine)
                    yield line, Kept(file.name, offset, len(content))
                    offset += len(content)
        if engines and str(judge.engine) not in engines:  # a fallback's lines may stand among the usual engine's
            self._refuse(f"engine {', '.join(sorted(engines))}", f"engine {judge.engine}")

    def refuse_strangers(self, count: int) -> None:
        """UserError, for so many of its lines are on files that this run would not come to."""
        verdicts = "1 verdict" if count == 1 else f"{count} verdicts"
        what = f"{self.path} holds {verdicts} on files that are not among these paths"
        raise UserError(BAD_DATA, f"{what}; name another file, name those folders too, or {_FRESH}")

    def keep(self, kept: Kept) -> None:
        """These lines come next, as they are."""
        self.flush()
        if kept.source == self.path.name and kept.offset == self._at and not self._tail:
            self._at += kept.length_bytes
            return
        self._set_aside()
        at = kept.offset - (self._size - self._tail) if kept.source == self.path.name else kept.offset + self._tail
        with self.aside.open("rb") as file:
            file.seek(at)
            self.write(file.read(kept.length_bytes))

    def write(self, line: bytes) -> None:
        """A new line; on disk after the next :meth:`flush`."""
        self._buffer.append(line)

    def flush(self) -> None:
        """Hand what was written to the system. UserError 74 when the disk is full."""
        if not self._buffer:
            return
        self._set_aside()
        content = memoryview(b"".join(self._buffer))
        self._buffer.clear()
        try:
            while content:
                written = os.pwrite(self._file.fileno(), content, self._at)
                self._at += written
                content = content[written:]
        except OSError as error:
            raise self._failure(error) from error

    def finish(self) -> None:
        """The run is over: what is left of earlier ones is about files that were judged anew."""
        self.flush()
        if not self._is_whole():
            raise UserError(INPUT_OUTPUT, f"{self.path}: was removed, replaced or cut off meanwhile; score again")
        try:
            self._file.truncate(self._at)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error
        self.aside.unlink(missing_ok=True)

    def close(self) -> None:
        """A run without a line leaves no file."""
        if not os.fstat(self._file.fileno()).st_size:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def _is_whole(self) -> bool:
        """Whether the file of that name is the one that was written, and nobody has cut it."""
        try:
            named, ours = self.path.stat(), os.fstat(self._file.fileno())
        except OSError:
            return False
        return os.path.samestat(named, ours) and ours.st_size >= self._at

    def _set_aside(self) -> None:
        """Lines behind this run's, before those set aside by an earlier run, in the file beside."""
        if self._tail or self._at >= self._size:
            return
        try:
            with unfinished(self.aside) as part, part.open("wb") as into:
                self._file.seek(self._at)
                _copy(self._file, into)
                if self.aside.exists():
                    with self.aside.open("rb") as earlier:
                        _copy(earlier, into)
            self._file.truncate(self._at)
        except OSError as error:
            raise self._failure(error) from error
        self._tail = self._size - self._at

    def _read(self, content: bytes, file: Path, number: int, judge: Judge) -> Line:
        try:
            line = read_line(content)
        except ValueError as error:
            raise UserError(BAD_DATA, f"{file} line {number}: {error}; {_FRESH}") from error
        for theirs, ours in zip(line.made_by, made_by(judge), strict=True):
            if theirs != ours:
                self._refuse(theirs, ours)
        return line

    def _refuse(self, theirs: str, ours: str) -> None:
        raise UserError(
            BAD_DATA, f"{self.path}: its lines are of {theirs}, this is {ours}; name another file, {_FRESH}"
        )

    def _failure(self, error: OSError) -> UserError:
        text = f"{self.path}: {error.strerror}; what is written holds, the same command goes on from there"
        return UserError(INPUT_OUTPUT, text)


def _open(path: Path) -> BinaryIO:
    """For reading and writing, created if need be, and locked as long as it is open."""
    if path.exists() and not path.is_file():
        raise UserError(BAD_DATA, f"--out {path}: no regular file; leave --out away to write into a pipe")
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b", buffering=0)
    try:
        lock_where_possible(file.fileno())
    except BlockingIOError as error:
        file.close()
        raise UserError(ALREADY_RUNNING, f"--out {path}: another run is writing it") from error
    return file


def _look(file: BinaryIO, path: Path) -> None:
    """UserError for a file that somebody wrote something else into: it might be a curve, or a JSON file of theirs."""
    start = file.readline(_LONGEST_BYTES)
    begun = start.rstrip(b"\0")  # a power cut can leave zeros behind a torn line
    if start and not (begun and _may_be_ours(begun)):
        raise UserError(BAD_DATA, f"--out {path}: holds something else than verdicts; name another file")


def _may_be_ours(line: bytes) -> bool:
    """Whether it is a verdict, or one that is torn: those end in the middle of their JSON."""
    if not (OPENING.startswith(line) or line.startswith(OPENING)):
        return False
    try:
        read_line(line)
    except ValueError:
        return not line.endswith((b"}", b"\n"))
    return True


def _cut(file: BinaryIO) -> int:
    """Cut a torn last line off; the bytes that are left."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - _COPY_BYTES, 0)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        end = start + newline + 1
        if newline >= 0:
            break
    file.truncate(end)
    return end


def _copy(source: BinaryIO, into: BinaryIO) -> None:
    while content := source.read(_COPY_BYTES):
        into.write(content)


class Earlier:
    """The answers of earlier runs; each is given away once."""

    def __init__(self, lines: Iterable[tuple[Line, Kept]]) -> None:
        self._told: defaultdict[_Key, list[_Told]] = defaultdict(list)
        self.kept = 0  # curves whose answers have been given away
        key: _Key | None = None
        last: _Told | None = None
        for line, kept in lines:
            before, key = key, (line.path, line.stamp)
            if last is not None and key == before and last.takes(line, kept):
                last.answered += 1
                last.kept = replace(last.kept, length_bytes=last.kept.length_bytes + kept.length_bytes)
            elif line.curve == 0:
                last = _Told(line.curves, line.sha256, kept)
                self._told[key].append(last)
            else:
                last = None  # a row without its beginning is judged anew

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


@dataclass(frozen=True, slots=True)
class Line:
    """What a line says about a curve and its file, and who said it, as far as a later run looks at it."""

    path: str
    curve: int
    sha256: str | None
    stamp: Stamp
    curves: int  # of the file
    engine: str
    made_by: tuple[str, str, str]  # model, pipeline, thresholds


def write_line(decision: Decision, file: Mapping[str, int] | None = None) -> bytes:
    """One line of JSON with its end; ``file`` as :meth:`daemon.reading.ahead.Stamp.with_curves` says it."""
    data = wire.as_plain(events.decision_data(decision, time.monotonic() - decision.noticed_s))
    return wire.encode(data if file is None else {**data, "file": file}) + b"\n"


def read_line(content: bytes) -> Line:
    """The inverse, as far as a later run needs it. ValueError for what ``score --out`` has not written."""
    try:
        data = json.loads(content)
        file = data["file"]
        thresholds = data["thresholds"]
        return Line(
            path=str(data["path"]),
            curve=int(data["curve"]),
            sha256=data["sha256"],
            stamp=Stamp(int(file["size_bytes"]), int(file["mtime_ns"])),
            curves=int(file["curves"]),
            engine=str(data["engine"]),
            made_by=made_of(data["model"], data["pipeline"], thresholds["discard"], thresholds["keep"]),
        )
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError("no verdict of score --out") from error


class _Opinion(Struct):
    verdict: str
    reasons: tuple[str, ...]


_OPINION = msgspec.json.Decoder(_Opinion)


def opinion_of(line: bytes) -> tuple[str, tuple[str, ...]]:
    """Verdict and reasons of a line."""
    try:
        said = _OPINION.decode(line)
    except msgspec.DecodeError:  # a file name that is not UTF-8 is escaped as only Python reads it
        data = json.loads(line)
        return data["verdict"], tuple(data["reasons"])
    return said.verdict, said.reasons


def made_by(judge: Judge) -> tuple[str, str, str]:
    """What lines must have in common with those that are added to them."""
    return made_of(judge.model, judge.pipeline, *judge.thresholds.both)


def made_of(model: str, pipeline: str, discard: float, keep: float) -> tuple[str, str, str]:
    """As :func:`made_by`, for whoever has the words."""
    return f"model {model}", f"pipeline {pipeline}", f"thresholds {discard:g} and {keep:g}"
