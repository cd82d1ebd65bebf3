"""Shares that hang, go away and come back: the other folders go on, somebody is told, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kills import run_on_shares
from tests.faults.lab import Lab, Share, mounted, put, share, until
from tests.pace import allowed

ALARM_S = 30.0


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Share]:
    with share(tmp_path) as found:
        yield found


def trouble_of(lab: Lab, folder: Path) -> str:
    """What ``status`` says is wrong with a watched folder; "" when nothing is."""
    return next((one for one in lab.troubles() if one.startswith(f"source {folder}:")), "")


def paths(lab: Lab) -> Counter[str]:
    return Counter(event["data"]["path"] for event in lab.history())


@pytest.mark.timeout(150)
def test_a_stalled_share_holds_up_nothing_else(tmp_path: Path, far: Share) -> None:
    local = tmp_path / "local"
    local.mkdir()
    with Lab(tmp_path / "lab", watch=far.point, also=[local]) as lab:
        lab.wait_ready()
        put(far.point, 0)
        put(local, 0)
        lab.wait_decided(2, 20)
        far.stall()
        stalled_s = time.monotonic()
        for number in (1, 2, 3):
            time.sleep(2.0)
            put(local, number)
            lab.wait_decided(2 + number, 1.0)
        until(lambda: "does not answer since" in trouble_of(lab, far.point), ALARM_S - (time.monotonic() - stalled_s))
        assert trouble_of(lab, local) == ""
        begun_s = time.monotonic()
        lab.stop()
        assert time.monotonic() - begun_s < allowed(8.0)
        for number in range(5):
            put(far.remote, 10 + number, "meanwhile")
        lab.start()
        lab.wait_ready()
        put(local, 4)
        lab.wait_decided(6, 5.0)
        until(lambda: "does not answer since" in trouble_of(lab, far.point), ALARM_S)
        far.resume()
        lab.wait_decided(11, 10.0)
        until(lambda: trouble_of(lab, far.point) == "", 10)
        assert set(paths(lab).values()) == {2, 1}  # c000000 lies in both folders
        assert len(lab.history()) == 11


@pytest.mark.long
@pytest.mark.timeout(150)
def test_a_share_that_stalls_in_the_middle_of_a_listing(tmp_path: Path, far: Share) -> None:
    for number in range(300):
        folder = far.remote / f"day{number // 20}" / f"run{number // 4}"
        folder.mkdir(parents=True, exist_ok=True)
        put(folder, number)
    with Lab(tmp_path / "lab", watch=far.point) as lab:
        for pause_s in (0.1, 0.4, 0.9):
            lab.wait_ready()
            time.sleep(pause_s)
            far.stall()
            time.sleep(7.0)
            far.resume()
        lab.wait_decided(300, 60)
        assert len(paths(lab)) == len(lab.history()) == 300


@pytest.mark.timeout(120)
def test_a_share_that_hangs_is_taken_away_and_another_is_mounted_in_its_place(tmp_path: Path, far: Share) -> None:
    with Lab(tmp_path / "lab", watch=far.point) as lab:
        lab.wait_ready()
        put(far.remote, 0)
        lab.wait_decided(1, 20)
        far.stall()
        until(lambda: "does not answer since" in trouble_of(lab, far.point), ALARM_S)
        subprocess.run(["umount", "-l", str(far.point)], check=True)
        until(lambda: "not mounted any more" in trouble_of(lab, far.point), ALARM_S)
        with mounted(far.point, "--bind", str(far.remote)):
            put(far.remote, 1)
            lab.wait_decided(2, 15)
            until(lambda: trouble_of(lab, far.point) == "", 10)
            lab.stop()


@pytest.mark.timeout(120)
def test_a_share_whose_client_dies_is_told(tmp_path: Path, far: Share) -> None:
    with Lab(tmp_path / "lab", watch=far.point) as lab:
        lab.wait_ready()
        put(far.remote, 0)
        lab.wait_decided(1, 20)
        far._client.kill()
        until(lambda: trouble_of(lab, far.point) != "", ALARM_S)


@pytest.mark.timeout(150)
@pytest.mark.parametrize("toml", ["", '[source]\nmounts = "network"\n'], ids=["seen mounted", "configured"])
def test_an_unmounted_share_is_told_and_found_again(tmp_path: Path, toml: str) -> None:
    point, keep = tmp_path / "afm", tmp_path / "keep"
    keep.mkdir()
    lab = Lab(tmp_path / "lab", watch=point, toml=toml)
    with mounted(point, "--bind", str(keep)), lab:
        lab.wait_ready()
        for number in range(3):
            put(point, number)
        lab.wait_decided(3, 20)
        assert trouble_of(lab, point) == ""
        subprocess.run(["umount", str(point)], check=True)
        until(lambda: "not mounted any more since" in trouble_of(lab, point), ALARM_S)
        subprocess.run(["mount", "--bind", str(keep), str(point)], check=True)
        put(keep, 5)
        lab.wait_decided(4, 20)
        until(lambda: trouble_of(lab, point) == "", 10)
        assert set(paths(lab).values()) == {1}
        lab.stop()
        subprocess.run(["umount", str(point)], check=True)
        lab.start()  # as after a boot on which the mount failed
        lab.wait_ready()
        until(lambda: trouble_of(lab, point) != "", ALARM_S)


@pytest.mark.timeout(60)
def test_a_share_that_is_configured_and_never_was_mounted_is_told(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", toml='[source]\nmounts = "network"\n') as lab:
        lab.wait_ready()
        until(lambda: "nothing is mounted" in trouble_of(lab, lab.watch), ALARM_S)


@pytest.mark.timeout(60)
def test_a_folder_that_somebody_has_emptied_is_no_alarm(tmp_path: Path) -> None:
    with Lab(tmp_path / "lab", toml="[source]\nrescan_local_s = 1\n") as lab:
        lab.wait_ready()
        put(lab.watch, 0)
        lab.wait_decided(1, 10)
        os.remove(next(lab.watch.iterdir()))
        time.sleep(4.0)
        assert trouble_of(lab, lab.watch) == ""


@pytest.mark.timeout(60)
def test_a_share_whose_server_has_lost_its_files_is_an_alarm(tmp_path: Path, far: Share) -> None:
    with Lab(tmp_path / "lab", watch=far.point) as lab:
        put(far.remote, 0)
        lab.wait_decided(1, 20)
        os.rename(next(far.remote.iterdir()), tmp_path / "kept.jpk-force")
        until(lambda: "is empty since" in trouble_of(lab, far.point), 30)
        os.rename(tmp_path / "kept.jpk-force", far.remote / "c000000.jpk-force")
        until(lambda: trouble_of(lab, far.point) == "", 30)
        assert len(lab.history()) == 1


@pytest.mark.timeout(120)
def test_every_folder_on_shares_stalled_and_the_service_still_ends(tmp_path: Path, far: Share) -> None:
    lab = Lab(tmp_path / "lab", watch=far.point)
    with lab:
        lab.wait_ready()
        put(far.remote, 0)
        lab.wait_decided(1, 20)
        far.stall()
        time.sleep(4.0)
        begun_s = time.monotonic()
        assert lab.process is not None
        os.kill(lab.pid, signal.SIGTERM)
        lab.process.wait(8.0)
        assert time.monotonic() - begun_s < allowed(8.0)
        far.resume()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("curves", "kills"), [(60, 3), pytest.param(600, 8, marks=pytest.mark.long)])
def test_kills_while_a_share_stalls_lose_and_double_nothing(
    tmp_path: Path, far: Share, curves: int, kills: int
) -> None:
    found = run_on_shares(tmp_path, far, curves, kills, rate=20.0)
    assert (found.lost, found.doubled, found.gaps, found.decided) == ([], [], [], curves)
