import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models.bundle import CONFIRMED, Calibration, Cut
from models.calibrate import SIMULATED, choose_cut, choose_like_parent, fit_platt, prior_of, score_apart
from models.metrics import calibration_error


def drawn(count=20_000, distance=1.5, seed=0):
    """Logits whose true log odds, at equal shares, are 2 x distance x logit."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.5
    return rng.normal(0, 1, count) + np.where(labels, distance, -distance), labels


def test_platt_finds_the_true_slope_and_the_stated_prevalence():
    logits, labels = drawn()
    calibration = fit_platt(logits, labels, 0.02)
    assert 1 / calibration.temperature == pytest.approx(3.0, rel=0.05)
    assert calibration.bias == pytest.approx(np.log(0.02 / 0.98), abs=0.15)
    assert calibration_error(calibration.score(logits), labels, 0.02) < 0.003


def test_platt_is_sklearns_without_penalty():
    logits, labels = drawn(3000, 1.0)
    weights = np.where(labels, 0.1 / labels.mean(), 0.9 / (1 - labels.mean()))
    oracle = LogisticRegression(C=1e9, tol=1e-10).fit(logits[:, None], labels, weights)
    found = fit_platt(logits, labels, 0.1)
    assert 1 / found.temperature == pytest.approx(oracle.coef_[0, 0], rel=1e-3)
    assert found.bias == pytest.approx(oracle.intercept_[0], rel=1e-3)


@pytest.mark.parametrize("distance", [0.0, 0.01, 20.0, -2.0])
def test_useless_perfect_and_backward_models_give_finite_scores(distance):
    logits, labels = drawn(500, distance)
    calibration = fit_platt(logits, labels, 0.02)
    assert calibration.temperature > 0
    assert np.isfinite(calibration.score(np.array([-1e9, 0.0, 1e9]))).all()


def test_one_class_alone_cannot_calibrate():
    with pytest.raises(ValueError, match="with and without"):
        fit_platt(np.zeros(5), np.ones(5, bool), 0.02)


def test_score_rises_with_the_logit():
    scores = Calibration(2.0, -3.0, 0.02).score(np.linspace(-50, 50, 1001))
    assert (np.diff(scores) >= 0).all()
    assert 0 <= scores[0] < scores[-1] <= 1


@pytest.mark.parametrize("distance", [0.5, 1.0, 1.5, 6.0])
def test_thresholds_keep_their_word(distance):
    logits, labels = drawn(distance=distance)
    calibration = fit_platt(logits, labels, 0.02)
    cut = choose_cut(calibration, logits, labels, most_missed=0.01, most_kept=0.002)
    scores = calibration.score(logits)
    assert 0 <= cut.discard < cut.keep < 1
    assert (scores[labels] <= cut.discard).mean() <= 0.01
    assert (scores[~labels] >= cut.keep).mean() <= 0.002
    assert cut.evidence["events"] == labels.sum()
    assert cut.evidence["events_discarded"] == (scores[labels] <= cut.discard).sum()
    low, high = cut.evidence["events_discarded_interval"]
    assert low <= cut.evidence["events_discarded"] / labels.sum() <= high


def test_thresholds_are_as_bold_as_they_may_be():
    logits, labels = drawn()
    cut = choose_cut(fit_platt(logits, labels, 0.02), logits, labels, 0.01, 0.002)
    assert cut.evidence["events_discarded"] >= 0.0095 * labels.sum()
    assert cut.evidence["event_free_kept"] >= 0.0015 * (~labels).sum()


@pytest.mark.parametrize("there", [0.005, 0.1, 0.5])
def test_a_calibration_moves_to_another_prevalence(there):
    logits, labels = drawn()
    here = fit_platt(logits, labels, 0.02)
    moved, asked = here.at(there), fit_platt(logits, labels, there)
    assert moved.prevalence == there
    assert moved.temperature == here.temperature
    assert moved.at(0.02).bias == pytest.approx(here.bias)
    assert calibration_error(moved.score(logits), labels, there) < 0.01
    assert moved.score(logits) == pytest.approx(asked.score(logits), abs=0.03)


def test_few_labels_that_a_model_separates_do_not_make_it_certain():
    logits = np.concatenate((np.linspace(-9, -3, 30), np.linspace(2, 9, 60)))
    labels = logits > 0
    prior = prior_of(Calibration(0.5, -4.0, 0.02))
    bold, held = fit_platt(logits, labels, 0.02), fit_platt(logits, labels, 0.02, prior)
    assert 1 / bold.temperature > 3
    assert 1.5 < 1 / held.temperature < 3
    assert np.average(held.score(logits), weights=np.where(labels, 0.02 / 60, 0.98 / 30)) == pytest.approx(
        0.02, rel=0.01
    )


def test_many_labels_are_believed_whatever_the_model_said():
    logits, labels = drawn()
    found = fit_platt(logits, labels, 0.02, prior_of(Calibration(0.1, 0.0, 0.02)))  # thrice too bold
    assert 1 / found.temperature == pytest.approx(3.0, rel=0.1)


def test_scores_apart_are_those_of_a_fit_that_has_not_seen_them():
    logits, labels = drawn(600)
    groups = np.array(["a", "b", "c"] * 200)
    prior = prior_of(Calibration(1.0, 0.0, 0.02))
    apart = score_apart(logits, labels, groups, 0.02, prior)
    others = groups != "b"
    expected = fit_platt(logits[others], labels[others], 0.02, prior).score(logits[~others])
    assert np.array_equal(apart[~others], expected)
    assert score_apart(logits, labels, np.array(["a"] * 600), 0.02, prior) is None
    assert score_apart(logits, labels, np.where(labels, "a", "b"), 0.02, prior) is None


def test_a_model_that_is_certain_of_everything_still_gets_two_thresholds():
    certain, labels = Calibration(1.0, 0.0, 0.02), np.arange(100) < 50
    cut = choose_cut(certain, np.full(100, 500.0), labels)
    assert 0.0 <= cut.discard < cut.keep < 1.0


def of_a_child(
    confirmed: tuple[float, ...], own: float | None = None
) -> tuple[Calibration, Cut, np.ndarray, np.ndarray]:
    """A child whose logits are twice the parent's, and a little noise: its cut, its logits and the truth."""
    rng = np.random.default_rng(4)
    labels = rng.random(4_000) < 0.5
    before = rng.normal(np.where(labels, 2.5, -2.5), 1.0)
    after = 2 * before + rng.normal(0, 0.2, before.size)
    calibration = fit_platt(after, labels, 0.02)
    cut = choose_like_parent(calibration, before, after, labels, (0.5, 1.5), np.array(confirmed), own)
    return calibration, cut, after, labels


def test_a_child_misses_and_keeps_no_more_than_its_parent() -> None:
    _, cut, _, _ = of_a_child(())
    evidence = cut.evidence
    assert evidence["basis"] == SIMULATED
    lost, parents = evidence["simulated_loss"], evidence["simulated_loss_of_parent"]
    assert 0.5 * parents < lost < parents
    assert evidence["event_free_kept"] <= 3  # the parent keeps what lies four sigma out
    assert cut.band is None
    assert 0 < cut.discard < cut.keep < 1


@pytest.mark.parametrize(("events", "holds"), [(4, False), (5, True)])
def test_confirmed_events_hold_the_cut_of_a_child_from_five_on(events: int, holds: bool) -> None:
    lowest = -0.3
    calibration, cut, _, _ = of_a_child((lowest, *[3.0] * (events - 1)))
    assert (cut.evidence["basis"] == CONFIRMED) == holds
    assert (calibration.logit(cut.discard) < lowest) == holds
    if holds:
        assert cut.events == events
        assert calibration.logit(cut.discard) == pytest.approx(lowest)


@pytest.mark.parametrize(("events", "below"), [(92, 0), (93, 1), (124, 2)])
def test_more_labels_make_the_cut_of_a_child_no_stricter(events: int, below: int) -> None:
    """As many may lie below it as leave it likely that 5 % of their like do at most."""
    lowest = [-0.9, -0.6, -0.3]
    calibration, cut, _, _ = of_a_child((*lowest, *[3.0] * (events - 3)))
    assert calibration.logit(cut.discard) == pytest.approx(lowest[below])
    assert (cut.evidence["events_discarded"], cut.events) == (below, events)


def test_a_cut_that_was_raised_leaves_its_band_to_the_child() -> None:
    calibration, cut, after, labels = of_a_child((), own=0.0)
    assert cut.band is not None
    low, high = map(calibration.logit, cut.band)
    assert cut.band[1] == cut.discard
    assert high == pytest.approx(1.0, abs=0.5), "twice the parent's"
    assert low == pytest.approx(0.0, abs=0.7)
    assert (after[labels] <= low).mean() < (after[labels] <= high).mean()
