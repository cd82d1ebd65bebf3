"""Which mounts are listened to and which are scanned."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.formats import NAMES
from daemon.formats.names import event_path, sentinel_target
from daemon.sources.scan import mount_of

LINES = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/afm\\040share rw,relatime - cifs //scope/data rw,vers=3.0
31 22 0:41 / /mnt/ntfs rw - fuseblk /dev/sdb1 rw
32 22 0:42 / /mnt/ssh rw shared:4 master:1 - fuse.sshfs lab:/ rw
33 22 0:43 / /mnt/plain rw - tmpfs tmpfs rw
34 33 0:44 / /mnt/plain rw - nfs4 nas:/afm rw
35 22 0:45 / /data/run/deep rw - 9p hostshare rw
a line that is none
"""


@pytest.fixture
def mountinfo(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(LINES)
    return file


@pytest.mark.parametrize(
    ("folder", "fstype", "network"),
    [
        ("/home/user", "ext4", False),
        ("/mnt/afm share/today", "cifs", True),
        ("/mnt/afm sharepoint", "ext4", False),
        ("/mnt/ntfs", "fuseblk", False),
        ("/mnt/ssh/x", "fuse.sshfs", True),
        ("/mnt/plain", "nfs4", True),  # mounted over: the later one is on top
        ("/data", "9p", True),  # a share somewhere below
    ],
)
def test_shares_are_told_from_disks(mountinfo: Path, folder: str, fstype: str, network: bool) -> None:
    mount = mount_of(Path(folder), mountinfo=mountinfo)
    assert (mount.fstype, mount.network) == (fstype, network)


def test_the_user_has_the_last_word_and_no_mountinfo_is_no_trouble(mountinfo: Path) -> None:
    assert mount_of(Path("/mnt/ssh"), "local", mountinfo).network is False
    assert mount_of(Path("/home"), "network", mountinfo).network is True
    assert mount_of(Path("/home"), mountinfo=mountinfo / "missing").fstype == "unknown"
    assert mount_of(Path("/proc")).fstype == "proc"


def test_names_tell_halves_sentinels_and_temporaries() -> None:
    assert sentinel_target("a.txt.done") == "a.txt"
    assert sentinel_target(".done") is None
    assert NAMES.why_ignored("~$a.txt") == "temporary"
    assert NAMES.why_ignored("a.jpk-force.FILEPART") == "temporary"
    assert NAMES.why_ignored("a.jpk-force") is None
    assert event_path("gr\udcfcn/a") == "gr�n/a"
