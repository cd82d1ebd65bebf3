"""Sheets: their bounds hold in 95 of 100 nights, their estimates are right on average, the rule of 59 comes out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.certificate import labels_needed, lost_estimate, miss_bound, weighted_bound

SEED = 20_261_128
RUNS = 500


def test_equal_chances_give_the_rule_of_59_but_for_the_stake_on_other_bets() -> None:
    for weight in (1.0, 50.0):
        bound = {n: weighted_bound(np.full(n, weight), [], weight) for n in (59, 62, 63)}
        assert bound[59] > bound[62] > 0.05 > bound[63]
        assert bound[59] == pytest.approx(miss_bound(59, 0, 0.95), abs=0.004)


def test_what_was_drawn_with_little_chance_says_little() -> None:
    """Without a miss among the audited 2 %, 59 events say nothing; 2,850 that were all looked at say 5 %."""
    assert weighted_bound(np.ones(59), [], 50) > 0.7
    assert weighted_bound(np.ones(3_060), [], 50) == pytest.approx(0.05, abs=0.002)
    assert weighted_bound(np.ones(3_060), [50.0], 50) == pytest.approx(0.16, abs=0.01)  # one hit stands for 50 events


def test_a_miss_raises_the_bound_and_an_event_above_lowers_it() -> None:
    bounds = [weighted_bound(np.full(100, 10.0), [30.0] * misses, 50) for misses in range(5)]
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[1]
    assert weighted_bound(np.full(101, 10.0), [], 50) < bounds[0]
    assert weighted_bound([], [], 50) == 1.0
    assert weighted_bound([1.0], [50.0] * 9, 50) > 0.99
    for above, missed, heaviest in (([0.5], [], 50), ([1.0], [60.0], 50), ([1.0], [0.5], 50), ([1.0], [], 0.5)):
        with pytest.raises(ValueError, match="weight"):
            weighted_bound(above, missed, heaviest)


@pytest.mark.parametrize("miss", [0.02, 0.05, 0.2])
def test_the_bound_of_a_uniform_sheet_holds_in_95_of_100_nights(miss: float) -> None:
    """Looked at until 59 events are confirmed: the misses among them are binomial, however many labels it took."""
    draw = np.random.default_rng(SEED)
    bounds = np.array([miss_bound(59, int(count), 0.95) for count in range(60)])
    missed = draw.hypergeometric(round(3_000 * miss), round(3_000 * (1 - miss)), 59, 20_000)
    assert (bounds[missed] >= miss).mean() >= 0.95


@pytest.mark.parametrize("miss", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("heads", ["weak", "anywhere"])
def test_the_bound_of_a_weighted_sheet_holds_in_95_of_100_nights(miss: float, heads: str) -> None:
    """Also where the lost events are those that had the least chance, which no weighting by score foresees."""
    draw = np.random.default_rng(SEED)
    events, discards = 1_500, 30_000
    lost = round(events * miss)
    score = draw.beta(0.5, 6, discards)
    chance = np.clip(0.02 * (0.2 + 0.8 * (score + 0.02 * score.mean()) / (1.02 * score.mean())), 0, 1)
    order = np.argsort(chance)
    where = order[:lost] if heads == "weak" else draw.choice(discards, lost, replace=False)
    above, heaviest = np.full(events - lost, 0.2), 1 / chance.min()
    holds = []
    for _ in range(RUNS):
        found = 1 / above[draw.random(above.size) < above]
        hits = 1 / chance[where][draw.random(lost) < chance[where]]
        holds.append(weighted_bound(found, hits, heaviest) >= miss)
    assert np.mean(holds) >= 0.95


def test_the_estimate_is_right_on_average_and_closer_where_the_score_knows_something() -> None:
    """Weights by score, a fifth of them uniform, against one chance for all: the same labels, a quarter less error."""
    draw = np.random.default_rng(SEED)
    discards, labels = 5_000, 100
    score = draw.beta(0.5, 6, discards)
    lost = draw.random(discards) < 0.5 * score**2
    uniform = np.full(discards, labels / discards)
    by_score = labels * (0.2 / discards + 0.8 * (score + 0.02 * score.mean()) / (score + 0.02 * score.mean()).sum())
    errors = {}
    for name, chance in (("uniform", uniform), ("by score", by_score)):
        found = [lost_estimate(1 / chance[lost & (draw.random(discards) < chance)]) for _ in range(4 * RUNS)]
        estimates, errors_said = np.array([one[0] for one in found]), np.array([one[1] for one in found])
        error = math.sqrt(((estimates - lost.sum()) ** 2).mean())
        assert estimates.mean() == pytest.approx(lost.sum(), abs=4 * error / math.sqrt(4 * RUNS))
        assert math.sqrt((errors_said**2).mean()) == pytest.approx(error, rel=0.15)
        errors[name] = error
    assert errors["by score"] < 0.75 * errors["uniform"]


def test_weighting_by_score_earns_no_better_promise() -> None:
    """It lets the least likely discards nearly out of sight, and a promise is about those too."""
    same = weighted_bound(np.full(1_000, 1.0), [], 50)
    by_score = weighted_bound(np.full(1_000, 1.0), [], 250)
    assert by_score > 3 * same


def test_the_labels_that_a_promise_costs() -> None:
    assert labels_needed(59, 0.02) == 2_950
    assert labels_needed(5, 0.02) == 250
    assert labels_needed(0, 0.02) == 0
    with pytest.raises(ValueError, match="share"):
        labels_needed(5, 0.0)
