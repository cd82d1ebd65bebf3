"""The vigil: what stands still is told before anybody misses a verdict.

A night without verdicts must never look like a quiet night: a folder that is not seen, a file that gets no verdict, a
loop that does not turn and, where somebody has asked for it, an instrument from which no curve comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from daemon.common.text import duration
from daemon.config import Config
from daemon.metrics import Accounts
from daemon.service.health import Health
from daemon.sources import SEEN_S, Source, SourceHealth, oldest_pending_s

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
