"""Park force curves, and all other TIFF: pictures."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import formathelp
import numpy as np
import pytest
from makers import SENSITIVITY_M_PER_V, SPRING_CONSTANT_N_PER_M, a_retract
from makers_vendors import make_park, make_tiff

from daemon.formats import open_file
from daemon.formats.base import Unreadable
from daemon.formats.park import ParkReader

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "open" / "formats" / "park_forcecurve_009.tiff"


read = partial(formathelp.read, ParkReader(), name="x.tiff")
reason = partial(formathelp.reason_of, read)


@pytest.mark.parametrize(("data_type", "step"), [(2, 1e-16), (1, 1e-13), (0, 1e-13)])
@pytest.mark.parametrize("detector", [True, False])
def test_every_curve_comes_back(data_type: int, step: float, detector: bool) -> None:
    made = [a_retract(256, seed) for seed in range(3)]
    curves = read(make_park(made, data_type=data_type, detector=detector))
    assert len(curves) == 3
    for curve, (force, distance) in zip(curves, made, strict=True):
        np.testing.assert_allclose(curve.force, force, atol=step)
        assert (curve.force_unit, curve.distance_kind, curve.notes) == ("N", "piezo", ())
        assert curve.distance is not None
        np.testing.assert_allclose(curve.distance, distance, atol=1e-10)
        assert curve.approach_force is not None
        np.testing.assert_allclose(curve.approach_force, force[::-1], atol=step)
        assert curve.spring_constant_n_per_m == SPRING_CONSTANT_N_PER_M
        assert curve.sensitivity_m_per_v == pytest.approx(SENSITIVITY_M_PER_V)
        assert curve.duration_s == pytest.approx(255 * 20e-6)


def test_the_first_version_has_no_calibration() -> None:
    force, _ = a_retract()
    (curve,) = read(make_park(data_type=None))
    np.testing.assert_allclose(curve.force, force, atol=1e-13)
    assert (curve.force_unit, curve.spring_constant_n_per_m) == ("N", None)
    (volts,) = read(make_park(data_type=None, channels=("Vertical (A-B)", "Z Scan")))
    assert volts.force_unit == "V"


@pytest.mark.parametrize(("spring_constant", "unit"), [(SPRING_CONSTANT_N_PER_M, "N"), (0.0, "m")])
def test_without_a_force_channel_the_detector_is_scaled(spring_constant: float, unit: str) -> None:
    force, _ = a_retract()
    (curve,) = read(make_park(channels=("Lateral", "Vertical (A-B)", "Z Scan"), spring_constant=spring_constant))
    assert curve.force_unit == unit
    np.testing.assert_allclose(curve.force * (0.05 if unit == "m" else 1.0), force, atol=1e-15)


def test_copies_of_the_last_sample_are_no_measurement() -> None:
    """A ramp that met its force limit early: the real file has 46 samples and 466 copies in each half."""
    force, _ = a_retract()
    (curve,) = read(make_park(repeats=300))
    assert curve.approach_force is not None
    assert (len(curve), len(curve.approach_force)) == (512, 512)
    np.testing.assert_allclose(curve.force, force, atol=1e-16)
    assert curve.notes == ()


def test_pictures_are_no_curves(tmp_path: Path) -> None:
    for content in (make_tiff(), make_park(category=0), make_park(category=1), b"II+\0" + bytes(60)):
        assert reason(content) == "image"
    assert reason(b"MM\0*" + struct.pack(">IHHHII", 8, 1, 256, 4, 1, 8) + bytes(4)) == "image"
    for name in ("scan.tif", "save.jpk", "no-suffix"):
        assert ParkReader().claims(name, make_tiff())
    (tmp_path / "a.tiff").write_bytes(make_tiff())
    with pytest.raises(Unreadable):
        open_file(tmp_path / "a.tiff")


def test_a_cut_file_is_never_a_curve() -> None:
    content = make_park([a_retract(128, seed) for seed in range(2)])
    for length in range(0, len(content), 37):
        assert reason(content[:length]) in ("truncated", "zero_tail")
    assert reason(content[:-1]) == "truncated"


def test_an_end_that_was_never_written_is_noticed() -> None:
    assert reason(make_park(channels=("Z Scan", "Force"))[:-400] + bytes(400)) == "zero_tail"
    assert reason(make_park(channels=("Force",))[:-40] + bytes(40)) == "zero_tail"  # few, but in every channel
    content = make_park()
    for start in range(8, 120):  # in the middle of the directory
        assert reason(content[:start] + bytes(len(content) - start)) in ("zero_tail", "unreadable")
    assert len(read(content[:-400] + bytes(400))) == 1  # time stamps: the force is whole


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (make_park(kind=3), "no_force_channel"),
        (make_park(channels=("Z Scan", "Time Stamp")), "no_force_channel"),
        (make_park(channels=("Lateral", "Z Scan")), "no_force_channel"),
        (make_park(claimed_samples=1_000_000_000), "too_long"),
        (make_park(claimed_samples=1000), "unreadable"),
        (make_park(data_type=2).replace(struct.pack("<I", 0x0E031301), bytes(4)), "unreadable"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "unreadable"),
        (b"II*\0" + struct.pack("<IH", 8, 60000) + bytes(720_000), "unreadable"),
        (b"II*\0" + struct.pack("<I", 0xFFFFFFF0) + bytes(100), "truncated"),
        (b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHII", 1, 50439, 7, 0xFFFFFFFF, 8) + bytes(4), "unreadable"),
    ],
)
def test_what_makes_no_sense_gets_a_reason(content: bytes, expected: str) -> None:
    assert reason(content) == expected


def test_where_the_sides_do_not_meet_nothing_is_discarded() -> None:
    """A half that is not a half, a pause between: which samples are the retract is a guess then."""
    force, distance = a_retract()
    shifted = (np.roll(force, 150), np.roll(distance, 150))
    assert read(make_park([shifted]))[0].notes == ("columns_assumed",)


@pytest.mark.skipif(not REAL.exists(), reason="the real file is not here")
def test_a_real_file() -> None:
    curves = open_file(REAL)
    assert len(curves) == 7
    for curve in curves:
        assert 40 <= len(curve) <= 50
        assert curve.spring_constant_n_per_m == 42.0
        assert curve.distance is not None
        slope = np.polyfit(curve.distance[1:7], curve.force[1:7] / 42.0, 1)[0]
        assert 0.4 < slope < 0.8
        assert curve.approach_force is not None
        assert curve.approach_force[-1] == pytest.approx(curve.force[0], rel=0.05)
