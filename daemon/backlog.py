"""The backlog: what is finished but not decided yet, single curves before maps.

Nothing here is the only copy of anything: after a crash the folders are scanned again. A map of ten thousand
curves must not hold up the single curve that the person at the microscope waits for, so its portions go last.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from daemon.arrival import Arrival
from daemon.sources import Source

#: A share that is away for a moment in the middle of a map is given this long to come back: half a minute in all.
_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0, 5.0, 5.0)


class Backlog:
    """Files ready in their sources, plus the portions of maps that are already open."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = {source.name: source for source in sources}
        self._portions: deque[Arrival] = deque()
        self._resting: list[tuple[float, Arrival]] = []  # portions to be tried again, and when
        self._tries: Counter[Path] = Counter()
        self._is_closed = False

    def take(self, limit: int) -> list[Arrival]:
        """At most ``limit`` arrivals: finished files of every source first, then one portion of a map."""
        taken: list[Arrival] = []
        if self._is_closed:
            return taken
        self._wake_portions()
        for source in self._sources.values():
            taken += source.take(limit - len(taken))
        if not taken and limit > 0 and self._portions:
            taken.append(self._portions.popleft())
        return taken

    def add_portion(self, arrival: Arrival) -> None:
        """The rest of a map, from ``arrival.first`` on."""
        self._tries.pop(arrival.file, None)
        self._portions.append(arrival)

    def defer(self, arrival: Arrival, reason: str) -> None:
        """Not whole yet: its source asks again later.

        The rest of a map that is open already is asked for here again. Its curves have been counted and some are
        decided, so each of the others gets its answer too, in the end the reason why it could not be had.
        """
        if not arrival.first:
            self._sources[arrival.source].defer(arrival, reason)
            return
        tries = self._tries[arrival.file]
        self._tries[arrival.file] += 1
        is_last = tries + 1 >= len(_RETRY_S)
        self._resting.append((time.monotonic() + _RETRY_S[tries], replace(arrival, final=is_last)))

    def settle(self, arrival: Arrival) -> None:
        """Decided and on disk: its source may forget it."""
        self._tries.pop(arrival.file, None)
        self._sources[arrival.source].settle(arrival)

    def ignore(self, arrival: Arrival, reason: str) -> None:
        """No reader wants it: its source counts it among the ignored."""
        self._sources[arrival.source].ignore(arrival, reason)

    def close(self) -> None:
        """Take nothing more: the service is ending, and the next start finds the rest in the folders."""
        self._is_closed = True

    def ready(self) -> int:
        """Arrivals that could be taken now."""
        if self._is_closed:
            return 0
        return sum(source.ready() for source in self._sources.values()) + len(self._portions) + len(self._resting)

    def _wake_portions(self) -> None:
        now_s = time.monotonic()
        self._portions += [arrival for due_s, arrival in self._resting if due_s <= now_s]
        self._resting = [one for one in self._resting if one[0] > now_s]
