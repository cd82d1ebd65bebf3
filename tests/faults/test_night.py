"""The guard of a real service: what it knows outlives a kill, and another model changes only the later number."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import zmq
from modelhelp import make_model

from daemon.client.feed import ask_status
from daemon.guard.logbook import NAME, LogbookView
from daemon.labels import Labels
from tests.faults.harness import scrape
from tests.faults.lab import Lab, put, until

pytestmark = pytest.mark.faults
LIVE = ("confirmed", "kept_live", "shown_live", "live_low", "live_high", "text")
CURVES = 6


def guard_of(lab: Lab) -> dict[str, Any]:
    """As the service tells it."""
    said = ask_status(lab.replay, 10.0)
    assert said is not None
    found: dict[str, Any] = said["data"]["guard"]
    return found


def tallied(lab: Lab) -> int:
    """Simulated events of which the logbook knows."""
    with LogbookView(lab.state / NAME) as view:
        counts = view.tallies()
    return counts["found"] + counts["missed"]


@pytest.mark.timeout(90)
def test_the_guard_goes_on_after_a_kill_and_under_another_model(tmp_path: Path) -> None:
    """Events are confirmed; the service is killed, and begins again with another network."""
    other = make_model(tmp_path / "other")
    with Lab(tmp_path / "lab") as lab:
        for number in range(CURVES):
            put(lab.watch, number)
        lab.wait_decided(CURVES, 20)
        verdicts = [one["data"]["verdict"] for one in lab.history()]
        with Labels(lab.state / "labels.sqlite") as labels:
            labels.say([Labels.of_event(one, "keep", "ada") for one in lab.history()])
        until(lambda: (guard_of(lab)["events"] or {}).get("confirmed") == CURVES, 10)
        until(lambda: guard_of(lab)["path"]["canaries"] >= 5, 20)
        before = guard_of(lab)
        assert before["events"]["kept_live"] == verdicts.count("keep")
        until(lambda: tallied(lab) >= before["path"]["canaries"], 5)
        lab.kill()
        lab.start()
        lab.wait_ready()
        until(lambda: guard_of(lab)["path"]["since"] == before["path"]["since"], 5)
        after = guard_of(lab)
        assert after["path"]["canaries"] >= before["path"]["canaries"]
        lab.kill()
        lab._options += ("--model", str(other.folder))
        lab.start()
        lab.wait_ready()
        assert guard_of(lab)["path"]["since"] > before["path"]["since"]  # of this network nothing is known yet
        until(lambda: (guard_of(lab)["events"] or {}).get("scored_now") == CURVES, 20)
        now = guard_of(lab)["events"]
        assert {name: now[name] for name in LIVE} == {name: before["events"][name] for name in LIVE}
        assert len(lab.history()) == CURVES
        until(lambda: scrape(lab)["afm_triage_recall_lower_bound"] > 0, 20)
        assert scrape(lab)["afm_triage_confirmed_events"] == CURVES


def alarms_of(listener: zmq.Socket[bytes], name: str) -> list[dict[str, Any]]:
    """What has come so far about one condition."""
    found = []
    while listener.poll(0):
        event = json.loads(listener.recv_multipart()[1])
        if event["data"]["name"] == name:
            found.append(event["data"])
    return found


@pytest.mark.timeout(60)
def test_what_the_guard_finds_is_an_alarm_once_and_clears_when_it_is_over(tmp_path: Path) -> None:
    """Somebody has set a threshold that gives most events up; a reload takes it back. A broken logbook is no matter."""
    folder = tmp_path / "lab"
    (folder / "state").mkdir(parents=True)
    (folder / "state" / NAME).write_bytes(b"no database" * 1_000)
    bold = "[thresholds]\ndiscard = 0.9\nkeep = 0.95\n"
    with Lab(folder, toml=bold) as lab, zmq.Context() as context, context.socket(zmq.SUB) as listener:
        listener.linger = 0
        listener.connect(lab.publish)
        listener.subscribe(b"afm.afm1.alarm")

        def path() -> dict[str, Any]:
            said = ask_status(lab.replay, 10.0)
            assert said is not None
            return next((one for one in said["data"]["health"] if one["name"] == "path"), {})

        until(lambda: path().get("level") == "alarm", 10)
        assert "gives up" in path()["text"]
        assert not lab.is_well()
        (folder / "afm.toml").write_text("")
        os.kill(lab.pid, signal.SIGHUP)
        until(lambda: path().get("level") == "ok", 15)
        heard: list[str] = []

        def is_heard() -> bool:
            heard.extend(one["level"] for one in alarms_of(listener, "path"))
            return heard[-1:] == ["ok"]

        until(is_heard, 5)
        assert heard in (["alarm", "ok"], ["ok"])  # the first may come before we listen
        assert lab.is_well()
        assert "was damaged" in lab.log_text()
    assert (folder / "state" / f"{NAME}.damaged-1").exists()
