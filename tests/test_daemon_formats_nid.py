"""Nanosurf: curves the right way round, whatever is stored how."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import formathelp
import numpy as np
import pytest
from makers import SENSITIVITY_M_PER_V, SPRING_CONSTANT_N_PER_M, a_retract
from makers_vendors import make_nid

from daemon.formats import open_file
from daemon.formats.base import Blob, Unfinished, Unreadable
from daemon.formats.nid import NidReader

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "open" / "formats" / "nanosurf_spectroscopy.nid"
STEP_N = {32: 1e-17, 16: 4e-9 / 2**16}  # of a sample that is stored in newton


read = partial(formathelp.read, NidReader(), name="x.nid")
reason = partial(formathelp.reason_of, read)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("sign", ["Signed", "Unsigned"])
@pytest.mark.parametrize("in_time_order", [False, True])
@pytest.mark.parametrize("pulled_first", [False, True])
def test_every_curve_of_a_map_comes_back(bits: int, sign: str, in_time_order: bool, pulled_first: bool) -> None:
    made = [a_retract(256, seed) for seed in range(3)]
    curves = read(make_nid(made, bits=bits, sign=sign, backward_in_time_order=in_time_order, pulled_first=pulled_first))
    assert len(curves) == 3
    for curve, (force, distance) in zip(curves, made, strict=True):
        np.testing.assert_allclose(curve.force, force, atol=STEP_N[bits])
        assert (curve.force_unit, curve.distance_kind, curve.notes) == ("N", "piezo", ())
        assert curve.distance is not None
        np.testing.assert_allclose(curve.distance, distance, atol=4e-6 / 2**bits)
        assert curve.approach_force is not None
        np.testing.assert_allclose(curve.approach_force, force[::-1], atol=STEP_N[bits])
        assert curve.spring_constant_n_per_m == SPRING_CONSTANT_N_PER_M
        assert curve.sensitivity_m_per_v == pytest.approx(SENSITIVITY_M_PER_V)


@pytest.mark.parametrize("unit", ["m", "V"])
def test_deflection_becomes_force_where_the_header_can_tell(unit: str) -> None:
    force, _ = a_retract()
    (curve,) = read(make_nid(unit=unit))  # type: ignore[arg-type]
    assert curve.force_unit == "N"
    np.testing.assert_allclose(curve.force, force, atol=1e-16)
    (bare,) = read(make_nid(unit=unit, spring_constant=0.0))  # type: ignore[arg-type]
    assert (bare.force_unit, bare.spring_constant_n_per_m) == ("m", None)


def test_without_a_sensor_the_axis_is_the_way_that_was_asked_for() -> None:
    force, distance = a_retract()
    (curve,) = read(make_nid(sensor=False))
    np.testing.assert_allclose(curve.force, force, atol=1e-17)
    assert curve.distance is not None
    np.testing.assert_allclose(curve.distance, distance, atol=1e-12)


def test_of_a_line_only_the_valid_samples_count() -> None:
    made = [a_retract(256, seed) for seed in range(2)]
    whole, short = read(make_nid(made, valid={1: 200}))
    assert whole.approach_force is not None
    assert short.approach_force is not None
    assert (len(whole.approach_force), len(short.approach_force), len(short)) == (256, 200, 256)
    np.testing.assert_allclose(short.approach_force, made[1][0][:200][::-1], atol=1e-17)


def test_a_map_that_was_ended_early_is_the_curves_that_were_measured() -> None:
    made = [a_retract(256, seed) for seed in range(5)]
    assert len(read(make_nid(made, measured=3))) == 3


def test_images_and_nothing_else_are_no_curves() -> None:
    assert reason(make_nid(spectra=False)) == "image"
    assert (
        reason(make_nid().replace(b"Frame=Spec", b"Frame=Xpec")) == "unreadable"
    )  # its list says that there are curves


def test_a_cut_file_is_never_a_curve() -> None:
    content = make_nid([a_retract(128, seed) for seed in range(2)])
    for length in range(0, len(content), 97):
        assert reason(content[:length]) in ("truncated", "zero_tail")
    assert reason(content[:-1]) == "truncated"
    assert reason(content + b"junk") == "unreadable"  # whose numbers begin where?


def test_an_end_that_was_never_written_is_noticed() -> None:
    content = make_nid(image=False)
    with pytest.raises(Unfinished, match="zero_tail"):
        read(content[:-1024] + bytes(1024))
    made = [a_retract(256, seed) for seed in range(3)]
    file = NidReader().open(Blob.of(make_nid(made, measured=2).replace(b"CurLine=1\r", b"CurLine=2\r")), "x.nid")
    assert len(file) == 3
    with pytest.raises(Unfinished, match="zero_tail"):
        file.curve(2)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"Dim2Name=Deflection", b"Dim2Name=Amplitude", "no_force_channel"),
        (b"Dim0Unit=m", b"Dim0Unit=V", "no_force_channel"),
        (b"Frame=Spec backward", b"Frame=Spec bwd pause", "no_retract"),
        (b"SaveMode=Binary", b"SaveMode=Text", "unreadable"),
        (b"SaveBits=32", b"SaveBits=64", "unreadable"),
        (b"Points=512\r", b"Points=-5\r", "unreadable"),
        (b"Points=512\r", b"Points=ten\r", "unreadable"),
        (b"Dim2Range=", b"Dim2Rage=", "unreadable"),
    ],
)
def test_what_makes_no_sense_gets_a_reason(old: bytes, new: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "x.nid").write_bytes(make_nid().replace(old, new))
    with pytest.raises(Unreadable) as caught:
        open_file(tmp_path / "x.nid")
    assert caught.value.reason == expected


def test_headers_that_cannot_be_true_cost_nothing() -> None:
    began_s = time.monotonic()
    assert reason(make_nid(points=1_000_000_000)) == "too_long"
    assert reason(make_nid(points=3_000_000, lines=3_000_000)) == "truncated"
    assert reason(make_nid(lines=1_000_000_000)) == "unreadable"
    assert reason(make_nid(valid={0: 512}).replace(b"LineDim0Points=512", b"LineDim0Points=999")) == "unreadable"
    assert reason(b"[DataSet]\r\nVersion=2\r\n" + b"Gr0-Ch0=DataSet-0:0\r\n" * 2_000_000) == "too_large"
    assert reason(b"[DataSet]\r\n" + b"[a]\r\n" * 500_000 + b"\n#!") == "unreadable"
    assert time.monotonic() - began_s < 10.0


def test_a_retract_whose_way_is_not_told_is_never_discarded() -> None:
    """Z falls on the way there, and no push says which end is the surface."""
    flat = (np.random.default_rng(1).normal(0, 8e-12, 512), np.linspace(0.0, 400e-9, 512))
    (curve,) = read(make_nid([flat], pulled_first=True))
    assert curve.notes == ("columns_assumed",)
    assert read(make_nid([flat]))[0].notes == ()


@pytest.mark.skipif(not REAL.exists(), reason="the real file is not here")
def test_a_real_map_of_a_hard_surface() -> None:
    curves = open_file(REAL)
    assert len(curves) == 100
    for curve in curves:
        assert len(curve) == 1024
        assert curve.distance is not None
        assert curve.notes == ()
        contact = slice(0, 60)
        slope = np.polyfit(curve.distance[contact], curve.force[contact] / 2.72436, 1)[0]
        assert 0.85 < slope < 1.1  # nm of deflection per nm of piezo, and the push comes first
        assert abs(curve.force[-50:].mean()) < 1e-2 * abs(curve.force[0])
        assert curve.force.max() == pytest.approx(10e-9, abs=6e-9)  # the snap-off pulls
        assert curve.approach_force is not None
        assert curve.approach_force[-1] == pytest.approx(curve.force[0], rel=0.02)
    assert [len(curves[line].approach_force) for line in (0, 1, 2)] == [1024, 980, 990]  # type: ignore[arg-type]
