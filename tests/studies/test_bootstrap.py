import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.metrics import auc, discarded_at
from tests.studies.resampling import difference, interval, redraw, spread


def a_set(n=200, seed=0, shift=1.5):
    rng = np.random.default_rng(seed)
    events = rng.random(n) < 0.4
    return rng.normal(0, 1, n) + shift * events, events


def test_draws_keep_the_number_of_each_kind():
    _, events = a_set()
    places = redraw(events, 50, seed=1)
    assert places.shape == (50, 200)
    assert (events[places].sum(axis=1) == events.sum()).all()
    assert len({tuple(row) for row in places}) == 50
    np.testing.assert_array_equal(places, redraw(events, 50, seed=1))


def test_an_interval_holds_the_value_and_narrows_with_curves():
    scores, events = a_set()
    low, high = spread(auc, scores, events)
    assert low < roc_auc_score(events, scores) < high
    many = spread(auc, *a_set(4000))
    assert many[1] - many[0] < (high - low) / 3
    assert interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))


def test_it_covers_the_truth_about_as_often_as_it_says():
    truth = roc_auc_score(*reversed(a_set(200_000, seed=99)))
    inside = [low <= truth <= high for low, high in (spread(auc, *a_set(120, seed), 200) for seed in range(100))]
    assert 86 <= sum(inside) <= 100


def test_a_difference_is_paired():
    scores, events = a_set()
    gap, low, high = difference(auc, scores, scores - 0.001 * ~events, events)
    whole = spread(auc, scores, events)
    assert gap == pytest.approx(0, abs=1e-3)
    assert high - low < (whole[1] - whole[0]) / 20


def test_one_kind_alone_has_nothing_to_say():
    scores, events = np.arange(5.0), np.ones(5, bool)
    assert spread(auc, scores, events) is None
    assert difference(auc, scores, scores, events) is None


def test_discarded_at_gives_up_two_events_in_a_hundred():
    events = np.repeat([True, False], [100, 4])
    scores = np.concatenate((np.arange(100.0), [-1.0, 1.5, 2.0, 50.0]))
    assert discarded_at(scores, events) == 0.5  # below 2.0, the third lowest event; a tie is not below
    assert discarded_at(scores, events, recall=1.0) == 0.25
    assert discarded_at(scores[:100], events[:100]) is None
