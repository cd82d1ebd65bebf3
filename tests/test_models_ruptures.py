import math
from dataclasses import replace

import numpy as np
import pytest

from models.curve import MOST_TOLD, Curve, ToldRupture, describe, restore
from models.frontend import OPEN, prepare, turned
from models.raster import RasterProfile
from models.ruptures import prepare_to_tell, pulling, ruptures, with_ruptures
from models.simulate import simulate

NOISE_PN = 4.0
BREAKS = ((700, 120.0), (1100, 160.0), (1700, 90.0))  # the last sample before, pN


def a_sawtooth(seed: int = 0, breaks: tuple[tuple[int, float], ...] = BREAKS, tilt_pn: float = 30.0) -> Curve:
    """A push, teeth that stiffen up to their breaks, white noise and a tilted baseline; 0.5 nm a sample."""
    n = 2400
    force = np.zeros(n)
    start = 200
    for at, height in breaks:
        force[start : at + 1] = height * np.linspace(0.0, 1.0, at + 1 - start) ** 3
        start = at + 1
    travel = np.arange(n) * 0.5
    force[:100] -= np.linspace(500, 0, 100)
    force += np.random.default_rng(seed).normal(0.0, NOISE_PN, n) + tilt_pn * np.arange(n) / n + 70.0
    return Curve(force * 1e-12, "N", travel * 1e-9, "piezo", spring_constant_n_per_m=0.02)


def by_hand(curve: Curve, near: int, line: int = 40) -> tuple[int, float]:
    """The slow second way: of all cuts nearby the one with the best two straight lines, by scipy; index and pN."""
    from scipy.stats import linregress

    force = curve.force * 1e12
    told = []
    for cut in range(near - 25, near + 26):
        x, left, right = np.arange(line), force[cut - line : cut], force[cut : cut + line]
        one, two = linregress(x, left), linregress(x, right)
        rest = left - one.slope * x - one.intercept, right - two.slope * x - two.intercept
        told.append((sum(float(part @ part) for part in rest), cut - 1, one.slope * (line - 1) + one.intercept))
    _, index, end = min(told)
    free = np.arange(1800, 2400)
    baseline = linregress(free, force[1800:])
    return index, end - baseline.slope * index - baseline.intercept


def test_place_and_force_are_those_of_a_search_by_hand_and_of_the_truth():
    for seed in range(4):
        curve = a_sawtooth(seed)
        found = ruptures(curve)
        assert [abs(one.index - at) <= 1 for one, (at, _) in zip(found, BREAKS, strict=True)] == [True] * 3
        for one, (at, height) in zip(found, BREAKS, strict=True):
            index, force = by_hand(curve, at)
            assert abs(one.index - index) <= 1
            assert one.force_pn == pytest.approx(force, abs=2.5 * NOISE_PN)
            assert one.force_pn == pytest.approx(height, abs=2.5 * NOISE_PN)
            assert one.drop_pn == pytest.approx(height, abs=2.5 * NOISE_PN)
            assert 0.3 < one.error_pn < 15
            separation = at * 0.5 - 50.0 - height / 20.0  # nm from the surface: less the bend of the cantilever
            assert one.position_nm == pytest.approx(separation, abs=4.0)
            assert one.position_kind == "separation"


def test_a_deflection_is_told_as_one_and_a_force_only_where_it_is_known():
    curve = a_sawtooth()
    (newton, *_) = ruptures(curve)
    metres = replace(curve, force=curve.force / 0.02, force_unit="m", spring_constant_n_per_m=None)
    (bent, *_) = ruptures(metres)
    assert bent.unit == "nm"
    assert math.isnan(bent.force_pn)
    assert bent.force == pytest.approx(newton.force_pn / 20.0)
    assert bent.position_nm == pytest.approx(newton.position_nm)
    volts = replace(metres, force=metres.force / 5e-8, force_unit="V", distance=None, distance_kind=None)
    (raw, *_) = ruptures(volts)
    assert (raw.unit, raw.force) == ("mV", pytest.approx(1e3 * bent.force / 50.0))
    assert math.isnan(raw.position_nm)
    assert raw.position_kind is None
    known = replace(volts, sensitivity_m_per_v=5e-8, spring_constant_n_per_m=0.02)
    assert ruptures(known)[0].force_pn == pytest.approx(newton.force_pn)
    (bare, *_) = ruptures(replace(curve, force_unit=None, spring_constant_n_per_m=None, distance_kind=None))
    assert (bare.unit, bare.position_kind) == ("", None)
    piezo = replace(curve, force_unit=None, spring_constant_n_per_m=None)
    assert ruptures(piezo)[0].position_kind == "piezo"
    assert ruptures(piezo)[0].position_nm == pytest.approx(newton.position_nm + newton.force_pn / 20.0, abs=4.0)


def test_what_holds_no_rupture_or_cannot_be_read_has_none():
    assert ruptures(a_sawtooth(breaks=())) == ()
    curve = a_sawtooth()
    for force in (np.full(2400, 3e-9), np.full(2400, np.nan), np.where(np.arange(2400) == 9, np.inf, curve.force)):
        assert ruptures(replace(curve, force=force)) == ()
    assert ruptures(Curve(curve.force[:60], "N")) == ()


def test_a_curve_of_open_sign_is_taken_the_way_its_ruptures_fall():
    curve = a_sawtooth()
    upside_down = turned(curve)
    assert np.array_equal(pulling(upside_down).force, curve.force)
    assert pulling(curve) is curve
    assert ruptures(pulling(upside_down)) == ruptures(curve)


def test_figures_of_simulated_curves_are_as_near_the_truth_as_is_said():
    """The study has more curves and more words: deploy/measurements."""
    off, last = [], 0
    for one in simulate(150, seed=8, prevalence=1.0):
        found = ruptures(one.curve)
        assert all(math.isfinite(value) for each in found for value in (each.force, each.drop, each.error))
        assert [each.index for each in found] == sorted({each.index for each in found})
        for truth in one.ruptures:
            near = [each for each in found if abs(each.index + 1 - truth.index) < 0.012 * len(one.curve)]
            last += 1
            off += [min(abs(each.index + 1 - truth.index) for each in near) / len(one.curve)] if near else []
    assert len(off) / last > 0.5
    assert np.quantile(off, 0.8) < 0.001


PROFILE = RasterProfile()


def told(curve: Curve, profile: RasterProfile = PROFILE) -> tuple[ToldRupture, ...] | None:
    return prepare_to_tell([curve], profile)[0].ruptures


def test_an_event_tells_what_the_table_has_in_tenths_whatever_the_model_looks_at():
    curve = a_sawtooth()
    said = told(curve)
    assert said is not None
    for one, rupture in zip(said, ruptures(curve), strict=True):
        numbers = (one.force_pn, one.drop_pn, one.position_nm)
        assert numbers == pytest.approx((rupture.force_pn, rupture.drop_pn, rupture.position_nm), abs=0.0500001)
        assert one.position_kind == "separation"
    assert told(curve, RasterProfile(columns=64, rows=64)) == said
    assert [one.position_nm for one in told(replace(curve, distance=None, distance_kind=None)) or ()] == [None] * 3


def test_without_forces_there_is_nothing_to_tell_and_a_still_curve_has_no_rupture():
    curve = a_sawtooth()
    assert told(replace(curve, force_unit="m", spring_constant_n_per_m=None)) is None
    assert told(replace(curve, force_unit=None)) is None
    assert told(replace(curve, force=np.full(2400, np.nan))) is None
    assert told(a_sawtooth(breaks=())) == ()


def test_of_very_many_the_highest_are_told_in_the_order_of_the_curve():
    places = [(300 + 75 * k, 60.0 + 7.0 * (k % 5) + k) for k in range(MOST_TOLD + 5)]
    curve = a_sawtooth(breaks=tuple(places), tilt_pn=0.0)
    every, said = ruptures(curve), told(curve)
    assert len(every) > MOST_TOLD
    assert said is not None
    assert len(said) == MOST_TOLD
    assert [one.position_nm for one in said] == sorted(one.position_nm for one in said)
    assert min(one.force_pn for one in said) == pytest.approx(sorted(one.force for one in every)[-MOST_TOLD], abs=0.1)


def test_each_way_up_has_its_own_and_what_is_told_once_stays():
    upside_down = replace(turned(a_sawtooth()), notes=(OPEN,))
    (both,) = prepare_to_tell([upside_down], PROFILE)
    assert both.flipped is not None
    assert both.flipped.ruptures == told(a_sawtooth())
    assert both.ruptures != both.flipped.ruptures
    assert with_ruptures(both, replace(upside_down, force=upside_down.force * 2), PROFILE) is both
    described = describe(both)
    again = restore(*described)
    assert again is not None
    assert again.flipped is not None
    assert (again.ruptures, again.flipped.ruptures) == (both.ruptures, both.flipped.ruptures)


def test_what_goes_wrong_costs_the_ruptures_and_not_the_curve(monkeypatch):
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("models.ruptures.ruptures", fails)
    (prepared,) = prepare_to_tell([a_sawtooth()], PROFILE)
    assert prepared.ruptures is None
    assert prepared.signal is not None


@pytest.mark.parametrize("row", [[1.0], [math.inf, 1.0, None, None], [1.0, 1.0, None, "away"], ["1", 1.0, None, None]])
def test_a_damaged_copy_says_nothing_of_ruptures(row):
    found, signals = describe(prepare([a_sawtooth()], PROFILE)[0])
    found["prepared"]["ruptures"] = [row]
    with pytest.raises((TypeError, ValueError)):
        restore(found, signals)


def test_the_quick_look_passes_over_no_rupture_that_matters():
    """Of those above 50 pN in simulated curves one in a hundred, at most."""
    passed = seen = 0
    for one in simulate(250, seed=78, prevalence=1.0):
        (prepared,) = prepare([one.curve], PROFILE)
        strong = any(each.force_pn >= 50 for each in ruptures(one.curve, replace(prepared, signal=None)))
        seen += strong
        passed += strong and not ruptures(one.curve, prepared)
    assert seen > 100
    assert passed <= 0.01 * seen
