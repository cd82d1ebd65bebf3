"""The watch source: every finished file of the watched folders, once per content, oldest first.

Each folder has a thread of its own, and nothing that holds up one of them holds up another, or the service.
"""

from __future__ import annotations

import logging
import math
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
from daemon.formats import Names, event_path
from daemon.processes.apart import Silent
from daemon.sources import Arrival, SourceHealth, Unread, UnreadCount
from daemon.sources.file_state import FileState, Found, OfferQueue, Timing
from daemon.sources.inotify import Hearing, Kind
from daemon.sources.scan import Eyes, Presence, Stamp, split
from daemon.sources.tracker import FileTracker, Surroundings
from models.clock import time_of_day

_log = logging.getLogger(__name__)
_PORTION = 500  # looks, stats or messages between two glances at the rest: some 10 ms
_NEW_DIRECTORY_S = 0.3  # a new directory is listed after this, its first files then have names
_MANY_DIRECTORIES = 50  # more new ones than this: list everything instead
_PAUSE_S = 1.0  # after an unexpected error
_SILENT_S = 0.2  # between two looks at a child that does not answer
_HANGS_S = 20.0  # a folder's thread that has not turned for so long waits for a disk
_FULL_SCANS = 20  # of so many listings one is in full, the others pass over what has not changed
_SCAN_SHARE = 20  # a listing is followed by a pause of so many times what it took, or of scan_s
_QUESTIONS = 500  # how many of the files that a first listing found are asked for their time, to know whether they came
_CLOCK_S = 0.05  # a file system's clock ticks less often


@dataclass(frozen=True, slots=True)
class FolderNeeds:
    """What folders ask and tell; all of it is called from their threads.

    ``names``: what the readers say of the name of a file.
    ``finished(folder, path)``: (size_bytes, mtime_ns, looked_ns) of this path when it was decided before a restart;
    ``has_files(folder)``: whether any was.
    ``seen(1)`` is called once each time a claimed file, or a rewritten one, is first ready, and before ``take`` can
    return it; ``ignored(reason, name)`` once for each path passed over, by its name, by what it is (a link, a pipe), or
    by what a reader found in it.
    """

    names: Names
    wake: Callable[[], None]
    finished: Callable[[str, str], tuple[int, ...] | None] = lambda folder, path: None
    has_files: Callable[[str], bool] = lambda folder: False
    seen: Callable[[int], None] = lambda count: None
    ignored: Callable[[str, str], None] = lambda reason, name: None


class WatchSource:
    """Implements ``daemon.sources.Source`` for folders; nothing in them is ever opened or written here.

    ``roots`` are distinct and none lies inside another: the configuration sees to that. ``mounts`` may differ by root.
    """

    name = "watch"

    def __init__(
        self,
        roots: Sequence[Path],
        needs: FolderNeeds,
        *,
        mounts: MountSetting | Sequence[MountSetting] = "auto",
        timing: Timing | None = None,
    ) -> None:
        self._ready = OfferQueue()
        settings = [mounts] * len(roots) if isinstance(mounts, str) else mounts
        common = timing or Timing(), needs, self._ready
        self._folders = [
            Folder(number, os.path.abspath(root), setting, *common)
            for number, (root, setting) in enumerate(zip(roots, settings, strict=True))
        ]

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
            folder.ask_to_stop()
        for folder in self._folders:
            folder.await_end()


class Folder:
    """Watches one root, in a thread of its own. What any thread may call only leaves a message, or reads."""

    def __init__(
        self, number: int, root: str, setting: MountSetting, timing: Timing, needs: FolderNeeds, ready: OfferQueue
    ) -> None:
        self.root, self._number = root, number
        self._timing, self._needs, self._ready = timing, needs, ready
        self._eyes = Eyes(root)
        self._presence = Presence(root, setting, self._eyes)
        self._hearing = Hearing(root, self._hear)
        self._arrivals = UnreadCount(root)
        self._begun_s = time.time()
        self._questions = _QUESTIONS
        self._link = ""  # the first that was passed over
        self._tracker = FileTracker(needs.names, timing, self._world())
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._stopping = threading.Event()
        self._jobs: deque[Iterator[None]] = deque()  # listings and sweeps under way, done piece by piece
        self._is_scanning = False
        self._scans = 0
        self._check_due_s = self._scan_due_s = self._sweep_due_s = 0.0
        self._suspicious_until_s = 0.0
        self._new_directories: dict[str, float] = {}  # path -> when to list it
        self._offers = 0
        self._unlisted = ""
        self._waiting, self._oldest_s = 0, math.inf  # as of the last check
        self._turned_s = time.monotonic()
        self._last_curve_s: float | None = None

    def _world(self) -> Surroundings:
        return Surroundings(
            stamps=self._eyes.stamps,
            is_standing=self._presence.is_standing,
            is_finished=self._is_finished,
            offer=self._offer,
            withdraw=self._ready.withdraw,
            ignored=self._ignore,
            curve=self._arrivals.curve,
            monotonic=self._turn,
            wall=time.time,
        )

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """End the thread soon."""
        self._stopping.set()
        self._inbox.put(lambda: None)
        self._eyes.end()

    def await_end(self) -> None:
        """Wait for the end of the thread, a second at most: a disk that hangs may hold it longer."""
        if self._thread.is_alive():
            self._thread.join(1.0)

    def oldest_waiting_s(self) -> float | None:
        """Age of the file that has waited longest to be finished, as of the last check."""
        return time.monotonic() - self._oldest_s if self._waiting else None

    def unread(self) -> Unread:
        """What came since the last curve and is not read."""
        return self._arrivals.unread()

    def health(self) -> SourceHealth:
        """How this folder is watched, in words."""
        presence, words = self._presence, []
        if presence.identity is not None:
            kind = f"network mount ({presence.mount.fstype})" if presence.mount.is_network else ""
            hints = "inotify" if self._hearing else ""
            words += [", ".join(filter(None, [kind, hints, f"scan every {self._scan_every_s():g} s"]))]
        troubles = list(filter(None, [self._silence(), presence.trouble, self._hearing.trouble, self._unlisted]))
        age_s = self.oldest_waiting_s()
        oldest = "" if age_s is None else f"oldest unfinished file {age_s:.0f} s"
        detail = "; ".join(filter(None, [*troubles, *words, presence.past, self._hearing.past, oldest]))
        since = (self._number, presence.last_seen_s, self._last_curve_s)
        return SourceHealth(self.root, not troubles, detail or "starting", self._waiting, *since)

    def _silence(self) -> str:
        """What to say where nobody answers: whoever looks at the folder, or this thread itself."""
        silent_s, still_s = self._eyes.silent_s, time.monotonic() - self._turned_s
        if silent_s:
            return f"does not answer since {time_of_day(time.time() - silent_s)}"
        return f"its disk hangs since {time_of_day(time.time() - still_s)}" if still_s > _HANGS_S else ""

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except Silent:
                self._begin_anew()
            except Exception:  # a folder must never go unwatched in silence
                _log.exception("watching %s: unexpected error, going on", self.root)
                self._stopping.wait(_PAUSE_S)
                self._begin_anew()
        self._hearing.stop()
        self._eyes.end()

    def _turn(self) -> float:
        """time.monotonic(), and a sign of life."""
        self._turned_s = time.monotonic()
        return self._turned_s

    def _begin_anew(self) -> None:
        """What was under way has come to nothing: list everything when somebody answers again."""
        self._jobs.clear()
        self._is_scanning, self._scan_due_s = False, 0.0

    def _step(self) -> None:
        """One turn: messages, what is due, one piece of a listing or sweep, looks."""
        self._turn()
        self._read_inbox()
        if time.monotonic() >= self._check_due_s:
            self._check(time.monotonic())
        if self._eyes.is_silent:
            if self._eyes.look():
                self._check_due_s = 0.0
            return
        if self._presence.identity is not None:
            self._plan(time.monotonic())
        if self._jobs:
            job = self._jobs.popleft()
            if next(job, _END) is not _END:
                self._jobs.append(job)
        self._tracker.look(_PORTION)
        if self._offers:
            self._offers = 0
            self._needs.wake()

    def _read_inbox(self) -> None:
        wait_s = self._wait_s(time.monotonic())
        try:
            self._inbox.get(timeout=wait_s)() if wait_s else self._inbox.get_nowait()()
            for _ in range(_PORTION):
                self._inbox.get_nowait()()
        except queue.Empty:
            pass

    def _wait_s(self, now_s: float) -> float:
        if self._eyes.is_silent:
            return _SILENT_S
        due = [self._check_due_s, *self._new_directories.values()]
        if self._presence.identity is not None:
            due += [self._sweep_due_s] if self._is_scanning else [self._sweep_due_s, self._scan_due_s]
        if (look_s := self._tracker.due_s()) is not None:
            due.append(look_s)
        return 0.0 if self._jobs else max(0.0, min(due) - now_s)

    def _plan(self, now_s: float) -> None:
        if len(self._new_directories) > _MANY_DIRECTORIES:
            self._new_directories.clear()
            self._scan_due_s = min(self._scan_due_s, now_s + _NEW_DIRECTORY_S)
        for path in [path for path, due_s in self._new_directories.items() if now_s >= due_s]:
            del self._new_directories[path]
            self._jobs.append(self._list(path, Found.SCAN))
        if now_s >= self._scan_due_s and not self._is_scanning:
            self._scan(Found.SCAN)
        if now_s >= self._sweep_due_s:
            self._sweep(now_s)

    def _check(self, now_s: float) -> None:
        self._check_due_s = now_s + self._timing.check_s
        self._waiting = self._tracker.waiting()
        self._oldest_s = self._tracker.oldest_s() or math.inf
        self._arrivals.is_reading = self._tracker.is_reading()
        found = self._presence.check()
        is_network = self._presence.mount.is_network
        if found != "same":
            self._hearing.stop()
        if found == "gone":
            return
        if found == "new":
            self._tracker.timing = self._timing.on_network() if is_network else self._timing
            self._scan(Found.START)
            self._sweep(now_s)
        if not is_network and self._hearing.begin() and found == "same":
            self._scan(Found.SCAN)
        if self._tracker.missed and self._hearing:
            self._suspicious_until_s = now_s + self._timing.suspicion_s
            self._scan_due_s = min(self._scan_due_s, now_s + self._scan_every_s())
        self._tracker.missed = 0

    def _scan_every_s(self) -> float:
        trusted = bool(self._hearing) and time.monotonic() >= self._suspicious_until_s
        return self._timing.scan_s if trusted else self._timing.scan_often_s

    def _scan(self, found: Found) -> None:
        """List everything: in full where the folder has only now appeared, and now and then."""
        self._is_scanning = True
        in_full = found is Found.START or self._scans % _FULL_SCANS == 0
        self._scans += 1
        self._jobs.append(self._list("", found, in_full))

    def _list(self, below: str, found: Found, in_full: bool = True) -> Iterator[None]:
        """Reconcile the tracker with the folder, one directory a piece."""
        directories, failures, files, took_s, begun_s = [], [], 0, 0.0, time.monotonic()
        for listing in self._eyes.walk(below, in_full):
            took_s += time.monotonic() - begun_s
            directories.append(listing.directory)
            if listing.error is None and not listing.is_unchanged:
                files += len(listing.files)
                if not in_full and not listing.files:  # it may have been the last ones: the next listing tells
                    self._scans = 0
                self._tracker.reconcile(listing, found)
                if below:  # somebody has made or moved a directory here: the names in it may be old ones
                    self._tracker.verify(self._tracker.settled.names_in(listing.directory))
                yield
            elif listing.error is not None and not (isinstance(listing.error, FileNotFoundError) and listing.directory):
                failures.append(f"cannot list {listing.directory or self.root}: {listing.error.strerror}")
            elif len(directories) % _PORTION == 0:
                yield
            begun_s = time.monotonic()
        if below:
            return
        self._unlisted = event_path(failures[0]) if failures else ""
        if not failures:
            self._tracker.settled.keep_only(directories)
            if in_full or files:
                self._presence.count(files, found is Found.START, lambda: self._needs.has_files(self.root))
        pause_s = max(self._scan_every_s(), min(_SCAN_SHARE * took_s, self._timing.scan_s))
        self._scan_due_s = time.monotonic() + pause_s
        self._is_scanning = False

    def _sweep(self, now_s: float) -> None:
        """Stat every settled file: the rewritten ones keep their names."""
        self._sweep_due_s = now_s + self._timing.sweep_s
        self._jobs.append(self._verify(self._tracker.settled.paths()))

    def _verify(self, paths: list[str]) -> Iterator[None]:
        for start in range(0, len(paths), _PORTION):
            self._tracker.verify(paths[start : start + _PORTION])
            yield

    def _is_finished(self, path: str, stamp: Stamp) -> bool:
        """Whether a file was decided before a restart, and nothing says that it was written since."""
        found = self._needs.finished(self.root, path)
        if found is None or not stamp.is_same(Stamp(*found[:2])):
            return False
        looked_ns = found[2] if len(found) > 2 else 0
        return not looked_ns or stamp.is_older_than(looked_ns)

    def _ignore(self, path: str, reason: str, came: bool) -> None:
        name = split(path)[1]
        self._needs.ignored(reason, name)
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
        (found,) = self._eyes.stamps([path])
        if not isinstance(found, Stamp):
            return False
        return max(found.mtime_ns, found.ctime_ns or 0) / 1e9 >= self._begun_s - _CLOCK_S

    def _hear(self, kind: Kind, path: str, dest: str, at_s: float) -> None:
        """Called from watchdog's threads."""
        self._inbox.put(partial(self._heed, kind, path, dest, at_s))

    def _heed(self, kind: Kind, path: str, dest: str, at_s: float) -> None:
        if kind == "moved":
            self._tracker.moved(path, dest, at_s)
        elif kind == "directory":
            self._new_directories[dest] = at_s + _NEW_DIRECTORY_S
        elif kind == "overflow":
            _log.warning("watching %s: the kernel dropped events, listing the folder instead", self.root)
            self._scan_due_s = 0.0
        elif kind == "closed":
            self._tracker.touch(path, closed_s=at_s, heard_s=at_s)
        else:
            self._tracker.touch(path)

    def _offer(self, pending: FileState, is_final: bool) -> None:
        now_s = time.monotonic()
        if pending.claimed and not pending.counted:
            pending.counted = True
            self._needs.seen(1)
        if pending.is_live and pending.claimed:
            self._last_curve_s = time.time()
        shown = pending.stamp or (pending.noticed[0] if pending.noticed else Stamp(0, 0))  # or as it was, once gone
        arrival = Arrival(
            source="watch",
            path=event_path(pending.path),
            file=Path(self.root, pending.path),
            companion=Path(self.root, pending.companion) if pending.companion else None,
            size_bytes=shown.size_bytes,
            mtime_ns=shown.mtime_ns,
            looked_ns=time.time_ns() - int((now_s - shown.looked_s) * 1e9) if shown.looked_s else 0,
            folder=self.root,
            noticed_s=pending.notice(now_s, is_final),
            claimed=pending.claimed,
            final=is_final,
            answer=partial(self._answered, pending, pending.path, pending.stamp),
        )
        self._ready.put(pending, arrival)
        self._offers += 1

    def _answered(
        self, pending: FileState, path: str, stamp: Stamp | None, arrival: Arrival, is_done: bool, reason: str | None
    ) -> None:
        """What became of an arrival, from any thread: it only leaves a message."""
        self._ready.answered(pending)
        if is_done:
            self._inbox.put(partial(self._tracker.settle, path, stamp, reason))
        else:
            self._inbox.put(partial(self._tracker.defer, path, reason or ""))


_END = object()
