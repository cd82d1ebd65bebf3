"""One file on its way from first seen to settled: when to look again, when it is finished, and who waits for it."""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from daemon.formats.base import AWAY, UNENDED
from daemon.sources import Arrival
from daemon.sources.scan import Stamp


@dataclass(frozen=True, slots=True)
class Timing:
    """Every waiting time of a watched folder, in seconds."""

    look_s: float = 0.25  # between two looks at a file that may still grow
    scan_s: float = 30.0  # between two listings of the whole folder
    scan_often_s: float = 2.0  # the same, where hints are missing or cannot be trusted
    sweep_s: float = 600.0  # between two stats of every settled file, for the rewritten ones
    check_s: float = 2.0  # between two looks at the watcher itself, and at what the folder lies on
    retry_s: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # after the reader found a file unfinished
    patience_s: float = 60.0  # without growth, then it is offered a last time
    patience_map_s: float = 600.0
    patience_zero_tail_s: float = 10.0
    patience_unended_s: float = 20.0  # text without a line end after its last row: then it is read as it is
    rename_s: float = 2.0  # what is gone may have another name by now, of which word comes half a second later
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


class State(Enum):
    """Where a file stands on its way.

    seen ──quiet, or closed by its writer──> offered ──taken──> reading ──> decided, or deferred ──> offered again.

    Before it is taken an offer can be taken back (seen). What a reader found unfinished is deferred until it changes
    (seen) or is due again (offered). What vanishes before anybody has asked for it is gone.
    """

    SEEN = auto()
    OFFERED = auto()
    READING = auto()
    DEFERRED = auto()
    DECIDED = auto()
    GONE = auto()


#: Every step there is.
_STEPS: Mapping[State, frozenset[State]] = {
    State.SEEN: frozenset({State.OFFERED, State.DECIDED, State.GONE}),  # decided: it is as it was when it was decided
    State.OFFERED: frozenset({State.READING, State.SEEN}),
    State.READING: frozenset({State.DEFERRED, State.DECIDED}),
    State.DEFERRED: frozenset({State.SEEN, State.OFFERED, State.GONE}),
    State.DECIDED: frozenset(),
    State.GONE: frozenset(),
}


class Found(Enum):
    """How a file was first met."""

    START = auto()  # by the first listing of the folder: it lay there, and its age counts as quiet time
    SCAN = auto()  # by a later one
    HINT = auto()


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the reader said of an unfinished file."""

    reason: str
    tries: int  # since the file last changed
    again_s: float  # not offered before this unless it changes


@dataclass(slots=True, eq=False)
class FileState:
    """What is remembered of one undecided path; all times are time.monotonic()."""

    path: str  # relative to the folder, '/' between parts
    claimed: bool  # its name says that it is a curve
    companion: str | None  # path of the other half of a pair
    quiet_s: float  # what its format asks for after the writer has closed it
    is_map: bool  # of many curves, written over minutes
    found: Found
    grown_s: float  # when it was first seen, or last seen to change; patience counts from here
    due_s: float = 0.0  # next look
    state: State = State.SEEN
    stamp: Stamp | None = None  # as it was last seen
    changed_s: float = 0.0  # since when it has been quiet
    rest_s: float = 0.0  # for how long it has to be: less after a close than without
    closed: set[str] = field(default_factory=set)  # the halves whose close was heard
    closed_s: float | None = None  # when something said that the writer is done
    heard_s: float = -math.inf  # when the last close was heard: what was looked at before may be old
    refusal: Refusal | None = None
    missed_s: float | None = None  # since when it has not been there
    offers: int = 0
    counted: bool = False  # in curves_seen_total
    again: bool = False  # something happened to it while the reader had it
    moved_to: str | None = None  # it was renamed while the reader had it
    noticed: tuple[Stamp, float] | None = None
    arrival: Arrival | None = None

    def become(self, state: State) -> None:
        """Take a step. Raises RuntimeError for one that there is not."""
        if state not in _STEPS[self.state]:
            raise RuntimeError(f"{self.path}: {self.state.name} cannot become {state.name}")
        self.state = state

    @property
    def is_out(self) -> bool:
        """Whether the pipeline has it, or may take it at any moment."""
        return self.state in (State.OFFERED, State.READING)

    @property
    def is_live(self) -> bool:
        """Whether it came while we watched."""
        return self.found is not Found.START

    def close(self, half: str, heard_s: float, is_last: bool) -> None:
        """Word came at ``heard_s`` that the writer is done with one half; ``is_last``: that nothing more will come."""
        self.closed.add(half)
        if is_last or self.companion is None or len(self.closed) == 2:
            self.rest_s = 0.0 if is_last else self.quiet_s
            self.closed_s, self.changed_s = heard_s, max(self.changed_s, heard_s)
            if self.refusal is not None:
                self.refusal = replace(self.refusal, again_s=0.0)

    def see(self, stamp: Stamp, now_s: float, age_s: float, look_s: float) -> None:
        """Take note of a look; a change starts the quiet time (and the patience) anew."""
        is_first, self.missed_s = self.stamp is None, None
        if not stamp.is_same(self.stamp):
            if self.closed_s is None:  # no word that the writer is done: two equal looks
                self.rest_s = max(self.quiet_s, look_s)
            if not is_first:
                self.found = Found.HINT
            self.changed_s = now_s - (age_s if is_first and not self.is_live else 0.0)
            self.grown_s, self.refusal = now_s, None
            if self.state is State.DEFERRED:
                self.become(State.SEEN)
        self.stamp = stamp

    def ready_s(self, timing: Timing, is_whole: bool) -> float:
        """When it may be offered if nothing changes any more. Not ``is_whole``: its other half is missing."""
        last_s = self._last_s(timing)
        if not is_whole:
            return last_s
        return max(self.changed_s + self.rest_s, min(self.refusal.again_s, last_s) if self.refusal else 0.0)

    def is_final(self, now_s: float, timing: Timing, is_whole: bool) -> bool:
        """Whether this offer is the last: unfinished (or half) for longer than patience."""
        return (self.refusal is not None or not is_whole) and now_s >= self._last_s(timing)

    def _last_s(self, timing: Timing) -> float:
        """When patience ends if nothing changes any more. What only lacks a line end may have rested long before."""
        reason = self.refusal.reason if self.refusal else ""
        rests_s = self.changed_s if reason == UNENDED else self.grown_s
        return rests_s + timing.patience(reason, is_map=self.is_map)

    def notice(self, now_s: float, is_final: bool) -> float:
        """The moment latency counts from.

        That is when these bytes (by their stamp) were first believed finished: the close event where that sufficed,
        else the look that found them quiet. A file that had to be given up was finished only now.
        """
        if is_final or self.stamp is None:
            return now_s
        if self.noticed is None or not self.stamp.is_same(self.noticed[0]):
            is_heard = self.closed_s is not None and self.rest_s == 0.0
            self.noticed = (self.stamp, self.closed_s if is_heard and self.closed_s is not None else now_s)
        return self.noticed[1]

    def defer(self, reason: str, now_s: float, timing: Timing) -> None:
        """The reader found it unfinished, or its share away: then nobody saw how it is, and patience begins anew."""
        self.become(State.DEFERRED)
        self.closed_s = None
        self.closed.clear()
        if reason == AWAY:
            self.grown_s = now_s
        tries = self.refusal.tries if self.refusal else 0
        # Where only a line end is lacking the same bytes end in the same way: until they change, only time helps.
        wait_s = math.inf if reason == UNENDED else timing.retry_s[min(tries, len(timing.retry_s) - 1)]
        self.refusal = Refusal(reason, tries + 1, now_s + wait_s)


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
            pending.become(State.OFFERED)
            pending.arrival = arrival
            place = (not pending.is_live, arrival.mtime_ns, next(self._turn))
            heapq.heappush(self._lines[arrival.is_large], (place, pending, arrival))
            self._pending[id(pending)] = arrival.noticed_s
            self._size += 1

    def withdraw(self, pending: FileState) -> bool:
        """Take an offer back; False when somebody has taken it."""
        with self._lock:
            if pending.state is not State.OFFERED:
                return False
            pending.become(State.SEEN)
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
                pending.become(State.READING)
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
