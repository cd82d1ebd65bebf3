"""The watch source: every finished file of the watched folders, once per content, oldest first."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from daemon.formats.names import Names
from daemon.sources import Arrival, SourceHealth
from daemon.sources.file_state import OfferQueue, Timing
from daemon.sources.folder import Folder, FolderNeeds
from daemon.sources.ignored import Unread
from daemon.sources.scan import MountSetting, Stamp


class WatchSource:
    """Implements ``daemon.sources.Source`` for folders; nothing in them is ever opened or written here.

    ``roots`` are distinct and none lies inside another: the configuration sees to that.
    ``names``: what the readers say of the name of a file.
    ``finished(path)``: (size_bytes, mtime_ns) with which this path was decided before a restart, else None.
    ``seen(1)`` is called once each time a claimed file, or a rewritten one, is first ready, and before ``take`` can
    return it; ``ignored(reason, name)`` once for each path passed over, by its name, by what it is (a link, a pipe), or
    by what a reader found in it. Both, and ``wake``, are called from the threads of this source.
    """

    name = "watch"

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        names: Names,
        wake: Callable[[], None],
        finished: Callable[[str], Stamp | None] = lambda path: None,
        seen: Callable[[int], None] = lambda count: None,
        ignored: Callable[[str, str], None] = lambda reason, name: None,
        mounts: MountSetting = "auto",
        timing: Timing | None = None,
    ) -> None:
        self._ready = OfferQueue()
        self._folders: list[Folder] = []
        roots = [Path(os.path.abspath(root)) for root in roots]
        for root in roots:
            others = [str(other) for other in roots if other != root]
            services = FolderNeeds(names, _unambiguous(finished, others), seen, ignored, wake)
            self._folders.append(Folder(root, mounts, timing or Timing(), services, self._ready))

    def start(self) -> None:
        """Begin to watch; a folder that does not exist yet is looked for until it does."""
        for folder in self._folders:
            folder.start()

    def take(self, limit: int) -> list[Arrival]:
        """At most ``limit`` finished files, oldest first; never blocks."""
        return self._ready.take(limit)

    def defer(self, arrival: Arrival, reason: str) -> None:
        """Offer it again: after 0.1 … 5 s, sooner when it changes, a last time after a minute without change."""
        folder, path = self._place(arrival)
        folder.defer(path, reason)

    def settle(self, arrival: Arrival) -> None:
        """Not to be offered again unless its size or time changes."""
        folder, path = self._place(arrival)
        folder.settle(path, (arrival.size_bytes, arrival.mtime_ns))

    def ignore(self, arrival: Arrival, reason: str) -> None:
        """The same for a file that no reader wants."""
        folder, path = self._place(arrival)
        folder.settle(path, (arrival.size_bytes, arrival.mtime_ns), reason)

    def ready(self) -> int:
        """How many finished files wait to be taken."""
        return len(self._ready)

    def health(self) -> list[SourceHealth]:
        """One entry a folder."""
        return [folder.health() for folder in self._folders]

    def unread(self) -> list[Unread]:
        """What came into each folder since its last curve and is not read."""
        return [folder.unread() for folder in self._folders]

    def oldest_waiting_s(self) -> float | None:
        """Age of the longest unfinished file; None when none waits."""
        return max(filter(None, (folder.oldest_waiting_s() for folder in self._folders)), default=None)

    def stop(self) -> None:
        """End all threads."""
        for folder in self._folders:
            folder.stop()

    def _place(self, arrival: Arrival) -> tuple[Folder, str]:
        file = str(arrival.file)
        folder = next(folder for folder in self._folders if file.startswith(folder.root.rstrip("/") + "/"))
        return folder, file[len(folder.root.rstrip("/")) + 1 :]


def _unambiguous(finished: Callable[[str], Stamp | None], others: list[str]) -> Callable[[str], Stamp | None]:
    """Decided paths are relative: where two watched folders have the same one, the ledger must tell by content."""
    if not others:
        return finished
    return lambda path: None if any(os.path.lexists(f"{other}/{path}") for other in others) else finished(path)
