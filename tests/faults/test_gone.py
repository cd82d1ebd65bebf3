"""A share that is gone is told: by status, log, events and metrics, within 30 s; and so is that it is back."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.faults.lab import Lab, mounted, put, share, until
from tests.pace import allowed

TOLD_S = 30.0


class Heard:
    """What a subscriber was told of, from the moment it is made."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.subscribe(b"afm.afm1.alarm")
        self._socket.connect(endpoint)
        self._alarms: list[dict[str, Any]] = []

    def alarms(self) -> list[dict[str, Any]]:
        while self._socket.poll(0):
            self._alarms.append(json.loads(self._socket.recv_multipart()[1])["data"])
        return self._alarms

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()


def metric(lab: Lab, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{lab.metrics_port}/metrics", timeout=5) as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else float("nan")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A service on a mount point that the configuration calls a share; nothing is started yet."""
    point = tmp_path / "share"
    point.mkdir()
    toml = f'[[folder]]\npath = "{point}"\nmounts = "network"\n'
    lab = Lab(tmp_path / "lab", watch=point, toml=toml)
    lab.state.mkdir(parents=True, exist_ok=True)
    yield lab
    lab.stop()


def remount(remote: Path, point: Path) -> None:
    subprocess.run(["mount", "--bind", str(remote), str(point)], check=True, timeout=10)


@pytest.mark.smoke
@pytest.mark.timeout(240)
def test_a_share_that_is_unmounted_under_the_service(tmp_path: Path, lab: Lab) -> None:
    remote, point = tmp_path / "remote", lab.watch
    remote.mkdir()
    with mounted(point, "--bind", str(remote)):
        lab.start()
        for number in range(3):
            put(point, number)
        lab.wait_decided(3, 60)
        assert lab.is_well()
        assert metric(lab, 'afm_triage_folder_up{folder="0"}') == 1
        heard = Heard(lab.status()["publish"])
        try:
            subprocess.run(["umount", str(point)], check=True, timeout=10)
            until(lambda: not lab.is_well(), TOLD_S)
            assert any(str(point) in told for told in lab.troubles())
            until(lambda: any(not one["ok"] and str(point) in one["name"] for one in heard.alarms()), 5)
            assert str(point) in "\n".join(re.findall(r"^.*ERROR.*$", lab.log_text(), re.MULTILINE))
            assert metric(lab, 'afm_triage_folder_up{folder="0"}') == 0
            screen = lab.run("status", "--state", lab.state).stdout
            assert "all well" not in screen
            assert "last curve" in screen
            remount(remote, point)
            put(point, 5)
            lab.wait_decided(4, TOLD_S)
            until(lab.is_well, TOLD_S)
            until(lambda: any(one["ok"] and str(point) in one["name"] for one in heard.alarms()), 5)
            assert metric(lab, 'afm_triage_folder_up{folder="0"}') == 1
        finally:
            heard.close()
        lab.stop()


@pytest.mark.timeout(180)
def test_a_start_on_the_empty_mount_point(tmp_path: Path, lab: Lab) -> None:
    """As after a reboot with ``nofail``: nothing has ever been mounted in the life of this service."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    lab.start()
    until(lambda: bool(lab.troubles()), TOLD_S)
    assert any(str(lab.watch) in told for told in lab.troubles())
    doctor = lab.run("doctor", "--config", lab.folder / "afm.toml", "--watch", lab.watch, "--state", lab.state)
    assert "is configured as a share, and nothing is mounted there" in doctor.stdout
    remote = tmp_path / "remote"
    remote.mkdir()
    with mounted(lab.watch, "--bind", str(remote)):
        put(remote, 1)
        lab.wait_decided(1, TOLD_S)
        until(lab.is_well, TOLD_S)
        lab.stop()


@pytest.mark.timeout(240)
def test_a_stalled_share_shows_in_every_number(tmp_path: Path) -> None:
    with share(tmp_path) as stalling:
        lab = Lab(tmp_path / "lab", also=[stalling.point])
        lab.watch.mkdir(parents=True, exist_ok=True)
        with lab:
            put(lab.watch, 1)
            put(stalling.remote, 2)
            lab.wait_decided(2, 60)
            assert [metric(lab, f'afm_triage_folder_up{{folder="{one}"}}') for one in (0, 1)] == [1, 1]
            stalling.stall()
            until(lambda: metric(lab, 'afm_triage_folder_up{folder="1"}') == 0, TOLD_S + 5)
            assert metric(lab, 'afm_triage_folder_up{folder="0"}') == 1
            seen = [metric(lab, f'afm_triage_folder_last_seen_timestamp_seconds{{folder="{one}"}}') for one in (0, 1)]
            assert time.time() - seen[0] < 15
            assert time.time() - seen[1] > 5
            sources = lab.status()["sources"]
            assert [one["folder"] for one in sources] == [0, 1]
            assert all(one["last_curve_s"] for one in sources)
            for file in ("ledger", "ledger-wal", "labels", "spool"):
                assert metric(lab, f'afm_triage_ledger_bytes{{file="{file}"}}') >= 0
            stalling.resume()
            until(lambda: metric(lab, 'afm_triage_folder_up{folder="1"}') == 1, 40)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_finished_files_that_get_no_verdict_are_told_and_measured(tmp_path: Path) -> None:
    """Another program holds the ledger: files are finished, nothing is decided, and whoever asks has an answer."""
    with Lab(tmp_path / "lab") as lab:
        put(lab.watch, 1)
        lab.wait_decided(1, 60)
        other = sqlite3.connect(lab.state / "ledger.sqlite", isolation_level=None, timeout=10)
        with contextlib.closing(other):
            other.execute("begin immediate")
            for number in (2, 3, 4):
                put(lab.watch, number)
            until(lambda: any(told.startswith("pending: ") for told in lab.troubles()), 75)
            (told,) = [told for told in lab.troubles() if told.startswith("pending: ")]
            assert re.fullmatch(r"pending: 3 curves wait for a verdict, the oldest for (6|7)\d s", told)
            begun_s = time.monotonic()
            assert 60 <= metric(lab, "afm_triage_oldest_pending_seconds") < 90
            assert time.monotonic() - begun_s < allowed(2)
            assert "all well" not in lab.run("status", "--state", lab.state).stdout
            other.execute("rollback")
        lab.wait_decided(4, 20)
        until(lab.is_well, 20)
        assert metric(lab, "afm_triage_oldest_pending_seconds") == 0
