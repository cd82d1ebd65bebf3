import time

import numpy as np
import pytest
from pace import allowed
from scipy import stats
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression

from models.metrics import (
    at_least,
    at_most,
    auc,
    average_precision,
    brier_skill,
    calibration_error,
    class_weights,
    clopper_pearson,
    count_table,
    reliability_slope,
)


@pytest.mark.parametrize("seed", range(5))
def test_ranking_figures_are_sklearns(seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(300) < 0.2
    scores = np.round(rng.random(300) + 0.3 * labels, 1 + seed % 3)  # with ties
    assert auc(scores, labels) == pytest.approx(oracle.roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(oracle.average_precision_score(labels, scores), abs=1e-12)


def test_without_both_kinds_there_is_no_ranking():
    assert auc([0.1, 0.9], [1, 1]) is None
    assert auc([], []) is None
    assert average_precision([0.1], [0]) is None
    with pytest.raises(ValueError, match="scores"):
        auc([0.1, 0.2], [1])


@pytest.mark.parametrize(
    ("hits", "of"), [(0, 1), (1, 1), (12, 13), (13, 13), (0, 59), (59, 59), (3, 1000), (500, 1000)]
)
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
def test_intervals_are_scipys(hits, of, confidence):
    expected = stats.binomtest(hits, of).proportion_ci(confidence, "exact")
    assert clopper_pearson(hits, of, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_intervals_of_nothing_and_of_nonsense():
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="no share"):
        clopper_pearson(3, 2)


@pytest.mark.parametrize(("hits", "of", "p"), [(0, 10, 0.3), (3, 50, 0.02), (40, 40, 0.9), (299, 300, 0.99)])
def test_tails_are_scipys(hits, of, p):
    assert at_most(hits, of, p) == pytest.approx(stats.binom.cdf(hits, of, p), rel=1e-10)
    assert at_least(hits, of, p) == pytest.approx(stats.binom.sf(hits - 1, of, p), rel=1e-9)
    assert at_most(2, 3, 1.0) == 0.0
    assert at_most(3, 3, 1.0) == at_most(0, 3, 0.0) == 1.0


def test_calibration_error_sees_a_bias_and_nothing_else():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    events = rng.random(200_000) < p
    assert calibration_error(p, events) < 0.01
    assert calibration_error(np.clip(p + 0.1, 0, 1), events) == pytest.approx(0.095, abs=0.01)
    assert np.isnan(calibration_error([], []))


def test_calibration_error_can_be_that_of_a_rarer_stream():
    rng = np.random.default_rng(1)
    events = rng.random(100_000) < 0.5
    logits = rng.normal(0, 1, 100_000) + np.where(events, 2.0, -2.0)  # log odds are 4 x, at equal shares
    at_two_percent = 1 / (1 + np.exp(-(4 * logits + np.log(0.02 / 0.98))))
    assert calibration_error(at_two_percent, events, prevalence=0.02) < 0.003
    assert calibration_error(at_two_percent, events) > 0.05


def test_weights_make_the_prevalence():
    events = np.array([True] * 30 + [False] * 10)
    weights = class_weights(events, 0.02)
    assert weights[events].sum() / weights.sum() == pytest.approx(0.02)
    assert weights.mean() == pytest.approx(1)
    assert (class_weights(events[:30], 0.02) == 1).all()


def test_table():
    table = count_table(["keep", "keep", "discard", "review"], [True, False, False, True])
    assert table == {
        "keep": {"event": 1, "none": 1},
        "review": {"event": 1, "none": 0},
        "discard": {"event": 0, "none": 1},
    }


@pytest.mark.parametrize("prevalence", [None, 0.02, 0.3])
def test_skill_and_slope_are_sklearns(prevalence):
    rng = np.random.default_rng(3)
    events = rng.random(4000) < 0.3
    scores = 1 / (1 + np.exp(-(rng.normal(0, 1, 4000) + np.where(events, 1.0, -1.0))))
    weights = np.ones(4000) if prevalence is None else class_weights(events, prevalence)
    share = np.average(events, weights=weights)
    constant = oracle.brier_score_loss(events, np.full(4000, share), sample_weight=weights)
    expected = 1 - oracle.brier_score_loss(events, scores, sample_weight=weights) / constant
    assert brier_skill(scores, events, prevalence) == pytest.approx(expected, abs=1e-12)
    odds = np.log(scores / (1 - scores))[:, None]
    slope = LogisticRegression(C=1e12, tol=1e-12).fit(odds, events, weights).coef_[0, 0]
    assert reliability_slope(scores, events, prevalence) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("boldness", [0.5, 1.0, 2.0])
def test_slope_tells_too_bold_from_too_timid(boldness):
    rng = np.random.default_rng(4)
    odds = rng.normal(0, 2, 50_000)
    events = rng.random(50_000) < 1 / (1 + np.exp(-odds))
    assert reliability_slope(1 / (1 + np.exp(-boldness * odds)), events) == pytest.approx(1 / boldness, rel=0.05)


def test_skill_and_slope_without_both_kinds_or_with_a_perfect_ranking():
    assert np.isnan(brier_skill([0.1, 0.2], [1, 1]))
    assert np.isnan(reliability_slope([0.1, 0.2], [0, 0]))
    assert reliability_slope([0.1, 0.9], [0, 1]) == np.inf
    assert brier_skill([0.0, 1.0], [0, 1]) == 1.0
    assert brier_skill([0.5, 0.5], [0, 1]) == 0.0
    assert 0 < reliability_slope([0.0, 0.5, 1.0, 1.0], [0, 1, 0, 1]) < np.inf


@pytest.mark.parametrize(("hits", "of", "p"), [(4_886, 100_000, 0.05), (95_200, 100_000, 0.95), (120, 100_000, 0.002)])
def test_tails_of_many_draws_are_scipys_and_take_no_time(hits, of, p):
    begun = time.process_time()
    assert at_most(hits, of, p) == pytest.approx(stats.binom.cdf(hits, of, p), rel=1e-7)
    assert at_least(hits, of, p) == pytest.approx(stats.binom.sf(hits - 1, of, p), rel=1e-7)
    assert clopper_pearson(hits, of) == pytest.approx(
        tuple(stats.binomtest(hits, of).proportion_ci(0.95, "exact")), rel=1e-7
    )
    assert time.process_time() - begun < allowed(2.0)
