"""Connections by the thousand, with 1,024 open files: the service lives, judges, says so, and recovers."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from daemon.client.service_file import free_port
from tests.faults.harness import scrape
from tests.faults.lab import Lab, put, until

pytestmark = pytest.mark.timeout(200)
_OURS = 8_000  # open files that the test itself needs
#: Every door where the files run out; where there are plenty one door stands for the three.
DOORS = [
    *(("replay", 1024), ("publish", 1024), ("ingest", 1024), ("replay", 20_000)),
    *(pytest.param(to, 20_000, marks=pytest.mark.long) for to in ("publish", "ingest")),
]


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < _OURS:
        pytest.skip(f"the test itself needs {_OURS} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OURS, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def service(folder: Path, hard: int) -> Iterator[tuple[Lab, dict[str, str]]]:
    """With a soft limit of 1,024 open files, and its addresses."""
    ingest = f"tcp://127.0.0.1:{free_port()}"
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))}
    with Lab(folder, options=("--ingest", ingest), popen=limit) as lab:
        put(lab.watch, 0)
        lab.wait_decided(1, 20)
        yield lab, {"publish": lab.publish, "replay": lab.replay, "ingest": ingest}


def judges_all_the_same(lab: Lab, decided: int) -> None:
    """A curve, one in a new folder, and one with a reader killed meanwhile."""
    put(lab.watch, decided)
    lab.wait_decided(decided + 1, 10)
    folder = lab.watch / f"new{decided}"
    folder.mkdir()
    put(folder, decided + 1)
    lab.wait_decided(decided + 2, 20)
    os.kill(next(pid for pid in lab.processes() if pid != lab.pid), signal.SIGKILL)
    put(lab.watch, decided + 2)
    lab.wait_decided(decided + 3, 20)


def idle(address: str, count: int, held: contextlib.ExitStack) -> None:
    """Raw connections that say the first bytes of a greeting, and then nothing."""
    place = ("127.0.0.1", int(address.rsplit(":", 1)[1]))
    for _ in range(count):
        one = held.enter_context(socket.socket())
        one.settimeout(1)
        try:
            one.connect(place)
            one.sendall(b"\xff\0\0\0\0\0\0\0\x01\x7f")
        except OSError:
            break  # the door is shut


@pytest.mark.parametrize(("to", "hard"), DOORS)
def test_idle_connections_stop_nothing(to: str, hard: int, tmp_path: Path) -> None:
    with service(tmp_path, hard) as (lab, addresses):
        with contextlib.ExitStack() as held:
            idle(addresses[to], 1_500, held)
            judges_all_the_same(lab, 1)
        until(lambda: lab.status()["state"] == "ready", 30)
        assert len(os.listdir(f"/proc/{lab.pid}/fd")) < 200


@pytest.mark.parametrize(("to", "hard"), DOORS)
def test_whole_connections_stop_nothing(to: str, hard: int, tmp_path: Path) -> None:
    with service(tmp_path, hard) as (lab, addresses), zmq.Context(1) as context:
        context.set(zmq.MAX_SOCKETS, 3_000)
        with contextlib.ExitStack() as held:
            for _ in range(1_200):
                one = held.enter_context(context.socket(zmq.SUB if to == "publish" else zmq.DEALER))
                one.linger = 0
                if to == "publish":
                    one.subscribe(b"")
                one.connect(addresses[to])
            time.sleep(3)
            judges_all_the_same(lab, 1)
            if hard == 1024 and to == "replay":  # it is one door: what is told of it is judged once
                until(lambda: "connections are open" in lab.log_text(), 20)  # some are slow to come
                status = lab.status()
                told = status["note"] if not status["running"] else " ".join(lab.troubles())
                assert "connections are open" in told
                assert scrape(lab)['afm_triage_state{state="degraded"}'] == 1
            elif hard > 1024:
                assert lab.status()["state"] == "ready"
        until(lambda: lab.status().get("state") == "ready", 30)
        put(lab.watch, 9)
        lab.wait_decided(5, 10)


@pytest.mark.parametrize("hard", [1024, pytest.param(20_000, marks=pytest.mark.long)])
def test_clients_that_hold_the_metrics_stop_neither_scrapes_nor_judging(hard: int, tmp_path: Path) -> None:
    with service(tmp_path, hard) as (lab, _), contextlib.ExitStack() as closing:
        place = ("127.0.0.1", lab.metrics_port)
        held = [closing.enter_context(socket.create_connection(place, 5)) for _ in range(1_000)]
        until(lambda: _is_scraped(lab), 10)
        for _ in range(8):  # a byte now and then
            for one in held[-20:]:
                with contextlib.suppress(OSError):
                    one.sendall(b"G")
            time.sleep(1)
        assert _is_scraped(lab)
        threads = len(os.listdir(f"/proc/{lab.pid}/task"))
        assert threads < 80, threads
        judges_all_the_same(lab, 1)


def _is_scraped(lab: Lab) -> bool:
    with contextlib.suppress(OSError):
        return bool(scrape(lab))
    return False
