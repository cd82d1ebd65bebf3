"""The check of a whole ledger: a program of its own, which the service starts beside itself.

It imports nothing of ours, so that it takes a few megabytes, and yields the processor and the GIL is no matter. The
file is read through once in its order, which fills the page cache as fast as the disk can; what SQLite then looks up
here and there costs no seek. The service itself must not do that: closing a file of its own would drop the locks that
SQLite holds on it.

Prints one line: ``sound``; ``damaged`` and what of the tables cannot be trusted; ``altered`` and which decision is not
as it was written; ``unknown`` and why nothing can be said.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sqlite3
import sys
import zlib
from pathlib import Path

_CHUNK_BYTES = 1 << 20
_PORTION = 1_000  # decisions in one read, so that no checkpoint waits for long
_PR_SET_PDEATHSIG = 1


def _checksum(seq: int, verdict: str, body: bytes) -> int:
    """As daemon.ledger.file writes it; a test holds the two together."""
    return zlib.crc32(body, zlib.crc32(f"{seq} {verdict} ".encode()))


def _read_through(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        buffer = bytearray(_CHUNK_BYTES)
        while file.readinto(buffer):
            pass


def _structure(database: sqlite3.Connection) -> str:
    (finding,) = database.execute("pragma quick_check(1)").fetchone()
    (last,) = database.execute("select coalesce(max(seq), 0) from decisions").fetchone()
    (counted,) = database.execute("select sum(curves) from tally").fetchone()
    if finding == "ok" and last != counted:
        finding = f"it ends at decision {last} and counts {counted}"
    return "" if finding == "ok" else str(finding)


def _content(database: sqlite3.Connection) -> str:
    query = "select seq, verdict, body, checksum from decisions where seq > ? order by seq limit ?"
    last = 0
    while rows := database.execute(query, (last, _PORTION)).fetchall():
        for seq, verdict, body, stored in rows:
            if seq != last + 1:
                return f"decision {last + 1} is not there"
            if _checksum(seq, verdict, body) != stored:
                return f"decision {seq} does not match its checksum"
            last = seq
    return ""


def look_through(path: Path) -> str:
    """The line. Raises OSError or sqlite3.OperationalError where nothing can be said."""
    _read_through(path)
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as database:
        try:
            if finding := _structure(database):
                return f"damaged {finding}"
            if finding := _content(database):
                return f"altered {finding}"
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                return f"damaged {error}"
            raise
    return "sound"


def main() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.nice(19)
    try:
        print(look_through(Path(sys.argv[1])).replace("\n", " "))
    except (OSError, sqlite3.Error) as error:
        print(f"unknown {error}".replace("\n", " "))


if __name__ == "__main__":
    main()
