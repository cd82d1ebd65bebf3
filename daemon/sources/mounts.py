"""What a watched folder lies on: inotify hears only what this machine writes, so shares must be scanned."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

MountSetting = Literal["auto", "local", "network"]

#: File systems whose changes are made elsewhere; inotify stays silent about them.
NETWORK = frozenset(
    {"cifs", "smb3", "smbfs", "nfs", "nfs4", "9p", "vboxsf", "virtiofs", "drvfs", "afs", "ceph", "lustre"}
    | {"gpfs", "beegfs", "ncpfs", "prl_fs", "vmhgfs", "coda"}
)
_MOUNTINFO = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Mount:
    """The file system under a folder."""

    fstype: str  # "ext4", "cifs", …; "unknown" where the system does not say
    network: bool  # scan only, no inotify


def mount_of(folder: Path, setting: MountSetting = "auto", mountinfo: Path = _MOUNTINFO) -> Mount:
    """The mount under ``folder``; a share mounted anywhere below it makes it a network folder too.

    ``setting`` other than "auto" overrules what the system says. Never raises.
    """
    try:
        mounts = list(_parse(mountinfo.read_text("utf-8", "surrogateescape").splitlines()))
    except OSError:
        mounts = []
    real = os.path.realpath(folder)
    above = [(point, fstype) for point, fstype in mounts if _holds(point, real)]
    # Of two mounts on one point the later one is on top.
    fstype = max(enumerate(above), key=lambda item: (len(item[1][0]), item[0]))[1][1] if above else "unknown"
    below = [kind for point, kind in mounts if _holds(real, point) and _is_network(kind)]
    if setting != "auto":
        return Mount(fstype, setting == "network")
    return Mount(below[0], True) if below else Mount(fstype, _is_network(fstype))


def _is_network(fstype: str) -> bool:
    # fuseblk is a local disk (NTFS); fuse.sshfs, fuse.rclone and their like are not.
    return fstype in NETWORK or fstype.startswith("fuse.") or fstype == "fuse"


def _holds(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _parse(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    """(mount point, type) of each line of proc(5) mountinfo: optional fields end at a lone dash."""
    for line in lines:
        words = line.split(" ")
        if "-" in words[6:]:
            dash = words.index("-", 6)
            if len(words) > dash + 1 and len(words) > 4:
                yield _unescape(words[4]), words[dash + 1]


def _unescape(word: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, character)
    return word
