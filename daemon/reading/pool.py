"""The reader pool: files in, curves or reasons out, parsed in child processes that may be killed.

Files wait in the pool, not with the processes: each is given two, the one it reads and the next, so a slow file holds
back one other, and that for 0.3 s at most.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache

from daemon.common import ending
from daemon.common.ending import Closing
from daemon.common.errors import UNREACHABLE, UserError
from daemon.formats import limits
from daemon.formats.text_rule import TextRule, rule_for
from daemon.processes import frames
from daemon.processes.child import Child, spawn
from daemon.reading import FileReading, Reading
from daemon.reading.worker import Note
from daemon.sources import Arrival
from models.raster import RasterProfile

# ---- One seat of the reader pool: a child process, its socket, and the thread that waits for it and ends it if need
# be.

_DEPTH = 2  # requests a seat holds: one being read, one on its desk
_SLOW_S = 0.3  # a head older than this gives its neighbour back to the pool
_LIMIT_S, _LIMIT_BYTES_PER_S = 10.0, 50e6
_FRAME_LIMIT_S = 30.0  # for the rest of an answer whose beginning has come
_START_LIMIT_S = 60.0  # a busy machine can take long to load numpy
_START_TRIES = 5


@dataclass
class Task:
    """A request on its way."""

    id: int
    arrival: Arrival
    profile: RasterProfile | None = None  # that its curves are to be prepared for
    bare: bool = False  # without samples, then
    text_rule: TextRule | None = None  # what the configuration says of the file, should it be text
    has_failed: bool = False  # once: the fault may have been another's (no memory left, a share away)
    sha256: str | None = None  # of its file, as far as a child came before it failed
    head_since_s: float = 0.0  # time.monotonic() when it became the first of its seat

    @property
    def limit_s(self) -> float:
        """How long reading it may take: 10 s, and what its size takes on a slow network."""
        return _LIMIT_S + self.arrival.size_bytes / _LIMIT_BYTES_PER_S


@dataclass
class _Reader:
    child: Child
    note: Note
    is_ready: bool = False
    born_s: float = field(default_factory=time.monotonic)


class ReaderProcess(threading.Thread):
    """One child process after another, and the requests it holds."""

    def __init__(self, pool: ReaderPool, number: int) -> None:
        super().__init__(name=f"reader-{number}", daemon=True)
        self._pool = pool
        self._reader: _Reader | None = None
        self._tasks: deque[Task] = deque()
        self._bell, self._bell_end = socket.socketpair()
        self._bell_end.setblocking(False)
        self._failures = 0

    @property
    def pid(self) -> int | None:
        """Of the process that sits here now."""
        reader = self._reader
        return reader.child.process.pid if reader else None

    def nudge(self) -> None:
        """There may be something to do."""
        with contextlib.suppress(OSError):
            self._bell_end.send(b"!")

    def run(self) -> None:
        """Until the pool is closed."""
        try:
            while not self._pool.is_closed:
                if self._reader is None:
                    self._reader = _spawn()
                self._fill(self._reader)
                self._wait(self._reader)
        except Exception as error:  # a seat that dies silently would hold its files for ever
            self._pool.fail(f"{type(error).__name__}: {error}")
        finally:
            if self._reader:
                _end(self._reader)
            self._bell.close()
            self._bell_end.close()

    def _fill(self, reader: _Reader) -> None:
        """Take requests from the pool, but none behind a slow one."""
        while reader.is_ready and len(self._tasks) < _DEPTH and not self._is_slow():
            task = self._pool.next_task()
            if task is None:
                return
            if not self._tasks:
                task.head_since_s = time.monotonic()
            self._tasks.append(task)
            try:
                frames.send(reader.child.connection, _request(task))
            except OSError:
                return  # the child is gone, which _wait will find

    def _wait(self, reader: _Reader) -> None:
        """Sleep until the child answers, the pool has news or the head runs out of time."""
        patience_s = self._patience_s(reader)
        poll = select.poll()  # unlike select, for any number of open files
        poll.register(reader.child.connection, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(None if patience_s is None else patience_s * 1000)}
        if self._bell.fileno() in ready:
            self._bell.recv(4096)
        if reader.child.connection.fileno() in ready:
            try:
                self._take(reader, *frames.receive(reader.child.connection))
            except (EOFError, OSError):
                self._replace(reader, "crash")
        elif self._is_overdue(reader):
            self._replace(reader, "timeout")
        elif self._is_slow() and len(self._tasks) > 1:
            # Another seat shall have what waits behind it. Should this child answer that too, nobody listens.
            behind = [self._tasks.pop() for _ in range(len(self._tasks) - 1)]
            self._pool.give_back(reversed(behind))

    def _is_slow(self) -> bool:
        return bool(self._tasks) and time.monotonic() - self._tasks[0].head_since_s > _SLOW_S

    def _deadline_s(self, reader: _Reader) -> float:
        """When the child must have started, or answered; endless while it has nothing to do."""
        if not reader.is_ready:
            return reader.born_s + _START_LIMIT_S
        if not self._tasks:
            return float("inf")
        head = self._tasks[0]
        return head.head_since_s + (head.limit_s if self._pool.limit_s is None else self._pool.limit_s)

    def _is_overdue(self, reader: _Reader) -> bool:
        return time.monotonic() > self._deadline_s(reader)

    def _patience_s(self, reader: _Reader) -> float | None:
        until_s = self._deadline_s(reader)
        if len(self._tasks) > 1 and not self._is_slow():
            until_s = min(until_s, self._tasks[0].head_since_s + _SLOW_S)
        return None if until_s == float("inf") else max(until_s - time.monotonic(), 0.0) + 0.01

    def _take(self, reader: _Reader, header: frames.Header, payload: memoryview) -> None:
        """One frame of the child: it is ready, or it has an answer."""
        if "ready" in header:
            reader.is_ready, self._failures = True, 0
            return
        task = next((task for task in self._tasks if task.id == header["id"]), None)
        if task is None:
            return  # an answer to a request that was given back meanwhile
        self._tasks.remove(task)
        if self._tasks:
            self._tasks[0].head_since_s = time.monotonic()
        self._pool.finish(task, _reading(task, header, payload))

    def _replace(self, reader: _Reader, reason: str) -> None:
        """End a hung or dead child. Its head is tried once more, then gets the reason; the others go back."""
        sha256 = _end(reader, self._tasks[0].id if self._tasks else None)
        self._reader = None
        if not reader.is_ready and not self._pool.is_closed:
            self._failures += 1
            if self._failures >= _START_TRIES:
                self._pool.fail("reader processes end before they begin (afm-triage doctor may tell why)")
            time.sleep(min(0.02 * 2**self._failures, 2.0))
        tasks, self._tasks = list(self._tasks), deque()
        if tasks:
            tasks[0].sha256 = sha256 or tasks[0].sha256
        if tasks and tasks[0].has_failed:
            lost = tasks.pop(0)
            self._pool.finish(lost, _lost(lost, reason))
        elif tasks:
            tasks[0].has_failed = True
        self._pool.give_back(tasks)


def _request(task: Task) -> frames.Header:
    arrival = task.arrival
    return {
        "id": task.id,
        "file": str(arrival.file),
        "companion": str(arrival.companion) if arrival.companion else None,
        "name": arrival.file.name,
        "first": arrival.first,
        "count": limits.PORTION_CURVES,
        "final": arrival.final,
        "sha256": arrival.sha256 if arrival.first else None,
        "total": arrival.total,
        "profile": _as_json(task.profile) if task.profile else None,
        "bare": task.bare,
        "text_rule": None if task.text_rule is None else asdict(task.text_rule),
    }


@lru_cache(maxsize=2)
def _as_json(profile: RasterProfile) -> str:
    return profile.to_json()


def _reading(task: Task, header: frames.Header, payload: memoryview) -> FileReading:
    """The answer of a child as the stages after it know it."""
    readings = []
    arrival, at = task.arrival, 0
    curves = header.get("curves", ())
    share_s = header["read_s"] / max(len(curves), 1)
    for entry in curves:
        curve = prepared = None
        if "points" in entry:
            curve, prepared, at = frames.restore(entry, payload, at)
        origin, format = (arrival, entry["index"], header["sha256"]), header.get("format")
        readings.append(Reading(*origin, curve, entry.get("reason"), share_s, prepared, task.profile, format))
    return FileReading(
        arrival=arrival,
        outcome=header["outcome"],
        readings=tuple(readings),
        total=header.get("total", 0),
        reason=header.get("reason"),
        format=header.get("format"),
    )


def _lost(task: Task, reason: str) -> FileReading:
    """The readings of a request that took its process with it: one reason for each curve that was asked for."""
    arrival = task.arrival
    spent_s = time.monotonic() - task.head_since_s
    stop = min(arrival.first + limits.PORTION_CURVES, arrival.total)
    sha256 = task.sha256 or arrival.sha256
    readings = tuple(Reading(arrival, i, sha256, None, reason, spent_s) for i in range(arrival.first, stop))
    return FileReading(arrival, "curves", readings, arrival.total)


def _spawn() -> _Reader:
    note = Note()
    child = spawn("daemon.reading.worker", note.descriptor)
    child.connection.settimeout(_FRAME_LIMIT_S)
    return _Reader(child, note)


def _end(reader: _Reader, request: int | None = None) -> str | None:
    """Kill it and wait until it is gone; the SHA-256 that it had noted for this request."""
    reader.child.end()
    sha256 = None if request is None else reader.note.read(request)
    reader.note.close()
    return sha256


# ---- The reader pool: files in, curves or reasons out, parsed in child processes that may be killed.

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
        self._seats = [ReaderProcess(self, number) for number in range(workers)]
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
