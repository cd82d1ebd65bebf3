"""Asylum Research (MFP-3D, Cypher) Igor binary waves: one wave of several columns, or a pair ``…Defl`` / ``…ZSnsr``.

Columns are told by their label, segments by ``Indexes`` and ``Direction`` of the note (1 approach, 0 dwell,
-1 retract), else by where the position turns. One wave may hold several pulls. Deflection is stored in metres; times
``SpringConstant`` of the note it is force. Raw sign: repulsion positive; the position grows towards the surface.
Images are waves too: of three dimensions, or as wide as they are high.

The container (WaveMetrics, Technical Note 003) is read in versions 2, 3 and 5, in either byte order: a header of fixed
layout, the numbers, then what the header announces: formula, note, units, labels. Read here and not by a library: the
one there is takes 5 to 20 ms a wave.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from daemon.formats import dates, limits, samples
from daemon.formats.base import Blob, Format, NotACurve, Pair, Unfinished, Unreadable
from models.curve import Curve, Samples

_PAIR = Pair(first="Defl.ibw", second="ZSnsr.ibw")
_POSITIONS = ("zsnsr", "lvdt", "raw")  # best first: the measured position, its older name, the piezo drive
_DEFLECTION = "defl"
#: Layers of an image, as its columns would never be called: ``HeightRetrace``, ``Phase2Trace``, ``ZSensorTraceMod0``.
_LAYER = re.compile(r"(?:trace|retrace)(?:mod\d+)?$")
_SCANNED = frozenset({"ScanSize", "FastScanSize", "ScanLines", "PointsLines"})  # keys of the note of an image
_MOST_COLUMNS, _LEAST_LINES = 32, 8  # a curve has at most a dozen channels, an image at least so many lines
_MOST_LAYERS = 64
_DWELL_SHARE, _DWELL_POINTS = 0.02, 16  # of a pull; a turn that takes longer is a dwell, a shorter one a filter
_CYCLE_SHARE = 0.3  # of the whole way: a turn of less is noise, or a modulation
_WILD = 2.0  # times the way of the piezo: no position is so far from its middle
_LOOKED_AT = 2000  # samples of a wave in which turns are looked for
_COVERED = 0.9  # of a wave that the segments of its note must cover, or they are another wave's
_MOST_MISSING = 0.1  # of a retract: maps pad shorter ramps with NaN; what lacks more was broken off
_SIZES = struct.Struct("hh12i")  # version, checksum, wave, formula, note, data units, 4 dim units, 4 dim labels
_OLD = {2: struct.Struct("hii"), 3: struct.Struct("hii")}  # version, wave, note
_OLD_BYTES = {2: 16, 3: 20}  # of the first header
_OLD_WAVE_BYTES, _OLD_PADDING_BYTES = 110, 16  # of the second, and behind the numbers
_NEW_BYTES, _NEW_WAVE_BYTES = 64, 320
_MOST_NOTE_BYTES = 1 << 20
_LABEL_BYTES = 32
_KINDS = {2: "f4", 4: "f8", 8: "i1", 0x10: "i2", 0x20: "i4", 0x48: "u1", 0x50: "u2", 0x60: "u4"}


class AsylumReader:
    format = Format(
        name="asylum",
        instrument="Asylum / Oxford (MFP-3D, Cypher)",
        files="`.ibw`, as one wave (also of several pulls) or as the pair `…Defl.ibw` / `…ZSnsr.ibw`",
        shared_suffixes=(".ibw",),
        unread_suffixes=(".ardf",),
        pair=_PAIR,
    )

    def claims(self, name: str, head: bytes) -> bool:
        return self.format.is_named(name)

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> AsylumFile:
        if _has_layers(dimensions(blob)):
            raise NotACurve("image")
        wave = _load(blob)
        if _is_flat_image(wave):
            raise NotACurve("image")
        if wave.data.ndim == 1:
            if companion is None:
                raise Unfinished("no_companion") if _PAIR.is_first(name) else Unreadable("no_force_channel")
            return AsylumFile(wave, wave.data, _load(companion).data)
        columns = dict(zip(wave.labels, wave.data.T, strict=False))
        position = next((columns[label] for label in _POSITIONS if label in columns), None)
        if _DEFLECTION not in columns:
            raise Unreadable("no_force_channel")
        return AsylumFile(wave, columns[_DEFLECTION], position)


def _has_layers(shape: list[int]) -> bool:
    """Lines, columns and a few channels one above the other. A curve's wave has one or two dimensions."""
    return len(shape) == 3 and min(shape[:2]) >= _LEAST_LINES and shape[2] <= _MOST_LAYERS


def _is_flat_image(wave: _Wave) -> bool:
    """One channel of an image, by its width and its note, or channels that are named as those of an image are.

    A wide wave without such a note may be somebody's curves beside each other: that is a review.
    """
    if wave.data.ndim != 2 or _DEFLECTION in wave.labels:
        return False
    rows, columns = wave.data.shape
    is_scan = _SCANNED.intersection(wave.note) and "Indexes" not in wave.note
    is_wide = columns > _MOST_COLUMNS and rows >= _LEAST_LINES and is_scan
    return bool(is_wide) or any(_LAYER.search(label) for label in wave.labels)


@dataclass(frozen=True, eq=False)
class _Wave:
    data: np.ndarray[Any, np.dtype[Any]]  # (n,) or (n, columns)
    labels: list[str]
    note: dict[str, str]
    step_s: float

    def number(self, key: str) -> float | None:
        try:
            return float(self.note[key].split()[0])
        except (KeyError, ValueError, IndexError):
            return None

    def acquired_s(self) -> float | None:
        """By the note; its date is written as the computer's language has it, its seconds are not.

        When the wave itself was made is no answer: whoever saves it again, or takes it out of a map, makes it anew.
        """
        stated = dates.moment(f"{self.note.get('Date', '')} {self.note.get('Time', '')}")
        return dates.since_1904(self.number("Seconds")) if stated is None else stated


class AsylumFile:
    """The retracts of one wave."""

    def __init__(self, wave: _Wave, deflection: Samples, position: Samples | None) -> None:
        if position is not None and position.shape != deflection.shape:
            raise Unfinished("truncated")
        samples.check_points(deflection.shape[0])
        self._wave = wave
        with np.errstate(invalid="ignore"):  # damaged samples may be numbers that no processor likes
            self._deflection = deflection.astype(np.float64)
            self._position = None if position is None else position.astype(np.float64)
        self._retracts = self._find_retracts()
        if not self._retracts:
            raise Unreadable("no_retract")

    def __len__(self) -> int:
        return len(self._retracts)

    def curve(self, index: int) -> Curve:
        approach, retract = self._retracts[index]
        k = limits.plausible_spring_constant(self._wave.number("SpringConstant"))
        force = self._deflection[retract] * -(k or 1.0)
        samples.check_written(force)
        distance = None if self._position is None else -self._position[retract]
        if distance is not None:
            samples.check_written(distance)
        kept = samples.finite_range(force) if distance is None else samples.finite_range(force, distance)
        is_broken_off = kept.stop - kept.start < (1.0 - _MOST_MISSING) * force.shape[0]
        force, distance = force[kept], None if distance is None else samples.outward(distance[kept])
        before = None if approach is None else self._deflection[approach] * -(k or 1.0)
        return Curve(
            force=force,
            force_unit="m" if k is None else "N",
            distance=distance,
            distance_kind=None if distance is None else "piezo",
            approach_force=None if before is None else before[samples.finite_range(before)],
            spring_constant_n_per_m=k,
            sensitivity_m_per_v=limits.plausible_sensitivity(self._wave.number("InvOLS")),
            duration_s=self._duration_s(force.shape[0]),
            acquired_s=self._wave.acquired_s(),
            notes=("ends_missing",) if is_broken_off else (),
        )

    def _duration_s(self, points: int) -> float | None:
        """From the rate of the note: some panels leave the step of the wave itself at 1 s."""
        rate = self._wave.number("NumPtsPerSec")
        if rate and rate > 0:
            return points / rate
        return points * self._wave.step_s if 0 < self._wave.step_s < 1.0 else None

    def _find_retracts(self) -> list[tuple[slice | None, slice]]:
        """(approach before it or None, retract) of every retract, as ranges of samples."""
        indexes, directions = _numbers(self._wave.note.get("Indexes")), _numbers(self._wave.note.get("Direction"))
        found: list[tuple[slice | None, slice]] = []
        approach = None
        last = self._deflection.shape[0]
        if not _belongs(indexes, last) or len(directions) < len(indexes):
            return self._turns()
        for i in range(1, min(len(indexes), len(directions))):
            if not (math.isfinite(indexes[i - 1]) and math.isfinite(indexes[i])):
                continue
            start = int(indexes[i - 1]) + (1 if i > 1 else 0)
            part = slice(max(start, 0), min(int(indexes[i]) + 1, last))
            if directions[i] == 1:
                approach = part
            elif directions[i] == -1 and part.stop - part.start > 1:
                found.append((approach, part))
        return found or self._turns()

    def _turns(self) -> list[tuple[slice | None, slice]]:
        """Without a usable note: a retract begins where the position is nearest to the surface.

        It ends where the position is farthest away, before the next approach.
        """
        if self._position is None or not np.isfinite(self._position).any():
            return []
        last = self._position.shape[0]
        position = _without_gaps(self._position)
        tops, bottoms = _extremes(position)
        found = []
        for top in tops or [int(position.argmax())]:
            start = max((bottom for bottom in bottoms if bottom < top), default=0)
            stop = min((bottom for bottom in bottoms if bottom > top), default=last - 1)
            if top < stop:
                found.append(_cut(position, _end_of_rest(position, start, top) if start else 0, top, stop + 1))
        return found


def _belongs(indexes: list[float], points: int) -> bool:
    """Whether the bounds of segments are those of a wave of so many samples: in order, inside it, and to its end."""
    bounds = [index for index in indexes if math.isfinite(index)]
    if len(bounds) < 2 or any(later < earlier for earlier, later in pairwise(bounds)):
        return False
    return bounds[0] >= 0 and _COVERED * points <= bounds[-1] - bounds[0] + 1 and bounds[-1] <= points


def _without_gaps(position: Samples) -> Samples:
    """The position with a straight line through what is NaN, and through single samples far from all others."""
    good = np.isfinite(position)
    low, high = np.percentile(position[good], (1, 99))
    good &= np.abs(position - 0.5 * (low + high)) <= max(_WILD * (high - low), np.finfo(np.float32).tiny)
    if good.all() or not good.any():
        return position
    where = np.flatnonzero(good)
    return np.interp(np.arange(position.shape[0]), where, position[where])


def _extremes(position: Samples) -> tuple[list[int], list[int]]:
    """Samples at which the position is nearest to the surface and farthest from it, between turns of some size."""
    step = max(position.shape[0] // _LOOKED_AT, 1)
    thinned = position[::step].tolist()
    least = _CYCLE_SHARE * (max(thinned) - min(thinned))
    tops: list[int] = []
    bottoms: list[int] = []
    high = low = 0
    highest = lowest = thinned[0]
    rising: bool | None = None
    for i, value in enumerate(thinned):
        if value > highest:
            high, highest = i, value
        if value < lowest:
            low, lowest = i, value
        if rising is not False and value <= highest - least:
            tops.append(high)
            rising, low, lowest = False, i, value
        elif rising is not True and value >= lowest + least:
            if rising is False:
                bottoms.append(low)
            rising, high, highest = True, i, value
    near = [slice(max(top - 1, 0) * step, (top + 1) * step) for top in tops]
    return [part.start + int(position[part].argmax()) for part in near], [bottom * step for bottom in bottoms]


def _cut(position: Samples, start: int, top: int, stop: int) -> tuple[slice | None, slice]:
    """Approach and retract of one pull; a dwell between them belongs to neither."""
    end, begin = top + 1, top
    turn = samples.turnaround(position[start:stop])
    if turn is not None and turn[1] - turn[0] > max(_DWELL_POINTS, _DWELL_SHARE * (stop - start)):
        end, begin = start + turn[0], start + turn[1]
    return slice(start, end) if end - start > 1 else None, slice(begin, stop)


def _end_of_rest(position: Samples, start: int, top: int) -> int:
    """Where an approach really sets out, after a rest far from the surface."""
    near = position[start] + 0.02 * (position[top] - position[start])
    return start + int(np.flatnonzero(position[start : top + 1] <= near)[-1])


def _load(blob: Blob) -> _Wave:
    """A wave of one or two dimensions, its note line by line; what stands there twice counts the first time."""
    wave = read(blob)
    if wave.data.ndim > 2:
        raise Unreadable("unreadable")
    if "\x00" in wave.note[-1:]:
        raise Unfinished("zero_tail")
    lines = (line.partition(":") for line in wave.note.replace("\n", "\r").split("\r"))
    note = {key: value.strip() for key, _, value in reversed(list(lines))}
    return _Wave(wave.data, wave.labels, note, wave.step_s)


def _numbers(text: str | None) -> list[float]:
    try:
        return [float(word) for word in (text or "").split(",") if word.strip()]
    except ValueError:
        return []


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
    data = _igor_numbers(content, at, order + _KINDS[kind], points, sizes[0] - _NEW_WAVE_BYTES)
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
    data = _igor_numbers(content, at, order + _KINDS[kind], points, wave_bytes - _OLD_WAVE_BYTES - _OLD_PADDING_BYTES)
    note = content[start + wave_bytes : start + wave_bytes + note_bytes].decode("latin-1")
    return Wave(data, [], note, 0.0)


def _igor_numbers(content: bytes, at: int, kind: str, points: int, data_bytes: int) -> np.ndarray[Any, np.dtype[Any]]:
    """(points,), of exactly as many bytes as the file says."""
    dtype = np.dtype(kind)
    if points < 0 or data_bytes != points * dtype.itemsize:
        raise ValueError("the numbers are not as many as the wave says")
    return np.frombuffer(content, dtype, points, at)
