"""The backlog: what is finished but not decided yet, single curves before maps.

Nothing here is the only copy of anything: after a crash the folders are scanned again. A map of ten thousand
curves must not hold up the single curve that the person at the microscope waits for, so its portions go last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from daemon.arrival import Arrival
from daemon.sources import Source


class Backlog:
    """Files ready in their sources, plus the portions of maps that are already open."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = {source.name: source for source in sources}
        self._portions: deque[Arrival] = deque()
        self._is_closed = False

    def take(self, limit: int) -> list[Arrival]:
        """At most ``limit`` arrivals: finished files of every source first, then one portion of a map."""
        taken: list[Arrival] = []
        if self._is_closed:
            return taken
        for source in self._sources.values():
            taken += source.take(limit - len(taken))
        if not taken and limit > 0 and self._portions:
            taken.append(self._portions.popleft())
        return taken

    def add_portion(self, arrival: Arrival) -> None:
        """The rest of a map, from ``arrival.first`` on."""
        self._portions.append(arrival)

    def defer(self, arrival: Arrival, reason: str) -> None:
        """Not whole yet: its source asks again later."""
        self._sources[arrival.source].defer(arrival, reason)

    def settle(self, arrival: Arrival) -> None:
        """Decided and on disk: its source may forget it."""
        self._sources[arrival.source].settle(arrival)

    def close(self) -> None:
        """Take nothing more: the service is ending, and the next start finds the rest in the folders."""
        self._is_closed = True

    def ready(self) -> int:
        """Arrivals that could be taken now."""
        if self._is_closed:
            return 0
        return sum(source.ready() for source in self._sources.values()) + len(self._portions)
