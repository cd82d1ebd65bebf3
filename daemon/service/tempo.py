"""The tempo: how fast decisions come, and how long a curve waits for one; over the last thousand."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable

_WINDOW_S = 60.0


class Tempo:
    """Fed by the pipeline's thread, read by whoever asks for the status."""

    def __init__(self, begun_s: float, longest: int = 1_000) -> None:
        self._begun_s = begun_s  # time.monotonic()
        self._lock = threading.Lock()
        self._taken: deque[tuple[float, float]] = deque(maxlen=longest)  # (when, latency), seconds

    def observe(self, latencies_s: Iterable[float], now_s: float) -> None:
        """One latency a decision, from the finished file being noticed to the commit."""
        with self._lock:
            self._taken.extend((now_s, latency_s) for latency_s in latencies_s)

    def latency_s(self) -> dict[str, float | None]:
        """The median and the 99th percentile, None before the first decision."""
        with self._lock:
            ordered = sorted(latency_s for _, latency_s in self._taken)
        if not ordered:
            return {"p50": None, "p99": None}
        return {"p50": ordered[len(ordered) // 2], "p99": ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]}

    def rate_per_s(self, now_s: float) -> float:
        """Decisions a second over the last minute, or over as much of it as there has been."""
        with self._lock:
            recent = [when_s for when_s, _ in self._taken if now_s - when_s <= _WINDOW_S]
        span_s = now_s - recent[0] if len(recent) == self._taken.maxlen else min(_WINDOW_S, now_s - self._begun_s)
        return len(recent) / max(span_s, 1e-3)
