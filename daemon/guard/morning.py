"""What the morning must know of the night: what was told and is not over, through stops, kills and restarts.

``Memory`` is the service's; the functions put together what ledger, labels and logbook tell while none runs.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from daemon import __version__
from daemon.common.errors import UserError
from daemon.config.origin import LEDGER_FILE
from daemon.guard.logbook import NAME, Logbook, LogbookView, Run
from daemon.guard.tip import shown_of
from daemon.guard.unseen import second, unseen
from daemon.judging import Thresholds
from daemon.labels import Labels
from daemon.labels.confirmed import as_decided, events_of, your_events
from daemon.labels.sessions import Sessions
from daemon.ledger import numbers
from daemon.ledger.events import Level
from daemon.ledger.numbers import ADVICE, Advice, Told
from daemon.ledger.view import LedgerView
from models.clock import rfc3339, since_1970, utc_now

#: What was told before a restart, or was over before the end, is remembered for so long.
REMEMBERED_S = 12 * 3_600.0
#: Why there is no path.
NO_CANARIES = "canaries are switched off ([guard] canaries = false): whether the line works is not watched"
#: In the state folder: a page a night, 2026-11-27.html, that a timer writes.
REPORTS = "reports"
#: Kinds of advice that say that curves are read as what they are not: events may be getting lost.
_MISREAD = frozenset({"unit"})
#: The state in the logbook that holds the number itself, for when no service can be asked.
_SHOWN = "shown"
#: A run that was killed is known to have lasted until so long before it was.
_SEEN_EVERY_S = 60.0
_PATIENCE_S = 1.0  # for whoever holds the labels locked


def level_of(advice: Advice) -> Level:
    """Advice is for whoever is at the microscope, but for what makes the line misread all that comes."""
    return "alarm" if advice.kind in _MISREAD else "degraded"


class Memory:
    """Alarms and advice go into the logbook with when they began and ended; a stop ends none of them.

    ``hear`` is anybody's, and so is ``not_seen_again``; the others are the thread's that writes the logbook.
    """

    def __init__(self, logbook: Logbook) -> None:
        self._logbook = logbook
        self._heard: deque[Told] = deque()  # to be noted
        self._standing: dict[str, Told] = {}  # alarms that are not over
        self._advised: dict[tuple[str, str], Told] = {}  # advice that holds, as it was noted last
        self._before: dict[str, Told] = {}  # of the services before this one
        self._told: set[str] = set()  # by this one
        self._path: object = "nothing is written yet"
        self._run = Run(utc_now(), utc_now(), None, __version__, "")
        self._ignored: Counter[str] = Counter()  # as it was noted last

    def begin(self) -> None:
        """Whatever stands in the logbook was left by a service that ended, or was killed."""
        now = utc_now()
        self._logbook.forget_old(time.time())
        self._logbook.note_run(self._run)
        for told in self._logbook.told(rfc3339(time.time() - REMEMBERED_S)):
            self._before.pop(told.name, None)
            if told.ended is None:
                self._before[told.name] = replace(told, left=told.left or now)
        self._logbook.leave(now)

    def hear(self, name: str, level: Level, text: str, since: str) -> None:
        """A condition has come to this level, or has other words at it. ``since``: UTC, RFC 3339."""
        self._told.add(name)
        self._heard.append(Told(name=name, level=level, since=since, text=text))

    def not_seen_again(self) -> tuple[Told, ...]:
        """What was told before this service began, and neither again nor as over since: it may be there still."""
        since = rfc3339(time.time() - REMEMBERED_S)
        return tuple(one for one in self._before.values() if one.name not in self._told and (one.left or "") >= since)

    def note(self, advice: Sequence[Advice]) -> None:
        """Put down what was heard, and ``advice``, all that holds."""
        holds = {(one.since, one.kind): _told_of(one) for one in advice}
        for key, one in self._advised.items():
            if key not in holds:
                self._logbook.note_told(replace(one, ended=utc_now()))
        for key, one in holds.items():
            self._told.add(one.name)
            if self._advised.get(key) != one:
                self._logbook.note_told(one)
        self._advised = holds
        while self._heard:
            told = self._heard.popleft()
            before = self._standing.pop(told.name, None)
            if before and (told.level == "ok" or before.since != told.since):  # else only its words are others
                self._logbook.note_told(replace(before, ended=told.since))
            if told.level != "ok":
                self._standing[told.name] = told
                self._logbook.note_told(told)

    def note_path(self, path: numbers.Path | None) -> None:
        """What it is now; None: it is not watched."""
        shown = None if path is None else replace(path, pending=0)
        if shown != self._path:
            self._path = shown
            self._logbook.keep(_SHOWN, "path", msgspec.to_builtins(shown) if shown else {})

    def note_service(self, engine: str, ignored: Mapping[str, int]) -> None:
        """That the service runs, on which engine, and how many files of each kind it has passed over so far."""
        now = utc_now()
        past_s = since_1970(now) - since_1970(self._run.seen)
        if not 0.0 <= past_s < _SEEN_EVERY_S or engine != self._run.engine:
            self._run = self._run._replace(seen=now, engine=engine)
            self._logbook.note_run(self._run)
        fresh = Counter(ignored) - self._ignored
        for kind, files in fresh.items():
            self._logbook.ignore(f"{now[:13]}:00:00Z", kind, files)
        self._ignored += fresh

    def end(self) -> None:
        """The service stops: what stands is left as it is."""
        now = utc_now()
        self._logbook.leave(now)
        self._logbook.note_run(self._run._replace(seen=now, ended=now))


def _told_of(advice: Advice) -> Told:
    return Told(name=f"{ADVICE}{advice.kind}", level=level_of(advice), since=advice.since, text=advice.text)


def last_report(state: Path) -> Path | None:
    """The page of the last night that a timer has written; None where there is none. Raises nothing."""
    with suppress(OSError):
        return max((state / REPORTS).glob("????-??-??.html"), default=None)
    return None


def left_in(state: Path) -> numbers.GuardNumbers:
    """The guard's numbers in a state folder on which no service runs; what cannot be read is null. Raises nothing."""
    known = numbers.GuardNumbers()
    with suppress(UserError), ExitStack() as closing:
        view = closing.enter_context(LedgerView(state / LEDGER_FILE))
        file = state / "labels.sqlite"  # looking must not make it
        labels = Labels(file, patience_s=_PATIENCE_S, is_reading=True) if file.is_file() else None
        if labels is not None:
            closing.enter_context(labels)
        last = view.last(1)
        data = last[0]["data"] if last else None
        serving = (str(data["pipeline"]), Thresholds(**data["thresholds"])) if data else None
        known = _of_people(view, labels, serving)
    return _with_logbook(known, state / NAME)


def at_rest(
    view: LedgerView, labels: Labels, logbook: Path, serving: tuple[str, Thresholds] | None
) -> numbers.GuardNumbers:
    """The same of files that are open. ``serving``: pipeline and thresholds of what judges the next curve.

    Raises what ledger and labels raise.
    """
    return _with_logbook(_of_people(view, labels, serving), logbook)


def _of_people(view: LedgerView, labels: Labels | None, serving: tuple[str, Thresholds] | None) -> numbers.GuardNumbers:
    events, discards = None, None
    if serving is not None:
        seqs, session = (events_of(labels), Sessions(labels).present()) if labels else (set[int](), None)
        events = your_events(as_decided(view, seqs), *serving, session)
        discards = unseen(view, labels, serving[0])
    return numbers.GuardNumbers(events=events, unseen=discards, second=second(view, labels))


def _with_logbook(known: numbers.GuardNumbers, file: Path) -> numbers.GuardNumbers:
    """And how the last service left the night; a logbook that cannot be read leaves its part out."""
    try:
        with LogbookView(file) as book:
            path, (unit, points), told = book.kept(_SHOWN, "path"), shown_of(book.blocks()), _of_last_night(book.told())
            before = msgspec.convert(path, numbers.Path) if path else None
    except (UserError, msgspec.ValidationError):
        return known
    advice = tuple(
        Advice(kind=one.name.removeprefix(ADVICE), since=one.since, text=one.text)
        for one in told
        if one.ended is None and one.name.startswith(ADVICE)
    )
    tip = numbers.Tip(unit=unit, blocks=points, advice=advice) if points or advice else None
    return replace(known, path=before, no_path=NO_CANARIES if path == {} else None, tip=tip, told=told)


def _of_last_night(told: Sequence[Told]) -> tuple[Told, ...]:
    """The last word on each condition, from the hours before the last of them: it may be late when this is read."""
    last = {one.name: one for one in told}.values()
    ends = [one.ended or one.left or utc_now() for one in last]
    since = since_1970(max(ends)) - REMEMBERED_S if ends else 0.0
    return tuple(one for one, end in zip(last, ends, strict=True) if since_1970(end) >= since)
