"""A certificate sheet through the page: said before, drawn once, answered blind, told at its end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.labels import Labels
from tests.reviewhelp import Page, fill, judged

COUNT = 90


def state_of(folder: Path) -> Path:
    """Decision 3 n is kept, 3 n + 1 discarded, 3 n + 2 flagged."""
    fill(folder / "state", [judged(number, score=0.5) for number in range(1, COUNT + 1)])
    return folder / "state"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with Page(state_of(tmp_path)) as page:
        yield page


def test_a_sheet_is_offered_drawn_once_answered_blind_and_told(page: Page) -> None:
    before = page.ask("/api/sheet?rater=anna").json
    assert before["sheet"] is None
    uniform, weighted = before["offers"]
    assert uniform["kind"] == "uniform"
    assert "these 90 decisions hold about 25 events, and 59 would be needed" in uniform["sentence"]
    assert weighted["kind"] == "weighted"
    assert page.ask("/api/queue?name=sheet&rater=anna").json == []
    assert page.ask("/api/sheet", "POST", {"kind": "best"}).status == 400

    kept = page.ask("/api/queue?name=kept&rater=anna&limit=100").json
    assert page.ask("/api/labels", "POST", [{**answer(one), "queue": "kept"} for one in kept]).status == 201
    drawn = page.ask("/api/sheet", "POST", {"kind": "uniform"})
    assert (drawn.status, drawn.json["left"], drawn.json["done"]) == (201, COUNT, False)
    again = page.ask("/api/sheet", "POST", {"kind": "uniform"})
    assert (again.status, again.error) == (409, "sheet 1 is open: label it to its end, then another may be drawn")
    assert page.ask("/api/state?rater=anna").json["queues"]["sheet"] == COUNT

    answered = 0
    while items := page.ask("/api/queue?name=sheet&rater=anna&limit=20").json:
        for item in items:
            assert (item["score"], item["verdict"], item["label"]) == (None, None, None)
            curve = page.ask(f"/api/curve/{item['id']}?blind=1&rater=anna")
            assert curve.status == 404 or curve.json["labels"] == [], "what was said before is hidden"
            assert page.ask("/api/labels", "POST", {**answer(item), "queue": "sheet"}).status == 201
            answered += 1
        if answered > 2 * COUNT:
            pytest.fail("the sheet has no end")
    told = page.ask("/api/sheet?rater=anna").json["sheet"]
    assert (told["done"], told["answered"], told["events"], told["missed"]) == (True, COUNT, 30, 0)
    assert told["sentence"].startswith(
        "30 confirmed events, none of them discarded → at most 9.6 % missed, 95 % sure ("
    )
    assert "sheet" not in page.ask("/api/state?rater=anna").json["queues"]
    assert page.ask("/api/sheet", "POST", {"kind": "weighted"}).status == 201


def answer(item: dict[str, object]) -> dict[str, object]:
    seq = int(str(item["id"]).rpartition(":")[2])
    return {"id": item["id"], "label": "keep" if seq % 3 == 0 else "discard", "rater": "anna"}


def test_what_is_gone_leaves_the_sheet_when_it_is_passed_over(page: Page) -> None:
    """A discard without a copy whose file is gone cannot be labelled; one that is only hard comes back."""
    page.ask("/api/sheet", "POST", {"kind": "uniform"})
    items = page.ask("/api/queue?name=sheet&rater=anna&limit=40").json
    gone = next(one for one in items if page.ask(f"/api/curve/{one['id']}?blind=1").status == 404)
    hard = next(one for one in items if page.ask(f"/api/curve/{one['id']}?blind=1").status == 200)
    for one in (gone, hard):
        assert page.ask("/api/skips", "POST", {"id": one["id"], "rater": "anna", "queue": "sheet"}).status == 201
    left = [one["id"] for one in page.ask("/api/queue?name=sheet&rater=anna&limit=100").json]
    assert gone["id"] not in left
    assert hard["id"] == left[-1]
    assert page.ask("/api/sheet").json["sheet"]["left"] == COUNT - 1


def test_the_command_says_what_a_sheet_takes_and_goes_on_with_an_open_one(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    for said in ("59 would be needed", "sheet 1 (uniform) is open: no event confirmed yet"):
        words = [sys.executable, "-m", "daemon", "review", "--state", str(state), "--port", "0", "--sheet", "--json"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            process.terminate()
            _, errors = process.communicate(timeout=20)
        assert told["sheet"]["drawn"] == COUNT
        assert said in errors
    with Labels(state / "labels.sqlite") as labels:
        assert labels.select("select count(*) from sheets")[0][0] == 1
