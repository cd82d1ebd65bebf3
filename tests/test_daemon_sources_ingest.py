"""Curves over ZeroMQ: a real DEALER, a real disk, and "accepted" never before the bytes are there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from pace import allowed
from sourcehelp import until

from daemon.client.service_file import free_port
from daemon.common.errors import UserError
from daemon.formats.afmcurve import unpack
from daemon.sources import Arrival
from daemon.sources.ingest import IngestSource
from daemon.sources.message import Refused, parse

FORCE = np.linspace(-1e-9, 1e-9, 200)
DISTANCE = np.linspace(0.0, 5e-7, 200)
HEADER = {
    "id": "c1",
    "name": "run/curve 1",
    "dtype": "<f8",
    "force_unit": "N",
    "pulling": "negative",
    "distance_grows": "towards",
}


def frames(force: Any = FORCE, distance: Any = DISTANCE, **header: Any) -> list[bytes]:
    return [json.dumps(HEADER | header).encode(), np.asarray(force).tobytes(), np.asarray(distance).tobytes()]


class Sender:
    def __init__(self, endpoint: str, kind: int = zmq.DEALER) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.linger = 0
        self.socket.connect(endpoint)

    def send(self, parts: list[bytes], timeout_s: float = 5.0) -> dict[str, Any]:
        self.socket.send_multipart(parts)
        return self.answer(timeout_s)

    def answer(self, timeout_s: float = 5.0) -> dict[str, Any]:
        assert self.socket.poll(int(timeout_s * 1000)), "no answer"
        (body,) = self.socket.recv_multipart()
        return json.loads(body)

    def close(self) -> None:
        self.context.destroy(linger=0)


class Ingest:
    def __init__(self, folder: Path, endpoint: str = "tcp://127.0.0.1:0", **changes: Any) -> None:
        self.wake, self.seen, self.refused = threading.Event(), 0, 0
        self.source = IngestSource(
            endpoint, folder, wake=self.wake.set, seen=self._saw, refused=self._refuse, **changes
        )
        self.source.start()
        self.sender = Sender(self.source.endpoint)

    def _saw(self, count: int) -> None:
        self.seen += count

    def _refuse(self, reason: str) -> None:
        self.refused += 1

    def take(self, count: int = 1) -> list[Arrival]:
        assert until(lambda: self.source.ready() >= count, 3.0)
        return self.source.take(count, 0)

    def stop(self) -> None:
        self.sender.close()
        self.source.stop()


@pytest.fixture
def ingest(tmp_path: Path) -> Iterator[Ingest]:
    running = Ingest(tmp_path / "ingest")
    yield running
    running.stop()


def test_accepted_means_on_disk_oriented_and_offered_once(ingest: Ingest, tmp_path: Path) -> None:
    assert ingest.sender.send(frames()) == {"id": "c1", "status": "accepted", "reason": None}
    (file,) = (tmp_path / "ingest").glob("*/*.afmcurve")  # before anything else has happened
    curve, meta = unpack(file.read_bytes())
    np.testing.assert_array_equal(curve.force, -FORCE)
    np.testing.assert_array_equal(curve.distance, -DISTANCE)
    assert (curve.force_unit, curve.distance_kind, meta["name"]) == ("N", "piezo", "run/curve 1")
    (arrival,) = ingest.take()
    assert (arrival.source, arrival.path, arrival.file, arrival.known_curve) == ("ingest", "run/curve 1", file, "c1")
    assert 0 <= time.monotonic() - arrival.noticed_s < allowed(1)
    assert ingest.sender.send(frames(attempt=2))["status"] == "accepted"  # the same curve: its answer was lost
    assert (ingest.source.ready(), ingest.seen) == (0, 1)
    assert unpack(file.read_bytes())[0].force[0] == -FORCE[0]


def test_segments_choose_the_retract_and_keep_the_approach() -> None:
    header = {
        "segments": [["Approach", 0, 80], ["pause", 80, 100], ["retract", 100, 200]],
        "spring_constant_n_per_m": 0.05,
        "sensitivity_m_per_v": 1e-7,
        "distance_kind": "separation",
        "pulling": "positive",
        "distance_grows": "away",
        "operator": "kept, whatever it is",
    }
    message = parse(frames(**header))
    np.testing.assert_array_equal(message.curve.force, FORCE[100:])
    np.testing.assert_array_equal(message.curve.distance, DISTANCE[100:])
    np.testing.assert_array_equal(message.curve.approach_force, FORCE[:80])
    assert message.curve.spring_constant_n_per_m == 0.05
    assert message.curve.distance_kind == "separation"
    assert message.header["operator"]
    alone = parse(frames(distance=np.array([])))
    assert (alone.curve.distance, alone.curve.distance_kind) == (None, None)
    singles = parse([json.dumps(HEADER | {"dtype": "<f4"}).encode(), b"\0\0\x80?" * 3, b"\0\0\xc0\x7f" * 3])
    assert singles.curve.force.tolist() == [-1.0] * 3
    assert np.isnan(singles.curve.distance).all()  # finite or not is for the front-end to say


BAD: list[tuple[str, list[bytes]]] = [
    ("3: header", []),
    ("3: header", [b"x"]),
    ("3: header", [*frames(), b"more"]),
    ("not JSON", [b"\xff\xfe", b"", b""]),
    ("not JSON", [b"[" * 50_000, b"", b""]),
    ("not JSON", [b'{"id": NaN}', b"", b""]),
    ("JSON object", [b"[1]", b"", b""]),
    ("bytes; at most", [b"{" + b" " * 70_000 + b"}", b"", b""]),
    ("id: a text", frames(id=7)),
    ("id: at most", frames(id="x" * 300)),
    ("id: at most", frames(id="a\nb")),
    ("id: at most", frames(id="\ud800")),
    ("name: a text", frames(name="")),
    ("name", frames(name="../../etc/passwd")),
    ("name", frames(name="a\\..\\b")),
    ("dtype", frames(dtype="<i4")),
    ("dtype", frames(dtype=["<f8"])),
    ("force_unit", frames(force_unit="pN")),
    ("pulling", frames(pulling=True)),
    ("distance_grows", frames(distance_grows=None)),
    ("distance_kind", frames(distance_kind="height")),
    ("spring_constant_n_per_m: a number", frames(spring_constant_n_per_m="0.1")),
    ("spring_constant_n_per_m: a positive", frames(spring_constant_n_per_m=-1)),
    ("sensitivity_m_per_v: a positive", frames(sensitivity_m_per_v=10**400)),
    ("200 samples and distance 199", frames(distance=DISTANCE[1:])),
    ("force: 0 bytes", frames(force=np.array([]))),
    ("force: 1599 bytes", [frames()[0], frames()[1][1:], frames()[2]]),
    ("segments: a list", frames(segments={})),
    ("segments: one retract", frames(segments=[["approach", 0, 200]])),
    ("segments: one retract", frames(segments=[["retract", 0, 100], ["retract", 100, 200]])),
    ("segments: [style", frames(segments=[["retract", 0, 201]])),
    ("segments: [style", frames(segments=[["retract", 0.0, 100]])),
    ("segments: [style", frames(segments=[["retract", True, 100]])),
    ("segments: [style", frames(segments=["retract"])),
]


@pytest.mark.parametrize(("why", "parts"), BAD, ids=[f"{number}-{why}" for number, (why, _) in enumerate(BAD)])
def test_what_is_no_curve_is_refused_in_one_line(why: str, parts: list[bytes]) -> None:
    with pytest.raises(Refused, match=why.replace("[", r"\[")) as refusal:
        parse(parts)
    assert "\n" not in str(refusal.value)


OTHERS = [
    {"force": 2 * FORCE},
    {"distance": 2 * DISTANCE},
    {"force": FORCE[:-1], "distance": DISTANCE[:-1]},
    {"name": "run/curve 2"},
    {"pulling": "positive"},
    {"force_unit": "V"},
    {"spring_constant_n_per_m": 0.05},
]


def test_an_id_belongs_to_one_curve_also_when_it_is_decided_and_after_a_restart(tmp_path: Path) -> None:
    refused = {"id": "c1", "status": "refused", "reason": 'id: "c1" was given to another curve'}
    running = Ingest(tmp_path / "ingest")
    try:
        assert running.sender.send(frames())["status"] == "accepted"
        assert [running.sender.send(frames(**other)) for other in OTHERS] == [refused] * len(OTHERS)
        (arrival,) = running.take()
        arrival.done()
        assert running.sender.send(frames(force=2 * FORCE)) == refused
    finally:
        running.stop()
    running = Ingest(tmp_path / "ingest")
    try:
        assert running.sender.send(frames(force=2 * FORCE)) == refused
        assert running.sender.send(frames())["status"] == "accepted"
        assert (running.source.ready(), running.refused) == (0, 1)
        np.testing.assert_array_equal(unpack(arrival.file.read_bytes())[0].force, -FORCE)
    finally:
        running.stop()


def test_two_curves_of_one_id_that_come_together_get_two_answers(ingest: Ingest) -> None:
    for number in range(20):
        ingest.sender.socket.send_multipart(frames(id=f"c{number // 2}", force=FORCE * (1 + number)))
    assert [ingest.sender.answer()["status"] for _ in range(20)] == ["accepted", "refused"] * 10
    assert ingest.source.ready() == 10


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda file: file.write_bytes(b"rotten"), lambda f: os.truncate(f, 900)]
)
def test_where_the_first_curve_cannot_be_read_any_more_none_is_taken_for_it(ingest: Ingest, damage: Any) -> None:
    ingest.sender.send(frames())
    damage(ingest.take()[0].file)
    answer = ingest.sender.send(frames())
    assert (answer["status"], answer["id"]) == ("refused", "c1")
    assert answer["reason"].startswith('id: "c1" is known, but its curve cannot be read any more')
    assert ingest.source.health()[0].ok


def test_garbage_is_counted_and_the_next_curve_goes_on(ingest: Ingest, tmp_path: Path) -> None:
    assert ingest.sender.send(frames(id="c2", name="../x"))["status"] == "refused"
    assert ingest.sender.send([b"\0" * 100])["id"] is None
    with socket.create_connection(("127.0.0.1", int(ingest.source.endpoint.rsplit(":", 1)[1]))) as scanner:
        scanner.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(4096))
    rng = np.random.default_rng(3)
    for _ in range(200):
        ingest.sender.socket.send_multipart([rng.bytes(int(rng.integers(1, 60))) for _ in range(rng.integers(1, 5))])
    for _ in range(200):
        assert ingest.sender.answer()["status"] == "refused"
    assert ingest.sender.send(frames(id="c3"))["status"] == "accepted"
    assert until(lambda: ingest.refused >= 202)  # to ZeroMQ the scanner's bytes may be a message, too
    assert [arrival.known_curve for arrival in ingest.take()] == ["c3"]
    assert ingest.source.health()[0].detail == f"1 accepted, {ingest.refused} refused since start"


def test_a_req_socket_works_too(ingest: Ingest) -> None:
    asker = Sender(ingest.source.endpoint, zmq.REQ)
    try:
        assert asker.send(frames(id="q"))["status"] == "accepted"
    finally:
        asker.close()


def test_a_sender_that_never_reads_holds_up_nobody(ingest: Ingest) -> None:
    deaf = Sender(ingest.source.endpoint)
    try:
        for number in range(100):
            deaf.socket.send_multipart(frames(id=f"deaf{number}", force=FORCE[:3], distance=DISTANCE[:3]))
        assert ingest.sender.send(frames(id="mine"), 10.0)["status"] == "accepted"
        assert until(lambda: ingest.source.ready() == 101)
    finally:
        deaf.close()


def test_after_a_restart_the_undecided_come_again_and_only_they(tmp_path: Path) -> None:
    first = Ingest(tmp_path / "ingest")
    for number in range(4):
        first.sender.send(frames(id=f"c{number}"))
    arrivals = first.take(4)
    for arrival in arrivals[:2]:
        arrival.done()
    first.stop()
    day = arrivals[0].file.parent
    (day / "half.tmp").write_bytes(b"never answered")
    (day / "rotten.afmcurve").write_bytes(b"not a curve")
    second = Ingest(tmp_path / "ingest")
    try:
        assert second.seen == second.source.ready() == 3
        again = {arrival.known_curve: arrival for arrival in second.take(3)}
        assert set(again) == {"c2", "c3", None}  # the rotten one is offered for its reason
        assert again["c2"].path == "run/curve 1"
        assert second.sender.send(frames(id="c0"))["status"] == "accepted"  # decided long ago
        assert second.source.ready() == 0
        assert not (day / "half.tmp").exists()
    finally:
        second.stop()


def test_deferred_curves_come_back_and_then_a_last_time(ingest: Ingest) -> None:
    ingest.sender.send(frames())
    finals = []
    for _ in range(4):
        (arrival,) = ingest.take()
        finals.append(arrival.final)
        arrival.later("no_permission")
    assert finals == [False, False, False, True]
    assert ingest.seen == 1


def test_a_full_disk_is_said_and_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("daemon.sources.message.pack", full)
    ingest = Ingest(tmp_path / "ingest")
    try:
        answer = ingest.sender.send(frames())
        assert (answer["status"], answer["id"]) == ("refused", "c1")
        assert "No space left" in answer["reason"]
        assert not ingest.source.health()[0].ok
        assert ingest.source.ready() == 0
    finally:
        ingest.stop()


def test_addresses_that_cannot_be_bound(ingest: Ingest, tmp_path: Path) -> None:
    for endpoint, words in [
        (ingest.source.endpoint, "taken"),
        ("tcp://0.0.0.0:0", "other machines"),
        ("nonsense", "endpoint"),
    ]:
        with pytest.raises(UserError, match=words):
            Ingest(tmp_path / "other", endpoint)


SERVER = """
import sys, threading, time
from pathlib import Path
from daemon.sources.ingest import IngestSource
source = IngestSource(sys.argv[1], Path(sys.argv[2]), wake=lambda: None)
source.start()
while True:
    for arrival in source.take(100, 0):
        with open(sys.argv[3], "a") as journal:  # the ledger: decided, then settled
            journal.write(f"{arrival.known_curve}\\n")
        arrival.done()
    time.sleep(0.005)
"""


def test_killed_again_and_again_no_accepted_curve_is_lost(tmp_path: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    journal = tmp_path / "journal"
    command = [sys.executable, "-c", SERVER, endpoint, str(tmp_path / "ingest"), str(journal)]
    server = subprocess.Popen(command)
    sender = Sender(endpoint)
    rng = np.random.default_rng(7)
    try:
        for number in range(60):
            parts = frames(id=f"c{number}", force=FORCE[:50], distance=DISTANCE[:50])
            if number % 20 == 10:
                sender.socket.send_multipart(parts)
                time.sleep(float(rng.uniform(0, 0.004)))
                server.send_signal(signal.SIGKILL)
                server.wait()
                server = subprocess.Popen(command)
            status = None
            while status != "accepted":  # as a client must: ask again until it is answered, with the same id
                sender.socket.send_multipart(parts)
                while status != "accepted" and sender.socket.poll(1000):
                    answer = json.loads(sender.socket.recv())
                    status = answer["status"] if answer["id"] == f"c{number}" else None
        wanted = {f"c{number}" for number in range(60)}
        assert until(lambda: set(journal.read_text().split()) == wanted, 10.0)
    finally:
        sender.close()
        server.kill()
        server.wait()
