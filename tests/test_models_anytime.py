"""The formulas of the guard against scipy, against the published numbers, and against chance."""

import math

import numpy as np
import pytest
from scipy import stats

from models.anytime import (
    ALARM_AT,
    EDetector,
    YieldWatch,
    burst_limit,
    evidence_against,
    least_events,
    lost_bound,
    null_of,
    recall_lower_bound,
    yield_fell,
    yield_level,
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


def test_a_draw_of_equal_chances_without_an_event_says_what_the_binomial_says():
    for looked, most in ((100, 66), (500, 11), (1151, 4)):
        assert lost_bound(2184, [looked / 2184] * looked, [False] * looked) == most
        exact = math.log(0.05) / math.log1p(-looked / 2184)  # where so many would all be overlooked in 5 %
        assert exact - 1 < most < 1.1 * exact  # a little above it, for the other bets
    assert lost_bound(2184, [0.2 * 100 / 2184] * 100, [False] * 100) == 337


def test_a_census_is_exact_and_nothing_says_nothing():
    assert lost_bound(40, [1.0] * 10 + [0.3] * 30, [True] * 7 + [False] * 33) == 7
    assert lost_bound(40, [], []) == 40
    assert lost_bound(0, [], []) == 0
    assert lost_bound(40, [0.5] * 38, [True] * 38) == 40  # never more than there are
    assert lost_bound(40, [1.0] * 10, [True] + [False] * 9, rest=0.0) == 31


def test_what_was_surely_looked_at_takes_nothing_from_the_rest():
    """A stratum of its own that is looked at whole adds what it holds, and hardly any doubt."""
    alone = lost_bound(2000, [0.01] * 20, [False] * 20)
    assert lost_bound(2050, [0.01] * 20 + [1.0] * 50, [False] * 70, rest=0.01) == alone
    both = lost_bound(2050, [0.01] * 20 + [1.0] * 50, [False] * 20 + [True] * 10 + [False] * 40, rest=0.01)
    assert alone + 10 <= both <= alone + 20
    by_chance = lost_bound(2000, [0.01] * 20, [False] * 10 + [True] * 10)
    assert by_chance > 1500  # found where the draw hardly looks they stand for many
    halves = lost_bound(2000, [0.01] * 20, [False] * 20, rest={0.01: 990, 0.02: 990})
    assert halves == alone < 990


def test_the_bound_is_the_bet_that_its_words_describe():
    """Sets of events added up by hand: the largest that is not refuted, the rest taken from the smallest chance up."""
    chances, events = [0.3, 0.1, 0.5, 0.1], [True, False, True, False]
    rest = sorted([0.1, 0.1, 0.2, 0.4, 0.4, 0.5] * 6)
    stakes, most = dict(((1.0, 0.8), (0.95, 0.05), (0.85, 0.05), (0.65, 0.05), (0.35, 0.05))), 0
    for unseen in range(len(rest) + 1):
        whole = 0.0
        for bet, stake in stakes.items():
            left = math.prod(1 - bet * 0.1 / p for p, event in zip(chances, events, strict=True) if event)
            whole += stake * left * math.prod(1 + bet * 0.1 / (1 - p) for p in rest[:unseen])
            for p in rest:  # every bet is fair
                assert p * (1 - bet * 0.1 / p) + (1 - p) * (1 + bet * 0.1 / (1 - p)) == pytest.approx(1)
        most = 2 + unseen if whole < 20 else most
    told = lost_bound(40, chances, events, rest={p: rest.count(p) for p in set(rest)})
    assert 20 < told == most < 38


@pytest.mark.parametrize(
    ("count", "chances", "found", "rest"),
    [
        (3, [0.5] * 4, [False] * 4, None),
        (9, [0.5, 0.4], [False] * 2, None),
        (9, [0.5, 0.0], [False] * 2, 0.1),
        (9, [0.5, 1.1], [False] * 2, 0.1),
        (9, [0.5, math.nan], [False] * 2, 0.1),
        (9, [0.5], [False] * 2, 0.1),
        (9, [0.5], [False], 1.0),
        (9, [0.5], [False], -0.1),
        (9, [0.5], [False], {0.1: 7}),
    ],
)
def test_an_audit_that_does_not_add_up(count, chances, found, rest):
    with pytest.raises(ValueError, match=r"chance|discard"):
        lost_bound(count, chances, found, rest=rest)


def test_events_hidden_where_the_draw_seldom_looks_break_the_bound_in_5_percent_at_the_most():
    """The worst that can be: all lost events have the smallest chance; looked at after every label of twenty nights."""
    rng, wrong, nights = np.random.default_rng(11), 0, 400
    for _ in range(nights):
        chance = np.where(np.arange(1200) % 6, 0.02, 0.2)
        event = (np.arange(1200) % 6 > 0) & (rng.random(1200) < 0.2)
        drawn = np.flatnonzero(rng.random(1200) < chance)
        order = rng.permutation(drawn)
        for looked in range(1, len(order) + 1):
            share, some = looked / len(order), order[:looked]
            if looked % 6 == 0 or looked == len(order):
                wrong_now = lost_bound(1200, chance[some] * share, event[some], rest=0.02 * share) < event.sum()
                wrong += wrong_now
                if wrong_now:
                    break
    assert wrong / nights <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / nights)


def test_two_detectors_say_at_least_so_many():
    assert [least_events(*c) for c in ((0, 0, 0), (5, 4, 0), (0, 7, 0), (200, 400, 20))] == [0, 9, 7, 627]
    for counts in ((50, 100, 5), (200, 400, 20), (1084, 1716, 150)):
        total = least_events(*counts)
        both, first, second = counts
        seen = sum(counts)
        tail = [stats.nchypergeom_fisher.cdf(both, n, both + first, both + second, 1 / 3) for n in (total, total - 1)]
        assert tail[0] > 0.1
        assert total == seen or tail[1] <= 0.1
        assert seen <= total <= seen + first * second / both
    with pytest.raises(ValueError, match="start at 0"):
        least_events(-1, 3, 3)


def test_a_network_that_is_blind_to_something_is_told_by_what_was_seen_alone():
    assert least_events(850, 1400, 150) > 2400  # 15 % of what the steps show
    assert least_events(850, 1400, 151) == 2401
    assert least_events(0, 40, 40) == 80


def test_a_yield_that_fell_is_fishers_test():
    for counts in ((20_000, 400, 300, 0), (2_000, 400, 300, 30), (500, 10, 50, 2), (10, 0, 5, 0), (10, 10, 5, 5)):
        before_n, before_k, now_n, now_k = counts
        exact = stats.hypergeom.cdf(now_k, before_n + now_n, before_k + now_k, now_n)
        assert yield_fell(*counts) == pytest.approx(exact, rel=1e-9)
        rose = yield_fell(before_n, before_n - before_k, now_n, now_n - now_k)
        assert rose == pytest.approx(stats.hypergeom.sf(now_k - 1, before_n + now_n, before_k + now_k, now_n), rel=1e-9)
    assert yield_fell(0, 0, 300, 5) == 1.0
    assert yield_fell(2000, 400, 300, 20) < yield_level(50) < yield_fell(2000, 400, 300, 40)
    assert 2 * yield_level(50) * 20_000 / 50 == pytest.approx(0.01)
    with pytest.raises(ValueError, match="then"):
        yield_fell(10, 11, 5, 0)


def test_a_run_whose_yield_falls_or_rises_is_told_once_it_is_sure():
    rng = np.random.default_rng(3)
    for usual, then, told in ((0.2, 0.05, "fell"), (0.05, 0.2, "rose"), (0.2, 0.2, None), (0.0, 0.2, "rose")):
        watch, said = YieldWatch(), []
        for curve in range(2000):
            watch.observe(bool(rng.random() < (usual if curve < 1500 else then)))
            said.append(watch.told)
        assert set(said[:1500]) == {None}
        assert said[1799] == said[-1] == told
    assert YieldWatch().told is None
