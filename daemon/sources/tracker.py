"""The files of one folder: which are settled, which are on their way, and when to look at each next.

Used from one thread. It looks at names, sizes and times only; what a file holds is for the reader.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from daemon.formats import Names, event_path, sentinel_target
from daemon.processes.apart import Silent
from daemon.sources.file_state import FileState, Found, State, Timing
from daemon.sources.scan import ODDITIES, Listing, Stamp, join, split

#: The stamp of a name that is never looked at: temporary, unclaimed, half of a pair.
IGNORED = Stamp(-2, -2)


class KnownFiles:
    """Paths that need no look: the stamp each was settled with, by directory, so that one listing prunes one entry.

    About 400 bytes a file; what is gone from its directory is forgotten at the next listing.
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

    def names_in(self, directory: str) -> list[str]:
        """The paths in one directory that a sweep has to stat."""
        return [join(directory, name) for name, one in self._directories.get(directory, {}).items() if one != IGNORED]

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

    stamps: Callable[[Sequence[str]], Sequence[Stamp | OSError | None]]  # of relative paths; None: gone
    is_standing: Callable[[], bool]  # the folder itself is still there
    is_finished: Callable[[str, Stamp], bool]  # decided before a restart, as it is now
    offer: Callable[[FileState, bool], None]  # (file, final)
    withdraw: Callable[[FileState], bool]  # take an offer back; False: the reader has the file
    ignored: Callable[[str, str, bool], None]  # (path, reason, whether it came, or was there when the folder appeared)
    curve: Callable[[], None]  # a file of a kind that is read, decided now or before a restart
    monotonic: Callable[[], float]
    wall: Callable[[], float]


_Stamps = dict[str, Stamp | OSError | None]


class FileTracker:
    """Leads every file of a folder through its states (``daemon.sources.file_state.State``)."""

    def __init__(self, names: Names, timing: Timing, world: Surroundings) -> None:
        self.timing = timing
        self._names = names
        self._world = world
        self._open: dict[str, FileState] = {}
        self._renamed: dict[str, FileState] = {}  # by their new name, those that the reader has by an earlier one
        self.settled = KnownFiles()
        self._looks: list[tuple[float, int, FileState]] = []
        self._turn = itertools.count()
        self.missed = 0  # files offered that no hint had told of; set back by the reader of it

    def waiting(self) -> int:
        """Files that are neither decided, nor offered, nor with the reader."""
        return sum(not pending.is_out for pending in self._open.values())

    def is_reading(self) -> bool:
        """Whether a file that its name says is a curve is with the reader."""
        return any(pending.is_out and pending.claimed for pending in self._open.values())

    def oldest_s(self) -> float | None:
        """When the longest waiting of them last changed (time.monotonic()); None when nothing waits."""
        return min((pending.grown_s for pending in self._open.values() if not pending.is_out), default=None)

    def touch(
        self, path: str, found: Found = Found.HINT, closed_s: float | None = None, heard_s: float | None = None
    ) -> None:
        """Something happened at ``path``, or it was ``found``: look at it now.

        ``closed_s``: since when its writer is believed to be done with it; ``heard_s``: when it was heard to close it,
        after which nobody has looked yet.
        """
        directory, name = split(path)
        reason = self._names.why_ignored(name)
        if reason is None:
            self._touch_file(path, name, found, closed_s, heard_s)
            return
        self._ignore(path, reason, came=found is not Found.START)
        target = sentinel_target(name)
        if reason == "companion":
            first = self._first_half(directory, name)
            self._touch_file(first, name, found, closed_s, heard_s)
            if (pending := self._open.get(first)) is not None:
                pending.companion = self._second_half(directory, split(first)[1])
        elif reason == "sentinel" and target is not None:
            self._touch_target(join(directory, target), target, found)

    def _touch_target(self, path: str, name: str, found: Found) -> None:
        if self._names.why_ignored(name) is None:
            self._touch_file(path, name, found, self._world.monotonic(), is_last=True)
        else:
            self.touch(path, found, self._world.monotonic())

    def _first_half(self, directory: str, second: str) -> str:
        """The path of the first half, as it is known to be spelled, else as it usually is."""
        names = list(self._names.other_names(second))
        known = self.settled.has(directory)
        name = next((name for name in names if name in known or join(directory, name) in self._open), names[0])
        return join(directory, name)

    def _second_half(self, directory: str, first: str) -> str | None:
        """The same for the second half; None where the name is no pair's."""
        usual = next(self._names.other_names(first), None) if self._names.is_first_half(first) else None
        if usual is None:
            return None
        return join(directory, self._names.pick_other(first, self.settled.has(directory)) or usual)

    def _touch_file(
        self,
        path: str,
        half: str,
        found: Found,
        closed_s: float | None,
        heard_s: float | None = None,
        *,
        is_last: bool = False,
    ) -> None:
        pending = self._open.get(path) or self._enter(path, found)
        if found is Found.HINT and pending.found is Found.SCAN:
            pending.found = found
        if heard_s is not None:
            pending.heard_s = max(pending.heard_s, heard_s)
        if pending.is_out and not self._world.withdraw(pending):
            pending.again = True
            return
        pending.rest_s = max(pending.quiet_s, self.timing.look_s)
        if closed_s is not None:
            pending.close(half, closed_s, is_last)
        self._schedule(pending, self._world.monotonic())

    def _enter(self, path: str, found: Found) -> FileState:
        directory, name = split(path)
        self._open[path] = pending = FileState(
            path=path,
            claimed=self._names.claim(name) is True,
            companion=self._second_half(directory, name),
            quiet_s=self._names.quiet_s(name),
            is_map=self._names.is_map(name),
            found=found,
            grown_s=self._world.monotonic(),
        )
        return pending

    def _ignore(self, path: str, reason: str, stamp: Stamp = IGNORED, *, came: bool) -> None:
        if self.settled.get(path) != stamp:
            self.settled.put(path, stamp)
            self._world.ignored(path, reason, came)

    def moved(self, source: str, dest: str, at_s: float) -> None:
        """A rename inside the folder: the state goes with the file."""
        if (renamed := self._renamed.pop(source, None)) is not None:  # once more, and the reader still has it
            renamed.moved_to = dest
            self._renamed[dest] = renamed
            return
        pending = self._open.get(source)
        stamp = self.settled.pop(source)
        if pending is not None and pending.is_out and not self._world.withdraw(pending):
            pending.moved_to = dest  # the reader has it: its answer decides what becomes of the new path
            self._renamed[dest] = pending
            return
        if pending is not None:
            if not self._transfer(pending, dest):
                self._schedule(pending, self._world.monotonic())
        elif stamp is not None and dest not in self._open:
            self.settled.put(dest, stamp._replace(ctime_ns=None))  # the rename has changed it
        self.touch(dest, closed_s=at_s)

    def _transfer(self, pending: FileState, dest: str) -> bool:
        """Carry a life over to another path; False where it must end at the old one."""
        name = split(dest)[1]
        there = self._open.get(dest)
        if self._names.why_ignored(name) or pending.companion or self._names.is_first_half(name):
            return False
        if there is not None and there.offers and pending.offers:
            return False  # two offered files, one path left: each still gets its answer
        del self._open[pending.path]
        if there is not None:
            there.offers, there.counted = max(there.offers, pending.offers), there.counted or pending.counted
            pending.become(State.GONE)
            return True
        pending.path, pending.quiet_s, pending.is_map = dest, self._names.quiet_s(name), self._names.is_map(name)
        pending.claimed = pending.claimed or self._names.claim(name) is True
        if pending.stamp is not None:
            pending.stamp = pending.stamp._replace(ctime_ns=None)
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
        due: list[FileState] = []
        while len(due) < limit and (due_s := self.due_s()) is not None and due_s <= now_s:
            due.append(heapq.heappop(self._looks)[2])
            due[-1].due_s = math.inf  # until it is scheduled again
        if not due:
            return
        paths = [path for pending in due for path in (pending.path, pending.companion) if path is not None]
        stamps: _Stamps = {}
        with contextlib.suppress(Silent):  # then no stamp is known
            stamps = dict(zip(paths, self._world.stamps(paths), strict=True))
        for pending in due:
            self._look(pending, now_s, stamps)

    def _look(self, pending: FileState, now_s: float, stamps: _Stamps) -> None:
        stamp, is_whole = self._stamp(pending, stamps)
        if isinstance(stamp, OSError):  # the share is away, or listing is forbidden: neither is the end of a file
            self._schedule(pending, now_s + 4 * self.timing.look_s)
        elif stamp is None or (stamp in ODDITIES and pending.offers):
            self._miss(pending, now_s)
        elif stamp in ODDITIES:
            self._end(pending, State.GONE)
            self._ignore(pending.path, ODDITIES[stamp], stamp, came=pending.is_live)
        elif pending.stamp is None and self._is_settled(pending, stamp):
            self._end(pending, State.DECIDED)
        else:
            age_s = max(0.0, self._world.wall() - stamp.mtime_ns / 1e9 - self.timing.skew_s)
            pending.see(stamp, now_s, age_s, self.timing.look_s)
            ready_s = pending.ready_s(self.timing, is_whole)
            if now_s < ready_s:
                self._schedule(pending, min(ready_s, now_s + self.timing.look_s))
            else:
                if not is_whole:
                    pending.companion = None
                self._offer(pending, is_final=pending.is_final(now_s, self.timing, is_whole))

    def _stamp(self, pending: FileState, stamps: _Stamps) -> tuple[Stamp | OSError | None, bool]:
        """Of a pair: the sizes together and the later times, so that a change of either half is a change."""
        unknown = OSError("not asked")
        stamp = stamps.get(pending.path, unknown)
        if pending.companion is None or not isinstance(stamp, Stamp) or stamp in ODDITIES:
            return stamp, True
        other = stamps.get(pending.companion, unknown)
        if isinstance(other, OSError):
            return other, False
        if other is None or other in ODDITIES:
            return stamp, False
        ctimes_ns = (stamp.ctime_ns, other.ctime_ns)
        return (
            Stamp(
                stamp.size_bytes + other.size_bytes,
                max(stamp.mtime_ns, other.mtime_ns),
                None if None in ctimes_ns else max(ctime_ns for ctime_ns in ctimes_ns if ctime_ns is not None),
                stamp.inode ^ other.inode,
                stamp.looked_s,
            ),
            True,
        )

    def _is_settled(self, pending: FileState, stamp: Stamp) -> bool:
        """Whether it is as it was when it was decided, and nobody was heard to close it since."""
        path = pending.path
        known = self.settled.get(path)
        if known is None and event_path(path) == path and self._world.is_finished(path, stamp):
            if pending.heard_s > -math.inf:
                return False
            self.settled.put(path, stamp)
            self._world.curve()
            return True
        if known is None or not stamp.is_same(known) or pending.heard_s > known.looked_s:
            return False
        if known.ctime_ns is None:
            self.settled.put(path, stamp._replace(looked_s=known.looked_s))
        return True

    def _miss(self, pending: FileState, now_s: float) -> None:
        """It is gone. What was never offered leaves no trace; what was, and was not renamed, is offered once more."""
        if not pending.offers:
            self._end(pending, State.GONE)
            self.settled.pop(pending.path)  # should it come back, it is new
            return
        if pending.missed_s is None:
            pending.missed_s = now_s
        if now_s < pending.missed_s + self.timing.rename_s:
            self._schedule(pending, now_s + self.timing.look_s)
        elif self._world.is_standing():
            pending.stamp = None  # nothing that comes back is as it was
            self._offer(pending, is_final=True)
        else:
            self._schedule(pending, now_s + 4 * self.timing.look_s)

    def _end(self, pending: FileState, state: State) -> None:
        pending.become(state)
        del self._open[pending.path]

    def _offer(self, pending: FileState, *, is_final: bool) -> None:
        self.missed += pending.found is Found.SCAN
        pending.again = False
        pending.offers += 1
        self._world.offer(pending, is_final)

    def _schedule(self, pending: FileState, at_s: float) -> None:
        pending.due_s = at_s
        heapq.heappush(self._looks, (at_s, next(self._turn), pending))

    def _is_current(self, look: tuple[float, int, FileState]) -> bool:
        due_s, _, pending = look
        return due_s == pending.due_s and not pending.is_out and self._open.get(pending.path) is pending

    def defer(self, path: str, reason: str) -> None:
        """Unfinished: to be offered again."""
        pending = self._open.get(path)
        if pending is None or pending.state is not State.READING:
            return
        now_s = self._world.monotonic()
        again, dest, pending.moved_to = pending.again, pending.moved_to, None
        self._renamed.pop(dest or "", None)
        pending.defer(reason, now_s, self.timing)
        if dest is not None and self._transfer(pending, dest):
            self.touch(dest, closed_s=now_s)
            if again:
                self.touch(path)
        elif again:
            self.touch(path, closed_s=now_s)
        else:
            again_s = pending.refusal.again_s if pending.refusal else now_s
            self._schedule(pending, min(again_s, now_s + self.timing.look_s))

    def settle(self, path: str, stamp: Stamp | None, ignored: str | None = None) -> None:
        """Decided as it was at ``stamp`` (None: it had vanished), or no curve, for the reason ``ignored``.

        One last look: what changed meanwhile is new, what left is forgotten.
        """
        pending = self._open.get(path)
        if pending is None or pending.state is not State.READING:
            return
        self._end(pending, State.DECIDED)
        self._renamed.pop(pending.moved_to or "", None)
        if ignored is None:
            self._world.curve()
        elif self.settled.mark_unread(path):  # a log that grows is one file, however often it is looked into
            self._world.ignored(path, ignored, pending.is_live)
        now_s = self._world.monotonic()
        if stamp is not None:  # what came back meanwhile has not been read
            self.settled.put(path, stamp)
        heard_s = pending.heard_s if pending.heard_s > -math.inf else None
        self.touch(path, closed_s=now_s if pending.again else None, heard_s=heard_s)
        if pending.moved_to is not None:
            self.touch(pending.moved_to, closed_s=now_s)

    def reconcile(self, listing: Listing, found: Found) -> None:
        """Compare one directory with what is known, and note what is new in it as ``found``."""
        files, odd = self.settled.reconcile(listing)
        if odd:
            self._pass_over_odd([join(listing.directory, name) for name in odd], came=found is not Found.START)
        for name in files:
            path = join(listing.directory, name)
            if path not in self._open:
                self.touch(path, found)
        if listing.is_other:  # another directory has taken the name, and the names in it may be the same
            self.verify(self.settled.names_in(listing.directory))

    def _pass_over_odd(self, paths: list[str], *, came: bool) -> None:
        for path, stamp in zip(paths, self._world.stamps(paths), strict=True):
            if isinstance(stamp, Stamp) and stamp in ODDITIES:  # else it has gone, or become a file, since
                self._ignore(path, ODDITIES[stamp], stamp, came=came)

    def verify(self, paths: Sequence[str]) -> None:
        """Touch those of these settled paths that are no longer as they were. Raises Silent."""
        known = {path: stamp for path in paths if path not in self._open and (stamp := self.settled.get(path))}
        for path, now in zip(known, self._world.stamps(list(known)), strict=True):
            if isinstance(now, OSError):  # cannot be told now; the next sweep may
                continue
            if self._names.is_first_half(path) or now is None or not now.is_same(known[path]):
                self.touch(path, Found.SCAN)
