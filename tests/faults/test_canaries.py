"""kill -9 among canaries: none is ever a decision, nor in a subscriber's seq, and the books balance at every scrape."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from pathlib import Path
from urllib.error import URLError

import pytest
import zmq

from daemon.sources import CANARY
from tests.faults.harness import Findings, history, identity_holds, judge, scrape
from tests.faults.lab import Lab, put, until

#: As `python -m daemon`, with ten times as many canaries, from the first moment on.
EAGER = """
from daemon.cli import main
from daemon.guard import canaries
canaries.START_S, canaries.AT_REST_PER_S = 0.0, 50.0
raise SystemExit(main())
"""


class EagerLab(Lab):
    def command(self) -> list[str]:
        return [sys.executable, "-c", EAGER, *super().command()[3:]]

    def canaries(self) -> dict[str, float]:
        """How many came to what, of one scrape, in which the books must balance; nothing while it is not answered."""
        try:
            numbers = scrape(self)
        except URLError:  # the service answers on its sockets a moment earlier
            return {}
        assert identity_holds(numbers)
        name = f"afm_triage_{CANARY}_total"
        return {key: value for key, value in numbers.items() if key.startswith(name) and value}


def kill_among_canaries(folder: Path, kills: int, seed: int) -> tuple[Findings, list[int], int]:
    """What the ledger holds, every ``seq`` that a subscriber heard, and how many canaries had come out by the kills.

    In the last life the subscriber is there before the first of five curves.
    """
    rng, written, came_out = random.Random(seed), list[str](), 0
    lab = EagerLab(folder)
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.linger = 0
        subscriber.subscribe(b"afm.afm1.hello")
        subscriber.connect(lab.publish)
        try:
            for _ in range(kills):
                lab.start()
                lab.wait_ready()
                for _ in range(3):
                    written.append(put(lab.watch, len(written)).name)
                until(lambda: bool(lab.canaries()), 20)
                time.sleep(rng.uniform(0.0, 0.25))
                came_out += round(sum(lab.canaries().values()))
                lab.kill()
            subscriber.subscribe(b"afm.afm1.decision")
            while subscriber.poll(0):  # of lives that are over
                subscriber.recv_multipart()
            lab.start()
            lab.wait_ready()
            assert subscriber.poll(10_000), "no hello"
            lab.wait_decided(len(written), 20)
            for _ in range(5):
                written.append(put(lab.watch, len(written)).name)
                time.sleep(0.1)  # canaries come out in between
            lab.wait_decided(len(written), 20)
            told = judge(written, history(lab))
            lab.canaries()
        finally:
            lab.stop()
        heard = []
        while subscriber.poll(0):
            topic, body = subscriber.recv_multipart()
            if b".decision." in topic:
                heard.append(json.loads(body)["seq"])
    assert not list((folder / "state" / "canaries").iterdir())
    return told, heard, came_out


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(3, marks=pytest.mark.timeout(120)),
        pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_kill_9_among_canaries(tmp_path: Path, kills: int) -> None:
    told, heard, came_out = kill_among_canaries(tmp_path, kills, seed=12)
    assert (told.lost, told.doubled, told.gaps) == ([], [], [])
    last = 3 * kills + 5
    assert told.decided == last, "every decision is a curve that was written"
    assert heard[-5:] == list(range(last - 4, last + 1))
    assert came_out >= kills
    with contextlib.suppress(FileNotFoundError):
        assert "Traceback" not in (tmp_path / "service.log").read_text()
