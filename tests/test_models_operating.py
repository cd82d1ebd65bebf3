import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_curve

from models.metrics import calibration_error, reliability, sweep


def a_set(n=400, seed=0):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(n), 2)  # with ties
    return scores, rng.random(n) < scores


def test_every_cut_is_that_of_a_roc_curve():
    scores, events = a_set()
    cuts = sweep(scores, events)
    false, true, thresholds = roc_curve(events, scores, drop_intermediate=False)
    np.testing.assert_allclose(cuts.found / events.sum(), true[1:])
    np.testing.assert_allclose(cuts.alarms / (~events).sum(), false[1:])
    np.testing.assert_allclose(cuts.score, thresholds[1:])
    assert sweep(np.zeros(0), np.zeros(0, bool)).score.size == 0


def test_reliability_is_weighted_to_the_prevalence():
    scores, events = a_set()
    plain = reliability(scores, events, float(events.mean()))
    assert sum(one.curves for one in plain) == 400
    for one in plain:
        inside = np.minimum((scores * 10).astype(int), 9) == min(int(one.predicted * 10), 9)
        assert one.observed == pytest.approx(events[inside].mean())
        exact = stats.binomtest(int(events[inside].sum()), int(inside.sum())).proportion_ci(0.95, "exact")
        assert (one.low, one.high) == pytest.approx((exact.low, exact.high))
    rare = reliability(scores, events, 0.02)
    assert all(one.observed <= other.observed for one, other in zip(rare, plain, strict=True))
    assert all(one.low <= one.observed <= one.high for one in rare)


def test_its_bins_are_those_of_the_calibration_error():
    scores, events = a_set(seed=2)
    share = float(events.mean())
    bins = reliability(scores, events, share, bins=15)
    error = sum(one.curves * abs(one.predicted - one.observed) for one in bins) / 400
    assert error == pytest.approx(calibration_error(scores, events, share))


def test_one_kind_alone_is_drawn_as_it_is():
    assert reliability(np.array([0.2, 0.9]), np.array([True, True]), 0.02)[0].observed == 1.0
