import numpy as np
import pytest

from models.calibrate import HIGHEST, KeepRule, choose_discard, choose_keep, share_between
from models.metrics import class_weights


def drawn(seed=0, events=100, free=400):
    rng = np.random.default_rng(seed)
    labels = np.arange(events + free) < events
    return 1 / (1 + np.exp(-rng.normal(0, 1.5, labels.size) - np.where(labels, 2, -3))), labels


@pytest.mark.parametrize("seed", range(5))
def test_discard_stays_below_its_limit_and_goes_no_further_than_event_free_curves(seed):
    scores, labels = drawn(seed)
    limit = float(np.sort(scores[labels])[3])
    discard = choose_discard(scores, labels, limit)
    assert discard < limit
    assert discard in scores[~labels]
    assert (scores[~labels] <= discard).sum() == (scores[~labels] < limit).sum()


def test_where_no_event_free_curve_lies_below_the_limit_none_of_these_is_discarded():
    scores, labels = np.array([0.3, 0.5, 0.9]), np.array([True, False, False])
    assert 0.2999 < choose_discard(scores, labels, 0.3) < 0.3
    assert choose_discard(scores, labels, 0.6) == 0.5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("precision", [0.3, 0.6, 0.9])
def test_keep_is_the_lowest_threshold_with_the_precision(seed, precision):
    scores, labels = drawn(seed)
    keep = choose_keep(scores, labels, 0.05, 1e-6, KeepRule(precision))
    weights = class_weights(labels, 0.05)

    def found(threshold):
        taken = scores >= threshold
        return (weights * labels)[taken].sum() / weights[taken].sum()

    assert found(keep) >= precision
    assert all(found(lower) < precision for lower in scores[scores < keep])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.2, 1.0])
def test_keep_leaves_no_more_to_review_than_asked(share):
    scores, labels = drawn()
    discard = float(np.quantile(scores, 0.5))
    keep = choose_keep(scores, labels, 0.02, discard, KeepRule(None, share))
    assert discard < keep
    assert share_between(scores, labels, 0.02, discard, keep) <= share + 1e-9
    higher = np.sort(scores[scores > keep])
    if higher.size > 1:
        assert share_between(scores, labels, 0.02, discard, higher[0]) > share


def test_a_precision_that_no_score_has_keeps_nothing():
    scores, labels = np.array([0.2, 0.9, 0.95]), np.array([True, False, False])
    assert choose_keep(scores, labels, 0.5, 0.1, KeepRule(0.9)) == HIGHEST


def test_keep_lies_above_discard_even_where_they_would_cross():
    scores, labels = np.array([0.1, 0.2, 0.9]), np.array([False, False, True])
    assert choose_keep(scores, labels, 0.5, 0.95, KeepRule(0.5)) > 0.95


def test_rules_say_what_they_mean():
    assert KeepRule().words(0.02) == "90 % of the kept are events where 2 % of curves hold an event"
    assert KeepRule(None, 0.033).words(0.02) == "at most 3.3 % go to review where 2 % of curves hold an event"
