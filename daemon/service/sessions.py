"""The session as the service sees it: what goes on, for its status, and the one that a new day folder begins.

Labels and sessions lie in a file of their own that people's programs write too and may hold locked. So the file is read
and written on a thread of its own: neither the loop nor a status ever waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path

from daemon.common.errors import UserError
from daemon.common.text import clean
from daemon.formats.dates import plausible
from daemon.judging.registry import Registry
from daemon.labels import Labels
from daemon.labels.sessions import FIELDS, Session, Sessions, day_of
from daemon.ledger import LedgerView
from daemon.ledger.events import CurrentSession
from models.bundle import BadBundle

log = logging.getLogger(__name__)

#: What people's programs have written is seen so soon.
LOOK_S = 1.0
#: While the file cannot be read or written it is tried again this often.
_AGAIN_S = 10.0
_PATIENCE_S, _GONE_S = 1.0, 1.0


class SessionWatch(threading.Thread):
    """``current`` is what goes on, as last seen.

    Made before a model is loaded, for it says whose cut serves; started once the service is ready.
    """

    def __init__(self, state: Path, view: LedgerView) -> None:
        super().__init__(name="sessions", daemon=True)
        self.current: Session | None = None
        self._file, self._view, self._registry = state / "labels.sqlite", view, Registry(state / "models")
        self._ending = threading.Event()
        self._newest: date | None = None  # the latest day folder that was seen
        self._begun: deque[tuple[str, date, Mapping[str, int]]] = deque()  # day folders, and the verdicts before each
        self._day = date.min  # of the last session that a folder began
        self._stamp: object = None
        self._told = ""
        with suppress(UserError, OSError, BadBundle):  # told once it runs
            self.step()

    def observe(self, decided: Sequence[tuple[str, str]]) -> None:
        """The last decisions of the ledger, once they are recorded: whether one is of a new day folder.

        Of each the folder of its file below the watched one ("": none), and the verdict.
        """
        if self.current is not None and self.current.origin == "person":
            return  # and the folder stays a new one, should that session end
        for number, (folder, _) in enumerate(decided):
            found = _day_of(folder)
            if found is not None and found[1] > (self._newest or date.min) and _has_come(found[1]):
                with suppress(UserError):
                    before = Counter(self._view.verdict_counts())
                    before.subtract(verdict for _, verdict in decided[number:])
                    self._newest = found[1]
                    self._begun.append((*found, before))

    def status(self, counts: Mapping[str, int]) -> CurrentSession | None:
        """``counts``: decisions by verdict of the whole ledger."""
        one = self.current
        if one is None:
            return None
        said = {name: getattr(one, name) for name in FIELDS}
        return CurrentSession(
            number=one.number,
            **said,
            origin=one.origin,
            began=one.began,
            seconds=one.seconds,
            first_seq=one.first_seq,
            counts=one.counts(counts),
        )

    def run(self) -> None:
        pause_s = 0.0
        while not self._ending.wait(pause_s):
            pause_s = LOOK_S
            try:
                self.step()
                self._told = ""
            except Exception as error:  # whatever it is, the next look may go better
                if str(error) != self._told:
                    log.warning("sessions: %s; trying again", error)
                self._told, pause_s = str(error), _AGAIN_S

    def stop(self) -> None:
        self._ending.set()
        if self.is_alive():
            self.join(_GONE_S)

    def step(self) -> None:
        """Begin the session of a new day folder, see what goes on, and let the cut of its group serve."""
        self._read()
        while self._begun:
            folder, day, before = self._begun[0]
            if day > self._day:
                with Labels(self._file, patience_s=_PATIENCE_S) as labels:
                    self._begin(Sessions(labels), folder, before)
            self._begun.popleft()
        self._read()
        group = Sessions.group(self.current)
        if group != self._registry.group():
            served, serves = self._registry.serving(), self._registry.turn_to(group, by="service")
            if served != serves:
                log.info(
                    'the session group is "%s" now: %s serves', clean(group), serves.name if serves else "the base"
                )

    def _begin(self, sessions: Sessions, folder: str, before: Mapping[str, int]) -> None:
        current = sessions.current()
        if current is not None and current.origin == "person":
            self._newest = None
            return
        session = sessions.begin(name=folder, origin="folder", before=before)
        log.info("session %d begins with the day folder %s", session.number, clean(folder))

    def _read(self) -> None:
        try:
            stat = self._file.stat()
        except OSError:  # nobody has said anything yet: looking must not make the file
            self.current = None
            return
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if stamp == self._stamp or not stat.st_size:
            return
        with Labels(self._file, patience_s=_PATIENCE_S) as labels:
            sessions = Sessions(labels)
            every, self.current = sessions.all(), sessions.current()
        days = (found[1] for one in every if one.origin == "folder" and (found := day_of(f"{one.name}/")))
        self._day = max(days, default=date.min)
        self._stamp = stamp


def _has_come(day: date) -> bool:
    """A folder of a day to come, by a slip of the pen, would be the newest one for years."""
    return plausible(datetime(day.year, day.month, day.day).timestamp()) is not None


_day_of = lru_cache(maxsize=1024)(lambda folder: day_of(f"{folder}/"))
