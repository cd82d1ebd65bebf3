"""The worker pool: requests in, answers out, worked on in child processes that may crash, hang or be killed.

Requests wait in the pool, not with the processes: each is given two, the one it works on and the next. Where a pool
says what is slow, a slow one holds back one other, and that only so long. What a request does to its process happens to
no other request.

A worker is started as ``python -m MODULE FD NOTE``. It says ``{"ready": true}`` on the socket FD, then answers frames
(``daemon.processes.frames``) in order, each with the ``id`` of its request; in NOTE it may leave a word about what it
has in its hands, for whom it can no longer answer.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from daemon.common import ending
from daemon.common.ending import Closing
from daemon.processes import frames
from daemon.processes.child import Child, Note, spawn

_DEPTH = 2  # requests a worker holds: one in hand, one on its desk
_FRAME_LIMIT_S = 30.0  # for the rest of a frame whose beginning has come
_START_LIMIT_S = 60.0  # a busy machine can take long to load numpy
_START_TRIES = 5
_END_LIMIT_S = 10.0  # for a thread whose process the kernel does not let go
_AHEAD = 4  # requests of ``map`` for each worker, at most
_SILENCE_S = 600.0  # such a request takes milliseconds; a share that hangs shall not hold us for ever


class WorkersBroken(RuntimeError):
    """No answer can be had: processes do not start, or one has ended (no memory left, a file cut off, a bad disk)."""


@dataclass(slots=True, eq=False)
class Task:
    """A request on its way, and in the end either its ``answer`` or its ``failure``."""

    request: frames.Header
    limit_s: float  # that it may be worked on
    comes_last: bool = False  # behind every request that does not
    tries: int = 2  # processes that may be lost to it: the fault may have been another's (no memory, a share away)
    id: int = 0
    head_since_s: float = 0.0  # time.monotonic() when it became the first of its worker
    noted: str | None = None  # of it, as far as a process came before it was lost
    answer: frames.Header | None = None
    arrays: list[frames.Array] = field(default_factory=list)
    failure: Literal["crash", "timeout"] | None = None
    last_words: str = ""  # of the process that was lost to it

    @property
    def is_over(self) -> bool:
        return self.answer is not None or self.failure is not None


class WorkerPool(Closing):
    """``workers`` processes of ``module``, called ``name`` in what is told of them.

    What waits behind a task that is in hand for longer than ``slow_s`` goes to another process; its own may work on it
    too, and is not listened to. Safe to use from one thread, plus ``close`` from any. ``wake()`` is called, from
    another thread, whenever ``collect`` has something new.
    """

    def __init__(
        self,
        module: str,
        workers: int,
        *,
        name: str = "worker",
        slow_s: float = math.inf,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.module, self.name, self.slow_s, self._wake = module, name, slow_s, wake
        self.is_closed = False
        self._changed = threading.Condition()
        self._ids = itertools.count(1)
        self._waiting: tuple[deque[Task], deque[Task]] = deque(), deque()  # the second behind all of the first
        self._done: deque[Task] = deque()
        self._in_flight = 0
        self._broken: WorkersBroken | None = None
        self._workers = [_Worker(self, number) for number in range(workers)]
        for worker in self._workers:
            worker.start()

    @property
    def in_flight(self) -> int:
        """Tasks submitted and not collected."""
        return self._in_flight

    @property
    def ready(self) -> int:
        """Of these, how many ``collect`` would give at once."""
        return len(self._done)

    def submit(self, tasks: Iterable[Task]) -> None:
        """Queue them, in order."""
        with self._changed:
            for task in tasks:
                task.id = next(self._ids)
                self._waiting[task.comes_last].append(task)
                self._in_flight += 1
        self._nudge()

    def collect(self, timeout_s: float = 0.0) -> list[Task]:
        """Every task that is over; waits up to ``timeout_s`` for the first. Raises WorkersBroken."""
        with self._changed:
            self._changed.wait_for(lambda: self._done or self._broken or self.is_closed, timeout_s)
            if self._broken:
                raise self._broken
            done = list(self._done)
            self._done.clear()
            self._in_flight -= len(done)
        return done

    def ask(self, request: frames.Header) -> frames.Answer:
        """One request, one answer. Raises WorkersBroken."""
        return next(self.map([request]))

    def map(self, requests: Iterable[frames.Header]) -> Iterator[frames.Answer]:
        """An answer for each request, in order; a bounded number of them is worked on ahead.

        Raises WorkersBroken when a process ends or hangs. For a pool that is asked nothing else meanwhile.
        """
        coming = iter(requests)
        line: deque[Task] = deque()
        while True:
            for request in itertools.islice(coming, _AHEAD * len(self._workers) - len(line)):
                line.append(Task(request, _SILENCE_S, tries=1))
                self.submit([line[-1]])
            if not line:
                return
            while not line[0].is_over:
                ending.check()
                self.collect(ending.LOOK_S)
            task = line.popleft()
            if task.answer is None:
                raise WorkersBroken(f"a {self.name} process {task.last_words}")
            yield task.answer, task.arrays

    def close(self) -> None:
        """End the processes; what was under way is forgotten."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()
        self._nudge()
        for worker in self._workers:
            worker.join(_END_LIMIT_S)

    def _nudge(self) -> None:
        for worker in self._workers:
            worker.nudge()

    # What follows is for the workers, on their own threads.

    def next_task(self) -> Task | None:
        with self._changed:
            queue = self._waiting[0] or self._waiting[1]
            return queue.popleft() if queue and not self.is_closed else None

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Tasks that a worker cannot serve now, to the front of the queue."""
        with self._changed:
            for task in reversed(list(tasks)):
                self._waiting[task.comes_last].appendleft(task)
        self._nudge()

    def finish(self, task: Task) -> None:
        with self._changed:
            self._done.append(task)
            self._changed.notify_all()
        self._wake()

    def fail(self, why: str) -> None:
        with self._changed:
            self._broken = WorkersBroken(why)
            self._changed.notify_all()
        self._wake()


class _Worker(threading.Thread):
    """One process after another, and the tasks it holds: waits for it, and ends it if need be."""

    def __init__(self, pool: WorkerPool, number: int) -> None:
        super().__init__(name=f"{pool.name}-{number}", daemon=True)
        self._pool = pool
        self._child: Child | None = None
        self._is_ready = False
        self._born_s = 0.0
        self._note = Note()
        self._tasks: deque[Task] = deque()
        self._bell, self._bell_end = socket.socketpair()
        self._bell_end.setblocking(False)
        self._failures = 0  # processes in a row that were never ready

    def nudge(self) -> None:
        """There may be something to do."""
        with contextlib.suppress(OSError):
            self._bell_end.send(b"!")

    def run(self) -> None:
        """Until the pool is closed."""
        try:
            while not self._pool.is_closed:
                if self._child is None:
                    self._child, self._is_ready = spawn(self._pool.module, self._note.descriptor), False
                    self._born_s = time.monotonic()
                self._fill(self._child)
                self._wait(self._child)
        except Exception as error:  # a thread that dies silently would hold its tasks for ever
            self._pool.fail(f"{type(error).__name__}: {error}")
        finally:
            if self._child:
                self._child.end()
            self._child = None
            self._note.close()
            self._bell.close()
            self._bell_end.close()

    def _fill(self, child: Child) -> None:
        """Take tasks from the pool, but none behind a slow one."""
        while self._is_ready and len(self._tasks) < _DEPTH and not self._is_slow():
            task = self._pool.next_task()
            if task is None:
                return
            if not self._tasks:
                task.head_since_s = time.monotonic()
            self._tasks.append(task)
            try:
                request = {"id": task.id, **task.request}
                frames.send(child.connection, request, until_s=time.monotonic() + _FRAME_LIMIT_S)
            except OSError:
                return  # the child is gone, which _wait will find

    def _wait(self, child: Child) -> None:
        """Sleep until the child answers, the pool has news or the head runs out of time."""
        wake_s = self._wake_s()
        poll = select.poll()  # unlike select, for any number of open files
        poll.register(child.connection, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        limit_ms = None if wake_s is None else 1000 * max(wake_s - time.monotonic(), 0.0) + 10
        ready = {descriptor for descriptor, _ in poll.poll(limit_ms)}
        if self._bell.fileno() in ready:
            self._bell.recv(4096)
        if child.connection.fileno() in ready:
            try:
                self._take(*frames.receive(child.connection, time.monotonic() + _FRAME_LIMIT_S))
            except (EOFError, OSError):
                self._replace(child, "crash", child.last_words())
        elif (limit := self._limit()) and time.monotonic() > limit[0] + limit[1]:
            self._replace(child, "timeout", f"has said nothing for {limit[1]:g} s")
        elif self._is_slow() and len(self._tasks) > 1:
            # Another worker shall have what waits behind it. Should this child answer that too, nobody listens.
            behind = [self._tasks.pop() for _ in range(len(self._tasks) - 1)]
            self._pool.give_back(reversed(behind))

    def _is_slow(self) -> bool:
        return bool(self._tasks) and time.monotonic() - self._tasks[0].head_since_s > self._pool.slow_s

    def _limit(self) -> tuple[float, float] | None:
        """Since when, and how long, the child may start or work on its head; None while it has nothing to do."""
        if not self._is_ready:
            return self._born_s, _START_LIMIT_S
        return (self._tasks[0].head_since_s, self._tasks[0].limit_s) if self._tasks else None

    def _wake_s(self) -> float | None:
        limit = self._limit()
        until_s = None if limit is None else sum(limit)
        if until_s is not None and len(self._tasks) > 1 and not self._is_slow():
            until_s = min(until_s, self._tasks[0].head_since_s + self._pool.slow_s)
        return until_s

    def _take(self, header: frames.Header, arrays: list[frames.Array]) -> None:
        """One frame of the child: it is ready, or it has an answer."""
        if "ready" in header:
            self._is_ready, self._failures = True, 0
            return
        task = next((task for task in self._tasks if task.id == header["id"]), None)
        if task is None:
            return  # an answer to a request that was given back meanwhile
        self._tasks.remove(task)
        if self._tasks:
            self._tasks[0].head_since_s = time.monotonic()
        task.answer, task.arrays = header, arrays
        self._pool.finish(task)

    def _replace(self, child: Child, reason: Literal["crash", "timeout"], last_words: str) -> None:
        """End a hung or dead child. Its head is tried anew, or has failed; the others go back."""
        child.end()
        self._child = None
        if not self._is_ready and not self._pool.is_closed:
            self._failures += 1
            if self._failures >= _START_TRIES:
                self._pool.fail(f"{self._pool.name} processes end before they begin (afm-triage doctor may tell why)")
            time.sleep(min(0.02 * 2**self._failures, 2.0))
        tasks, self._tasks = list(self._tasks), deque()
        if tasks:
            head = tasks[0]
            head.tries -= 1
            head.noted = self._note.read(head.id) or head.noted
            if not head.tries:
                head.failure, head.last_words = reason, last_words
                self._pool.finish(tasks.pop(0))
        self._pool.give_back(tasks)
