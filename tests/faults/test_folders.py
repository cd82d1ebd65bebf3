"""Watched folders that become others under the service: every file of what is there now is found, soon."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.lab import Lab, mounted, put, until

FOUND_S = 6.0  # noticed within five seconds, and decided
NAMES = [f"c{number:06d}.jpk-force" for number in range(3)]


def hashes(lab: Lab) -> Counter[str]:
    return Counter(event["data"]["sha256"] for event in lab.history())


def days(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders of other curves with the same names."""
    one, two = tmp_path / "27", tmp_path / "28"
    for folder in (one, two):
        folder.mkdir()
        for number in range(3):
            put(folder, number)
    return one, two


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", ["link", "rename", "folder becomes a link", "made anew"])
def test_a_folder_that_becomes_another_with_the_same_names(tmp_path: Path, how: str) -> None:
    one, two = days(tmp_path)
    current = tmp_path / "current"
    if how == "link":
        current.symlink_to("27")
    else:
        one.rename(current)
    with Lab(tmp_path / "lab", watch=current) as lab:
        lab.wait_ready()
        lab.wait_decided(3, 15)
        if how == "link":
            (tmp_path / "new").symlink_to("28")
            (tmp_path / "new").rename(current)
        elif how == "made anew":
            shutil.rmtree(current)
            time.sleep(3.0)
            shutil.copytree(two, current)
        else:
            current.rename(one)
            current.symlink_to(two) if how == "folder becomes a link" else two.rename(current)
        lab.wait_decided(6, FOUND_S)
        assert len(hashes(lab)) == len(lab.history()) == 6
        put(current, 7)
        lab.wait_decided(7, 3.0)  # and it is listened to
        put(current, 1, "c")
        (current / NAMES[1]).write_bytes((current / NAMES[0]).read_bytes()[:-1] + b"!")  # an old name written anew
        lab.wait_decided(8, 3.0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        *(("bind", "over the folder"), ("tmpfs", "below the folder")),
        pytest.param("bind", "below the folder", marks=pytest.mark.long),
        pytest.param("tmpfs", "over the folder", marks=pytest.mark.long),
    ],
)
def test_a_mount_that_appears_under_the_service(tmp_path: Path, place: str, kind: str) -> None:
    watch, elsewhere = tmp_path / "watch", tmp_path / "elsewhere"
    point = watch if place.startswith("over") else watch / "run"
    point.mkdir(parents=True), elsewhere.mkdir()
    put(watch, 0, "before")
    put(elsewhere, 1)
    words = ["--bind", str(elsewhere)] if kind == "bind" else ["-t", "tmpfs", "-o", "size=20m", "tmpfs"]
    with Lab(tmp_path / "lab", watch=watch) as lab:
        lab.wait_ready()
        lab.wait_decided(1, 15)
        with mounted(point, *words):
            if kind == "tmpfs":
                put(point, 1)
            lab.wait_decided(2, FOUND_S)
            time.sleep(2.5)
            put(point, 2)
            lab.wait_decided(3, 3.0)
            assert lab.troubles() == []
            subprocess.run(["umount", str(point)], check=True)
            until(lambda: any("not mounted any more" in one for one in lab.troubles()), 30)
            put(watch, 3, "after")
            lab.wait_decided(4, 8.0)


@pytest.mark.timeout(60)
def test_a_folder_inside_that_is_swapped_for_one_with_the_same_names(tmp_path: Path) -> None:
    one, two = days(tmp_path)
    watch = tmp_path / "watch"
    watch.mkdir()
    one.rename(watch / "run")
    with Lab(tmp_path / "lab", watch=watch) as lab:
        lab.wait_ready()
        lab.wait_decided(3, 15)
        (watch / "run").rename(one)
        two.rename(watch / "run")
        lab.wait_decided(6, FOUND_S)
        assert len(hashes(lab)) == len(lab.history()) == 6


@pytest.mark.timeout(60)
def test_a_folder_that_becomes_a_file_and_a_folder_again(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        lab.wait_ready()
        put(lab.watch, 0)
        lab.wait_decided(1, 15)
        shutil.rmtree(lab.watch)
        lab.watch.write_bytes(b"not a folder")
        until(lambda: any("gone since" in one for one in lab.troubles()), 10)
        lab.watch.unlink()
        lab.watch.mkdir()
        put(lab.watch, 1)
        lab.wait_decided(2, FOUND_S)


@pytest.mark.timeout(90)
def test_a_storm_of_renames_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab") as lab:
        lab.wait_ready()
        for number in range(60):
            path = put(lab.watch, number)
            for step in range(number % 5):
                path = path.rename(path.with_name(f"r{step}-{number:06d}.jpk-force"))
                time.sleep(0.01 * (number % 3))
        lab.wait_decided(60, 30)
        time.sleep(2.0)
        odd = [
            (one["data"]["path"], one["data"]["reasons"])
            for one in lab.history()
            if one["data"]["reasons"] != ["score"]
        ]
        assert (len(lab.history()), odd) == (60, [])
        assert set(hashes(lab).values()) == {1}


@pytest.mark.long
@pytest.mark.timeout(180)
def test_twenty_thousand_folders_hold_up_no_curve(tmp_path: Path) -> None:
    for number in range(20_000):
        os.makedirs(tmp_path / "lab" / "watch" / f"{number // 100}" / f"{number}")
    with Lab(tmp_path / "lab", toml="[guard]\ncanaries = false\n") as lab:
        put(lab.watch, 0)
        lab.wait_decided(1, 10)
        time.sleep(15.0)
        assert lab.idle_cpu_percent(20.0) < 5.0
        put(lab.watch / "199" / "19999", 1)
        lab.wait_decided(2, 5.0)
