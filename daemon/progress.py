"""Progress on standard error, for whatever takes longer than two seconds, and only where somebody sees it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from daemon import ending

T = TypeVar("T")
_PATIENCE_S = 2.0


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
