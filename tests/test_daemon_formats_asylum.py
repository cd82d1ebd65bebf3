"""Asylum waves, single and in pairs."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import formathelp
import numpy as np
import pytest
from makers import _wave, a_retract, make_ibw, make_ibw_pair
from makers_vendors import make_ibw_cycles

from daemon.formats import open_file
from daemon.formats.asylum import AsylumReader
from models.frontend import prepare
from models.raster import RasterProfile
from models.reasons import LIFTING

DATA = Path(__file__).resolve().parents[1] / "daemon" / "curves"


read = partial(formathelp.read, AsylumReader(), name="Image0001.ibw")
reason = partial(formathelp.reason_of, read)


@pytest.mark.parametrize("dwell", [0, 37])
def test_segments_follow_the_note(dwell: int) -> None:
    force, distance = a_retract()
    (curve,) = read(make_ibw(force, distance, dwell=dwell))
    kept = force if dwell == 0 else force[len(force) - len(curve) :]
    np.testing.assert_allclose(curve.force, kept, atol=2e-16)
    assert curve.force_unit == "N"
    assert curve.duration_s == pytest.approx(len(curve) / 2000)
    assert curve.approach_force is not None
    np.testing.assert_allclose(curve.approach_force, force[::-1], atol=2e-16)
    assert curve.distance is not None
    assert curve.distance[-1] > curve.distance[0]


def test_nan_ends_are_trimmed() -> None:
    (curve,) = read(make_ibw(nan_ends=9))
    assert len(curve) == 512 - 9
    assert np.isfinite(curve.force).all()
    assert curve.notes == ()  # maps pad shorter ramps with NaN: 9 of 512 is nothing to worry about
    assert read(make_ibw(nan_ends=60))[0].notes == ("ends_missing",)


def test_a_retract_that_was_never_recorded_to_its_end_is_not_discarded() -> None:
    force, distance = a_retract(peak_pn=0.0)
    force[256:] = np.nan
    (curve,) = read(make_ibw(force, distance))
    (prepared,) = prepare([curve], RasterProfile())
    assert len(curve) == 256
    assert LIFTING.intersection(prepared.reasons) == {"ends_missing"}


def test_a_stretch_of_zeros_inside_is_noticed() -> None:
    force, distance = a_retract()
    force[300:363] = 0.0
    read(make_ibw(force, distance))
    force[363] = 0.0
    assert reason(make_ibw(force, distance)) == "zero_tail"


@pytest.mark.parametrize("bad", [None, "NaN", "inf", "-3", "500"])
def test_without_a_spring_constant_the_deflection_stays_in_metres(bad: str | None) -> None:
    force, distance = a_retract()
    (curve,) = read(make_ibw(force, distance, spring_constant=bad))
    assert curve.force_unit == "m"
    assert curve.spring_constant_n_per_m is None
    np.testing.assert_allclose(curve.force, force / 0.05, atol=1e-14)


def test_without_indexes_the_turn_of_the_position_divides() -> None:
    force, distance = a_retract()
    content = make_ibw(force, distance).replace(b"Indexes", b"Indices")
    (curve,) = read(content)
    np.testing.assert_allclose(curve.force[-500:], force[-500:], atol=2e-16)
    assert 505 <= len(curve) <= 513


@pytest.mark.parametrize("damage", [b"Indexes", b"Direction", b"Indexes: 0,511", b"Direction: NaN,1,-1"])
def test_a_dwell_is_left_out_whatever_is_left_of_the_note(damage: bytes) -> None:
    force, distance = a_retract()
    content = make_ibw_cycles([(force, distance)], dwell=100)
    (whole,) = read(content)
    (curve,) = read(content.replace(damage, damage[:-1] + b"x"))
    assert len(whole) == 512
    assert abs(len(curve) - 512) <= 3
    np.testing.assert_allclose(curve.force[-500:], force[-500:], atol=2e-16)
    assert curve.approach_force is not None
    assert abs(len(curve.approach_force) - 512) <= 3


@pytest.mark.parametrize(
    "indexes",
    [
        b"Indexes: 0,200,400,",  # of a shorter wave: most of this one would be lost
        b"Indexes: 0,900,300,",
        b"Indexes: 0,511,9999,",
        b"Indexes: -5,511,999,",
        b"Indexes: 0,NaN,NaN,",
        b"Indexes: ,,,",
    ],
)
def test_bounds_that_are_not_of_this_wave_are_not_believed(indexes: bytes) -> None:
    force, distance = a_retract()
    content = make_ibw_cycles([(force, distance)])
    at = content.index(b"Indexes: ")
    end = content.index(b"\r", at)
    (curve,) = read(content[:at] + indexes.ljust(end - at) + content[end:])
    assert abs(len(curve) - 512) <= 3
    np.testing.assert_allclose(curve.force[-500:], force[-500:], atol=2e-16)


@pytest.mark.parametrize("with_indexes", [True, False])
@pytest.mark.parametrize(("rest", "dwell"), [(0, 0), (200, 0), (0, 150), (90, 60)])
@pytest.mark.parametrize("pulls", [2, 3, 7])
def test_of_several_pulls_in_one_wave_none_is_lost(with_indexes: bool, rest: int, dwell: int, pulls: int) -> None:
    rng = np.random.default_rng(4)
    made = [
        (force, distance + rng.normal(0, 0.3e-9, 512))
        for force, distance in map(a_retract, [512] * pulls, range(pulls))
    ]
    curves = read(make_ibw_cycles(made, rest=rest, dwell=dwell, indexes=with_indexes))
    assert len(curves) == pulls
    for curve, (force, _) in zip(curves, made, strict=True):
        assert curve.distance is not None
        assert curve.distance[-40:].mean() - curve.distance[:5].mean() > 380e-9
        shift = int(np.abs(force - curve.force[50]).argmin()) - 50
        assert (
            abs(shift) <= 8
        )  # samples of the push against the surface that are missing, or those of the turn before it
        same = min(len(curve), 512 - shift)
        np.testing.assert_allclose(curve.force[50:same], force[50 + shift : same + shift], atol=2e-16)
        assert same >= 495
        assert curve.approach_force is not None
        assert len(curve.approach_force) >= 490


def test_a_wild_sample_of_the_position_costs_no_pull() -> None:
    force, distance = a_retract()
    spoilt = distance.copy()
    spoilt[100] = -1.0
    curves = read(make_ibw_cycles([(force, distance), (force, spoilt), (force, distance)], indexes=False))
    assert len(curves) == 3


def test_a_wave_that_ends_on_the_way_back_to_the_surface_keeps_its_pull() -> None:
    """The position is nearest to the surface at its very end: a second approach, whose pull was never recorded."""
    force, distance = a_retract()
    deflection = np.concatenate([-force[::-1], -force, -force[::-1]])
    position = np.concatenate([-distance[::-1], -distance, -distance[::-1] + 5e-9])
    (curve,) = read(*(_wave(column[:, None], "", None) for column in (deflection / 0.05, position)), name="ADefl.ibw")
    assert 508 <= len(curve) <= 516
    np.testing.assert_allclose(curve.force[-400:], force[-400:] / 0.05, atol=1e-14)


def test_a_pair_is_one_curve() -> None:
    force, distance = a_retract()
    deflection, position = make_ibw_pair(force, distance)
    (curve,) = read(deflection, position, name="Line0001Point0002Defl.ibw")
    assert curve.force_unit == "m"
    assert len(curve) == 512
    np.testing.assert_allclose(curve.force, force / 0.05, atol=1e-14)
    assert curve.distance is not None
    np.testing.assert_allclose(curve.distance - curve.distance[0], distance, atol=1e-13)


def test_half_a_pair_waits_for_the_other() -> None:
    deflection, position = make_ibw_pair()
    assert reason(deflection, name="Line0001Point0002Defl.ibw") == "no_companion"
    assert reason(deflection, position[:-1], name="ADefl.ibw") == "truncated"
    shorter, _ = make_ibw_pair(*a_retract(256))
    assert reason(deflection, shorter, name="ADefl.ibw") == "truncated"
    assert reason(deflection, name="Amplitude.ibw") == "no_force_channel"


def test_a_wave_is_unfinished_until_all_of_it_is_there() -> None:
    content = make_ibw()
    for length in (1, 63, 200, len(content) // 2, len(content) - 1):
        assert reason(content[:length]) == "truncated"


def test_an_end_of_zeros_is_noticed() -> None:
    force, distance = a_retract()
    force[-70:] = 0.0
    assert reason(make_ibw(force, distance)) == "zero_tail"
    content = make_ibw()
    assert reason(content[:-400] + bytes(400)) in ("zero_tail", "unreadable")


def test_headers_that_cannot_be_true_are_refused_without_allocating() -> None:
    content = bytearray(make_ibw())
    struct.pack_into("<i", content, 4, 2_000_000_000)
    assert reason(bytes(content)) == "too_large"
    struct.pack_into("<i", content, 4, -5)
    assert reason(bytes(content)) == "unreadable"
    assert reason(b"\x80\x04\x95" + bytes(200)) == "unreadable"  # a pickle is not even looked at
    lying = bytearray(make_ibw())
    struct.pack_into("<i", lying, 64 + 68, 500_000_000)
    assert reason(bytes(lying)) == "unreadable"


def test_a_real_wave() -> None:
    (curve,) = open_file(DATA / "fmt-igor-fd_SiN_FD_plot.ibw")
    assert len(curve) == 1007
    assert curve.spring_constant_n_per_m == pytest.approx(1.1841)
    assert curve.distance is not None
    contact = slice(0, 180)
    slope = np.polyfit(curve.distance[contact], curve.force[contact] / 1.1841, 1)[0]
    assert 0.4 < slope < 1.2  # a hard surface, roughly calibrated: nm of deflection per nm of piezo
