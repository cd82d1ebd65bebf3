"""The ledger's file: its layout, and how it is opened, checked and brought up to date."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, UserError

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
