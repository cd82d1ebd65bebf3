"""Igor binary waves: the numbers, their labels and the note (WaveMetrics, Technical Note 003).

Versions 2, 3 and 5, in either byte order. A wave is a header of fixed layout, the numbers, then what the first header
announces: formula, note, units, labels. Read here and not by a library: the one there is takes 5 to 20 ms a wave.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.formats import limits
from daemon.formats.blob import Blob
from daemon.reading import Unfinished, Unreadable

_SIZES = struct.Struct("hh12i")  # version, checksum, wave, formula, note, data units, 4 dim units, 4 dim labels
_OLD = {2: struct.Struct("hii"), 3: struct.Struct("hii")}  # version, wave, note
_OLD_BYTES = {2: 16, 3: 20}  # of the first header
_OLD_WAVE_BYTES, _OLD_PADDING_BYTES = 110, 16  # of the second, and behind the numbers
_NEW_BYTES, _NEW_WAVE_BYTES = 64, 320
_MOST_NOTE_BYTES = 1 << 20
_LABEL_BYTES = 32
_KINDS = {2: "f4", 4: "f8", 8: "i1", 0x10: "i2", 0x20: "i4", 0x48: "u1", 0x50: "u2", 0x60: "u4"}


@dataclass(frozen=True, eq=False)
class Wave:
    """``data``: (n,), (n, columns) or more; ``labels``: one a column, in lower case; ``step_s`` 0 where unknown."""

    data: np.ndarray[Any, np.dtype[Any]]
    labels: list[str]
    note: str
    step_s: float


def read(blob: Blob) -> Wave:
    """Raises ``Unfinished("truncated")`` while its end is missing, ``Unreadable`` for what is no wave of numbers."""
    order, version, sizes = _head(blob)
    content = blob.whole()
    try:
        return _new(content, order, sizes) if version == 5 else _old(content, order, version)
    except (struct.error, ValueError, KeyError, IndexError) as error:
        raise Unreadable("unreadable") from error


def dimensions(blob: Blob) -> list[int]:
    """How many numbers a wave has in each dimension, from its first bytes; empty where they do not agree on it."""
    if blob.size_bytes < _NEW_BYTES + 84:
        return []
    head = blob.read(0, _NEW_BYTES + 84)
    order = "<" if head[0] else ">"
    if struct.unpack_from(order + "h", head) != (5,):
        return []
    shape = [n for n in struct.unpack_from(order + "4i", head, _NEW_BYTES + 68) if n > 0]
    (points,) = struct.unpack_from(order + "i", head, _NEW_BYTES + 12)
    return shape if math.prod(shape) == points else []


def _head(blob: Blob) -> tuple[str, int, tuple[int, ...]]:
    """Byte order, version, and how long each part is: a wave tells in its first bytes where it ends."""
    if blob.size_bytes < _SIZES.size:
        raise Unfinished("truncated")
    head = blob.read(0, _SIZES.size)
    order = "<" if head[0] else ">"  # the version is 1 to 5: its low byte is not zero
    version, _, *sizes = struct.unpack(order + _SIZES.format, head)
    if version == 5:
        needed = _NEW_BYTES + sum(sizes)
        if min(sizes) < 0 or sizes[2] > _MOST_NOTE_BYTES:
            raise Unreadable("unreadable")
    elif version in _OLD:
        _, *sizes = struct.unpack_from(order + _OLD[version].format, head)
        needed = _OLD_BYTES[version] + sum(sizes)
        if sizes[1] < 0:
            raise Unreadable("unreadable")
    else:
        raise Unreadable("unreadable")
    if needed > limits.WHOLE_BYTES or sizes[0] <= 0:
        raise Unreadable("too_large" if sizes[0] > 0 else "unreadable")
    if blob.size_bytes < needed:
        raise Unfinished("truncated")
    return order, version, tuple(sizes)


def _new(content: bytes, order: str, sizes: tuple[int, ...]) -> Wave:
    points, kind = struct.unpack_from(order + "ih", content, _NEW_BYTES + 12)
    shape = [n for n in struct.unpack_from(order + "4i", content, _NEW_BYTES + 68) if n > 0]
    (step_s,) = struct.unpack_from(order + "d", content, _NEW_BYTES + 84)
    at = _NEW_BYTES + _NEW_WAVE_BYTES
    data = _numbers(content, at, order + _KINDS[kind], points, sizes[0] - _NEW_WAVE_BYTES)
    wave_bytes, formula_bytes, note_bytes, *units_bytes = sizes[:8]
    labels_bytes = sizes[8:]
    at = _NEW_BYTES + wave_bytes + formula_bytes
    note = content[at : at + note_bytes].decode("latin-1")
    at += note_bytes + sum(units_bytes) + labels_bytes[0]
    columns = content[at : at + labels_bytes[1]]
    fields = [columns[start : start + _LABEL_BYTES] for start in range(_LABEL_BYTES, len(columns), _LABEL_BYTES)]
    labels = [field.partition(b"\0")[0].decode("latin-1").lower() for field in fields]  # the first is the dimension's
    return Wave(data.reshape(shape, order="F"), labels, note, step_s)


def _old(content: bytes, order: str, version: int) -> Wave:
    _, wave_bytes, note_bytes = struct.unpack_from(order + _OLD[version].format, content)
    start = _OLD_BYTES[version]
    (kind,), (points,) = (struct.unpack_from(order + form, content, start + at) for form, at in (("h", 0), ("i", 42)))
    at = start + _OLD_WAVE_BYTES
    data = _numbers(content, at, order + _KINDS[kind], points, wave_bytes - _OLD_WAVE_BYTES - _OLD_PADDING_BYTES)
    note = content[start + wave_bytes : start + wave_bytes + note_bytes].decode("latin-1")
    return Wave(data, [], note, 0.0)


def _numbers(content: bytes, at: int, kind: str, points: int, data_bytes: int) -> np.ndarray[Any, np.dtype[Any]]:
    """(points,), of exactly as many bytes as the file says."""
    dtype = np.dtype(kind)
    if points < 0 or data_bytes != points * dtype.itemsize:
        raise ValueError("the numbers are not as many as the wave says")
    return np.frombuffer(content, dtype, points, at)
