"""The log: one line a state change on standard error, never one a curve, and nobody ever waits for it.

A terminal may be stopped (Ctrl-S), whoever reads a pipe may sleep or have gone, a disk may be full. So lines go into a
short queue, and one thread writes them out. What finds no place there is dropped, counted, and told of in the log
itself as soon as it flows again. What libraries and reader processes say goes the same way.

Under systemd each line begins with its priority (``<4>``), which the journal understands and strips.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from daemon.common.stdio import JournalLine, is_journal
from daemon.common.text import clean
from daemon.processes import child
from models.clock import rfc3339

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

#: Lines that wait for somebody to read them.
MOST_WAITING = 1_000
#: Characters; a longer one is cut: what a library says can be a page.
LONGEST_LINE = 2_000
#: At the end, for what still waits.
FLUSH_S = 0.5
#: A warning that is repeated is written so often within so long, then only counted.
REPEATS, REPEAT_S = 3, 60.0
_MOST_KNOWN = 200  # different warnings whose repetitions are counted
_LOOK_MS = 1_000  # between two looks at a descriptor that takes nothing
_BUSY_S = 0.05  # between two tries at one that somebody has made non-blocking

_log = logging.getLogger(__name__)


class Log(logging.Handler):
    """Writes what the whole process logs, from ``open`` to ``close``, onto ``descriptor``.

    Any thread logs, none waits.
    """

    def __init__(self, level: str, form: str, descriptor: int = 2, *, instrument: str = "") -> None:
        super().__init__()
        self._descriptor, self._instrument = descriptor, instrument
        self._changed = threading.Condition()
        self._lines: deque[str] = deque()
        self.said = dict.fromkeys(("info", "warning", "error"), 0)  # lines since the start, by level
        self._dropped = self._untold = 0  # lines since the start, and of these what the log has not told yet
        self._trouble = ""  # why the last one was not taken
        self._is_closing = False
        self._level, self._form = level, form
        self._writer = threading.Thread(target=self._write_out, name="log", daemon=True)
        self.addFilter(_Repeats())

    def open(self) -> None:
        """From now on it is the log of the process, of its libraries and of the processes that it starts."""
        logging.basicConfig(handlers=[self], force=True)
        self.adopt(self._level, self._form)
        logging.captureWarnings(True)
        self._hooks = threading.excepthook, sys.unraisablehook
        threading.excepthook, sys.unraisablehook = _note_dead_thread, _note_unraisable
        self._children = _ChildrenWords()
        self._writer.start()

    def adopt(self, level: str, form: str) -> None:
        """``form`` is "text" or "json"; also in flight."""
        self.setFormatter(_formatter(form, self._descriptor, self._instrument))
        logging.getLogger().setLevel(level.upper())

    @property
    def dropped(self) -> int:
        """Lines since the start that nobody will ever read."""
        return self._dropped

    @property
    def trouble(self) -> str:
        """What a human should know while lines are being lost, "" while they flow."""
        with self._changed:
            if not self._untold:
                return ""
            why = self._trouble or "the terminal is stopped, or its reader sleeps"
            return f"nobody takes the lines of the log ({why}); {_lines(self._untold)} dropped, judging goes on"

    @property
    def is_writing(self) -> bool:
        """Also after ``close``, as long as a line is stuck on its way."""
        return self._writer.is_alive()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue it, or drop it."""
        try:
            line = self.format(record)
        except Exception as error:  # a library's mistake in what it wants to say
            line = f"{record.name}: {record.msg!r} cannot be put into words: {error}"
        with self._changed:
            self.said[_level_of(record)] += 1
            if self._untold and not self._trouble and len(self._lines) < MOST_WAITING - 1:
                self._tell_dropped()
            if len(self._lines) < MOST_WAITING:
                self._lines.append(line)
                self._changed.notify()
            else:
                self._count_dropped(1)

    def close(self) -> None:
        """What waits is written for half a second more; from then on nothing is logged."""
        root = logging.getLogger()
        root.removeHandler(self)
        root.addHandler(logging.NullHandler())  # else Python itself would write warnings on standard error
        threading.excepthook, sys.unraisablehook = self._hooks
        self._children.close()
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._writer.join(FLUSH_S)
        super().close()

    def _count_dropped(self, lines: int) -> None:
        self._dropped += lines
        self._untold += lines

    def _tell_dropped(self) -> None:
        text = f"{_lines(self._untold)} dropped while nobody read"
        warning = {"levelno": logging.WARNING, "levelname": "WARNING", "name": __name__, "msg": text}
        self._lines.append(self.format(logging.makeLogRecord(warning)))
        self._untold = 0

    def _write_out(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closing, 60.0)
                if not self._lines and self._is_closing:
                    return
                if not self._lines:
                    continue
                line = self._lines.popleft()
            trouble = _write(self._descriptor, f"{line}\n".encode(errors="backslashreplace"))
            with self._changed:
                self._trouble = trouble
                if trouble:
                    self._count_dropped(1)
                elif self._untold and not self._lines:
                    self._tell_dropped()


def _level_of(record: logging.LogRecord) -> str:
    is_grave = record.levelno >= logging.ERROR
    return "error" if is_grave else "warning" if record.levelno >= logging.WARNING else "info"


def _write(descriptor: int, line: bytes) -> str:
    """Wait until it is written; why it cannot be, else ""."""
    is_ready = select.poll()
    is_ready.register(descriptor, select.POLLOUT)
    while line:
        try:
            if is_ready.poll(_LOOK_MS):
                line = line[os.write(descriptor, line) :]
        except BlockingIOError:
            time.sleep(_BUSY_S)
        except OSError as error:  # nobody reads the pipe any more, the terminal has gone, the disk is full
            return error.strerror or type(error).__name__
    return ""


def _lines(count: int) -> str:
    return "1 line was" if count == 1 else f"{count:,} lines were"


class _Repeats(logging.Filter):
    """A warning again and again, as of a disk that stays full, is one line a minute with a count."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, tuple[float, int]] = {}  # what was said -> since when, how often

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        said, now_s = record.getMessage(), time.monotonic()
        since_s, times = self._known.get(said, (now_s, 0))
        if now_s - since_s >= REPEAT_S:
            if times > REPEATS:
                record.msg, record.args = f"{said} (and {times - REPEATS} times more since the last such line)", None
            since_s, times = now_s, 0
        elif said not in self._known and len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[said] = since_s, times + 1
        return times < REPEATS


class _ChildrenWords(threading.Thread):
    """What reader processes and their libraries say: through a pipe that never makes them wait."""

    def __init__(self) -> None:
        super().__init__(name="children's words", daemon=True)
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)  # for every process that holds it: a full pipe loses words, nothing else
        self._pipe = os.fdopen(reading, "rb")
        child.words_go_to(self._writing)
        self.start()

    def run(self) -> None:
        with self._pipe:
            while line := self._pipe.readline(LONGEST_LINE):
                if text := line.decode(errors="replace").strip():
                    _log.warning("a process of the service says: %s", text)

    def close(self) -> None:
        """The thread ends with the last process that could say something."""
        child.words_go_to(None)
        os.close(self._writing)


def _note_dead_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "unknown"
    _log.error("thread %s ended: %s: %s", name, args.exc_type.__name__, args.exc_value, exc_info=args.exc_value)


def _note_unraisable(args: UnraisableHookArgs) -> None:
    _log.warning("%s: %r", args.err_msg or "an error that nobody could be told of", args.exc_value)


# How a line looks.


class _TextLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return clean(_cut(super().format(record).replace("\n", " | ")))


class _JournalLine(JournalLine):
    def format(self, record: logging.LogRecord) -> str:
        return _cut(super().format(record))


class _JsonLine(logging.Formatter):
    """One object a line, whatever is in it. ``error`` and ``traceback`` are there where something was raised."""

    def __init__(self, instrument: str) -> None:
        super().__init__()
        self._instrument = instrument

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": rfc3339(record.created), "level": record.levelname.lower()}
        line |= {"instrument": self._instrument, "logger": record.name, "thread": record.threadName}
        line["message"] = _cut(record.getMessage())
        if record.exc_info and (raised := record.exc_info[1]) is not None:
            line["error"] = _cut(f"{type(raised).__name__}: {raised}")
            line["traceback"] = _cut(self.formatException(record.exc_info))
        return json.dumps(line)


def _cut(text: str) -> str:
    """The middle goes: of a traceback the end says what was wrong."""
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE // 4]} … {text[-LONGEST_LINE // 4 * 3 + 3 :]}"


def _formatter(form: str, descriptor: int, instrument: str) -> logging.Formatter:
    if form == "json":
        return _JsonLine(instrument)
    if is_journal(descriptor):
        return _JournalLine("%(message)s")
    return _TextLine("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
