"""HDF5 of other programs: by the names of its datasets, and never discarded on a guess."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import formathelp
import numpy as np
import pytest
from makers import a_retract
from makers_vendors import make_hdf5

from daemon.formats import open_file
from daemon.formats.base import Unreadable
from daemon.formats.hdf5 import Hdf5Reader
from models.frontend import prepare
from models.raster import RasterProfile
from models.reasons import LIFTING

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases" / "18-hdf5-of-others"
FORCE, DISTANCE = a_retract()
THERE_AND_BACK = np.concatenate([FORCE[::-1], FORCE]), np.concatenate([DISTANCE[::-1], DISTANCE])


read = partial(formathelp.read, Hdf5Reader(), name="x.h5")
reason = partial(formathelp.reason_of, read)


def test_both_sides_of_a_curve_by_their_names() -> None:
    for names in (
        ("approach/force", "approach/z", "retract/force", "retract/z"),
        ("force_approach", "height_approach", "force_retract", "height_retract"),
        ("Ext/Force", "Ext/ZSnsr", "Ret/Force", "Ret/ZSnsr"),
    ):
        columns = dict(zip(names, (-FORCE[::-1], DISTANCE[::-1], -FORCE, DISTANCE), strict=True))
        units = {name: "N" if "orce" in name else "m" for name in names}
        (curve,) = read(make_hdf5(columns, units))
        np.testing.assert_allclose(curve.force, FORCE)
        assert (curve.force_unit, curve.notes) == ("N", ("sign_assumed",))
        assert curve.distance is not None
        np.testing.assert_allclose(curve.distance, DISTANCE)
        assert curve.approach_force is not None
        np.testing.assert_allclose(curve.approach_force, FORCE[::-1])


@pytest.mark.parametrize(("names", "scale"), [(("Force (pN)", "Distance [nm]"), 1e12), (("force_nN", "z_um"), 1e9)])
def test_a_way_there_and_back_is_divided_where_it_turns(names: tuple[str, str], scale: float) -> None:
    force, distance = THERE_AND_BACK
    metres = {"Distance [nm]": 1e9, "z_um": 1e6}[names[1]]
    (curve,) = read(make_hdf5({f"run/{names[0]}": force * scale, f"run/{names[1]}": distance * metres}))
    np.testing.assert_allclose(curve.force[-500:], FORCE[-500:])
    assert (curve.force_unit, curve.distance_kind) == ("N", "piezo")
    assert 500 <= len(curve) <= 514
    assert curve.notes == ("sign_assumed",)


def test_each_group_is_a_curve_and_they_come_in_the_order_of_their_numbers() -> None:
    columns: dict[str, Any] = {}
    for number in range(12):
        force, distance = a_retract(256, number)
        columns |= {f"curves/curve{number}/retract/force": force, f"curves/curve{number}/retract/tss": distance}
        columns[f"curves/curve{number}/time"] = np.arange(256.0)
    curves = read(make_hdf5(columns))
    assert len(curves) == 12
    for number, curve in enumerate(curves):
        np.testing.assert_allclose(curve.force, a_retract(256, number)[0])


def test_what_the_names_do_not_settle_is_said() -> None:
    force, distance = FORCE * 1e12, DISTANCE * 1e6
    for columns in (
        {"Force HF/Force 1x": force, "Force HF/Force 1y": force, "Distance/Distance 1": distance},  # two forces
        {"a/force": force, "a/z": distance},  # there or back?
        {"a/force": force},  # along what?
        {"a/retract/force": force, "a/retract/z": distance, "a/retract/height": distance},
        {"a/retract/force": force, "a/retract/z": distance},  # in which unit?
        {"a/retract/defl": force, "a/retract/z": distance},
    ):
        (curve,) = read(make_hdf5(columns))
        assert "columns_assumed" in curve.notes
        (prepared,) = prepare([curve], RasterProfile())
        assert LIFTING.intersection(prepared.reasons)


def test_a_tweezers_export_has_the_units_of_its_program() -> None:
    columns = {"Force LF/Force 1x": FORCE * 1e12, "Distance/Distance 1": DISTANCE * 1e6, "FD Curve/1": np.arange(2)}
    (curve,) = read(make_hdf5(columns, attributes={"Bluelake version": "2.4.0"}))
    np.testing.assert_allclose(curve.force, FORCE)
    assert curve.distance is not None
    np.testing.assert_allclose(curve.distance, DISTANCE)


def test_where_nothing_fits_the_reason_says_so() -> None:
    assert reason(make_hdf5({"entry/data/counts": np.arange(100.0)})) == "foreign_hdf5"
    assert reason(make_hdf5({})) == "foreign_hdf5"
    assert reason(make_hdf5({"ForceMaps/Deflection": np.zeros((4, 4, 100))})) == "foreign_hdf5"
    assert reason(make_hdf5({"force_time": np.arange(100.0), "force_std": np.arange(100.0)})) == "foreign_hdf5"
    assert reason(make_hdf5({"a/approach/force": FORCE, "a/approach/z": DISTANCE})) == "no_retract"


def test_a_sign_that_is_not_stated_is_taken_from_the_push() -> None:
    for sign in (1, -1):
        (curve,) = read(make_hdf5({"retract/force": sign * FORCE, "retract/z": DISTANCE}))
        np.testing.assert_allclose(curve.force, FORCE)
        assert "sign_assumed" in curve.notes


def test_a_cut_file_is_never_a_curve() -> None:
    content = make_hdf5({"retract/force": FORCE, "retract/z": DISTANCE})
    for length in range(8, len(content), 199):
        assert reason(content[:length]) == "truncated"


def test_unwritten_space_is_noticed() -> None:
    force = FORCE.copy()
    force[300:] = 0.0
    assert reason(make_hdf5({"retract/force": force, "retract/z": DISTANCE})) == "zero_tail"


def test_nothing_outside_the_file_is_ever_read(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["force"] = FORCE
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["retract/force"] = h5py.ExternalLink("secret.h5", "/force")
        file["other/force"] = h5py.SoftLink("/retract/force")
        layout = h5py.VirtualLayout((512,), dtype="f8")
        layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "force", (512,))
        file.create_virtual_dataset("virtual/force", layout)
        file.create_dataset("raw/force", (512,), "f8", external=[(str(tmp_path / "raw.bin"), 0, 4096)])
    with pytest.raises(Unreadable) as caught:
        open_file(tmp_path / "a.h5")
    assert caught.value.reason == "foreign_hdf5"


def test_trees_without_an_end_are_refused() -> None:
    import io

    import h5py

    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        file["loop/again"] = file.create_group("loop")  # a group that holds itself
    assert reason(target.getvalue()) == "bomb"
    deep = "/".join(["g"] * 40)
    assert reason(make_hdf5({f"{deep}/force": FORCE})) == "bomb"
    long = make_hdf5({"retract/force": np.zeros(0)})
    assert reason(long) == "foreign_hdf5"


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not here")
def test_an_export_as_it_was_reported() -> None:
    (curve,) = open_file(CASES / "H01_lumicks.h5")
    assert len(curve) == 4096
    assert curve.force_unit == "N"
    assert curve.force[:40].mean() < -5e-10 < -1e-10 < curve.force[-400:].mean()  # the push comes first
