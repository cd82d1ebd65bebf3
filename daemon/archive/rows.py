"""Rows of a part: curves for the front-end, mapped; and where they come from, read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from daemon.archive.layout import MOST_APPROACH, BadArchive, Extent, Part
from models.curve import Curve, DistanceKind, ForceUnit, Samples

_OF_CURVES = (
    "force_end",
    "approach_end",
    "approach_points",
    "force_unit",
    "distance_kind",
    "spring_constant_n_per_m",
    "sensitivity_m_per_v",
    "duration_s",
    "notes",
    "reason",
)

_OF_ORIGINS = ("path", "curve", "curves", "sha256", "size_bytes", "mtime_ns", "force_unit", "reason", "format")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a curve comes from, and why it is none if it is none."""

    path: str
    index: int
    curves: int  # of the file
    sha256: str | None
    size_bytes: int
    mtime_ns: int
    force_unit: ForceUnit | None = None
    reason: str | None = None
    format: str | None = None  # None also in archives of before there was such a column


class MappedPart:
    """The curves of a part, their samples mapped read-only: a page is read from disk when it is looked at."""

    def __init__(self, descriptor: int, part: Part) -> None:
        self._columns = {name: read_column(descriptor, part.columns[name], 0, part.curves) for name in _OF_CURVES}
        self._force = _mapped(descriptor, part.columns["force"])
        self._approach = _mapped(descriptor, part.columns["approach"])
        distance = part.columns.get("distance")
        self._distance = None if distance is None else _mapped(descriptor, distance)
        self._starts = {
            name: _starts(self._columns[f"{name}_end"], samples.shape[0])
            for name, samples in (("force", self._force), ("approach", self._approach))
        }
        if int(self._columns["approach_points"].max(initial=0)) > MOST_APPROACH:
            raise BadArchive("an approach of more samples than there can be")

    def curve(self, row: int) -> Curve | None:
        """One curve as it was read, of its approach the first tenth (the rest is NaN); None where there was none."""
        columns = self._columns
        if columns["reason"][row]:
            return None
        here = slice(int(self._starts["force"][row]), int(columns["force_end"][row]))
        distance = None if self._distance is None else self._distance[here]
        return Curve(
            force=self._force[here],
            force_unit=cast(ForceUnit | None, _word(columns["force_unit"][row])),
            distance=None if distance is None or np.isnan(distance).all() else distance,
            distance_kind=cast(DistanceKind | None, _word(columns["distance_kind"][row])),
            approach_force=self._approach_of(row),
            spring_constant_n_per_m=_known(columns["spring_constant_n_per_m"][row]),
            sensitivity_m_per_v=_known(columns["sensitivity_m_per_v"][row]),
            duration_s=_known(columns["duration_s"][row]),
            notes=tuple(columns["notes"][row].decode().split()),
        )

    def _approach_of(self, row: int) -> Samples | None:
        points = int(self._columns["approach_points"][row])
        if points < 0:
            return None
        kept = self._approach[int(self._starts["approach"][row]) : int(self._columns["approach_end"][row])]
        if kept.shape[0] != points // 10:
            raise BadArchive("an approach that is not the tenth of its length")
        whole = np.full(points, np.nan)
        whole[: kept.shape[0]] = kept
        return whole


def origins(descriptor: int, part: Part, first: int, count: int) -> list[Origin]:
    """Where rows ``first`` to ``first + count - 1`` come from."""

    def column(name: str) -> list[Any]:
        if name not in part.columns:
            return [b""] * count
        return cast(list[Any], read_column(descriptor, part.columns[name], first, count).tolist())

    return [
        Origin(
            path=os.fsdecode(path),
            index=index,
            curves=curves,
            sha256=_word(sha256),
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            force_unit=cast(ForceUnit | None, _word(unit)),
            reason=_word(reason),
            format=_word(format),
        )
        for path, index, curves, sha256, size_bytes, mtime_ns, unit, reason, format in zip(
            *map(column, _OF_ORIGINS), strict=True
        )
    ]


def read_column(descriptor: int, extent: Extent, first: int, count: int) -> NDArray[Any]:
    """(count,) of a column. BadArchive where the file ends before; never maps, for a file can shrink."""
    wanted = count * extent.itemsize
    content = os.pread(descriptor, wanted, extent.offset + first * extent.itemsize)
    if len(content) != wanted:
        raise BadArchive("cut off")
    return np.frombuffer(content, extent.dtype)


def _mapped(descriptor: int, extent: Extent) -> Samples:
    if not extent.count:
        return np.zeros(0)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        mapped = np.memmap(file, extent.dtype, "r", extent.offset, (extent.count,))
    return mapped.view(np.ndarray)  # the slices of a memmap cost ten times as much


def _starts(ends: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    if (ends < starts).any() or int(ends[-1]) != count:
        raise BadArchive("curves that lie outside their samples")
    return starts


def _word(value: bytes) -> str | None:
    return value.decode("ascii", "replace") or None


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
