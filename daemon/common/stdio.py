"""Standard input, output and error, as they may be found: closed, full, at their reader's end, or not in UTF-8.

Progress through many things is shown there too, on standard error, where somebody sees it.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import itertools
import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

from daemon.common import ending
from daemon.common.errors import INPUT_OUTPUT, USAGE, UserError
from daemon.common.text import clean, duration

_STOPPED_S = 10  # that a last word waits for a terminal
#: As the journal counts them.
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def name_files_in_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale has another encoding; the process stays the same one.

    A file would else have one name in events, another in a configuration, and none at all that ASCII could say.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    os.environ["PYTHONUTF8"] = "1"
    if sys.stdout is not None:  # the terminal speaks what it spoke
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:replace")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def steady() -> None:
    """Called once, by the process: from here on no character can stop a verb, and no file takes a stream's number."""
    lowest = os.open(os.devnull, os.O_RDWR)
    while lowest < 3:  # a stream that was closed; else the ledger would get its number, and with it stray messages
        lowest = os.open(os.devnull, os.O_RDWR)
    os.close(lowest)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a shape that the terminal does not have is shown as "?"


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON that comes out right whatever standard output speaks: JSON is UTF-8, so anything else gets escapes."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        if codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8":
            text.encode()
            return text
    except UnicodeEncodeError:  # a file name that is not UTF-8
        pass
    return json.dumps(value, indent=indent)


def write_bytes(content: bytes) -> None:
    """Data for other programs is UTF-8, whatever the terminal speaks."""
    sys.stdout.flush()
    if (buffer := getattr(sys.stdout, "buffer", None)) is None:  # somebody collects it as text
        sys.stdout.write(content.decode())
    else:
        buffer.write(content)
        buffer.flush()


def complain(message: str) -> None:
    """One line on standard error, where it can be written, with nothing in it that steers a terminal.

    A terminal that somebody has stopped is waited for, but not for ever: a service that failed shall be started again.
    The journal is told that it is an error, whichever unit says it.
    """
    with contextlib.suppress(OSError, ValueError):
        if is_stopped(sys.stderr, _STOPPED_S):
            let_go(sys.stderr)
        mark = ""
        with contextlib.suppress(OSError, ValueError):  # it may be no file
            mark = priority(logging.ERROR) if is_journal(sys.stderr.fileno()) else ""
        lines = f"afm-triage: {message}".split("\n")
        print("\n".join(f"{mark}{clean(line)}" for line in lines), file=sys.stderr, flush=True)


def is_journal(descriptor: int) -> bool:
    """The variable alone says little: a terminal that a desktop's service has opened inherits it."""
    with contextlib.suppress(OSError):
        found = os.fstat(descriptor)
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def priority(level: int) -> str:
    """How a line for the journal begins, which strips it (see sd-daemon(3)); ``level`` is one of logging's."""
    return f"<{_PRIORITY.get(level, 6)}>"


class JournalLine(logging.Formatter):
    """One line whatever is in it: the journal makes an entry of its own, without a priority, of every further one."""

    def format(self, record: logging.LogRecord) -> str:
        return priority(record.levelno) + clean(super().format(record).replace("\n", " | "))


def is_stopped(stream: Any, seconds: float) -> bool:
    """Whether it takes nothing for so long, as a terminal after Ctrl-S."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # somebody collects what is written, or it is closed
        return False
    return not poll.poll(1000 * seconds)


def finish(code: int) -> int:
    """Write out what waits; the exit code, which tells when that cannot be done and nothing else was wrong."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            let_go(stream)
        except (OSError, ValueError):
            let_go(stream)
            code = code or INPUT_OUTPUT
    return code


def let_go(*streams: Any) -> None:
    """What was not written never will be: the interpreter shall not try it again when it ends."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            number = stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)


T = TypeVar("T")
_PATIENCE_S = 1.0  # on a terminal,
_FIRST_S, _PAUSES_S = 1.5, (10.0, 30.0, 60.0)  # and in a log
SLOWEST_PER_S, FASTEST_PER_S = 1e-5, 1e5  # a --rate: one a day, and more than any disk takes


def say(line: str) -> bool:
    """One line for whoever looks after it, at once: True."""
    print(clean(f"afm-triage: {line}"), file=sys.stderr, flush=True)
    return True


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
    # Only here: every verb begins with this module, and rich takes as long to load as all else that it begins with.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

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
