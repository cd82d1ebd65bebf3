"""The sign: which curves are prepared upside down as well."""

from dataclasses import replace

import numpy as np
import pytest

from deploy.serving import known_curves
from models.curve import Curve
from models.frontend import OPEN, SPOT, is_spot, prepare, prepare_to_judge, turned, with_flipped
from models.raster import RasterProfile
from models.reasons import LIFTING
from models.simulate import simulate

PROFILE = RasterProfile()


def one(curve):
    return prepare_to_judge([curve], PROFILE)[0]


def test_turned_is_the_same_curve_with_the_other_sign_on_both_sides():
    curve = Curve(np.arange(100.0), "N", np.arange(100.0), "piezo", approach_force=np.arange(50.0), notes=("a",))
    other = turned(curve)
    assert (other.force == -curve.force).all()
    assert (other.approach_force == -curve.approach_force).all()
    assert (other.distance is curve.distance, other.notes) == (True, ("a",))
    assert turned(replace(curve, approach_force=None)).approach_force is None


def test_an_open_sign_is_prepared_both_ways_and_the_reader_s_way_is_as_it_was():
    for curve in known_curves():
        open_curve = replace(curve, notes=(OPEN,))
        found, (alone,), (other,) = one(open_curve), prepare([open_curve], PROFILE), prepare([turned(curve)], PROFILE)
        assert OPEN in found.reasons
        assert found.reasons == alone.reasons
        assert found.signal.tobytes() == alone.signal.tobytes()
        assert found.flipped.reasons == (*other.reasons, OPEN)
        assert (found.flipped.signal is None) == (other.signal is None)
        assert other.signal is None or found.flipped.signal.tobytes() == other.signal.tobytes()
        assert found.flipped.flipped is None


def test_a_stated_sign_is_checked_where_no_push_confirms_it_and_on_one_curve_in_fifty():
    curves = [item.curve for item in simulate(600, seed=8)]
    found = prepare_to_judge(curves, PROFILE)
    could_fall = [not item.blocking and not LIFTING.intersection(item.reasons) for item in found]
    for curve, item, could in zip(curves, found, could_fall, strict=True):
        wanted = could and ("no_contact" in item.reasons or is_spot(curve))
        assert (item.flipped is not None) == wanted
    assert {"no_contact" in item.reasons for item in found if item.flipped is not None} == {True, False}


def test_the_lot_falls_on_one_in_fifty_and_always_on_the_same():
    rng = np.random.default_rng(4)
    curves = [Curve(rng.normal(size=rng.integers(64, 3000)), "N") for _ in range(5000)]
    chosen = [is_spot(curve) for curve in curves]
    assert sum(chosen) == pytest.approx(5000 / SPOT, rel=0.35)
    again = [Curve(np.array(curve.force[::-1].tolist())[::-1], None) for curve in curves]  # neither unit nor strides
    assert [is_spot(curve) for curve in again] == chosen


def test_what_cannot_be_scored_or_discarded_needs_no_check():
    noise = np.random.default_rng(0).normal(0.0, 1e-11, 1000)
    assert one(Curve(np.zeros(500), "N")).flipped is None
    assert "no_contact" in one(Curve(noise, "N")).reasons
    assert one(Curve(noise, "N")).flipped is not None
    assert one(Curve(noise, "N", notes=("ends_missing",))).flipped is None
    assert one(Curve(np.zeros(10), "N", notes=(OPEN,))).reasons == ("too_short",)


def test_a_curve_can_be_checked_on_request():
    curve = known_curves()[2]
    (found,) = prepare([curve], PROFILE)
    assert with_flipped(found, curve, PROFILE).flipped.signal.tobytes() == (
        prepare([turned(curve)], PROFILE)[0].signal.tobytes()
    )
