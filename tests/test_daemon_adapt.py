import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from adapthelp import EVENT_FREE, EVENTS, Night, chromosomes
from modelhelp import make_model

from daemon.cli import main
from daemon.common.errors import UserError
from daemon.config import ThresholdsConfig
from daemon.formats.afmcurve import compact_copy_of
from daemon.judging import CutOrigin, Thresholds
from daemon.judging.loss import SEED, SimulatedLoss
from daemon.judging.registry import Registry
from daemon.labels import Labels
from daemon.labels.sessions import Sessions
from daemon.learn.adaptation import accept, audit, propose
from daemon.learn.ground import survey
from daemon.ledger.view import LedgerView
from daemon.review.cutting import Cutting
from daemon.review.desk import Desk
from daemon.review.queues import Aims, otherwise
from deploy.classifier import EngineRequest
from deploy.serving import Model, known_curves
from models.bundle import SHIPPED, read, write
from models.calibrate import climb
from models.frontend import prepare_to_judge
from models.simulate import simulate


def adapt(state, *words):
    return main(["adapt", "--state", str(state), *map(str, words)])


def test_five_confirmed_events_move_the_cut_and_the_forecast_comes_true(tmp_path, capsys):
    night = chromosomes(tmp_path / "state")
    night.say("keep", [1, 2, 3, 4])
    assert adapt(night.state) == 0
    shown = capsys.readouterr().out
    assert "4 confirmed events lie above the cut in force: 5 are the fewest that say anything, so 1 more" in shown
    night.say("keep", [5])

    forecast = propose(night.config)
    step = climb(float(night.base.limits[0]), EVENTS[:5])
    assert forecast.new == pytest.approx(float(night.base.calibration.score(np.array([step.logit]))[0]))
    free = np.array(EVENT_FREE)
    of = 5 + 20 * len(free)
    assert forecast.pile_before == pytest.approx(20 * (free > night.base.limits[0]).sum() / of)
    assert forecast.pile_after == pytest.approx(20 * (free > step.logit).sum() / of)
    assert forecast.between == 20 * ((free > night.base.limits[0]) & (free <= step.logit)).sum()
    assert len(forecast.look_first) == 12
    assert (forecast.events, forecast.needed, forecast.rung, forecast.missing) == (5, 54, "provisional", ())

    assert adapt(night.state, "--dry-run") == 0
    assert "nothing was moved: --dry-run" in capsys.readouterr().out
    assert Registry(night.state / "models").serving() is None
    assert adapt(night.state, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    serving = Registry(night.state / "models").serving(night.base.id)
    assert (said["moved"], said["model"]) == (True, serving.id)
    child = read(Registry(night.state / "models").folder_of(serving))
    assert (child.discard, child.keep, child.certificate) == (forecast.new, night.base.keep, None)
    assert child.weights_sha256 == night.base.weights_sha256
    evidence = child.manifest.thresholds.evidence
    assert (evidence["events"], evidence["band"]) == (5, [night.base.discard, forecast.new])
    assert 0 < evidence["simulated_loss_of_own_cut"] < evidence["simulated_loss"] < 1
    assert child.manifest.thresholds.is_of_labels
    again = propose(night.config)
    assert (again.old, again.new) == (forecast.new, forecast.new)  # it moves no second time by itself
    assert not again.moves
    assert again.look_first == forecast.look_first  # they still wait
    night.say("discard", forecast.look_first[1:])
    assert propose(night.config).look_first == forecast.look_first[:1]


@pytest.mark.parametrize(
    ("events", "stream", "why"),
    [
        ((3.3, 3.9, 4.0, 4.2, 5.0), (-2.4, -2.2, -2.0, -1.9), "only 0.0 points"),  # nothing is in the way already
        ((-0.49, 0.65, 0.71, 0.8, 1.0), (-2.0, -1.7, -0.45, 0.3), "no higher one is safe"),  # weak events
        (EVENT_FREE[5:11], EVENT_FREE, "no higher one is safe"),  # none of them is one
    ],
)
def test_where_the_shipped_cut_is_right_nothing_moves(tmp_path, events, stream, why):
    night = Night(tmp_path / "state")
    night.say("keep", night.decide(events))
    night.decide(stream * 50)
    found = propose(night.config)
    assert not found.moves
    assert why in found.sentences[0]
    with pytest.raises(UserError, match="the cut stays"):
        accept(night.config, found, "ada")
    assert not (night.state / "models").exists()


def test_two_raters_who_differ_move_nothing(tmp_path):
    night = chromosomes(tmp_path / "state", 9)
    shared = list(range(1, 41))
    night.say("keep", shared[:20])
    night.say("discard", shared[20:])
    night.say("keep", shared[:10], "ben")
    night.say("discard", shared[10:30], "ben")
    night.say("keep", shared[30:], "ben")
    found = propose(night.config)
    assert not found.moves
    assert "kappa" in found.sentences[0]
    assert "no label moves a cut" in found.sentences[0]


def test_what_raters_differ_on_is_no_confirmed_event(tmp_path):
    night = chromosomes(tmp_path / "state", 6)
    night.say("keep", [1, 2, 3, 4, 5, 6])
    night.say("unsure", [6], "ben")
    assert propose(night.config).confirmed == (1, 2, 3, 4, 5)
    with Labels(night.state / "labels.sqlite") as labels:
        last = next(one for one in labels.current() if one.rater == "ada")
        labels.remove([last], by="ada", reason="", time="2030-01-01T00:00:00Z")
    assert propose(night.config).events == 4


def test_a_configured_threshold_overrides_and_is_said(tmp_path, capsys):
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    toml = tmp_path / "afm.toml"
    toml.write_text(f'state = "{night.state}"\n[thresholds]\ndiscard = 0.002\n')
    assert main(["adapt", "--config", str(toml)]) == 0
    assert "[thresholds] discard = 0.002 of the configuration overrides every cut" in capsys.readouterr().out
    assert Registry(night.state / "models").serving() is None
    keep = ThresholdsConfig(keep=0.009)
    lowered = propose(replace(night.config, thresholds=keep))
    assert night.base.discard < lowered.new < 0.009


def test_an_event_confirmed_between_both_cuts_takes_the_raised_one_back(tmp_path, capsys):
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    moved = accept(night.config, propose(night.config), "ada")
    assert audit(night.config) is None
    raised = read(Registry(night.state / "models").folder_of(moved))
    low, _high = raised.limits
    (event,) = night.decide([(float(night.base.limits[0]) + low) / 2])
    night.say("discard", [event], "ben")
    assert audit(night.config) is None
    night.say("keep", [event], "ben")
    taken = audit(night.config)
    assert (taken.id, taken.seqs, taken.holds) == (moved.id, (event,), None)
    assert Registry(night.state / "models").serving(night.base.id) is None
    assert f"event {event} was confirmed between" in taken.text
    assert audit(night.config) is None
    # now it is one of the events, and no cut goes over it
    assert propose(night.config).new < float(night.base.calibration.score(np.array([low]))[0])
    assert adapt(night.state, "--dry-run") == 0
    assert adapt(night.state) == 0
    capsys.readouterr()


def test_the_page_tells_the_cut_that_serves_before_it_has_judged_a_curve(tmp_path):
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    with Desk(night.config) as desk, Desk(replace(night.config, thresholds=ThresholdsConfig(discard=0.002))) as fixed:
        page, other = Cutting(desk), Cutting(fixed)
        base = night.base.pipeline, Thresholds(night.base.discard, night.base.keep)
        assert (page.serving().serving, page.serving().band) == (base, None)
        proposal = propose(night.config)
        accept(night.config, proposal, "ada")
        _, now = page.serving().serving
        assert now == Thresholds(proposal.new, night.base.keep)
        assert page.serving().band == (night.base.discard, proposal.new)
        (seq,) = proposal.look_first[:1]
        (event,) = desk.events([seq])
        assert otherwise(event, page.serving()) == "the cut in force would discard it now; it was sent to review"
        assert otherwise(event, Aims(serving=base)) is None
        assert otherwise(event, Aims(serving=("another", now))) is None
        assert other.serving().serving[1].discard == 0.002
        Registry(night.state / "models").rollback("ada", "to see it")
        assert (page.serving().serving, page.serving().band) == (base, None)


def test_a_cut_whose_events_were_taken_back_says_so(tmp_path, capsys):
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    accept(night.config, propose(night.config), "ada")
    found = propose(night.config)
    assert (found.withdrawn, [one for one in found.sentences if "no more" in one]) == ((), [])
    night.say("unsure", [2])
    assert propose(night.config).withdrawn == (2,)
    assert adapt(night.state) == 0
    assert "event 2 is taken back): look again, or models rollback" in capsys.readouterr().out
    assert Registry(night.state / "models").serving() is not None  # a person's to move
    night.say("keep", [2])
    assert propose(night.config).withdrawn == ()


def test_a_promoted_cut_that_the_service_passes_over_is_not_in_force(tmp_path, capsys):
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    moved = accept(night.config, propose(night.config), "ada")
    raised = propose(night.config).old
    lowered = propose(replace(night.config, thresholds=ThresholdsConfig(keep=raised / 2)))
    assert (lowered.old, lowered.new < raised / 2) == (night.base.discard, True)
    assert any("passed over" in one for one in lowered.sentences)
    registry = Registry(night.state / "models")
    manifest = registry.folder_of(moved) / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(raised), str(raised * 1.1)))
    assert main(["adapt", "--state", str(night.state)]) == 65
    assert "take it back with: models rollback" in capsys.readouterr().err


def test_what_has_changed_since_it_was_proposed_is_not_accepted(tmp_path):
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    proposal = propose(night.config)
    (weak,) = night.decide([0.0])
    night.say("keep", [weak])
    with pytest.raises(UserError, match="have changed since this was proposed"):
        accept(night.config, proposal, "ada")
    night.say("discard", [weak, 3])
    with pytest.raises(UserError, match="have changed"):
        accept(night.config, proposal, "ada")
    night.say("keep", [3])
    accept(night.config, proposal, "ada")
    with pytest.raises(UserError, match="have changed"):
        accept(night.config, proposal, "ben")  # both have pressed the button
    assert len(Registry(night.state / "models").history()) == 1


def test_unattended_waits_until_the_curves_most_like_an_event_have_been_looked_at(tmp_path, capsys):
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    first = propose(night.config).look_first
    assert adapt(night.state, "--unattended") == 0
    assert "have not been looked at" in capsys.readouterr().out
    assert Registry(night.state / "models").serving() is None
    night.say("discard", first[:-1])
    assert propose(night.config).look_first == first[-1:]
    night.say("unsure", first[-1:])
    assert propose(night.config).look_first == ()
    assert adapt(night.state, "--unattended") == 0
    registry = Registry(night.state / "models")
    assert registry.serving(night.base.id).by == "adapt, by its timer"
    registry.rollback("ada", "the pile was too small")  # a timer does not overrule a person
    assert adapt(night.state, "--unattended") == 0
    assert "ada took the last promotion back, the pile was too small" in capsys.readouterr().out
    assert registry.serving() is None
    assert adapt(night.state) == 0
    assert registry.serving() is not None


def test_a_timer_needs_more_events_for_an_exact_promise(tmp_path):
    night = Night(tmp_path / "state")
    logits = np.random.default_rng(2).normal(4, 0.8, 60)
    night.say("keep", night.decide(logits.tolist()))
    night.decide(EVENT_FREE * 20)
    by_hand, by_timer = propose(night.config), propose(night.config, is_watched=True)
    assert (by_hand.rung, by_hand.needed) == ("exact", 0)
    assert (by_timer.rung, by_timer.needed) == ("provisional", 22)
    assert "at most 5 % of the events above the old cut are missed, 95% sure" in " ".join(by_hand.sentences)
    assert by_hand.new < night.base.keep


def test_sessions_of_another_sample_have_a_cut_of_their_own(tmp_path):
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    with Labels(night.state / "labels.sqlite") as labels:
        Sessions(labels).begin(sample="Titin")
    assert (propose(night.config).events, propose(night.config).group) == (0, "titin")
    night.decide(EVENT_FREE * 20)
    night.say("keep", night.decide(EVENTS[:5]))
    titin = propose(night.config)
    assert (titin.events, titin.stream) == (5, 20 * len(EVENT_FREE) + 5)
    accept(night.config, titin, "ada")
    registry = Registry(night.state / "models")
    assert registry.for_group("") is None
    assert registry.serving(night.base.id).group == "titin"
    with Labels(night.state / "labels.sqlite") as labels:
        Sessions(labels).end()
    assert propose(night.config).group == "titin"  # the morning after
    night.decide(EVENTS[:1])
    assert propose(night.config).old == night.base.discard


def test_the_cut_of_a_session_that_has_ended_judges_no_curve_of_what_comes_after(tmp_path, capsys):
    night = Night(tmp_path / "state")
    registry = Registry(night.state / "models")
    with Labels(night.state / "labels.sqlite") as labels:
        Sessions(labels).begin(sample="Titin")
        night.decide(EVENT_FREE * 20)
        night.say("keep", night.decide(EVENTS[:5]))
        Sessions(labels).end()
    assert adapt(night.state) == 0  # the morning after
    assert 'serves when a session of "titin" begins: it discards' in capsys.readouterr().out
    moved = registry.for_group("titin")
    assert (moved is None, registry.group(), registry.serving()) == (False, "", None)
    with Labels(night.state / "labels.sqlite") as labels:
        Sessions(labels).begin(sample="titin")
    registry.turn_to("titin", by="session")
    assert registry.serving() == moved


def test_doubtful_curves_and_those_of_another_network_are_no_gain(tmp_path):
    night = chromosomes(tmp_path / "state", 5, times=1)
    night.decide(EVENT_FREE * 20, None, "still_attached")
    night.decide([None] * 10)
    night.decide([0.0] * 1000, night.judge(pipeline="raster:other|weights:x|calibration:y|thresholds:z"))
    night.say("keep", range(1, 6))
    found = propose(night.config)
    assert found.stream == 5 + 21 * len(EVENT_FREE) + 10
    assert found.between <= len(EVENT_FREE)
    assert "points less of all curves would go to review" in found.missing[0]


def test_what_an_engine_may_be_off_is_kept_clear_of(tmp_path):
    """A cut that only the lowest event holds stays as far from it as a logit in half precision may be wrong."""
    night = Night(tmp_path / "state")
    events = [1.0, *[4.0] * 70]
    night.say("keep", night.decide(events, night.judge("bf16")))
    night.decide(EVENT_FREE * 20)
    found = propose(night.config)
    assert found.rung == "exact"
    assert night.base.calibration.logit(found.new) == pytest.approx(0.9)


def test_events_that_the_model_discards_are_advice(tmp_path):
    night = chromosomes(tmp_path / "state", 5)
    lost = night.decide([-1.0, -0.9])
    night.say("keep", [*range(1, 6), *lost])
    found = propose(night.config)
    assert found.events == 5
    advice = found.sentences[-1]
    assert "2 confirmed events lie below the model's own cut: [thresholds] discard = 0.00" in advice
    wanted = float(advice.split("discard = ")[1].split()[0])
    assert wanted < float(night.base.calibration.score(np.array([-1.0]))[0])


def test_events_that_another_network_has_judged_are_judged_anew_from_their_copies(tmp_path):
    night = Night(tmp_path / "state")
    model = Model.of(night.base, EngineRequest("cpu", precision="fp32"))
    sawtooth = known_curves()[3]
    profile = night.base.profile
    copy = compact_copy_of(sawtooth, profile, prepare_to_judge([sawtooth], profile)[0])
    other = night.judge(pipeline="raster:other|weights:x|calibration:y|thresholds:z")
    seqs = [*night.decide([0.0] * 3, other, copy=copy), *night.decide([0.0], other)]  # of the last there is no copy
    night.say("keep", seqs)
    with LedgerView(night.state / "ledger.sqlite") as view, Labels(night.state / "labels.sqlite") as labels:
        found = survey(night.config, view, labels)
    assert [one.seq for one in found.events] == seqs[:3]
    assert found.unscored == 1
    (logit,) = {one.logit for one in found.events}
    assert logit == pytest.approx(model.judge([sawtooth])[0].logit)
    assert "1 confirmed event counts for nothing" in " ".join(propose(night.config).sentences)


def test_a_promoted_model_of_another_calibration_has_its_own_ladder(tmp_path):
    night = chromosomes(tmp_path / "state")
    registry = Registry(night.state / "models")
    calibration = replace(night.base.calibration, bias=night.base.calibration.bias + 1)
    manifest = msgspec.structs.replace(night.base.manifest, calibration=calibration, name="mine")
    mine = write(registry.models / "mine", night.base.weights, manifest, "a card")
    registry.promote("mine", base=night.base, why="", by="ada")
    night.say("keep", range(1, 6))
    assert propose(night.config).stream == 0  # what it would say of those curves nobody knows yet
    night.base = mine
    night.say("keep", night.decide(EVENTS[:5]))
    night.decide(EVENT_FREE * 20)
    found = propose(night.config)
    assert (found.old, found.stream) == (mine.discard, 5 + 20 * len(EVENT_FREE))
    moved = accept(night.config, found, "ada")
    child = read(registry.folder_of(moved))
    assert (child.manifest.parent, child.calibration) == (mine.id, calibration)
    assert moved.base_id == read(SHIPPED).id
    registry.rollback("ada", "", base_id=moved.base_id)
    assert registry.serving().name == "mine"


def test_the_simulated_loss_of_the_shipped_model_is_what_its_network_says(tmp_path):
    shipped = SimulatedLoss(tmp_path, read(SHIPPED))
    known = shipped.counted()
    model = Model.of(shipped.base, EngineRequest("cpu", precision="fp32"))
    scored = model.judge([one.curve for one in simulate(24, SEED, 1.0)])
    finite = [place for place in range(24) if np.isfinite(known.events[place])]
    assert len(finite) > 18
    assert [scored[place].logit for place in finite] == pytest.approx(known.events[finite], abs=0.02)
    assert known.at(float(shipped.base.limits[0])) == pytest.approx(0.02, abs=0.012)
    own = SimulatedLoss(tmp_path, make_model(tmp_path / "other"), curves=6)
    assert own.counted() is None
    own.count()
    assert own.counted().events.size == 6
    assert own.file.parent == tmp_path


def test_the_last_decision_tells_of_a_configured_threshold(tmp_path):
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    night.decide([3.0], replace(night.judge(), cut=CutOrigin("configured", 0)))
    assert "is configured with a [thresholds] discard" in propose(night.config).missing[0]
    assert propose(replace(night.config, file=tmp_path / "afm.toml")).moves


def test_a_label_of_the_command_line_takes_a_cut_back_at_once(tmp_path, capsys):
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    accept(night.config, propose(night.config), "ada")
    (event,) = night.decide([0.0])
    name = f"run7/curve-{event:04d}.jpk-force"
    assert main(["labels", "add", name, "keep", "--rater", "ada", "--state", str(night.state)]) == 0
    assert f"event {event} was confirmed between" in capsys.readouterr().out
    assert Registry(night.state / "models").serving() is None


@pytest.mark.parametrize("words", [["--miss", "0.5"], ["--miss", "many"]])
def test_another_miss_is_no_word_of_it(tmp_path, words, capsys):
    assert adapt(tmp_path, *words) == 64
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_ledger_and_with_a_damaged_model_there_is_one_line(tmp_path, capsys):
    assert adapt(tmp_path / "none") == 69
    assert capsys.readouterr().err.count("\n") == 1
    night = chromosomes(tmp_path / "state")
    night.say("keep", range(1, 6))
    accept(night.config, propose(night.config), "ada")
    registry = Registry(night.state / "models")
    folder = registry.folder_of(registry.serving())
    (folder / "manifest.json").write_text("{}")
    before = registry.history()
    capsys.readouterr()
    assert adapt(night.state) == 65
    assert capsys.readouterr().err.count("\n") == 1
    assert registry.history() == before
