"""Classify: the curves of a batch of readings through the model; a fault costs one batch its speed, never a curve."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from daemon.judging import Thresholds
from daemon.judging.sentinel import format_of
from daemon.reading import Reading
from deploy.serving import Model, Scored
from models.frontend import Prepared
from models.raster import RasterProfile
from models.sign import prepare_to_judge, with_flipped

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)

FAILED = Scored(None, ("engine_fault",))
_WAITING = 2  # batches between whoever makes them and the classifier


def classify(
    readings: Sequence[Reading], model: Model, thresholds: Thresholds, wary_of: Collection[str] = ()
) -> list[Scored | None]:
    """One answer a reading, in order; None where the reading holds no curve.

    Would-be discards of the formats ``wary_of`` are all looked at upside down, as far as their samples are there.
    """
    profile = model.bundle.profile

    def judge(some: Sequence[Reading]) -> list[Scored]:
        prepared = [_prepared(reading, profile, is_wary=format_of(reading) in wary_of) for reading in some]
        return model.judge_prepared(prepared, thresholds.both)

    scored = iter(shielded([reading for reading in readings if reading.curve is not None], judge, FAILED))
    return [None if reading.curve is None else next(scored) for reading in readings]


def _prepared(reading: Reading, profile: RasterProfile, *, is_wary: bool) -> Prepared:
    """As the reader did it; here only where it knew no profile, or that of the model before, or is not wary enough."""
    curve, prepared = reading.curve, reading.prepared
    assert curve is not None
    if prepared is None or reading.profile != profile:
        prepared = prepare_to_judge([curve], profile)[0]
    if is_wary and prepared.flipped is None and len(curve):
        return with_flipped(prepared, curve, profile)
    return prepared


def shielded(items: Sequence[T], judge: Callable[[Sequence[T]], list[R]], failed: R) -> list[R]:
    """What ``judge`` says of each; where it raises, each is tried alone, and ``failed`` stands for what it cannot."""
    if not items:
        return []
    try:
        return judge(items)
    except Exception as error:
        if len(items) == 1:
            log.error("the classifier failed on one curve, which goes to review: %s", error)
            return [failed]
        log.error("the classifier failed on %d curves, which are tried one by one: %s", len(items), error)
    return [shielded([item], judge, failed)[0] for item in items]


def overlap(batches: Iterable[T], work: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Each batch with what ``work`` makes of it, in order; ``work`` runs on one other thread, one batch at a time.

    While it works on one, the next is made and the one before written down.
    """
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
