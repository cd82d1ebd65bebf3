"""The formulas of the guard against scipy, against the published numbers, and against chance."""

import math

import numpy as np
import pytest
from scipy import stats

from models.anytime import (
    ALARM_AT,
    EDetector,
    burst_limit,
    evidence_against,
    null_of,
    recall_lower_bound,
)


def test_the_detector_is_the_published_recursion():
    rng, detector, evidence = np.random.default_rng(1), EDetector(0.02), np.zeros(5)
    shares = np.array([0.05, 0.08, 0.12, 0.20, 0.35])
    rings = 0
    for missed in rng.random(2000) < 0.05:
        evidence = (evidence + 1) * (shares / 0.02 if missed else (1 - shares) / 0.98)
        rang = detector.observe(bool(missed))
        assert rang == (evidence.mean() >= 5_000)
        evidence = evidence * 0 if rang else evidence
        assert detector.state == pytest.approx(evidence)
        rings += rang
    assert rings >= 5


def test_a_detector_goes_on_where_another_stopped():
    first, second = EDetector(0.03), EDetector(0.03)
    pattern = [True, False, False, True, True] * 3
    for missed in pattern:
        first.observe(missed)
        second.observe(missed)
        fresh = EDetector(0.03)
        fresh.restore(second.state)
        second = fresh
    assert second.state == first.state
    assert 0 < first.evidence < ALARM_AT
    for odd in ((1.0,), (1.0, 2.0, 3.0, 4.0, -1.0), (math.nan,) * 5, (math.inf,) * 5):
        with pytest.raises(ValueError, match="no state"):
            first.restore(odd)


@pytest.mark.parametrize("null", [0.0005, 0.02, 0.06, 0.3, 0.99])
def test_whatever_the_null_every_bet_is_fair_at_it(null):
    """One canary leaves the mean evidence where it was, plus one: that is what makes the count between alarms hold."""
    detector = EDetector(null)
    start = (7.0, 0.0, 40.0, 3.0, 1.0)
    after = []
    for missed in (True, False):
        detector.restore(start)
        assert not detector.observe(missed)
        after.append(detector.evidence)
    assert null * after[0] + (1 - null) * after[1] == pytest.approx(np.mean(start) + 1)
    assert after[0] > after[1]


def test_a_null_that_cannot_be():
    for null in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            EDetector(null)
    for events, missed in ((0, 0), (5, 5), (5, -1)):
        with pytest.raises(ValueError, match="say nothing"):
            null_of(events, missed)


def test_the_limits_of_a_burst_and_the_null_of_a_cut():
    assert burst_limit(0.02) == 9
    assert burst_limit(null_of(2000, 41)) == 11
    for null in (0.005, 0.0265, 0.1):
        assert (
            stats.binom.sf(burst_limit(null) - 1, 150, null)
            <= 0.0035
            < stats.binom.sf(burst_limit(null) - 2, 150, null)
        )
    assert null_of(2000, 41) == pytest.approx(stats.beta.ppf(0.95, 42, 1959))


def test_the_evidence_is_the_integral():
    for share, events, missed in ((0.05, 100, 2), (0.05, 100, 8), (0.3, 20, 1), (0.01, 1000, 30)):
        grid = np.linspace(0, share, 200_001)
        middle = (grid[1:] + grid[:-1]) / 2
        density = (1 - middle) ** 19
        gain = stats.binom.logpmf(missed, events, middle) - stats.binom.logpmf(missed, events, share)
        mixed = (density * np.exp(gain)).sum() / density.sum()
        assert evidence_against(share, events, missed) == pytest.approx(mixed, rel=1e-6)


def test_the_gauge_stands_where_the_evidence_reaches_20():
    for canaries, missed in ((5, 0), (100, 2), (300, 6), (1000, 20), (20, 10), (50, 0), (100_000, 2_000)):
        bound = recall_lower_bound(canaries, missed)
        assert evidence_against(1 - bound, canaries, missed) == pytest.approx(20, rel=1e-4)
    found = [recall_lower_bound(n, round(0.02 * n)) for n in (100, 300, 1000)]
    assert found == pytest.approx([0.918, 0.949, 0.964], abs=0.001)
    assert (recall_lower_bound(0, 0), recall_lower_bound(3, 3)) == (0.0, 0.0)
    assert 0 < recall_lower_bound(1, 0) < recall_lower_bound(2, 0)
    with pytest.raises(ValueError, match="canaries"):
        recall_lower_bound(3, 4)
