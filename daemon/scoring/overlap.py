"""Two things at a time: while one batch is worked on, the next is made and the last one written down."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_WAITING = 2  # batches between the two


def overlap(batches: Iterable[T], work: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Each batch with what ``work`` makes of it, in order; ``work`` runs on one other thread, one batch at a time."""
    executor = ThreadPoolExecutor(1, "classifier")
    pending: deque[tuple[T, Future[R]]] = deque()
    try:
        for batch in batches:
            pending.append((batch, executor.submit(work, batch)))
            while len(pending) > _WAITING or (pending and pending[0][1].done()):
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
    finally:
        executor.shutdown(cancel_futures=True)
