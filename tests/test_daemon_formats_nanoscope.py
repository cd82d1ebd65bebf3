"""NanoScope ramps and force volumes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import formathelp
import numpy as np
import pytest
from makers import a_retract, make_nanoscope

from daemon.formats import open_file
from daemon.formats.base import Unfinished
from daemon.formats.nanoscope import NanoscopeReader, Section, sensitivity_m_per_v

DATA = Path(__file__).resolve().parents[1] / "daemon" / "curves"


read = partial(formathelp.read, NanoscopeReader(), name="x.000")
reason = partial(formathelp.reason_of, read)


@pytest.mark.parametrize(("width", "version"), [(2, "0x06120002"), (4, "0x09200000")])
def test_a_ramp_comes_back_whatever_the_width_of_its_samples(width: int, version: str) -> None:
    """``Bytes/pixel`` says 2 in both cases, as the instrument does."""
    force, distance = a_retract()
    (curve,) = read(make_nanoscope(force, distance, width=width, version=version))
    np.testing.assert_allclose(curve.force, force, atol=1e-12)
    assert curve.force_unit == "N"
    assert curve.distance is not None
    np.testing.assert_allclose(curve.distance - curve.distance[0], distance, atol=4e-10)
    assert curve.approach_force is not None
    np.testing.assert_allclose(curve.approach_force, force[::-1], atol=1e-12)
    assert curve.duration_s == 0.5


@pytest.mark.parametrize(("width", "version"), [(2, "0x08150305"), (4, "0x09400000")])
def test_a_force_volume_is_all_its_curves(width: int, version: str) -> None:
    force, distance = a_retract(128)
    curves = read(make_nanoscope(force, distance, curves=64, width=width, version=version))
    assert len(curves) == 64
    for curve in curves:
        np.testing.assert_allclose(curve.force, force, atol=1e-12)


def test_without_a_sensor_the_ramp_is_the_axis() -> None:
    force, distance = a_retract()
    (curve,) = read(make_nanoscope(force, distance, sensor=False))
    assert curve.distance is not None
    np.testing.assert_allclose(curve.distance, distance, atol=1e-12)


def test_a_short_approach_is_the_first_samples_of_its_half() -> None:
    """``Samps/line: 512 400``: the other 112 slots hold what was there before."""
    force, distance = a_retract()
    (curve,) = read(make_nanoscope(force, distance, approach_points=400))
    assert len(curve) == 512
    assert curve.approach_force is not None
    np.testing.assert_allclose(curve.approach_force, force[:400][::-1], atol=1e-12)


@pytest.mark.parametrize("bad", ["nan", "-1", "1000", "word"])
def test_an_impossible_spring_constant_leaves_metres(bad: str) -> None:
    force, distance = a_retract()
    (curve,) = read(make_nanoscope(force, distance, spring_constant=bad))
    assert curve.force_unit == "m"
    np.testing.assert_allclose(curve.force, force / 0.05, atol=2e-11)


def test_a_file_is_unfinished_until_its_last_block_is_there() -> None:
    content = make_nanoscope()
    for length in (100, 8192, len(content) // 2, len(content) - 1):
        with pytest.raises(Unfinished):
            read(content[:length])
    assert len(read(content + b"junk")) == 1


def test_a_zero_tail_is_noticed_in_the_force_and_in_the_axis() -> None:
    force, distance = a_retract()
    force[-70:] = 0.0
    assert reason(make_nanoscope(force, distance)) == "zero_tail"
    whole = make_nanoscope()
    assert reason(whole[:-300] + bytes(300)) == "zero_tail"


def test_a_sensor_that_was_not_connected_is_not_used() -> None:
    content = make_nanoscope()
    (curve,) = read(content[: 8192 + 2048] + bytes(len(content) - 8192 - 2048))
    assert curve.distance is not None
    np.testing.assert_allclose(curve.distance[[0, -1]], [0.0, 400e-9], atol=1e-12)


def test_headers_that_cannot_be_true_are_refused() -> None:
    content = make_nanoscope()
    assert reason(content.replace(b"512 512", b"5120000 5120000")) == "too_long"
    assert reason(content.replace(b"512 512", b"300 300")) == "unreadable"
    assert reason(content.replace(b"Deflection", b"Phase     ")) == "no_force_channel"
    assert reason(content.replace(b"Samps/line: 512 512", b"Samps/line: 0 512  ")) == "no_retract"


def test_a_sensitivity_without_unit_is_in_nm_and_one_that_was_never_set_is_none() -> None:
    def of(text: str) -> float | None:
        return sensitivity_m_per_v([Section("x", [rf"\@Sens. D: {text}"])], "Sens. D")

    assert of("V 27.39000 ") == pytest.approx(27.39e-9)
    assert of("V 84.77 nm/V") == pytest.approx(84.77e-9)
    assert of("V 1.000000 ") is None
    assert of("V 10.0 pA/V") is None


def test_real_files_have_a_steep_contact_and_plausible_forces() -> None:
    """The contact slope checks the scaling: nm of deflection per nm of piezo. 32 bits read as 16 would be far off."""
    (curve,) = open_file(DATA / "pyfmreader_single_32bit.spm")
    assert len(curve) == 1024
    assert curve.spring_constant_n_per_m == 0.1332
    assert 1e-9 < np.ptp(curve.force) < 50e-9
    (mica,) = open_file(DATA / "fsas_mica_fz.000")
    assert mica.distance is not None
    assert mica.spring_constant_n_per_m is not None
    slope = np.polyfit(mica.distance[:12], mica.force[:12] / mica.spring_constant_n_per_m, 1)[0]
    assert 0.7 < slope < 1.5


def test_a_nanoscope_file_needs_no_suffix(tmp_path: Path) -> None:
    (tmp_path / "0x06130001").write_bytes(make_nanoscope())
    assert len(open_file(tmp_path / "0x06130001")) == 1
