"""Messages, subscriptions and requests without measure: answered or refused, in turn, and their memory comes back."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from daemon.client.feed import ask_status
from daemon.client.service_file import free_port
from tests.faults.lab import Lab, put, until
from tests.pace import allowed

pytestmark = pytest.mark.timeout(200)


@contextlib.contextmanager
def service(folder: Path) -> Iterator[tuple[Lab, str]]:
    ingest = f"tcp://127.0.0.1:{free_port()}"
    with Lab(folder, options=("--ingest", ingest)) as lab:
        put(lab.watch, 0)
        lab.wait_decided(1, 20)
        yield lab, ingest


@contextlib.contextmanager
def speaker(kind: int, address: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(kind) as socket:
        socket.linger = 0
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.connect(address)
        yield socket


@pytest.mark.parametrize("to", ["ingest", "replay"])
def test_a_message_of_16000_frames_is_refused_and_its_memory_comes_back(to: str, tmp_path: Path) -> None:
    with service(tmp_path) as (lab, ingest):
        before_mb, frame = lab.pss_mb(), os.urandom(32_768)
        with speaker(zmq.DEALER, ingest if to == "ingest" else lab.replay) as sender:
            sender.send_multipart([b'{"id": "map"}', *([frame] * 16_000)], copy=False)
            assert sender.poll(30_000)
            (answer,) = (json.loads(one) for one in sender.recv_multipart())
            assert ("instead of 3" in answer["reason"]) if to == "ingest" else ("a request is" in answer["error"])
            until(lambda: lab.pss_mb() < before_mb + 60, 20)
        put(lab.watch, 1)
        lab.wait_decided(2, 10)


class Heartbeats(threading.Thread):
    """When they came."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.address, self.over, self.heard_s = address, threading.Event(), [time.monotonic()]

    def run(self) -> None:
        with speaker(zmq.SUB, self.address) as socket:
            socket.subscribe(b"afm.afm1.heartbeat")
            while not self.over.is_set():
                if socket.poll(200):
                    socket.recv_multipart()
                    self.heard_s.append(time.monotonic())


def subscribe(lab: Lab) -> Callable[[zmq.Socket[bytes], int], None]:
    return lambda socket, number: socket.send(b"\x01no such topic %d" % number)


def ask(lab: Lab) -> Callable[[zmq.Socket[bytes], int], None]:
    return lambda socket, number: socket.send_multipart([b"status"] if number % 2 else [b"since", b"0"])


@pytest.mark.parametrize(("what", "kind"), [(subscribe, zmq.XSUB), (ask, zmq.DEALER)])
def test_a_flood_silences_neither_status_nor_heartbeat_nor_judging(
    what: Callable[[Lab], Callable[[zmq.Socket[bytes], int], None]], kind: int, tmp_path: Path
) -> None:
    with service(tmp_path) as (lab, _):
        for number in range(1, 200):
            put(lab.watch, number)
        lab.wait_decided(200, 60)
        before_mb, heartbeats = lab.pss_mb(), Heartbeats(lab.publish)
        heartbeats.start()
        with speaker(kind, lab.publish if kind == zmq.XSUB else lab.replay) as flood:
            send = what(lab)
            for number in range(100_000):
                send(flood, number)
            for number in range(200, 203):
                begun_s = time.monotonic()
                assert ask_status(lab.replay, timeout_s=2.0) is not None
                assert time.monotonic() - begun_s < allowed(2)
                put(lab.watch, number)
                lab.wait_decided(number + 1, 3)
            time.sleep(5)
        heartbeats.over.set()
        heartbeats.join(5)
        heard_s = heartbeats.heard_s
        assert len(heard_s) > 2
        assert max(later - earlier for earlier, later in itertools.pairwise(heard_s)) < 5
        until(lambda: lab.pss_mb() < before_mb + 60, 20)


@pytest.mark.long
@pytest.mark.timeout(120)
def test_two_hundred_listeners_cost_little(tmp_path: Path) -> None:
    with service(tmp_path) as (lab, _), zmq.Context() as context, contextlib.ExitStack() as held:
        alone = lab.idle_cpu_percent(6)
        for _ in range(200):
            one = held.enter_context(context.socket(zmq.SUB))
            one.linger = 0
            one.subscribe(b"")
            one.connect(lab.publish)
        time.sleep(3)
        assert lab.idle_cpu_percent(10) < alone + 5
