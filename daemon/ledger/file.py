"""The ledger's file: how it is opened, checked and brought up to date, and how trouble with it is said."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.common.sqlite_file import connect_to_read, file_of, is_damaged, is_locked, trouble
from daemon.ledger import schema
from daemon.ledger.wire import checksum

#: 16 MiB of WAL before SQLite folds it back: fewer slow commits, and still far from the 64 MiB limit.
_CHECKPOINT_PAGES, _WAL_LIMIT_BYTES = 4096, 64 << 20
#: At the start another program's lock is waited for this long; later it is told of, and waited for as long as it lasts.
PATIENCE_S, LOCKED_S = 30.0, 1.0
#: Decisions that are looked at before the first new one is written.
TAIL = 1_000
#: What views of this process have found damaged in a file.
FINDINGS: dict[Path, str] = {}


def open_for_writing(path: Path, patience_s: float = LOCKED_S) -> sqlite3.Connection:
    """The one read-write connection. Raises UserError 74 for a damaged, foreign or newer file, or a full disk."""
    try:
        connection = sqlite3.connect(path, timeout=patience_s, isolation_level=None, check_same_thread=False)
        is_new = schema.VERSIONS.of(connection, path) == 0
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")
        connection.execute(f"pragma wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"pragma journal_size_limit = {_WAL_LIMIT_BYTES}")
        if not is_new:
            _check_tail(connection, path)
        schema.VERSIONS.bring_up(connection)
        return connection
    except sqlite3.DatabaseError as error:
        raise explain(error, path) from error


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A read-only connection, beside a running service or without one. Raises UserError 69 when there is no ledger."""
    if not path.is_file():
        raise UserError(UNREACHABLE, f"no ledger at {path}: start the service, or name the right --state folder")
    try:
        return connect_to_read(path, schema.VERSIONS.of)
    except sqlite3.DatabaseError as error:
        raise explain(error, path) from error


def names_of(path: Path) -> tuple[tuple[int, int] | None, ...]:
    """Which files the names of a ledger are: itself, its ``-wal``, its ``-shm``; None where there is none."""
    return tuple(file_of(path.with_name(path.name + suffix)) for suffix in ("", "-wal", "-shm"))


def damaged(path: Path, finding: str) -> UserError:
    """What is wrong, and what to do about it; the writer of the ledger, if it is in this process, hears of it too."""
    FINDINGS[path] = finding
    return UserError(
        INPUT_OUTPUT,
        f"{path} is damaged ({finding}): put a backup copy of it back, or move {path.name}* away to begin a new "
        "ledger, which judges the files in the watched folders again",
    )


def explain(error: sqlite3.DatabaseError, path: Path) -> UserError:
    """The same trouble as one line that says what to do."""
    if is_damaged(error):
        return damaged(path, str(error))
    return UserError(INPUT_OUTPUT, f"{trouble(error, path)}{', then start again' if is_locked(error) else ''}")


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
        if checksum(*row[:3]) != row[3]:
            raise damaged(path, f"decision {number} does not match its checksum")
