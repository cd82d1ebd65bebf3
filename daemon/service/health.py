"""The health: what is well, what is not and since when; and the few datagrams systemd wants to hear.

Nothing here runs by itself. The pipeline's loop sends the watchdog ping, also when there is nothing to do, so a ping
means "the loop turned", neither more nor less.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

from daemon.config import AlarmConfig
from daemon.engine import EngineStatus, engine_status
from daemon.judging import Judge
from daemon.ledger import events
from daemon.ledger.events import Level
from daemon.metrics import Metrics
from daemon.sources.ignored import UNCLAIMED, Unread, words
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
    return (
        f"{unread.files:,} files came and none is a kind that is read: {words(kinds)}; {remedy}"
        " (README, Which files it reads)"
    )
