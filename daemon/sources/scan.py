"""The truth about a folder: an own listing, names first, a stat only where one is asked for, and whether it is there.

What lies on a share is looked at by a child process, so that a server that hangs holds up nothing of the service.
``python -m daemon.sources.scan FD`` is that child.

A folder is there while it is still the one that it was: by its identity, and by the mounts it lies on. A share that
goes away leaves its empty mount point behind, which looks like a quiet night. So what was mounted and is not any more
is told, as is what the configuration calls a share and is none.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from daemon.common.mounts import Mount, MountSetting, Table, is_network, lacks_share, watched_mount
from daemon.processes.apart import Asker, Question, Silent, serve
from models.clock import time_of_day


class Stamp(NamedTuple):
    """What tells one content of a path from another without opening it."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int | None = None  # None and 0: not known, or nothing to go by on this file system
    inode: int = 0
    looked_s: float = 0.0  # time.monotonic() of the look

    def is_older_than(self, looked_ns: int) -> bool:
        """Whether nothing can have been written after that time (time.time_ns()) without its showing.

        On a clock of whole seconds what is written within the same second does not show.
        """
        if self.ctime_ns is None:  # only the time of the measurement is known, which may be any
            return self.mtime_ns % _SECOND_NS != 0 or abs(self.mtime_ns - looked_ns) >= _COARSE_NS
        return self.ctime_ns + (_COARSE_NS if self.ctime_ns % _SECOND_NS == 0 else 0) <= looked_ns

    def is_same(self, other: Stamp | None) -> bool:
        """Whether nothing says that the content is another one."""
        if other is None or self[:2] != other[:2]:
            return False
        is_dated = self.ctime_ns is not None and other.ctime_ns is not None
        is_numbered = bool(self.inode and other.inode)
        return not (is_dated and self.ctime_ns != other.ctime_ns) and not (is_numbered and self.inode != other.inode)


#: The stamps of what is not a regular file, and why it is passed over: pipes, sockets and devices are no curves; a link
#: could lead anywhere, also round in circles.
ODD = Stamp(-1, -1)
LINK = Stamp(-1, -2)
ODDITIES = {ODD: "not_regular", LINK: "link"}
#: Times are kept as the ledger keeps them, in 64 bits. NTFS says 1601 where it has no time, a lost clock anything.
_EARLIEST_NS, _LATEST_NS = -(2**63), 2**63 - 1
#: What operating systems and sync tools keep for themselves: old versions and deleted files.
_FOREIGN = frozenset(
    {"$RECYCLE.BIN", "System Volume Information", "lost+found", ".stversions", ".stfolder", ".snapshot", ".zfs"}
    | {"@eaDir", "#recycle", "#snapshot"}
)
_Answer = TypeVar("_Answer")
_SECOND_NS = 10**9
_COARSE_NS = 2 * _SECOND_NS  # FAT's clock ticks every second second
_SAME_S = 3.0  # a folder's time may tick in steps of two seconds: until then the same time may hide a change
_LIMIT_S = 6.0  # for an answer, or a part of one
_GIVE_UP_S = 60.0  # then a silent child is killed; the kernel may hold it until the share is back
_SLOW_S = 3.0  # a call on a local disk that took longer: from then on it is not trusted
_FOLDERS = 50  # listed together


@dataclass(frozen=True, slots=True)
class Listing:
    """One directory: names of regular files, names of odd things, or why it could not be listed."""

    directory: str  # relative to the root, "" is the root itself
    files: frozenset[str] = frozenset()
    odd: frozenset[str] = frozenset()
    error: OSError | None = None
    is_unchanged: bool = False  # since it was listed last: then nothing is told
    is_other: bool = False  # another directory had this name then


class Lister:
    """Lists directories, and remembers their times: what has not changed is not listed again unless asked for.

    About 1 µs a name: 50,000 files cost some 60 ms; an unchanged directory costs one stat.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[tuple[int, int, int], float, float, list[str]]] = {}

    def list(self, root: str, directory: str, in_full: bool) -> list[Any]:
        """[files or None where nothing has changed, odd things, directories, whether it is another one, errno]."""
        path = join(root, directory)
        try:
            found = os.stat(path)
            mark, now_s = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns), time.monotonic()
            before = self._seen.get(path)
            is_other = before is not None and before[0][0] != mark[0]
            since_s = before[1] if before is not None and before[0] == mark else now_s
            if before is not None and before[0] == mark and not in_full and before[2] - before[1] >= _SAME_S:
                return [None, [], before[3], False, 0]
            files, odd, inner = _entries(path)
        except OSError as error:
            self._seen.pop(path, None)
            return [[], [], [], False, error.errno]
        self._seen[path] = (mark, since_s, now_s, inner)
        return [files, odd, inner, is_other, 0]


def _entries(path: str) -> tuple[list[str], list[str], list[str]]:
    files, odd, inner = [], [], []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                files.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                if entry.name not in _FOREIGN and not entry.name.startswith(".Trash"):
                    inner.append(entry.name)
            else:
                odd.append(entry.name)
    return files, odd, inner


def walk(root: str, below: str = "") -> Iterator[Listing]:
    """As :meth:`Eyes.walk`, from this thread."""
    return Eyes(root).walk(below)


def stamp_of(path: str) -> Stamp | None:
    """The stamp of the file itself (links not followed), or one of ``ODDITIES``; None: it is gone.

    Raises OSError when the question cannot be answered now (share away, no permission on the folder).
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(found.st_mode):
        return LINK if stat.S_ISLNK(found.st_mode) else ODD
    mtime_ns = min(max(found.st_mtime_ns, _EARLIEST_NS), _LATEST_NS)
    return Stamp(found.st_size, mtime_ns, found.st_ctime_ns, found.st_ino, time.monotonic())


def identity_of(root: str) -> tuple[int, int]:
    """(device, inode) of a folder; its file system is asked for its size, which no cache answers.

    Raises OSError where there is none.
    """
    found = os.stat(root)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    os.statvfs(root)
    return found.st_dev, found.st_ino


class Eyes:
    """Looks at one folder: from this thread, or (``is_apart``) through a child, where it lies on what may hang.

    Every question raises Silent while the child does not answer.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._lister = Lister()
        self._asker = Asker("daemon.sources.scan")
        self._asked_s: float | None = None  # time.monotonic() of the question that is not answered
        self._has_inodes = self._has_ctime = True
        self.is_apart = False

    def place(self, mount: Mount) -> None:
        """What the folder lies on now. Whatever hung on what was there before is left behind."""
        if self._asked_s is not None:
            self._asker.abandon()
            self._asked_s = None
        is_fuse, is_share = mount.fstype.startswith("fuse"), mount.is_network or is_network(mount.fstype)
        self.is_apart = is_fuse or is_share
        self._has_inodes = not is_share  # some shares make them up anew
        self._has_ctime = not (is_fuse and is_share)

    @property
    def silent_s(self) -> float:
        """For how long a question has been waiting for its answer, once that is longer than is usual; else 0."""
        asked_s = self._asked_s
        waited_s = 0.0 if asked_s is None else time.monotonic() - asked_s
        return waited_s if waited_s >= _LIMIT_S else 0.0

    @property
    def is_silent(self) -> bool:
        """Whether the child has not answered in time: then nothing can be asked."""
        return self._asker.is_silent

    def look(self) -> bool:
        """After silence: whether somebody answers again. Kills a child that has been silent for very long."""
        if self._asker.look():
            self._asked_s = None
        elif self.silent_s > _GIVE_UP_S:
            self._asker.kill()
        return not self.is_silent

    def identity(self) -> tuple[int, int]:
        """(device, inode) of the folder. Raises OSError where there is none, Silent where nobody says."""
        if not self.is_apart:
            return self._timed(lambda: identity_of(self._root))
        ((device, inode, failed),) = self._ask("identity", [self._root])
        if failed:
            raise OSError(failed, os.strerror(failed))
        return device, inode

    def stamps(self, paths: Sequence[str]) -> list[Stamp | OSError | None]:
        """The stamp of each path, None where it is gone, an OSError where that cannot be told now."""
        full = [join(self._root, path) for path in paths]
        if self.is_apart:
            return [self._stamp(found) for found in self._ask("stamps", full)]
        return self._timed(lambda: [self._stamp(found) for found in _stamps(full)])

    def walk(self, below: str = "", in_full: bool = True) -> Iterator[Listing]:
        """List ``below`` and everything under it, one directory at a time, so that other questions can come between.

        Links are not followed. Errors come as listings, never as exceptions, but for Silent.
        """
        waiting = [below]
        while waiting:
            portion, waiting = waiting[-_FOLDERS:], waiting[:-_FOLDERS]
            asked = [(self._root, directory, in_full) for directory in portion]
            for directory, answer in zip(portion, self._list(asked), strict=True):
                files, odd, inner, is_other, failed = answer
                error = OSError(failed, os.strerror(failed)) if failed else None
                names = frozenset(files or ()), frozenset(odd)
                yield Listing(directory, *names, error, files is None, is_other and self._has_inodes)
                waiting += [join(directory, name) for name in inner]

    def end(self) -> None:
        """End the child; from any thread."""
        self._asker.end()

    def _list(self, asked: Sequence[tuple[str, str, bool]]) -> list[Any]:
        if self.is_apart:
            return self._ask("list", asked, _GIVE_UP_S)  # a large folder far away takes its time
        return self._timed(lambda: [self._lister.list(*one) for one in asked])

    def _stamp(self, found: Sequence[Any]) -> Stamp | OSError | None:
        if len(found) == 1:
            return OSError(found[0], os.strerror(found[0])) if found[0] else None
        stamp = Stamp(*found)
        if stamp in ODDITIES:
            return stamp
        ctime_ns = stamp.ctime_ns if self._has_ctime else None
        return stamp._replace(ctime_ns=ctime_ns, inode=stamp.inode if self._has_inodes else 0)

    def _ask(self, word: str, what: Sequence[Any], limit_s: float = _LIMIT_S) -> list[Any]:
        if not self._asker.is_silent:
            self._asked_s = time.monotonic()
        answers = list(self._asker.ask(word, what, limit_s))
        self._asked_s = None
        return answers

    def _timed(self, call: Callable[[], _Answer]) -> _Answer:
        begun_s = time.monotonic()
        try:
            return call()
        finally:
            self.is_apart = time.monotonic() - begun_s > _SLOW_S  # it is not trusted any more


def _stamps(paths: Iterable[str]) -> Iterator[Sequence[Any]]:
    """Stamps; of a path that is gone (0,), of one that cannot be asked for its errno."""
    for path in paths:
        try:
            yield stamp_of(path) or (0,)
        except OSError as error:
            yield (error.errno,)


def _identities(roots: Iterable[str]) -> Iterator[tuple[int, int, int]]:
    for root in roots:
        try:
            yield *identity_of(root), 0
        except OSError as error:
            yield 0, 0, error.errno or errno.EIO


def join(directory: str, name: str) -> str:
    """Relative path of ``name`` in ``directory``; either may be empty."""
    return f"{directory}/{name}" if directory and name else directory or name


def split(path: str) -> tuple[str, str]:
    """The inverse of ``join``: (directory, name)."""
    directory, _, name = path.rpartition("/")
    return directory, name


def _main(descriptor: int) -> None:
    lister = Lister()
    questions: dict[str, Question] = {"identity": _identities, "stamps": _stamps}
    serve(descriptor, {**questions, "list": lambda asked: (lister.list(*one) for one in asked)})


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


if __name__ == "__main__":
    _main(int(sys.argv[1]))
