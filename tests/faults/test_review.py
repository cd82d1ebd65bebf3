"""The review page killed while labels come: what was answered is on disk, and what is sent again is there once."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from daemon.judging.registry import Registry
from daemon.labels import Labels
from daemon.ledger.view import LedgerView
from tests.adapthelp import chromosomes
from tests.reviewhelp import Page, fill, judged

KILLS, LABELS, PAGES = 20, 60, 2


class Rater:
    """A page that sends its answers one after another, each again until the server has taken it."""

    def __init__(self, name: str, ids: list[str]) -> None:
        self.name, self.ids = name, ids
        self.taken: list[str] = []

    def go_on(self, page: Page) -> None:
        """Until all are taken, or the server is gone."""
        try:
            while len(self.taken) < len(self.ids):
                id = self.ids[len(self.taken)]
                if page.label(id, "keep", self.name).status == 201:
                    self.taken.append(id)
        except (OSError, http.client.HTTPException):
            return


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [4, pytest.param(KILLS, marks=pytest.mark.long)])
def test_killed_in_the_middle_of_labels_none_is_lost_and_none_doubled(tmp_path: Path, kills: int) -> None:
    state, chance = tmp_path / "state", random.Random(11)
    stream = fill(state, [judged(number) for number in range(2, 3 * LABELS + 2, 3)])
    ids = [f"{stream}:{seq}" for seq in range(1, LABELS + 1)]
    port = 0
    for number in range(kills):
        raters = [Rater(f"rater{number}-{place}", ids) for place in range(PAGES)]
        for ends in ("killed", "whole"):
            with Page(state, "--port", str(port)) as page:
                port = page.port
                threads = [threading.Thread(target=one.go_on, args=(page,)) for one in raters]
                for thread in threads:
                    thread.start()
                if ends == "killed":
                    while not all(one.taken for one in raters):
                        time.sleep(0.001)
                    time.sleep(chance.uniform(0.0, 0.4))
                    page.process.kill()
                    page.process.wait(10)
                for thread in threads:
                    thread.join(60)
            answered = {one.name: list(one.taken) for one in raters}
            with Labels(state / "labels.sqlite") as labels:
                history = list(labels.history())
            for one in raters:
                own = [f"{stream}:{label.seq}" for label in history if label.rater == one.name]
                assert len(own) == len(set(own)), f"{one.name}: doubled after kill {number}"
                assert set(answered[one.name]) <= set(own), f"{one.name}: lost after kill {number}"
                assert len(own) <= len(answered[one.name]) + 1
        assert all(one.taken == ids for one in raters)


@pytest.mark.timeout(300)
def test_killed_in_the_middle_of_a_sheet_each_label_is_an_answer_of_it(tmp_path: Path) -> None:
    """The label and the sheet's note of it are one act; what is sent again to the next server is noted once."""
    state, chance, held = tmp_path / "state", random.Random(5), list[str]()
    fill(state, [judged(number) for number in range(2, 3 * LABELS + 2, 3)])

    def go_on(page: Page) -> None:
        try:
            while True:
                if not held:
                    held.extend(one["id"] for one in page.ask("/api/queue?name=sheet&rater=ada&limit=5").json)
                if not held:
                    return
                if page.label(held[0], "discard", "ada", queue="sheet").status == 201:
                    held.pop(0)
        except (OSError, http.client.HTTPException):
            return  # what is held is sent again

    for number in range(9):
        with Page(state) as page:
            if number == 0:
                assert page.ask("/api/sheet", "POST", {"kind": "uniform"}).status == 201
            thread = threading.Thread(target=go_on, args=(page,))
            thread.start()
            if number < 8:
                time.sleep(chance.uniform(0.02, 0.15))
                page.process.kill()
                page.process.wait(10)
            thread.join(60)
        with Labels(state / "labels.sqlite") as labels:
            answered = {row[0] for row in labels.select("select seq from sheet_curves where rater = 'ada'")}
            said = [one.seq for one in labels.history()]
        assert len(said) == len(set(said))
        assert answered == set(said), f"after kill {number}"
    assert len(answered) == LABELS


@pytest.mark.timeout(180)
def test_the_cut_moves_through_the_page_and_comes_back_by_itself(tmp_path: Path) -> None:
    """Five confirmed events, the curves to look at first, the move; then one of those turns out to be an event."""
    night = chromosomes(tmp_path / "state")
    with LedgerView(night.state / "ledger.sqlite") as view:
        stream = view.stream
    registry = Registry(night.state / "models")
    with Page(night.state) as page:
        assert page.ask("/").status == 200

        def say(seqs: Iterable[int], word: str) -> None:
            some = [{"id": f"{stream}:{seq}", "label": word, "rater": "ada"} for seq in seqs]
            assert page.ask("/api/labels", "POST", some).status == 201

        say(range(1, 6), "keep")
        cut = page.ask("/api/cut").json
        assert (cut["moves"], len(cut["look_first"])) == (True, 12)
        first = [one["id"] for one in page.ask("/api/queue?name=review&rater=ada&limit=12").json]
        assert first == cut["look_first_ids"]
        answer = page.ask("/api/cut", "POST", {"by": "ada"})
        assert (answer.status, "looked at first" in answer.error) == (409, True)
        assert registry.serving() is None
        say(cut["look_first"], "discard")
        moved = page.ask("/api/cut", "POST", {"by": "ada"})
        assert moved.status == 200, moved.body
        assert (serving := registry.serving()) is not None
        assert serving.id == moved.json["id"]
        say(cut["look_first"][:1], "keep")
        end_s = time.monotonic() + 30
        while registry.serving() is not None:
            assert time.monotonic() < end_s, "the event is in the band, and the cut still serves"
            time.sleep(0.1)
        page.ask("/api/cut")
        assert "taken back" in " ".join(page.ask("/api/state?rater=ada").json["effect"])
