import numpy as np
import pytest

from models.metrics import average_precision, count_table
from tests.studies.resampling import FIGURES, Outcome, Ranking, compare, draw, in_mix

AP, RECALL, CUT, REVIEW, KEEP = range(len(FIGURES))
ONES = np.ones(400)


def scored(shift, seeds=3, count=400, noise=0.0, seed=0):
    """(S, N) scores of which events lie ``shift`` higher; the luck of a curve is shared by all losses and seeds."""
    luck = np.random.default_rng(seed).normal(0, 1, count)
    events = np.arange(count) % 4 == 0
    own = np.random.default_rng(seed + 1).normal(0, noise, (seeds, count)) if noise else np.zeros((seeds, count))
    return luck + shift * events + own, events


def outcome(shift, share=None, low=0.5, high=2.5, **more):
    scores, events = scored(shift, **more)
    verdicts = np.where(scores >= high, "keep", np.where(scores <= low, "discard", "review"))
    return Outcome(scores, verdicts, events, share)


@pytest.mark.parametrize("step", [0, 1])  # 1: many equal scores
def test_average_precision_is_that_of_metrics_where_every_curve_counts_once(step):
    scores, events = scored(1.0, seeds=1)
    scores = np.round(scores[0], step) if step else scores[0]
    assert Ranking.of(scores).average_precision(ONES, events) == pytest.approx(average_precision(scores, events))


def test_a_weight_is_a_number_of_copies():
    scores, events = scored(1.0, seeds=1)
    counts = np.random.default_rng(5).integers(0, 4, 400)
    copies = np.repeat(np.arange(400), counts)
    found = Ranking.of(scores[0]).average_precision(counts.astype(float), events)
    assert found == pytest.approx(average_precision(scores[0][copies], events[copies]))


def test_weights_put_the_mix_of_a_stream_on():
    _, events = scored(1.0)
    weights = in_mix(ONES, events, 13 / 970)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[events].sum() == pytest.approx(13 / 970)
    assert in_mix(ONES, events, None)[events].sum() == pytest.approx(0.25)


def test_in_a_stream_it_is_the_average_precision_of_long_streams_of_that_mix():
    scores, events = scored(2.0, seeds=1)
    rng, copies = np.random.default_rng(2), np.flatnonzero(events)
    stream = np.concatenate((rng.choice(copies, 1300), rng.choice(np.flatnonzero(~events), 95_700)))
    found = outcome(2.0, 13 / 970, seeds=1).figures(ONES)[0, AP]
    assert found == pytest.approx(average_precision(scores[0][stream], events[stream]), abs=0.03)


def test_figures_are_those_of_the_table():
    one = outcome(2.0, seeds=1)
    scores, events = scored(2.0, seeds=1)
    verdicts = ["keep" if s >= 2.5 else "discard" if s <= 0.5 else "review" for s in scores[0]]
    table, figures = count_table(verdicts, list(events)), one.figures(ONES)[0]
    found = one.tables(ONES)[0] * 400
    assert found == pytest.approx(np.array([[table[v]["event"], table[v]["none"]] for v in table]))
    assert figures[RECALL] == pytest.approx(1 - table["discard"]["event"] / 100)
    assert figures[CUT] == pytest.approx(table["discard"]["none"] / 300)
    assert figures[REVIEW] * 400 == pytest.approx(sum(table["review"].values()))
    assert figures[KEEP] * 400 == pytest.approx(sum(table["keep"].values()))


def test_draws_keep_the_number_of_each_kind_and_repeat_with_the_seed():
    _, events = scored(1.0)
    once, again = ([counts for counts, _ in draw(events, 3, 5, 7)] for _ in range(2))
    assert all(counts[events].sum() == 100 and counts.sum() == 400 for counts in once)
    assert all((a == b).all() for a, b in zip(once, again, strict=True))
    assert all(shares.sum() == pytest.approx(1.0) for _, shares in draw(events, 3, 20, 7))


def test_the_same_outcome_differs_by_nothing():
    found = compare([outcome(1.5), outcome(1.5)], times=50)[1]
    assert np.all(found.difference == 0)
    assert np.all(found.low == 0)
    assert np.all(found.high == 0)


def test_pairing_sees_a_small_steady_difference_that_two_intervals_would_not():
    first, better = outcome(2.0), outcome(2.15)
    found = compare([first, better], times=300)[1]
    alone = np.array([first.figures(counts).mean(0)[AP] for counts, _ in draw(first.events, 3, 300, 1)])
    assert 0 < found.low[AP] < found.difference[AP] < found.high[AP]
    assert found.difference[AP] < np.quantile(alone, 0.975) - np.quantile(alone, 0.025)


def test_what_only_one_seed_says_is_not_believed():
    scores, events = scored(2.0)
    lucky = scores.copy()
    lucky[0] += 2.0 * events
    verdicts = np.full(scores.shape, "review")
    found = compare([Outcome(scores, verdicts, events), Outcome(lucky, verdicts, events)], times=400)[1]
    assert found.by_seed[1:, AP] == pytest.approx(0.0)
    assert found.low[AP] <= 0 < found.difference[AP]


def test_more_comparisons_ask_for_wider_intervals():
    found = compare([outcome(2.0), *(outcome(2.0, noise=0.5, seed=0) for _ in range(4))], times=400)[1]
    assert found.strict_low[AP] < found.low[AP] < found.high[AP] < found.strict_high[AP]


def test_intervals_hold_what_they_promise():
    """A true difference of 0 is excluded in about one set of twenty."""
    outside = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        events = np.arange(200) % 4 == 0
        base = rng.normal(0, 1, 200) + 1.5 * events
        sides = [base + rng.normal(0, 0.7, (5, 200)) for _ in range(2)]
        verdicts = np.full((5, 200), "review")
        found = compare([Outcome(side, verdicts, events) for side in sides], times=100, seed=trial)[1]
        outside += not found.low[AP] <= 0 <= found.high[AP]
    assert outside <= 9


def test_what_cannot_be_paired_is_refused():
    one, other = outcome(2.0), outcome(2.0, seeds=2)
    with pytest.raises(ValueError, match="paired"):
        compare([one, other])
    none = Outcome(np.zeros((3, 4)), np.full((3, 4), "keep"), np.zeros(4, bool))
    with pytest.raises(ValueError, match="with and without"):
        compare([none, none])
