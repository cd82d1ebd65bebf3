"""Watching the watcher: is the folder still the same one, and are the threads behind its hints alive?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from daemon.sources.hints import Hint, Hints, LimitReached
from daemon.sources.mounts import Mount, MountSetting, mount_of

_RAISE_LIMIT = "to raise it: sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512"
_LIMIT_AGAIN_S = 60.0  # between two tries after the kernel's limit was reached


class Watcher:
    """Keeps the hints of one folder alive, through unmounts, remounts and dying threads."""

    def __init__(self, root: str, setting: MountSetting, hear: Callable[[Hint], None]) -> None:
        self.root = root
        self.mount = Mount("unknown", setting == "network")
        self.identity: tuple[int, int] | None = None  # (device, inode); None: the folder is not there
        self.trouble = ""  # what is wrong now
        self.past = ""  # what went wrong and was mended
        self.hints: Hints | None = None
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
                self.trouble = f"folder is gone since {_clock()}" if was else "folder does not exist (still looking)"
            self.identity = None
            self.stop()
            return False, False
        appeared = identity != self.identity
        if appeared:
            if self.trouble:
                self.past, self.trouble = f"folder is back since {_clock()}", ""
            self.identity, self.mount = identity, mount_of(Path(self.root), self._setting)
            self.stop()
            self._try_again_s = 0.0
        elif self.hints is not None and not self.hints.alive():
            self.stop()
            self.past = f"inotify thread had died, restarted at {_clock()}"
        listening = self._listen()
        return appeared or listening, appeared

    def stop(self) -> None:
        """End the hints."""
        hints, self.hints = self.hints, None
        if hints is not None:
            hints.stop()

    def _listen(self) -> bool:
        """Start the hints where they are wanted and missing; True when they have just begun."""
        if self.mount.network or self.hints is not None or time.monotonic() < self._try_again_s:
            return False
        hints = Hints(self.root, self._hear)
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


def _clock() -> str:
    return time.strftime("%H:%M:%S")
