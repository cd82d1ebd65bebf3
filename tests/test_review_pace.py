"""The pace: what more events and whole sheets cost, in curves, in time, and in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from daemon.judging import Verdict
from daemon.labels import Labels
from daemon.ledger import Ledger
from daemon.review.desk import Held
from daemon.review.outlook import USUAL_S, Outlook, outlook, seconds_a_curve
from tests.ledgerhelp import decision

#: A night of 5,000 curves at 2 %: kept curves are events in 9 of 10, flagged ones in 1 of 25.
NIGHT = Outlook(
    {"keep": 90, "review": 500, "discard": 4_410},
    {"keep": (44, 48), "review": (2, 46), "discard": (0, 0)},
    waiting=42,
    audited=88,
)


def test_more_events_are_curves_and_minutes() -> None:
    assert NIGHT.share("keep") == pytest.approx(0.912, abs=0.001)
    assert NIGHT.cost(18, 6.0, 6.0) == "18 more events are about 20 kept curves, 2 min at your pace; 42 wait"
    assert NIGHT.cost(1, 6.0, 6.0) == "1 more event is about 2 kept curves, 1 min at your pace; 42 wait"
    assert NIGHT.cost(0, 6.0, 6.0) == ""
    assert NIGHT.cost(18, 6.0, USUAL_S) == "18 more events are about 20 kept curves, 1 min at 4 s each; 42 wait"
    few = replace(NIGHT, waiting=8)
    assert few.cost(18, 6.0, 6.0).endswith("; 8 wait now, the others come in 2 h at 6 an hour")
    assert few.cost(18, 0.0, 6.0).endswith("; only 8 wait, and no curve was kept lately")
    none = replace(NIGHT, waiting=0).cost(18, 0.0, 6.0)
    assert none.endswith("; none of those kept waits for an answer, and no curve was kept lately")


def test_a_uniform_sheet_says_before_what_it_takes_and_earns() -> None:
    offer = NIGHT.offer("uniform", 3.0)
    assert offer.labels == pytest.approx(59 * 5_000 / NIGHT.events, abs=1)
    assert offer.bound == pytest.approx(1 - 0.05 ** (1 / 59))
    assert offer.sentence == (
        "59 confirmed events, none of them discarded, earn “at most 5 % missed, 95 % sure”: about 2,900 labels at the "
        "present 2.1 % of events, 2 h 22 min at your pace; the sheet is 5,000 curves long and ends as soon as "
        "59 events are confirmed; with 1 miss it says “at most 7.8 % missed” at its end; 5 % would need 34 more "
        "events; neither score nor verdict is shown, for the kept queue speaks only of events above the cut"
    )
    short = replace(NIGHT, decided={"keep": 9, "review": 50, "discard": 441}).offer("uniform", 3.0)
    assert (short.labels, short.events) == (500, 10)
    assert (
        "these 500 decisions hold about 10 events, and 59 would be needed; the sheet is 500 curves long; "
        "without a miss they say “at most 25.9 %" in (short.sentence)
    )
    empty = replace(NIGHT, decided={"keep": 0, "review": 0, "discard": 0}).offer("uniform", 3.0)
    assert (empty.bound, empty.labels) == (None, 0)
    assert "nothing was decided" in empty.sentence


def test_a_weighted_sheet_says_before_what_it_can_state() -> None:
    """After many nights the audited discards stand for enough."""
    month = replace(NIGHT, decided={"keep": 2_700, "review": 15_000, "discard": 132_300}, audited=2_646)
    offer = month.offer("weighted", 3.0)
    assert offer.labels == 2_646 + 300
    assert offer.bound is not None
    assert 0.15 < offer.bound < 0.25  # one discard may stand for 232 others
    assert "2,646 discards drawn by chance stand for all 132,300" in offer.sentence
    assert NIGHT.offer("weighted", 3.0).bound == pytest.approx(0.88, abs=0.03)


def test_a_raters_pace_is_that_of_their_last_answers_without_the_pauses(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    ledger.record([decision(n, verdict="keep") for n in range(1, 21)])
    with ledger.view() as view, Labels(tmp_path / "labels.sqlite") as labels:
        events = view.decisions(range(1, 21))
        assert seconds_a_curve(labels, "anna") == USUAL_S
        for n in range(1, 21):
            moment = f"2026-11-28T{10 + n // 11}:00:{2 * n:02d}.500Z"  # every two seconds, and an hour's pause
            labels.add([Labels.of_event(events[n], "keep", "anna", time=moment)])
        assert seconds_a_curve(labels, "anna") == 2.0
        assert seconds_a_curve(labels, "ben") == USUAL_S
        assert seconds_a_curve(labels, None) == USUAL_S
    ledger.close()


def test_the_outlook_counts_a_group_and_what_people_confirmed_in_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    verdicts: list[Verdict] = ["discard" if n % 2 else "keep" if n % 12 == 0 else "review" for n in range(1, 1_301)]
    ledger.record([decision(n, verdict=verdict) for n, verdict in enumerate(verdicts, start=1)])
    with ledger.view() as view, Labels(tmp_path / "labels.sqlite") as labels:
        flagged = [look.seq for look in view.looks("review", order="seq")][:200]
        kept = [look.seq for look in view.looks("keep", order="seq")]
        events = view.decisions([*flagged, *kept])
        labels.add(Labels.of_event(events[seq], "keep" if seq % 20 == 0 else "discard", "anna") for seq in flagged)
        labels.add(Labels.of_event(events[seq], "keep", "anna") for seq in kept[:50])
        labels.add(Labels.of_event(events[seq], "unsure", "ben") for seq in kept[:10])
        found = outlook(view, labels, [(1, None)])
        assert dict(found.decided) == {"keep": 108, "review": 542, "discard": 650}
        assert found.confirmed["keep"] == (40, 50)  # who doubts confirms nothing
        assert found.confirmed["review"] == (sum(seq % 20 == 0 for seq in flagged), 200)
        assert (found.waiting, found.audited) == (58, view.count_looks("discard"))
        part = outlook(view, labels, [(1, 100), (201, 300)])
        assert part.total == 200
        assert part.confirmed["keep"][1] == sum(seq <= 100 or 201 <= seq <= 300 for seq in kept[:50])
    ledger.close()


def test_what_was_got_before_it_changed_is_not_held() -> None:
    """A label comes while the page counts what the labels allow."""
    labels = 0

    def count() -> int:
        found = labels
        if found == 0:
            say()
        return found

    def say() -> None:
        nonlocal labels
        labels = 1
        held.forget()

    held = Held(count, 60.0)
    assert [held.value(), held.value()] == [0, 1]
