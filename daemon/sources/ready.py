"""Finished files waiting for the pipeline; the one place where the watching and the taking thread meet."""

from __future__ import annotations

import heapq
import itertools
import threading

from daemon.arrival import Arrival
from daemon.sources.pending import Pending


class Ready:
    """A queue ordered by the files' times, oldest first. An offer can be taken back until it is taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heap: list[tuple[int, int, Pending, Arrival]] = []
        self._size = 0
        self._turn = itertools.count()

    def __len__(self) -> int:
        return self._size

    def put(self, pending: Pending, arrival: Arrival) -> None:
        """Offer ``pending`` as ``arrival``."""
        with self._lock:
            pending.arrival, pending.taken = arrival, False
            heapq.heappush(self._heap, (arrival.mtime_ns, next(self._turn), pending, arrival))
            self._size += 1

    def withdraw(self, pending: Pending) -> bool:
        """Take an offer back; False when somebody has taken it."""
        with self._lock:
            if pending.taken or pending.arrival is None:
                return False
            pending.arrival = None
            self._size -= 1
            return True

    def take(self, limit: int) -> list[Arrival]:
        """At most ``limit`` arrivals, now the taker's."""
        taken: list[Arrival] = []
        with self._lock:
            while self._heap and len(taken) < limit:
                _, _, pending, arrival = heapq.heappop(self._heap)
                if pending.arrival is arrival:
                    pending.taken = True
                    taken.append(arrival)
            self._size -= len(taken)
        return taken
