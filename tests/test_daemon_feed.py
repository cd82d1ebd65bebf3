"""The feed and the `events` verb: every decision once, in order, whatever is lost or restarted in between."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import zmq
from pace import allowed

from daemon.client.feed import Feed, SilenceLimit, Silent
from daemon.common.errors import UserError
from daemon.ledger import Ledger
from daemon.ledger.events import kind_of
from daemon.ledger.wire import Event
from daemon.publish import Publisher
from tests.ledgerhelp import alarm, decision, decisions, ledger_with, status

ROOT = Path(__file__).resolve().parents[1]
ANY = "tcp://127.0.0.1:0"


class Service:
    """A ledger and its publisher, which can be stopped and started again on the same ports."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(path, "afm1")
        self.publish = self.replay = ANY
        self.start()

    def start(self) -> None:
        self.publisher = Publisher(
            self.ledger.path, "afm1", publish=self.publish, replay=self.replay, status=status, heartbeat_s=0.1
        )
        self.publish, self.replay = self.publisher.publish_endpoint, self.publisher.replay_endpoint
        self.publisher.start()

    def record(self, start: int, stop: int) -> None:
        self.ledger.record(decisions(start, stop))
        self.publisher.poke()

    def close(self) -> None:
        self.publisher.stop()
        self.ledger.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "ledger.sqlite")
    yield service
    service.close()


def seqs(found: Iterator[Event], count: int) -> list[int]:
    return list(islice((event["seq"] for event in found if kind_of(event) == "decision"), count))


def test_history_then_live_without_a_gap(service: Service) -> None:
    for first in range(1, 7001, 1000):
        service.record(first, first + 1000)
    with Feed(service.publish, service.replay, since=0) as feed:
        assert [event["seq"] for event in feed.history()] == list(range(1, 7001))
        service.record(7001, 7011)
        assert seqs(iter(feed), 10) == list(range(7001, 7011))


def test_from_now_means_from_now(service: Service) -> None:
    service.record(1, 11)
    with Feed(service.publish, service.replay, since=0) as feed:  # until they have been published
        next(event for event in feed if kind_of(event) != "decision" and event["data"]["last_seq"] == 10)
    with Feed(service.publish, service.replay) as feed:
        assert list(feed.history()) == []
        service.record(11, 13)
        assert seqs(iter(feed), 2) == [11, 12]


def test_joining_at_any_moment_is_complete(service: Service) -> None:
    """Twenty subscribers join while decisions are being made; each ends with the whole history."""
    rng, results, total = random.Random(3), {}, 600

    def join(number: int, wait_s: float) -> None:
        time.sleep(wait_s)
        with Feed(service.publish, service.replay, since=0) as feed:
            results[number] = seqs(iter(feed), total)

    joiners = [threading.Thread(target=join, args=(number, rng.uniform(0, 0.5))) for number in range(20)]
    for joiner in joiners:
        joiner.start()
    for first in range(1, total + 1, 4):
        service.record(first, first + 4)
    for joiner in joiners:
        joiner.join(20)
    assert [results.get(number) for number in range(20)] == [list(range(1, total + 1))] * 20


def test_what_is_lost_live_is_asked_for(service: Service) -> None:
    """A live feed that drops two of three events, repeats some and talks nonsense."""
    service.record(1, 6)
    context: zmq.Context[Any] = zmq.Context()
    lossy = context.socket(zmq.XPUB)
    port = lossy.bind_to_random_port("tcp://127.0.0.1")
    try:
        with Feed(f"tcp://127.0.0.1:{port}", service.replay, since=0) as feed:
            found = seqs(iter(feed), 5)
            assert lossy.recv() == b"\x01"
            service.ledger.record(decisions(6, 301))
            with service.ledger.view() as view:
                bodies = [body for _, body in view.bodies_since(0)]
            for number in range(2, 300, 3):
                lossy.send_multipart([b"afm.afm1.decision.keep", bodies[number]])
                lossy.send_multipart([b"afm.afm1.decision.keep", bodies[max(number - 20, 0)]])
                lossy.send_multipart([b"nonsense", b"\xff\x00", b"{}"])
            assert found + seqs(iter(feed), 295) == list(range(1, 301))
    finally:
        lossy.close(linger=0)
        context.term()


def test_a_restart_of_the_service_is_survived(service: Service) -> None:
    with Feed(service.publish, service.replay, since=0) as feed:
        service.record(1, 6)
        assert seqs(iter(feed), 5) == [1, 2, 3, 4, 5]
        for first in (6, 16):
            service.publisher.stop()
            service.ledger.record(decisions(first, first + 5))  # committed, and nobody there to tell
            service.start()
            service.record(first + 5, first + 10)
            assert seqs(iter(feed), 10) == list(range(first, first + 10))


def test_another_ledger_begins_at_1_and_is_delivered_whole(service: Service, tmp_path: Path) -> None:
    service.record(1, 6)
    with Feed(service.publish, service.replay, since=0) as feed:
        assert seqs(iter(feed), 5) == [1, 2, 3, 4, 5]
        old = feed.stream
        service.publisher.stop()
        service.ledger.close()
        service.ledger = ledger_with(tmp_path / "new.sqlite", 3)
        service.start()
        assert seqs(iter(feed), 3) == [1, 2, 3]
        assert feed.stream == service.ledger.stream != old


def put_back(service: Service, copy: bytes, announced: str) -> None:
    """A snapshot of the ledger, with the note that it has beside it, and the service started again."""
    service.publisher.stop()
    service.ledger.close()
    service.ledger.path.write_bytes(copy)
    service.ledger.path.with_name("ledger.sqlite-announced").write_text(announced)
    service.ledger = Ledger(service.ledger.path, "afm1")
    service.start()


def test_a_ledger_that_was_put_back_is_delivered_to_its_end(service: Service) -> None:
    """Each decision once, whether a listener was there before, in between or after: (stream, seq) tells them apart."""
    service.record(1, 6)
    first = service.ledger.stream
    service.ledger.close()
    copy = service.ledger.path.read_bytes()
    service.ledger = Ledger(service.ledger.path, "afm1")
    with (
        Feed(service.publish, service.replay, since=0) as ahead,
        Feed(service.publish, service.replay, since=4) as late,
    ):
        service.record(6, 9)
        assert (seqs(iter(ahead), 8), seqs(iter(late), 4)) == (list(range(1, 9)), list(range(5, 9)))
        put_back(service, copy, f"{first} 6\n")
        second = service.ledger.stream
        service.ledger.record(decisions(6, 10))
        service.publisher.poke()
        for feed in (ahead, late):
            assert [(one["stream"], one["seq"]) for one in decided(feed, 4)] == [(second, seq) for seq in range(6, 10)]
        with Feed(service.publish, service.replay, since=0) as feed:
            told = [(one["stream"], one["seq"]) for one in feed.history()]
            assert told == [(first if seq < 6 else second, seq) for seq in range(1, 10)]
        put_back(service, copy, f"{first} 6\n")  # once more, and shorter than what is known
        third = service.ledger.stream
        service.record(6, 8)
        for feed in (ahead, late):
            assert [(one["stream"], one["seq"]) for one in decided(feed, 2)] == [(third, 6), (third, 7)]


def decided(feed: Feed, count: int) -> list[Event]:
    return list(islice((event for event in feed if kind_of(event) == "decision"), count))


def test_other_kinds_pass_through(service: Service) -> None:
    with Feed(service.publish, service.replay) as feed:
        assert kind_of(next(iter(feed))) in ("hello", "heartbeat", "status")
        service.publisher.emit(alarm("disk", "full"))
        assert any(kind_of(event) == "alarm" for event in islice(feed, 20))


def test_nobody_there_is_noticed_even_while_the_heart_beats(service: Service) -> None:
    with Feed(service.publish, "tcp://127.0.0.1:9", since=0, answer_s=0.4) as feed, pytest.raises(Silent):
        list(feed.history())


def events_verb(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "daemon", "events", *words], cwd=ROOT, text=True, capture_output=True, check=False
    )


def printed(done: subprocess.CompletedProcess[str]) -> list[int]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["seq"] for line in done.stdout.splitlines()]


def test_events_prints_the_history_and_ends(service: Service) -> None:
    service.record(1, 31)
    where = ("--publish", service.publish, "--replay", service.replay)
    assert printed(events_verb("--since", "0", *where)) == list(range(1, 31))
    assert printed(events_verb("--since", "20", "--verdict", "review", *where)) == [23, 26, 29]
    now = events_verb(*where)
    assert printed(now) == []
    assert "--since 0" in now.stderr


def test_events_of_one_instrument_are_not_those_of_another(service: Service, tmp_path: Path) -> None:
    (tmp_path / "ninth").mkdir()
    service.record(1, 4)
    where = ("--since", "0", "--state", str(tmp_path), "--publish", service.publish, "--replay", service.replay)
    other = events_verb(*where, "--instrument", "afm9")
    assert (other.returncode, other.stdout, other.stderr.count("\n")) == (69, "", 1)
    assert f"afm1 answers at {service.replay}, not afm9" in other.stderr
    assert printed(events_verb(*where, "--instrument", "afm1")) == [1, 2, 3]
    nowhere = (*where, "--state", str(tmp_path / "none"), "--instrument", "afm9")
    assert events_verb(*nowhere).returncode == 69
    ledger_with(tmp_path / "ninth" / "ledger.sqlite", 5).close()  # afm9 is down, and its history is there
    down = (*where, "--state", str(tmp_path / "ninth"), "--instrument", "afm9")
    assert printed(events_verb(*down)) == [1, 2, 3, 4, 5]
    assert events_verb(*down, "--follow").returncode == 69


def test_events_follow_goes_on_across_a_restart(service: Service) -> None:
    service.record(1, 4)
    where = ("--publish", service.publish, "--replay", service.replay)
    following = subprocess.Popen(
        [sys.executable, "-m", "daemon", "events", "--since", "1", "--follow", *where],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert following.stdout is not None
    try:
        assert [json.loads(following.stdout.readline())["seq"] for _ in range(2)] == [2, 3]
        service.publisher.stop()
        service.ledger.record([decision(4)])
        service.start()
        assert json.loads(following.stdout.readline())["seq"] == 4
    finally:
        following.terminate()
        following.stdout.close()
        following.wait()


def test_events_follow_gives_up_once_its_patience_is_at_its_end_and_not_before(tmp_path: Path) -> None:
    ledger_with(tmp_path / "ledger.sqlite", 3).close()
    silent = ("--publish", "tcp://127.0.0.1:9", "--replay", "tcp://127.0.0.1:9")
    begun_s = time.monotonic()
    done = events_verb("--since", "1", "--follow", "--patience", "2.5", "--state", str(tmp_path), *silent)
    assert 2.0 < time.monotonic() - begun_s < allowed(8.0)
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [2, 3]
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    assert "no service has answered at tcp://127.0.0.1:9 for" in done.stderr


def test_the_patience_of_events_begins_anew_with_every_sign_of_life(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.client.feed.SILENCE_S", 0.0)
    silence = SilenceLimit(1.0, service.replay)
    with Feed(service.publish, service.replay, since=0) as feed:
        for _ in range(2):  # away for less than the patience, twice, which together is more
            hear(feed, silence)
            service.publisher.stop()
            for _ in range(3):
                silence.note(heard=bool(feed.read(0.2)))
            service.start()
        hear(feed, silence)
        service.publisher.stop()
        begun_s = time.monotonic()
        with pytest.raises(UserError):
            listen(feed, silence, until_s=begun_s + 10.0)
        assert 0.9 < time.monotonic() - begun_s < allowed(5.0)


def hear(feed: Feed, silence: SilenceLimit) -> None:
    while not feed.read(0.2):
        silence.note(heard=False)
    silence.note(heard=True)


def listen(feed: Feed, silence: SilenceLimit, until_s: float) -> None:
    while time.monotonic() < until_s:
        silence.note(heard=bool(feed.read(0.2)))


def test_a_process_that_was_stopped_has_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3600.0, 3601.0, 7200.0])
    monkeypatch.setattr("daemon.client.feed.why_deaf", lambda *_: "")  # asks the clock too
    monkeypatch.setattr("daemon.client.feed.time.monotonic", lambda: next(clock))
    silence = SilenceLimit(7.5, "tcp://127.0.0.1:9")
    for _ in range(3):
        silence.note(heard=False)
    with pytest.raises(UserError):
        silence.note(heard=False)


@pytest.mark.parametrize(("text", "is_fine"), [("0", True), ("inf", True), ("-1", False), ("nan", False), ("a", False)])
def test_patience_is_seconds(text: str, is_fine: bool, tmp_path: Path) -> None:
    silent = ("--publish", "tcp://127.0.0.1:9", "--replay", "tcp://127.0.0.1:9")
    ledger_with(tmp_path / "ledger.sqlite", 1).close()
    done = events_verb("--since", "0", "--patience", text, "--state", str(tmp_path), *silent)
    assert done.returncode == (0 if is_fine else 64), done.stderr


def test_events_reads_the_ledger_when_the_service_is_down(tmp_path: Path) -> None:
    ledger_with(tmp_path / "ledger.sqlite", 12).close()
    silent = ("--publish", "tcp://127.0.0.1:9", "--replay", "tcp://127.0.0.1:9")
    assert printed(events_verb("--since", "2", "--state", str(tmp_path), *silent)) == list(range(3, 13))


def test_events_without_service_or_ledger_says_so_in_one_line(tmp_path: Path) -> None:
    done = events_verb("--since", "0", "--state", str(tmp_path), "--replay", "tcp://127.0.0.1:9")
    assert done.returncode == 69
    assert done.stderr.count("\n") == 1
    assert "start the service" in done.stderr
    assert events_verb("--since", "-3").returncode == 64
