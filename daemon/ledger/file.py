"""The ledger's file: its layout, how it is opened, checked and brought up to date, and what others read in it.

``LedgerView`` reads beside a running service or without one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from daemon.common.ending import Closing
from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.ledger import events

#: PRAGMA application_id, so that no other SQLite file is ever taken for a ledger ("AFMT").
APPLICATION = 0x41464D54

#: One script a schema version, forward only; PRAGMA user_version counts those applied.
MIGRATIONS = (
    """
    create table ledger (only integer primary key check (only = 1), stream text not null, opened text) strict;
    create table decisions (
        seq      integer primary key,
        identity text not null unique,
        verdict  text not null check (verdict in ('keep', 'review', 'discard')),
        body     blob not null,      -- the event, as it is sent
        checksum integer not null    -- of seq, verdict and body: a flipped bit is found, not served
    ) strict;
    create table reviews (
        seq      integer primary key references decisions (seq),
        path     text not null,
        curve    integer not null,
        sha256   text,
        keepsake blob                -- a compact copy of the curve as .afmcurve; the instrument's file may go away
    ) strict;
    create index reviews_by_content on reviews (sha256, curve);
    create index reviews_by_path on reviews (path, curve);
    create table files (
        path       text not null unique,
        size_bytes integer not null,
        mtime_ns   integer not null,
        sha256     text,
        curves     integer not null
    ) strict;
    create table tally (verdict text primary key, curves integer not null) strict;
    insert into tally values ('keep', 0), ('review', 0), ('discard', 0);
    """,
)

#: 16 MiB of WAL before SQLite folds it back: fewer slow commits, and still far from the 64 MiB limit.
_CHECKPOINT_PAGES, _WAL_LIMIT_BYTES = 4096, 64 << 20


def open_for_writing(path: Path) -> sqlite3.Connection:
    """The one read-write connection. Raises UserError 74 for a damaged, foreign or newer file, or a full disk."""
    try:
        connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        _check(connection, path)
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")
        connection.execute(f"pragma wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"pragma journal_size_limit = {_WAL_LIMIT_BYTES}")
        _migrate(connection, path)
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
                f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=5.0, isolation_level=None
            )
            _check_version(connection, path)
            return connection
        except sqlite3.OperationalError as error:
            failure = error
        except sqlite3.DatabaseError as error:
            raise explain(error, path) from error
    raise explain(failure, path) from failure


def checksum(seq: int, verdict: str, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(f"{seq} {verdict} ".encode()))


def text(value: str) -> str:
    """A file name as SQLite can hold it: bytes that are not UTF-8 are spelt out."""
    return value.encode("utf-8", "backslashreplace").decode()


def damaged(path: Path, finding: str) -> UserError:
    return UserError(
        INPUT_OUTPUT,
        f"{path} is damaged ({finding}): put a backup copy of it back, or move {path.name}* away to begin a new "
        "ledger, which judges the files in the watched folders again",
    )


def explain(error: sqlite3.DatabaseError, path: Path) -> UserError:
    """The same trouble as one line that says what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(error))
    return UserError(INPUT_OUTPUT, f"{path}: {error}; check free space and permissions of {path.parent}")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    _check_version(connection, path)
    finding = connection.execute("pragma quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise damaged(path, finding)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("pragma user_version").fetchone()
    (application,) = connection.execute("pragma application_id").fetchone()
    (tables,) = connection.execute("select count(*) from sqlite_schema").fetchone()
    if tables and application != APPLICATION:
        raise UserError(INPUT_OUTPUT, f"{path} is no ledger of afm-triage: name another --state folder")
    if version > len(MIGRATIONS):
        raise UserError(
            INPUT_OUTPUT,
            f"{path} was written by a newer afm-triage (schema {version}, this one knows {len(MIGRATIONS)}): "
            "install that version again, or put the copy from before the upgrade back",
        )


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("pragma user_version").fetchone()
    if 0 < version < len(MIGRATIONS):  # the way back after an upgrade that went wrong
        connection.execute("vacuum into ?", (str(path.with_name(f"{path.name}.schema{version}")),))
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        pragmas = f"pragma application_id = {APPLICATION}; pragma user_version = {number};"
        connection.executescript(f"begin immediate; {script} {pragmas} commit;")


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


#: The most decisions one replay answer holds.
REPLAY_LIMIT = 5_000


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


class LedgerView(Closing):
    """A read-only connection; each thread opens its own. Reads are short, so they never hold up a checkpoint.

    Raises UserError 69 when there is no ledger, 74 when it is damaged or newer than this program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = open_for_reading(path)

    def close(self) -> None:
        self._connection.close()

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
                rows.append(self._sound(*stored))
            except UserError:
                if not rows:
                    raise
                break
        return rows

    def bodies_since(self, seq: int, limit: int = REPLAY_LIMIT) -> list[tuple[int, bytes]]:
        return [(row.seq, row.body) for row in self.since(seq, limit)]

    def last(self, count: int) -> list[events.Event]:
        """The last ``count`` decisions, oldest first."""
        return [events.decode(row.body) for row in self.since(max(self.last_seq - count, 0), count)]

    def verdict_counts(self) -> dict[str, int]:
        return dict(self._select("select verdict, curves from tally"))

    def review_count(self) -> int:
        """Curves that were ever flagged, labelled or not."""
        return self.verdict_counts()["review"]

    def unlabelled_count(self, labels: Path) -> int:
        """Flagged curves on which nobody has said a word yet; ``labels``: the labels.sqlite beside the ledger."""
        labelled = """select count(*) from (
            select reviews.seq from labels.labels as said join reviews using (sha256, curve)
            union select reviews.seq from labels.labels as said join reviews using (path, curve)
            where said.sha256 is null)"""
        flagged = self.review_count()
        if not labels.is_file() or labels.stat().st_size == 0:
            return flagged
        try:
            self._connection.execute("attach database ? as labels", (f"{labels.absolute().as_uri()}?mode=ro",))
            return flagged - int(self._connection.execute(labelled).fetchone()[0])
        except sqlite3.DatabaseError:  # being made, or written for long: rather too many than no answer
            return flagged
        finally:
            with contextlib.suppress(sqlite3.DatabaseError):
                self._connection.execute("detach database labels")

    def queue(self, after: int = 0, limit: int = 1_000) -> list[Flagged]:
        """Flagged curves with a greater ``seq``, oldest first."""
        query = """select seq, verdict, body, checksum from decisions
                   where seq in (select seq from reviews where seq > ? order by seq limit ?) order by seq"""
        return [_flagged(self._sound(*row)) for row in self._select(query, after, limit)]

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

    def is_decided(self, identity: str) -> bool:
        return bool(self._select("select 1 from decisions where identity = ?", text(identity)))

    def _select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise explain(error, self.path) from error

    def _sound(self, seq: int, verdict: str, body: bytes, stored: int) -> Row:
        if checksum(seq, verdict, body) != stored:
            raise damaged(self.path, f"decision {seq} does not match its checksum")
        return Row(seq, verdict, body)


def _flagged(row: Row) -> Flagged:
    event = events.decode(row.body)
    data = event["data"]
    return Flagged(
        row.seq, data["path"], data["curve"], data["sha256"], data["score"], tuple(data["reasons"]), event["time"]
    )
