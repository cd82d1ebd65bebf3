"""The worker pool: requests in, answers out, worked on in child processes that may crash, hang or be killed.

Requests wait in the pool, not with the processes: each is given two, the one it works on and the next. Where a pool
says what is slow, a slow one holds back one other, and that only so long. What a request does to its process happens to
no other request.

In a pool with lanes, a process that works on what is large, or that is found slow, stands aside: another takes its
place, so that there are always as many for what is small. It ends when its lane has been empty for a while, and its
memory is the system's again. One that waits for a share that does not answer stands aside too, at most one a share
(``daemon.processes.lanes``). A process that is killed and does not die is written off: nobody waits for it.

A worker is started as ``python -m MODULE FD NOTE``. It says ``{"ready": true}`` on the socket FD, then answers frames
(``daemon.processes.frames``) in order, each with the ``id`` of its request; in NOTE it may leave a word about what it
has in its hands, for whom it can no longer answer, and signs of progress.
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
from collections.abc import Callable, Iterable, Iterator, Sequence

from daemon.common import ending
from daemon.common.ending import Closing
from daemon.processes import frames
from daemon.processes.child import Child, Note, spawn
from daemon.processes.lanes import Fate, Lane, Lanes, Seat, Task

_DEPTH = 2  # requests a worker holds: one in hand, one on its desk
_FRAME_LIMIT_S = 30.0  # for the rest of a frame whose beginning has come
_START_LIMIT_S = 60.0  # a busy machine can take long to load numpy
_START_TRIES = 5
_END_LIMIT_S = 2.0  # for all threads together; a process that the kernel does not let go is left to it
_LOOK_S = 0.25  # between two looks at a process that is slow
_STOPPED_S = 1.0  # a process that somebody has stopped is replaced after this
_HUMBLE_S = 2.0  # what takes longer than this works when the others leave it time
_IDLE_S = 5.0  # after which one that stands aside ends
_MOST_DONE_BYTES = 64 << 20  # of answers that nobody has collected; beyond, nothing new is begun
_AHEAD = 4  # requests of ``map`` for each worker, at most
_SILENCE_S = 600.0  # such a request takes milliseconds; a share that hangs shall not hold us for ever


class WorkersBroken(RuntimeError):
    """No answer can be had: processes do not start, or one has ended (no memory left, a file cut off, a bad disk)."""


class WorkerPool(Closing):
    """``workers`` processes of ``module``, called ``name`` in what is told of them.

    What waits behind a task that is in hand for longer than ``slow_s`` goes to another process; its own may work on it
    too, and is not listened to. With ``has_lanes`` (and more than one process) tasks keep to their lanes, and places
    that do not answer are left alone. Safe to use from one thread, plus ``close`` from any. ``wake()`` is called, from
    another thread, whenever ``collect`` has something new.
    """

    def __init__(
        self,
        module: str,
        workers: int,
        *,
        name: str = "worker",
        slow_s: float = math.inf,
        has_lanes: bool = False,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.module, self.name, self.slow_s, self._wake = module, name, slow_s, wake
        self.has_lanes = has_lanes and workers > 1
        self.is_closed = False
        self._changed = threading.Condition()
        self._ids = itertools.count(1)
        self._lanes = Lanes(self.has_lanes, slow_s)
        self._done: deque[Task] = deque()
        self._done_bytes = 0
        self._in_flight = self._large_in_flight = 0
        self._broken: WorkersBroken | None = None
        self._seats, self._numbers = workers, itertools.count()
        self._workers: list[_Worker] = []
        with self._changed:
            self._fill_seats()

    @property
    def in_flight(self) -> int:
        """Tasks submitted and not collected, each for what it counts."""
        return self._in_flight

    @property
    def small_in_flight(self) -> int:
        """Of these, the small ones that do not wait for heavy or slow ones, or for a share that does not answer."""
        with self._changed:
            return self._in_flight - self._large_in_flight - self._lanes.count_beside()

    @property
    def large_in_flight(self) -> int:
        """Of these, the large ones."""
        return self._large_in_flight

    @property
    def ready(self) -> int:
        """Of these, how many ``collect`` would give at once."""
        with self._changed:
            return sum(task.counts for task in self._done)

    def submit(self, tasks: Iterable[Task]) -> None:
        """Queue them, in order."""
        with self._changed:
            for task in tasks:
                task.id = next(self._ids)
                self._lanes.put([task])
                self._in_flight += task.counts
                self._large_in_flight += task.is_large
        self._nudge()

    def collect(self, timeout_s: float = 0.0) -> list[Task]:
        """Every task that is over; waits up to ``timeout_s`` for the first. Raises WorkersBroken."""
        with self._changed:
            self._changed.wait_for(lambda: self._done or self._broken or self.is_closed, timeout_s)
            if self._broken:
                raise self._broken
            done = list(self._done)
            self._done.clear()
            self._in_flight -= sum(task.counts for task in done)
            self._large_in_flight -= sum(task.is_large for task in done)
            was_full, self._done_bytes = self._done_bytes > _MOST_DONE_BYTES, 0
        if was_full:
            self._nudge()
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
            for request in itertools.islice(coming, _AHEAD * self._seats - len(line)):
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
        """End the processes, within 2 s whatever the kernel holds; what was under way is forgotten."""
        with self._changed:
            self.is_closed = True
            workers = list(self._workers)
            self._changed.notify_all()
        for worker in workers:
            worker.nudge()
        until_s = time.monotonic() + _END_LIMIT_S
        for worker in workers:
            worker.join(max(until_s - time.monotonic(), 0.0))

    def _nudge(self) -> None:
        for worker in list(self._workers):
            worker.nudge()

    # What follows is for the workers, on their own threads.

    def next_task(self, worker: _Worker) -> Task | None:
        with self._changed:
            if self.is_closed or self._done_bytes > _MOST_DONE_BYTES:
                return None
            task = self._lanes.next_for(worker.seat, [one.seat for one in self._workers])
            self._fill_seats()
            return task

    def _fill_seats(self) -> None:
        while not self.is_closed and sum(not one.seat.is_aside for one in self._workers) < self._seats:
            self._workers.append(_Worker(self, next(self._numbers)))
            self._workers[-1].start()

    def may_keep(self, worker: _Worker, task: Task, *, waits: bool, computes: bool) -> bool:
        """Whether a worker that is slow goes on with its task; else another shall have it."""
        with self._changed:
            seats = [one.seat for one in self._workers]
            may = self._lanes.may_keep(worker.seat, seats, task, waits=waits, computes=computes)
            self._fill_seats()
        self._nudge()
        return may

    def may_leave(self, worker: _Worker) -> bool:
        """Whether a worker that stands aside may end: it has nothing to do, and nothing waits for it."""
        with self._changed:
            if worker.seat.is_ready and any(map(self._lanes.count_ready, (Lane.SLOW, Lane.LARGE))):
                return False
            self._workers.remove(worker)
            return True

    def give_back(self, tasks: Sequence[Task]) -> None:
        """Tasks that a worker cannot serve now: they keep their places in the queue."""
        with self._changed:
            self._lanes.release(tasks)
            self._lanes.put(tasks)
        self._nudge()

    def finish(self, task: Task) -> None:
        with self._changed:
            was_stuck = task.answer is not None and self._lanes.set_stuck(task, False)
            if task.answer is not None:
                self._lanes.note_done(task, time.monotonic() - task.head_since_s)
            self._lanes.release([task])
            self._done.append(task)
            self._done_bytes += sum(array.nbytes for array in task.arrays)
            self._changed.notify_all()
        if was_stuck or task.failure is not None:
            self._nudge()  # others may go there now
        self._wake()

    def see_to(self, task: Task, fate: Fate | None) -> None:
        """A task that has lost its process is tried anew, or has failed; with no ``fate`` it is not to blame."""
        if fate in ("crash", "timeout"):
            task.tries -= 1
            task.request = {**task.request, **task.again}
        if fate == "away" or (fate is not None and not task.tries):
            task.failure = fate
            self.finish(task)
        else:
            self.give_back([task])

    def bury(self, child: Child, task: Task | None = None, fate: Fate | None = None) -> None:
        """Kill a process and see to its task, and wait for neither."""
        child.kill()
        threading.Thread(target=self._bury, args=(child, task, fate), name=f"{self.name}-end", daemon=True).start()

    def _bury(self, child: Child, task: Task | None, fate: Fate | None) -> None:
        is_gone = child.end()
        if task is not None:
            if not is_gone and self.has_lanes:
                with self._changed:
                    self._lanes.lose(task)
                if fate is not None:
                    fate = "away"  # nothing in a file keeps a process from dying: its disk or its share does
            self.see_to(task, fate)
        if not is_gone:
            child.outlast()
            if task is not None and self.has_lanes:
                with self._changed:
                    self._lanes.find(task)
                self._nudge()

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
        self.seat = Seat()
        self._child: Child | None = None
        self._is_over = self._is_humble = False
        self._born_s = self._idle_since_s = time.monotonic()
        self._note = Note()
        self._tasks: deque[Task] = deque()
        self._ticks = self._progress = 0  # of its process, when it was last looked at
        self._progress_s = 0.0  # when it had come further
        self._is_still = False  # it has not, and has not computed either
        self._bell, self._bell_end = socket.socketpair()
        self._bell_end.setblocking(False)
        self._failures = 0  # processes in a row that were never ready

    @property
    def _is_ready(self) -> bool:
        return self.seat.is_ready

    def nudge(self) -> None:
        """There may be something to do."""
        with contextlib.suppress(OSError):
            self._bell_end.send(b"!")

    def run(self) -> None:
        """Until the pool is closed, or this one is no more needed."""
        try:
            while not self._pool.is_closed and not self._is_over:
                if self._child is None:
                    self._child = spawn(self._pool.module, self._note.descriptor)
                    self.seat.is_ready = self._is_humble = False
                    self._born_s = time.monotonic()
                self._fill(self._child)
                self._wait(self._child)
        except Exception as error:  # a thread that dies silently would hold its tasks for ever
            self._pool.fail(f"{type(error).__name__}: {error}")
        finally:
            if self._child and (self._is_over or not self._child.end()):
                self._pool.bury(self._child)
            self._child = None
            self._note.close()
            self._bell.close()
            self._bell_end.close()

    def _fill(self, child: Child) -> None:
        """Take tasks from the pool, but none behind a slow one."""
        while self._is_ready and len(self._tasks) < _DEPTH and not self._is_slow():
            task = self._pool.next_task(self)
            if task is None:
                return
            self._tasks.append(task)
            if len(self._tasks) == 1:
                self._begin(task)
            try:
                request = {"id": task.id, **task.request}
                frames.send(child.connection, request, until_s=time.monotonic() + _FRAME_LIMIT_S)
            except OSError:
                return  # the child is gone, which _wait will find

    def _begin(self, task: Task) -> None:
        """It is the head now."""
        self.seat.since_s = task.head_since_s = time.monotonic()
        self._progress, self._ticks, self._is_still = self._note.progress_so_far(), -1, False

    def _wait(self, child: Child) -> None:
        """Sleep until the child answers, the pool has news or it is time to look."""
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
        elif not self._is_ready or (self._tasks and wake_s is not None and time.monotonic() >= wake_s):
            self._look(child)
        elif self.seat.is_aside and not self._tasks and time.monotonic() > self._idle_since_s + _IDLE_S:
            self._is_over = self._pool.may_leave(self)

    def _wake_s(self) -> float | None:
        """When to look at the child, should it say nothing."""
        since_s, slow_s = self.seat.since_s, self._pool.slow_s
        if since_s is None and self._is_ready:
            return self._idle_since_s + _IDLE_S if self.seat.is_aside else None
        until_s = sum(self._limit())
        if since_s is None or not (self._pool.has_lanes or len(self._tasks) > 1):
            return until_s
        return min(until_s, time.monotonic() + _LOOK_S if self._is_slow() else since_s + slow_s)

    def _limit(self) -> tuple[float, float]:
        """Since when, and how long, the child may start, or work on its head without coming further."""
        if not self._is_ready or self.seat.since_s is None:
            return self._born_s, _START_LIMIT_S
        return max(self.seat.since_s, self._progress_s), self._tasks[0].limit_s

    def _is_slow(self) -> bool:
        return self.seat.is_slow(self._pool.slow_s)

    def _look(self, child: Child) -> None:
        """Whether a child that says nothing comes further, may go on, or has had its time."""
        now_s = time.monotonic()
        if self._is_ready:
            if (progress := self._note.progress_so_far()) != self._progress:
                self._progress, self._progress_s, self._ticks = progress, now_s, -1
            if self._is_slow() and self._pool.has_lanes and not self._may_go_on(child, now_s):
                return
            if self._is_slow() and len(self._tasks) > 1 and (self.seat.lane is not Lane.LARGE or self.seat.is_stuck):
                # Another worker shall have what waits behind it. Should this child answer that too, nobody listens.
                self._pool.give_back([self._tasks.pop() for _ in range(len(self._tasks) - 1)])
        since_s, limit_s = self._limit()
        if now_s > since_s + limit_s:
            is_away = self.seat.is_stuck and self._is_still
            self._replace(child, "timeout", f"has said nothing for {limit_s:g} s", is_away=is_away)

    def _may_go_on(self, child: Child, now_s: float) -> bool:
        """Whether a slow child keeps its head; else it has been replaced."""
        head, pulse = self._tasks[0], child.pulse()
        self._is_still = pulse.is_waiting and self._ticks in (-1, pulse.ticks) and self._progress_s < now_s
        self._ticks = pulse.ticks
        in_hand_s, computes = now_s - head.head_since_s, not (self._is_still or pulse.is_stopped)
        may_keep = self._pool.may_keep(self, head, waits=self._is_still, computes=computes)
        if not may_keep or (pulse.is_stopped and in_hand_s > _STOPPED_S):
            self._replace(child, None)
            return False
        if in_hand_s > _HUMBLE_S and not self._is_humble:
            child.stand_back()
            self._is_humble = True
        return True

    def _take(self, header: frames.Header, arrays: list[frames.Array]) -> None:
        """One frame of the child: it is ready, or it has an answer."""
        if "ready" in header:
            self.seat.is_ready, self._failures = True, 0
            return
        task = next((task for task in self._tasks if task.id == header["id"]), None)
        if task is None:
            return  # an answer to a request that was given back meanwhile
        self._tasks.remove(task)
        task.answer, task.arrays = header, arrays
        self._pool.finish(task)
        self._go_on()

    def _go_on(self) -> None:
        """With the next one."""
        self.seat.is_stuck = False
        if self._tasks:
            self._begin(self._tasks[0])
        else:
            self.seat.since_s, self._idle_since_s = None, time.monotonic()

    def _replace(self, child: Child, reason: Fate | None, last_words: str = "", *, is_away: bool = False) -> None:
        """Part with a child that is dead, hangs, or is not worth waiting for; what it held is seen to."""
        self._child = None
        if not self._is_ready and not self._pool.is_closed:
            self._failures += 1
            if self._failures >= _START_TRIES:
                self._pool.fail(f"{self._pool.name} processes end before they begin (afm-triage doctor may tell why)")
            time.sleep(min(0.02 * 2**self._failures, 2.0))
        tasks, self._tasks = list(self._tasks), deque()
        self._go_on()
        head = tasks.pop(0) if tasks else None
        if head is not None:
            head.noted, head.last_words = self._note.read(head.id) or head.noted, last_words
            head.was_slow |= reason == "timeout"
        self._pool.bury(child, head, "away" if is_away else reason)
        self._pool.give_back(tasks)
        self.seat.is_ready = False
        self._is_over = self.seat.is_aside and self._pool.may_leave(self)  # another has its place already
