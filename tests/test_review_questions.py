"""Golden questions and repeats: how many, where they stand, and that they come again at the same places."""

from __future__ import annotations

from collections import Counter

import pytest

from daemon.labels.raters import BLOCK, Slot, kind_at, mix


def shown(count: int, golden: int = 1_000, repeats: int = 1_000) -> list[Slot]:
    return mix(
        range(1, count + 1),
        rater="anna",
        asked=0,
        golden=range(10_001, 10_001 + golden),
        repeats=range(20_001, 20_001 + repeats),
        limit=count,
    )


def test_one_of_each_kind_stands_in_every_twenty() -> None:
    kinds = [slot.kind for slot in shown(2_000)]
    for start in range(0, 2_000, BLOCK):
        assert Counter(kinds[start : start + BLOCK]) == {"plain": 18, "golden": 1, "repeat": 1}


def test_nobody_can_guess_the_place() -> None:
    """Over many blocks and raters each place holds each kind about equally often."""
    places = Counter(
        (kind_at(f"rater {rater}", number), number % BLOCK) for rater in range(20) for number in range(100 * BLOCK)
    )
    for kind in ("golden", "repeat"):
        for place in range(BLOCK):
            assert places[kind, place] == pytest.approx(100, abs=45)  # 4.6 standard deviations


def test_the_same_list_comes_again_and_goes_on_where_it_was_left() -> None:
    """The page asks ahead of what is answered: a question must neither move nor come twice."""
    whole = shown(200)
    assert whole == shown(200)
    answered = {slot.seq for slot in whole[:57]}
    rest = mix(
        [seq for seq in range(1, 201) if seq not in answered],
        rater="anna",
        asked=57,
        golden=[seq for seq in range(10_001, 11_001) if seq not in answered],
        repeats=[seq for seq in range(20_001, 21_001) if seq not in answered],
        limit=143,
    )
    assert rest == whole[57:]


def test_without_questions_all_curves_are_plain_and_none_is_left_out() -> None:
    assert shown(100, golden=0, repeats=0) == [Slot(seq, "plain") for seq in range(1, 101)]


def test_no_curve_stands_twice() -> None:
    """A golden curve may be one that the queue would have shown anyway."""
    slots = mix(range(1, 101), rater="ben", asked=0, golden=range(50, 60), repeats=(), limit=100)
    assert Counter(slot.seq for slot in slots) == Counter(range(1, 101))
    assert {slot.kind for slot in slots} == {"plain", "golden"}


def test_behind_the_last_plain_curve_nothing_is_asked() -> None:
    assert shown(0) == []
