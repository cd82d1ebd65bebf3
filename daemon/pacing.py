"""The pacing: things handed on at a rate, by the clock and not by pauses, so that the pace holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TypeVar

from daemon import ending
from daemon.errors import USAGE, UserError

T = TypeVar("T")

SLOWEST_PER_S, FASTEST_PER_S = 1e-5, 1e5  # one a day, and more than any disk takes


def check_rate(rate_per_s: float | None) -> None:
    """UserError (64) for a --rate that no instrument has; None is as fast as possible."""
    if rate_per_s is not None and not SLOWEST_PER_S <= rate_per_s <= FASTEST_PER_S:  # NaN compares false
        raise UserError(USAGE, f"--rate {rate_per_s:g}: give a number a second above 0, {SLOWEST_PER_S:g} to 100000")


def paced(items: Iterator[T], rate_per_s: float | None) -> Iterator[T]:
    """Hand ``items`` on at ``rate_per_s``; None: at once."""
    begun_s = time.monotonic()
    for number, item in enumerate(items):
        if rate_per_s is not None:
            ending.pause(begun_s + number / rate_per_s - time.monotonic())
        yield item
