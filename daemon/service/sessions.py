"""The session as the service sees it: what goes on, for its status, and the one that a new day folder begins.

Labels and sessions lie in a file of their own that people's programs write too and may hold locked. So the file is read
and written on a thread of its own: neither the loop nor a status ever waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
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
from daemon.labels.sessions import FIELDS, Session, Sessions, day_of, wanted_of
from daemon.ledger import LedgerView, wire
from daemon.ledger.numbers import CurrentSession
from models.bundle import BadBundle
from models.clock import night_of, since_1970
from models.goal import WANTED, Goal, of_old_files, outlook

log = logging.getLogger(__name__)

#: What people's programs have written is seen so soon.
LOOK_S = 1.0
#: While the file cannot be read or written it is tried again this often.
_AGAIN_S = 10.0
_PATIENCE_S, _GONE_S = 1.0, 1.0
#: The time to the goal is reckoned anew this often at most, and looks back over so many curves.
RECKON_S, LONGEST_RUN = 5.0, 100_000
#: Files that were measured so long before they were judged are old ones, and their times say nothing of tonight.
OLD_S = 86_400.0
#: And while no curve comes, when only the silence grows.
_REST_S = 30.0


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
        self._run = RunSoFar(view)
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

    @property
    def goal(self) -> Goal | None:
        """Of the session that goes on, else of this night; None before the first look."""
        return self._run.goal

    def words(self) -> str:
        """One line on what goes on, for whoever is far away."""
        current, goal = self.current, self.goal
        said = "" if current is None else current.name or current.sample
        which = "This night" if current is None else f"Session {current.number}{said and f', {said}'}"
        return "" if goal is None else clean(f"{which}: {goal.text}.")

    def run(self) -> None:
        pause_s = 0.0
        while not self._ending.wait(pause_s):
            pause_s = LOOK_S
            try:
                self.step()
                self._run.look(self.current)
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
            self._run.heard(labels.words())
        days = (found[1] for one in every if one.origin == "folder" and (found := day_of(f"{one.name}/")))
        self._day = max(days, default=date.min)
        self._stamp = stamp


class RunSoFar:
    """The curves of the session that goes on, or of this night where none does: when each came, and whether it counts.

    It counts where it was kept, unless everybody who said a word on it says discard; and where it was not kept, but
    everybody says keep. For one thread; ``goal`` is anybody's.
    """

    def __init__(self, view: LedgerView) -> None:
        self.goal: Goal | None = None
        self._view, self._words = view, dict[int, Mapping[str, str]]()
        self._of: object = None  # session or night
        self._seq = self._first = 0  # the last decision that was read, and the one before the first
        self._before = 0  # kept before that one
        self._times_s, self._kept = array("d"), bytearray()  # of each
        self._decided_s = self._due_s = 0.0  # when the last one was decided; when the goal is reckoned again
        self._is_new = True

    def heard(self, words: Mapping[int, Mapping[str, str]]) -> None:
        """What people have said, by ``seq``."""
        self._words = dict(words)
        self._is_new, self._due_s = True, 0.0

    def look(self, session: Session | None) -> None:
        """Read what is new, and reckon. Raises UserError where the ledger cannot be read."""
        now_s = time.time()
        of = night_of(now_s) if session is None else f"session {session.number}"
        last = self._view.last_seq
        if of != self._of or last < self._seq:
            self._begin(session, last, of)
            self._of = of
        is_new = self._seq < last
        while self._seq < last and (rows := self._view.since(self._seq, 2_000)):
            self._times_s.extend(wire.timed(row.body).acquired_s for row in rows)
            self._kept.extend(row.verdict == "keep" for row in rows)
            self._seq, self._decided_s = rows[-1].seq, since_1970(wire.decode(rows[-1].body)["time"])
        self._is_new = self._is_new or is_new
        if time.monotonic() >= self._due_s + (0.0 if self._is_new else _REST_S):
            self._reckon(now_s, WANTED if session is None else wanted_of(session.goal))
            self._due_s, self._is_new = time.monotonic() + RECKON_S, False

    def _begin(self, session: Session | None, last: int, night: str) -> None:
        first = _first_of(self._view, night, last) if session is None else session.first_seq
        self._first = self._seq = max(first - 1, last - LONGEST_RUN, 0)
        self._times_s, self._kept = array("d"), bytearray()
        kept = self._view.verdict_counts()["keep"] - (session.before.get("keep", 0) if session else 0)
        is_cut = self._first > first - 1
        self._before = max(kept - self._view.count_looks("keep", self._first), 0) if is_cut else 0
        self._is_new, self._due_s = True, 0.0

    def _reckon(self, now_s: float, wanted: int) -> None:
        kept = bytearray(self._kept)
        said_of = Counter[str]()
        for seq, said in self._words.items():
            place, words = seq - self._first - 1, set(said.values())
            if 0 <= place < len(kept) and len(words) == 1:
                word = next(iter(words))
                counts = {"discard": 0, "keep": 1}.get(word, kept[place])
                said_of[word] += counts != kept[place]
                kept[place] = counts
        silent_s = max(now_s - self._decided_s, 0.0)  # the instrument's clock may tell another time than ours
        named = {"discard": "called no event", "keep": "called an event"}
        told = ", ".join(f"{said_of[word]:,} {name}" for word, name in named.items() if said_of[word])
        if self._times_s and self._decided_s - self._times_s[-1] > OLD_S:
            self.goal = of_old_files(self._before + sum(kept), wanted, told)
        else:
            last_s = max(self._times_s, default=0.0)
            self.goal = outlook(self._times_s, kept, last_s + silent_s, wanted, self._before, told)


def _first_of(view: LedgerView, night: str, last: int) -> int:
    """The first decision of a night; decisions are told from each other by halves, as their times go up."""
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        found = view.decisions([middle])
        if not found or night_of(since_1970(found[middle]["time"])) < night:
            low = middle + 1
        else:
            high = middle
    return low


def _has_come(day: date) -> bool:
    """A folder of a day to come, by a slip of the pen, would be the newest one for years."""
    return plausible(datetime(day.year, day.month, day.day).timestamp()) is not None


_day_of = lru_cache(maxsize=1024)(lambda folder: day_of(f"{folder}/"))
