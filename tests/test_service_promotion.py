"""A running service follows the registry: promoted, taken back, another sample; nothing of it is half."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from modelhelp import make_model
from pace import allowed

from daemon.cli import main
from daemon.client.feed import ask
from daemon.client.service_file import TemporaryService
from daemon.judging.registry import JUDGED, SERVING, Registry
from daemon.ledger import wire
from models.bundle import CONFIRMED, Bundle
from tests.faults.harness import NoticeListener, Producer, history

ROOT = Path(__file__).resolve().parents[1]


def a_cut(registry: Registry, base: Bundle, name: str, share: float) -> Bundle:
    discard = base.discard + share * (base.keep - base.discard)
    evidence = {"basis": CONFIRMED, "events": 7, "band": [base.discard, discard], "group": ""}
    return registry.write_cut(base, name, discard, evidence)


def until(condition: Callable[[], object], what: str, timeout_s: float = 40.0) -> float:
    """Seconds until it was so."""
    begun_s = time.monotonic()
    while not condition():
        assert time.monotonic() - begun_s < timeout_s, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - begun_s


def status(trial: TemporaryService) -> dict[str, Any]:
    answer = ask(trial.replay, b"status", timeout_s=10.0)
    assert answer is not None
    found: dict[str, Any] = wire.decode(answer[-1])["data"]
    return found


def models(state: Path, *words: str) -> tuple[int, float]:
    """The verb as a user types it; its exit code and seconds."""
    begun_s = time.monotonic()
    command = [sys.executable, "-X", "importtime", "-m", "daemon", "models", *words, "--state", str(state)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert "torch" not in done.stderr, "it would take seconds to load"
    return done.returncode, time.monotonic() - begun_s


@pytest.mark.timeout(120)
def test_a_service_follows_within_a_second_on_the_engine_that_it_has(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", "base")
    options = ("--model", str(base.folder), "--device", "cpu")
    with (
        TemporaryService(tmp_path / "trial", options=options) as trial,
        NoticeListener("model", trial.publish) as listener,
    ):
        registry, producer = Registry(trial.state / "models"), Producer(trial.watch)
        low, high = a_cut(registry, base, "low", 0.2), a_cut(registry, base, "high", 0.4)

        def judged_by() -> tuple[str, float, dict[str, Any]]:
            producer.write()
            until(lambda: len(history(trial)) == len(producer.written), "judged")
            data = history(trial)[-1]["data"]
            return data["model"], data["thresholds"]["discard"], data["cut"]

        def comes_within_a_second(what: Bundle, done: Callable[[], object]) -> None:
            done()
            took_s = until(lambda: status(trial)["model"]["id"] == what.id, f"{what.id} serves")
            assert took_s < allowed(3.0), "a second, on a machine that does other things too"
            assert judged_by()[:2] == (what.id, what.discard)

        origin = judged_by()[2]["origin"]
        assert origin == "shipped"
        comes_within_a_second(low, lambda: models(trial.state, "promote", "low", "--why", "seven events"))
        assert judged_by()[2] == {"origin": "adapted", "events": 7}
        comes_within_a_second(high, lambda: registry.promote("high", base=base, why="w", by="ann"))
        comes_within_a_second(low, lambda: models(trial.state, "rollback", "--why", "an event in the band"))
        begin = ["session", "begin", "--sample", "titin", "--state", str(trial.state)]
        comes_within_a_second(base, lambda: main(begin))
        comes_within_a_second(low, lambda: main(["session", "end", "--state", str(trial.state)]))
        (registry.models / SERVING).write_text("damaged")
        until(lambda: status(trial)["state"] == "degraded", "told")
        assert judged_by()[0] == base.id, "the base discards less than any cut of it"
        assert [one["name"] for one in status(trial)["health"] if not one["ok"]] == ["promotion"]
        assert "Traceback" not in trial.log.read_text()

        def told_since() -> list[dict[str, Any]]:
            return [one for one in listener.told if one["why"] != "the service started"]

        until(lambda: len(told_since()) == 6, "announced")
        told = told_since()
    assert [one["model"] for one in told] == [low.id, high.id, low.id, base.id, low.id, base.id]
    assert {one["parent"] for one in told[:3]} == {base.id}
    assert "seven events" in told[0]["why"]
    assert "an event in the band" in told[2]["why"]
    assert told[0]["cut"] == {"origin": "adapted", "events": 7}
    assert {one.id for one in registry.served()} == {base.id, low.id, high.id}
    assert {one.name for one in (trial.state / "models" / JUDGED).iterdir()} == {base.id, low.id, high.id}
