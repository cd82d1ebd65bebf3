"""Nuisances on finished curves: each does what it says, in its unit, and leaves the ruptures where they are."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from models.curve import Curve
from models.frontend import prepare
from models.raster import RasterProfile
from models.simulate import Rupture, simulate
from tests.studies.nuisances import NUISANCES, Subject, is_visible, subject_of

PROFILE = RasterProfile()


@cache
def subjects() -> tuple[Subject, ...]:
    found = [
        subject_of(one.curve, prepare([one.curve], PROFILE)[0], one.label == "keep", one.ruptures, one.family)
        for one in simulate(60, seed=5)
    ]
    return tuple(subject for subject in found if subject is not None)


def plain(n: int = 2000, ruptures: tuple[int, ...] = (800, 1200), event: bool = True) -> Subject:
    """A ramp of 500 nm in metres of deflection, 1e13 pN each (10 pN/nm), with its push on the first tenth."""
    force = np.zeros(n)
    force[: n // 10] = np.linspace(-1e-8, 0.0, n // 10)
    curve = Curve(force, "m", np.linspace(0, 500e-9, n), "piezo", spring_constant_n_per_m=0.01)
    marks = tuple(Rupture(index, 100.0, None) for index in ruptures)
    return Subject(curve, event, marks, "sawtooth", 1e10, 500.0, 5.0, 0.1)


def laid(name: str, subject: Subject, strength: float, seed: int = 0) -> Curve | None:
    return NUISANCES[name].apply(np.random.default_rng(seed), subject, strength)


def added_pn(name: str, strength: float, seed: int = 0) -> np.ndarray:
    subject = plain()
    curve = laid(name, subject, strength, seed)
    assert curve is not None
    return (curve.force - subject.curve.force) * subject.pn


def test_most_simulated_curves_can_be_stressed_and_units_are_right() -> None:
    assert len(subjects()) >= 40
    for subject in subjects():
        assert subject.ramp_nm == pytest.approx(np.ptp(subject.curve.distance) * 1e9)
        assert 0.2 < subject.noise_pn < 40
    in_newton = next(subject for subject in subjects() if subject.curve.force_unit == "N")
    assert in_newton.pn == 1e12


@pytest.mark.parametrize("missing", [{"distance": None}, {"force_unit": None}, {"force_unit": "V"}])
def test_a_curve_without_units_is_no_subject(missing: dict) -> None:
    curve = replace(plain().curve, force=plain().curve.force + np.random.default_rng(0).normal(0, 1e-10, 2000))
    prepared = prepare([curve], PROFILE)[0]
    assert subject_of(curve, prepared, True, None, "x") is not None
    assert subject_of(replace(curve, **missing), prepared, True, None, "x") is None


def test_a_wave_has_the_amplitude_it_is_given_and_the_period_of_light() -> None:
    for seed in range(5):
        force = added_pn("interference", 40.0, seed)
        assert 20.0 < np.abs(force).max() <= 40.0
    short = added_pn("interference of 100 nm", 40.0)
    crossings = np.count_nonzero(np.diff(np.signbit(short)))
    assert crossings in (9, 10, 11)  # 500 nm of it
    assert np.abs(added_pn("interference in noise", 10.0)).max() <= 50.0


def test_a_tilt_is_a_line_and_a_drift_falls_by_its_size() -> None:
    line = added_pn("tilt", 20.0)
    assert abs(line[-1] - line[0]) == pytest.approx(100.0)  # 500 nm
    assert np.allclose(np.diff(line, 2), 0.0, atol=1e-9)
    decay = added_pn("drift", 300.0)
    assert np.ptp(decay) == pytest.approx(300.0)
    assert abs(decay[-1]) < 1e-9


def test_noise_and_spikes_are_in_multiples_of_the_noise() -> None:
    assert added_pn("coloured noise", 2.0).std() == pytest.approx(10.0, rel=0.15)
    force = added_pn("spikes", 5.0)
    struck = force[force != 0.0]
    assert 5 <= struck.size <= 15
    assert (np.abs(struck) >= 25.0 - 1e-6).all()
    assert (np.abs(struck) <= 300.0 + 1e-6).all()


def test_a_snap_off_ends_before_the_first_rupture_and_a_snap_in_is_on_the_way_in() -> None:
    force = added_pn("snap-off", 1000.0)
    warm = np.flatnonzero(force)
    assert force.max() == pytest.approx(1000.0, rel=0.05)
    assert warm.min() >= 199
    assert warm.max() < 200 + 16 / 0.25
    subject = plain()
    assert laid("snap-in", subject, 100.0) is None
    with_approach = replace(subject, curve=replace(subject.curve, approach_force=np.zeros(1000)))
    curve = laid("snap-in", with_approach, 100.0)
    assert curve is not None
    assert curve.approach_force is not None
    assert curve.approach_force.argmax() == 999
    assert curve.approach_force.max() * subject.pn == pytest.approx(100.0)


def test_cuts_end_where_they_say() -> None:
    subject = plain()
    lengths = {
        ("retract cut", 20.0): 1600,
        ("baseline missing", 10.0): 1400,
        ("cut before the last", 5.0): 1100,
        ("retract cut", 40.0): None,  # would take the last rupture with it
        ("cut before the last", 20.0): None,  # and this the first
        ("cut before the only", 5.0): None,  # there are two
    }
    for (name, strength), length in lengths.items():
        curve = laid(name, subject, strength)
        assert (None if curve is None else len(curve)) == length, name
        if curve is not None:
            assert curve.distance is not None
            assert len(curve.distance) == length
    only = laid("cut before the only", plain(ruptures=(800,)), 5.0)
    assert only is not None
    assert len(only) == 700


def test_tails_replace_the_end_and_nothing_else() -> None:
    noisy = replace(plain(), curve=replace(plain().curve, force=np.random.default_rng(1).normal(0, 1e-9, 2000)))
    for name in ("held tail", "zero tail", "garbage tail"):
        curve = laid(name, noisy, 20.0)
        assert curve is not None
        assert np.array_equal(curve.force[:1600], noisy.curve.force[:1600])
        assert len(curve) == 2000
        assert laid(name, noisy, 60.0) is None  # the last rupture lies there
    held, zero = laid("held tail", noisy, 20.0), laid("zero tail", noisy, 20.0)
    assert held is not None
    assert zero is not None
    assert (held.force[1600:] == noisy.curve.force[1599]).all()
    assert not zero.force[1600:].any()


@pytest.mark.parametrize("strength", [20.0, 40.0, 60.0, 80.0])
def test_contact_ends_where_it_is_put(strength: float) -> None:
    curve = laid("contact", plain(), strength)
    assert curve is not None
    assert curve.distance is not None
    assert (len(curve) - 1800) / len(curve) == pytest.approx(strength / 100, abs=0.002)
    assert (np.diff(curve.distance) > 0).all()
    assert curve.force[0] < curve.force[1000] < 0 or strength == 20.0
    assert laid("contact", plain(), 5.0) is None


def test_where_no_rupture_is_known_the_end_stays() -> None:
    real = replace(plain(), ruptures=None)
    assert all(laid(name, real, 20.0) is None for name in ("retract cut", "baseline missing", "held tail"))
    free = replace(plain(), ruptures=None, event=False)
    curve = laid("baseline missing", free, 20.0)
    assert curve is not None
    assert len(curve) == 600  # a fifth of the ramp behind the contact


@pytest.mark.parametrize("name", NUISANCES)
def test_every_nuisance_is_finite_repeatable_and_leaves_its_subject_alone(name: str) -> None:
    laid_on = 0
    for subject in subjects():
        before = subject.curve.force.copy()
        for strength in NUISANCES[name].strengths:
            first, again = laid(name, subject, strength, 7), laid(name, subject, strength, 7)
            assert (first is None) == (again is None)
            if first is not None and again is not None:
                laid_on += 1
                assert np.isfinite(first.force).all()
                assert np.array_equal(first.force, again.force)
                assert first.distance is None or len(first.distance) == len(first)
        assert np.array_equal(before, subject.curve.force)
    assert laid_on > 5


def test_an_event_is_visible_until_it_is_buried() -> None:
    events = [subject for subject in subjects() if subject.event]
    shares = []
    for strength in (0.0, 2.0, 300.0):
        curves = [laid("coloured noise", subject, strength) for subject in events]
        rng = np.random.default_rng(0)
        shares.append(
            np.mean(
                [curve is not None and is_visible(rng, one, curve) for one, curve in zip(events, curves, strict=True)]
            )
        )
    assert shares[0] > 0.75  # a little strict: the noise counts twice
    assert shares[0] >= shares[1] > shares[2]
    assert shares[2] < 0.1
    free = next(subject for subject in subjects() if not subject.event)
    assert not is_visible(np.random.default_rng(0), free, free.curve)
