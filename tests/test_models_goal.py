"""The time to the goal: what is told too early, what a steady run must say, and that pauses count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from models.goal import HORIZON_S, outlook, told


def curves(kept_at_s, until_s, every_s=2.0):
    """A curve every so often, those nearest to ``kept_at_s`` kept."""
    times = np.arange(0.0, until_s, every_s)
    marks = np.zeros(times.size, np.bool_)
    marks[np.searchsorted(times, kept_at_s).clip(max=times.size - 1)] = True
    return times, marks


def test_with_fewer_than_five_it_is_too_early_and_with_all_it_is_there():
    times, marks = curves([100.0, 200.0, 300.0, 400.0], 500.0)
    goal = outlook(times, marks, 500.0)
    assert (goal.kept, goal.wanted, goal.low_s, goal.likely_s, goal.high_s) == (4, 50, None, None, None)
    assert "too early" in goal.text
    there = outlook(times, marks, 500.0, wanted=4)
    assert (there.low_s, there.high_s) == (0.0, 0.0)
    assert "reached" in there.text
    assert outlook([], [], 0.0).text.startswith("0 of 50 kept")
    of_a_map = outlook(np.full(900, 7.0), np.arange(900) < 9, 7.0)
    assert of_a_map.low_s is None  # all of one moment: nobody knows a rate


def test_a_steady_run_is_told_about_as_the_exact_distribution_tells_it():
    """Of a rate that stays, the time to m more over that of the first k is F-distributed; else it is wider."""
    kept, missing = 30, 20
    at = np.linspace(240.0, 7_200.0, kept)
    goal = outlook(*curves(at, 7_202.0), 7_200.0, wanted=kept + missing)
    low, likely, high = (
        stats.f.ppf(share, 2 * missing, 2 * kept) * missing / kept * 7_200.0 for share in (0.05, 0.5, 0.95)
    )
    assert 0.5 * low < goal.low_s < low
    assert goal.likely_s == pytest.approx(likely, rel=0.25)  # pauses to come are in it
    assert high < goal.high_s < 3.0 * high


def test_what_was_kept_earlier_counts_and_a_silence_lengthens_it():
    at = np.linspace(120.0, 3_600.0, 30)
    some = curves(at, 3_602.0)
    goal, later = outlook(*some, 3_600.0, 50), outlook(*some, 3_600.0, 50, before=10)
    assert (later.kept, goal.kept) == (40, 30)
    assert later.likely_s < goal.likely_s
    silent = outlook(*some, 3_600.0 + 5_400.0, 50)
    assert silent.likely_s > goal.likely_s + 1_800.0  # a long pause, as pauses of an hour and a half are
    assert "; stands still for 1 h 30 min; 50 in" in silent.text
    assert "likely" not in silent.text
    assert outlook(*some, 0.0, 50) == goal  # a clock that was set back


def test_where_the_yield_has_died_no_end_is_promised():
    at = np.linspace(60.0, 900.0, 6)
    goal = outlook(*curves(at, 12 * 3_600.0), 12 * 3_600.0)
    assert goal.high_s is None or goal.high_s > 0.5 * HORIZON_S
    assert goal.low_s > 3_600.0
    assert math.isfinite(goal.low_s)


@pytest.mark.parametrize(
    ("times_s", "words"),
    [
        ((70.0, 400.0, 3_000.0), "1 min to 50 min (90 %), likely 7 min"),
        ((5_000.0, 9_000.0, 40_000.0), "1 h 25 min to 11 h (90 %), likely 2 h 30 min"),
        ((90_000.0, None, None), "1 d 1 h or more, no end in sight (90 %)"),
    ],
)
def test_the_words_are_no_finer_than_what_is_known(times_s, words):
    assert told(9, 50, times_s).text == f"9 of 50 kept; 50 in {words}"
