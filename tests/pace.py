"""How slow this computer is just now, so that a limit of time means the same wherever the tests run."""

from __future__ import annotations

import json
import time

# What the work below takes where a limit holds as it is written: about half of what two slow, busy cores take (9 ms).
REFERENCE_S = 0.005


def allowed(limit_s: float) -> float:
    """The limit where this computer keeps that pace, longer where it is slower or busy now, and never shorter.

    It asks at the moment of the assertion: what else runs here, or on the machine that this one is a part of, has
    slowed the work that was timed by about as much.
    """
    return limit_s * max(1.0, _mean_s(5) / REFERENCE_S)


def _mean_s(times: int) -> float:
    begun_s = time.perf_counter()
    for _ in range(times):
        _work()
    return (time.perf_counter() - begun_s) / times


def _work() -> None:
    """Small objects, text and sorting: of such is what the tests time."""
    rows = [{"path": f"{number}.jpk-force", "score": number * 0.001, "verdict": "discard"} for number in range(2_000)]
    sorted(json.loads(json.dumps(rows)), key=lambda row: row["path"])
