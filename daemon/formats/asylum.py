"""Asylum Research (MFP-3D, Cypher) Igor binary waves: one wave of several columns, or a pair ``…Defl`` / ``…ZSnsr``.

Columns are told by their label, segments by ``Indexes`` and ``Direction`` of the note (1 approach, 0 dwell,
-1 retract), else by where the position turns. One wave may hold several pulls. Deflection is stored in metres; times
``SpringConstant`` of the note it is force. Raw sign: repulsion positive; the position grows towards the surface.
Images are waves too: of three dimensions, or as wide as they are high. The container: daemon.formats.igor.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from daemon.formats import igor, limits, shape
from daemon.formats.blob import Blob
from daemon.formats.pair import is_first_half
from daemon.reading import NotACurve, Unfinished, Unreadable
from models.curve import Curve, Samples

SUFFIX = ".ibw"
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


class AsylumReader:
    name = "asylum"
    quiet_s = 0.0

    def claims(self, name: str, head: bytes) -> bool:
        return name.lower().endswith(SUFFIX)

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> AsylumFile:
        if _has_layers(igor.dimensions(blob)):
            raise NotACurve("image")
        wave = _load(blob)
        if _is_flat_image(wave):
            raise NotACurve("image")
        if wave.data.ndim == 1:
            if companion is None:
                raise Unfinished("no_companion") if is_first_half(name) else Unreadable("no_force_channel")
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


class AsylumFile:
    """The retracts of one wave."""

    def __init__(self, wave: _Wave, deflection: Samples, position: Samples | None) -> None:
        if position is not None and position.shape != deflection.shape:
            raise Unfinished("truncated")
        shape.check_points(deflection.shape[0])
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
        shape.check_written(force)
        distance = None if self._position is None else -self._position[retract]
        if distance is not None:
            shape.check_written(distance)
        kept = shape.finite_range(force) if distance is None else shape.finite_range(force, distance)
        is_broken_off = kept.stop - kept.start < (1.0 - _MOST_MISSING) * force.shape[0]
        force, distance = force[kept], None if distance is None else shape.outward(distance[kept])
        before = None if approach is None else self._deflection[approach] * -(k or 1.0)
        return Curve(
            force=force,
            force_unit="m" if k is None else "N",
            distance=distance,
            distance_kind=None if distance is None else "piezo",
            approach_force=None if before is None else before[shape.finite_range(before)],
            spring_constant_n_per_m=k,
            sensitivity_m_per_v=limits.plausible_sensitivity(self._wave.number("InvOLS")),
            duration_s=self._duration_s(force.shape[0]),
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
    turn = shape.turnaround(position[start:stop])
    if turn is not None and turn[1] - turn[0] > max(_DWELL_POINTS, _DWELL_SHARE * (stop - start)):
        end, begin = start + turn[0], start + turn[1]
    return slice(start, end) if end - start > 1 else None, slice(begin, stop)


def _end_of_rest(position: Samples, start: int, top: int) -> int:
    """Where an approach really sets out, after a rest far from the surface."""
    near = position[start] + 0.02 * (position[top] - position[start])
    return start + int(np.flatnonzero(position[start : top + 1] <= near)[-1])


def _load(blob: Blob) -> _Wave:
    """A wave of one or two dimensions, its note line by line; what stands there twice counts the first time."""
    wave = igor.read(blob)
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
