"""The certificate against scipy and MAPIE, against chance, and against those who would edit one."""

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController
from scipy import stats

from models.certificate import (
    Certificate,
    Experiment,
    discard_limit,
    events_needed,
    miss_bound,
    misses_allowed,
    percent_up,
)


@pytest.mark.parametrize(
    ("max_miss", "missed", "events"),
    [(0.05, 0, 59), (0.05, 1, 93), (0.05, 2, 124), (0.05, 3, 153), (0.1, 0, 29), (0.02, 0, 149), (0.01, 0, 299)],
)
def test_the_published_numbers_of_events(max_miss, missed, events):
    assert events_needed(max_miss, 0.95, missed) == events
    assert misses_allowed(events, max_miss, 0.95) == missed
    assert misses_allowed(events - 1, max_miss, 0.95) == (missed - 1 if missed else None)
    assert miss_bound(events, missed, 0.95) <= max_miss < miss_bound(events - 1, missed, 0.95)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("events", "missed"), [(1, 0), (13, 1), (59, 0), (333, 8), (970, 40), (12, 12)])
def test_bounds_are_scipys(events, missed, confidence):
    two_sided = stats.binomtest(missed, events).proportion_ci(2 * confidence - 1, "exact") if confidence > 0.5 else None
    bound = miss_bound(events, missed, confidence)
    if two_sided is not None:
        assert bound == pytest.approx(two_sided.high, abs=1e-9)
    if missed < events:
        assert stats.binom.cdf(missed, events, bound) == pytest.approx(1 - confidence, abs=1e-9)


@pytest.mark.parametrize("max_miss", [0.003, 0.05, 0.3])
@pytest.mark.parametrize("events", [10, 59, 93, 400, 2000])
def test_the_allowed_misses_are_the_most_that_scipy_allows(events, max_miss):
    allowed = misses_allowed(events, max_miss, 0.95)
    able = np.flatnonzero(stats.binom.cdf(np.arange(events), events, max_miss) <= 0.05)
    assert allowed == (int(able.max()) if able.size else None)


@pytest.mark.parametrize(("events", "max_miss"), [(59, 0.05), (93, 0.05), (100, 0.05), (40, 0.1)])
def test_thresholds_break_their_word_as_rarely_as_promised(events, max_miss):
    """Four thousand labs draw their events from the same scores, smooth or with many ties."""
    rng = np.random.default_rng(events)
    for scores in (rng.random((4_000, events)), np.round(rng.random((4_000, events)), 1)):
        limits = np.array([discard_limit(row, max_miss, 0.95) for row in scores])
        lost = limits if scores[0, 0] != round(scores[0, 0], 1) else np.clip(limits - 0.05, 0, 1)  # P(score < limit)
        assert (lost > max_miss).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4_000)
    allowed = misses_allowed(events, max_miss, 0.95)
    assert (
        stats.beta.sf(max_miss, allowed + 1, events - allowed)
        <= 0.05
        < stats.beta.sf(max_miss, allowed + 2, events - allowed - 1)
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("events", [70, 130, 300])
def test_mapie_allows_the_same_threshold(seed, events):
    """Its p-value for a binary loss is the same binomial tail; a fixed sequence from strict to bold loses nothing."""
    rng = np.random.default_rng(seed)
    labels = np.arange(2 * events) < events
    scores = 1 / (1 + np.exp(-rng.normal(0, 1, 2 * events) - np.where(labels, 2.5, -2.5)))
    cuts = np.unique(scores[labels])  # ascending: an event is found when its score reaches the cut
    controller = BinaryClassificationController(
        lambda x: np.stack((1 - x.ravel(), x.ravel()), axis=1),
        risk="recall",
        target_level=0.95,
        confidence_level=0.95,
        list_predict_params=cuts,
        fwer_method="fixed_sequence",
    )
    controller.calibrate(scores[:, None], labels.astype(int))
    ours = discard_limit(scores[labels], 0.05, 0.95)
    theirs = float(np.max(controller.valid_predict_params))
    assert theirs == pytest.approx(ours, abs=1e-12)


def test_mapie_finds_no_threshold_where_we_find_none():
    rng = np.random.default_rng(0)
    labels = np.arange(80) < 58
    scores = np.clip(rng.random(80) * 0.5 + 0.5 * labels, 0, 1)
    controller = BinaryClassificationController(
        lambda x: np.stack((1 - x.ravel(), x.ravel()), axis=1),
        risk="recall",
        target_level=0.95,
        confidence_level=0.95,
        list_predict_params=np.unique(scores[labels]),
        fwer_method="fixed_sequence",
    )
    with pytest.warns(UserWarning, match="(?i)no predict"):
        controller.calibrate(scores[:, None], labels.astype(int))
    assert len(controller.valid_predict_params) == 0
    assert discard_limit(scores[labels], 0.05, 0.95) is None


@pytest.mark.parametrize(("max_miss", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.05, 0.4), (0.05, 1.0)])
def test_nonsense_is_refused(max_miss, confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        events_needed(max_miss, confidence)
    assert miss_bound(0, 0, 0.95) == 1.0
    assert discard_limit([], 0.05, 0.95) is None


def certificate(**changes):
    values = {
        "max_miss": 0.05,
        "confidence": 0.95,
        "bound": miss_bound(93, 1, 0.95),
        "events": 93,
        "missed": 1,
        "allowed": 1,
        "limit_logit": -1.5,
        "experiments": {"monday": Experiment(60, 0, "a" * 64), "titin": Experiment(33, 1, "b" * 64)},
        "weights_sha256": "c" * 64,
        "engine": "torch-cpu-bf16",
        "made": "2026-11-21T06:00:00Z",
    }
    return Certificate(**{**values, **changes})


def test_a_certificate_comes_back_as_it_was():
    assert Certificate.from_mapping(certificate().to_mapping()) == certificate()
    assert certificate().sentence() == "93 events, 1 missed → at most 5 % missed, 95 % sure"
    promise = certificate().promise
    assert (promise.max_miss, promise.confidence, promise.events, promise.missed) == (0.05, 0.95, 93, 1)
    assert promise.bound == pytest.approx(0.04997, abs=1e-4)
    assert promise.data == ("monday", "titin")


@pytest.mark.parametrize(
    "change",
    [
        {"events": 94},
        {"missed": 0},
        {"bound": 0.02},
        {"allowed": 2},
        {"max_miss": 0.01},
        {"confidence": 0.99},
        {"confidence": "sure"},
        {"simulated": True},
        {"limit_logit": float("nan")},
        {"weights_sha256": "c"},
        {"experiments": {}},
        {"experiments": {"x": {"events": 93, "missed": 1, "labels_sha256": 5}}},
        {"engine": None},
        {"promise": "more"},
        {"allowed": 1.0},
        {"limit_logit": "low"},
        {"experiments": {"x": {"events": True, "missed": 1, "labels_sha256": "a" * 64}}},
        {"events": 10**15, "experiments": {"x": {"events": 10**15, "missed": 1, "labels_sha256": "a" * 64}}},
    ],
)
def test_an_edited_certificate_is_none(change):
    with pytest.raises((ValueError, TypeError, KeyError)):
        Certificate.from_mapping({**certificate().to_mapping(), **change})


@pytest.mark.parametrize(("share", "words"), [(0.04951, "5 %"), (0.05, "5 %"), (0.0501, "5.1 %"), (1.0, "100 %")])
def test_a_bound_is_never_rounded_down(share, words):
    assert percent_up(share) == words
