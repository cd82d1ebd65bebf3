"""The study of the time to the goal: its nights, and what it counts on some of them."""

from __future__ import annotations

import numpy as np

from models.goal import WANTED
from tests.studies.goal import KINDS, Asked, asked_of, night, write_text


def test_intervals_of_some_nights_hold_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    nights = [night(KINDS[number % len(KINDS)], rng) for number in range(30)]
    assert all(one.is_kept.sum() == WANTED and np.all(np.diff(one.times_s) > 0) for one in nights)
    every = [found for one in nights for found in asked_of(one, rng)]
    at_fifth = [one for one in every if one.when == "kept 5"]
    assert len(at_fifth) == len(nights)
    assert 0.75 <= sum(one.holds for one in every) / len(every) <= 1.0
    assert "kept 5" in write_text(every)


def test_a_goal_that_is_not_reached_wants_an_interval_without_an_end():
    never, open_end = float("inf"), float("inf")
    assert Asked("steady", "kept 5", 60.0, open_end, never).holds
    assert not Asked("steady", "kept 5", 60.0, 9_000.0, never).holds
    assert not Asked("steady", "kept 5", 60.0, 9_000.0, 30.0).holds
