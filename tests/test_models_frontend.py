import base64
import time

import numpy as np
import pytest
from modelhelp import SHARED

from deploy.serving import known_curves
from models.curve import Curve
from models.frontend import axes_of, noise_of, prepare, resample, tilt_of
from models.raster import RasterProfile, envelope, previews
from models.reasons import BLOCKING, LIFTING

PROFILE = RasterProfile(columns=128, rows=128, samples_per_column=4)


def curve(force, **more):
    return Curve(force=np.asarray(force, np.float64), **{"force_unit": "N", **more})


def one(item, profile=PROFILE):
    return prepare([item], profile)[0]


def white(n, seed=0, sigma=10e-12):
    return np.random.default_rng(seed).normal(0, sigma, n)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (curve(white(63)), "too_short"),
        (curve([]), "too_short"),
        (curve([*white(500), np.nan]), "nonfinite"),
        (curve([*white(500), np.inf]), "nonfinite"),
        (curve(np.zeros(500)), "constant"),
        (curve(np.full(500, -3e-8)), "constant"),
        (curve(np.arange(500) * 5e-324), "constant"),
    ],
)
def test_what_cannot_be_scored_is_said(item, reason):
    prepared = one(item)
    assert prepared.reasons == (reason,)
    assert prepared.blocking
    assert prepared.signal is None
    assert reason in BLOCKING


def test_a_curve_stored_from_far_to_near_is_not_judged():
    for known in known_curves()[:5]:
        assert "orientation" in one(curve(known.force[::-1])).reasons
        assert one(curve(known.force[::-1])).blocking
        assert not one(known).blocking


def test_baseline_and_noise_are_those_of_the_far_end():
    force = white(4096) - 9e-9
    force[:400] -= np.linspace(1e-9, 0, 400)
    prepared = one(curve(force))
    assert prepared.level == pytest.approx(-9e-9, abs=2e-12)
    assert prepared.noise == pytest.approx(10e-12 / np.sqrt(8 * 0.9), rel=0.25)  # averaged by about 4096 / 512
    assert prepared.contact == pytest.approx(400 / 4096, abs=0.02)
    assert abs(np.median(prepared.signal[-50:])) < 0.5


@pytest.mark.parametrize("shape", ["step", "tether", "wave", "tilt"])
def test_what_happens_late_does_not_inflate_the_noise(shape):
    x = np.linspace(0, 1, 4096)
    late = {
        "step": 300e-12 * (x < 0.85),
        "tether": 200e-12 * (x < 0.93) + 60e-12 * (x < 0.75),
        "wave": 40e-12 * np.sin(4 * np.pi * x),
        "tilt": 300e-12 * x,
    }[shape]
    late -= np.clip(0.05 - x, 0, None) * 50e-9
    quiet, disturbed = one(curve(white(4096))), one(curve(white(4096) + late))
    assert disturbed.noise == pytest.approx(quiet.noise, rel=0.25)


def test_a_long_indentation_does_not_take_the_picture():
    n = 4096
    contact = int(0.6 * n)
    force = white(n)
    force[:contact] -= np.linspace(20e-9, 0, contact)
    signal = one(curve(force)).signal
    pushed = np.flatnonzero(signal < -5).max() / signal.size
    assert pushed == pytest.approx(PROFILE.lead, abs=0.02)


def test_no_contact_is_told_and_may_still_be_discarded():
    prepared = one(curve(white(1000)))
    assert prepared.reasons == ("no_contact",)
    assert not prepared.blocking
    assert "no_contact" not in LIFTING


def test_a_molecule_that_holds_to_the_end_is_told():
    x = np.linspace(0, 1, 2000)
    pushed = white(2000) - np.clip(0.05 - x, 0, None) * 20e-9
    way_in = white(2000, 1) - np.clip(x - 0.95, 0, None) * 20e-9
    stretched = pushed + 30e-12 / (1.05 - np.clip(x, 0.1, 1))
    held = pushed + np.where(x > 0.1, 400e-12, 0.0)
    assert "still_attached" in one(curve(stretched)).reasons
    assert "still_attached" in one(curve(held, approach_force=way_in)).reasons
    assert one(curve(held)).reasons == ()  # without an approach nobody can know
    assert one(curve(pushed, approach_force=way_in)).reasons == ()


@pytest.mark.parametrize("phase", [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
def test_a_slow_wave_is_no_molecule_that_holds_on(phase):
    x = np.linspace(0, 1, 2000)
    pushed = white(2000) - np.clip(0.05 - x, 0, None) * 20e-9
    assert "still_attached" not in one(curve(pushed + 150e-12 * np.sin(2 * np.pi * 2.2 * x + phase))).reasons


def test_a_far_end_of_garbage_is_told_and_lifts_a_discard():
    force = white(2000)
    force[1400:] = np.random.default_rng(1).uniform(-1e-9, 1e-9, 600)
    assert "noise_out_of_range" in one(curve(force, force_unit="m")).reasons  # without a calibration too
    assert "noise_out_of_range" in LIFTING
    force[1400:] = 4 * white(600, 2)  # restless, as a bubble makes it, and still a baseline
    assert "noise_out_of_range" not in one(curve(force, force_unit="m")).reasons


@pytest.mark.parametrize("tilt", [-600e-12, -100e-12, 100e-12, 600e-12])
def test_a_tilted_baseline_is_not_contact(tilt):
    x = np.linspace(0, 1, 4096)
    force = white(4096) - np.clip(0.1 - x, 0, None) * 30e-9 + tilt * x
    assert one(curve(force)).contact == pytest.approx(0.1, abs=0.04)


def test_a_detector_at_its_rail_is_told():
    force = white(2000)
    force[300:360] = 2e-9
    assert "saturated" in one(curve(force)).reasons
    force[300:360] += white(60, 1)
    assert "saturated" not in one(curve(force)).reasons


def test_noise_out_of_range_needs_a_calibration_to_be_known():
    assert "noise_out_of_range" in one(curve(white(1000, sigma=1e-8))).reasons
    assert "noise_out_of_range" not in one(curve(white(1000, sigma=1e-8), force_unit="m")).reasons
    known = curve(white(1000, sigma=1e-6), force_unit="m", spring_constant_n_per_m=1.0)
    assert "noise_out_of_range" in one(known).reasons
    straight = curve(np.concatenate((np.linspace(-1e-9, 0, 200), np.zeros(800))))
    assert "noise_out_of_range" in one(straight).reasons


def test_what_the_reader_assumed_is_passed_on():
    assert "sign_assumed" in one(curve(white(1000), notes=("sign_assumed", "anything"))).reasons


def test_a_physical_profile_wants_a_calibration_and_gives_piconewton():
    pn = RasterProfile(name="pn", scale="pn", softness=20.0, lowest=-500.0, highest=2000.0)
    force = white(2000)
    force[500:600] += 1e-9
    in_newton = one(curve(force), pn).signal
    assert in_newton.max() == pytest.approx(1000, abs=60)
    in_volt = curve(force / 0.05 / 1e-7, force_unit="V", spring_constant_n_per_m=0.05, sensitivity_m_per_v=1e-7)
    np.testing.assert_allclose(one(in_volt, pn).signal, in_newton, rtol=1e-5, atol=1e-3)
    assert one(curve(force, force_unit=None), pn).reasons == ("no_calibration",)
    assert not one(curve(force, force_unit=None)).blocking


def test_units_and_offset_do_not_matter_to_a_sigma_picture():
    force = known_curves()[3].force
    np.testing.assert_allclose(
        one(curve(force)).signal, one(curve((force - 3e-8) * 1e9, force_unit="V")).signal, rtol=1e-4, atol=1e-2
    )


def test_resampling_keeps_levels_and_bounds_the_count():
    for n in (64, 200, 300, 511, 512, 513, 4096, 100_003):
        ramp = np.arange(n, dtype=np.float64) / n
        short = resample(ramp, PROFILE)
        assert 2 * PROFILE.columns <= short.size <= PROFILE.samples
        assert np.abs(short - np.linspace(0, 1, short.size)).max() < 4 / min(n, short.size)


def test_averaging_is_exact_where_blocks_are_whole():
    force = white(4096)
    np.testing.assert_allclose(resample(force, PROFILE), force.reshape(512, 8).mean(1), atol=1e-24)


def test_noise_of_white_noise_is_its_rms():
    assert noise_of(white(100_000, sigma=3.0)) == pytest.approx(3.0, rel=0.03)


@pytest.mark.parametrize("tilt", [-300.0, -40.0, 0.0, 40.0, 300.0])
@pytest.mark.parametrize("event", ["none", "step", "plateaus", "rupture"])
def test_tilt_is_found_under_events_and_never_made_of_them(tilt, event):
    x = np.linspace(0, 1, 512)
    events = {
        "none": 0 * x,
        "step": 100.0 * (x < 0.7),
        "plateaus": 60.0 * (x < 0.6) + 60.0 * (x < 0.75) + 60.0 * (x < 0.9),
        "rupture": 80.0 * (x > 0.55) * (x < 0.7) * (x - 0.55) / 0.15,
    }[event]
    found = tilt_of(white(512, sigma=1.0) + events + tilt * x, 1.0)
    assert found == pytest.approx(tilt, abs=12)


def test_the_picture_of_a_tilted_curve_is_that_of_a_level_one():
    x = np.linspace(0, 1, 4096)
    force = white(4096) - np.clip(0.1 - x, 0, None) * 30e-9 + 300e-12 * ((x > 0.3) & (x < 0.6)) * (x - 0.3)
    level, tilted = one(curve(force)), one(curve(force + 800e-12 * x))
    assert level.tilt == 0
    assert tilted.tilt == pytest.approx(800e-12, rel=0.15)
    far = slice(100, None)
    assert np.median(np.abs(level.signal[far] - tilted.signal[far])) < 6


def test_batch_mates_change_nothing():
    together = prepare(known_curves(), PROFILE)
    for item, known in zip(together, known_curves(), strict=True):
        assert np.array_equal(one(known).signal, item.signal)


def test_it_is_fast():
    curves = [curve(white(4096, seed)) for seed in range(50)]
    prepare(curves, PROFILE)
    begun = time.perf_counter()
    prepare(curves, PROFILE)
    assert (time.perf_counter() - begun) / 50 < 3e-3  # 0.2 ms on an idle machine


@pytest.mark.skipif(not SHARED.is_dir(), reason="no collection of real curves here")
def test_real_curves_are_all_judged():
    from daemon.formats import open_file

    files = sorted((SHARED / "data" / "open" / "hooke_picoforce_000").iterdir())[:10]
    for file in files:
        prepared = one(open_file(file)[0])
        assert prepared.reasons == ()
        assert 5e-12 < prepared.noise < 15e-12


@pytest.mark.parametrize(
    ("unit", "per_unit", "shown"), [("N", 1.0, "pN"), ("m", 1 / 0.04, "pN"), ("m", 0.04e3, "nm"), ("V", 1e9, "mV")]
)
@pytest.mark.parametrize("way", [1, -1])
def test_a_preview_says_where_and_how_high_its_rupture_is(unit, per_unit, shown, way):
    """200 pN at 150 nm from the surface, read back from the picture that an event carries."""
    n, contact = 4000, 400
    z_nm = np.linspace(-100, 900, n)
    force = white(n)
    force[:contact] -= np.linspace(2e-9, 0, contact)
    pull = (z_nm > 60) & (z_nm < 150)
    force[pull] += 200e-12 * (z_nm[pull] - 60) / 90
    spring = 0.04 if shown == "pN" else None
    item = curve(force * per_unit, force_unit=unit, spring_constant_n_per_m=spring, distance=way * (z_nm + 777) * 1e-9)
    profile = RasterProfile()
    prepared = one(item, profile)
    axes = axes_of(item, prepared, profile)
    drawn = np.frombuffer(base64.b64decode(previews(envelope([prepared.signal], profile), profile)[0]), np.uint8)
    _, upper = drawn.reshape(2, -1)
    peak = 60 + int(upper[60:].argmax())
    factor = {"pN": 1e12 / (1.0 if unit == "N" else 25.0), "nm": 1e9, "mV": 1e3}[shown]
    assert axes.unit == shown
    assert axes.force(float(upper[peak])) == pytest.approx(200e-12 * per_unit * factor, rel=0.06)
    assert axes.from_nm + (axes.to_nm - axes.from_nm) * (peak + 0.5) / upper.size == pytest.approx(150, abs=12)
    assert axes.level(axes.force(93.0)) == pytest.approx(93.0)
