"""`pack --cluster`: nodes read, and the archive is byte for byte the one that `pack` writes alone."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from makers import a_retract, make_jpk, make_jpk_map

from daemon import blocks
from daemon.archive import Origin, writer
from daemon.archive.writer import RowsInOrder, pack_row, unpack_row
from daemon.cli import main
from models.simulate import simulate

REAL = Path(__file__).resolve().parents[1] / "daemon" / "curves"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """Real curves of every format, maps, a curve of many pieces, what cannot be read, and what is none."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(REAL, folder / "real")
    (folder / "map.jpk-force-map").write_bytes(make_jpk_map(100, points=4000))
    (folder / "more.jpk-force-map").write_bytes(make_jpk_map(40, points=128))
    (folder / "long.jpk-force").write_bytes(make_jpk(*a_retract(100_000)))
    (folder / "broken.jpk-force").write_bytes(b"PK\x03\x04 no more")
    (folder / "notes.txt").write_text("Tip 3 was lost at noon.\n")
    (folder / os.fsdecode(b"caf\xe9.jpk-force")).write_bytes(make_jpk(*a_retract(256)))
    return folder


@pytest.fixture(scope="module")
def ray_here(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """A Ray of two cores, which asks for no token though one lies at home: its address, and its folder."""
    pytest.importorskip("ray")
    import ray

    from daemon.blocks.node import Connection

    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("0" * 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        connection = Connection("local")
    with connection:
        address = ray.get_runtime_context().gcs_address
        ray.shutdown()  # the verb makes a connection of its own
        assert connection._folder is not None
        yield address, str(connection._folder.path)


@pytest.fixture
def two_seats(ray_here, monkeypatch) -> tuple[str, str]:
    """Of which each has a core, and small blocks in its hands, hardly ahead of what is taken."""
    from daemon.blocks import cluster

    monkeypatch.setattr(cluster, "GROUP_CORES", 1)
    monkeypatch.setattr(cluster, "_MOST_PIECES", 1)
    monkeypatch.setattr(blocks, "_FIRST_FILES", 2)
    return ray_here


@pytest.mark.faults
def test_an_archive_that_nodes_have_read_is_the_one_of_a_single_computer(lab, two_seats, tmp_path, capsys):
    alone, together = tmp_path / "alone.h5", tmp_path / "together.h5"
    assert main(["pack", str(lab), "--out", str(alone), "--distance"]) == 0
    said = capsys.readouterr()
    assert main(["pack", str(lab), "--out", str(together), "--distance", "--cluster", two_seats[0]]) == 0
    assert together.read_bytes() == alone.read_bytes()
    told = capsys.readouterr()
    assert (told.out.replace("together", "alone"), told.err) == said
    assert sorted(tmp_path.iterdir()) == [alone, together]


@pytest.mark.faults
def test_a_node_that_is_killed_midway_changes_no_byte(lab, two_seats, tmp_path, capsys, monkeypatch):
    alone, together = tmp_path / "alone.h5", tmp_path / "together.h5"
    assert main(["pack", str(lab), "--out", str(alone)]) == 0
    killed: list[int] = []

    def kill_at_the_map(content: bytes):
        origin, curve = unpack_row(content)
        if origin.path == "map.jpk-force-map" and not killed:
            killed.extend(seats_of(two_seats[1]))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        return origin, curve

    monkeypatch.setattr(writer, "unpack_row", kill_at_the_map)
    assert main(["pack", str(lab), "--out", str(together), "--cluster", two_seats[0]]) == 0
    assert killed
    assert "was lost at" in capsys.readouterr().err
    assert together.read_bytes() == alone.read_bytes()


#: A node that has a folder of its own until somebody kills it.
_LIVING = """
import sys
from daemon.blocks.node import OwnFolder
own = OwnFolder(sys.argv[1])
print(own.path, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_one_has_left_goes_with_the_next_and_the_living_keep_theirs(ray_here, tmp_path):
    from daemon.blocks.node import OwnFolder

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "afm-node-link").symlink_to(tmp_path / "elsewhere")
    command = [sys.executable, "-c", _LIVING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living:
        assert living.stdout is not None
        left = Path(living.stdout.readline().strip())
        (left / "session" / "logs").mkdir(parents=True)
        with OwnFolder(str(tmp_path)):
            assert left.is_dir()
        living.kill()
    assert left.is_dir()
    with OwnFolder(str(tmp_path)) as own:
        assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "afm-node-link", tmp_path / "elsewhere", own.path])
    with OwnFolder("/tmp"):
        assert (Path(ray_here[1]) / "start.log").exists()


def seats_of(folder: str) -> list[int]:
    """The processes of the seats of the Ray that has this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            is_ours = folder.encode() in Path("/proc", parent, "cmdline").read_bytes()
            if is_ours and (process / "cmdline").read_bytes().startswith(b"ray::Node"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@contextmanager
def hardly_any_room() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.faults
def test_a_full_disk_is_one_line_and_leaves_nothing(lab, two_seats, tmp_path, capsys):
    with hardly_any_room():
        assert main(["pack", str(lab), "--out", str(tmp_path / "a.h5"), "--cluster", two_seats[0]]) == 74
    assert capsys.readouterr().err.splitlines()[-1].endswith("a.h5: File too large; nothing was written")
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_for_what_waits_is_told(tmp_path):
    with hardly_any_room(), RowsInOrder(tmp_path) as rows, pytest.raises(OSError, match="File too large"):
        list(rows.add(1, [bytes(60_000), bytes(60_000)], is_last=True))


def test_what_cannot_be_is_told_in_one_line(lab, tmp_path, capsys):
    pytest.importorskip("ray")
    for code, words, why in [
        (64, ["--simulate", "3", "--cluster", "local"], "not for --simulate"),
        (64, [str(lab), "--cluster", "local", "--patience", "0"], "above 0"),
        (65, [str(tmp_path / "nothing"), "--cluster", "local"], "no such file"),
        (69, [str(lab), "--cluster", "127.0.0.1:1"], "no Ray answers there"),
    ]:
        assert main(["pack", "--out", str(tmp_path / "a.h5"), *words]) == code, words
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line
    assert not list(tmp_path.iterdir())


def test_rows_come_in_the_order_of_their_blocks_whichever_is_read_first(tmp_path):
    with RowsInOrder(tmp_path) as rows:

        def add(number: int, *content: bytes, is_last: bool = False) -> list[bytes]:
            return list(rows.add(number, content, is_last=is_last))

        assert add(1, b"c", b"") == []
        assert add(3, b"f", is_last=True) == []
        assert not list(tmp_path.iterdir())  # its files have no name
        assert add(0, b"a") == [b"a"]
        assert add(2, is_last=True) == []
        assert add(0, b"b", is_last=True) == [b"b", b"c", b""]
        assert add(1, b"d") == [b"d"]
        assert add(1, b"e", is_last=True) == [b"e", b"f"]
        assert add(4, b"g") == [b"g"]


def test_a_row_travels_whole_and_what_is_none_is_refused():
    (one,) = simulate(1, 1)
    origin = Origin("caf\udce9.jpk-force", 2, 3, "ab" * 32, 10, 20, one.curve.force_unit)
    content = pack_row(origin, one.curve, with_distance=True)
    there, curve = unpack_row(content)
    assert there == origin
    assert curve is not None
    assert np.array_equal(curve.force, one.curve.force)
    assert np.array_equal(curve.distance, one.curve.distance)
    (_, without) = unpack_row(pack_row(origin, one.curve, with_distance=False))
    assert without is not None
    assert without.distance is None
    unread = replace(origin, reason="unreadable", force_unit=None)
    assert unpack_row(pack_row(unread, None, with_distance=True)) == (unread, None)
    for wrong in (
        content[:-1],
        b"no",
        pack_row(origin, None, with_distance=True),
        pack_row(unread, one.curve, with_distance=True),
        content.replace(msgspec.msgpack.encode(one.curve.force_unit), msgspec.msgpack.encode("g")),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
            unpack_row(wrong)
