import numpy as np
import pytest
from scipy import stats

from tests.studies.resampling import Tally, best_cut, count, deal, share
from tests.studies.resampling import redraw_streams as redraw


def verdicts(keep=0, review=0, discard=0):
    return np.array(["keep"] * keep + ["review"] * review + ["discard"] * discard)


def test_the_published_stream_is_counted_as_published():
    """arXiv 2606.09541: 12 of 13 found, 77 false alarms, 880 discarded."""
    tally = Tally(deal(verdicts(keep=12, discard=1), 13), deal(verdicts(review=77, discard=880), 957))
    found = tally.summarise()
    assert found["recall"] == pytest.approx(12 / 13)
    assert found["not_discarded"] == pytest.approx(89 / 970)
    assert found["review"] == pytest.approx(77 / 970)
    assert found["kept"] == pytest.approx(12 / 970)
    assert found["streams_without_miss"] == 0


def test_each_curve_stands_in_one_stream():
    events, others = verdicts(keep=13 + 12, discard=1), verdicts(review=10, discard=2 * 957 - 10)
    tally = Tally(deal(events, 13), deal(others, 957))
    assert tally.events.tolist() == [[13, 0, 0], [12, 0, 1]]
    assert tally.event_free.tolist() == [[0, 10, 947], [0, 0, 957]]
    found = tally.summarise()
    assert (found["recall_worst"], found["streams_without_miss"]) == (pytest.approx(12 / 13), 0.5)
    assert found["review_worst"] == pytest.approx(10 / 970)
    with pytest.raises(ValueError, match="not whole streams"):
        deal(events[:-1], 13)


def test_counts_are_in_the_order_keep_review_discard():
    assert count(verdicts(3, 2, 1)).tolist() == [3, 2, 1]


def test_redrawn_streams_have_the_shares_of_their_pool():
    drawn = redraw([verdicts(review=300, discard=2700)], [957], 400, seed=1)
    assert drawn.sum(1).tolist() == [957] * 400
    assert drawn[:, 1].mean() == pytest.approx(95.7, abs=2)


def test_kinds_of_event_free_curves_come_in_their_numbers():
    found = redraw([verdicts(discard=1000), verdicts(review=1000)], [880, 77], 5, seed=1)
    assert found.tolist() == [[0, 77, 880]] * 5


def test_a_pool_that_is_large_enough_repeats_nothing_within_a_stream():
    assert (redraw([verdicts(review=1, discard=956)], [957], 20, seed=1) == [0, 1, 956]).all()


def test_a_small_pool_is_drawn_from_with_repeats_and_the_same_seed_draws_the_same():
    one, other = (redraw([verdicts(keep=2, discard=1)], [13], 9, seed=3) for _ in range(2))
    assert one.sum(1).tolist() == [13] * 9
    assert len(set(one[:, 0].tolist())) > 1
    assert (one == other).all()


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
