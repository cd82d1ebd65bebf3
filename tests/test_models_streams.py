import numpy as np
import pytest
from scipy import stats

from models.streams import Mix, best_cut, count, divide, resample, share


def verdicts(keep=0, review=0, discard=0):
    return np.array(["keep"] * keep + ["review"] * review + ["discard"] * discard)


def test_the_published_stream_is_counted_as_published():
    """arXiv 2606.09541: 12 of 13 found, 77 false alarms, 880 discarded."""
    tally = divide(verdicts(keep=12, discard=1), verdicts(review=77, discard=880), Mix())
    found = tally.summarise()
    assert Mix().curves == 970
    assert found["recall"] == pytest.approx(12 / 13)
    assert found["not_discarded"] == pytest.approx(89 / 970)
    assert found["review"] == pytest.approx(77 / 970)
    assert found["kept"] == pytest.approx(12 / 970)
    assert found["streams_without_miss"] == 0


def test_each_curve_stands_in_one_stream():
    events, others = verdicts(keep=13 + 12, discard=1), verdicts(review=10, discard=2 * 957 - 10)
    tally = divide(events, others, Mix())
    assert tally.events.tolist() == [[13, 0, 0], [12, 0, 1]]
    assert tally.event_free.tolist() == [[0, 10, 947], [0, 0, 957]]
    found = tally.summarise()
    assert (found["recall_worst"], found["streams_without_miss"]) == (pytest.approx(12 / 13), 0.5)
    assert found["review_worst"] == pytest.approx(10 / 970)
    with pytest.raises(ValueError, match="not whole streams"):
        divide(events[:-1], others, Mix())


def test_counts_are_in_the_order_keep_review_discard():
    assert count(verdicts(3, 2, 1)).tolist() == [3, 2, 1]


def test_resampled_streams_have_the_shares_of_their_pools():
    tally = resample(verdicts(keep=90, discard=10), [verdicts(review=300, discard=2700)], Mix(), 400, seed=1)
    found = tally.summarise()
    assert tally.events.sum(1).tolist() == [13] * 400
    assert tally.event_free.sum(1).tolist() == [957] * 400
    assert found["recall"] == pytest.approx(0.9, abs=0.02)
    assert found["review"] == pytest.approx(0.1 * 957 / 970, abs=0.003)


def test_kinds_of_event_free_curves_come_in_their_numbers():
    mix = Mix(13, (880, 77))
    found = resample(verdicts(keep=50), [verdicts(discard=1000), verdicts(review=1000)], mix, 5, seed=1)
    assert found.event_free.tolist() == [[0, 77, 880]] * 5


def test_a_pool_that_is_large_enough_repeats_nothing_within_a_stream():
    found = resample(verdicts(keep=12, discard=1), [verdicts(review=1, discard=956)], Mix(), 20, seed=1)
    assert (found.events == [12, 0, 1]).all()
    assert (found.event_free == [0, 1, 956]).all()


def test_a_small_pool_is_drawn_from_with_repeats_and_the_same_seed_draws_the_same():
    one, other = (resample(verdicts(keep=2, discard=1), [verdicts(discard=4)], Mix(), 9, seed=3) for _ in range(2))
    assert one.event_free[:, 2].tolist() == [957] * 9
    assert len(set(one.events[:, 0].tolist())) > 1
    assert (one.events == other.events).all()


def test_shares_have_exact_intervals():
    found = share(verdicts(keep=3, review=5, discard=2), "keep", "review")
    oracle = stats.binomtest(8, 10).proportion_ci(0.95, "exact")
    assert (found["hits"], found["of"], found["share"]) == (8, 10, 0.8)
    assert found["interval"] == pytest.approx([oracle.low, oracle.high], abs=1e-9)
    assert share(verdicts(), "keep")["interval"] == [0.0, 1.0]


def test_the_best_cut_saves_what_it_says_and_no_less_is_lost_by_a_higher_one():
    rng = np.random.default_rng(0)
    events, others = rng.normal(2, 1, 1000), rng.normal(0, 1, 5000)
    for recall in (0.98, 0.99, 1.0):
        cut, discarded = best_cut(events, others, recall)
        assert (events > cut).mean() >= recall
        assert discarded == pytest.approx((others <= cut).mean())
        assert (events > np.nextafter(np.nextafter(cut, np.inf), np.inf)).mean() < recall


def test_curves_that_may_not_be_discarded_are_not():
    cut, discarded = best_cut(np.array([1.0, np.inf]), np.array([0.0, 0.0, np.inf, 2.0]), 1.0)
    assert cut < 1.0
    assert discarded == 0.5
