"""Hints: inotify (through watchdog) says where to look soonest. It is never the only way a file is found."""

from __future__ import annotations

import errno
import logging
import os
import time
import warnings
from collections.abc import Callable
from typing import Literal

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from models.clock import time_of_day

#: Opened, modified and deleted are left out in the kernel: its queue then holds three times as many files.
_WANTED: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]
_RAISE_LIMIT = "to raise it: sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512"
_LIMIT_AGAIN_S = 60.0  # between two tries after the kernel's limit was reached
_STOP_S = 0.5


#: What is told of what was heard: the kind, the path relative to the folder, where a move led, time.monotonic().
Kind = Literal["created", "closed", "moved", "directory", "overflow"]
Hear = Callable[[Kind, str, str, float], None]


class LimitReached(OSError):
    """The kernel has no inotify watch (or instance) left for this user."""


class InotifyEvents(FileSystemEventHandler):
    """Listens below one folder and calls ``hear(hint)`` from watchdog's threads."""

    def __init__(self, root: str, hear: Hear) -> None:
        self._root = os.path.realpath(root)  # inotify is asked not to follow links, the root itself included
        self._hear = hear
        self._observer: BaseObserver | None = None
        self._overflow = _OverflowListener(lambda: hear("overflow", "", "", time.monotonic()))

    def start(self) -> None:
        """Begin to listen.

        Raises LimitReached when the kernel's limits are used up, OSError when the folder cannot be watched.
        """
        # What both an event and the walk of a new folder have found is watched once; watchdog prints a page about it.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning, r"watchdog\.")
        try:
            self._observer = observer = Observer()
            observer.schedule(self, self._root, recursive=True, event_filter=_WANTED)
            observer.start()
        except OSError as error:
            self.stop()
            if error.errno in (errno.ENOSPC, errno.EMFILE):
                raise LimitReached(error.errno, os.strerror(error.errno)) from error
            raise
        logging.getLogger("watchdog").addHandler(self._overflow)

    def alive(self) -> bool:
        """Whether every thread behind the hints still runs; watchdog itself does not notice when one ends."""
        observer = self._observer
        if observer is None or not observer.is_alive():
            return False
        reader = getattr(observer, "_inotify_fd", observer)
        return bool(observer.emitters) and reader.is_alive() and all(e.is_alive() for e in observer.emitters)

    def stop(self) -> None:
        """End the threads; harmless when none run."""
        logging.getLogger("watchdog").removeHandler(self._overflow)
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.stop()
            if observer.is_alive():
                observer.join(_STOP_S)

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called by watchdog for each event."""
        now_s, path = time.monotonic(), self._relative(event.src_path)
        if isinstance(event, FileMovedEvent | DirMovedEvent):
            dest = self._relative(event.dest_path)
            if dest is not None:
                self._hear("moved" if isinstance(event, FileMovedEvent) else "directory", path or "", dest, now_s)
        elif path is None:
            return
        elif isinstance(event, FileClosedEvent):
            self._hear("closed", path, "", now_s)
        elif isinstance(event, FileCreatedEvent):
            self._hear("created", path, "", now_s)
        elif isinstance(event, DirCreatedEvent):
            self._hear("directory", "", path, now_s)

    def _relative(self, path: bytes | str) -> str | None:
        text = os.fsdecode(path)
        return text[len(self._root) :].lstrip("/") if text.startswith(self._root.rstrip("/") + "/") else None


class _OverflowListener(logging.Handler):
    """watchdog tells of a full kernel queue only in its log; the lost events are never sent again."""

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._call = call

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage().lower():
            self._call()


class Hearing:
    """Keeps the hints of one folder alive, through full limits and dying threads."""

    def __init__(self, root: str, hear: Hear) -> None:
        self._root, self._hear = root, hear
        self._hints: InotifyEvents | None = None
        self._try_again_s = 0.0
        self.trouble = ""  # why there are none
        self.past = ""  # what went wrong and was mended

    def __bool__(self) -> bool:
        """Whether hints come at all."""
        return self._hints is not None

    def begin(self) -> bool:
        """Start the hints where they are missing or have died; True when they have just begun, after a gap."""
        if self._hints is not None and not self._hints.alive():
            self.stop()
            self.past = f"inotify thread had died, restarted at {time_of_day()}"
        if self._hints is not None or time.monotonic() < self._try_again_s:
            return False
        hints = InotifyEvents(self._root, self._hear)
        try:
            hints.start()
        except LimitReached:
            self.trouble = f"the kernel has no inotify watches left; {_RAISE_LIMIT}"
        except OSError as error:
            self.trouble = f"inotify does not work here ({error.strerror})"
        else:
            self._hints, self.trouble = hints, ""
            return True
        self._try_again_s = time.monotonic() + _LIMIT_AGAIN_S
        return False

    def stop(self) -> None:
        """End the hints."""
        hints, self._hints = self._hints, None
        self.trouble, self._try_again_s = "", 0.0
        if hints is not None:
            hints.stop()
