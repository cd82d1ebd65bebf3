"""The reader pool: files in, curves or reasons out, parsed in child processes that may be killed.

Files wait in the pool, not with the processes: each is given two, the one it reads and the next, so a slow file holds
back one other, and that for 0.3 s at most.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from daemon.common import ending
from daemon.common.ending import Closing
from daemon.common.errors import UNREACHABLE, UserError
from daemon.formats.text_rule import TextRule, rule_for
from daemon.reading import FileReading
from daemon.reading.seat import Seat, Task
from daemon.sources import Arrival
from models.profile import RasterProfile

_END_LIMIT_S = 10.0  # for a seat whose process the kernel does not let go
_WINDOW = 32  # files that read_files keeps under way


class ReaderBroken(UserError):
    """Reader processes cannot be started: the installation is broken or the machine is out of memory (exit 69)."""

    def __init__(self, why: str) -> None:
        super().__init__(UNREACHABLE, f"no file can be read: {why}")


class ReaderPool(Closing):
    """Reads files in ``workers`` child processes. Safe to use from one thread, plus ``close`` from any.

    ``wake()`` is called, from another thread, whenever ``collect`` has something new. ``limit_s`` replaces the time
    limit that follows from a file's size. Curves of what is submitted while there is a ``profile`` are prepared for it;
    ``bare`` ones then come without their samples. ``rules`` are what the configuration says of text files; what was
    read by others than those in force when it is collected is read again.
    """

    def __init__(
        self,
        workers: int = 2,
        wake: Callable[[], None] | None = None,
        limit_s: float | None = None,
        profile: RasterProfile | None = None,
        bare: bool = False,
        rules: Sequence[TextRule] = (),
    ) -> None:
        self._changed = threading.Condition()
        self._wake = wake or (lambda: None)
        self.limit_s, self.profile, self.rules, self._bare = limit_s, profile, rules, bare
        self._ids = itertools.count(1)
        self._singles: deque[Task] = deque()
        self._portions: deque[Task] = deque()
        self._done: deque[tuple[Task, FileReading]] = deque()
        self._under_way = 0
        self._broken: ReaderBroken | None = None
        self._closed = False
        self._seats = [Seat(self, number) for number in range(workers)]
        for seat in self._seats:
            seat.start()

    @property
    def in_flight(self) -> int:
        """Arrivals submitted whose reading has not been collected."""
        return self._under_way

    @property
    def ready(self) -> int:
        """Of these, how many ``collect`` would give at once."""
        return len(self._done)

    def submit(self, arrivals: Iterable[Arrival]) -> None:
        """Queue files; later portions of maps wait behind every whole file."""
        with self._changed:
            for arrival in arrivals:
                self._enter(arrival)
                self._under_way += 1
            self._changed.notify_all()
        for seat in self._seats:
            seat.nudge()

    def _enter(self, arrival: Arrival) -> None:
        task = Task(next(self._ids), arrival, self.profile, self._bare, rule_for(arrival.file, self.rules))
        (self._portions if arrival.first else self._singles).append(task)

    def collect(self, timeout_s: float = 0.0) -> list[FileReading]:
        """Everything that is done; waits up to ``timeout_s`` for the first. Raises ``ReaderBroken``."""
        with self._changed:
            self._changed.wait_for(lambda: self._done or self._broken or self._closed, timeout_s)
            if self._broken:
                raise self._broken
            done, self._done = self._done, deque()
            readings = [reading for task, reading in done if self._holds(task)]
            self._under_way -= len(readings)
            for task, _ in done:
                if not self._holds(task):
                    self._enter(task.arrival)
        if len(readings) < len(done):
            for seat in self._seats:
                seat.nudge()
        return readings

    def _holds(self, task: Task) -> bool:
        """Whether a file was read as the rules of now would have it."""
        return task.text_rule == rule_for(task.arrival.file, self.rules)

    def close(self) -> None:
        """End the child processes; what was under way is forgotten (the folder still has it)."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for seat in self._seats:
            seat.nudge()
        for seat in self._seats:
            seat.join(_END_LIMIT_S)

    # What follows is for the seats, on their own threads.

    def next_task(self) -> Task | None:
        with self._changed:
            if self._closed:
                return None
            queue = self._singles or self._portions
            return queue.popleft() if queue else None

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Requests that a seat cannot serve now, to the front of the queue."""
        with self._changed:
            for task in reversed(list(tasks)):
                (self._portions if task.arrival.first else self._singles).appendleft(task)
        for seat in self._seats:
            seat.nudge()

    def finish(self, task: Task, reading: FileReading) -> None:
        with self._changed:
            self._done.append((task, reading))
            self._changed.notify_all()
        self._wake()

    def fail(self, why: str) -> None:
        with self._changed:
            self._broken = ReaderBroken(why)
            self._changed.notify_all()
        self._wake()

    @property
    def is_closed(self) -> bool:
        return self._closed


def read_files(arrivals: Iterable[Arrival], workers: int = 2, rules: Sequence[TextRule] = ()) -> Iterator[FileReading]:
    """Every file in the order given, maps portion by portion to their last curve.

    The pool lives as long as the iteration; a window of files is read ahead. Raises ``ReaderBroken``.
    """
    coming = iter(arrivals)
    line: deque[_Book] = deque()
    with ReaderPool(workers, rules=rules) as pool:
        while True:
            for arrival in itertools.islice(coming, _WINDOW - len(line)):
                line.append(_Book(arrival))
                pool.submit([arrival])
            if not line:
                return
            ending.check()
            for reading in pool.collect(ending.LOOK_S):
                book = next(book for book in line if book.arrival is reading.arrival)
                further = book.enter(reading)
                pool.submit([further] if further else [])
            while line:
                while line[0].readings:
                    yield line[0].readings.popleft()
                if not line[0].is_over:
                    break
                line.popleft()


@dataclass
class _Book:
    """What is known of one file of ``read_files``."""

    arrival: Arrival  # the portion under way
    readings: deque[FileReading] = field(default_factory=deque)
    is_over: bool = False

    def enter(self, reading: FileReading) -> Arrival | None:
        """Note a portion; the next one, if the file has more curves."""
        self.readings.append(reading)
        done = reading.readings[-1].index + 1 if reading.readings else 0
        sha256 = reading.readings[-1].sha256 if reading.readings else None
        if not sha256 or done >= reading.total:
            self.is_over = True
            return None
        self.arrival = self.arrival.portion(done, sha256, reading.total)
        return self.arrival
