"""JPK archives: values, segments, calibration tiers, and everything that can be wrong with a zip."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from functools import partial
from pathlib import Path
from random import Random

import formathelp
import numpy as np
import pytest
from makers import a_retract, make_jpk, make_jpk_map

from daemon.bench import CURVES
from daemon.formats import open_file
from daemon.formats.base import Blob, Unfinished, Unreadable
from daemon.formats.jpk import JpkReader, Properties
from daemon.formats.zip import ZipFile

DATA = Path(__file__).resolve().parents[1] / "daemon" / "curves"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


read = partial(formathelp.read, JpkReader(), name="x.jpk-force")
reason = partial(formathelp.reason_of, read)


def test_a_curve_comes_back_in_newtons_pulling_positive_and_away_from_the_surface() -> None:
    force, distance = a_retract()
    (curve,) = read(make_jpk(force, distance))
    assert curve.force_unit == "N"
    np.testing.assert_allclose(curve.force, force, atol=5e-15)
    assert curve.distance is not None
    assert curve.distance_kind == "piezo"
    np.testing.assert_allclose(curve.distance, distance, atol=1e-12)
    assert curve.approach_force is not None
    np.testing.assert_allclose(curve.approach_force, force[::-1], atol=5e-15)
    assert (curve.spring_constant_n_per_m, curve.sensitivity_m_per_v, curve.duration_s) == (0.05, 50e-9, 0.5)


def test_segments_are_told_by_style_not_by_number() -> None:
    force, distance = a_retract()
    (curve,) = read(make_jpk(force, distance, pauses=True))
    np.testing.assert_allclose(curve.force, force, atol=5e-15)
    (alone,) = read(make_jpk(force, distance, approach=False))
    assert alone.approach_force is None


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "-0.05", "1e300", "0", "35000", ""])
def test_an_impossible_spring_constant_leaves_deflection_in_metres(bad: str) -> None:
    force, distance = a_retract()
    (curve,) = read(make_jpk(force, distance, spring_constant=bad))
    assert curve.force_unit == "m"
    assert curve.spring_constant_n_per_m is None
    np.testing.assert_allclose(curve.force, force / 0.05, atol=1e-13)


def test_without_any_calibration_deflection_stays_in_volts() -> None:
    force, distance = a_retract()
    (curve,) = read(make_jpk(force, distance, spring_constant=None, sensitivity=None))
    assert curve.force_unit == "V"
    np.testing.assert_allclose(curve.force, force / 0.05 / 50e-9, atol=2e-6)


def test_every_curve_of_a_map_is_its_own() -> None:
    curves = read(make_jpk_map(12))
    assert len(curves) == 12
    for index, curve in enumerate(curves):
        np.testing.assert_allclose(curve.force, a_retract(128, index)[0], atol=5e-15)


def test_a_cut_archive_is_unfinished_at_every_length() -> None:
    content = make_jpk()
    for length in [*range(1, 200, 40), len(content) // 2, len(content) - 22, len(content) - 1]:
        with pytest.raises(Unfinished):
            read(content[:length])


def test_what_is_missing_is_named() -> None:
    assert reason(make_jpk(drop=["1/channels/vDeflection.dat"])) == "no_force_channel"
    assert reason(make_jpk(drop=["1/segment-header.properties"])) == "no_retract"
    assert reason(make_jpk(drop=["shared-data/header.properties"])) == "unreadable"
    assert reason(make_jpk(points_claimed=600)) == "truncated"
    assert reason(make_jpk(points_claimed=100)) == "unreadable"


def test_without_a_height_channel_the_curve_still_comes() -> None:
    (curve,) = read(make_jpk())
    force_only = make_jpk().replace(b"measuredHeight", b"somethingOther")
    assert len(curve) == len(read(_rezip(force_only))[0])


def _rezip(content: bytes) -> bytes:
    """The same members, without any channel called measuredHeight."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(make_jpk())) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"measuredHeight", b"somethingElse"))
    assert content
    return target.getvalue()


def test_a_tail_that_was_never_written_is_noticed() -> None:
    force, distance = a_retract()
    force[-80:] = 0.0
    assert reason(make_jpk(force, distance)) == "zero_tail"


def test_flipped_bytes_never_pass_the_checksum() -> None:
    content = bytearray(make_jpk())
    at = content.find(b"segments/1/channels/vDeflection.dat") + 60
    content[at] ^= 0xFF
    assert reason(bytes(content)) == "unreadable"


def test_bombs_are_refused_before_they_unpack() -> None:
    assert reason(make_jpk(extra={"segments/1/segment-header.properties": b"#" * (3 << 20)})) == "bomb"
    assert reason(make_jpk(extra={"segments/1/channels/vDeflection.dat": bytes(65 << 20)})) == "bomb"
    assert reason(make_jpk(points_claimed=10_000_000)) == "too_long"


def test_a_member_that_unpacks_to_more_than_it_declares_is_a_bomb() -> None:
    content = bytearray(make_jpk())
    central = content.find(b"PK\x01\x02")
    while central >= 0:
        name_at = central + 46
        if content[name_at:].startswith(b"segments/1/channels/vDeflection.dat"):
            struct.pack_into("<L", content, central + 24, 40)
        central = content.find(b"PK\x01\x02", central + 4)
    assert reason(bytes(content)) == "bomb"


def test_members_that_share_their_bytes_are_a_bomb() -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("a.dat", np.random.default_rng(0).bytes(5000))
    content = target.getvalue()
    start, end = content.find(b"PK\x01\x02"), content.rfind(b"PK\x05\x06")
    entry, tail = content[start:end], bytearray(content[end:])
    struct.pack_into("<HHLL", tail, 8, 50, 50, 50 * len(entry), start)
    assert reason(content[:start] + 50 * entry + bytes(tail)) == "bomb"


def test_sixty_thousand_empty_members_are_only_slow_to_count() -> None:
    assert len(read(make_jpk(extra={f"x/{i}.dat": b"" for i in range(60_000)}))) == 1


def test_nan_in_the_scaling_makes_a_curve_that_is_not_finite() -> None:
    content = make_jpk(sensitivity="NaN")
    (curve,) = read(content)
    assert curve.force_unit == "V"
    assert np.isfinite(curve.force).all()


def _real_files() -> list[Path]:
    files = sorted(DATA.glob("*.jpk*"))
    return files + (sorted((SHARED / "open" / "formats").glob("*.jpk*")) if SHARED.exists() else [])


def _by_afmformats(path: Path) -> list[tuple[np.ndarray, float]] | None:
    """(force of the retract, spring constant) of every curve; None where afmformats cannot read the file."""
    from afmformats import errors, load_data

    try:
        found = []
        for data in load_data(path):
            segment = np.asarray(data["segment"])
            found.append((np.asarray(data["force"])[segment == segment.max()], data.metadata["spring constant"]))
        return found
    except (errors.AFMFileFormatError, errors.MissingMetaDataError):  # derived from BaseException
        return None


@pytest.mark.parametrize("path", _real_files(), ids=lambda path: path.name[-44:])
def test_values_equal_those_of_afmformats_to_the_last_bit(path: Path) -> None:
    curves, theirs = open_file(path), _by_afmformats(path)
    assert curves
    for ours, (force, spring_constant) in zip(curves, theirs or [], strict=theirs is not None):
        np.testing.assert_array_equal(-ours.force, force)
        assert ours.spring_constant_n_per_m == pytest.approx(spring_constant)


def test_the_oracle_reads_most_of_the_real_files() -> None:
    assert sum(_by_afmformats(path) is not None for path in sorted(DATA.glob("*.jpk*"))) >= 3


def test_the_retract_in_front_of_a_pause_and_two_retracts_in_one_file() -> None:
    """Retracts are counted in stored order."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as both:
        for seed, first in ((1, 0), (2, 2)):
            with zipfile.ZipFile(io.BytesIO(make_jpk(*a_retract(seed=seed)))) as one:
                for name in one.namelist():
                    if first == 0 or name.startswith("segments/"):
                        number = "segments/1" in name
                        moved = name.replace(f"segments/{number:d}", f"segments/{first + number}")
                        both.writestr(moved, one.read(name))
    curves = read(target.getvalue())
    assert len(curves) == 2
    for curve, seed in zip(curves, (1, 2), strict=True):
        np.testing.assert_allclose(curve.force, a_retract(seed=seed)[0], atol=5e-15)
        assert curve.approach_force is not None
        np.testing.assert_allclose(curve.approach_force, a_retract(seed=seed)[0][::-1], atol=5e-15)


def test_a_header_is_what_the_rule_for_its_lines_says() -> None:
    rule = re.compile(r"^([^#!=\s][^=\r\n]*)=([^\r\n]*)", re.MULTILINE)
    pieces = [
        b"a",
        b"b=",
        b"=",
        b"\n",
        b"\r\n",
        b"\r",
        b"#",
        b"!",
        b" ",
        b"\x85",
        b"\xa0",
        b"\x0b",
        b"\x1c",
        b"v",
        b"\\",
    ]
    random = Random(1)
    for _ in range(5000):
        text = b"".join(random.choices(pieces, k=random.randrange(24)))
        expected = dict(rule.findall(text.decode("latin-1")))
        found = Properties(text.decode("latin-1"))
        assert {key: found.get(key) for key in expected} == expected
        for key in ("a", "b", "v", "av", "va", "a\\"):
            assert (key in found) == (key in expected), (key, text)


def test_members_are_those_of_the_standard_library_and_of_a_damaged_file_the_same_or_none() -> None:
    content = (CURVES / "fmt-jpk-fd_spot3-0192.jpk-force").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name.encode(): archive.read(name) for name in archive.namelist()}
    whole = ZipFile(Blob.of(content), lambda name: True)
    assert {name: whole.read(name, 1 << 20) for name in whole.members} == members
    random, refused = Random(2), 0
    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(random.choice((1, 4))):
            damaged[random.randrange(len(content))] ^= 1 << random.randrange(8)
        try:
            file = ZipFile(Blob.of(bytes(damaged)), members.__contains__)
        except (Unreadable, Unfinished):
            refused += 1
            continue
        for name in file.members:
            try:
                assert file.read(name, 1 << 20) == members[name]
            except (Unreadable, Unfinished):
                refused += 1
    assert refused > 150
