"""What one retract tells of the tip: measured against curves that were made with a known answer."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable

import numpy as np
import pytest
from makers import make_jpk

from models.curve import Curve, ForceUnit
from models.frontend import prepare, prepare_to_judge
from models.raster import RasterProfile
from models.simulate import simulate
from models.tip import TipState, tip_state

PROFILE = RasterProfile()
N = 4000


def state_of(curve: Curve) -> TipState | None:
    return tip_state(curve, prepare([curve], PROFILE)[0])


def made(
    *,
    noise: float = 5.0,
    tilt: float = 0.0,
    wave: float = 0.0,
    slope: float = 10.0,
    adhesion: float = 300.0,
    unit: ForceUnit | None = "N",
    scale: float = 1e-12,
    seed: int = 0,
) -> Curve:
    """In pN where ``scale`` is left alone: a push of 40 nm at ``slope`` pN/nm, a snap-off, 1 nm every 10 samples."""
    rng = np.random.default_rng(seed)
    z = np.linspace(0.0, 400.0, N)
    force = np.where(z < 40, slope * (z - 40), np.where(z < 40 + adhesion / slope, slope * (z - 40), 0.0))
    force = force + tilt * (z / 400 - 1) + wave * np.sin(2 * np.pi * z / 170 + 1.0) + rng.normal(0, noise * 2.8, N)
    return Curve(force=force * scale + 7 * scale, force_unit=unit, distance=z * 1e-9)


def test_each_number_is_what_the_curve_was_made_with() -> None:
    told = state_of(made(tilt=400.0))
    assert told is not None
    assert told.noise == pytest.approx(5e-12, rel=0.2)  # of the average of about eight samples
    assert told.tilt == pytest.approx(400e-12, rel=0.05)
    assert told.slope == pytest.approx(10e-12 / 1e-9, rel=0.15)
    assert told.adhesion == pytest.approx(300e-12, rel=0.2)
    assert told.samples == N


@pytest.mark.parametrize("name", ["noise", "wave", "slope", "adhesion"])
def test_a_number_follows_what_it_is_of(name: str) -> None:
    usual, more = ({"noise": 5.0, "wave": 10.0, "slope": 10.0, "adhesion": 200.0} for _ in range(2))
    more[name] *= 3
    states = state_of(made(**usual)), state_of(made(**more))
    assert getattr(states[1], name) == pytest.approx(3 * getattr(states[0], name), rel=0.25)


def test_a_rupture_far_out_is_no_tilt_no_wave_and_no_adhesion() -> None:
    quiet, event = made(), made()
    event.force[2600:2900] += 400e-12
    one, other = state_of(quiet), state_of(event)
    assert one is not None
    assert other is not None
    assert other.adhesion == pytest.approx(one.adhesion)
    assert abs(other.tilt - one.tilt) < 10 * one.noise
    assert other.wave < 3 * one.noise


@pytest.mark.parametrize(("unit", "scale"), [("V", 1e-3), ("m", 1e-9), (None, 1.0), ("N", 1e-30), ("N", 1e60)])
def test_the_same_curve_in_another_unit_tells_the_same(unit: ForceUnit | None, scale: float) -> None:
    curve, in_newton = made(unit=unit, scale=scale, tilt=300), state_of(made(tilt=300))
    told = tip_state(curve, prepare([curve], PROFILE)[0])
    assert told is not None
    assert in_newton is not None
    for name in ("noise", "tilt", "wave", "slope", "adhesion"):
        assert getattr(told, name) / scale == pytest.approx(getattr(in_newton, name) / 1e-12, rel=1e-3)


def test_what_has_no_baseline_tells_nothing_and_what_has_no_push_or_distance_tells_less() -> None:
    good = made()
    flat, hole, short = np.full(N, 3e-9), good.force.copy(), good.force[:50]
    hole[7] = np.nan
    assert [state_of(Curve(force, "N", good.distance)) for force in (flat, hole)] == [None, None]
    assert state_of(Curve(short, "N", good.distance[:50] if good.distance is not None else None)) is None
    bare = state_of(Curve(good.force, None))
    assert bare is not None
    assert (bare.slope, bare.adhesion is None) == (None, False)
    free = state_of(Curve(good.force[1000:], "N"))
    assert free is not None
    assert (free.slope, free.adhesion) == (None, None)
    lost = np.full(N, np.nan)
    told = state_of(Curve(good.force, "N", lost))
    assert told is not None
    assert told.slope is None


def test_the_samples_that_a_reader_needs_at_least_are_enough() -> None:
    good = made()
    for n in (64, 65, 80, 127):
        told = state_of(Curve(good.force[:: N // n][:n].copy(), "N"))
        assert told is None or np.isfinite(told.noise + told.tilt + told.wave)


def test_it_takes_no_time() -> None:
    curves = [one.curve for one in simulate(30, 5, 0.3)]
    prepared = prepare_to_judge(curves, PROFILE)
    pairs = list(zip(curves, prepared, strict=True))

    def took_s(work: Callable[[], object]) -> float:
        return min(timeit.repeat(work, timer=time.thread_time, number=1, repeat=30))

    own_s = took_s(lambda: [tip_state(*pair) for pair in pairs])
    assert own_s < 0.3 * took_s(lambda: prepare_to_judge(curves, PROFILE))  # a tenth: 24 of 213 µs of a core


def test_it_comes_through_the_reader(tmp_path) -> None:
    from daemon.reading.pool import ReaderPool
    from daemon.sources import Arrival

    file = tmp_path / "a.jpk-force"
    file.write_bytes(make_jpk())
    with ReaderPool(1, profile=PROFILE) as pool:
        reading = pool.read(Arrival("score", file.name, file)).readings[0]
    assert reading.curve is not None
    assert reading.prepared is not None
    assert reading.tip == tip_state(reading.curve, reading.prepared) is not None
