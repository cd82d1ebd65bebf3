"""A SQLite file of ours: whose it is, of which version, how it is brought up to date, and how trouble with it is said.

Ledger, labels and logbook are such files. What they hold is theirs; that another program's file is never taken for one,
that one of a newer version is left alone, and that no reader makes or changes a file, is the same for all.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from daemon.common.errors import INPUT_OUTPUT, UserError

_READ_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Versions:
    """Of one kind of file."""

    application: int  # PRAGMA application_id
    scripts: tuple[str, ...]  # one a version, forward only; PRAGMA user_version counts those applied
    foreign: str  # what is said of another program's file, behind its path
    unmarked: bool = False  # whether a file without an application_id may be one, from before it had any

    def of(self, connection: sqlite3.Connection, path: Path) -> int:
        """How many scripts a file has seen. Raises UserError 74 for one that is not of this kind, or of a newer one."""
        (version,) = connection.execute("pragma user_version").fetchone()
        (application,) = connection.execute("pragma application_id").fetchone()
        (tables,) = connection.execute("select count(*) from sqlite_schema").fetchone()
        if tables and application not in ((self.application, 0) if self.unmarked else (self.application,)):
            raise UserError(INPUT_OUTPUT, f"{path} {self.foreign}")
        if version > len(self.scripts):
            newer = f"(schema {version}, this one knows {len(self.scripts)}): install that version again"
            raise UserError(INPUT_OUTPUT, f"{path} was written by a newer afm-triage {newer}")
        return int(version)

    def bring_up(self, connection: sqlite3.Connection) -> None:
        """Apply what the file has not seen yet, each version whole or not at all."""
        (version,) = connection.execute("pragma user_version").fetchone()
        for number, script in enumerate(self.scripts[version:], start=version + 1):
            marks = f"pragma application_id = {self.application}; pragma user_version = {number};"
            connection.executescript(f"begin immediate; {script} {marks} commit;")


def ensure_file(path: Path) -> Path:
    """A file to connect to, with the rights that this process gives to others: SQLite's own lets no group write.

    What it makes beside the file (-wal, -shm, -journal) it gives the rights of the file.
    """
    with suppress(OSError):  # to connect says why it cannot be made
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
    return path


def connect_to_read(path: Path, check: Callable[[sqlite3.Connection, Path], object]) -> sqlite3.Connection:
    """A read-only connection to a file that has a -wal while it is written.

    ``check`` is called with it, and raises for one that is not what it should be. Raises sqlite3.DatabaseError.
    """
    # A reader who may not write into the folder can still read a file that nobody has open.
    modes = ("mode=ro",) if path.with_name(f"{path.name}-wal").exists() else ("mode=ro", "mode=ro&immutable=1")
    for mode in modes:
        connection = None
        try:
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?{mode}",
                uri=True,
                timeout=_READ_PATIENCE_S,
                isolation_level=None,
                check_same_thread=False,
            )
            check(connection, path)
            return connection
        except BaseException as error:
            if connection is not None:
                connection.close()
            if not isinstance(error, sqlite3.OperationalError):
                raise
            failure = error
    raise failure


def file_of(path: Path) -> tuple[int, int] | None:
    """Which file a name is, by device and inode; None where there is none."""
    with suppress(OSError):
        stat = path.stat()
        return stat.st_dev, stat.st_ino
    return None


def is_damaged(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_locked(error: sqlite3.Error) -> bool:
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def locked(path: Path) -> str:
    return f"another program holds {path} locked: end it (fuser {path} names it)"


def trouble(error: Exception, path: Path) -> str:
    """What is in the way, and what to do about it, in one line; of damage each kind of file has its own words."""
    if isinstance(error, sqlite3.Error) and is_locked(error):
        return locked(path)
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED:
        return f"{path} was moved away while this had it open, as for a restore: start this anew"
    return f"{path}: {error}; check free space and permissions of {path.parent}"


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
