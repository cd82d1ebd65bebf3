"""What waits for a worker, and which of it may go next.

Four lanes: what is small, what is heavy (it may take a while), what is of a kind that was slow lately, and what is
large. Within a lane the oldest goes first; of the large ones the smallest, as the largest takes minutes. Of the workers
for small tasks one may have heavy ones in hand; another one only while nothing small waits, and if what is like it was
done in a moment.

A place is what may stop answering for all that lies there: a share. While somebody waits there for an answer, or has
been killed there and is held by the kernel, nobody else is sent there; tasks of other places are not held up.
"""

from __future__ import annotations

import bisect
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from daemon.processes import frames

Fate = Literal["crash", "timeout", "away"]

_MOST_ASIDE = 4  # workers on what is large or slow, beside those that are held up by a share
_HEAVY_BYTES = 256 << 10  # what is smaller is done in a moment, whatever it is
_REST_COSTS_BYTES = 64 << 20  # what comes last goes behind what is smaller than this, and before what is larger


@dataclass(slots=True, eq=False)
class Task:
    """A request on its way, and in the end either its ``answer`` or its ``failure``."""

    request: frames.Header
    limit_s: float  # that it may be worked on without a sign of progress
    comes_last: bool = False  # behind every request that does not
    counts: int = 1  # pieces of work that it stands for
    tries: int = 2  # processes that may be lost to it: the fault may have been another's (no memory, a share away)
    again: frames.Header = field(default_factory=dict)  # what the request says besides, once one was
    is_large: bool = False  # it may take long, and must not keep what is small waiting
    size_bytes: int = 0
    kin: str = ""  # tasks of one kind take about as long for about as many bytes
    place: str = ""  # where it lies
    is_remote: bool = False  # on a share: who waits there waits for the share, and not for what the file holds
    id: int = 0
    head_since_s: float = 0.0  # time.monotonic() when it became the first of its worker
    was_slow: bool = False
    noted: str | None = None  # of it, as far as a process came before it was lost
    answer: frames.Header | None = None
    arrays: list[frames.Array] = field(default_factory=list)
    failure: Fate | None = None
    last_words: str = ""  # of the process that was lost to it

    @property
    def is_over(self) -> bool:
        return self.answer is not None or self.failure is not None


class Lane(IntEnum):
    SMALL = 0
    HEAVY = 1
    SLOW = 2  # it was slow, or what is like it was
    LARGE = 3


@dataclass(slots=True, eq=False)
class Seat:
    """What is to be known of a worker: what it is for, and how busy it is."""

    is_aside: bool = False  # for what is large or slow; another has its place
    is_stuck: bool = False  # it waits for an answer of its place
    place: str = ""  # the share that it works on
    lane: Lane | None = None  # where what it holds comes from, when it stands aside
    is_ready: bool = False
    since_s: float | None = None  # time.monotonic() when what it works on was begun; None: it has nothing to do

    def is_slow(self, slow_s: float) -> bool:
        since_s = self.since_s
        return since_s is not None and time.monotonic() - since_s > slow_s


@dataclass(slots=True)
class _Place:
    is_stuck: bool = False  # the last that is known of it: somebody waits there for an answer
    in_hand: int = 0  # its tasks that are with workers
    lost: int = 0  # processes that were killed there, and that the kernel does not let go

    @property
    def is_open(self) -> bool:
        return not self.lost and not (self.is_stuck and self.in_hand)


class Lanes:
    """Not for two threads at once: the pool holds its lock.

    Without ``has_lanes`` there is one line, in which what comes last stands behind; no place is ever shut.
    """

    def __init__(self, has_lanes: bool, slow_s: float) -> None:
        self.has_lanes, self._slow_s = has_lanes, slow_s
        self._waiting: dict[Lane, dict[str, deque[Task]]] = {lane: {} for lane in Lane}
        self._places: dict[str, _Place] = {}
        self._seen: set[str] = set()  # every place that a task has come from
        self._kept_from: set[str] = set()  # places that this worker shall not go to now
        self._slow_from: dict[str, int] = {}  # kind -> bytes from which on it was slow lately
        self._quick_to: dict[str, int] = {}  # and up to which it was done in a moment

    def put(self, tasks: Iterable[Task]) -> None:
        """They wait, new or again."""
        for task in tasks:
            self._seen.add(self._place_of(task))
            line = self._waiting[self._lane_of(task)].setdefault(self._place_of(task), deque())
            if not line or self._order(line[-1]) <= self._order(task):
                line.append(task)
            elif self._order(task) <= self._order(line[0]):
                line.appendleft(task)
            else:
                bisect.insort(line, task, key=self._order)

    def next_for(self, seat: Seat, seats: Sequence[Seat]) -> Task | None:
        """What a worker is to do next; one for small tasks may have to stand aside for it."""
        if not self.has_lanes:
            return self.take((Lane.SMALL, Lane.LARGE))
        if seat.since_s is None:
            seat.lane, seat.place = None, ""
        if len(self._seen) > 1:  # what a share stalls with is one worker, and another is there for the other folders
            self._kept_from = {one.place for one in seats if one is not seat and one.place and not one.is_aside}
        task = self._next_for(seat, seats)
        self._kept_from = set()
        if task is not None and task.is_remote:
            seat.place = task.place
        return task

    def _next_for(self, seat: Seat, seats: Sequence[Seat]) -> Task | None:
        if not seat.is_aside and (task := self._take_small(seat, seats)) is not None:
            return task
        for lane in self._open_to(seat, [one for one in seats if one is not seat and not one.is_stuck]):
            if (task := self.take((lane,))) is not None:
                seat.lane, seat.is_aside = lane, True
                return task
        return None

    def _take_small(self, seat: Seat, seats: Sequence[Seat]) -> Task | None:
        """For one of the workers for small tasks: the oldest, heavy or not, or only what is not."""
        small, heavy = self._first(Lane.SMALL), self._first(Lane.HEAVY)
        if any(one.lane is Lane.HEAVY and not one.is_aside for one in seats if one is not seat):
            may_heavy = heavy is not None and small is None and seat.since_s is None and self._is_quick_kin(heavy)
            lane = Lane.HEAVY if may_heavy else Lane.SMALL
        elif seat.lane is Lane.HEAVY or small is None or (heavy is not None and heavy.id < small.id):
            lane = Lane.HEAVY
        else:
            lane = Lane.SMALL
        if (task := self.take((lane,))) is not None and seat.lane is not Lane.HEAVY:
            seat.lane = lane if lane is Lane.HEAVY else None
        return task

    def _first(self, lane: Lane) -> Task | None:
        """The task of a lane that goes next."""
        return min((self._waiting[lane][place][0] for place in self._ready(lane)), key=self._order, default=None)

    def _open_to(self, seat: Seat, others: Sequence[Seat]) -> list[Lane]:
        """One worker a lane; of those for small tasks one that has nothing to do, where another stays free for them."""
        if seat.is_aside:
            if seat.is_stuck:
                return []
        elif (
            seat.since_s is not None
            or not any(self._is_free(one) for one in others)
            or any(one.is_ready and one.is_aside and one.since_s is None for one in others)
        ):
            return []
        taken = {one.lane for one in others if one.is_aside}
        return [lane for lane in (Lane.SLOW, Lane.LARGE) if lane not in taken]

    def _is_free(self, seat: Seat) -> bool:
        """For small tasks, now or in a moment."""
        return seat.is_ready and not (seat.is_aside or seat.lane is Lane.HEAVY or seat.is_slow(self._slow_s))

    def may_keep(self, seat: Seat, seats: Sequence[Seat], task: Task, *, waits: bool, computes: bool) -> bool:
        """Whether a worker that is slow goes on with its task: it stands aside then. Else another shall have it."""
        is_stuck = waits and task.is_remote
        aside = [one for one in seats if one is not seat and one.is_aside]
        if is_stuck and any(one.is_stuck and one.place == task.place for one in aside):
            return False
        if is_stuck != seat.is_stuck:
            seat.is_stuck, seat.place = is_stuck, task.place
            self.set_stuck(task, is_stuck)
        if not seat.is_aside:
            if computes and not task.is_large:
                self.note_slow(task)
            if not is_stuck and sum(not one.is_stuck for one in aside) >= _MOST_ASIDE:
                task.was_slow = True
                return False
            seat.is_aside, seat.lane = True, Lane.SLOW
        return True

    def take(self, lanes: Iterable[Lane]) -> Task | None:
        """The next task of the first of these lanes that has one; it is in hand until ``release``."""
        for lane in lanes:
            lines = self._waiting[lane]
            if (place := min(self._ready(lane), key=lambda one: self._order(lines[one][0]), default=None)) is not None:
                task = lines[place].popleft()
                if not lines[place]:
                    del lines[place]
                self._place(task).in_hand += 1
                return task
        return None

    def release(self, tasks: Iterable[Task]) -> None:
        """They are with no worker any more."""
        for task in tasks:
            self._place(task).in_hand -= 1
            self._forget(task)

    def count_beside(self) -> int:
        """Tasks that wait, no large ones, and keep nothing small waiting: heavy, slow, or of a place that is shut."""
        shut = (line for place, line in self._waiting[Lane.SMALL].items() if not self._is_open(place))
        return sum(map(len, [*self._waiting[Lane.SLOW].values(), *self._waiting[Lane.HEAVY].values(), *shut]))

    def count_ready(self, lane: Lane) -> int:
        """Tasks of a lane that could be taken now."""
        return sum(len(self._waiting[lane][place]) for place in self._ready(lane))

    def set_stuck(self, task: Task, is_stuck: bool) -> bool:
        """Whether who works on it waits for an answer of its place; whether somebody did before."""
        place = self._place(task)
        was_stuck, place.is_stuck = place.is_stuck, is_stuck
        return was_stuck

    def lose(self, task: Task) -> None:
        """A process was killed over it, and is still in the kernel."""
        self._place(task).lost += 1

    def find(self, task: Task) -> None:
        """That process is gone."""
        self._place(task).lost -= 1
        self._forget(task)

    def note_slow(self, task: Task) -> None:
        """It is slow by itself: what is like it is taken for slow too."""
        task.was_slow = True
        self._slow_from[task.kin] = min(task.size_bytes, self._slow_from.get(task.kin, task.size_bytes))
        self._quick_to.pop(task.kin, None)
        for lane in (Lane.SMALL, Lane.HEAVY):
            self._sort_anew(lane, task.kin)

    def note_done(self, task: Task, seconds: float) -> None:
        """How long it took; what is like it takes as long."""
        if task.was_slow or seconds > self._slow_s:
            return
        if self._is_slow_kin(task):
            del self._slow_from[task.kin]
            self._sort_anew(Lane.SLOW, task.kin)
        if seconds < self._slow_s / 4:
            self._quick_to[task.kin] = max(task.size_bytes * 5 // 4, self._quick_to.get(task.kin, 0))

    def _sort_anew(self, lane: Lane, kin: str) -> None:
        moved = [task for line in self._waiting[lane].values() for task in line if task.kin == kin]
        if not moved:
            return
        for place, line in list(self._waiting[lane].items()):
            left = deque(task for task in line if task.kin != kin)
            if left:
                self._waiting[lane][place] = left
            else:
                del self._waiting[lane][place]
        self.put(moved)

    def _lane_of(self, task: Task) -> Lane:
        if task.comes_last or (self.has_lanes and task.is_large):
            return Lane.LARGE
        if not self.has_lanes:
            return Lane.SMALL
        if task.was_slow or self._is_slow_kin(task):
            return Lane.SLOW
        return Lane.HEAVY if task.size_bytes > _HEAVY_BYTES else Lane.SMALL

    def _is_slow_kin(self, task: Task) -> bool:
        slow_from = self._slow_from.get(task.kin)
        return slow_from is not None and task.size_bytes >= slow_from // 2

    def _is_quick_kin(self, task: Task) -> bool:
        return task.size_bytes <= self._quick_to.get(task.kin, 0)

    def _ready(self, lane: Lane) -> Iterator[str]:
        """Where tasks of a lane wait that may be taken."""
        return filter(self._is_open, self._waiting[lane])

    def _is_open(self, place: str) -> bool:
        return place not in self._kept_from and (place not in self._places or self._places[place].is_open)

    def _order(self, task: Task) -> tuple[int, int]:
        """Within its lane; the smallest goes first."""
        if self.has_lanes and task.is_large:
            return max(task.size_bytes, _REST_COSTS_BYTES) if task.comes_last else task.size_bytes, task.id
        return 0, task.id

    def _place(self, task: Task) -> _Place:
        return self._places.setdefault(self._place_of(task), _Place())

    def _place_of(self, task: Task) -> str:
        return task.place if self.has_lanes else ""

    def _forget(self, task: Task) -> None:
        place = self._place(task)
        if not (place.in_hand or place.lost or place.is_stuck):
            del self._places[self._place_of(task)]
