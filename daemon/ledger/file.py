"""The ledger's file: its layout, how it is opened, checked and brought up to date, and what others read in it.

``LedgerView`` reads beside a running service or without one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from daemon.common.ending import Closing
from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.ledger import wire
from daemon.ledger.schema import NAMES_SINCE, check_version, migrate

#: 16 MiB of WAL before SQLite folds it back: fewer slow commits, and still far from the 64 MiB limit.
_CHECKPOINT_PAGES, _WAL_LIMIT_BYTES = 4096, 64 << 20
#: At the start another program's lock is waited for this long; later it is told of, and waited for as long as it lasts.
PATIENCE_S, LOCKED_S = 30.0, 1.0
#: Decisions that are looked at before the first new one is written.
TAIL = 1_000


#: What views of this process have found damaged in a file.
FINDINGS: dict[Path, str] = {}
#: The views of this process. SQLite shares what it maps of a file among all connections of a process, so that after
#: its ``-wal`` was taken away all of them have to be opened anew.
_VIEWS: weakref.WeakSet[LedgerView] = weakref.WeakSet()
_OPENING = threading.RLock()


def open_for_writing(path: Path, patience_s: float = LOCKED_S) -> sqlite3.Connection:
    """The one read-write connection. Raises UserError 74 for a damaged, foreign or newer file, or a full disk."""
    try:
        connection = sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False)
        check_version(connection, path)
        is_new = connection.execute("pragma user_version").fetchone()[0] == 0
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")
        connection.execute(f"pragma wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"pragma journal_size_limit = {_WAL_LIMIT_BYTES}")
        if not is_new:
            _check_tail(connection, path)
        migrate(connection)
        return connection
    except sqlite3.DatabaseError as error:
        raise explain(error, path) from error


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A read-only connection, beside a running service or without one. Raises UserError 69 when there is no ledger."""
    if not path.is_file():
        raise UserError(UNREACHABLE, f"no ledger at {path}: start the service, or name the right --state folder")
    # A reader who may not write into the folder can still read a ledger that nobody has open.
    modes = ("mode=ro",) if _wal(path).exists() else ("mode=ro", "mode=ro&immutable=1")
    for mode in modes:
        try:
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?{mode}",
                uri=True,
                timeout=5.0,
                isolation_level=None,
                check_same_thread=False,
            )
            check_version(connection, path)
            return connection
        except sqlite3.OperationalError as error:
            failure = error
        except sqlite3.DatabaseError as error:
            raise explain(error, path) from error
    raise explain(failure, path) from failure


def checksum(seq: int, verdict: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(f"{seq} {verdict} ".encode()))


def names_of(path: Path) -> tuple[tuple[int, int] | None, ...]:
    """Which files the names of a ledger are: itself, its ``-wal``, its ``-shm``; None where there is none."""
    return tuple(_file_of(path.with_name(path.name + suffix)) for suffix in ("", "-wal", "-shm"))


def _file_of(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


@contextlib.contextmanager
def nobody_reading(path: Path) -> Iterator[None]:
    """No view of this process has the file open as long as the block lasts; each opens it anew when it is asked."""
    with _OPENING, contextlib.ExitStack() as held:
        for view in [view for view in _VIEWS if view.path == path]:
            held.enter_context(view._lock)
            view.release()
        yield


def text(value: str) -> str:
    """A file name as SQLite can hold it: bytes that are not UTF-8 are spelt out."""
    return value.encode("utf-8", "backslashreplace").decode()


def damaged(path: Path, finding: str) -> UserError:
    """What is wrong, and what to do about it; the writer of the ledger, if it is in this process, hears of it too."""
    FINDINGS[path] = finding
    return UserError(
        INPUT_OUTPUT,
        f"{path} is damaged ({finding}): put a backup copy of it back, or move {path.name}* away to begin a new "
        "ledger, which judges the files in the watched folders again",
    )


def locked(path: Path) -> str:
    return f"another program holds {path} locked: end it (fuser {path} names it)"


def explain(error: sqlite3.DatabaseError, path: Path) -> UserError:
    """The same trouble as one line that says what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return UserError(INPUT_OUTPUT, f"{locked(path)}, then start again")
    return UserError(INPUT_OUTPUT, f"{path}: {error}; check free space and permissions of {path.parent}")


def _check_tail(connection: sqlite3.Connection, path: Path) -> None:
    """The last decisions are whole, numbered without a gap, and as many as were counted; quick however many there are.

    The rest is looked at beside the running service. Raises UserError 74.
    """
    query = "select seq, verdict, body, checksum from decisions order by seq desc limit ?"
    rows = connection.execute(query, (TAIL,)).fetchall()
    seq = rows[0][0] if rows else 0
    counted = connection.execute("select sum(curves) from tally").fetchone()[0]
    if counted != seq:
        raise damaged(path, f"it ends at decision {seq} and counts {counted}")
    for number, row in zip(range(seq, 0, -1), rows, strict=False):
        if row[0] != number:
            raise damaged(path, f"decision {number} is not there")
        _sound(path, *row)


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


#: The most decisions one replay answer holds.
REPLAY_LIMIT = 5_000
#: Seconds to look for a name among decisions whose names are not noted yet.
_LOOK_THROUGH_S = 5.0


class Row(NamedTuple):
    """One decision as it lies in the ledger."""

    seq: int
    verdict: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Flagged:
    """One entry of the review queue; its compact copy is fetched by ``seq``."""

    seq: int
    path: str
    curve: int
    sha256: str | None
    score: float | None
    reasons: tuple[str, ...]
    time: str


@dataclass(frozen=True, slots=True)
class Named:
    """One decision on a curve of some name; ``folder`` is "" where none was noted."""

    seq: int
    folder: str
    path: str
    curve: int
    sha256: str | None
    verdict: str


class LedgerView(Closing):
    """A read-only connection, for any thread. Reads are short, so they never hold up a checkpoint.

    Raises UserError 69 when there is no ledger, 74 when it is damaged or newer than this program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._is_closed = False
        self._connection: sqlite3.Connection | None = None
        with _OPENING:
            self._open()
            _VIEWS.add(self)

    def close(self) -> None:
        self._is_closed = True
        self.release()

    def release(self) -> None:
        """Let go of the file; the next question opens it anew."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def is_in_place(self) -> bool:
        """Whether the names of the ledger still are those of the files that are open here."""
        return self._names == names_of(self.path)

    def _open(self) -> sqlite3.Connection:
        """The connection; held by whoever has the lock."""
        if self._connection is None:
            if self._is_closed:
                raise UserError(UNREACHABLE, f"{self.path} has been closed")
            self._connection = open_for_reading(self.path)
            self._names = names_of(self.path)
            (version,) = self._connection.execute("pragma user_version").fetchone()
            self._notes_names = version >= NAMES_SINCE  # not where no service has run since the program was renewed
        return self._connection

    @property
    def stream(self) -> str:
        return str(self._select("select stream from ledger")[0][0])

    @property
    def last_seq(self) -> int:
        return int(self._select("select coalesce(max(seq), 0) from decisions")[0][0])

    def since(self, seq: int, limit: int = REPLAY_LIMIT) -> list[Row]:
        """Decisions with a greater ``seq``, in order, up to the first damaged one.

        Raises UserError 74 when the very next one is damaged: it is not handed out, and nothing behind it is.
        """
        query = "select seq, verdict, body, checksum from decisions where seq > ? order by seq limit ?"
        rows: list[Row] = []
        for stored in self._select(query, seq, limit):
            try:
                rows.append(_sound(self.path, *stored))
            except UserError:
                if not rows:
                    raise
                break
        return rows

    def bodies_since(self, seq: int, limit: int = REPLAY_LIMIT) -> list[tuple[int, bytes]]:
        return [(row.seq, row.body) for row in self.since(seq, limit)]

    def last(self, count: int) -> list[wire.Event]:
        """The last ``count`` decisions, oldest first."""
        return [wire.decode(row.body) for row in self.since(max(self.last_seq - count, 0), count)]

    def verdict_counts(self) -> dict[str, int]:
        return dict(self._select("select verdict, curves from tally"))

    def review_count(self) -> int:
        """Curves that were ever flagged, labelled or not."""
        return self.verdict_counts()["review"]

    def unlabelled_count(self, labels: Path) -> int:
        """Flagged curves on which nobody has said a word yet; ``labels``: the labels.sqlite beside the ledger."""
        flagged = self.review_count()
        if not labels.is_file() or labels.stat().st_size == 0:
            return flagged
        with self._lock:
            return _without_labelled(self._open(), flagged, labels)

    def queue(self, after: int = 0, limit: int = 1_000) -> list[Flagged]:
        """Flagged curves with a greater ``seq``, oldest first."""
        query = """select seq, verdict, body, checksum from decisions
                   where seq in (select seq from reviews where seq > ? order by seq limit ?) order by seq"""
        return [_flagged(_sound(self.path, *row)) for row in self._select(query, after, limit)]

    def find_flagged(self, curve: int, *, sha256: str | None = None, path: str | None = None) -> list[int]:
        """``seq`` of the flagged curves of this content (or, where none is given, of this path), oldest first."""
        column, value = ("sha256", sha256) if sha256 else ("path", text(path or ""))
        query = f"select seq from reviews where {column} = ? and curve = ? order by seq"
        return [seq for (seq,) in self._select(query, value, curve)]

    def flagged(self, seq: int) -> Flagged | None:
        """One entry of the queue; None when that decision was no review."""
        return next((entry for entry in self.queue(seq - 1, 1) if entry.seq == seq), None)

    def compact_copy(self, seq: int) -> bytes | None:
        """The compact copy (.afmcurve bytes) of a flagged curve; None when it could not be read at all."""
        rows = self._select("select keepsake from reviews where seq = ?", seq)
        return rows[0][0] if rows else None

    def decided(self, identity: str) -> Named | None:
        """The decision on the curve of this identity."""
        query = "select seq, verdict, body, checksum from decisions where identity = ?"
        for row in self._select(query, text(identity)):
            data = _data(_sound(self.path, *row))
            return Named(row[0], data.get("folder") or "", data["path"], data["curve"], data["sha256"], row[1])
        return None

    def is_decided(self, identity: str) -> bool:
        return bool(self._select("select 1 from decisions where identity = ?", text(identity)))

    def finished(self, folder: str, path: str, *, of_any: bool = True) -> tuple[int, int, int] | None:
        """(size_bytes, mtime_ns, looked_ns) with which this file of a watched folder was decided, whole; some 10 µs.

        ``of_any``: believe marks from before version 2 too, which do not say of which folder they are. Of a ledger that
        cannot be read None: a file that is read once more is not decided once more.
        """
        mark = "select size_bytes, mtime_ns"
        try:
            rows = self._select(f"{mark}, looked_ns from files where folder = ? and path = ?", text(folder), text(path))
            if not rows and of_any:
                rows = self._select(f"{mark}, 0 from files_of_any_folder where path = ?", text(path))
        except UserError:
            return None
        return rows[0] if rows else None

    def has_files(self, folder: str) -> bool:
        """Whether any file of this watched folder was ever finished; of one from before the folder is not known."""
        if self._select("select 1 from files where folder = ? limit 1", text(folder)):
            return True
        before = "select 1 from files_of_any_folder where not exists (select 1 from files) limit 1"
        return bool(self._select(before))

    def named(self, path: str, curve: int | None = None, folder: str | None = None) -> list[Named]:
        """The decisions on ``path#curve`` (None: on each of its curves), oldest first.

        With ``folder`` only those that may be of it. Raises UserError 69 where nothing is found in time, while the
        names of a ledger from before are still being noted.
        """
        query = f"""select seq, names.folder, names.path, names.curve, verdict, body, checksum
                    from names join decisions using (seq)
                    where names.path = ? {"" if curve is None else "and names.curve = ?"} order by seq"""
        values = (text(path),) if curve is None else (text(path), curve)
        rows = self._select(query, *values) if self._notes_names else []
        found = [
            Named(seq, its, name, number, _data(_sound(self.path, seq, *rest))["sha256"], rest[0])
            for seq, its, name, number, *rest in rows
        ]
        found = [*self._unnoted(path, curve, is_needed=not found), *found]
        return [one for one in found if folder is None or one.folder in (text(folder), "")]

    def _unnoted(self, path: str, curve: int | None, *, is_needed: bool) -> list[Named]:
        """Decisions on a path among those whose names are not noted yet: looked through, for a while."""
        last = self.last_seq
        if self._notes_names:
            chore = self._select("select seq from chores where chore = 'names'")
            last = chore[0][0] if chore else 0
        query = """select seq, verdict, body, checksum from decisions
                   where seq <= ? and instr(body, ?) order by seq"""
        told = wire.encode({"path": path})[1:-1]
        deadline_s = time.monotonic() + _LOOK_THROUGH_S
        try:
            with self._lock:
                connection = self._open()
                connection.set_progress_handler(lambda: time.monotonic() > deadline_s, 1_000)
                try:
                    rows = connection.execute(query, (last, told)).fetchall()
                finally:
                    connection.set_progress_handler(None, 0)
        except sqlite3.OperationalError as error:
            if not is_needed:  # something of this name is known, and most likely all of it
                return []
            said = f"the names of {last:,} decisions are still being noted: try again in some minutes"
            raise UserError(UNREACHABLE, f"{self.path}: {said}") from error
        found = [(row[0], row[1], _data(_sound(self.path, *row))) for row in rows]
        return [
            Named(seq, data.get("folder") or "", data["path"], data["curve"], data["sha256"], verdict)
            for seq, verdict, data in found
            if data["path"] == path and curve in (None, data["curve"])
        ]

    def _select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._open().execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise explain(error, self.path) from error


def _sound(path: Path, seq: int, verdict: str, body: bytes, stored: int) -> Row:
    if checksum(seq, verdict, body) != stored:
        raise damaged(path, f"decision {seq} does not match its checksum")
    return Row(seq, verdict, body)


def _without_labelled(connection: sqlite3.Connection, flagged: int, labels: Path) -> int:
    try:
        connection.execute("attach database ? as labels", (f"{labels.absolute().as_uri()}?mode=ro",))
        (version,) = connection.execute("pragma labels.user_version").fetchone()
        holds = (
            "labels.labels" if version < 2 else "(select * from labels.current where is_last and removed_by is null)"
        )
        labelled = f"""select count(*) from (
            select reviews.seq from {holds} as said join reviews using (sha256, curve)
            union select reviews.seq from {holds} as said join reviews using (path, curve)
            where said.sha256 is null)"""
        return flagged - int(connection.execute(labelled).fetchone()[0])
    except sqlite3.DatabaseError:  # being made, or written for long: rather too many than no answer
        return flagged
    finally:
        with contextlib.suppress(sqlite3.DatabaseError):
            connection.execute("detach database labels")


def _data(row: Row) -> dict[str, Any]:
    data: dict[str, Any] = wire.decode(row.body)["data"]
    return data


def _flagged(row: Row) -> Flagged:
    event = wire.decode(row.body)
    data = event["data"]
    return Flagged(
        row.seq, data["path"], data["curve"], data["sha256"], data["score"], tuple(data["reasons"]), event["time"]
    )
