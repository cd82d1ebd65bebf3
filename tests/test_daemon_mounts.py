"""Which file system a path lies on, told from the kernel's list alone; nothing that may hang is ever touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.common import mounts
from daemon.common.mounts import (
    Table,
    lacks_share,
    mount_of,
    mounts_below,
    planned_mount,
    resolve,
    watched_mount,
)

LINES = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/afm\\040share rw,relatime - cifs //scope/data rw,vers=3.0
31 22 0:41 / /mnt/ntfs rw - fuseblk /dev/sdb1 rw
32 22 0:42 / /mnt/ssh rw shared:4 master:1 - fuse.sshfs lab:/ rw
33 22 0:43 / /mnt/plain rw - tmpfs tmpfs rw
34 33 0:44 / /mnt/plain rw - nfs4 nas:/afm rw
35 22 0:45 / /data/run/deep rw - 9p hostshare rw
36 22 0:46 / /auto rw - autofs systemd-1 rw
37 22 0:47 / /hidden/share rw - cifs //scope/old rw
38 22 0:48 / /hidden rw - tmpfs tmpfs rw
39 22 0:49 / /odd\\011tab\\134back\\043hash rw - ext4 /dev/sdc1 rw
40 30 0:50 / /mnt/afm\\040share/disk rw - ext4 /dev/sdd1 rw
41 22 0:51 / /short
42 22 0:52 / /no-type rw -
nonsense x y z w v - ext4 a b
a line that is none
"""


@pytest.fixture
def mountinfo(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(LINES)
    return file


@pytest.fixture
def table(mountinfo: Path) -> Table:
    return Table.read(mountinfo)


@pytest.mark.parametrize(
    ("path", "point", "fstype", "is_network"),
    [
        ("/home/user", "/", "ext4", False),
        ("/mnt/afm share/today", "/mnt/afm share", "cifs", True),
        ("/mnt/afm share", "/mnt/afm share", "cifs", True),
        ("/mnt/afm sharepoint", "/", "ext4", False),
        ("/mnt/afm share/disk/x", "/mnt/afm share/disk", "ext4", False),
        ("/mnt/ntfs", "/mnt/ntfs", "fuseblk", False),
        ("/mnt/ssh/x", "/mnt/ssh", "fuse.sshfs", True),
        ("/mnt/plain", "/mnt/plain", "nfs4", True),  # mounted over: the later one is on top
        ("/auto/lab", "/auto", "autofs", True),  # touching it mounts a share
        ("/hidden/share/x", "/hidden", "tmpfs", False),  # the share below is no longer seen
        ("/odd\ttab\\back#hash/x", "/odd\ttab\\back#hash", "ext4", False),
        ("/", "/", "ext4", False),
    ],
)
def test_a_path_lies_on_what_is_mounted_last_on_its_way(
    table: Table, path: str, point: str, fstype: str, is_network: bool
) -> None:
    mount = table.under(path)
    assert (mount.point, mount.fstype, mount.is_network) == (point, fstype, is_network)


def test_what_is_mounted_below_is_told_unless_it_is_hidden(table: Table) -> None:
    assert [mount.point for mount in table.below("/mnt/afm share")] == ["/mnt/afm share/disk"]
    assert [mount.point for mount in table.below("/hidden")] == []
    assert [mount.id for mount in table.below("/mnt")] == [30, 31, 32, 34, 40]
    assert table.below("/data/run/deep") == ()


def test_a_share_below_makes_a_watched_folder_a_network_one_and_the_user_has_the_last_word(table: Table) -> None:
    below = watched_mount("/data", table=table)
    assert (below.point, below.fstype, below.is_network) == ("/", "9p", True)
    assert watched_mount("/mnt/ssh", "local", table).is_network is False
    assert watched_mount("/srv", "network", table).is_network is True
    assert watched_mount("/srv", table=table).is_network is False


def test_a_mount_that_is_planned_and_absent_is_named(table: Table, tmp_path: Path) -> None:
    fstab = tmp_path / "fstab"
    fstab.write_text(
        "# //x/y /home cifs ro 0 0\n/dev/sda1 / ext4 defaults 0 1\n//scope/data /mnt/afm\\040share cifs ro,nofail 0 0\n"
        "//scope/b /mnt/my\\040lab cifs ro,nofail 0 0\n//scope/c /mnt/by-hand cifs ro,noauto 0 0\nnone swap swap sw\n"
    )
    assert planned_mount("/mnt/afm share/today", table, fstab) is None
    assert planned_mount("/mnt/my lab/today", table, fstab) == "/mnt/my lab"
    assert planned_mount("/mnt/my lab", table, fstab) == "/mnt/my lab"
    for elsewhere in ("/mnt/my laboratory", "/mnt/by-hand", "/home/x", "/mnt", "/"):
        assert planned_mount(elsewhere, table, fstab) is None
    assert planned_mount("/mnt/my lab", table, tmp_path / "missing") is None


def test_a_share_that_is_said_to_be_there_and_is_not(table: Table) -> None:
    for lacking in ("/mnt/nothing", "/srv/afm", "/hidden/x", "/home/user/share"):
        assert lacks_share(lacking, table) == (lacking != "/hidden/x")  # on a file system of its own
    for there in ("/mnt/ssh/run", "/mnt/ntfs", "/mnt/ntfs/run", "/hidden"):
        assert not lacks_share(there, table)


def test_no_list_of_mounts_is_no_trouble(tmp_path: Path) -> None:
    nothing = Table.read(tmp_path / "missing")
    assert (nothing.under("/x").fstype, nothing.below("/")) == ("unknown", ())
    assert nothing.resolve("/x/../y") == "/y"


def test_this_computer_is_told_as_it_is() -> None:
    assert mount_of("/proc/self").fstype == "proc"
    assert "/proc" in {mount.point for mount in mounts_below("/")}


def test_a_network_mount_is_never_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = tmp_path.resolve()
    (real / "local").mkdir()
    (real / "local" / "inner").symlink_to(real / "share")
    (real / "link").symlink_to("local/inner/../local/inner/./run")
    lines = f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:4 / {real}/share rw - fuse.sshfs lab:/ rw\n"
    file = tmp_path / "mountinfo"
    file.write_text(lines)
    touched: list[str] = []
    readlink = os.readlink

    def note(path: str) -> str:
        touched.append(path)
        return readlink(path)

    monkeypatch.setattr(mounts.os, "readlink", note)
    found = Table.read(file).resolve(f"{real}/link/a/../b")
    assert found == f"{real}/share/run/b"
    assert touched
    assert not [path for path in touched if path.startswith(f"{real}/share")]


def test_links_are_followed_as_the_system_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "short").symlink_to("one/two")
    (tmp_path / "up").symlink_to("short/..")
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    for words in ("short", "up/two", "short/../two/./x", "dead/y", "missing/../one", ".", "", "/", "//", "/.."):
        assert resolve(words) == Path(os.path.realpath(words)), words
    (tmp_path / "round").symlink_to("round")
    assert resolve("round/x") == tmp_path.resolve() / "round" / "x"
    assert resolve("nul\0byte") == tmp_path.resolve() / "nul\0byte"


def test_a_process_in_a_folder_that_was_removed_has_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert resolve("/proc") == Path("/proc")
    assert mount_of("x").fstype
