"""The care of the ledger beside the running service: it is checked whole, and chores of a migration are done.

The check is a program of its own, which the service starts: this file, run by itself, imports nothing of ours, so that
it takes a few megabytes, and yields the processor and the GIL is no matter. The file is read through once in its order,
which fills the page cache as fast as the disk can; what SQLite then looks up here and there costs no seek. The service
itself must not do that: closing a file of its own would drop the locks that SQLite holds on it.

It prints one line: ``sound``; ``damaged`` and what of the tables cannot be trusted; ``altered`` and which decision is
not as it was written; ``unknown`` and why nothing can be said.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.ledger import Ledger

_log = logging.getLogger(__name__)

#: A check may cost a thousandth of the time, and comes no more often than this; asked for, it comes at once.
OFTEN_S, SELDOM_S, _SHARE = 600.0, 86_400.0, 1e-3
#: While something is wrong it is looked at again this often: it may have been mended.
_AGAIN_S = 10.0
#: A chore may take this share of the time.
_CHORE_SHARE = 0.1
#: A disk that fails may hold the check for ever.
_LONGEST_S = 7_200.0
_GONE_S = 1.0
# Of the check itself.
_CHUNK_BYTES = 1 << 20
_PORTION = 1_000  # decisions in one read, so that no checkpoint waits for long
_PR_SET_PDEATHSIG = 1


class LedgerCare(threading.Thread):
    """Started once the service is ready. ``tell`` hears of each check: whether all was well, and how long it took."""

    def __init__(self, ledger: Ledger, tell: Callable[[bool, float], None] = lambda is_sound, took_s: None) -> None:
        super().__init__(name="ledger-care", daemon=True)
        self._ledger, self._tell = ledger, tell
        self._ending = threading.Event()
        self._child: subprocess.Popen[str] | None = None

    def run(self) -> None:
        due_s = 0.0
        while not self._ending.is_set():
            try:
                if time.monotonic() >= due_s or self._ledger.wants_check:
                    due_s = time.monotonic() + self._check()
                pause_s = self._do_chore()
            except Exception as error:  # whatever it is, the next look may go better
                _log.warning("the care of the ledger: %s: %s; trying again", type(error).__name__, error)
                pause_s = _AGAIN_S
            self._ending.wait(pause_s)

    def stop(self) -> None:
        """A check under way is left."""
        self._ending.set()
        if self._child is not None:
            self._child.kill()
        if self.is_alive():
            self.join(_GONE_S)

    def _check(self) -> float:
        """Seconds until the next."""
        began_s = time.monotonic()
        self._ledger.begin_check()
        said = self._run_check()
        took_s = time.monotonic() - began_s
        if self._ending.is_set():
            return SELDOM_S
        word, _, finding = said.partition(" ")
        self._ledger.end_check(word, finding)
        self._tell(word == "sound", took_s)
        if word != "sound":
            return _AGAIN_S if word == "unknown" else OFTEN_S
        return min(max(took_s / _SHARE, OFTEN_S), SELDOM_S)

    def _run_check(self) -> str:
        command = [sys.executable, "-I", __file__, str(self._ledger.path)]
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(  # in a group of its own: Ctrl-C is for the service
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, process_group=0
        )
        if self._ending.is_set():
            self._child.kill()
        try:
            said, trouble = self._child.communicate(timeout=_LONGEST_S)
        except subprocess.TimeoutExpired:  # a disk that fails: not waited for
            self._child.kill()
            return f"unknown it took longer than {_LONGEST_S / 3600:g} h"
        return said.strip() or f"unknown {trouble.strip().splitlines()[-1] if trouble.strip() else 'it was ended'}"

    def _do_chore(self) -> float:
        """One portion of what a migration has left to do; seconds until the next."""
        from daemon.ledger import NotRecorded  # here, for the check has nothing of ours

        began_s, is_more = time.monotonic(), False
        with contextlib.suppress(NotRecorded):  # told by whoever has decisions to record
            is_more = self._ledger.do_chore()
        took_s = time.monotonic() - began_s
        return took_s * (1 / _CHORE_SHARE - 1) if is_more else 1.0


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
