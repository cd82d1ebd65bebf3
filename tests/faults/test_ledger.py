"""What is done to the ledger under a running service: nothing is announced that is on no disk, and it is told."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.faults.lab import Lab, mounted, put, until
from tests.faults.million import build, forget_pages
from tests.pace import allowed

_LOCK = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("begin exclusive")
print("locked", flush=True)
sys.stdin.read()
"""


class Listener:
    """Hears what a service announces; call ``take`` now and then."""

    def __init__(self, lab: Lab) -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._feed = self._context.socket(zmq.SUB)
        self._feed.subscribe(b"")
        self._feed.connect(lab.publish)
        assert self._feed.poll(5000), "nobody greets"
        self.heard: dict[tuple[str, int], str] = {}  # (stream, seq) -> path
        self.alarms: list[str] = []

    def take(self, seconds: float) -> None:
        deadline_s = time.monotonic() + seconds
        while (left_s := deadline_s - time.monotonic()) > 0:
            if self._feed.poll(int(left_s * 1000) + 1):
                event = json.loads(self._feed.recv_multipart()[1])
                if "seq" in event:
                    self.heard[event["stream"], event["seq"]] = event["data"]["path"]
                elif ".alarm." in event["type"] and not event["data"]["ok"]:
                    self.alarms.append(f"{event['data']['name']}: {event['data']['text']}")

    def close(self) -> None:
        self._feed.close(linger=0)
        self._context.term()


@contextlib.contextmanager
def listening(lab: Lab) -> Iterator[Listener]:
    listener = Listener(lab)
    try:
        yield listener
    finally:
        listener.close()


def paths(lab: Lab) -> dict[tuple[str, int], str]:
    return {(event["stream"], event["seq"]): event["data"]["path"] for event in lab.history()}


def feed(lab: Lab, start: int, stop: int) -> None:
    for number in range(start, stop):
        put(lab.watch, number)


@pytest.mark.parametrize(
    "gone", [("-wal", "-shm"), ("-wal",), pytest.param(("-shm",), marks=pytest.mark.long)], ids=str
)
@pytest.mark.timeout(120)
def test_what_was_announced_outlives_the_loss_of_the_wal(tmp_path: Path, gone: tuple[str, ...]) -> None:
    with Lab(tmp_path) as lab:
        feed(lab, 0, 5)
        lab.wait_decided(5, 20)
        lab.stop()
        lab.start()
        lab.wait_ready()
        with listening(lab) as listener:
            feed(lab, 5, 10)
            lab.wait_decided(10, 20)
            for suffix in gone:
                (lab.state / f"ledger.sqlite{suffix}").unlink()
            feed(lab, 10, 45)
            listener.take(6)
            assert "what they held is saved" in lab.log_text()
        assert len(listener.heard) == 40
        lab.kill()
        lab.start()
        lab.wait_ready()
        lab.wait_decided(45, 20)
        kept = paths(lab)
        assert {place: kept.get(place) for place in listener.heard} == listener.heard
        assert len(kept) == len(set(kept.values())) == 45


@pytest.mark.timeout(120)
def test_a_wal_lost_between_two_runs_never_makes_a_number_mean_two_curves(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        feed(lab, 0, 2)
        lab.wait_decided(2, 20)
        lab.stop()
        lab.start()
        lab.wait_ready()
        with listening(lab) as listener:
            feed(lab, 2, 10)
            listener.take(3)
        assert len(listener.heard) == 8
        lab.kill()
        for suffix in ("-wal", "-shm"):
            (lab.state / f"ledger.sqlite{suffix}").unlink()
        for number in (3, 7):  # judged again in another order than before
            (lab.watch / f"c{number:06d}.jpk-force").unlink()
        lab.start()
        lab.wait_ready()
        lab.wait_decided(8, 20)
        kept = paths(lab)
        assert all(kept.get(place, path) == path for place, path in listener.heard.items())
        until(lambda: any("announced" in trouble for trouble in lab.troubles()), 10)


@pytest.mark.timeout(120)
def test_a_state_folder_that_is_moved_away_is_told_and_taken_up_again(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab, listening(lab) as listener:
        feed(lab, 0, 5)
        listener.take(2)
        away = tmp_path / "elsewhere"
        lab.state.rename(away)
        feed(lab, 5, 10)
        listener.take(4)
        assert len(listener.heard) == 5
        assert any("moved or deleted" in alarm for alarm in listener.alarms)
        status = lab.run("status", "--state", lab.state)
        assert status.returncode == 69
        assert "paused" in status.stdout
        assert "moved or deleted" in status.stdout
        away.rename(lab.state)
        listener.take(4)
        assert len(listener.heard) == 10
        assert lab.run("status", "--state", lab.state).returncode == 0


@pytest.mark.timeout(120)
def test_another_programs_lock_is_waited_for_and_told_and_ends_nothing(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab, listening(lab) as listener:
        feed(lab, 0, 3)
        listener.take(2)
        words = [sys.executable, "-c", _LOCK, str(lab.state / "ledger.sqlite")]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout
            assert other.stdin
            other.stdout.readline()
            feed(lab, 3, 6)
            listener.take(7)
            assert lab.process
            assert lab.process.poll() is None
            assert any("locked" in alarm for alarm in listener.alarms)
            assert lab.status()["state"] == "paused"
            other.stdin.close()
            other.wait(10)
        listener.take(4)
        assert len(listener.heard) == 6
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout
            assert other.stdin
            other.stdout.readline()
            feed(lab, 6, 9)
            time.sleep(2)
            begun_s = time.monotonic()
            assert lab.stop() == 0
            assert time.monotonic() - begun_s < 8
            other.stdin.close()
            other.wait(10)
        lab.start()
        lab.wait_ready()
        lab.wait_decided(9, 20)


@pytest.mark.parametrize("how", ["overwritten", "cut", "wal cut"])
@pytest.mark.timeout(120)
def test_damage_under_the_running_service_is_told(tmp_path: Path, how: str) -> None:
    with Lab(tmp_path) as lab:
        feed(lab, 0, 30)
        lab.wait_decided(30, 30)
        lab.stop()
        lab.start()
        lab.wait_ready()
        with listening(lab) as listener:
            feed(lab, 30, 35)
            listener.take(3)
            file = lab.state / "ledger.sqlite"
            size_bytes = file.stat().st_size
            if how == "overwritten":
                with file.open("r+b") as content:
                    content.seek(size_bytes // 2 // 4096 * 4096)
                    content.write(os.urandom(8192))
            else:
                os.truncate(file if how == "cut" else lab.state / "ledger.sqlite-wal", 0)
            begun = len(listener.heard)
            until(lambda: listener.take(1) or any("ledger" in alarm for alarm in listener.alarms), 30)
            feed(lab, 35, 40)
            listener.take(3)
            assert len(listener.heard) == begun, "announced what is on no sound disk"
            status = lab.status()
            assert status["state"] == "paused"
            assert any("damaged" in trouble for trouble in lab.troubles())


@pytest.mark.timeout(120)
def test_a_disk_that_becomes_read_only_is_waited_for(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=64m", "none"):
        lab = Lab(disk, watch=tmp_path / "watch")
        lab.watch.mkdir()
        lab.log = tmp_path / "log"
        with lab, listening(lab) as listener:
            feed(lab, 0, 3)
            listener.take(2)
            done = subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True, check=False)
            if done.returncode:
                pytest.skip("a disk that is written to is not made read-only here")
            feed(lab, 3, 6)
            listener.take(3)
            assert len(listener.heard) == 3
            assert listener.alarms
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            listener.take(4)
            assert len(listener.heard) == 6


@pytest.fixture(scope="module", params=[20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    folder = tmp_path_factory.mktemp("large")
    build(folder / "ledger.sqlite", request.param)
    yield folder / "ledger.sqlite", request.param
    shutil.rmtree(folder)


@pytest.mark.timeout(400)
def test_a_start_is_quick_and_small_however_long_the_history(tmp_path: Path, large: tuple[Path, int]) -> None:
    built, count = large
    lab = Lab(tmp_path)
    lab.state.mkdir()
    os.link(built, lab.state / "ledger.sqlite")
    forget_pages(built)
    begun_s = time.monotonic()
    lab.start()
    try:
        lab.wait_ready(60)
        assert time.monotonic() - begun_s < 10
        until(lambda: lab.pss_mb() < 350 and "is sound" in json.dumps(lab.status()), 60)
        put(lab.watch, 1)
        lab.wait_decided(count + 1, 5)
        begun_s = time.monotonic()
        assert lab.run("events", "--since", count - 10, "--state", lab.state).stdout.count("\n") == 11
        assert lab.run("status", "--state", lab.state).returncode == 0
        assert time.monotonic() - begun_s < 8
        assert lab.pss_mb() < 350
    finally:
        assert lab.stop() == 0


@pytest.mark.timeout(120)
def test_sigterm_is_heard_and_systemd_asked_for_patience_while_the_start_waits(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        lab.stop()
        said: list[bytes] = []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(str(tmp_path / "notify"))
            systemd.settimeout(15)
            words = [sys.executable, "-c", _LOCK, str(lab.state / "ledger.sqlite")]
            with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
                assert other.stdout
                assert other.stdin
                other.stdout.readline()
                lab._environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
                lab.start()
                said.append(systemd.recv(4096))
                begun_s = time.monotonic()
                lab.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]  # it has just been started
                assert lab.process.wait(8) == 0  # type: ignore[union-attr]  # as above
                assert time.monotonic() - begun_s < allowed(3)
                other.stdin.close()
                other.wait(10)
        assert b"EXTEND_TIMEOUT_USEC=" in said[0]


@pytest.mark.parametrize("name", ["ledger-schema-1.sqlite", "ledger-schema-2.sqlite", "ledger-schema-3.sqlite"])
def test_the_history_of_a_version_before_goes_on(tmp_path: Path, name: str) -> None:
    kept = Path(__file__).parent / name
    lab = Lab(tmp_path)
    lab.state.mkdir()
    shutil.copy(kept, lab.state / "ledger.sqlite")
    with contextlib.closing(sqlite3.connect(kept)) as database:
        (stream,) = database.execute("select stream from ledger").fetchone()
        (count,) = database.execute("select count(*) from decisions").fetchone()
    with lab:
        put(lab.watch, 99)
        lab.wait_decided(count + 1, 20)
        assert [event["seq"] for event in lab.history()] == list(range(1, count + 2))
        assert {event["stream"] for event in lab.history()} == {stream}
