"""Igor waves: every version, both byte orders, as another program reads them, and what is none."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from makers import make_ibw, make_ibw_pair

from daemon.formats.asylum import Wave, read
from daemon.formats.base import Blob, Unfinished, Unreadable

DATA = Path(__file__).resolve().parents[1] / "daemon" / "curves"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
NUMBERS = np.arange(7) ** 2 - 5


def wave(content: bytes) -> Wave:
    return read(Blob.of(content))


def old(version: int, order: str, kind: int, dtype: str, note: bytes) -> bytes:
    """Versions 2 and 3 as Technical Note 003 lays them out."""
    numbers = NUMBERS.astype(order + dtype).tobytes()
    size = 110 + len(numbers) + 16
    first = struct.pack(order + "hii", version, size, len(note))
    first += struct.pack(order + ("ih" if version == 2 else "iih"), *([0] * (2 if version == 2 else 3)))
    second = struct.pack(order + "h", kind) + bytes(40) + struct.pack(order + "i", len(NUMBERS)) + bytes(64)
    return first + second + numbers + bytes(16) + note


def as_igor2_reads_it(content: bytes) -> tuple[np.ndarray, str]:  # type: ignore[type-arg]
    loaded = pytest.importorskip("igor2.binarywave").load(io.BytesIO(content))["wave"]
    return loaded["wData"], loaded["note"].decode("latin-1")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(("kind", "dtype"), [(2, "f4"), (4, "f8"), (0x10, "i2"), (0x20, "i4"), (0x48, "u1")])
def test_old_versions_in_either_byte_order(version: int, order: str, kind: int, dtype: str) -> None:
    content = old(version, order, kind, dtype, b"SpringConstant: 0.05\r")
    found = wave(content)
    np.testing.assert_array_equal(found.data, NUMBERS.astype(dtype))
    assert (found.note, found.labels, found.step_s) == ("SpringConstant: 0.05\r", [], 0.0)
    numbers, note = as_igor2_reads_it(content)
    np.testing.assert_array_equal(found.data, numbers)
    assert found.note == note


def test_real_waves_are_read_as_another_program_reads_them() -> None:
    files = [*DATA.glob("*.ibw"), *sorted(SHARED.rglob("*.ibw"))[::16]]
    for content in [*(file.read_bytes() for file in files), make_ibw(), *make_ibw_pair()]:
        found, (numbers, note) = wave(content), as_igor2_reads_it(content)
        np.testing.assert_array_equal(found.data, numbers)
        assert found.data.dtype == numbers.dtype
        assert found.note == note
        assert len(found.labels) == (numbers.shape[1] if numbers.ndim == 2 else 0)


def test_every_cut_is_unfinished_and_no_damage_is_more_than_unreadable() -> None:
    content = make_ibw()
    for end in [0, 1, 63, 64, 383, 400, len(content) - 1]:
        with pytest.raises(Unfinished, match="truncated"):
            wave(content[:end])
    random = np.random.default_rng(1)
    for _ in range(400):
        damaged = bytearray(content)
        damaged[random.integers(0, 384)] = random.integers(0, 256)
        with contextlib.suppress(Unreadable, Unfinished):
            assert wave(bytes(damaged)).data.dtype.kind in "fiu"


def test_text_and_complex_waves_are_none_of_ours() -> None:
    content = bytearray(make_ibw())
    for kind in (0, 1, 3, 5, 9, 0x11, 0x40):
        content[80:82] = struct.pack("<h", kind)
        with pytest.raises(Unreadable, match="unreadable"):
            wave(bytes(content))
