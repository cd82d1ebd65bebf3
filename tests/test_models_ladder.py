import math

import numpy as np
import pytest
from scipy import stats

from models.anytime import evidence_against
from models.calibrate import (
    FEWEST,
    climb,
    predictive_limit,
    student_quantile,
    watched_events,
)
from models.certificate import CONFIDENCE, MAX_MISS, discard_limit, events_needed

BASE = -0.605
#: Logits of five of the chromosome events of the study.
FIVE = np.array([3.04, 3.45, 3.71, 4.95, 5.55])


@pytest.mark.parametrize("degrees", [1, 2, 9, 10, 14, 63])
@pytest.mark.parametrize("share", [0.0001, 0.01, 0.02, 0.3, 0.975])
def test_students_quantile_is_that_of_scipy(share, degrees):
    assert student_quantile(share, degrees) == pytest.approx(stats.t.ppf(share, degrees), rel=1e-9)


@pytest.mark.parametrize("count", [1, 5, 24])
def test_the_predictive_quantile_is_that_of_the_conjugate_posterior_added_up_one_by_one(count):
    """Murphy (2007), one event after the other, and scipy's own Student t with place and scale."""
    events = np.random.default_rng(count).normal(3, 1.5, count)
    mean, weight, shape, scale = 2.0, 1.0, 2.0, 2.0
    for z in events:
        scale += weight * (z - mean) ** 2 / (2 * (weight + 1))
        mean, weight, shape = (weight * mean + z) / (weight + 1), weight + 1, shape + 0.5
    wide = math.sqrt(scale * (weight + 1) / (shape * weight))
    for miss in (0.01, 0.02):
        assert predictive_limit(events, miss) == pytest.approx(stats.t.ppf(miss, 2 * shape, mean, wide), rel=1e-9)


def test_the_rungs():
    assert climb(BASE, FIVE[:4]).logit == BASE
    assert (climb(BASE, FIVE[:4]).rung, climb(BASE, []).needed) == ("shipped", FEWEST)
    provisional = climb(BASE, FIVE)
    assert (provisional.rung, provisional.events, provisional.needed) == ("provisional", 5, 54)
    assert provisional.logit == pytest.approx(predictive_limit(FIVE, 0.01))
    assert BASE < provisional.logit < climb(BASE, FIVE, 0.02).logit < FIVE.min()
    assert climb(BASE, FIVE, is_watched=True).needed == 77
    many = np.random.default_rng(1).normal(4, 1, 81)
    assert (climb(BASE, many).rung, climb(BASE, many, is_watched=True).rung) == ("exact", "provisional")
    assert climb(BASE, many).logit == pytest.approx(discard_limit(many, MAX_MISS, CONFIDENCE))


def test_it_never_goes_down_and_never_over_a_confirmed_event():
    weak = np.array([-0.5, 0.7, 0.7, 1.2, 2.0])  # the predictive quantile lies below the base
    assert predictive_limit(weak, 0.01) < BASE
    assert climb(BASE, weak).logit == BASE
    rng = np.random.default_rng(3)
    capped = 0
    for count in (5, 12, 58, 59, 93, 300):  # from 93 on the exact rule alone would give up one event
        for _ in range(40):
            events = np.abs(rng.normal(0, 2, count)) + BASE + 0.05
            if count % 3:  # one weak event among strong ones
                events = np.append(rng.normal(6, 0.5, count - 1), events[0])
            step = climb(BASE, events, 0.02)
            assert BASE <= step.logit < events.min()
            capped += step.is_capped
    assert capped > 40
    for bad in ([BASE], [math.nan, 1.0], [-3.0, 2.0]):
        with pytest.raises(ValueError, match="above the present cut"):
            climb(BASE, bad)


def test_one_of_seven_that_is_no_event_moves_the_cut_less_not_more():
    """A wrong event resembles the pile: it draws the mean down and the spread apart."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        events = rng.normal(4.2, 0.9, 6)
        wrong = rng.uniform(BASE + 0.01, 1.0)
        assert climb(BASE, [*events, wrong]).logit <= climb(BASE, events).logit


def test_a_count_that_is_watched_needs_82_events():
    assert (events_needed(MAX_MISS, CONFIDENCE), watched_events()) == (59, 82)
    # the same integral by scipy's incomplete beta function
    for count in (30, 82, 200):
        mass = stats.beta.cdf(0.05, 1, 20)
        whole = 20 / (count + 20) * stats.beta.cdf(0.05, 1, count + 20)
        assert evidence_against(0.05, count, 0) == pytest.approx(whole / mass / 0.95**count, rel=1e-5)


def test_a_watched_promise_is_wrongly_earned_in_5_percent_at_the_most():
    """Events of which just 5 % are missed, looked at after each one, until 400."""
    rng = np.random.default_rng(7)
    table = {}
    wrong = 0
    for _ in range(600):
        missed = np.cumsum(rng.random(400) < MAX_MISS)
        for count in range(59, 401, 3):
            key = count, int(missed[count - 1])
            if key[1] > MAX_MISS * count:
                continue
            if key not in table:
                table[key] = evidence_against(MAX_MISS, *key) >= 20
            if table[key]:
                wrong += 1
                break
    assert wrong / 600 <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 600)


def test_one_more_kept_event_does_not_empty_the_pile():
    """Only what was kept has been confirmed: the exact rule by itself would put the cut where keep begins."""
    keep, rng = 1.13, np.random.default_rng(3)
    events = rng.normal(2.5, 1.5, 400)
    kept = events[events >= keep]
    few, enough = (climb(BASE, kept[:count], ceiling=keep) for count in (58, 60))
    assert (few.rung, enough.rung) == ("provisional", "exact")
    assert enough.logit < few.logit + 0.2
    assert np.mean(events[events > BASE] <= enough.logit) < 0.05  # as it promises
