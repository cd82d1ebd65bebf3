"""Progress through many things: shown on standard error where somebody sees it, and at a rate that is asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from daemon.common import ending
from daemon.common.errors import USAGE, UserError

T = TypeVar("T")
_PATIENCE_S = 2.0
SLOWEST_PER_S, FASTEST_PER_S = 1e-5, 1e5  # a --rate: one a day, and more than any disk takes


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Pass ``items`` through; draw a bar once two seconds have gone by, when standard error is a terminal.

    Between two items the process may be asked to end: KeyboardInterrupt.
    """
    watched = _watched(items)
    if not sys.stderr.isatty():
        yield from watched
        return
    begun_s = time.monotonic()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=False) as bar:
        task = bar.add_task(what, total=total, visible=False)
        for item in watched:
            yield item
            bar.advance(task)
            if time.monotonic() - begun_s > _PATIENCE_S:
                bar.update(task, visible=True)


def _watched(items: Iterable[T]) -> Iterator[T]:
    for item in items:
        ending.check()
        yield item


def check_rate(rate_per_s: float | None) -> None:
    """UserError (64) for a --rate that no instrument has; None is as fast as possible."""
    if rate_per_s is not None and not SLOWEST_PER_S <= rate_per_s <= FASTEST_PER_S:  # NaN compares false
        raise UserError(USAGE, f"--rate {rate_per_s:g}: give a number a second above 0, {SLOWEST_PER_S:g} to 100000")


def paced(items: Iterator[T], rate_per_s: float | None) -> Iterator[T]:
    """Hand ``items`` on at ``rate_per_s``, by the clock and not by pauses, so that the pace holds; None: at once."""
    begun_s = time.monotonic()
    for number, item in enumerate(items):
        if rate_per_s is not None:
            ending.pause(begun_s + number / rate_per_s - time.monotonic())
        yield item
