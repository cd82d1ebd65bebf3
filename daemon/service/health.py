"""The health: what is well, what is not and since when; and the few datagrams systemd wants to hear.

Nothing here runs by itself. The pipeline's loop sends the watchdog ping, also when there is nothing to do, so a ping
means "the loop turned", neither more nor less.

The vigil looks after it: a night without verdicts must never look like a quiet night. So what stands still is told
before anybody misses a verdict: a folder that is not seen, a file that gets none, a loop that does not turn and, where
somebody has asked for it, an instrument from which no curve comes.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from daemon.common.text import duration
from daemon.config import AlarmConfig, Config
from daemon.engine import EngineStatus, engine_status
from daemon.judging import Judge
from daemon.ledger import events
from daemon.ledger.events import Level
from daemon.metrics import Accounts, Metrics
from daemon.notify import kind_of
from daemon.sources import SEEN_S, UNCLAIMED, Source, SourceHealth, Unread, oldest_pending_s, words
from deploy.classifier import EngineId
from deploy.serving import Model
from models.clock import utc_now
from models.reasons import UNREADABLE

_GRAVITY: Mapping[Level, int] = {"ok": 0, "degraded": 1, "alarm": 2}


def notify(state: str) -> bool:
    """Tell systemd, e.g. ``READY=1``, lines separated by newlines; False when nobody listens (see sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1.0)  # a full queue of PID 1 must not hold a curve up
            sender.sendto(state.encode(), address)
    except OSError:
        return False
    return True


class Starting(threading.Thread):
    """``with Starting():`` asks systemd for patience as long as the block lasts: a disk may be slow, a model large."""

    _EVERY_S, _ASKED_S, _LONGEST_S = 5.0, 30.0, 900.0

    def __init__(self) -> None:
        super().__init__(name="starting", daemon=True)
        self._over = threading.Event()

    def run(self) -> None:
        for _ in range(int(self._LONGEST_S / self._EVERY_S)):  # a start that hangs is not to be waited for
            if self._over.wait(self._EVERY_S):
                return
            notify(f"EXTEND_TIMEOUT_USEC={self._ASKED_S * 1e6:.0f}\nSTATUS=starting")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(1.0)


def watchdog_interval_s() -> float | None:
    """How often to send ``WATCHDOG=1``: half of what the unit allows; None when nobody asked this process to."""
    period_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not period_us.isdigit() or int(period_us) == 0 or pid not in (None, str(os.getpid())):
        return None
    return int(period_us) / 2e6


#: What a wrong sign, a lost unit or a full disk brings with it: told after them.
_CONSEQUENCES = frozenset({"contact", "second opinion"})


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that can be wrong."""

    name: str  # "folder", "contact", "disk", "engine": a short word, the same while it lasts
    level: Level
    text: str  # what a human should know or do
    since: str  # UTC, when it came to this level
    is_advice: bool = False  # something to look at on the instrument: the service itself is as well as ever

    @property
    def is_ok(self) -> bool:
        return self.level == "ok"


class Health:
    """All conditions of the service. ``announce`` hears each one once when it is raised and once when it clears."""

    def __init__(self, announce: Callable[[Condition], None] | None = None, now: Callable[[], str] = utc_now) -> None:
        self._announce = announce
        self._now = now
        self._lock = threading.Lock()
        self._conditions: dict[str, Condition] = {}

    def report(self, name: str, level: Level, text: str, *, is_advice: bool = False) -> None:
        """Say how ``name`` is; cheap and silent while its level stays. Any thread may call."""
        with self._lock:
            before = self._conditions.get(name)
            if before is not None and before.level == level:
                self._conditions[name] = replace(before, text=text)
                return
            after = self._conditions[name] = Condition(name, level, text, self._now(), is_advice)
        is_news = level != "ok" or before is not None
        if self._announce is not None and is_news:
            self._announce(after)

    def conditions(self) -> list[Condition]:
        """The gravest first; of those a cause before what follows from it; then in the order they were reported."""
        with self._lock:
            return sorted(self._conditions.values(), key=lambda one: (-_GRAVITY[one.level], one.name in _CONSEQUENCES))

    @property
    def level(self) -> Level:
        """The worst of all; advice does not count."""
        worst = [one for one in self.conditions() if not one.is_advice][:1]
        return worst[0].level if worst else "ok"

    def grave(self) -> dict[str, int]:
        """Of each kind of condition how the worst is: 0 well, 1 advice, 2 degraded, 3 alarm; for the metrics."""
        found: dict[str, int] = {}
        for one in self.conditions():
            kind, grade = kind_of(one.name), 0 if one.is_ok else 1 if one.is_advice else 1 + _GRAVITY[one.level]
            found[kind] = max(grade, found.get(kind, 0))
        return found

    def line(self) -> str:
        """One line for ``STATUS=``: what is wrong, or nothing when all is well."""
        return "; ".join(f"{one.name}: {one.text}" for one in self.conditions() if not one.is_ok)

    def for_status(self) -> list[events.Health]:
        """``health`` of the status event."""
        return [events.Health(**asdict(one), ok=one.is_ok) for one in self.conditions()]


# Is the tip reaching the surface? A long run of curves without contact is a lost engage, not a quiet sample.


class ContactWatch:
    """Counts `no_contact` curves in a row."""

    def __init__(self, longest_run: int) -> None:
        self._longest_run, self._run = longest_run, 0

    def observe(self, reasons: Iterable[Sequence[str]]) -> bool:
        """Whether the run has reached its limit (stays true until a curve with contact comes).

        ``reasons`` of every curve, in order; what is unreadable says nothing about the tip.
        """
        for of_one in reasons:
            if not UNREADABLE.intersection(of_one):
                self._run = self._run + 1 if "no_contact" in of_one else 0
        return self._run >= self._longest_run

    @property
    def text(self) -> str:
        return (
            f"{self._run} curves in a row without contact: the tip is not reaching the surface "
            "(check engage, setpoint, drift)"
        )

    def explained_by(self, turned: str) -> str:
        """The same where the sign of the format ``turned`` seems to be wrong: then any tip misses the surface."""
        return f"{self._run} curves in a row without contact, as their sign seems wrong: see orientation {turned}"


# Which engine computes, and if it is not the wanted one, why not; reported to health, metrics and status.


class EngineWatch:
    """Looked at after every turn: an engine may fail within a batch, and come back between two."""

    def __init__(self, health: Health, metrics: Metrics) -> None:
        self._health, self._metrics = health, metrics
        self._model: Model | None = None
        self._judge: Judge | None = None
        self._status: EngineStatus | None = None
        self._counted: Counter[str] = Counter()

    def observe(self, model: Model, judge: Judge, is_building: bool = False) -> tuple[EngineId, tuple[str, ...]]:
        """The engine that judges now, and why it is not a better one. Cheap while nothing changes."""
        status = engine_status(model)
        if self._model is None or model.classifier is not self._model.classifier:
            self._counted.clear()
        if status != self._status or judge is not self._judge:
            self._tell(status, judge)
        self._model, self._judge, self._status = model, judge, status
        building = ("an engine for the GPU is being built",) if is_building else ()
        return status.engine, (*building, *status.troubles)

    def _tell(self, status: EngineStatus, judge: Judge) -> None:
        for kind, count in status.faults.items():
            self._metrics.engine_faults.labels(kind).inc(count - self._counted[kind])
            self._counted[kind] = count
        self._metrics.serving(judge.on(status.engine))
        if status.troubles:
            text = f"{status.engine} judges, because {'; '.join(status.troubles)}"
            self._health.report("engine", "degraded", text)
        else:
            self._health.report("engine", "ok", f"{status.engine} judges")


# Does anything that is read come into the folder? Where only other files come, the curves may be saved elsewhere.

#: A note and a thumbnail are no measurement, however long they lie there.
_FEW = 3


def alarm_of(unread: Unread, alarm: AlarmConfig, now_s: float) -> str | None:
    """What to raise about a folder; None while there is nothing to say. ``now_s`` is time.monotonic()."""
    if not alarm.unread_files or unread.since_s is None or unread.is_reading:
        return None
    is_late = now_s - unread.since_s >= alarm.unread_s and unread.files >= _FEW
    if unread.files < alarm.unread_files and not is_late:
        return None
    kinds = {kind.removeprefix(f"{UNCLAIMED} "): files for kind, files in unread.kinds.items()}
    remedy = "watch the folder that the curves are saved into, or save them in a kind that is read"
    return f"{unread.files:,} files came and none is a kind that is read: {words(kinds)}; {remedy} (see doctor)"


#: A finished file has its verdict within a second; after so long something is wrong, or too much came at once.
PENDING_S = 60.0
#: The loop turns four times a second.
TURNED_S = 30.0


class Vigil:
    """Looks when the loop turns, and when somebody asks for the status: it sees a loop that hangs too.

    ``config`` is the one in force; its alarms count from the moment it is put here.
    """

    def __init__(
        self,
        config: Config,
        sources: Sequence[Source],
        accounts: Accounts,
        health: Health,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.sources, self._accounts, self._health, self._now = sources, accounts, health, now
        self._lock = threading.Lock()
        self._changed: dict[str, tuple[object, float]] = {}  # what was seen of a thing last, and since when it is so
        self._told: set[str] = set()
        self._turned_s: float | None = None

    def turned(self) -> None:
        """The loop has turned; before the first time nobody waits for it."""
        self._turned_s = self._now()

    def look(self) -> list[SourceHealth]:
        """Report what stands still; returns how the sources are. Any thread may call; never waits for a share."""
        found = [one for source in self.sources for one in source.health()]
        pending_s, counts = oldest_pending_s(self.sources), self._accounts.snapshot()
        with self._lock:
            for one in found:
                self._look_at(one)
            newest = [one.last_curve_s for one in found]
            self._look_for_curves("silence", (newest, counts["seen"], counts["decided"]), self.config.alarm.silence_s)
        self._say("pending", _words(counts["backlog"], pending_s), "every finished file has its verdict")
        stood_s = 0.0 if self._turned_s is None else self._now() - self._turned_s
        told = f"judging has stood still for {duration(stood_s)}; the log says more" if stood_s > TURNED_S else None
        self._say("judging", told, "the loop turns")
        return found

    def _look_at(self, found: SourceHealth) -> None:
        unseen_s = 0.0 if found.folder is None else self._age_s(f"seen {found.name}", found.last_seen_s)
        told = None if found.ok else found.detail
        if found.ok and unseen_s > SEEN_S:
            told = f"has not been seen for {duration(unseen_s)}; {found.detail}"
        name = f"source {found.name}"
        self._health.report(name, "ok" if told is None else "alarm", told or found.detail)
        if found.folder is not None:
            limit_s = self.config.silence_of(Path(found.name))
            self._look_for_curves(f"silence {found.name}", found.last_curve_s, limit_s)

    def _look_for_curves(self, name: str, seen: object, limit_s: float) -> None:
        silent_s = self._age_s(name, seen)
        told = f"no curve has come for {duration(silent_s)}; is the instrument measuring, and into this folder?"
        self._say(name, told if 0 < limit_s <= silent_s else None, "curves come")

    def _age_s(self, name: str, seen: object) -> float:
        """For how long the same was seen of it; by this computer's steady clock, whatever others think the time is."""
        now_s = self._now()
        before, since_s = self._changed.get(name, (None, now_s))
        if name not in self._changed or seen != before:
            since_s = now_s
            self._changed[name] = seen, since_s
        return now_s - since_s

    def _say(self, name: str, told: str | None, well: str) -> None:
        """Silent about what was never wrong."""
        if told is not None:
            self._told.add(name)
            self._health.report(name, "alarm", told)
        elif name in self._told:
            self._health.report(name, "ok", well)


def _words(waiting: int, oldest_s: float | None) -> str | None:
    """What to say of finished files without a verdict; None while none has waited too long."""
    if oldest_s is None or oldest_s < PENDING_S:
        return None
    count = "a curve waits" if waiting <= 1 else f"{waiting:,} curves wait"
    return f"{count} for a verdict, the oldest for {oldest_s:.0f} s"
