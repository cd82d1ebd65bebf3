"""How the teaching of the network stands, as `status`, the console and the page tell it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from adapthelp import EVENTS, Night

from daemon.cli import main
from daemon.client.status import events_now, learned_in_short, learning_of
from daemon.common.errors import UNREACHABLE
from daemon.config import Config, FinetuneConfig
from daemon.judging.registry import Registry
from daemon.screens.board import Board
from daemon.screens.screen import frame
from daemon.verbs.console import note_learning
from daemon.verbs.status import page
from models.clock import minute_of
from models.files import append_line
from models.gate import Finding, Report, last_said, lift, log_of, note_last
from tests.reviewhelp import Page

TIME = "2026-11-28T02:14:00Z"
LATER = "2026-11-28T03:15:00Z"
LOST = "newly lost: 2 of 96 golden events lie below the candidate's cut and were found before"


@pytest.fixture
def night(tmp_path: Path) -> Night:
    """Nine events, of which five are confirmed."""
    night = Night(tmp_path / "state")
    night.decide(EVENTS)
    night.say("keep", range(1, 6))
    night.say("discard", [6])
    return night


def looked(night: Night, candidate: str, number: int, *findings: Finding) -> Report:
    passed = all(one.passed for one in findings)
    report = Report(
        candidate=candidate, parent=night.base.id, network=night.base.weights_sha256, cut=0.004, night="2026-11-28",
        time=TIME, look=number, alpha=0.05 / 2**number, passed=passed, findings=findings,
    )  # fmt: skip
    log_of(night.state).parent.mkdir(exist_ok=True)
    append_line(log_of(night.state), msgspec.json.encode(report))
    return report


def text_of(night: Night, needed: int = 100) -> str:
    return str(learning_of(Config(state=night.state, finetune=FinetuneConfig(events=needed)))["text"])


def test_what_is_missing_is_told_and_of_nothing_nothing(tmp_path: Path, night: Night) -> None:
    assert learning_of(Config(state=tmp_path / "none"))["text"] == ""
    assert not (tmp_path / "none").exists()
    assert text_of(night) == "5 of 100 confirmed events: 95 more before the network learns"
    assert text_of(night, 5) == "5 confirmed events to learn from (5 are needed)"


def test_a_refusal_names_its_tests_and_what_the_looks_have_spent(
    night: Night, capsys: pytest.CaptureFixture[str]
) -> None:
    looked(night, "tuned-a", 1, Finding("pile", False, "pile: too few"))
    looked(night, "tuned-b", 2, Finding("ranking", True, "ranking: as before"), Finding("newly lost", False, LOST))
    assert main(["status", "--json", "--state", str(night.state)]) == UNREACHABLE
    report = json.loads(capsys.readouterr().out)
    told = report["learning"]
    assert told["text"] == (
        f"{minute_of(TIME)} tuned-b refused; {LOST}; 2 looks used up, the next is stricter; "
        "5 of 100 confirmed events: 95 more before the network learns"
    )
    last = {
        "time": TIME,
        "candidate": "tuned-b",
        "parent": night.base.id,
        "sample": "",
        "outcome": "refused",
        "why": [LOST],
    }
    assert told["last"] == last
    shown = [line.plain for line in page(report)]
    first = shown.index(f"  learning  {minute_of(TIME)} tuned-b refused")
    assert [line.strip() for line in shown[first + 1 : first + 1 + told["text"].count("; ")]] == told["text"].split(
        "; "
    )[1:]


def test_a_refusal_without_a_look_is_told_too_and_has_spent_nothing(night: Night) -> None:
    few = Finding("golden", False, "golden: 40 events, and 59 are the fewest")
    note_last(night.state, replace(looked(night, "tuned-a", 1, Finding("pile", False, "pile: too few")), time=LATER))
    assert "tuned-a refused; pile: too few; 1 look used up, the next is stricter" in text_of(night)
    log_of(night.state).unlink()
    noted = last_said(night.state)
    assert noted is not None
    note_last(night.state, replace(noted, candidate="tuned-b", look=0, findings=(few,)))
    assert text_of(night).startswith(f"{minute_of(LATER)} tuned-b refused; {few.text}; 5 of 100 confirmed events")
    looked(night, "tuned-c", 1, Finding("pile", False, "pile: too few"))
    assert "tuned-b refused" in text_of(night), "the newer of both is told"
    log_of(night.state).with_name("last.json").write_text("{")
    assert "tuned-c refused" in text_of(night), "a damaged note is passed over"


def test_the_page_tells_it_where_the_night_is_looked_at(tmp_path: Path) -> None:
    night = Night(tmp_path / "state")
    night.decide(EVENTS)
    looked(night, "tuned-a", 1, Finding("newly lost", False, LOST))
    with Page(night.state) as web:
        told = web.ask("/api/state?night=1").json["learning"]
        assert told == learning_of(night.config) | {"events": 0, "stream": told["stream"]}
        assert told["text"] == (
            f"{minute_of(TIME)} tuned-a refused; {LOST}; 1 look used up, the next is stricter; "
            "0 of 100 confirmed events: 100 more before the network learns"
        )
        assert "learning" not in web.ask("/api/state").json


def test_a_promotion_and_its_end_are_told(night: Night) -> None:
    registry = Registry(night.state / "models")
    registry.write_cut(night.base, "tuned", 0.02, {}, None, code_version="1")
    candidate = registry.promote("tuned", base=night.base, group="", why="the gate", by="finetune").id
    looked(night, candidate, 1, Finding("newly lost", True, "none"))
    assert text_of(night).startswith(f"{minute_of(TIME)} {candidate} promoted; 1 look used up, the next is stricter")
    registry.rollback("ada", "it kept rubbish", group="", base_id=night.base.id)
    assert text_of(night).startswith(
        f"{minute_of(TIME)} {candidate} taken back by ada, it kept rubbish; a timer teaches nothing "
    )
    lift(night.state, registry.history()[-1].number)
    assert "a timer" not in text_of(night)


def test_what_a_person_lets_serve_against_the_gate_is_told_as_that(night: Night) -> None:
    registry = Registry(night.state / "models")
    registry.write_cut(night.base, "tuned", 0.02, {}, None, code_version="1")
    candidate = registry.promote("tuned", base=night.base, group="", why="I say so", by="ada").id
    note_last(
        night.state, replace(looked(night, candidate, 1, Finding("pile", False, "pile: it grows")), group="titin")
    )
    said = f'{candidate} promoted by ada, although the gate refused it on the sample "titin"; pile: it grows; '
    assert said in text_of(night)


def test_the_console_tells_it_of_its_own_state_alone(night: Night) -> None:
    board, width = Board(), 120
    for stream, lines in (("another", []), (learning_of(night.config)["stream"], [text_of(night)])):
        board.take_status({"stream": stream, "data": {"last_seq": 0}})
        note_learning(night.config, board)
        shown = [line.plain.rstrip() for line in frame(board, width, 40)]
        assert [line.removeprefix(" learns  ") for line in shown if line.startswith(" learns")] == lines
    looked(night, "tuned-a", 1, Finding("pile", False, "pile: " + "too few, " * 40), Finding("newly lost", False, LOST))
    note_learning(night.config, board)
    assert board.learning == f"refused: pile, newly lost, {minute_of(TIME)}, tuned-a", "whole in 80 columns"
    told = learning_of(night.config) | {"waits": "ada took the last promotion back, it kept rubbish"}
    assert learned_in_short(told).startswith("the timer waits until you type `afm-triage finetune`: ada took")


def test_the_page_says_what_the_answers_do_for_the_network(night: Night) -> None:
    with Page(night.state) as web:
        assert "5 of 100 confirmed events: 95 more before the network learns" in web.ask("/api/state").json["effect"]


def test_while_events_are_judged_again_it_is_said_of_how_many() -> None:
    told = {"confirmed": 227, "shown_live": 227, "scored_now": 4, "found_now": 4, "low": 0.4, "high": 1.0}
    assert "now finds 4 of 4, re-judged so far of 227, (" in events_now(told)
