"""What lies beside curves and is none: ignored and counted as what it is, and in doubt a review."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers import _wave, a_retract, make_ibw, make_jpk, make_jpk_map, make_nanoscope
from makers_vendors import (
    make_hdf5,
    make_ibw_image,
    make_nanoscope_image,
    make_nid,
    make_park,
    make_tiff,
)

from daemon.formats import NAMES, find_reader, open_file
from daemon.formats.base import NO_CURVES, Blob, NotACurve, Unfinished, Unreadable
from daemon.reading import FileReading
from daemon.reading.ahead import find
from daemon.reading.pool import ReaderPool
from daemon.reading.worker import Request, RequestHandler
from models.reasons import UNREADABLE

SHARED = Path(__file__).resolve().parents[2] / "shared"

IMAGES = {
    "layers.ibw": make_ibw_image(),
    "flat.ibw": make_ibw_image(layers=0, lines=64, names=()),
    "named.ibw": make_ibw_image(layers=0, lines=8, names=("HeightRetrace", "PhaseTraceMod0")),
    "tall-Defl.ibw": make_ibw_image(),
    "save.jpk": make_tiff(),
    "map.jpk-qi-image": make_tiff(),
    "zipped.jpk-qi-image": make_jpk_map(1),
    "fast.h5-jpk": make_hdf5({"channel/height": np.zeros((8, 8))}),
    "scan.tif": make_tiff(),
    "park.tiff": make_park(category=0),
    "scan.000": make_nanoscope_image(),
    "no-suffix": make_nanoscope_image(),
    "scan.nid": make_nid(spectra=False),
}


def read(folder: Path, files: dict[str, bytes]) -> dict[str, FileReading]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with ReaderPool(1) as pool:
        return {arrival.path: pool.read(arrival) for arrival in find([folder])}


def test_images_are_nobodys_curves(tmp_path: Path) -> None:
    found = read(tmp_path, IMAGES)
    assert {name: (one.outcome, one.reason) for name, one in found.items()} == dict.fromkeys(
        IMAGES, ("unclaimed", "image")
    )
    assert not any(one.readings for one in found.values())
    for name in IMAGES:
        with pytest.raises(Unreadable, match="unreadable"):
            open_file(tmp_path / name)


def test_no_image_is_counted_as_a_curve_by_its_name() -> None:
    """Seen = decided + duplicate + backlog at every scrape: what may be an image is seen once it is opened."""
    assert all(NAMES.claim(name) is None for name in IMAGES)


def test_a_broken_or_empty_file_of_such_a_name_is_still_a_review(tmp_path: Path) -> None:
    curve, jpk = make_ibw(), make_jpk()
    found = read(
        tmp_path,
        {
            "empty.ibw": b"",
            "empty.jpk": b"",
            "empty.nid": b"",
            "empty.tiff": b"",
            "curves-side-by-side.ibw": _wave(np.zeros((512, 100)), "", ["a", "b"]),
            "cut.ibw": curve[:-10],
            "cut.jpk": jpk[:-10],
            "cut.tiff": make_park()[:-10],
            "garbage.nid": b"nothing of the kind",
            "garbage.tiff": b"nothing of the kind",
            "ramp.000": make_nanoscope().replace(b"Ciao force image list", b"Ciao farce image list"),
        },
    )
    assert {name: one.readings[0].reason for name, one in found.items()} == {
        **dict.fromkeys(("empty.ibw", "empty.jpk", "empty.nid", "empty.tiff"), "empty"),
        "curves-side-by-side.ibw": "no_force_channel",
        **dict.fromkeys(("cut.ibw", "cut.jpk", "cut.tiff"), "truncated"),
        **dict.fromkeys(("garbage.nid", "garbage.tiff", "ramp.000"), "unreadable"),
    }


def test_what_a_source_has_counted_as_a_curve_is_answered_as_one(tmp_path: Path) -> None:
    """A picture under the name of a single curve: its name alone had it counted."""
    path = tmp_path / "a.jpk-force"
    path.write_bytes(make_tiff())
    assert NAMES.claim(path.name) is True
    request = Request(1, str(path), None, path.name, 0, 32, True, None, 1)
    header, _ = RequestHandler().answer(request)
    assert (header["outcome"], [one["reason"] for one in header["curves"]]) == ("curves", ["unreadable"])


def test_damage_does_not_make_an_image_of_a_curve() -> None:
    """An image is let go without a word of warning, so every single byte of a header must not suffice for one."""
    rng = np.random.default_rng(5)
    contents = {
        "a.ibw": make_ibw(*a_retract(128)),
        "a.000": make_nanoscope(*a_retract(128)),
        "a.tiff": make_park([a_retract(64)]),
        "a.nid": make_nid([a_retract(64)]),
    }
    for name, content in contents.items():
        for at in range(0, min(len(content), 4000), 3):
            damaged = bytearray(content)
            damaged[at] ^= int(rng.integers(1, 256))
            blob = Blob.of(bytes(damaged))
            reader = find_reader(name, blob)
            if reader is None:  # NanoScope is known by its first line alone
                assert (name, at < 32) == ("a.000", True)
                continue
            try:
                file = reader.open(blob, name, None)
                for index in range(min(len(file), 2)):
                    file.curve(index)
            except NotACurve:
                pytest.fail(f"{name}: byte {at}")
            except (Unreadable, Unfinished, ValueError, LookupError, TypeError, ArithmeticError, MemoryError):
                pass  # as the reader process has it


def test_the_words_are_labels_of_one_metric() -> None:
    assert not NO_CURVES & UNREADABLE
    assert NotACurve("image").reason == "image"
    assert NotACurve("anything").reason == "unclaimed"


@pytest.mark.skipif(not SHARED.exists(), reason="the cases are not here")
def test_images_as_they_were_reported() -> None:
    with ReaderPool(1) as pool:
        found = [pool.read(arrival) for arrival in find([SHARED / "cases" / "14-images-beside-curves"])]
    images = [one for one in found if not one.arrival.path.endswith(".txt")]
    assert [(one.outcome, one.reason) for one in images] == [("unclaimed", "image")] * 2
