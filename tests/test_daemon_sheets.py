"""Certificate sheets on a real ledger and real labels: drawn once, answered once, stated at the end and not before."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.judging import Verdict, audit
from daemon.labels import Labels, Word
from daemon.labels.sheets import ABOVE, GOAL, Sheet, Sheets
from daemon.ledger import Ledger
from daemon.ledger.view import LedgerView
from daemon.review.queues import queue
from models.certificate import weighted_bound
from tests.ledgerhelp import decision

DICE = 7


class Night:
    """3,000 decisions: every 50th is an event and kept, every 10th is flagged."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger.sqlite", "afm1")
        for start in range(1, 3_001, 1_000):
            made = []
            for n in range(start, start + 1_000):
                verdict: Verdict = "keep" if n % 50 == 0 else "review" if n % 10 == 5 else "discard"
                made.append(decision(n, verdict=verdict, score=0.5, compact_copy=b"a curve"))
            self.ledger.record(made)
        self.view, self.labels = LedgerView(folder / "ledger.sqlite"), Labels(folder / "labels.sqlite")
        self.sheets = Sheets(self.labels)

    def say(self, sheet: Sheet, rater: str, word: Word, *seqs: int) -> None:
        events = self.view.decisions(seqs)
        with self.labels.together():
            for seq in seqs:
                self.labels.say([Labels.of_event(events[seq], word, rater, queue="sheet")])
                self.sheets.note(sheet, seq, rater)

    def close(self) -> None:
        self.labels.close()
        self.view.close()
        self.ledger.close()


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    night = Night(tmp_path)
    yield night
    night.close()


def truth(seq: int) -> Word:
    return "keep" if seq % 50 == 0 else "discard"


def test_a_uniform_sheet_earns_the_rule_of_59_when_its_goal_is_reached_and_says_nothing_before(night: Night) -> None:
    sheet = night.sheets.draw(night.view, "uniform", [(1, None)], "gold")
    assert (sheet.goal, sheet.decided, sheet.sample) == (GOAL, 3_000, "gold")
    order = [one.seq for one in night.sheets.left(sheet)]
    assert sorted(order) == list(range(1, 3_001))
    assert order != sorted(order)
    at_goal = [n for n, seq in enumerate(order) if truth(seq) == "keep"][GOAL - 1] + 1
    for word in ("keep", "discard"):
        night.say(sheet, "anna", word, *[seq for seq in order[: at_goal - 1] if truth(seq) == word])
    before = night.sheets.progress(sheet, night.view)
    assert (before.events, before.answered, before.is_done, before.bound) == (58, at_goal - 1, False, None)
    more = math.ceil((at_goal - 1) / 58)
    assert before.sentence() == (
        f"58 of 59 confirmed events, none of them discarded; {at_goal - 1:,} curves looked at, about {more} more"
        "; the sheet is 3,000 curves long and ends at 59 events"
    )
    night.say(sheet, "anna", "keep", order[at_goal - 1])
    after = night.sheets.progress(sheet, night.view)
    assert after.bound == pytest.approx(1 - 0.05 ** (1 / 59))
    assert after.sentence() == (
        "59 confirmed events, none of them discarded → at most 5 % missed, 95 % sure "
        "(a uniform blind draw from 3,000 decisions); `adapt` puts that into the model"
    )
    assert queue(night.view, night.labels, "sheet", "anna", 10) == []


def test_an_event_among_the_discards_costs_the_promise(night: Night) -> None:
    sheet = night.sheets.draw(night.view, "uniform", [(1, None)], goal=10)
    seqs = [one.seq for one in night.sheets.left(sheet)]
    kept = [seq for seq in seqs if seq % 50 == 0]
    discarded = [seq for seq in seqs if seq % 50 and seq % 10 != 5]
    night.say(sheet, "anna", "keep", *kept[:8], discarded[0])
    so_far = night.sheets.progress(sheet, night.view).sentence()
    assert so_far.endswith("with 1 miss it says “at most 39.5 % missed” at its end; 5 % would need 83 more events")
    night.say(sheet, "anna", "keep", kept[8])
    night.say(sheet, "anna", "unsure", *discarded[1:3])
    found = night.sheets.progress(sheet, night.view)
    assert (len(found.above), len(found.missed), found.unsure) == (9, 1, 2)
    assert found.bound == pytest.approx(0.394, abs=0.001)  # 1 of 10, 95 % sure
    assert (
        "1 of them discarded (2 discards called unsure; they are left out) → at most 39.5 % missed" in found.sentence()
    )


def test_each_curve_is_answered_once_and_open_again_when_the_answer_is_taken_back(night: Night) -> None:
    sheet = night.sheets.draw(night.view, "uniform", [(1, None)])
    first, second, third = (one.seq for one in night.sheets.left(sheet, 3))
    assert night.sheets.progress(sheet, night.view).sentence() == (
        "no event confirmed yet, 0 curves looked at of 3,000; it ends at 59 events"
    )
    night.say(sheet, "anna", "discard", first)
    night.say(sheet, "ben", "keep", first)  # both had it before them: the sheet keeps the first answer
    assert night.sheets.progress(sheet, night.view).events == 0
    assert [one.seq for one in night.sheets.left(sheet, 2)] == [second, third]
    mine = [one for one in night.labels.labelled([first])[first] if one.rater == "anna"]
    night.labels.remove(mine, by="anna", reason="undone", time="2026-11-28T10:00:00.000Z")
    assert [one.seq for one in night.sheets.left(sheet, 2)] == [first, second]
    night.say(sheet, "ben", "keep", first)
    found = night.sheets.progress(sheet, night.view)
    assert (found.events, found.answered) == (1, 1)
    night.sheets.note(sheet, second, "")
    assert night.sheets.progress(sheet, night.view).gone == 1
    assert night.sheets.left(sheet, 1)[0].seq == third


def test_a_weighted_sheet_needs_no_file_and_states_its_own_number(night: Night) -> None:
    """Kept and flagged curves thinned, audited discards as they were drawn, each with its chance."""
    sheet = night.sheets.draw(night.view, "weighted", [(1, None)], chance=random.Random(DICE))
    drawn = night.sheets.left(sheet)
    chances = {one.seq: one.chance for one in drawn}
    kept = [seq for seq in chances if seq % 50 == 0]
    flagged = [seq for seq in chances if seq % 10 == 5]
    discarded = [seq for seq in chances if seq % 50 and seq % 10 != 5]
    assert len(kept) == 60  # fewer than are wanted: all of them
    assert ABOVE - 40 < len(flagged) < ABOVE + 40
    assert {chances[seq] for seq in flagged} == {ABOVE / 300}
    assert {chances[seq] for seq in discarded} == {audit.AUDIT_SHARE}
    assert set(discarded) == {look.seq for look in night.view.looks("discard")}
    for word in ("keep", "discard"):
        night.say(sheet, "anna", word, *[seq for seq in chances if truth(seq) == word])
    found = night.sheets.progress(sheet, night.view)
    assert found.is_done
    assert found.above == (1.0,) * 60
    assert found.bound == weighted_bound([1.0] * 60, [], 1 / audit.LEAST) > 0.7  # they say little
    items = queue(night.view, night.labels, "sheet", "anna", 10)
    assert items == []


def test_the_sheet_is_a_queue_that_is_blind_even_to_what_its_rater_has_said(night: Night) -> None:
    """Who labelled a kept curve with its score in sight is asked again; what is skipped comes at the end."""
    kept = [look.seq for look in night.view.looks("keep")]
    events = night.view.decisions(kept)
    night.labels.say([Labels.of_event(events[seq], "keep", "anna", queue="kept") for seq in kept])
    assert queue(night.view, night.labels, "sheet", "anna", 10) == []
    sheet = night.sheets.draw(night.view, "uniform", [(1, None)], chance=random.Random(DICE))
    items = queue(night.view, night.labels, "sheet", "anna", 200, is_blind=True)
    plain = [item for item in items if item.kind == "plain"]
    assert [item.seq for item in plain] == [one.seq for one in night.sheets.left(sheet, len(plain))]
    assert any(item.seq in kept for item in plain)
    assert {item.queue for item in items} == {"sheet"}
    night.labels.note_shown("anna", plain[0].seq, "sheet", "skip")
    again = [item.seq for item in queue(night.view, night.labels, "sheet", "anna", 200) if item.kind == "plain"]
    assert again[0] == plain[1].seq
    assert plain[0].seq not in again[:-1]


def test_two_raters_share_the_work(night: Night) -> None:
    """Who began goes on from the front, the other comes from the end."""
    sheet = night.sheets.draw(night.view, "uniform", [(1, None)])
    order = [one.seq for one in night.sheets.left(sheet)]
    night.say(sheet, "anna", "discard", *order[:3])
    assert [one.seq for one in night.sheets.left(sheet, 2, "anna")] == order[3:5]
    assert [one.seq for one in night.sheets.left(sheet, 2, "ben")] == [order[-1], order[-2]]
    night.say(sheet, "ben", "discard", order[-1])
    assert [one.seq for one in night.sheets.left(sheet, 2, "ben")] == [order[-2], order[-3]]
    plain = [item.seq for item in queue(night.view, night.labels, "sheet", "ben", 40) if item.kind == "plain"]
    assert plain == order[-2 : -2 - len(plain) : -1]


def test_nothing_is_drawn_from_nothing(night: Night) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        night.sheets.draw(night.view, "uniform", [(3_001, None)])
    assert night.sheets.current() is None
