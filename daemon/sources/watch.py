"""The watch source: every finished file of the watched folders, once per content, oldest first."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from daemon.common.mounts import MountSetting
from daemon.common.text import clean
from daemon.formats.names import Names, event_path
from daemon.sources import Arrival, SourceHealth
from daemon.sources.file_state import FileState, OfferQueue, Timing
from daemon.sources.ignored import Unread, UnreadCount
from daemon.sources.inotify import MountGuard, Touched
from daemon.sources.scan import Stamp, split, stamp_of, walk
from daemon.sources.tracker import FileTracker, Surroundings

_log = logging.getLogger(__name__)
_PORTION = 500  # looks, stats or messages between two glances at the rest: some 10 ms
_NEW_DIRECTORY_S = 0.3  # a new directory is listed after this, its first files then have names
_MANY_DIRECTORIES = 50  # more new ones than this: list everything instead
_PAUSE_S = 1.0  # after an unexpected error
_QUESTIONS = 500  # how many of the files that a first listing found are asked for their time, to know whether they came
_CLOCK_S = 0.05  # a file system's clock ticks less often


class WatchSource:
    """Implements ``daemon.sources.Source`` for folders; nothing in them is ever opened or written here.

    ``roots`` are distinct and none lies inside another: the configuration sees to that.
    ``names``: what the readers say of the name of a file.
    ``finished(folder, path)``: (size_bytes, mtime_ns) with which this path was decided before a restart, else None.
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
        finished: Callable[[str, str], Stamp | None] = lambda folder, path: None,
        seen: Callable[[int], None] = lambda count: None,
        ignored: Callable[[str, str], None] = lambda reason, name: None,
        mounts: MountSetting = "auto",
        timing: Timing | None = None,
    ) -> None:
        self._ready = OfferQueue()
        self._folders: list[Folder] = []
        roots = [Path(os.path.abspath(root)) for root in roots]
        for root in roots:
            services = FolderNeeds(names, partial(finished, str(root)), seen, ignored, wake)
            self._folders.append(Folder(root, mounts, timing or Timing(), services, self._ready))

    def start(self) -> None:
        """Begin to watch; a folder that does not exist yet is looked for until it does."""
        for folder in self._folders:
            folder.start()

    def take(self, limit: int, large: int) -> list[Arrival]:
        """At most ``limit`` finished files, of which at most ``large`` are large; never blocks."""
        return self._ready.take(limit, large)

    def ready(self) -> int:
        """How many finished files wait to be taken."""
        return len(self._ready)

    def health(self) -> list[SourceHealth]:
        """One entry a folder."""
        return [folder.health() for folder in self._folders]

    def unread(self) -> list[Unread]:
        """What came into each folder since its last curve and is not read."""
        return [folder.unread() for folder in self._folders]

    def oldest_pending_s(self) -> float | None:
        """Age of the oldest finished file that is not decided yet; None when there is none."""
        noticed_s = self._ready.oldest_pending_s()
        return None if noticed_s is None else time.monotonic() - noticed_s

    def oldest_waiting_s(self) -> float | None:
        """Age of the longest unfinished file; None when none waits."""
        return max(filter(None, (folder.oldest_waiting_s() for folder in self._folders)), default=None)

    def stop(self) -> None:
        """End all threads."""
        for folder in self._folders:
            folder.stop()


@dataclass(frozen=True, slots=True)
class FolderNeeds:
    """What a folder is given by its source. All of it is called from the folder's thread."""

    names: Names
    finished: Callable[[str], Stamp | None]
    seen: Callable[[int], None]
    ignored: Callable[[str, str], None]  # (reason, name)
    wake: Callable[[], None]


class Folder:
    """Watches one root, in a thread of its own."""

    def __init__(
        self, root: Path, setting: MountSetting, timing: Timing, services: FolderNeeds, ready: OfferQueue
    ) -> None:
        self.root = os.path.abspath(root)
        self._timing, self._services, self._ready = timing, services, ready
        self._guard = MountGuard(self.root, setting, self._hear)
        self._arrivals = UnreadCount(self.root)
        self._begun_s = time.time()
        self._questions = _QUESTIONS
        self._link = ""  # the first that was passed over
        self._tracker = FileTracker(services.names, timing, self._world())
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._stopping = threading.Event()
        self._jobs: deque[Iterator[None]] = deque()  # listings and sweeps under way, done piece by piece
        self._scanning = False
        self._check_due_s = self._scan_due_s = self._sweep_due_s = 0.0
        self._suspicious_until_s = 0.0
        self._new_directories: dict[str, float] = {}  # path -> when to list it
        self._offers = 0
        self._unlisted = ""
        self._oldest_s: float | None = None

    def _world(self) -> Surroundings:
        return Surroundings(
            stamp=lambda path: stamp_of(f"{self.root}/{path}"),
            standing=self._guard.standing,
            finished=self._services.finished,
            offer=self._offer,
            withdraw=self._ready.withdraw,
            ignored=self._ignore,
            curve=self._arrivals.curve,
            monotonic=time.monotonic,
            wall=time.time,
        )

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def _answered(self, pending: FileState, path: str, arrival: Arrival, is_done: bool, reason: str | None) -> None:
        """What became of an arrival, from any thread: it only leaves a message."""
        self._ready.answered(pending)
        if is_done:
            stamp = (arrival.size_bytes, arrival.mtime_ns)
            self._inbox.put(partial(self._tracker.settle, path, stamp, reason))
        else:
            self._inbox.put(partial(self._tracker.defer, path, reason or ""))

    def stop(self) -> None:
        """End the thread, within a second."""
        self._stopping.set()
        self._inbox.put(lambda: None)
        if self._thread.is_alive():
            self._thread.join(1.0)  # a hanging share may hold it longer; it is a daemon thread

    def oldest_waiting_s(self) -> float | None:
        """Age of the file that has waited longest to be finished, as of the last check."""
        oldest_s = self._oldest_s
        return None if oldest_s is None or not self._tracker.waiting() else time.monotonic() - oldest_s

    def unread(self) -> Unread:
        """What came since the last curve and is not read."""
        return self._arrivals.unread()

    def health(self) -> SourceHealth:
        """How this folder is watched, in words."""
        guard, words = self._guard, []
        trouble, past = guard.trouble, guard.past
        if guard.identity is not None:
            kind = f"network mount ({guard.mount.fstype})" if guard.mount.is_network else ""
            hints = "inotify" if guard.hearing() else ""
            words += [", ".join(filter(None, [kind, hints, f"scan every {self._scan_every_s():g} s"]))]
        age_s = self.oldest_waiting_s()
        oldest = "" if age_s is None else f"oldest unfinished file {age_s:.0f} s"
        detail = "; ".join(filter(None, [trouble, *words, self._unlisted, past, oldest]))
        return SourceHealth(
            self.root, not trouble and not self._unlisted, detail or "starting", self._tracker.waiting()
        )

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except Exception:  # a folder must never go unwatched in silence
                _log.exception("watching %s: unexpected error, going on", self.root)
                self._stopping.wait(_PAUSE_S)
                self._scan_due_s = 0.0
        self._guard.stop()

    def _step(self) -> None:
        """One turn: messages, what is due, one piece of a listing or sweep, looks."""
        self._read_inbox()
        self._plan(time.monotonic())
        if self._jobs:
            job = self._jobs.popleft()
            if next(job, _END) is not _END:
                self._jobs.append(job)
        self._tracker.look(_PORTION)
        if self._offers:
            self._offers = 0
            self._services.wake()

    def _read_inbox(self) -> None:
        now_s = time.monotonic()
        due = [self._check_due_s, *self._new_directories.values()]
        if self._guard.identity is not None:
            due += [self._sweep_due_s] if self._scanning else [self._sweep_due_s, self._scan_due_s]
        if (look_s := self._tracker.due_s()) is not None:
            due.append(look_s)
        wait_s = 0.0 if self._jobs else max(0.0, min(due) - now_s)
        try:
            self._inbox.get(timeout=wait_s)() if wait_s else self._inbox.get_nowait()()
            for _ in range(_PORTION):
                self._inbox.get_nowait()()
        except queue.Empty:
            pass

    def _plan(self, now_s: float) -> None:
        if now_s >= self._check_due_s:
            self._check(now_s)
        if self._guard.identity is None:
            return
        if len(self._new_directories) > _MANY_DIRECTORIES:
            self._new_directories.clear()
            self._scan_due_s = min(self._scan_due_s, now_s + _NEW_DIRECTORY_S)
        for path in [path for path, due_s in self._new_directories.items() if now_s >= due_s]:
            del self._new_directories[path]
            self._jobs.append(self._list(path, fresh=False))
        if now_s >= self._scan_due_s and not self._scanning:
            self._scan_all(now_s, fresh=False)
        if now_s >= self._sweep_due_s:
            self._sweep_due_s = now_s + self._timing.sweep_s
            self._jobs.append(self._sweep(self._tracker.settled.paths()))

    def _check(self, now_s: float) -> None:
        self._check_due_s = now_s + self._timing.check_s
        missed, appeared = self._guard.check()
        if appeared:
            network = self._guard.mount.is_network
            self._tracker.timing = self._timing.on_network() if network else self._timing
        if missed:
            self._scan_all(now_s, fresh=appeared)
        if self._tracker.missed and self._guard.hearing():
            self._suspicious_until_s = now_s + self._timing.suspicion_s
            self._scan_due_s = min(self._scan_due_s, now_s + self._scan_every_s())
        self._tracker.missed = 0
        self._oldest_s = self._tracker.oldest_s()
        self._arrivals.is_reading = self._tracker.is_reading()

    def _scan_every_s(self) -> float:
        trusted = self._guard.hearing() and time.monotonic() >= self._suspicious_until_s
        return self._timing.scan_s if trusted else self._timing.scan_often_s

    def _scan_all(self, now_s: float, fresh: bool) -> None:
        self._scan_due_s = now_s + self._scan_every_s()
        self._scanning = True
        self._jobs.append(self._list("", fresh))

    def _list(self, below: str, fresh: bool) -> Iterator[None]:
        """Reconcile the tracker with the folder, one directory a piece."""
        directories, failures = [], []
        for listing in walk(self.root, below):
            directories.append(listing.directory)
            if listing.error is None:
                self._tracker.reconcile(listing, fresh)
            elif not isinstance(listing.error, FileNotFoundError) or not listing.directory:
                failures.append(f"cannot list {listing.directory or self.root}: {listing.error.strerror}")
            yield
        if not below:
            self._scanning = False
            self._unlisted = event_path(failures[0]) if failures else ""
            if not failures:
                self._tracker.settled.keep_only(directories)

    def _sweep(self, paths: list[str]) -> Iterator[None]:
        """Stat every settled file: the rewritten ones keep their names."""
        for start in range(0, len(paths), _PORTION):
            for path in paths[start : start + _PORTION]:
                self._tracker.verify(path)
            yield

    def _ignore(self, path: str, reason: str, came: bool) -> None:
        name = split(path)[1]
        self._services.ignored(reason, name)
        if came or self._is_young(path):
            self._arrivals.passed_over(reason, name)
        if reason == "link" and not self._link:  # one line tells the story; a folder may hold ten thousand of them
            self._link = event_path(path)
            said = "links are not followed (the first: %s); watch the folder that they lead to instead"
            _log.warning(f"watching %s: {said}", self.root, clean(self._link))

    def _is_young(self, path: str) -> bool:
        """Whether what the first listing found has come since the service began, or while the folder was away.

        Asked of the first few only: of fifty thousand photographs on a share it would take a minute to know.
        """
        if self._questions <= 0:
            return False
        self._questions -= 1
        try:
            found = os.lstat(f"{self.root}/{path}")
        except OSError:
            return False
        return max(found.st_mtime, found.st_ctime) >= self._begun_s - _CLOCK_S

    def _hear(self, hint: Touched) -> None:
        """Called from watchdog's threads."""
        self._inbox.put(partial(self._heed, hint))

    def _heed(self, hint: Touched) -> None:
        if hint.kind == "moved":
            self._tracker.moved(hint.path, hint.dest, hint.at_s)
        elif hint.kind == "directory":
            self._new_directories[hint.dest] = hint.at_s + _NEW_DIRECTORY_S
        elif hint.kind == "overflow":
            _log.warning("watching %s: the kernel dropped events, listing the folder instead", self.root)
            self._scan_due_s = 0.0
        else:
            self._tracker.touch(hint.path, closed_s=hint.at_s if hint.kind == "closed" else None)

    def _offer(self, pending: FileState, final: bool) -> None:
        now_s = time.monotonic()
        size_bytes, mtime_ns = pending.stamp or (0, 0)
        if pending.claimed and not pending.counted:
            pending.counted = True
            self._services.seen(1)
        arrival = Arrival(
            source="watch",
            path=event_path(pending.path),
            file=Path(self.root, pending.path),
            companion=Path(self.root, pending.companion) if pending.companion and pending.whole else None,
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            folder=self.root,
            noticed_s=pending.notice(now_s, final),
            claimed=pending.claimed,
            final=final,
            answer=partial(self._answered, pending, pending.path),
        )
        self._ready.put(pending, arrival)
        self._offers += 1


_END = object()
