"""The running service and where its curves come from: maps, pairs, ZeroMQ, and a tip that hangs in the air."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from daemon.client.service_file import TemporaryService, free_port
from tests.faults.harness import history, identity_holds, judge, scrape
from tests.makers import a_retract, make_ibw_pair, make_jpk, make_jpk_map
from tests.test_service import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[TemporaryService]:
    with TemporaryService(tmp_path) as running:
        yield running


def test_a_single_curve_overtakes_a_map_and_the_map_ends_whole_even_through_a_kill(trial: TemporaryService) -> None:
    (trial.watch / "map.jpk-force-map").write_bytes(make_jpk_map(1200))
    until(lambda: len(history(trial)) > 32, "the map has begun")
    (trial.watch / "single.jpk-force").write_bytes(make_jpk(*a_retract(seed=5)))
    until(lambda: "single.jpk-force" in {event["data"]["path"] for event in history(trial)}, "the single curve", 5.0)
    assert len(history(trial)) < 1201
    trial.kill()
    trial.start()
    trial.wait_ready()
    until(lambda: len(history(trial)) == 1201, "the rest of the map")
    events = history(trial)
    decided = [event["data"]["curve"] for event in events if event["data"]["path"].startswith("map")]
    assert sorted(decided) == list(range(1200))
    assert judge(["single.jpk-force"], events).gaps == []
    assert identity_holds(scrape(trial))


def test_the_halves_of_an_asylum_pair_are_one_curve_in_either_order(trial: TemporaryService) -> None:
    for number, order in enumerate([("Defl", "ZSnsr"), ("ZSnsr", "Defl")]):
        halves = dict(zip(("Defl", "ZSnsr"), make_ibw_pair(*a_retract(seed=number)), strict=True))
        for half in order:
            (trial.watch / f"Line0000Point000{number}{half}.ibw").write_bytes(halves[half])
            time.sleep(0.3)
    until(lambda: len(history(trial)) == 2, "both pairs")
    assert [event["data"]["path"] for event in history(trial)] == [
        "Line0000Point0000Defl.ibw",
        "Line0000Point0001Defl.ibw",
    ]
    assert {event["data"]["force_unit"] for event in history(trial)} == {"m"}


def test_twenty_curves_that_miss_the_surface_raise_an_alarm(trial: TemporaryService) -> None:
    rng = np.random.default_rng(0)
    distance = np.linspace(0, 400e-9, 512)
    for number in range(20):
        (trial.watch / f"air-{number}.jpk-force").write_bytes(make_jpk(rng.normal(0, 8e-12, 512), distance))
    until(lambda: "contact: 20 curves in a row without contact" in trial.log.read_text(), "the alarm in the log")
    assert all("no_contact" in event["data"]["reasons"] for event in history(trial))
    (trial.watch / "touching.jpk-force").write_bytes(make_jpk(*a_retract(seed=1)))
    until(lambda: "contact: curves reach the surface" in trial.log.read_text(), "the all-clear in the log")


def test_a_curve_sent_over_zeromq_is_answered_once_on_disk_and_decided_once(tmp_path: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    force, distance = a_retract(seed=3)
    header = {
        "id": "run7-0042",
        "name": "run7/curve-0042",
        "dtype": "<f8",
        "force_unit": "N",
        "pulling": "negative",
        "distance_grows": "away",
        "spring_constant_n_per_m": 0.05,
    }
    message = [json.dumps(header).encode(), (-force).tobytes(), distance.tobytes()]
    with (
        TemporaryService(tmp_path, options=("--ingest", endpoint)) as trial,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as sender,
    ):
        sender.linger = 0
        sender.connect(endpoint)
        for _ in range(2):
            sender.send_multipart(message)
            assert sender.poll(5000)
            assert json.loads(sender.recv())["status"] == "accepted"
        assert list((trial.state / "ingest").rglob("*.afmcurve"))
        until(lambda: len(history(trial)) == 1, "the decision")
        trial.kill()
        trial.start()
        trial.wait_ready()
        sender.send_multipart(message)
        assert sender.poll(5000)
        assert json.loads(sender.recv())["status"] == "accepted"
        (trial.watch / "same.jpk-force").write_bytes(make_jpk(force, distance))
        until(lambda: len(history(trial)) == 2, "a file beside it")
        sent, filed = (event["data"] for event in history(trial))
        assert (sent["path"], sent["source"], sent["force_unit"]) == ("run7/curve-0042", "ingest", "N")
        assert sent["score"] == pytest.approx(filed["score"], abs=0.02)  # the same curve, rounded by its format
        assert identity_holds(scrape(trial))


def test_a_format_whose_sign_is_wrong_is_reviewed_and_raises_an_alarm(trial: TemporaryService) -> None:
    for number in range(3):
        force, distance = a_retract(seed=number)
        (trial.watch / f"wrong-{number}.jpk-force").write_bytes(make_jpk(-force, distance))
    until(lambda: "orientation jpk: 3 of 3 jpk curves" in trial.log.read_text(), "the alarm in the log")
    told = [event["data"] for event in history(trial)]
    assert [(one["verdict"], one["reasons"]) for one in told] == [("review", ["score", "no_contact", "flipped"])] * 3
    for number in range(200):
        force, distance = a_retract(seed=100 + number)
        (trial.watch / f"right-{number}.jpk-force").write_bytes(make_jpk(force, distance))
    # at most two hints are left when it clears, one or none if a whole batch came between
    until(lambda: re.search("INFO .*orientation jpk: [0-2] of 200", trial.log.read_text()) is not None, "the all-clear")
