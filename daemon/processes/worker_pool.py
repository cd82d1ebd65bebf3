"""The crew: worker processes that answer a row of requests, and the answers in the order of the requests."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from daemon.common import ending
from daemon.common.ending import Closing
from daemon.processes import frames
from daemon.processes.child import Child, spawn

_DEPTH = 2  # requests a worker holds: one in hand, one on its desk
_SILENCE_S = 600.0  # a block takes milliseconds; a share that hangs shall not hold us for ever
_AHEAD = 4  # answers a worker that wait for their turn, at most

Answer = tuple[frames.Header, memoryview]


class WorkersBroken(RuntimeError):
    """A worker process has ended: no memory left, a file cut off under its hands, a damaged disk."""


@dataclass(slots=True)
class _Worker:
    child: Child
    numbers: deque[int] = field(default_factory=deque)  # of the requests it holds, in order


class WorkerPool(Closing):
    """``workers`` processes of ``module``. For one thread."""

    def __init__(self, workers: int, module: str = "daemon.archive.worker") -> None:
        self._workers = [_Worker(spawn(module)) for _ in range(workers)]
        self._issued = 0  # requests, of which those of a row that was given up are answered still

    def ask(self, request: frames.Header) -> Answer:
        """One request, one answer. Raises WorkersBroken."""
        return next(self.map([request]))

    def map(self, requests: Iterable[frames.Header]) -> Iterator[Answer]:
        """An answer for each request, in order; a bounded number of them is worked on ahead. Raises WorkersBroken."""
        coming = iter(requests)
        done: dict[int, Answer] = {}
        wanted = self._issued
        is_over = False
        while True:
            while not is_over and self._issued - wanted < _AHEAD * len(self._workers):
                worker = min(self._workers, key=lambda worker: len(worker.numbers))
                if len(worker.numbers) >= _DEPTH:
                    break
                request = next(coming, None)
                if request is None:
                    is_over = True
                else:
                    self._give(worker, request)
            if wanted in done:
                yield done.pop(wanted)
                wanted += 1
            elif is_over and wanted == self._issued:
                return
            else:
                self._gather(done)

    def close(self) -> None:
        for worker in self._workers:
            worker.child.end()

    def _give(self, worker: _Worker, request: frames.Header) -> None:
        try:
            frames.send(worker.child.connection, request)
        except OSError as error:
            raise WorkersBroken(_how_it_ended(worker.child)) from error
        worker.numbers.append(self._issued)
        self._issued += 1

    def _gather(self, done: dict[int, Answer]) -> None:
        """Wait for the next answer, and take every one that is there."""
        given_up_s = time.monotonic() + _SILENCE_S
        poll = select.poll()
        busy = {worker.child.connection.fileno(): worker for worker in self._workers if worker.numbers}
        for descriptor in busy:
            poll.register(descriptor, select.POLLIN)
        while not (ready := poll.poll(1000 * ending.LOOK_S)):
            ending.check()
            if time.monotonic() > given_up_s:
                raise WorkersBroken(f"a worker process has said nothing for {_SILENCE_S:g} s")
        for descriptor, _ in ready:
            worker = busy[descriptor]
            try:
                done[worker.numbers[0]] = frames.receive(worker.child.connection)
            except (EOFError, OSError) as error:
                raise WorkersBroken(_how_it_ended(worker.child)) from error
            worker.numbers.popleft()


def _how_it_ended(child: Child) -> str:
    child.end()
    return f"a worker process ended ({child.process.returncode})"
