"""The sheet: verdicts in a file, line by line, with which a run that was ended goes on.

At any moment the file holds whole lines in the order of the curves, and perhaps a torn one at its end. Where files have
changed or come since, the lines from there on are set aside beside it until each is taken back or judged anew: so no
answer is lost, whenever the run is ended. A sheet that holds verdicts on files that are not there is refused.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from daemon.closing import Closing
from daemon.errors import ALREADY_RUNNING, BAD_DATA, INPUT_OUTPUT, UserError
from daemon.judging import Judge
from daemon.scoring.job import Kept
from daemon.scoring.line import OPENING, Line, made_by, read_line

_COPY_BYTES = 1 << 20
_LONGEST_BYTES = 1 << 20  # far more than any line has
_FRESH = "--fresh begins anew"


class Sheet(Closing):
    """The lines of one run. UserError for a file that is no sheet, and for one that another run is writing."""

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
        if engines and judge.engine not in engines:  # a fallback's lines may stand among the usual engine's
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
        """A sheet without a line leaves no file."""
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
        part = self.aside.with_name(f"{self.aside.name}.part")
        try:
            with part.open("wb") as into:
                self._file.seek(self._at)
                _copy(self._file, into)
                if self.aside.exists():
                    with self.aside.open("rb") as earlier:
                        _copy(earlier, into)
            part.replace(self.aside)
            self._file.truncate(self._at)
        except OSError as error:
            part.unlink(missing_ok=True)
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
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError(ALREADY_RUNNING, f"--out {path}: another run is writing it") from error
    except OSError:
        pass  # a network share without locks
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
