"""The statistics of the gate: what they let through, what they refuse, and how often."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models import gate
from models.gate import Finding, Report, Shadow
from models.metrics import auc, clopper_pearson
from tests.studies.poison import passing


def test_looks_together_spend_what_one_may():
    assert gate.alpha(1) == 0.025
    assert sum(gate.alpha(look) for look in range(1, 60)) == pytest.approx(gate.WHOLE)
    with pytest.raises(ValueError, match="from 1"):
        gate.alpha(0)


def test_one_golden_event_that_was_found_before_refuses_and_power_is_stated():
    found = np.ones(96, bool)
    lost = found.copy()
    lost[[3, 7]] = False
    refused = gate.newly_lost(found, lost, 0.025)
    assert not refused.passed
    assert refused.text == ("newly lost: 2 of 96 golden events lie below the candidate's cut and were found before")
    passed = gate.newly_lost(found, found, 0.025)
    assert passed.passed
    assert passed.figures["refuses_5"] == pytest.approx(1 - 0.95**96)
    assert (1 - passed.figures["at_most"]) ** 96 == pytest.approx(0.025)
    was_lost_before = gate.newly_lost(lost, lost, 0.025)  # what the parent does not find is no new loss
    assert (was_lost_before.passed, was_lost_before.figures["events"]) == (True, 94)
    few = gate.newly_lost(found[:58], found[:58], 0.025)
    assert not few.passed
    assert "1 more" in few.text


def test_the_net_loss_bound_covers_the_truth():
    rng = np.random.default_rng(4)
    for lost, won in ((0.002, 0.002), (0.008, 0.003), (0.012, 0.012)):
        drawn = rng.multinomial(2_000, (lost, won, 1 - lost - won), size=1_500)
        bounds = {tuple(one): gate.net_loss_bound(int(one[0]), int(one[1]), 2_000, 0.05) for one in drawn[:, :2]}
        covered = np.mean([bounds[tuple(one)] >= lost - won for one in drawn[:, :2]])
        assert covered > 0.94
    assert (1 - gate.net_loss_bound(0, 4, 2_000, 0.025)) ** 2_000 == pytest.approx(0.025)
    assert gate.net_loss_bound(0, 0, 0, 0.025) == 1.0


def test_simulated_events_refuse_harm_and_what_is_too_little_known():
    found = np.ones(2_000, bool)

    def after(lost, won=0):
        before, now = found.copy(), found.copy()
        now[:lost] = False
        before[lost : lost + won] = False
        return gate.mcnemar(before, now, 0.025)

    assert after(3, 3).passed
    assert "no chance" in after(9).text
    assert "net loss may be" in after(24, 20).text
    assert not after(24, 20).passed


def shadow(before, after, discards=0, drawn=0, entering=0, chance=0.02):
    enters = np.zeros(drawn, bool)
    enters[:entering] = True
    return Shadow(np.array(before, bool), np.array(after, bool), discards, 0, np.full(drawn, chance), enters)


def test_the_pile_has_to_shrink_by_five_points_and_surely():
    many = [True] * 400 + [False] * 200
    smaller = [True] * 100 + [False] * 500
    good = gate.pile(shadow(many, smaller, 900, 18), 0.025)
    assert good.passed
    assert good.figures["gain"] == pytest.approx(300 / 1_500)
    assert 0 < good.figures["gain_at_least"] < good.figures["gain"]
    assert "for less than 5 points" in gate.pile(shadow(many, many, 900, 18), 0.025).text
    assert "too few to foresee the pile: 1 more" in gate.pile(shadow(many, smaller, 399, 8), 0.025).text
    entering = gate.pile(shadow(many, smaller, 900, 18, 5), 0.025)  # each stands for 50
    assert entering.figures["gain"] == pytest.approx((300 - 250) / 1_500)
    assert not entering.passed
    blind = gate.pile(shadow(many, [True] * 310 + [False] * 290, 900, 0), 0.025)  # nobody knows what comes back
    assert "may not shrink at all" in blind.text


def test_scores_that_are_no_probabilities_are_refused():
    rng = np.random.default_rng(1)
    events = np.repeat([True, False], 1_000)
    odds = rng.normal(np.where(events, 2.0, -2.0), 2.0) + math.log(0.02 / 0.98)
    assert gate.calibrated(1 / (1 + np.exp(-odds)), events, 0.02).passed
    for wrong in (odds + 2.0, odds * 3.0, odds / 4.0, -odds):
        assert not gate.calibrated(1 / (1 + np.exp(-wrong)), events, 0.02).passed


def test_a_collapsed_network_does_not_rank():
    rng = np.random.default_rng(2)
    events = np.repeat([True, False], 500)
    logits = rng.normal(np.where(events, 3.0, -1.0), 1.0)
    assert gate.ranks(logits, logits + rng.normal(0.0, 0.1, 1_000), events).passed
    assert not gate.ranks(logits, np.zeros(1_000), events).passed
    assert not gate.ranks(logits, logits, np.ones(1_000, bool)).passed


@pytest.mark.parametrize(("events", "below"), [(0, 0), (92, 0), (93, 1), (124, 2), (1_000, 38)])
def test_of_confirmed_events_so_many_may_lie_below_that_the_promise_stands(events, below):
    assert gate.most_below(events) == below
    for lost, is_kept in ((below, True), (below + 1, False)) if events >= 59 else ():
        assert (clopper_pearson(lost, events, 0.90)[1] <= 0.05) == is_kept, "one-sided, 95 % sure"


@pytest.mark.parametrize(
    ("cross_fitted", "before", "passes"),
    [(0.970, 0.959, True), (0.995, 0.996, True), (0.85, 0.70, True), (0.69, 0.66, False), (0.93, 0.97, False)],
)
def test_labels_that_teach_nothing_about_others_are_refused(cross_fitted, before, passes):
    found = gate.ranks_own(cross_fitted, before)
    assert (found.test, found.passed) == ("own ranking", passes)
    assert f"AUC {cross_fitted:.3f} on labelled curves" in found.text


def test_no_network_ranks_well_where_three_labels_in_ten_are_wrong():
    rng = np.random.default_rng(3)
    truth = np.repeat([True, False], 2_000)
    said = truth ^ (rng.random(truth.size) < 0.3)
    assert auc(truth + 0.01 * rng.random(truth.size), said) < 0.75 < gate.OWN_AUC


def test_a_batch_may_not_take_twice_the_time():
    assert gate.latency(0.1, 0.12).passed
    assert not gate.latency(0.1, 0.25).passed


def test_the_cut_of_equal_loss_follows_the_scale_of_the_candidate():
    rng = np.random.default_rng(3)
    before = rng.normal(3.0, 2.0, 4_000)
    before[:40] = np.inf  # doubts
    shifted = gate.equal_loss_cut(before, before - 5.0, -0.6)
    assert ((before - 5.0) <= shifted).sum() == (before <= -0.6).sum()
    same = gate.equal_loss_cut(before, before, -0.6, gate.SPARE)
    assert same == pytest.approx(shifted + 5.0)  # nothing differs, so none is spared
    other = before + rng.normal(0.0, 0.5, 4_000)
    careful, exact = (gate.equal_loss_cut(before, other, -0.6, spare) for spare in (gate.SPARE, 0.0))
    assert careful < exact
    with pytest.raises(ValueError, match="same events"):
        gate.equal_loss_cut(before, other[1:], 0.0)


def test_keeping_more_without_an_event_is_refused():
    none = np.zeros(1_000, bool)
    assert gate.kept_wrongly(none, none).passed
    many = none.copy()
    many[:8] = True
    assert not gate.kept_wrongly(none, many).passed


def test_the_log_reads_what_it_wrote_and_passes_damage_over(tmp_path):
    finding = Finding("pile", False, "pile: too large", {"curves": 3.0})
    report = Report(
        candidate="tuned-1",
        parent="shipped-1",
        network="ab",
        cut=0.004,
        night="2026-11-28",
        time="2026-11-28T03:00:00Z",
        look=1,
        alpha=0.025,
        passed=False,
        findings=(finding,),
    )
    assert (report.failed, list(report.sentences())) == (("pile",), ["pile: too large"])
    assert gate.looks(tmp_path) == []
    import msgspec

    line = msgspec.json.encode(report)
    log = gate.log_of(tmp_path)
    log.parent.mkdir()
    log.write_bytes(line + b"\n" + line[:40] + b"\n\xff\n{}\n" + line + b"\n")
    assert gate.looks(tmp_path) == [report, report]


@pytest.mark.parametrize(("look", "differing"), [(1, 0.002), (1, 0.01), (5, 0.002)])
def test_nine_sound_candidates_in_ten_pass_on_simulated_events(look, differing):
    """A cut that was chosen with SPARE on other simulated events, where both networks differ on 0.2 or 1 in 100."""
    assert passing(look, differing) > 0.87
    assert passing(look, differing, harm=0.015) < 0.01
