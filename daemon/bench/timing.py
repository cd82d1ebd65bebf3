"""Timing: repeats, medians and tails."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

REPEAT_S = 0.6  # what one figure is repeated for
_FEWEST = 5


def cpu_ms(work: Callable[[], object], seconds: float = REPEAT_S) -> float:
    """Milliseconds of one core that ``work`` takes, all threads of this process together: the median of repeats.

    CPU time, because what another program does on the machine hardly changes it.
    """
    taken: list[float] = []
    until_s = time.perf_counter() + seconds
    while len(taken) < _FEWEST or time.perf_counter() < until_s:
        begun_s = time.process_time()
        work()
        taken.append(time.process_time() - begun_s)
    return 1000.0 * statistics.median(taken)


def spread_ms(values_s: Sequence[float]) -> dict[str, float]:
    """Seconds -> {"p50", "p99", "max"} in milliseconds and "count"; of none, only that."""
    if not values_s:
        return {"count": 0}
    ordered = [1000.0 * value for value in sorted(values_s)]
    at = {name: ordered[min(int(share * len(ordered)), len(ordered) - 1)] for name, share in _TAIL.items()}
    return {**{name: round(value, 2) for name, value in at.items()}, "count": len(ordered)}


_TAIL = {"p50": 0.5, "p99": 0.99, "max": 1.0}
