"""Our own file of one curve, and the HDF5 of afmformats."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import formathelp
import h5py
import numpy as np
import pytest
from makers import a_retract

from daemon.formats.afmcurve import PackedReader, pack, unpack
from daemon.formats.base import Blob, Unfinished, Unreadable
from daemon.formats.hdf5 import Hdf5Reader
from models.curve import Curve


def a_curve() -> Curve:
    force, distance = a_retract()
    return Curve(
        force=force,
        force_unit="N",
        distance=distance,
        distance_kind="separation",
        approach_force=force[::-1],
        spring_constant_n_per_m=0.05,
        sensitivity_m_per_v=5e-8,
        duration_s=0.5,
        notes=("unit_assumed",),
    )


reason = partial(formathelp.reason_of, unpack)


def test_a_curve_survives_the_round_trip() -> None:
    curve = a_curve()
    back, meta = unpack(pack(curve, {"run": 7, "name": "é"}, dtype="<f8"))
    for name in ("force", "distance", "approach_force"):
        np.testing.assert_array_equal(getattr(back, name), getattr(curve, name))
    for name in (
        "force_unit",
        "distance_kind",
        "spring_constant_n_per_m",
        "sensitivity_m_per_v",
        "duration_s",
        "notes",
    ):
        assert getattr(back, name) == getattr(curve, name)
    assert meta == {"run": 7, "name": "é"}


def test_single_precision_is_enough_and_the_default() -> None:
    curve = a_curve()
    content = pack(curve)
    np.testing.assert_allclose(unpack(content)[0].force, curve.force, rtol=1e-7)
    assert len(content) < len(pack(curve, dtype="<f8")) * 0.6


def test_the_smallest_curve_and_nan_samples() -> None:
    bare = Curve(force=np.array([1.0, np.nan]), force_unit=None)
    back, meta = unpack(pack(bare))
    assert back.distance is None
    assert back.force_unit is None
    assert meta == {}
    np.testing.assert_array_equal(back.force, bare.force)


def test_it_shows_its_own_end_and_every_flipped_bit() -> None:
    content = pack(a_curve())
    for length in (10, content.index(b"\n"), len(content) // 2, len(content) - 1):
        assert reason(content[:length]) == "truncated"
    rng = np.random.default_rng(0)
    for at in rng.integers(content.index(b"\n") + 1, len(content), 30):
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        assert reason(bytes(flipped)) == "unreadable"
    assert reason(content + b"junk") == "unreadable"


def test_headers_that_lie_are_refused() -> None:
    line, _, payload = pack(a_curve()).partition(b"\n")
    header = json.loads(line)
    for change in (
        {"arrays": {"force": {"dtype": "<f4", "points": 10**12}}},
        {"arrays": {"force": {"dtype": "|O", "points": 4}}},
        {"arrays": {"distance": header["arrays"]["distance"]}},
        {"force_unit": "pN"},
        {"arrays": 7},
        {"payload_bytes": "many"},
    ):
        assert reason(json.dumps(header | change).encode() + b"\n" + payload) in (
            "unreadable",
            "too_long",
            "no_force_channel",
        )
    assert reason(b"[" * 100_000 + b"\n") == "unreadable"
    wild, _ = unpack(pack(replace(a_curve(), spring_constant_n_per_m=5000.0)))
    assert wild.spring_constant_n_per_m is None


def test_the_reader_claims_by_name_and_by_content() -> None:
    content = pack(a_curve())
    assert PackedReader().claims("x.afmcurve", b"")
    assert PackedReader().claims("x", content[:100])
    assert len(PackedReader().open(Blob.of(content), "x").curve(0)) == 512


def hdf5_of(**columns: np.ndarray) -> bytes:
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        for number in range(12):
            group = file.create_group(str(number))
            group.attrs["spring constant"], group.attrs["rate retract"] = 0.05, 2000.0
            for name, samples in columns.items():
                group[name.replace("_", " ") if name.startswith("height") else name] = samples * (number + 1)
    return target.getvalue()


def test_a_curve_that_ends_in_zeros_is_refused_at_once() -> None:
    curve = a_curve()
    curve.force[-70:] = 0.0
    with pytest.raises(Unreadable) as caught:
        PackedReader().open(Blob.of(pack(curve)), "x.afmcurve").curve(0)
    assert caught.value.reason == "zero_tail"


def test_hdf5_groups_come_in_the_order_of_their_numbers() -> None:
    force, distance = a_retract()
    segment = np.zeros(512)
    segment[256:] = 1.0
    file = Hdf5Reader().open(Blob.of(hdf5_of(force=-force, height_=distance)), "x.h5")
    assert len(file) == 12
    np.testing.assert_allclose(file.curve(10).force, 11 * force)
    assert file.curve(0).spring_constant_n_per_m == 0.05
    assert file.curve(0).duration_s == 512 / 2000


def test_hdf5_that_points_to_bytes_elsewhere_is_refused(tmp_path: Path) -> None:
    """Else a file could have the service read any other file for it."""
    (tmp_path / "secret").write_bytes(bytes(800))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("0/force", (100,), "f8", external=[(str(tmp_path / "secret"), 0, 800)])
        file["1/force"] = file["1/segment"] = np.ones(100)
    opened = Hdf5Reader().open(Blob(tmp_path / "x.h5"), "x.h5")
    assert len(opened) == 2
    with pytest.raises(Unreadable):
        opened.curve(0)


def test_damaged_hdf5_ends_in_a_reason() -> None:
    content = hdf5_of(force=a_retract()[0])
    with pytest.raises(Unfinished):
        Hdf5Reader().open(Blob.of(content[: len(content) // 2]), "x.h5")
    with pytest.raises(Unreadable, match="foreign_hdf5"):
        Hdf5Reader().open(Blob.of(hdf5_of(voltage=np.ones(5))), "x.h5")
