"""Whether a watched folder is there, and still the one that it was: by its identity, and by the mounts it lies on.

A share that goes away leaves its empty mount point behind, which looks like a quiet night. So what was mounted and is
not any more is told, as is what the configuration calls a share and is none.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Literal

from daemon.common.mounts import Mount, MountSetting, Table, lacks_share, watched_mount
from daemon.processes.apart import Silent
from daemon.sources.scan import Eyes
from models.clock import time_of_day

_Identity = tuple[str, tuple[int, int], tuple[tuple[str, int], ...]]


class Presence:
    """How one folder stands. Checked again and again by the folder's thread, read by any."""

    def __init__(self, root: str, setting: MountSetting, eyes: Eyes) -> None:
        self.root = root
        self.mount = Mount(root, "unknown", is_network=setting == "network")
        self.identity: _Identity | None = None  # None: the folder is not there
        self.last_seen_s: float | None = None  # time.time() when it last answered
        self.past = ""  # what went wrong and was mended
        self._setting, self._eyes = setting, eyes
        self._absence = ""  # why it is not there
        self._mounts: dict[str, str] = {}  # every mount that it has lain on or that lay in it: point -> type
        self._lost: list[str] = []  # those of them that are no more
        self._has_files = False
        self._lost_words = self._unmounted = self._emptiness = ""

    @property
    def trouble(self) -> str:
        """What is wrong now, the cause rather than what follows from it; "" when all is well."""
        return self._absence or self._lost_words or self._unmounted or self._emptiness

    def is_standing(self) -> bool:
        """Whether the folder is there right now, still the one that was last checked, and all of it."""
        try:
            return self.identity is not None and not self._lost and self._look() == self.identity
        except OSError:
            return False

    def check(self) -> Literal["same", "new", "gone"]:
        """Look anew. "new": another folder than at the last check, or one after there was none. Raises Silent."""
        before, was_lost = self.identity, bool(self._lost)
        table = Table.read()
        real = table.resolve(self.root)
        self._find_lost(table, real)
        self._place(table, real)
        try:
            identity = self._look(table)
        except Silent:
            raise
        except OSError as error:
            if before is not None or not self._absence:
                self._absence = self._words(error, was_there=before is not None)
            self.identity = None
            return "gone"
        if not self._lost and not self._unmounted:  # else it is the empty mount point that has answered
            self.last_seen_s = time.time()
        if self._absence or (was_lost and not self._lost):
            self.past, self._absence = f"folder is back since {time_of_day()}", ""
        self.identity = identity
        return "same" if identity == before else "new"

    def count(self, files: int, is_first: bool, is_known: Callable[[], bool]) -> None:
        """A listing of the whole folder has found so many files. ``is_first``: since it appeared.

        A folder that is empty when it appears, though files of it were judged once (``is_known``), is an alarm: so does
        a share look that is not mounted, and so does one, while we watch, whose server has lost the disk behind it. A
        folder of this computer whose files we saw going is told, and no alarm: somebody has cleared it.
        """
        if is_first and not files and is_known():
            self._emptiness = "is empty, though files of it were judged before: is its share mounted?"
        elif self._has_files and not files and not self._lost and self.mount.is_network and is_known():
            self._emptiness = (
                f"is empty since {time_of_day()}, though files of it were judged: does its server see them?"
            )
        elif self._has_files and not files and not self._lost:
            self.past = f"was emptied at {time_of_day()}"
        if files:
            self._emptiness = ""
        self._has_files = files > 0

    def _look(self, table: Table | None = None) -> _Identity:
        table = table or Table.read()
        real = table.resolve(self.root)
        mounts = (table.under(real), *table.below(real))
        return real, self._eyes.identity(), tuple((mount.point, mount.id) for mount in mounts)

    def _place(self, table: Table, real: str) -> None:
        mount = watched_mount(self.root, self._setting, table)
        if mount != self.mount:
            if self.identity is not None and not self._lost:
                self.past = f"another mount lies here since {time_of_day()} ({mount.fstype})"
            self._eyes.place(mount)
            self.mount = mount
        is_missing = self._setting == "network" and lacks_share(self.root, table)
        said = f'is configured as a share (mounts = "network"), and nothing is mounted at {self.root}'
        self._unmounted = said if is_missing else ""

    def _find_lost(self, table: Table, real: str) -> None:
        if self.identity is not None and self.identity[0] != real:
            self._mounts.clear()  # a link that leads elsewhere by now
        lost = [point for point in self._mounts if table.under(point).point != point]
        if lost and lost != self._lost:
            kinds = ", ".join(f"{point} ({self._mounts[point]})" for point in lost)
            self._lost_words = f"not mounted any more since {time_of_day()}: {kinds}"
        elif not lost:
            self._lost_words = ""
            self._mounts |= {mount.point: mount.fstype for mount in (table.under(real), *table.below(real))}
        self._lost = lost

    def _words(self, error: OSError, *, was_there: bool) -> str:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return f"folder cannot be reached since {time_of_day()} ({error.strerror})"
        return f"folder is gone since {time_of_day()}" if was_there else "folder does not exist (still looking)"
