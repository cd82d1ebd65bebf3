"""Files that are written again within one tick of the clock, and writers that pause: every content, and no half."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import CURVES, fresh
from tests.faults.lab import Lab, mounted

_JPK = (CURVES / "force-save-0441.jpk-force").read_bytes()
_TEXT = (CURVES / "waite_set1_75.txt").read_bytes()


@pytest.fixture
def seconds(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system whose times are whole seconds: ext4 with inodes of 128 bytes."""
    image, point = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", "-F", "-I", "128", str(image)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("no mkfs.ext4 here")
    with mounted(point, "-o", "loop", str(image)):
        yield point


def decided(lab: Lab) -> set[str]:
    return {event["data"]["sha256"] for event in lab.history()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wait_for_a_new_second() -> None:
    time.sleep(1.0 - time.time() % 1 + 0.02)


@pytest.mark.smoke
@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["in place", "by a rename"])
def test_a_file_saved_again_within_the_second_of_its_verdict(tmp_path: Path, seconds: Path, how: str) -> None:
    watch = seconds / "watch"
    watch.mkdir()
    with Lab(tmp_path / "lab", watch=watch) as lab:
        lab.wait_ready()
        for number in range(5):
            path = watch / f"twice{number}.jpk-force"
            wait_for_a_new_second()
            path.write_bytes(fresh(_JPK, 100 + number))
            lab.wait_decided(2 * number + 1, 10)
            again = fresh(_JPK, 200 + number)
            if how == "in place":
                path.write_bytes(again)
            else:
                (watch / ".again").write_bytes(again)
                (watch / ".again").rename(path)
            lab.wait_decided(2 * number + 2, 5)
            assert sha256(again) in decided(lab)


@pytest.mark.timeout(120)
def test_a_file_that_flips_between_two_contents_is_decided_once_for_each(tmp_path: Path, seconds: Path) -> None:
    watch = seconds / "watch"
    watch.mkdir()
    contents = [fresh(_JPK, number) for number in (111, 222)]
    with Lab(tmp_path / "lab", watch=watch) as lab:
        lab.wait_ready()
        for number in range(20):
            (watch / "flips.jpk-force").write_bytes(contents[number % 2])
            time.sleep(0.25)
        lab.wait_decided(2, 5)
        time.sleep(1.0)
        assert len(lab.history()) == 2
        assert decided(lab) == {sha256(content) for content in contents}


@pytest.mark.timeout(120)
def test_a_file_saved_again_while_the_service_was_down(tmp_path: Path, seconds: Path) -> None:
    """The same size, and a time that only the next second would have told apart."""
    watch = seconds / "watch"
    watch.mkdir()
    path, again = watch / "a.jpk-force", fresh(_JPK, 222)
    with Lab(tmp_path / "lab", watch=watch) as lab:
        lab.wait_ready()
        path.write_bytes(fresh(_JPK, 111))
        found = path.stat()
        lab.wait_decided(1, 10)
        lab.kill()
        path.write_bytes(again)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))  # as within the second
        lab.start()
        lab.wait_decided(2, 30)
        assert sha256(again) in decided(lab)


@pytest.mark.timeout(90)
@pytest.mark.parametrize("ends_in_a_row", [True, False], ids=["whole rows", "half a row"])
def test_a_text_writer_that_pauses_for_less_than_the_stated_rest(tmp_path: Path, ends_in_a_row: bool) -> None:
    toml = "[source]\ntext_quiet_s = 3\nunended_s = 3\n"
    with Lab(tmp_path / "lab", toml=toml) as lab:
        lab.wait_ready()
        contents: dict[str, bytes] = {}

        def write(name: str, pause_s: float) -> None:
            content = _TEXT.rstrip(b"\r\n") + b"\r\n" * (2 + len(name))
            contents[name] = content
            with (lab.watch / name).open("wb", buffering=0) as file:
                at = 0
                for part in (0.2, 0.4, 0.6, 0.8, 1.0):
                    cut = int(len(content) * part)
                    if ends_in_a_row:
                        cut = content.index(b"\n", cut - 1) + 1 if part < 1 else len(content)
                    file.write(content[at:cut])
                    at = cut
                    if part < 1:
                        time.sleep(pause_s)

        paces = {f"pause{number}{'x' * number}.txt": 1.0 + 0.4 * number for number in range(5)}
        writers = [threading.Thread(target=write, args=one) for one in paces.items()]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(30)
        lab.wait_decided(5, 15)
        time.sleep(4.0)
        assert sorted(event["data"]["sha256"] for event in lab.history()) == sorted(map(sha256, contents.values()))
