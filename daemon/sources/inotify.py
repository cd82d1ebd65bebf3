"""Hints: inotify (through watchdog) says where to look soonest. It is never the only way a file is found."""

from __future__ import annotations

import errno
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
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

from daemon.common.mounts import Mount, MountSetting, watched_mount
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


@dataclass(frozen=True, slots=True)
class Touched:
    """Something happened at ``path`` (relative to the folder)."""

    kind: Literal["created", "closed", "moved", "directory", "overflow"]
    path: str = ""
    dest: str = ""  # of a move
    at_s: float = 0.0  # time.monotonic() when it was heard


class LimitReached(OSError):
    """The kernel has no inotify watch (or instance) left for this user."""


class InotifyEvents(FileSystemEventHandler):
    """Listens below one folder and calls ``hear(hint)`` from watchdog's threads."""

    def __init__(self, root: str, hear: Callable[[Touched], None]) -> None:
        self._root = os.path.realpath(root)  # inotify is asked not to follow links, the root itself included
        self._hear = hear
        self._observer: BaseObserver | None = None
        self._overflow = _OverflowListener(lambda: hear(Touched("overflow", at_s=time.monotonic())))

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
        now = time.monotonic()
        path = self._relative(event.src_path)
        if isinstance(event, (FileMovedEvent, DirMovedEvent)):
            kind: Literal["moved", "directory"] = "moved" if isinstance(event, FileMovedEvent) else "directory"
            dest = self._relative(event.dest_path)
            if dest is not None:
                self._hear(Touched(kind, path or "", dest, now))
        elif path is None:
            return
        elif isinstance(event, FileClosedEvent):
            self._hear(Touched("closed", path, at_s=now))
        elif isinstance(event, FileCreatedEvent):
            self._hear(Touched("created", path, at_s=now))
        elif isinstance(event, DirCreatedEvent):
            self._hear(Touched("directory", "", path, now))

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


class MountGuard:
    """Keeps the hints of one folder alive, through unmounts, remounts and dying threads.

    Asks again and again whether the folder is still the same one, and whether the threads behind its hints are alive.
    """

    def __init__(self, root: str, setting: MountSetting, hear: Callable[[Touched], None]) -> None:
        self.root = root
        self.mount = Mount(root, "unknown", is_network=setting == "network")
        self.identity: tuple[int, int] | None = None  # (device, inode); None: the folder is not there
        self.trouble = ""  # what is wrong now
        self.past = ""  # what went wrong and was mended
        self.hints: InotifyEvents | None = None
        self._setting, self._hear = setting, hear
        self._try_again_s = 0.0

    def hearing(self) -> bool:
        """Whether hints come at all (never on a network mount)."""
        return self.hints is not None

    def standing(self) -> bool:
        """Whether the folder is there right now, and still the one that was last checked."""
        return self.identity is not None and self.identity == _identity(self.root)

    def check(self) -> tuple[bool, bool]:
        """(missed, new): whether events may have been missed, and whether the folder has only now appeared."""
        identity = _identity(self.root)
        if identity is None:
            if self.identity is not None or not self.trouble:
                was = self.identity is not None
                self.trouble = (
                    f"folder is gone since {time_of_day()}" if was else "folder does not exist (still looking)"
                )
            self.identity = None
            self.stop()
            return False, False
        appeared = identity != self.identity
        if appeared:
            if self.trouble:
                self.past, self.trouble = f"folder is back since {time_of_day()}", ""
            self.identity, self.mount = identity, watched_mount(self.root, self._setting)
            self.stop()
            self._try_again_s = 0.0
        elif self.hints is not None and not self.hints.alive():
            self.stop()
            self.past = f"inotify thread had died, restarted at {time_of_day()}"
        listening = self._listen()
        return appeared or listening, appeared

    def stop(self) -> None:
        """End the hints."""
        hints, self.hints = self.hints, None
        if hints is not None:
            hints.stop()

    def _listen(self) -> bool:
        """Start the hints where they are wanted and missing; True when they have just begun."""
        if self.mount.is_network or self.hints is not None or time.monotonic() < self._try_again_s:
            return False
        hints = InotifyEvents(self.root, self._hear)
        try:
            hints.start()
        except LimitReached:
            self.trouble = f"the kernel has no inotify watches left; {_RAISE_LIMIT}"
        except OSError as error:
            self.trouble = f"inotify does not work here ({error.strerror})"
        else:
            self.hints, self.trouble = hints, ""
            return True
        self._try_again_s = time.monotonic() + _LIMIT_AGAIN_S
        return False


def _identity(root: str) -> tuple[int, int] | None:
    try:
        found = os.stat(root)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if os.path.isdir(root) else None
