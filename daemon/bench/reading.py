"""Reading: what it costs to get a curve out of a file, in the reader process and in the one that asks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import cycle, islice

from daemon.bench import BATCH, vitals
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival
from models.profile import RasterProfile

_PATIENCE_S = 10.0


def read_ms(arrivals: Sequence[Arrival], profile: RasterProfile, seconds: float) -> float:
    """Milliseconds of CPU a file, all processes together, with the front-end, which the reader runs for ``profile``.

    Files of one curve each are read again and again, for ``seconds`` of CPU: the kernel counts in hundredths.
    """
    batch = list(islice(cycle(arrivals), BATCH))
    with ReaderPool(workers=1, profile=profile) as pool:
        _read(pool, batch)  # the first time imports are made
        before_s, spent_s, files = vitals.look(os.getpid()).total_s, 0.0, 0
        while spent_s < seconds:
            _read(pool, batch)
            files += len(batch)
            spent_s = vitals.look(os.getpid()).total_s - before_s
    return 1000.0 * spent_s / files


def _read(pool: ReaderPool, batch: Sequence[Arrival]) -> None:
    pool.submit(batch)
    left = len(batch)
    while left:
        done = pool.collect(_PATIENCE_S)
        if not done:
            raise TimeoutError("the reader is silent")
        left -= len(done)
