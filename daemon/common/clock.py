"""The clock: wall time for people, steady time for durations. The one thing tests replace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Two sources of seconds; order never comes from either of them, but from ``seq``."""

    wall_s: Callable[[], float] = time.time
    steady_s: Callable[[], float] = time.monotonic


CLOCK = Clock()


def rfc3339(wall_s: float) -> str:
    """Seconds since 1970 as UTC with milliseconds: ``2026-11-20T12:00:00.123Z``."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
