"""The publisher on real sockets: live, late, stalled, malformed, and gone."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from pace import allowed
from sourcehelp import until

from daemon.client.service_file import free_port
from daemon.common.errors import UserError
from daemon.ledger import Ledger, LedgerView, events
from daemon.ledger.wire import encode
from daemon.publish import Publisher
from tests.ledgerhelp import Clients, alarm, decision, decisions, ledger_with, next_of, status

ANY = "tcp://127.0.0.1:0"
Start = Callable[..., Publisher]


class Counted:
    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def published(self, kind: str, times: int) -> None:
        self.of[kind] = self.of.get(kind, 0) + times

    def replayed(self, outcome: str) -> None:
        self.of[outcome] = self.of.get(outcome, 0) + 1


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    yield ledger
    ledger.close()


@pytest.fixture
def start(ledger: Ledger) -> Iterator[Start]:
    started: list[Publisher] = []

    def begin(**options: Any) -> Publisher:
        publisher = Publisher(ledger.path, "afm1", **{"publish": ANY, "replay": ANY, **options})
        publisher.start()
        started.append(publisher)
        return publisher

    yield begin
    for publisher in started:
        publisher.stop()


@pytest.fixture
def clients() -> Iterator[Clients]:
    clients = Clients()
    yield clients
    clients.close()


def is_free(endpoint: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(endpoint.rpartition(":")[2]))) != 0


def ask(client: zmq.Socket[bytes], *frames: bytes) -> list[bytes]:
    client.send_multipart(frames)
    return client.recv_multipart()


def test_a_commit_is_heard_at_once_under_its_topic(ledger: Ledger, start: Start, clients: Clients) -> None:
    publisher = start()
    subscriber = clients.connect(zmq.SUB, publisher.publish_endpoint)
    assert next_of(subscriber, "hello")["data"]["last_seq"] == 0
    took_s = []
    for number in range(1, 31):
        ledger.record([decision(number)])
        began_s = time.monotonic()
        publisher.poke()
        event = next_of(subscriber, "decision")
        took_s.append(time.monotonic() - began_s)
        assert event["seq"] == number
        assert event["source"] == "/afm1"
    assert sorted(took_s)[15] < allowed(0.01)  # 2 ms on an idle machine
    ledger.record([decision(32)])
    publisher.poke()
    topic, body = subscriber.recv_multipart()
    while b".decision." not in topic:
        topic, body = subscriber.recv_multipart()
    assert topic == b"afm.afm1.decision.review"
    assert json.loads(body)["subject"] == "run7/curve-0032.jpk-force#0"


def test_filters_by_verdict_work(ledger: Ledger, start: Start, clients: Clients) -> None:
    publisher = start()
    everything = clients.connect(zmq.SUB, publisher.publish_endpoint)
    next_of(everything, "hello")
    keeps = clients.connect(zmq.SUB, publisher.publish_endpoint, b"afm.afm1.decision.keep")
    next_of(everything, "hello")  # said again, because the second subscription arrived too
    ledger.record(decisions(1, 7))
    publisher.poke()
    assert [json.loads(keeps.recv_multipart()[1])["seq"] for _ in range(2)] == [3, 6]


def test_every_joiner_is_greeted_with_how_far_the_ledger_is(ledger: Ledger, start: Start, clients: Clients) -> None:
    ledger.record(decisions(1, 6))
    publisher = start(heartbeat_s=60)
    for _ in range(3):
        subscriber = clients.connect(zmq.SUB, publisher.publish_endpoint)
        hello = next_of(subscriber, "hello")
        assert hello["data"]["last_seq"] == 5
        assert hello["stream"] == ledger.stream


def test_the_heart_beats_when_nothing_happens(start: Start, clients: Clients) -> None:
    publisher = start(heartbeat_s=0.1, status=status)
    subscriber = clients.connect(zmq.SUB, publisher.publish_endpoint)
    next_of(subscriber, "heartbeat")
    began_s = time.monotonic()
    for _ in range(3):
        assert next_of(subscriber, "heartbeat")["data"]["last_seq"] == 0
        assert next_of(subscriber, "status")["data"] == json.loads(encode(status()))
    assert time.monotonic() - began_s < allowed(2)


def test_notices_come_behind_the_decisions_before_them(ledger: Ledger, start: Start, clients: Clients) -> None:
    publisher = start()
    subscriber = clients.connect(zmq.SUB, publisher.publish_endpoint)
    next_of(subscriber, "hello")
    ledger.record([decision(1)])
    publisher.emit(alarm("contact", "no contact"))
    assert next_of(subscriber, "decision")["seq"] == 1
    assert next_of(subscriber, "alarm")["data"]["last_seq"] == 1


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_replay_pages_through_more_than_5000(kind: int, ledger: Ledger, start: Start, clients: Clients) -> None:
    for first in range(1, 6201, 620):
        ledger.record(decisions(first, first + 620))
    client = clients.connect(kind, start().replay_endpoint)
    first_page = ask(client, b"since", b"0")
    assert len(first_page) == 5000
    second_page = ask(client, b"since", b"5000")
    assert [json.loads(body)["seq"] for body in first_page + second_page] == list(range(1, 6201))
    assert ask(client, b"since", b"6200") == [b""]
    assert ask(client, b"since", b"9" * 19) == [b""]


def test_a_dealer_that_imitates_req_gets_its_empty_frame_back(ledger: Ledger, start: Start, clients: Clients) -> None:
    ledger.record([decision(1)])
    client = clients.connect(zmq.DEALER, start().replay_endpoint)
    empty, body = ask(client, b"", b"since", b"0")
    assert (empty, json.loads(body)["seq"]) == (b"", 1)


def test_the_status_can_be_asked_for(start: Start, clients: Clients) -> None:
    client = clients.connect(zmq.REQ, start(status=lambda: status(rate_per_s=float("nan"))).replay_endpoint)
    (body,) = ask(client, b"status")
    event = json.loads(body)
    assert event["type"] == "org.afmtriage.status.v1"
    assert (event["data"]["state"], event["data"]["rate_per_s"]) == ("ready", None)


def test_nonsense_is_counted_and_told_so(ledger: Ledger, start: Start, clients: Clients) -> None:
    ledger.record([decision(1)])
    counts = Counted()
    publisher = start(counts=counts)
    client = clients.connect(zmq.DEALER, publisher.replay_endpoint)
    nonsense = [
        (b"",),
        (b"since",),
        (b"since", b"-1"),
        (b"since", "١".encode()),
        (b"since", b"1" * 30),
        (b"\xff" * 9, b"2"),
    ]
    for frames in nonsense:
        assert b"a request is" in ask(client, *frames)[-1]
    for size in (0, 1, 1000):
        client.send_multipart([os.urandom(5)] * size or [b""])
        client.recv_multipart()
    assert len(ask(client, b"since", b"0")) == 1
    assert counts.of["malformed"] == len(nonsense) + 3


def test_a_frame_of_garbage_or_a_huge_one_hurts_only_its_sender(ledger: Ledger, start: Start, clients: Clients) -> None:
    ledger.record([decision(1)])
    publisher = start()
    huge = clients.connect(zmq.DEALER, publisher.replay_endpoint)
    huge.send_multipart([b"since", bytes(4 << 20)])  # more than a frame may hold: disconnected
    assert len(ask(clients.connect(zmq.DEALER, publisher.replay_endpoint), b"since", b"0")) == 1


def test_a_subscriber_that_reads_nothing_costs_the_service_nothing(
    ledger: Ledger, start: Start, clients: Clients
) -> None:
    """15,000 decisions past a SUB that never reads: none is held up, and its gap is filled by asking."""
    publisher = start()
    stalled = clients.connect(zmq.SUB, publisher.publish_endpoint, high_water=100)
    next_of(stalled, "hello")
    reading = clients.connect(zmq.SUB, publisher.publish_endpoint, high_water=0)
    next_of(reading, "hello")
    slowest_s, rss_before = 0.0, _rss_bytes()
    for first in range(1, 15_001, 250):
        ledger.record(decisions(first, first + 250))
        began_s = time.monotonic()
        publisher.poke()
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    assert slowest_s < allowed(0.1)  # the poke itself; far less, but this machine may be busy
    while next_of(reading, "decision")["seq"] < 15_000:
        pass
    assert _rss_bytes() - rss_before < 64 << 20
    client = clients.connect(zmq.DEALER, publisher.replay_endpoint)
    seen: list[int] = []
    while (page := ask(client, b"since", str(len(seen)).encode())) != [b""]:
        seen += [json.loads(body)["seq"] for body in page]
    assert seen == list(range(1, 15_001))


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_stop_sends_what_is_committed_and_ends_within_two_seconds(
    ledger: Ledger, start: Start, clients: Clients
) -> None:
    publisher = start()
    subscriber = clients.connect(zmq.SUB, publisher.publish_endpoint)
    next_of(subscriber, "hello")
    ledger.record(decisions(1, 101))
    began_s = time.monotonic()
    publisher.stop()
    assert time.monotonic() - began_s < allowed(2)
    assert not publisher.is_alive()
    assert [next_of(subscriber, "decision")["seq"] for _ in range(100)] == list(range(1, 101))
    publisher.poke()  # harmless afterwards


def test_a_restart_takes_its_port_back(ledger: Ledger, start: Start, clients: Clients) -> None:
    first = start(publish=f"tcp://127.0.0.1:{free_port()}", replay=f"tcp://127.0.0.1:{free_port()}")
    subscriber = clients.connect(zmq.SUB, first.publish_endpoint)
    next_of(subscriber, "hello")
    first.stop()
    for endpoint in (first.publish_endpoint, first.replay_endpoint):
        assert until(partial(is_free, endpoint))  # ZeroMQ closes in a thread of its own, in its own time
    second = start(publish=first.publish_endpoint, replay=first.replay_endpoint)
    assert next_of(subscriber, "hello")["data"]["replay"] == second.replay_endpoint


def test_a_status_that_fails_keeps_no_decision_back(ledger: Ledger, start: Start, clients: Clients) -> None:
    def fails() -> events.Status:
        raise RuntimeError("not ready")

    publisher = start(status=fails, heartbeat_s=0.05)
    subscriber = clients.connect(zmq.SUB, publisher.publish_endpoint)
    next_of(subscriber, "heartbeat")
    ledger.record([decision(1)])
    publisher.poke()
    assert next_of(subscriber, "decision")["seq"] == 1
    assert ask(clients.connect(zmq.REQ, publisher.replay_endpoint), b"status") == [b""]


def test_a_turn_that_fails_is_tried_again(
    ledger: Ledger, start: Start, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails to be read once; nothing is lost by it."""
    read, failures = LedgerView.since, [OSError("no such device")]

    def since(view: LedgerView, *words: Any) -> Any:
        if failures and words[0] == 2:
            raise failures.pop()
        return read(view, *words)

    monkeypatch.setattr(LedgerView, "since", since)
    publisher = start()
    subscriber = clients.connect(zmq.SUB, publisher.publish_endpoint)
    next_of(subscriber, "hello")
    ledger.record(decisions(1, 3))
    publisher.poke()
    assert next_of(subscriber, "decision")["seq"] == 1
    ledger.record([decision(3)])
    publisher.poke()
    assert [next_of(subscriber, "decision")["seq"] for _ in range(2)] == [2, 3]
    assert failures == []


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:0", "tcp://*:5795", "tcp://[::]:0", "tcp://eth0:5795"])
def test_an_address_others_could_reach_is_refused(endpoint: str, ledger: Ledger) -> None:
    with pytest.raises(UserError, match="CURVE") as refusal:
        Publisher(ledger.path, "afm1", publish=endpoint, replay=ANY)
    assert refusal.value.exit_code == 78


def test_a_taken_port_is_named_with_the_flag_to_change(ledger: Ledger, start: Start) -> None:
    taken = start().publish_endpoint
    with pytest.raises(UserError, match=re.escape(f"--replay {taken} is taken")) as refusal:
        Publisher(ledger.path, "afm1", publish=ANY, replay=taken)
    assert refusal.value.exit_code == 69


def test_an_ipc_socket_works(tmp_path: Path, start: Start, clients: Clients) -> None:
    publisher = start(publish=f"ipc://{tmp_path}/publish", replay=f"ipc://{tmp_path}/replay")
    assert next_of(clients.connect(zmq.SUB, publisher.publish_endpoint), "hello")


def test_an_event_is_one_line_of_what_json_knows() -> None:
    numbers = (1, 2.5, True, None, np.float32(0.5), np.int64(2), np.float64(1 / 3))
    assert encode({"x": numbers, "y": "é"}) == '{"x":[1,2.5,true,null,0.5,2,0.3333333333333333],"y":"é"}'.encode()
    assert encode({"x": [math.nan, np.float32(math.inf)], "y": "a\udcff"}) == b'{"x":[null,null],"y":"a\\udcff"}'
    with pytest.raises(TypeError, match="object has no place in an event"):
        encode({"x": object()})


def test_a_damaged_decision_is_not_replayed(tmp_path: Path, start: Start, clients: Clients) -> None:
    other = tmp_path / "other.sqlite"
    ledger_with(other, 5).close()
    with sqlite3.connect(other) as connection:
        connection.execute("update decisions set verdict = 'discard' where seq = 3")
    connection.close()
    publisher = Publisher(other, "afm1", publish=ANY, replay=ANY)
    publisher.start()
    try:
        client = clients.connect(zmq.DEALER, publisher.replay_endpoint)
        assert len(ask(client, b"since", b"0")) == 2
        client.send_multipart([b"since", b"2"])
        assert not client.poll(300)  # silence, not the lie that there is nothing
        assert len(ask(client, b"since", b"3")) == 2
    finally:
        publisher.stop()
