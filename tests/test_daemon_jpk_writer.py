"""The writer's archives, read back by our own reader and by afmformats."""

import io
import zipfile
from dataclasses import replace

import afmformats
import numpy as np
import pytest

from daemon import instrument
from daemon.formats.base import Blob
from daemon.formats.jpk import JpkReader
from models.curve import Curve

STIFFNESS, SENSITIVITY = 0.03, 6e-8


def a_curve(unit="N", **changes):
    rng = np.random.default_rng(5)
    scale = {"N": 1e-12, "m": 1e-12 / STIFFNESS, "V": 1e-12 / STIFFNESS / SENSITIVITY}[unit]
    curve = Curve(
        force=(rng.normal(0.0, 5.0, 700) - np.linspace(3000.0, 0.0, 700)) * scale,
        force_unit=unit,
        distance=np.linspace(1e-6, 1.5e-6, 700),
        distance_kind="piezo",
        approach_force=rng.normal(0.0, 5.0, 500) * scale,
        spring_constant_n_per_m=STIFFNESS,
        sensitivity_m_per_v=SENSITIVITY,
        duration_s=0.7,
    )
    return replace(curve, **changes)


def read_back(curve):
    file = JpkReader().open(Blob.of(instrument.pack(curve)), "a.jpk-force")
    assert len(file) == 1
    return file.curve(0)


@pytest.mark.parametrize("unit", ["N", "m", "V"])
def test_our_reader_gets_back_what_was_written(unit):
    curve = a_curve(unit)
    back = read_back(curve)
    assert back.force_unit == unit
    span = np.ptp(curve.force)
    assert np.abs(back.force - curve.force).max() < 1e-8 * span
    assert np.abs(back.approach_force - curve.approach_force).max() < 1e-8 * span
    assert np.abs(back.distance - curve.distance).max() < 1e-15
    assert back.distance_kind == "piezo"
    assert back.duration_s == 0.7


def test_the_calibration_travels_with_the_unit_that_needs_it():
    back = read_back(a_curve("N"))
    assert back.spring_constant_n_per_m == pytest.approx(STIFFNESS, rel=1e-15)
    assert back.sensitivity_m_per_v == pytest.approx(SENSITIVITY, rel=1e-15)
    uncalibrated = read_back(a_curve("V", spring_constant_n_per_m=None, sensitivity_m_per_v=None))
    assert uncalibrated.spring_constant_n_per_m is None
    assert uncalibrated.sensitivity_m_per_v is None


def test_afmformats_reads_the_same_numbers(tmp_path):
    curve = a_curve("N")
    path = tmp_path / "a.jpk-force"
    path.write_bytes(instrument.pack(curve))
    (loaded,) = afmformats.load_data(path)
    assert loaded.metadata["spring constant"] == pytest.approx(STIFFNESS)
    assert loaded.metadata["sensitivity"] == pytest.approx(SENSITIVITY)
    force = np.concatenate([curve.approach_force, curve.force])
    assert np.abs(np.asarray(loaded["force"]) + force).max() < 1e-8 * np.ptp(force)
    heights = np.asarray(loaded["height (measured)"])
    assert np.abs(heights[-700:] - curve.distance).max() < 1e-15
    assert np.array_equal(np.asarray(loaded["height (piezo)"]), heights)
    assert heights[0] > heights[499]  # the approach goes down to where the retract starts


def test_separation_is_turned_back_into_piezo_travel():
    curve = a_curve("N")
    separation = curve.distance - curve.force / STIFFNESS
    back = read_back(replace(curve, distance=separation, distance_kind="separation"))
    assert np.abs(back.distance - curve.distance).max() < 1e-15


def test_separation_without_calibration_is_left_out_and_not_guessed():
    curve = a_curve("V", spring_constant_n_per_m=None, sensitivity_m_per_v=None, distance_kind="separation")
    assert read_back(curve).distance is None


def test_a_curve_without_distance_and_approach_is_one_segment():
    back = read_back(a_curve(distance=None, distance_kind=None, approach_force=None))
    assert back.distance is None
    assert back.approach_force is None
    assert len(back) == 700


def test_equal_curves_give_equal_bytes_with_fixed_dates():
    packed = instrument.pack(a_curve())
    assert packed == instrument.pack(a_curve())
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.testzip() is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"force_unit": None}, "unit"),
        ({"spring_constant_n_per_m": None}, "spring constant"),
        ({"force": np.zeros(1)}, "two samples"),
    ],
)
def test_what_the_format_cannot_say_is_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        instrument.pack(a_curve(**changes))


def test_a_constant_channel_survives():
    flat = a_curve(force=np.full(700, -2.5e-10))
    assert read_back(flat).force == pytest.approx(flat.force)
