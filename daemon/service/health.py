"""The health: what is well, what is not and since when; and the few datagrams systemd wants to hear.

Nothing here runs by itself. The pipeline's loop sends the watchdog ping, also when there is nothing to do, so a ping
means "the loop turned", neither more nor less.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

Level = Literal["ok", "degraded", "alarm"]
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


def watchdog_interval_s() -> float | None:
    """How often to send ``WATCHDOG=1``: half of what the unit allows; None when nobody asked this process to."""
    period_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    if not period_us.isdigit() or int(period_us) == 0 or pid not in (None, str(os.getpid())):
        return None
    return int(period_us) / 2e6


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that can be wrong."""

    name: str  # "folder", "contact", "disk", "engine": a short word, the same while it lasts
    level: Level
    text: str  # what a human should know or do
    since: str  # UTC, when it came to this level

    @property
    def is_ok(self) -> bool:
        return self.level == "ok"


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Health:
    """All conditions of the service. ``announce`` hears each one once when it is raised and once when it clears."""

    def __init__(self, announce: Callable[[Condition], None] | None = None, now: Callable[[], str] = _utc_now) -> None:
        self._announce = announce
        self._now = now
        self._lock = threading.Lock()
        self._conditions: dict[str, Condition] = {}

    def report(self, name: str, level: Level, text: str) -> None:
        """Say how ``name`` is; cheap and silent while its level stays. Any thread may call."""
        with self._lock:
            before = self._conditions.get(name)
            if before is not None and before.level == level:
                self._conditions[name] = replace(before, text=text)
                return
            after = self._conditions[name] = Condition(name, level, text, self._now())
        is_news = level != "ok" or before is not None
        if self._announce is not None and is_news:
            self._announce(after)

    def conditions(self) -> list[Condition]:
        """The gravest first, then in the order they were first reported."""
        with self._lock:
            return sorted(self._conditions.values(), key=lambda one: -_GRAVITY[one.level])

    @property
    def level(self) -> Level:
        """The worst of all."""
        worst = self.conditions()[:1]
        return worst[0].level if worst else "ok"

    def line(self) -> str:
        """One line for ``STATUS=``: what is wrong, or nothing when all is well."""
        return "; ".join(f"{one.name}: {one.text}" for one in self.conditions() if not one.is_ok)

    def as_json(self) -> list[dict[str, object]]:
        """``health`` of the status event: name, ok, level, text, since."""
        return [asdict(one) | {"ok": one.is_ok} for one in self.conditions()]
