"""Bytes, names and folders: what stands before any format."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
from makers import a_retract, make_columns, make_ibw_pair, make_jpk, make_jpk_map, make_nanoscope
from pace import allowed

from daemon.formats import NAMES, find_reader, open_file
from daemon.formats.base import AWAY, Blob, Unfinished, Unreached, Unreadable
from daemon.formats.jpk import JpkReader
from daemon.reading.ahead import find


def test_a_large_file_is_read_in_pieces_of_one_and_the_same_file(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(100_000)
    path = tmp_path / "big"
    path.write_bytes(content)
    blob = Blob(path, piece_bytes=8192)
    assert blob.read(8000, 30_000) == content[8000:38_000]
    assert blob.read(99_000, 1000) == content[99_000:]
    assert blob.sha256 == hashlib.sha256(content).hexdigest()
    with pytest.raises(Unfinished, match="truncated"):
        blob.read(99_000, 1001)


def test_a_file_that_changes_between_pieces_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(bytes(50_000))
    blob = Blob(path, piece_bytes=8192)
    path.write_bytes(bytes(50_001))
    with pytest.raises(Unfinished, match="changed"):
        blob.read(40_000, 10)


def test_a_map_read_in_pieces_equals_one_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m.jpk-force-map"
    path.write_bytes(make_jpk_map(20))
    whole = JpkReader().open(Blob(path), path.name)
    pieces = JpkReader().open(Blob(path, piece_bytes=1000), path.name)
    for index in range(20):
        np.testing.assert_array_equal(whole.curve(index).force, pieces.curve(index).force)


def test_no_handle_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jpk-force"
    path.write_bytes(make_jpk())
    before = len(os.listdir("/proc/self/fd"))
    blobs = [Blob(path) for _ in range(20)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(blobs) == 20


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpk-force"
    os.mkfifo(pipe)
    began_s = time.monotonic()
    for path in (pipe, tmp_path, Path("/dev/zero")):
        with pytest.raises(Unreadable):
            Blob(path)
    assert time.monotonic() - began_s < allowed(1.0)


def test_what_may_come_back_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(Unfinished, match="vanished"):
        Blob(tmp_path / "gone")
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    secret.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(Unfinished, match="no_permission"):
            Blob(secret)


@pytest.mark.parametrize("call", ["stat", "open", "fstat", "pread", "close"])
def test_a_share_that_is_gone_says_nothing_of_the_file(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").write_bytes(b"x")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTCONN, "")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        if call == "close":
            assert Blob(tmp_path / "far").whole() == b"x"
            return
        with pytest.raises(Unreached) as caught:
            Blob(tmp_path / "far")
    assert caught.value.reason == AWAY


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpk-force", True),
        ("A.JPK-FORCE", True),
        ("b.jpk-force-map", True),
        ("c.jpk-qi-data", True),
        ("d.jpk-qi-series", True),
        ("2009.04.23-15.15.47.jpk", None),
        ("e.jpk-force.zip", True),
        ("Image0001.ibw", None),
        ("Line0001Point0002Defl.ibw", None),
        ("x.afmcurve", True),
        ("Line0001Point0002ZSnsr.ibw", False),
        (".hidden.jpk-force", False),
        (".curve.jpk-force.Xa81Lq", False),
        ("~syncthing~a.jpk-force.tmp", False),
        (".syncthing.a.jpk-force.tmp", False),
        ("a.jpk-force.part", False),
        ("a.ibw.crdownload", False),
        ("a.jpk-force~", False),
        ("~$notes.txt", False),
        ("a.txt.filepart", False),
        ("a.jpk-force.done", False),
        ("labels.csv", False),
        ("photo.png", False),
        ("map.ARDF", False),
        ("peak.pfc", False),
        ("scan.nid", None),
        ("park.tiff", None),
        ("scan.tif", None),
        ("map.jpk-qi-image", None),
        ("fast.h5-jpk", None),
        ("curve.000", None),
        ("curve.149", None),
        ("curve.spm", None),
        ("0x06130001", None),
        ("force-save-2022.12.16-16.25.37.389.txt", None),
        ("data.csv", None),
        ("data.h5", None),
        ("whatever.xyz", None),
    ],
)
def test_names(name: str, expected: bool | None) -> None:
    assert NAMES.claim(name) is expected


def test_quiet_times() -> None:
    assert NAMES.quiet_s("a.txt") == 2.0
    assert NAMES.quiet_s("a.jpk-force") == 0.0
    assert NAMES.quiet_s("a.000") == 0.0


def test_an_empty_file_is_a_curve_to_come_only_where_its_name_says_so() -> None:
    for name in ("a.jpk-force", "a.000", "a.txt", "a.ibw", "ADefl.ibw", "a.jpk", "a.nid", "a.tiff"):
        with pytest.raises(Unfinished, match="empty"):
            find_reader(name, Blob.of(b""))
    assert find_reader("LOCKED", Blob.of(b"")) is None


def test_content_decides_where_the_name_does_not() -> None:
    assert (reader := find_reader("no-suffix", Blob.of(make_jpk())))
    assert reader.format.name == "jpk"
    assert (reader := find_reader("ramp.txt", Blob.of(make_nanoscope())))
    assert reader.format.name == "nanoscope"
    assert find_reader("thing.xyz", Blob.of(np.random.default_rng(0).bytes(5000))) is None
    assert find_reader("thing", Blob.of(b"\x80\x04\x95 a pickle")) is None


def test_walking_joins_pairs_skips_what_is_none_and_goes_in_order(tmp_path: Path) -> None:
    deflection, position = make_ibw_pair()
    for name, content in {
        "b/a.jpk-force": make_jpk(),
        "a/xDefl.ibw": deflection,
        "a/xZSnsr.ibw": position,
        "a/lonelyDefl.ibw": deflection,
        "a/labels.csv": b"path,curve_index,label\n",
        "a/.cache/y.jpk-force": b"",
        "t.txt": make_columns(*a_retract()),
        "notes.md": b"#",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = find([tmp_path])
    arrivals = list(found)
    assert [a.path for a in arrivals] == ["a/lonelyDefl.ibw", "a/xDefl.ibw", "b/a.jpk-force", "t.txt"]
    assert [a.companion is not None for a in arrivals] == [False, True, False, False]
    assert found.ignored.kinds == {"table": 1, "companion": 1, "unclaimed .md": 1}
    assert all(a.final and a.source == "score" for a in arrivals)
    assert [a.claimed for a in arrivals] == [False, False, True, False]


def test_a_file_asked_for_by_name_is_read_whatever_it_is_called(tmp_path: Path) -> None:
    odd = tmp_path / "curve.bak"
    odd.write_bytes(make_jpk())
    (arrival,) = find([odd])
    assert arrival.path == str(odd)


def test_open_file_turns_every_error_of_a_parser_into_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.jpk-force"
    path.write_bytes(
        make_jpk(
            extra={
                "segments/1/segment-header.properties": b"force-segment-header.num-points=NaN\n"
                b"force-segment-header.settings.style=retract\n"
            }
        )
    )
    with pytest.raises(Unreadable):
        open_file(path)
