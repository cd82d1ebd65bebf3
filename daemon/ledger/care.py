"""The care of the ledger beside the running service: it is checked whole, and chores of a migration are done."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from daemon.ledger import Ledger, NotRecorded, check

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
        command = [sys.executable, "-I", str(Path(check.__file__)), str(self._ledger.path)]
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
        began_s, is_more = time.monotonic(), False
        with suppress(NotRecorded):  # told by whoever has decisions to record
            is_more = self._ledger.do_chore()
        took_s = time.monotonic() - began_s
        return took_s * (1 / _CHORE_SHARE - 1) if is_more else 1.0
