"""Progress through many things: shown on standard error where somebody sees it, and at a rate that is asked for."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from daemon.common import ending
from daemon.common.errors import USAGE, UserError
from daemon.common.text import duration

T = TypeVar("T")
_PATIENCE_S = 1.0  # on a terminal,
_FIRST_S, _PAUSES_S = 1.5, (10.0, 30.0, 60.0)  # and in a log
SLOWEST_PER_S, FASTEST_PER_S = 1e-5, 1e5  # a --rate: one a day, and more than any disk takes


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Pass ``items`` through, and show how far they are, as :func:`working` does.

    Between two items the process may be asked to end: KeyboardInterrupt.
    """
    with working(what, total) as done:
        for item in _watched(items):
            yield item
            done()


@contextmanager
def working(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show what is being done once a second has gone by, whether or not any of it is done; the value counts one more.

    A bar where standard error is a terminal. Else nothing, or lines while :func:`telling`.
    """
    if not sys.stderr.isatty():
        with nullcontext(lambda: None) if _teller is None else _teller.phase(what, total) as done:
            yield done
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=False) as bar:
        task = bar.add_task(what, total=total, visible=False)
        clock = threading.Timer(_PATIENCE_S, bar.update, (task,), {"visible": True})  # also while the first one lasts
        clock.daemon = True
        clock.start()
        try:
            yield partial(bar.advance, task)
        finally:
            clock.cancel()


@contextmanager
def telling() -> Iterator[None]:
    """Without a terminal, too, say on standard error what lasts: for work of hours, whose log somebody reads."""
    global _teller  # noqa: PLW0603 - whoever works inside need not know whether somebody reads a log
    _teller = _Teller()
    try:
        yield
    finally:
        _teller = None


class _Teller:
    """A line now and then: soon the first of all, then for what goes on ever more rarely."""

    def __init__(self) -> None:
        self._due_s: float | None = time.monotonic() + _FIRST_S  # of the first line, whatever is done by then

    @contextmanager
    def phase(self, what: str, total: int | None) -> Iterator[Callable[[], None]]:
        begun_s, count, over = time.monotonic(), itertools.count(1), threading.Event()
        reached = [0]

        def tell() -> None:
            first_s = begun_s + _FIRST_S if self._due_s is None else self._due_s
            pauses = (max(first_s - time.monotonic(), 0.0), *_PAUSES_S)
            for pause_s in itertools.chain(pauses, itertools.repeat(_PAUSES_S[-1])):
                if over.wait(pause_s):
                    return
                self._due_s = None
                share = f"{reached[0]} of {total}, " if total else ""
                print(f"{what}: {share}{duration(time.monotonic() - begun_s)}", file=sys.stderr, flush=True)

        def done() -> None:
            reached[0] = next(count)

        thread = threading.Thread(target=tell, name="progress", daemon=True)
        thread.start()
        try:
            yield done
        finally:
            over.set()
            thread.join(1.0)


_teller: _Teller | None = None


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
