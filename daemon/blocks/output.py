"""The dataset of verdicts that ``score --cluster --out DIR`` fills: each curve once, and no work twice.

A curve is the bytes of its file and its number in it (sha256 and curve): the same archive twice, or a folder that was
copied, adds nothing, and ``_notes/same.jsonl`` says which files have their rows by other names. Which curves have rows
is in an index, a SQLite file beside the notes, so that the memory of a run does not grow with the dataset; an index
that is missing, or is not of the last commit, is made again from the rows.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daemon import tables
from daemon.archive import Archive
from daemon.common.ending import Closing
from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, UserError
from daemon.reading.ahead import Job, Stamp
from daemon.sources import Arrival
from daemon.tables.dataset import NOTES, Dataset, today, values_of
from models.files import append_line

_MOST_ROWS = 1 << 14  # that wait for a commit
_FIRST_S, _LONGEST_S = 1.0, 30.0  # between two commits: each makes files, and what is not committed is judged again
_MADE_BY, _ROWS_OF = "made by", "rows of "
_FRESH = "name another folder, or --fresh begins anew"
_NAMING = ("folder", "path", "curve", "sha256", "size_bytes", "mtime_ns", "curves", "rest")

_SCHEMA = """
    create table state (number integer not null);
    create table known (sha256 blob, first integer, stop integer, primary key (sha256, first)) without rowid;
    create table files (name blob primary key, sha256 blob, size_bytes integer, mtime_ns integer, curves integer)
        without rowid;
    create table replaced (folder blob, path blob, sha256 blob, size_bytes integer, mtime_ns integer);
"""


@dataclass(frozen=True, slots=True)
class _File:
    """A file as a line names it, and the state that it was in; ``sha256``: None where it could not be read."""

    folder: str | None
    path: str
    sha256: str | None
    stamp: Stamp
    curves: int

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> _File | None:
        """None where the line says nothing of it."""
        if (file := line.get("file")) is None:
            return None
        stamp = Stamp(file["size_bytes"], file["mtime_ns"])
        return cls(line["folder"], line["path"], line["sha256"], stamp, file["curves"])

    def line(self) -> dict[str, Any]:
        """The inverse of :meth:`of`."""
        file = self.stamp.with_curves(self.curves)
        return {"folder": self.folder, "path": self.path, "sha256": self.sha256, "file": file}

    def packed(self) -> _File:
        """As it is known in an archive, by its bytes, for others may bear its name; it is never replaced."""
        return replace(self, folder=f"\0{self.sha256}")

    @property
    def mark(self) -> tuple[Any, ...]:
        """What its rows have, and those of the same name in another state have not."""
        return self.path, self.sha256, None if self.sha256 else self.stamp


class TableOutput(Closing):
    """The dataset of one run, which may add to those before. ``kept``: curves that earlier runs have judged.

    UserError 73 while another run has it, 65 for rows of another judge, or for a folder that holds something else, 74
    where it cannot be written; what is committed holds.
    """

    def __init__(self, folder: Path, made_by: tuple[str, str, str], *, fresh: bool = False) -> None:
        self.kept = self.doubled = 0
        self._lines: list[dict[str, Any]] = []  # of the next commit, and so the next two
        self._rows_of_archives: dict[str, Any] = {}
        self._same: list[_File] = []
        self._file: _File | None = None  # of the last line, and whether it had rows by its very name
        self._is_own = False
        self._since_s, self._pause_s = time.monotonic(), _FIRST_S
        self._dataset = Dataset(folder, tables.schema(), ("folder", "day"), fresh=fresh)
        try:
            self._check(made_by)
            self._index = _Index(folder / NOTES / "index.sqlite")
            if self._index.number != self._dataset.number:
                self._make_index()
        except BaseException:
            self._dataset.close()
            raise

    def job(self, arrival: Arrival) -> Job:
        """What is left to do about a file."""
        stamp = Stamp.of(arrival)
        known = self._index.file(arrival.folder, arrival.path)
        if known is None or known.stamp != stamp or known.sha256 is None:  # what could not be read is tried again
            return Job(arrival, stamp)
        answered = min(self._index.answered(known.sha256), known.curves)
        self.kept += answered
        if not answered:
            return Job(arrival, stamp)
        if answered == known.curves:
            return Job(arrival, stamp, is_answered=True)
        return Job(arrival.portion(answered, known.sha256, known.curves), stamp)

    def told(self, archive: Archive) -> list[tuple[int, int]]:
        """Spans (first, stop) of the rows of an archive that are judged."""
        spans = self._spans(archive)
        self.kept += sum(stop - first for first, stop in spans)
        return spans

    def add(self, lines: Sequence[bytes], archive: Archive | None = None, first: int = 0) -> int:
        """What a node says; of an archive the rows from ``first`` on. How many of the curves are new.

        Their rows are in the dataset with the next commit.
        """
        fresh = 0
        try:
            for line in map(json.loads, lines):
                if self._is_new(line, is_packed=archive is not None):
                    self._lines.append(line)
                    fresh += 1
        except BaseException:
            self._forget()
            raise
        if archive is not None:
            spans = _joined([*self._spans(archive), (first, first + len(lines))])
            self._rows_of_archives[_key(archive)] = {"state": archive.state[2:], "spans": spans}
        if len(self._lines) >= _MOST_ROWS or time.monotonic() > self._since_s + self._pause_s:
            self._commit()
        return fresh

    def finish(self) -> None:
        """The run is over: rows of files that were judged anew, because they have changed, go."""
        self._commit()
        if replaced := self._index.replaced():
            self._remove(replaced)
            self._index.forget(replaced)
            self._index.commit(self._dataset.number)
        self._dataset.merge(before=today())

    def report(self) -> list[str]:
        """What a user is to be told of the run."""
        if not self.doubled:
            return []
        what = "1 curve has its row" if self.doubled == 1 else f"{self.doubled} curves have their rows"
        return [f"{what} already, of the same bytes elsewhere, and none was added; {self._same_path} has the files"]

    def close(self) -> None:
        """What waits is committed, if it can be."""
        with suppress(UserError):
            self._commit()
        self._index.close()
        self._dataset.close()

    # Which curves are new.

    def _is_new(self, line: Mapping[str, Any], *, is_packed: bool) -> bool:
        """Whether a row of it is to be added."""
        said = _File.of(line)
        file = said.packed() if said is not None and is_packed else said
        before = self._enter(file) if file is not None and file != self._file else None
        if line["sha256"] is None:
            return before is None or file is None or before.mark != file.mark
        if self._index.add(line["sha256"], line["curve"]):
            return True
        if said is None or is_packed or not self._is_own:
            self.doubled += 1
            if said is not None and self._same[-1:] != [said]:
                self._same.append(said)
        return False

    def _enter(self, file: _File) -> _File | None:
        """The first line of a file: note its name; what was known of that before."""
        before = self._index.file(file.folder, file.path)
        self._file, self._is_own = file, before is not None and before.sha256 == file.sha256
        if before is not None and before.mark != file.mark:
            self._index.let_go(before)
        if before != file:
            self._index.name(file)
        return before

    def _spans(self, archive: Archive) -> list[tuple[int, int]]:
        noted = self._rows_of_archives.get(_key(archive)) or self._dataset.noted.get(_key(archive))
        if noted is None or tuple(noted["state"]) != tuple(archive.state[2:]):
            return []
        return [(first, stop) for first, stop in noted["spans"]]

    def _check(self, made_by: tuple[str, str, str]) -> None:
        before = self._dataset.noted.get(_MADE_BY)
        if before is None:
            self._dataset.commit(None, {_MADE_BY: list(made_by)})
            return
        for theirs, ours in zip(before, made_by, strict=True):
            if theirs != ours:
                where = self._dataset.folder
                raise UserError(BAD_DATA, f"{where}: its rows are of {theirs}, this is {ours}; {_FRESH}")

    # Commits.

    @property
    def _same_path(self) -> Path:
        return self._dataset.folder / NOTES / "same.jsonl"

    def _commit(self) -> None:
        """UserError 74 where it cannot be; nothing of it is tried again by this run then."""
        lines, noted, same = self._lines, self._rows_of_archives, self._same
        try:
            if lines or noted:
                self._dataset.commit(tables.rows(lines) if lines else None, noted)
            if same:  # what stands there is committed
                self._tell_same(same)
            self._index.commit(self._dataset.number)
        except BaseException:
            self._forget()
            raise
        self._lines, self._rows_of_archives, self._same = [], {}, []
        self._since_s, self._pause_s = time.monotonic(), min(2 * self._pause_s, _LONGEST_S)

    def _forget(self) -> None:
        """What is not committed has never been."""
        self._lines, self._rows_of_archives, self._same = [], {}, []
        self._index.roll_back()

    def _tell_same(self, files: Iterable[_File]) -> None:
        try:
            append_line(self._same_path, b"\n".join(json.dumps(file.line()).encode() for file in files))
        except OSError as error:
            raise UserError(INPUT_OUTPUT, f"{self._same_path}: {error.strerror}; make room, score again") from error

    def _remove(self, files: Sequence[_File]) -> None:
        """The rows of files as they were."""
        marks: defaultdict[str | None, set[tuple[Any, ...]]] = defaultdict(set)
        for file in files:
            marks[file.folder].add(file.mark)
        folders = {folder or "" for folder in marks}
        for part in list(self._dataset.parts()):
            folder = values_of(part.relative_to(self._dataset.folder)).get("folder") or ""
            if folder not in folders and not folder.endswith("…"):  # one with too long a name
                continue
            table = self._dataset.read_part(part)
            named = (_File.of(_line_of(row)) for row in table.select(_NAMING).to_pylist())
            left = [file is None or file.mark not in marks[file.folder] for file in named]
            if not all(left):
                self._dataset.replace(part, table.filter(left))

    def _make_index(self) -> None:
        """Anew, from the rows and from the names that are the same."""
        self._index.empty()
        for table in self._dataset.read(_NAMING):
            for line in map(_line_of, table.to_pylist()):
                if line["sha256"] is not None:
                    self._index.add(line["sha256"], line["curve"])
                if (file := _File.of(line)) is not None and file != self._file:
                    self._file = file
                    self._name(file)
        with suppress(FileNotFoundError), self._same_path.open("rb") as lines:
            for content in lines:
                with suppress(ValueError, LookupError, TypeError):  # a torn line is told again
                    if (file := _File.of(json.loads(content))) is not None:
                        self._name(file)
        self._file = None
        self._index.commit(self._dataset.number)

    def _name(self, file: _File) -> None:
        """As its row says it; without a folder it may be one of an archive, which nothing replaces."""
        if file.folder is None and any(key.startswith(_ROWS_OF) for key in self._dataset.noted):
            self._index.name(file.packed())
        else:
            self._index.name_the_newer(file)


def _key(archive: Archive) -> str:
    """Of the note on an archive."""
    return f"{_ROWS_OF}{os.fsencode(archive.path.absolute()).decode('utf-8', 'backslashreplace')}"


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same rows in as few spans as can be, in order."""
    joined: list[tuple[int, int]] = []
    for first, stop in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        elif stop > first:
            joined.append((first, stop))
    return joined


def _line_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the line said that a row was made of, as far as it names its curve."""
    line = {name: row[name] for name in ("path", "curve", "sha256")} | {"folder": row["folder"] or None}
    if row["size_bytes"] is not None:
        line["file"] = {name: row[name] for name in ("size_bytes", "mtime_ns", "curves")}
    said: dict[str, Any] = json.loads(row["rest"]).get("data", {}) if row["rest"] else {}
    return line | {name: said[name] for name in ("path", "curve", "sha256", "folder", "file") if name in said}


class _Index:
    """Which curves have rows, and what is known of files by their names; one process has it, as the dataset itself.

    ``number``: the commit of the dataset that it is of; None where it has to be made. UserError 74.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.number: int | None = None
        self._open()
        with suppress(UserError):  # no index, or not a whole one
            found = self._one("select number from state")
            self.number = None if found is None else found[0]

    def empty(self) -> None:
        """Whatever it holds is forgotten."""
        self.close()
        try:
            for path in self._path.parent.glob(f"{self._path.name}*"):
                path.unlink()
        except OSError as error:
            raise self._failure(error) from error
        self._open()
        for statement in _SCHEMA.split(";")[:-1]:
            self._run(statement)
        self._run("insert into state values (-1)")

    def commit(self, number: int) -> None:
        """All that was entered is on the disk."""
        self._run("update state set number = ?", number)
        self._run("commit")
        self._run("begin")
        self.number = number

    def roll_back(self) -> None:
        """What was entered since the last commit is forgotten."""
        with suppress(sqlite3.DatabaseError):
            self._connection.rollback()
            self._connection.execute("begin")

    def close(self) -> None:
        """As :meth:`roll_back`."""
        self._connection.close()

    def add(self, sha256: str, curve: int) -> bool:
        """Enter a curve; whether it was not there."""
        sha = bytes.fromhex(sha256)
        before = self._one(
            "select first, stop from known where sha256 = ? and first <= ? order by first desc limit 1", sha, curve
        )
        if before is not None and curve < before[1]:
            return False
        stop = curve + 1
        if (behind := self._one("select stop from known where sha256 = ? and first = ?", sha, stop)) is not None:
            self._run("delete from known where sha256 = ? and first = ?", sha, stop)
            stop = behind[0]
        first = before[0] if before is not None and before[1] == curve else curve
        self._run("insert or replace into known values (?, ?, ?)", sha, first, stop)
        return True

    def answered(self, sha256: str) -> int:
        """How many curves of a file are there from its first one on."""
        found = self._one("select stop from known where sha256 = ? and first = 0", bytes.fromhex(sha256))
        return 0 if found is None else int(found[0])

    def file(self, folder: str | None, path: str) -> _File | None:
        """What is known by a name."""
        wanted = "select sha256, size_bytes, mtime_ns, curves from files where name = ?"
        for sha, *stamp, curves in self._run(wanted, _digest(folder, path)):
            return _File(folder, path, None if sha is None else sha.hex(), Stamp(*stamp), curves)
        return None

    def name(self, file: _File) -> None:
        """What is known by its name is this now."""
        name, sha, stamp = _digest(file.folder, file.path), _blob(file.sha256), file.stamp
        known = name, sha, stamp.size_bytes, stamp.mtime_ns, file.curves
        self._run("insert or replace into files values (?, ?, ?, ?, ?)", *known)

    def name_the_newer(self, file: _File) -> None:
        """The same, unless what is known by its name was written later; the other one is replaced."""
        before = self.file(file.folder, file.path)
        newer, older = file, before
        if before and (before.stamp.mtime_ns, before.sha256 or "") > (file.stamp.mtime_ns, file.sha256 or ""):
            newer, older = before, file
        if older is not None and older.mark != newer.mark:
            self.let_go(older)
        self.name(newer)

    def let_go(self, file: _File) -> None:
        """Its rows are to go."""
        names = (os.fsencode(file.folder or ""), os.fsencode(file.path), _blob(file.sha256))
        self._run("insert into replaced values (?, ?, ?, ?, ?)", *names, file.stamp.size_bytes, file.stamp.mtime_ns)

    def replaced(self) -> list[_File]:
        """Those of :meth:`let_go`, but for bytes that another file has too: its curves need the rows."""
        unused = "sha256 is null or sha256 not in (select sha256 from files where sha256 is not null)"
        found = self._run(f"select * from replaced where {unused}").fetchall()
        return [
            _File(os.fsdecode(folder) or None, os.fsdecode(path), sha.hex() if sha else None, Stamp(size, mtime), 0)
            for folder, path, sha, size, mtime in found
        ]

    def forget(self, files: Iterable[_File]) -> None:
        """Their rows have gone."""
        for file in files:
            if file.sha256 is not None:
                self._run("delete from known where sha256 = ?", bytes.fromhex(file.sha256))
        self._run("delete from replaced")

    def _open(self) -> None:
        try:
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            self._connection.execute("pragma locking_mode = exclusive")
            self._connection.execute("begin")
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error

    def _one(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        found: tuple[Any, ...] | None = self._run(statement, *values).fetchone()
        return found

    def _run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> UserError:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self._path.unlink(missing_ok=True)  # damaged: the next run makes it again
        return UserError(INPUT_OUTPUT, f"{self._path}: {error}; what is written holds, the same command goes on")


def _blob(sha256: str | None) -> bytes | None:
    return None if sha256 is None else bytes.fromhex(sha256)


def _digest(folder: str | None, path: str) -> bytes:
    """16 bytes that stand for a name; two of 10^9 names have the same by a chance of 10^-21."""
    return hashlib.blake2b(os.fsencode(f"{folder or ''}\0{path}"), digest_size=16).digest()
