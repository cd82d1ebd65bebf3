"""Curves in a folder, as copies of the instrument's files or links to them, whole pairs, each file once.

The folder has the order of the watched one. Its table ``curves.csv`` says what lies there: what stands in it is not
handed over again, also where somebody has thrown the file away since. A file has its name when all of it is there, and
is what was judged; where two have one name, the later lies in a folder of its own beside. Nothing is ever replaced.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from daemon.archive import Archive, BadArchive, Origin, portions, start_workers
from daemon.archive.writer import ArchiveWriter
from daemon.collect import Chosen, Content, Decimal, Table
from daemon.common.ending import Closing
from daemon.common.errors import ALREADY_RUNNING, BAD_DATA, INPUT_OUTPUT, USAGE, UserError
from daemon.common.locks import lock_where_possible
from daemon.common.mounts import resolve
from daemon.common.text import clean, first_line
from daemon.formats.afmcurve import SUFFIX
from daemon.formats.base import Blob, Unfinished, Unreadable
from daemon.labels.curve_name import sha256_of
from daemon.processes.worker_pool import WorkersBroken
from models.curve import Curve
from models.files import remove_abandoned, unfinished, write_whole

TABLE = "curves.csv"
How = Literal["copy", "link"]
#: What is wrong with one name, and not with the disk.
_OF_THE_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR)
_MOST_CLASHES = 100


class NotPlaced(Exception):
    """This curve has no place there; the text says why, and the others go on."""


class CurveFolder(Closing):
    """The target. Made when the first curve comes; raises UserError 73 while another run hands over into it."""

    def __init__(self, folder: Path, how: How, decimal: Decimal | None = None, *, is_dry: bool = False) -> None:
        self.folder, self.how, self._is_dry = folder, how, is_dry
        if folder.exists() and not folder.is_dir():
            raise UserError(USAGE, f"--{how} {folder}: is a file; name a folder")
        self.clashes: list[str] = []
        self._held: int | None = None
        self._cleared: set[Path] = set()
        if folder.is_dir() and not is_dry:
            self._hold()
        self.table = Table(folder / TABLE, decimal)
        self._place_of: dict[str, str] = {}  # by content: name below the folder
        # by name, as a disk without capital letters has it: content; a curve may be called as the table is
        self._taken = {TABLE.casefold(): ""}
        for identity, name in self.table.known.items():
            if name:
                self._note(_content_key(identity, name), name)
        link = next((name for name in self._place_of.values() if (folder / name).is_symlink()), None)
        if how == "copy" and link is not None:
            self.close()
            raise UserError(USAGE, f"--copy {folder}: holds links, like {clean(link)}; name another folder")

    def close(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def place(self, one: Chosen, content: Content) -> str:
        """Put it there, unless it is; its name below the folder. Raises NotPlaced, and UserError 74."""
        name, key = content.name(one), _content_key(one.identity, content.name(one))
        if (known := self._place_of.get(key)) is not None and os.path.lexists(self.folder / known):
            return known
        beside = Path(one.data.get("folder") or "other").name or "other"
        for number in range(1, _MOST_CLASHES):
            there = name if number == 1 else f"{beside}~{number}/{name}"
            if self._taken.get(there.casefold(), key) != key:
                continue
            if not self._is_free(one, content, self.folder / there) or not self._put(one, content, there):
                continue
            if number > 1:
                self.clashes.append(f"{one.data['path']} of {one.data.get('folder') or 'no folder'} is {there}")
            self._note(key, there)
            return there
        raise NotPlaced("its name is taken")

    def is_taken_out(self, one: Chosen) -> bool:
        """Whether it was handed over, and its file is there no more: a person has thrown it away, or moved it."""
        name = self.table.known.get(one.identity)
        return bool(name) and not os.path.lexists(self.folder / str(name))

    def save_table(self) -> None:
        """Where anything has come. Raises UserError 74."""
        if self._held is not None:
            self.table.save()

    def _note(self, key: str, name: str) -> None:
        self._place_of[key] = name
        self._taken[name.casefold()] = key

    def _is_free(self, one: Chosen, content: Content, there: Path) -> bool:
        """Whether nothing lies there, or just this curve."""
        if content.file is None:
            return not os.path.lexists(there) or (there.is_file() and there.read_bytes() == content.copy)
        if os.path.lexists(there):
            return sha256_of(there) == str(one.data["sha256"])
        other = None if content.other is None else there.with_name(content.other.name)
        return other is None or not os.path.lexists(other) or sha256_of(other) == sha256_of(content.other or other)

    def _put(self, one: Chosen, content: Content, name: str) -> bool:
        """Whether that could be, or it was there; not where a file has the name of its folder."""
        target = self.folder / name
        if self._is_dry or os.path.lexists(target):
            return True
        try:
            self._hold()
            self._make(target.parent)
            if content.file is None:
                write_whole(target, content.copy or b"")
            elif self.how == "link":
                _link(content, target)
            else:
                _copy(content, target, one.data["sha256"])
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.EEXIST):
                return False
            if error.errno in _OF_THE_NAME:
                raise NotPlaced(str(error.strerror)) from error
            raise self._trouble(error) from error
        return True

    def _make(self, folder: Path) -> None:
        """A folder below the target, also where links lie in it. UserError 64 for one that leads out of it."""
        if folder in self._cleared:
            return
        if not resolve(folder).is_relative_to(resolve(self.folder)):
            raise UserError(USAGE, f"{folder} is a link that leads out of {self.folder}: take it away, or name another")
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        self._cleared.add(folder)

    def _hold(self) -> None:
        if self._held is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._held = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            lock_where_possible(self._held)
        except BlockingIOError:
            raise UserError(ALREADY_RUNNING, f"another run is handing over into {self.folder}: wait for it") from None
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> UserError:
        if self.how == "link" and error.errno in (errno.EPERM, errno.EOPNOTSUPP):
            return UserError(INPUT_OUTPUT, f"{self.folder}: this disk takes no links; use --copy")
        what = f"{self.folder}: {error.strerror}"
        return UserError(INPUT_OUTPUT, f"{what}; what is there is whole, and the same command goes on from there")


def _content_key(identity: str, name: str) -> str:
    """Of a file its digest, for it is handed over once with all its curves; else the curve."""
    return identity if name.endswith(SUFFIX) else identity.partition("#")[0]


def _copy(content: Content, target: Path, sha256: str) -> None:
    """Of a pair both or none that is seen: the half that is read gets its name last. Raises NotPlaced."""
    assert content.file is not None
    with ExitStack() as places:  # whose files get their names from the last to the first
        fresh = places.enter_context(unfinished(target))
        _copy_file(content.file, fresh)
        other = None
        if content.other is not None:
            other = places.enter_context(unfinished(target.with_name(content.other.name)))
            _copy_file(content.other, other)
        if _digest(fresh, other) != sha256:
            raise NotPlaced("it changed while it was copied")


def _copy_file(source: Path, fresh: Path) -> None:
    """With its time: that is what a file which says no date is dated by."""
    shutil.copyfile(source, fresh)
    status = source.stat()
    os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))


def _digest(first: Path, second: Path | None = None) -> str | None:
    try:
        return Blob(first).sha256 if second is None else Blob(first).sha256_with(Blob(second))
    except (Unfinished, Unreadable):
        return None


def _link(content: Content, target: Path) -> None:
    assert content.file is not None
    if content.other is not None:
        other = target.with_name(content.other.name)
        if not os.path.lexists(other):
            other.symlink_to(content.other.absolute())
    target.symlink_to(content.file.absolute())


class CurveArchive(Closing):
    """An archive of curves that `score` reads; what is in it already stays. Raises UserError 65 for another file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = _in_archive(path) if path.exists() else frozenset()
        self._writer: ArchiveWriter | None = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def has(self, one: Chosen) -> bool:
        """Whether it is in it already."""
        return _key(one.data["sha256"], one.data["path"], one.data["curve"]) in self.known

    def add(self, one: Chosen, curve: Curve) -> None:
        """In the file after :meth:`save`. Raises UserError 74."""
        data = one.data
        origin = Origin(
            path=data["path"],
            index=data["curve"],
            curves=data["curve"] + 1,
            sha256=data["sha256"],
            size_bytes=0,
            mtime_ns=0,
            force_unit=curve.force_unit,
            acquired_s=curve.acquired_s,
        )
        with self._told():
            if self._writer is None:
                self._writer = ArchiveWriter(self.path, with_distance=True, is_added_to=self.path.exists())
            self._writer.add(origin, curve)

    def save(self) -> None:
        """All of it or nothing. Raises UserError 74."""
        with self._told():
            if self._writer is not None:
                self._writer.finish()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:  # h5py puts a page of its own into what it says
            number = getattr(error, "errno", None)
            why = os.strerror(number) if number else first_line(error)
            raise UserError(INPUT_OUTPUT, f"{self.path}: {why}; nothing was written into it") from error


def _in_archive(path: Path) -> frozenset[str]:
    """The curves that are in it, by their content where that is known."""
    try:
        with start_workers(1) as workers:
            found = [origin for one in portions([Archive.open(path, workers)]) for origin in one.origins()]
    except (BadArchive, WorkersBroken, OSError) as error:
        raise UserError(BAD_DATA, f"--archive {path}: is no archive ({error}); name another file") from None
    return frozenset(_key(origin.sha256, origin.path, origin.index) for origin in found)


def _key(sha256: str | None, path: str, curve: int) -> str:
    return f"{sha256 or path}#{curve}"
