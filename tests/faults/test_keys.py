"""A service that other machines can reach: strangers by the thousand, a key that is revoked, verbs that need none."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path

import pytest
import zmq

from daemon.cli import main
from daemon.client.feed import Feed, ask_status, why_deaf
from daemon.client.service_file import free_port
from daemon.common.keys import Key, read_client
from tests.faults.lab import Lab, put, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(47)
_GIGABYTE = b"\x06" + (1 << 30).to_bytes(8, "big")  # the head of one frame: a command, long


def strangers(ports: list[int], held: contextlib.ExitStack) -> None:
    """1,000 times 64 KiB of nothing, 500 that stop within their greeting, 100 that announce a frame of a gigabyte."""
    for number in range(1_600):
        one = held.enter_context(socket.socket()) if number >= 1_000 else socket.socket()
        with contextlib.suppress(OSError):
            one.settimeout(2)
            one.connect(("127.0.0.1", ports[number % len(ports)]))
            if number < 1_000:
                one.sendall(os.urandom(1 << 16))
                one.close()
            elif number < 1_500:
                one.sendall(_GREETING[:11])
            else:
                one.sendall(_GREETING + _GIGABYTE + bytes(1 << 16))


def test_strangers_hear_nothing_and_stop_nobody_and_who_is_revoked_hears_nothing_more(tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("publish", "replay", "ingest")}
    opened = tuple(word for name, port in ports.items() for word in (f"--{name}", f"tcp://0.0.0.0:{port}"))
    publish, replay = (f"tcp://127.0.0.1:{ports[name]}" for name in ("publish", "replay"))
    lab = Lab(tmp_path, options=opened)
    state = ("--state", str(lab.state))
    for name in ("anna", "bela"):
        assert main(["keys", "new", name, "--out", str(tmp_path / f"{name}.key"), *state]) == 0
    anna, bela = (read_client(tmp_path / f"{name}.key", "key") for name in ("anna", "bela"))
    lab.publish, lab.replay = publish, replay
    lab.start()
    with zmq.Context() as context, contextlib.ExitStack() as held:
        held.callback(lab.close)
        until(lambda: ask_status(replay, 1.0, anna) is not None, 60)
        deaf = [held.enter_context(context.socket(zmq.SUB)) for _ in range(2)]
        Key.new("eve", anna.server).apply(deaf[0])  # the other one comes without a key
        for one in deaf:
            one.linger = 0
            one.subscribe(b"")
            one.connect(publish)
        feeds = [held.enter_context(Feed(publish, replay, since=0, key=key)) for key in (anna, bela)]
        put(lab.watch, 0)
        lab.wait_decided(1, 10)
        before_mb = lab.pss_mb()
        strangers(list(ports.values()), held)
        put(lab.watch, 1)
        assert lab.wait_decided(2, 10) < 5
        assert ask_status(replay, 5.0, anna) is not None
        heard: list[list[int]] = [[], []]

        def listen(which: int, for_s: float) -> list[int]:
            deadline_s = time.monotonic() + for_s
            while time.monotonic() < deadline_s:
                heard[which] += [one["seq"] for one in feeds[which].read(0.1) if one["type"].endswith("decision.v1")]
            return heard[which]

        for which in (0, 1):
            until(lambda which=which: listen(which, 0.1) == [1, 2], 10)
        listed = json.loads(lab.run("events", "--since", "0", *state).stdout.splitlines()[-1])
        assert listed["seq"] == 2, "the verbs of this computer need no key"
        assert main(["keys", "revoke", "bela", *state]) == 0
        until(lambda: "does not let in" in why_deaf(replay, bela), 5)
        listen(0, 2.5)  # until the connections that stood are closed
        put(lab.watch, 2)
        lab.wait_decided(3, 10)
        until(lambda: listen(0, 0.1) == [1, 2, 3], 10)
        assert listen(1, 0.5) == [1, 2]
        assert not any(one.poll(0) for one in deaf)
        until(lambda: lab.pss_mb() < before_mb + 60, 20)
        assert "Traceback" not in lab.log_text()
        elsewhere = lab.run("status", "--json", "--replay", replay, "--key", tmp_path / "anna.key")
        assert (elsewhere.returncode, json.loads(elsewhere.stdout)["last_seq"]) == (0, 3)
