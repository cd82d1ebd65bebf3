"""Asylum Research (MFP-3D, Cypher) Igor binary waves: one wave of several columns, or a pair ``…Defl`` / ``…ZSnsr``.

Columns are told by their label, segments by ``Indexes`` and ``Direction`` of the note (1 approach, 0 dwell,
-1 retract), else by where the position turns. Deflection is stored in metres; times ``SpringConstant`` of the note it
is force. Raw sign: repulsion positive; the position grows towards the surface. The container: daemon.formats.igor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.formats import igor, limits, shape
from daemon.formats.blob import Blob
from daemon.formats.pair import is_first_half
from daemon.reading import Unfinished, Unreadable
from models.curve import Curve, Samples

SUFFIX = ".ibw"
_POSITIONS = ("zsnsr", "lvdt", "raw")  # best first: the measured position, its older name, the piezo drive
_MOST_MISSING = 0.1  # of a retract: maps pad shorter ramps with NaN; what lacks more was broken off


class AsylumReader:
    name = "asylum"
    quiet_s = 0.0

    def claims(self, name: str, head: bytes) -> bool:
        return name.lower().endswith(SUFFIX)

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> AsylumFile:
        wave = _load(blob)
        if wave.data.ndim == 1:
            if companion is None:
                raise Unfinished("no_companion") if is_first_half(name) else Unreadable("no_force_channel")
            return AsylumFile(wave, wave.data, _load(companion).data)
        columns = dict(zip(wave.labels, wave.data.T, strict=False))
        position = next((columns[label] for label in _POSITIONS if label in columns), None)
        if "defl" not in columns:
            raise Unreadable("no_force_channel")
        return AsylumFile(wave, columns["defl"], position)


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
        for i in range(1, min(len(indexes), len(directions))):
            if not (math.isfinite(indexes[i - 1]) and math.isfinite(indexes[i])):
                continue
            start = int(indexes[i - 1]) + (1 if i > 1 else 0)
            part = slice(max(start, 0), min(int(indexes[i]) + 1, last))
            if directions[i] == 1:
                approach = part
            elif directions[i] == -1 and part.stop - part.start > 1:
                found.append((approach, part))
        return found or self._turn()

    def _turn(self) -> list[tuple[slice | None, slice]]:
        """Without a usable note: the retract begins where the position is nearest to the surface."""
        if self._position is None or not np.isfinite(self._position).any():
            return []
        top = int(np.nanargmax(self._position))
        last = self._position.shape[0]
        return [(slice(0, top + 1) if top else None, slice(top, last))] if top < last - 1 else []


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
