"""Mounts: which file system a path lies on, by the kernel's own list alone.

Whatever touches a share that does not answer hangs in the kernel, past every deadline and signal. So nothing here does:
only /proc/self/mountinfo is read, and links on local disks. Whoever must touch a share asks a child process.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

MountSetting = Literal["auto", "local", "network"]

#: File systems whose changes are made elsewhere: inotify stays silent about them, and they may not answer at all.
NETWORK = frozenset(
    {"cifs", "smb3", "smbfs", "nfs", "nfs4", "9p", "vboxsf", "virtiofs", "drvfs", "afs", "ceph", "lustre"}
    | {"gpfs", "beegfs", "ncpfs", "prl_fs", "vmhgfs", "coda"}
    | {"autofs"}  # mounts a share at the first touch, and waits for its server
)
#: A mount that holds one of these is the system's own: what lies on it lies on no share.
_SYSTEM = ("/", "/home", "/root", "/mnt", "/media", "/srv", "/run", "/tmp", "/var", "/dev/shm")
_MOUNTINFO, _FSTAB = Path("/proc/self/mountinfo"), Path("/etc/fstab")
_MOST_LINKS = 40  # on one path, as in the kernel; more go round in circles


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system."""

    point: str  # absolute
    fstype: str  # "ext4", "cifs", …; "unknown" where the system does not say
    is_network: bool  # scan only, no inotify; touched only in a child process
    id: int = 0  # of the kernel, which gives it away again after an unmount


@dataclass(frozen=True)
class Table:
    """All mounts of one moment, in the kernel's order; each with the number of the mount that it lies in."""

    mounts: tuple[tuple[Mount, int], ...]

    @classmethod
    def read(cls, mountinfo: Path = _MOUNTINFO) -> Table:
        """Never raises: without the kernel's list there are no mounts, and all is taken for local."""
        try:
            lines = mountinfo.read_bytes().splitlines()
        except OSError:
            lines = []
        return cls(tuple(found for line in lines if (found := _parse(line))))

    def under(self, real: str) -> Mount:
        """What a path without links lies on: what is mounted over is not seen, as for everybody else."""
        found = Mount("/", "unknown", is_network=False)
        for _ in self.mounts:  # at most so deep do they lie in each other
            if (inner := self._in(found.id, real)) is None:
                break
            found = inner
        return found

    def below(self, real: str) -> tuple[Mount, ...]:
        """Every mount that is seen deeper than ``real``."""
        deeper = (mount for mount, _ in self.mounts if mount.point != real and holds(real, mount.point))
        return tuple(mount for mount in deeper if self.under(mount.point) == mount)

    def resolve(self, path: str | Path) -> str:
        """``path`` absolute and without links, as far as that can be told without touching a network mount.

        What lies on one is taken by its words. Never raises, and never waits.
        """
        done, waiting, links = "/", _words(_absolute(path)), 0
        while waiting:
            word = waiting.pop()
            if word == "..":
                done = os.path.dirname(done)
                continue
            here = os.path.join(done, word)
            target = None if links >= _MOST_LINKS or self.under(here).is_network else _link(here)
            if target is None:
                done = here
            else:
                links += 1
                done = "/" if target.startswith("/") else done
                waiting += _words(target)
        return done

    def _in(self, outer: int, real: str) -> Mount | None:
        """The mount, directly in the mount ``outer``, that one comes upon first on the way to ``real``."""
        met = [mount for mount in self._inside.get(outer, ()) if holds(mount.point, real)]
        # Of two on one point the later one is on top.
        return max(enumerate(met), key=lambda item: (-len(item[1].point), item[0]))[1] if met else None

    @cached_property
    def _inside(self) -> dict[int, list[Mount]]:
        """By the number of the outer mount; 0: of none that is listed."""
        listed = {mount.id for mount, _ in self.mounts}
        inside: dict[int, list[Mount]] = {}
        for mount, outer in self.mounts:
            inside.setdefault(outer if outer in listed and outer != mount.id else 0, []).append(mount)
        return inside


def mount_of(path: str | Path) -> Mount:
    """The mount that ``path`` (also one that is not there) lies on. Never raises, and never waits."""
    table = Table.read()
    return table.under(table.resolve(path))


def mounts_below(path: str | Path) -> tuple[Mount, ...]:
    """Every mount deeper than ``path``."""
    table = Table.read()
    return table.below(table.resolve(path))


def resolve(path: str | Path) -> Path:
    """As ``Path.resolve``, but a network mount is not touched: what lies on one is taken by its words."""
    return Path(Table.read().resolve(path))


def local(path: str | Path) -> Path | None:
    """``path`` without links where it may be touched without fear; None where it lies on a network mount."""
    table = Table.read()
    real = table.resolve(path)
    return None if table.under(real).is_network else Path(real)


def watched_mount(folder: str | Path, setting: MountSetting = "auto", table: Table | None = None) -> Mount:
    """The mount of a watched folder; a share mounted anywhere below makes it a network folder too.

    ``setting`` other than "auto" overrules what the system says.
    """
    table = table or Table.read()
    real = table.resolve(folder)
    mount = table.under(real)
    if setting != "auto":
        return replace(mount, is_network=setting == "network")
    shares = [inner for inner in table.below(real) if inner.is_network]
    return replace(mount, fstype=shares[0].fstype, is_network=True) if shares else mount


def lacks_share(folder: str | Path, table: Table | None = None) -> bool:
    """Whether nothing is mounted for a folder that is said to lie on a share: it is the bare mount point, or less."""
    table = table or Table.read()
    real = table.resolve(folder)
    mount = table.under(real)
    is_on_system = any(holds(mount.point, one) for one in _SYSTEM)
    return mount.point != real and not mount.is_network and is_on_system


def planned_mount(folder: str | Path, table: Table | None = None, fstab: Path = _FSTAB) -> str | None:
    """The mount point, of a folder or above it, that /etc/fstab names and where nothing is mounted; else None.

    With ``nofail`` a computer starts so. Never raises.
    """
    table = table or Table.read()
    real = table.resolve(folder)
    try:
        lines = fstab.read_bytes().splitlines()
    except OSError:
        return None
    entries = (line.split() for line in lines if not line.lstrip().startswith(b"#"))
    points = [_unescape(words[1]) for words in entries if len(words) >= 4 and b"noauto" not in words[3].split(b",")]
    wanted = (point for point in points if point.startswith("/") and point != "/" and holds(point, real))
    return next((point for point in wanted if table.under(point).point != point.rstrip("/")), None)


def is_network(fstype: str) -> bool:
    """Whether a file system of this type may stay silent about changes, and may not answer."""
    # fuseblk is a local disk (NTFS); fuse.sshfs, fuse.rclone and their like are not.
    return fstype in NETWORK or fstype.startswith("fuse.") or fstype == "fuse"


def holds(outer: str, inner: str) -> bool:
    """Whether ``inner`` is ``outer`` or lies in it; both absolute."""
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _parse(line: bytes) -> tuple[Mount, int] | None:
    """A line of proc(5) mountinfo: optional fields end at a lone dash."""
    words = line.split(b" ")
    if b"-" not in words[6:] or not words[0].isdigit() or not words[1].isdigit():
        return None
    fstype = b"".join(words[words.index(b"-", 6) + 1 :][:1]).decode("ascii", "replace")
    return Mount(_unescape(words[4]), fstype, is_network(fstype), int(words[0])), int(words[1])


def _unescape(word: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8) & 0xFF]), word))


def _absolute(path: str | Path) -> str:
    try:
        return os.path.join(os.getcwd(), path)
    except OSError:  # the folder that this process stands in was removed
        return os.path.join("/", path)


def _words(path: str) -> list[str]:
    """The parts of a path, the last one first."""
    return [word for word in reversed(path.split("/")) if word not in ("", ".")]


def _link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except (OSError, ValueError):  # no link, nothing there, no permission, or no path at all
        return None
