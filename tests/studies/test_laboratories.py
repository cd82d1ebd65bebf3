"""The simulated laboratories: the same curves again, true labels, and a pile that labels could make smaller."""

from __future__ import annotations

import numpy as np
import pytest

from models.bundle import SHIPPED, read
from models.frontend import prepare
from tests.studies.laboratories import TEN, Laboratory

pytestmark = pytest.mark.study


def test_a_curve_is_the_same_whatever_was_drawn_before_it() -> None:
    whole, one = Laboratory(3).curves(6, 0.5, seed=4), Laboratory(3).curve(5, 0.5, seed=4)
    assert np.array_equal(whole[5].curve.force, one.curve.force)
    assert whole[5].is_event == one.is_event
    other = Laboratory(3).curve(5, 0.5, seed=5)
    assert other.curve.force.shape == one.curve.force.shape  # one instrument
    assert not np.array_equal(other.curve.force, one.curve.force)


def test_all_ten_draw_what_was_asked_for_and_can_be_scored() -> None:
    profile, scored = read(SHIPPED).profile, 0
    for seed in TEN:
        events, free = (Laboratory(seed).curves(12, prevalence) for prevalence in (1.0, 0.0))
        assert all(one.is_event for one in events)
        assert not any(one.is_event for one in free)
        assert any(one.is_weak for one in free)
        scored += sum(one.signal is not None for one in prepare([one.curve for one in events + free], profile))
    assert scored >= 0.97 * 24 * len(TEN)
