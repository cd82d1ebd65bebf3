"""The files of one folder: which are settled, which are on their way, and when to look at each next.

Used from one thread. It looks at names, sizes and times only; what a file holds is for the reader.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass

from daemon.formats.names import Names, event_path, sentinel_target
from daemon.sources.file_state import FileState, Timing
from daemon.sources.scan import ODD, ODDITIES, Listing, Stamp, join, split

#: The stamp of a name that is never looked at: temporary, unclaimed, half of a pair.
IGNORED: Stamp = (-2, -2)


class KnownFiles:
    """Paths that need no look: the stamp each was settled with, by directory, so that one listing prunes one entry.

    About 250 bytes a file; what is gone from its directory is forgotten at the next listing.
    """

    def __init__(self) -> None:
        self._directories: dict[str, dict[str, Stamp]] = {}
        self._unread: dict[str, set[str]] = {}  # of these, the files that no reader wanted

    def get(self, path: str) -> Stamp | None:
        """The stamp of ``path``; None when nothing is known of it."""
        directory, name = split(path)
        return self._directories.get(directory, {}).get(name)

    def put(self, path: str, stamp: Stamp) -> None:
        """Remember."""
        directory, name = split(path)
        self._directories.setdefault(directory, {})[name] = stamp

    def pop(self, path: str) -> Stamp | None:
        """Forget; the stamp of a settled file, None where there was none."""
        directory, name = split(path)
        stamp = self._directories.get(directory, {}).pop(name, None)
        self._unread.get(directory, set()).discard(name)
        return None if stamp == IGNORED or stamp in ODDITIES else stamp

    def has(self, directory: str) -> Container[str]:
        """The names that are known in a directory, whatever they are."""
        return self._directories.get(directory, {})

    def mark_unread(self, path: str) -> bool:
        """No reader wanted what is settled at ``path``; False where that is known of an earlier content of it."""
        directory, name = split(path)
        names = self._unread.setdefault(directory, set())
        is_news = name not in names
        names.add(name)
        return is_news

    def paths(self) -> list[str]:
        """Everything a sweep has to stat."""
        inside = ((d, name, stamp) for d, names in self._directories.items() for name, stamp in names.items())
        return [join(directory, name) for directory, name, stamp in inside if stamp != IGNORED]

    def reconcile(self, listing: Listing) -> tuple[list[str], list[str]]:
        """Forget what has left a directory; returns the names that are new in it: (files, odd things)."""
        known = self._directories.setdefault(listing.directory, {})
        for name in known.keys() - listing.files - listing.odd:
            del known[name]
            self._unread.get(listing.directory, set()).discard(name)
        return list(listing.files - known.keys()), list(listing.odd - known.keys())

    def keep_only(self, directories: Iterable[str]) -> None:
        """Forget directories that are gone; ``directories`` are all there are."""
        there = set(directories)
        for directory in [one for one in self._directories if one not in there]:
            del self._directories[directory]
            self._unread.pop(directory, None)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the tracker needs of the world around it; the two clocks are time.monotonic and time.time."""

    stamp: Callable[[str], Stamp | None]  # of a relative path; None gone; OSError: cannot say now
    standing: Callable[[], bool]  # the folder itself is still there
    finished: Callable[[str], Stamp | None]  # decided before a restart (event path -> stamp)
    offer: Callable[[FileState, bool], None]  # (file, final)
    withdraw: Callable[[FileState], bool]  # take an offer back; False: the reader has the file
    ignored: Callable[[str, str, bool], None]  # (path, reason, whether it came, or was there when the folder appeared)
    curve: Callable[[], None]  # a file of a kind that is read, decided now or before a restart
    monotonic: Callable[[], float]
    wall: Callable[[], float]


class FileTracker:
    """Per-path states: seen -> quiet -> offered -> settled | deferred."""

    def __init__(self, names: Names, timing: Timing, world: Surroundings) -> None:
        self.timing = timing
        self._names = names
        self._world = world
        self._open: dict[str, FileState] = {}
        self.settled = KnownFiles()
        self._looks: list[tuple[float, int, FileState]] = []
        self._turn = itertools.count()
        self._out = 0  # how many of the open ones are offered
        self.missed = 0  # files offered that no hint had told of; set back by the reader of it

    def waiting(self) -> int:
        """Files that are neither settled, nor offered, nor with the reader."""
        return len(self._open) - self._out

    def is_reading(self) -> bool:
        """Whether a file that its name says is a curve is with the reader."""
        return any(pending.out and pending.claimed for pending in self._open.values())

    def oldest_s(self) -> float | None:
        """When the longest waiting of them last changed (time.monotonic()); None when nothing waits."""
        return min((p.grown_s for p in self._open.values() if not p.out), default=None)

    def touch(
        self, path: str, *, closed_s: float | None = None, done: bool = False, fresh: bool = False, hinted: bool = True
    ) -> None:
        """Something happened at ``path``: look at it now.

        ``closed_s``: when its writer was heard to close it; ``done``: a sentinel says that nothing more will come;
        ``fresh``: found by a first scan; ``hinted``: not by a scan alone.
        """
        directory, name = split(path)
        reason = self._names.why_ignored(name)
        if reason is None:
            self._touch_file(path, name, closed_s, done=done, fresh=fresh, hinted=hinted)
            return
        self._ignore(path, reason, came=not fresh)
        target = sentinel_target(name)
        if reason == "companion":
            first = self._first_half(directory, name)
            self._touch_file(first, name, closed_s, fresh=fresh, hinted=hinted)
            if (pending := self._open.get(first)) is not None:
                pending.companion = self._second_half(directory, split(first)[1])
        elif reason == "sentinel" and target is not None:
            self.touch(join(directory, target), closed_s=self._world.monotonic(), done=True)

    def _first_half(self, directory: str, second: str) -> str:
        """The path of the first half, as it is known to be spelled, else as it usually is."""
        names = list(self._names.other_names(second))
        known = self.settled.has(directory)
        name = next((name for name in names if name in known or join(directory, name) in self._open), names[0])
        return join(directory, name)

    def _second_half(self, directory: str, first: str) -> str | None:
        """The same for the second half; None where the name is no pair's."""
        usual = next(self._names.other_names(first), None) if self._names.is_first_half(first) else None
        return (
            None
            if usual is None
            else join(directory, self._names.pick_other(first, self.settled.has(directory)) or usual)
        )

    def _touch_file(
        self, path: str, half: str, closed_s: float | None, *, done: bool = False, fresh: bool, hinted: bool
    ) -> None:
        pending = self._open.get(path) or self._enter(path, fresh)
        pending.hinted = pending.hinted or hinted
        if pending.out:
            pending.again = True
            return
        pending.need_s = max(pending.quiet_s, self.timing.look_s)
        if closed_s is not None and (pending.close(half) or done):
            pending.need_s = 0.0 if done else pending.quiet_s
            pending.closed_s, pending.retry_s = closed_s, 0.0
            pending.changed_s = max(pending.changed_s, closed_s)
        self._schedule(pending, self._world.monotonic())

    def _enter(self, path: str, fresh: bool) -> FileState:
        directory, name = split(path)
        now_s = self._world.monotonic()
        self._open[path] = pending = FileState(
            path=path,
            claimed=self._names.claim(name) is True,
            companion=self._second_half(directory, name),
            quiet_s=self._names.quiet_s(name),
            is_map=self._names.is_map(name),
            fresh=fresh,
            came=not fresh,
            due_s=now_s,
            grown_s=now_s,
        )
        return pending

    def _ignore(self, path: str, reason: str, stamp: Stamp = IGNORED, *, came: bool) -> None:
        if self.settled.get(path) != stamp:
            self.settled.put(path, stamp)
            self._world.ignored(path, reason, came)

    def moved(self, source: str, dest: str, at_s: float) -> None:
        """A rename inside the folder: the state goes with the file."""
        pending = self._open.get(source)
        stamp = self.settled.pop(source)
        if pending is not None and pending.out and not self._world.withdraw(pending):
            pending.moved_to = dest  # the reader has it: its answer decides what becomes of the new path
            return
        if pending is not None:
            self._out -= pending.out
            pending.out = False
            if not self._transfer(pending, dest):
                self._schedule(pending, self._world.monotonic())
        elif stamp is not None and dest not in self._open:
            self.settled.put(dest, stamp)
        self.touch(dest, closed_s=at_s)

    def _transfer(self, pending: FileState, dest: str) -> bool:
        """Carry a life over to another path; False where it must end at the old one."""
        name = split(dest)[1]
        there = self._open.get(dest)
        if self._names.why_ignored(name) or pending.companion or self._names.is_first_half(name):
            return False
        if there is not None and there.offered and pending.offered:
            return False  # two offered files, one path left: each still gets its answer
        del self._open[pending.path]
        if there is not None:
            there.offered, there.counted = there.offered or pending.offered, there.counted or pending.counted
            return True
        pending.path, pending.quiet_s, pending.is_map = dest, self._names.quiet_s(name), self._names.is_map(name)
        pending.claimed = pending.claimed or self._names.claim(name) is True
        self._open[dest] = pending
        return True

    def due_s(self) -> float | None:
        """When the next look is due."""
        while self._looks and not self._is_current(self._looks[0]):
            heapq.heappop(self._looks)
        return self._looks[0][0] if self._looks else None

    def look(self, limit: int) -> None:
        """Look at the files that are due, at most ``limit`` of them."""
        now_s = self._world.monotonic()
        for _ in range(limit):
            due_s = self.due_s()
            if due_s is None or due_s > now_s:
                return
            self._look(heapq.heappop(self._looks)[2], now_s)

    def _look(self, pending: FileState, now_s: float) -> None:
        try:
            stamp, whole = self._stamp(pending)
        except OSError:  # the share is away, or listing is forbidden: neither is the end of a file
            return self._schedule(pending, now_s + 4 * self.timing.look_s)
        if stamp is None or (stamp in ODDITIES and pending.offered):
            return self._miss(pending, now_s)
        if stamp in ODDITIES or (pending.stamp is None and self._is_settled(pending.path, stamp)):
            del self._open[pending.path]
            if stamp in ODDITIES:
                self._ignore(pending.path, ODDITIES[stamp], stamp, came=pending.came)
            return None
        age_s = max(0.0, self._world.wall() - stamp[1] / 1e9 - self.timing.skew_s)
        pending.see(stamp, whole, now_s, age_s, self.timing.look_s)
        ready_s = pending.ready_s(self.timing)
        if now_s < ready_s:
            return self._schedule(pending, min(ready_s, now_s + self.timing.look_s))
        self._offer(pending, pending.is_final(now_s, self.timing))
        return None

    def _stamp(self, pending: FileState) -> tuple[Stamp | None, bool]:
        """Of a pair: the sizes together and the later time, so that a change of either half is a change."""
        stamp = self._world.stamp(pending.path)
        if pending.companion is None or stamp is None or stamp in ODDITIES:
            return stamp, True
        other = self._world.stamp(pending.companion)
        if other is None or other in ODDITIES:
            return stamp, False
        return (stamp[0] + other[0], max(stamp[1], other[1])), True

    def _is_settled(self, path: str, stamp: Stamp) -> bool:
        known = self.settled.get(path)
        if known is None and event_path(path) == path and self._world.finished(path) == stamp:
            self.settled.put(path, stamp)
            self._world.curve()
            return True
        return known == stamp

    def _miss(self, pending: FileState, now_s: float) -> None:
        """It is gone. What was never offered leaves no trace; what was is offered once more, for its reason."""
        if not self._world.standing():
            self._schedule(pending, now_s + 4 * self.timing.look_s)
        elif pending.offered:
            pending.gone = True
            self._offer(pending, final=True)
        else:
            del self._open[pending.path]
            self.settled.pop(pending.path)  # should it come back, it is new

    def _offer(self, pending: FileState, final: bool) -> None:
        self.missed += not pending.hinted
        self._out += 1
        pending.out, pending.again, pending.offered = True, False, True
        self._world.offer(pending, final)

    def _schedule(self, pending: FileState, at_s: float) -> None:
        pending.due_s = at_s
        heapq.heappush(self._looks, (at_s, next(self._turn), pending))

    def _is_current(self, look: tuple[float, int, FileState]) -> bool:
        due_s, _, pending = look
        return due_s == pending.due_s and not pending.out and self._open.get(pending.path) is pending

    def defer(self, path: str, reason: str) -> None:
        """Unfinished: to be offered again."""
        pending = self._open.get(path)
        if pending is None or not pending.out:
            return
        now_s = self._world.monotonic()
        again, dest, pending.moved_to = pending.again, pending.moved_to, None
        self._out -= 1
        pending.defer(reason, now_s, self.timing)
        if dest is not None and self._transfer(pending, dest):
            self.touch(dest, closed_s=now_s)
            if again:
                self.touch(path)
        elif again:
            self.touch(path, closed_s=now_s)
        else:
            self._schedule(pending, min(pending.retry_s, now_s + self.timing.look_s))

    def settle(self, path: str, stamp: Stamp, ignored: str | None = None) -> None:
        """Decided as it was at ``stamp``, or no curve, for the reason ``ignored``.

        One last look: what changed meanwhile is new, what left is forgotten.
        """
        pending = self._open.pop(path, None)
        if pending is None:
            return
        if ignored is None:
            self._world.curve()
        elif self.settled.mark_unread(path):  # a log that grows is one file, however often it is looked into
            self._world.ignored(path, ignored, pending.came)
        now_s = self._world.monotonic()
        self._out -= pending.out
        if not pending.gone:  # what came back meanwhile has not been read
            self.settled.put(path, stamp)
        self.touch(path, closed_s=now_s if pending.again else None)
        if pending.moved_to is not None:
            self.touch(pending.moved_to, closed_s=now_s)

    def reconcile(self, listing: Listing, fresh: bool) -> None:
        """Compare one directory with what is known; ``fresh``: the folder has only now appeared."""
        files, odd = self.settled.reconcile(listing)
        for name in odd:
            self._pass_over_odd(join(listing.directory, name), came=not fresh)
        for name in files:
            path = join(listing.directory, name)
            if path not in self._open:
                self.touch(path, fresh=fresh, hinted=fresh)

    def _pass_over_odd(self, path: str, *, came: bool) -> None:
        stamp: Stamp | None = ODD
        with contextlib.suppress(OSError):
            stamp = self._world.stamp(path)
        if stamp is not None and stamp in ODDITIES:  # else it has gone, or become a file, since it was listed
            self._ignore(path, ODDITIES[stamp], stamp, came=came)

    def verify(self, path: str) -> None:
        """Touch a settled path if it is no longer as it was."""
        stamp = self.settled.get(path)
        if stamp is None or path in self._open:
            return
        with contextlib.suppress(OSError):  # cannot be told now; the next sweep may
            if self._names.is_first_half(path) or self._world.stamp(path) != stamp:
                self.touch(path)
