"""One file on its way from first seen to settled: when to look again, when it is finished, and who waits for it."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from dataclasses import dataclass, field, replace

from daemon.formats.errors import UNENDED
from daemon.sources import Arrival
from daemon.sources.scan import Stamp


@dataclass(frozen=True, slots=True)
class Timing:
    """Every waiting time of a watched folder, in seconds."""

    look_s: float = 0.25  # between two looks at a file that may still grow
    scan_s: float = 30.0  # between two listings of the whole folder
    scan_often_s: float = 2.0  # the same, where hints are missing or cannot be trusted
    sweep_s: float = 600.0  # between two stats of every settled file, for the rewritten ones
    check_s: float = 5.0  # between two looks at the watcher itself
    retry_s: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # after the reader found a file unfinished
    patience_s: float = 60.0  # without growth, then it is offered a last time
    patience_map_s: float = 600.0
    patience_zero_tail_s: float = 10.0
    patience_unended_s: float = 20.0  # text without a line end after its last row: then it is read as it is
    skew_s: float = 0.0  # how far the clock of the file system may be off
    suspicion_s: float = 60.0  # how long to scan often after a scan found what no hint told

    def on_network(self) -> Timing:
        """No hints there, attribute caches of 1 to 3 s, and somebody else's clock."""
        return replace(self, look_s=4 * self.look_s, skew_s=120.0)

    def patience(self, reason: str, *, is_map: bool) -> float:
        """How long a file without growth may stay unfinished."""
        if reason == "zero_tail":
            return self.patience_zero_tail_s
        if reason == UNENDED:
            return self.patience_unended_s
        return self.patience_map_s if is_map else self.patience_s


@dataclass(slots=True, eq=False)
class FileState:
    """What is remembered of one unsettled path; all times are time.monotonic()."""

    path: str  # relative to the folder, '/' between parts
    claimed: bool
    companion: str | None  # path of the other half of a pair
    quiet_s: float  # what its format asks for after the writer has closed it
    is_map: bool  # of many curves, written over minutes
    fresh: bool  # found by a first scan: its age counts as quiet time
    came: bool  # after the folder did, and was not there with it
    due_s: float  # next look
    grown_s: float  # when it was first seen, or last seen to change; patience counts from here
    need_s: float = 0.0  # what is asked for now: less after a close than without
    changed_s: float = 0.0  # since when it has been quiet
    stamp: Stamp | None = None
    hinted: bool = False  # some event told of it
    whole: bool = True  # False: the other half is missing
    closed: set[str] = field(default_factory=set)  # the halves whose close was heard
    closed_s: float | None = None  # when a hint said that the writer is done
    retry_s: float = 0.0  # a deferred file is not offered before this unless it changes
    tries: int = 0  # times it was deferred since its last change
    offered: bool = False  # at least once in this life
    counted: bool = False  # in curves_seen_total
    reason: str = ""
    out: bool = False  # offered, or with the reader
    taken: bool = False
    gone: bool = False  # offered a last time because it had vanished
    again: bool = False  # something happened to it meanwhile
    moved_to: str | None = None  # renamed while the reader had it
    noticed: tuple[Stamp, float] | None = None
    arrival: Arrival | None = None

    def close(self, name: str) -> bool:
        """One file was closed by its writer; whether all there is to this one now has been."""
        self.closed.add(name)
        return self.companion is None or len(self.closed) == 2

    def see(self, stamp: Stamp, whole: bool, now_s: float, age_s: float, look_s: float) -> None:
        """Take note of a look; a change starts the quiet time (and the patience) anew."""
        self.whole = whole
        if stamp == self.stamp:
            return
        if self.closed_s is None:  # no word that the writer is done: two equal looks
            self.need_s = max(self.quiet_s, look_s)
        self.changed_s = now_s - (age_s if self.fresh else 0.0)
        self.fresh = False
        self.stamp, self.grown_s = stamp, now_s
        self.tries, self.retry_s = 0, 0.0

    def ready_s(self, timing: Timing) -> float:
        """When it may be offered if nothing changes any more."""
        last_s = self._last_s(timing)
        if not self.whole:
            return last_s
        return max(self.changed_s + self.need_s, min(self.retry_s, last_s) if self.tries else 0.0)

    def is_final(self, now_s: float, timing: Timing) -> bool:
        """Whether this offer is the last: unfinished (or half) for longer than patience."""
        unfinished = self.tries > 0 or not self.whole
        return unfinished and now_s >= self._last_s(timing)

    def _last_s(self, timing: Timing) -> float:
        """When patience ends if nothing changes any more. What only lacks a line end may have rested long before."""
        rests_s = self.changed_s if self.reason == UNENDED else self.grown_s
        return rests_s + timing.patience(self.reason, is_map=self.is_map)

    def notice(self, now_s: float, final: bool) -> float:
        """The moment latency counts from.

        That is when these bytes (by their stamp) were first believed finished: the close event where that sufficed,
        else the look that found them quiet. A file that had to be given up was finished only now.
        """
        if final or self.stamp is None:
            return now_s
        if self.noticed is None or self.noticed[0] != self.stamp:
            heard = self.closed_s is not None and self.need_s == 0.0
            self.noticed = (self.stamp, self.closed_s if heard and self.closed_s is not None else now_s)
        return self.noticed[1]

    def defer(self, reason: str, now_s: float, timing: Timing) -> None:
        """The reader found it unfinished."""
        self.out = self.taken = False
        self.closed_s = None
        self.closed.clear()
        self.reason = reason
        self.retry_s = now_s + timing.retry_s[min(self.tries, len(timing.retry_s) - 1)]
        if reason == UNENDED:
            self.retry_s = math.inf  # the same bytes end in the same way: until they change, only time helps
        self.tries += 1


class OfferQueue:
    """Finished files waiting for the pipeline; one can be taken back until it is taken.

    Live ones before those that lay there at a start, small before large, the oldest first by their times. The one place
    where the watching and the taking threads meet.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: tuple[_Line, _Line] = [], []  # small ones, large ones
        self._size = 0
        self._turn = itertools.count()
        self._pending: dict[int, float] = {}  # id of each offered and undecided file -> when it was noticed

    def __len__(self) -> int:
        return self._size

    def put(self, pending: FileState, arrival: Arrival) -> None:
        """Offer ``pending`` as ``arrival``."""
        with self._lock:
            pending.arrival, pending.taken = arrival, False
            place = (not pending.came, arrival.mtime_ns, next(self._turn))
            heapq.heappush(self._lines[arrival.is_large], (place, pending, arrival))
            self._pending[id(pending)] = arrival.noticed_s
            self._size += 1

    def withdraw(self, pending: FileState) -> bool:
        """Take an offer back; False when somebody has taken it."""
        with self._lock:
            if pending.taken or pending.arrival is None:
                return False
            pending.arrival = None
            self._pending.pop(id(pending), None)
            self._size -= 1
            return True

    def answered(self, pending: FileState) -> None:
        """The taker has ended with it."""
        with self._lock:
            self._pending.pop(id(pending), None)

    def oldest_pending_s(self) -> float | None:
        """time.monotonic() when the oldest of what is offered and not answered was noticed; None: nothing is."""
        with self._lock:
            return min(self._pending.values(), default=None)

    def take(self, limit: int, large: int) -> list[Arrival]:
        """At most ``limit`` arrivals, at most ``large`` of them large, now the taker's."""
        taken: list[Arrival] = []
        with self._lock:
            while len(taken) < limit and (line := self._first_line(large)) is not None:
                _, pending, arrival = heapq.heappop(line)
                pending.taken = True
                taken.append(arrival)
                large -= arrival.is_large
            self._size -= len(taken)
        return taken

    def _first_line(self, large: int) -> _Line | None:
        for line in self._lines:
            while line and line[0][1].arrival is not line[0][2]:  # taken back
                heapq.heappop(line)
        small, big = self._lines
        if not big or large <= 0:
            return small or None
        is_live_first = not small or big[0][0][0] < small[0][0][0]
        return big if is_live_first else small


_Line = list[tuple[tuple[bool, int, int], FileState, Arrival]]
