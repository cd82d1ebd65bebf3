import math
from dataclasses import replace

import numpy as np
import pytest

from models.curve import Curve
from models.frontend import turned
from models.ruptures import pulling, ruptures
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
