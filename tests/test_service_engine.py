"""The running service and its engine: a device that fails under real files, models that change under load."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from modelhelp import make_model
from pace import allowed

from daemon.bench import Plan, line
from daemon.client.service_file import TemporaryService
from tests.faults.fake_engine import NAME, ORDERS
from tests.faults.harness import Producer, history, judge, scrape

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


class TrialWithDevice(TemporaryService):
    """`run` on a machine that has the device of tests/faults/fake_engine.py."""

    def command(self) -> list[str]:
        words = super().command()
        return [sys.executable, "-m", "tests.faults.fake_engine", *words[3:]]


def until(condition: Callable[[], object], what: str, timeout_s: float = 40.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def status(trial: TemporaryService) -> dict[str, Any]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as asker:
        asker.linger = 0
        asker.connect(trial.replay)
        asker.send(b"status")
        assert asker.poll(10_000)
        found: dict[str, Any] = json.loads(asker.recv_multipart()[-1])["data"]
        return found


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ORDERS, str(tmp_path / "orders"))
    return tmp_path / "orders"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    make_model(tmp_path / "ours", "first")
    return tmp_path / "ours"


@pytest.mark.faults
def test_a_device_is_missed_built_lost_and_won_back_and_no_curve_is_lost(
    tmp_path: Path, orders: Path, ours: Path
) -> None:
    orders.write_text("no build")
    with TrialWithDevice(tmp_path / "trial", options=("--model", str(ours), "--device", "cuda")) as trial:
        producer = Producer(trial.watch)
        _it_cannot_be_had_at_the_start(trial, producer)
        _a_reload_has_it_built_while_the_processor_serves(trial, producer, orders)
        for order, kind in (("illegal access", "illegal_access"), ("wedge", "wedged")):
            _it_fails_and_is_won_back(trial, producer, orders, order, kind)
        findings = judge(producer.written, history(trial))
        assert (findings.lost, findings.doubled, findings.gaps) == ([], [], [])


def _judged_on(trial: TemporaryService, producer: Producer) -> str:
    """The engine that one more curve is judged by."""
    producer.write()
    until(lambda: len(history(trial)) == len(producer.written), "judged")
    engine: str = history(trial)[-1]["data"]["engine"]
    return engine


def _it_cannot_be_had_at_the_start(trial: TemporaryService, producer: Producer) -> None:
    until(lambda: status(trial)["state"] == "degraded", "told")
    found = status(trial)
    assert found["device"] == "cpu"
    assert "busy or unavailable" in found["engine_reasons"][0]
    assert _judged_on(trial, producer) == found["engine"] != str(NAME)


def _a_reload_has_it_built_while_the_processor_serves(
    trial: TemporaryService, producer: Producer, orders: Path
) -> None:
    orders.write_text("slow build")
    assert trial.process is not None
    trial.process.send_signal(signal.SIGHUP)
    until(lambda: "an engine for the GPU is being built" in status(trial)["engine_reasons"], "being built")
    assert _judged_on(trial, producer) != str(NAME)
    until(lambda: status(trial)["engine"] == str(NAME), "the device took over")
    found = status(trial)
    assert (found["state"], found["device"], found["engine_reasons"]) == ("ready", "cuda", [])
    assert _judged_on(trial, producer) == str(NAME)


def _it_fails_and_is_won_back(trial: TemporaryService, producer: Producer, orders: Path, order: str, kind: str) -> None:
    orders.write_text(order)
    begun_s = time.monotonic()
    assert _judged_on(trial, producer) != str(NAME)
    assert time.monotonic() - begun_s < allowed(8.0)
    found = status(trial)
    assert (found["state"], found["device"]) == ("degraded", "cpu")
    assert str(NAME) in found["engine_reasons"][0]
    assert [one["name"] for one in found["health"] if not one["ok"]] == ["engine"]
    numbers = scrape(trial)
    assert numbers[f'afm_triage_engine_faults_total{{kind="{kind}"}}'] >= 1
    assert numbers['afm_triage_classifier_device{device="cuda"}'] == 0
    orders.unlink()
    until(lambda: status(trial)["state"] == "ready", "won back")
    assert scrape(trial)['afm_triage_classifier_device{device="cuda"}'] == 1
    assert _judged_on(trial, producer) == str(NAME)


@pytest.mark.faults
def test_three_models_go_live_at_200_curves_a_second_and_no_batch_is_lost_or_mixed(
    ours: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(line, "_BEFORE_S", 1.0)
    found = line.measure_swap(Plan(model=str(ours)))
    with capsys.disabled():
        print(f"\nlargest gap around a swap {found['largest_gap_ms']} ms, without one {found['usual_gap_ms']} ms")
    assert (found["lost"], found["doubled"], found["switches"]) == (0, 0, 3)
    assert found["answers"] == ["applied"] * 3
    assert found["curves"] > 600
    assert found["largest_gap_ms"] < 1000.0


def test_a_model_that_fails_its_self_test_leaves_the_old_one_serving_and_is_told(tmp_path: Path, ours: Path) -> None:
    with (
        TemporaryService(tmp_path / "trial", options=("--model", str(ours))) as trial,
        line.DecisionListener(trial.publish) as listener,
    ):
        assert trial.process is not None
        producer, manifest = Producer(trial.watch), ours / "manifest.json"
        good = manifest.read_text()
        bad = json.loads(good)
        bad["selftest"]["logits"][2] += 5.0
        manifest.write_text(json.dumps(bad))
        trial.process.send_signal(signal.SIGHUP)
        until(lambda: [answer for _, answer in listener.answers] == ["rejected"], "the reload refused")
        producer.write()
        until(lambda: len(history(trial)) == 1, "judged")
        found = status(trial)
        assert found["state"] == "degraded"
        assert [one["name"] for one in found["health"] if not one["ok"]] == ["model"]
        assert "off its logit" in trial.log.read_text()
        assert "Traceback" not in trial.log.read_text()
        manifest.write_text(good)
        for _ in range(3):  # asked for again and again: the last answer is true of all
            trial.process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        until(lambda: status(trial)["state"] == "ready", "well again")
        assert {answer for _, answer in listener.answers[1:]} == {"applied"}
        assert history(trial)[0]["data"]["model"] == found["model"]["id"]
