"""The rehearsal: an instrument's three ways of writing, and recordings that differ in their bytes only."""

from __future__ import annotations

import hashlib
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from sourcehelp import watching

from daemon import formats
from daemon.cli import main
from daemon.common.errors import UserError
from daemon.instrument import Writer, play, recordings, variant
from daemon.sources.file_state import Timing

BUNDLED = Path(__file__).resolve().parents[1] / "daemon" / "curves"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def curves_of(files: list[Path]) -> Any:
    try:
        return formats.open_file(files[0], files[1] if len(files) > 1 else None)
    except (formats.Unreadable, formats.Unfinished) as error:
        return str(error)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return len(one) == len(other) and all(
        np.array_equal(a.force, b.force, equal_nan=True)
        and (a.distance is b.distance is None or np.array_equal(a.distance, b.distance, equal_nan=True))
        and (a.force_unit, a.spring_constant_n_per_m, a.duration_s, a.notes)
        == (b.force_unit, b.spring_constant_n_per_m, b.duration_s, b.notes)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("folder", [BUNDLED, SHARED / "open", SHARED / "nolicence"], ids=lambda path: path.name)
def test_a_variant_has_other_bytes_and_the_same_curves(folder: Path, tmp_path: Path) -> None:
    if not folder.is_dir():
        pytest.skip("no shared data here")
    found, kinds = recordings([folder]), set()
    for recording in found:
        if (
            recording.files[0].suffix in kinds
            and len(kinds) > 3
            and len(found) > 60
            and hash_of(recording.files[0])[0] > "1"
        ):
            continue  # one in eight of the large collections
        kinds.add(recording.files[0].suffix)
        copies = []
        for file in recording.files:
            content = file.read_bytes()
            other = variant(content, "run/1")
            assert other == variant(content, "run/1")
            assert len({content, other, variant(content, "run/2")}) == 3
            copies.append(tmp_path / file.name)
            copies[-1].write_bytes(other)
        assert same(curves_of(list(recording.files)), curves_of(copies)), recording.files[0].name


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.name.encode()).hexdigest()


def an_igor_wave(tmp_path: Path) -> Path:
    found = sorted(BUNDLED.glob("*.ibw"))
    assert found
    return found[0]


def test_the_checksum_of_an_igor_wave_still_holds(tmp_path: Path) -> None:
    content = an_igor_wave(tmp_path).read_bytes()
    words = lambda data: int(np.frombuffer(data[:384], "<u2").sum()) % 65536  # noqa: E731
    assert words(variant(content, "x")) == words(content)
    assert variant(content, "x")[384:] == content[384:]


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 no archive", b"\x05\x00short", b"\\*Force file list\r\n", b"\0" * 9]
)
def test_files_that_are_not_what_they_seem_still_differ(content: bytes) -> None:
    assert len({content, variant(content, "1"), variant(content, "2")}) == 3


@pytest.mark.parametrize("writer", get_args(Writer))
def test_every_writer_is_seen_whole_and_once_by_a_watcher(writer: Any, tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    (source / "run").mkdir(parents=True), into.mkdir()
    content = BUNDLED.joinpath("force-save-0441.jpk-force").read_bytes()
    for name in ("a.jpk-force", "run/b.jpk-force"):
        (source / name).write_bytes(content + name.encode())
    wave = an_igor_wave(tmp_path).read_bytes()
    (source / "Line0Defl.ibw").write_bytes(wave)
    (source / "Line0ZSnsr.ibw").write_bytes(wave)
    (source / "README.md").write_text("no curve")
    found = recordings([source])
    assert [len(recording.files) for recording in found] == [2, 1, 1]
    whole: dict[str, bool] = {}
    with watching(into, timing=Timing(look_s=2.0)) as watched:
        player = threading.Thread(target=lambda: list(play(found, into, rate=20, writer=writer, count=10)))
        player.start()
        while len(whole) < 10:
            for arrival in watched.take(10 - len(whole)):
                # the size it was offered with is the size it ends with
                whole[arrival.path] = arrival.size_bytes in (len(wave) * 2, *(len(content) + n for n in range(60)))
                arrival.done()
        player.join()
        assert watched.quiet(0.2)
    assert set(whole) >= {
        "a.jpk-force",
        "run/b.jpk-force",
        "Line0Defl.ibw",
        "r002-Line0Defl.ibw",
        "run/r003-b.jpk-force",
    }
    assert all(whole.values()), whole
    assert (into / "a.jpk-force").read_bytes() == (source / "a.jpk-force").read_bytes()
    files = [path for path in into.rglob("*") if path.is_file()]
    assert len({path.read_bytes() for path in files if "ZSnsr" not in path.name}) == 10
    assert not [path for path in files if ".part" in path.name]


def test_growing_takes_its_time_and_the_rate_is_kept(tmp_path: Path) -> None:
    found = recordings([BUNDLED / "force-save-0441.jpk-force"])
    begun_s = time.monotonic()
    times, sizes = [], set()
    growing = threading.Thread(
        target=lambda: times.extend(time.monotonic() for _ in play(found, tmp_path, rate=10, writer="grow", count=6))
    )
    growing.start()
    while growing.is_alive():
        sizes |= {path.stat().st_size for path in tmp_path.iterdir()}
        time.sleep(0.001)
    assert len(sizes) >= 5  # seen half-written
    assert times[-1] - begun_s > 0.5
    assert all(b - a > 0.03 for a, b in pairwise(times))  # one after the other, never in a heap


def test_a_second_rehearsal_into_the_same_folder_overwrites_nothing(tmp_path: Path) -> None:
    found = recordings([BUNDLED / "force-save-0441.jpk-force"])
    names = [path.name for _ in range(2) for path in play(found, tmp_path, rate=1000, writer="rename", count=2)]
    assert names == [f"{tag}force-save-0441.jpk-force" for tag in ("", "r002-", "r003-", "r004-")]


def test_the_verb_plays_and_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    into = tmp_path / "new" / "folder"
    words = ["--rate", "1000", "--writer", "burst", "--count", "12"]
    assert main(["replay", str(BUNDLED / "force-save-0441.jpk-force"), "--into", str(into), *words]) == 0
    assert capsys.readouterr().out == f"12 recordings played into {into}\n"
    assert len(list(into.iterdir())) == 12
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.md").write_text("nothing here")
    for code, arguments in [
        (65, [str(tmp_path / "missing"), "--into", str(into)]),
        (65, [str(empty), "--into", str(into)]),
        (64, [str(BUNDLED), "--into", str(into), "--rate", "0"]),
        (64, [str(BUNDLED), "--into", str(into), "--rate", "nan"]),
        (64, [str(BUNDLED), "--into", str(into), "--count", "0"]),
        (64, [str(BUNDLED), "--into", str(empty / "notes.md")]),
        (64, [str(into.parent), "--into", str(into)]),
        (64, [str(BUNDLED), "--into", str(into), "--writer", "teleport"]),
    ]:
        assert main(["replay", *arguments]) == code, arguments
        assert capsys.readouterr().err.count("\n") == 1


def test_nothing_to_play_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        recordings([BUNDLED, tmp_path / "missing"])
    assert list(tmp_path.iterdir()) == []
