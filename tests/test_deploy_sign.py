"""Judging a curve whose sign is open, or is checked: in doubt review, and the same on every engine."""

from dataclasses import replace

import numpy as np
import pytest

from daemon.judging import Thresholds, verdict_of
from deploy.classifier import EngineId, EngineRequest
from deploy.serving import Model, known_curves
from models.curve import Curve
from models.frontend import OPEN, prepare, turned, with_flipped
from models.simulate import simulate


@pytest.fixture(scope="module")
def shipped():
    return Model.load()


def verdict(model, one):
    return verdict_of(one.score, one.reasons, Thresholds(model.bundle.discard, model.bundle.keep))


def unsigned(curve):
    return replace(curve, notes=(*curve.notes, OPEN))


def pushing(curve):
    """With a push against the surface before it, so that its sign can be seen."""
    ramp = np.linspace(-2e-9, 0.0, len(curve) // 6)
    return replace(curve, force=np.concatenate([ramp, curve.force]))


def test_an_open_sign_costs_no_event_whichever_way_the_reader_believed(shipped):
    for place in (2, 3):
        curve = known_curves()[place]
        (alone,) = shipped.judge([curve])
        right, wrong = shipped.judge([unsigned(curve), unsigned(turned(curve))])
        assert alone.score >= shipped.bundle.keep
        assert (right.score, right.logit, right.preview) == (alone.score, alone.logit, alone.preview)
        assert (wrong.score, wrong.logit, wrong.preview) == (alone.score, alone.logit, alone.preview)
        assert wrong.prepared.signal.tobytes() == alone.prepared.signal.tobytes()
        assert (OPEN in right.reasons, right.is_turned) == (True, False)
        assert wrong.is_turned
        assert wrong.reasons[wrong.reasons.index(OPEN) + 1] == "sign_turned"
        assert verdict(shipped, wrong) == "keep"


def test_an_open_sign_alone_keeps_nothing_from_being_discarded(shipped):
    for place in (0, 5):
        curve = unsigned(known_curves()[place])
        (one,) = shipped.judge([curve])
        ways = shipped.judge_prepared(prepare([curve, turned(curve)], shipped.bundle.profile))
        assert one.score == max(way.score for way in ways)
        assert verdict(shipped, one) == "discard"


def test_a_way_that_no_curve_can_be_leaves_the_other_and_what_is_doubtful_as_believed_stays_so(shipped):
    rng = np.random.default_rng(3)
    rising = np.concatenate([rng.normal(0, 1e-11, 1900), rng.normal(0, 1e-11, 100) - np.linspace(0, 1e-9, 100)])
    falls = Curve(rising, "N", notes=(OPEN,))  # as it stands stored the wrong way round, upside down still attached
    believed, other = prepare([falls, turned(falls)], shipped.bundle.profile)
    assert (believed.signal is None, "orientation" in believed.reasons) == (True, True)
    assert other.signal is not None
    (one,) = shipped.judge([falls])
    assert one.score == shipped.judge_prepared([other])[0].score
    assert {"sign_turned", "orientation"} <= set(one.reasons)
    assert verdict_of(0.0, ("no_contact", OPEN, "sign_turned", "orientation"), Thresholds(0.1, 0.9)) == "review"
    (reverse,) = shipped.judge([turned(falls)])
    assert reverse.score == one.score
    assert "orientation" not in reverse.reasons  # as believed it can be a curve, so the other way says nothing


def test_an_event_upside_down_is_no_discard_where_no_push_confirms_the_sign(shipped):
    for place in (2, 3):
        (one,) = shipped.judge([turned(known_curves()[place])])
        assert one.score <= shipped.bundle.discard
        assert one.reasons == ("no_contact", "flipped")
        assert verdict(shipped, one) == "review"


def test_only_what_falls_is_judged_upside_down_and_a_right_sign_stays_a_discard(shipped):
    class Counting:
        engine, seen = shipped.engine, 0

        def classify(self, signals):
            self.seen += len(signals)
            return shipped.classifier.classify(signals)

    counting = Counting()
    model = Model(shipped.bundle, counting)
    nothing, rupture = known_curves()[5], known_curves()[2]
    profile = shipped.bundle.profile
    prepared = [with_flipped(prepare([curve], profile)[0], curve, profile) for curve in (nothing, rupture)]
    fallen, kept = model.judge_prepared(prepared)
    assert counting.seen == 3
    assert (verdict(model, fallen), verdict(model, kept)) == ("discard", "keep")
    assert "flipped" not in (*fallen.reasons, *kept.reasons)
    model.judge_prepared(prepared, (0.0, 1.0))
    assert counting.seen == 5  # with other thresholds neither falls


def test_every_engine_takes_the_same_way():
    curves = [unsigned(item.curve) for item in simulate(150, seed=11)]
    fast, exact = (
        Model.load(wish=EngineRequest(engine="torch", precision=precision)) for precision in ("bf16", "fp32")
    )
    told = [[(verdict(model, one), one.reasons) for one in model.judge(curves)] for model in (fast, exact)]
    assert told[0] == told[1]
    assert any("sign_turned" in reasons for _, reasons in told[0])


def test_of_two_ways_that_score_alike_single_precision_takes_one(shipped):
    class Rough:
        engine = EngineId("openvino", "cpu", "bf16")

        def classify(self, signals):
            seen = shipped.classifier.classify(signals)
            return replace(seen, logits=np.full(len(signals), -20.0) + np.arange(len(signals)) * 1e-6)

    model = Model(shipped.bundle, Rough(), reference=shipped.classifier)
    nothing = unsigned(pushing(known_curves()[5]))
    for curve in (nothing, turned(nothing)):
        (rough,), (exact,) = model.judge([curve]), shipped.judge([curve])
        assert (rough.logit, rough.is_turned) == (exact.logit, exact.is_turned)
