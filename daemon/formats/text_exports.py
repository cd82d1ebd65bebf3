"""Text exports of two programs whose layout is known to the last line.

*JPK data processing*: a header block in front of every segment, SI units. Raw sign as in the archives: repulsion
positive, height grows away from the surface. Programs of 2011 (``.out``) call the segments ``direction: trace`` and
``retrace``, later ones ``segment: extend`` and ``retract``.

*afmformats* (https://afmformats.readthedocs.io): columns ``force`` (N), ``height (measured)`` (m, away from the
surface), ``segment`` (0 approach, 1 retract, from 2 on pauses), in its ``.tab`` text and in its HDF5 files. Raw sign:
repulsion positive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daemon.formats import dates, limits, samples
from daemon.formats.base import Unfinished, Unreadable
from daemon.formats.columns import unit_of
from daemon.formats.jpk import HEIGHTS
from daemon.formats.table import Table, rows_of
from models.curve import Curve, ForceUnit, Samples

_JPK_MARKS = ("\n# segmentIndex:", "\n# fancyNames:", "\n# columns:")
_APPROACH_SIDES, _RETRACT_SIDES = ("extend", "trace"), ("retract", "retrace")
_JPK_UNITS: dict[str, ForceUnit] = {"N": "N", "m": "m", "V": "V"}
_RETRACT, _APPROACH = 1, 0  # segments of afmformats
_AFMFORMATS_HEIGHTS = ("height (measured)", "height (piezo)")


def is_jpk(text: str) -> bool:
    """Told by more than one mark, for one may be damaged."""
    start = text[: limits.HEAD_BYTES].replace("\r", "")
    if start[:256].lstrip("\ufeff \n").startswith("# TEXT EXPORT") or _JPK_MARKS[0] in start:
        return True
    return _JPK_MARKS[1] in start and _JPK_MARKS[2] in start


def jpk_curves(text: str) -> list[Curve]:
    """Every retract segment, with the approach before it."""
    curves, approach = [], None
    segments = _segments(text)
    for segment in segments:
        if not segment.lines:
            continue
        if segment.side in _APPROACH_SIDES:
            approach = segment
        elif segment.side in _RETRACT_SIDES:
            curves.append(_jpk_curve(segment, approach))
    if not curves and segments and _is_to_come(segments[0]):
        raise Unfinished("truncated")
    return curves


def _is_to_come(first: _Segment) -> bool:
    """Whether the settings, which stand at the beginning, speak of a retract."""
    return any((first.number(key) or 0) > 0 for key in ("force-settings.retract-k-length", "retraceScanTime"))


def _segments(text: str) -> list[_Segment]:
    """Blocks of ``# key: value`` lines, each followed by its numbers; what is not said again holds on."""
    segments = [_Segment()]
    for line in text.splitlines():
        if line.startswith("#"):
            if segments[-1].lines:
                segments.append(_Segment(dict(segments[-1].keys)))
            key, _, value = line[1:].strip().partition(": ")
            segments[-1].keys[key] = value.strip()
        elif line.strip():
            segments[-1].lines.append(line)
    return segments


def _jpk_curve(retract: _Segment, approach: _Segment | None) -> Curve:
    rows = retract.table()
    samples.check_points(rows.shape[0])
    deflection = retract.column(rows, "vDeflection")
    if deflection is None or deflection[1] not in _JPK_UNITS:
        raise Unreadable("no_force_channel")
    distance = next((c[0] for name in HEIGHTS if (c := retract.column(rows, name)) and c[1] == "m"), None)
    before = approach.column(approach.table(), "vDeflection") if approach else None
    return Curve(
        force=-deflection[0],
        force_unit=_JPK_UNITS[deflection[1]],
        distance=None if distance is None else samples.outward(distance),
        distance_kind=None if distance is None else "piezo",
        approach_force=-before[0] if before and before[1] == deflection[1] else None,
        spring_constant_n_per_m=limits.plausible_spring_constant(retract.number("springConstant")),
        sensitivity_m_per_v=limits.plausible_sensitivity(retract.number("sensitivity")),
        duration_s=retract.number("retraceScanTime"),
        acquired_s=dates.moment(retract.keys.get("date", "")),
    )


@dataclass
class _Segment:
    keys: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def side(self) -> str:
        return self.keys.get("segment") or self.keys.get("direction", "")

    def number(self, key: str) -> float | None:
        try:
            return float(self.keys[key])
        except (KeyError, ValueError):
            return None

    def table(self) -> Table:
        """(rows, columns); ``Unfinished`` with fewer rows than promised."""
        promised = self.number("recorded-num-points")
        if promised is not None and len(self.lines) < promised:
            raise Unfinished("truncated")
        return rows_of(self.lines)

    def column(self, rows: Table, name: str) -> tuple[Samples, str] | None:
        """Samples and SI unit of a column, by the name the instrument gives the channel."""
        names, units = self.keys.get("columns", "").split(), self.keys.get("units", "").split()
        if name not in names or len(units) != len(names) or rows.shape[1] != len(names):
            return None
        at = names.index(name)
        unit = unit_of(units[at])
        return None if unit is None else (rows[:, at] * unit.factor, unit.dimension)


def is_afmformats(text: str) -> bool:
    """Told by more than one mark, for one may be damaged."""
    start = text[:4096].lstrip("\ufeff \r\n")
    return start.startswith("# afmformats") or "\n# END METADATA" in start


def afmformats_curves(text: str) -> list[Curve]:
    """The one curve of a ``.tab`` file."""
    comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    metadata = _metadata(comments)
    promised = _number(metadata, "point count")
    if not lines or (promised is not None and len(lines) < promised):
        raise Unfinished("truncated")
    names = [word.strip() for word in comments[-1].split("\t")] if comments else []
    rows = rows_of([line.replace("True", "1").replace("False", "0") for line in lines])
    if len(names) < rows.shape[1]:
        raise Unreadable("unreadable")
    # Version 0.13.3 forgot the line break after the names: its first row stands there too and is lost.
    return [afmformats_curve(dict(zip(names, rows.T, strict=False)), metadata)]


def afmformats_curve(columns: Mapping[str, Samples], metadata: Mapping[str, Any]) -> Curve:
    """One retract from columns of equal length (n,)."""
    if "force" not in columns:
        raise Unreadable("no_force_channel")
    force = columns["force"]
    samples.check_points(force.shape[0])
    height = next((columns[name] for name in _AFMFORMATS_HEIGHTS if name in columns), None)
    segment = columns.get("segment")
    if any(column.shape != force.shape for column in (height, segment) if column is not None):
        raise Unreadable("unreadable")
    retract = np.ones(force.shape, bool) if segment is None else segment == _RETRACT
    approach = np.zeros(force.shape, bool) if segment is None else segment == _APPROACH
    if not retract.any():
        raise Unreadable("no_retract")
    rate = _number(metadata, "rate retract")
    return Curve(
        force=-force[retract],
        force_unit="N",
        distance=None if height is None else samples.outward(height[retract]),
        distance_kind=None if height is None else "piezo",
        approach_force=-force[approach] if approach.any() else None,
        spring_constant_n_per_m=limits.plausible_spring_constant(_number(metadata, "spring constant")),
        sensitivity_m_per_v=limits.plausible_sensitivity(_number(metadata, "sensitivity")),
        duration_s=float(retract.sum()) / rate if rate else None,
        acquired_s=dates.moment(f"{metadata.get('date', '')} {metadata.get('time', '')}"),
    )


def _metadata(comments: list[str]) -> dict[str, Any]:
    """The JSON between the marks; nothing where it cannot be read."""
    try:
        start, stop = comments.index("BEGIN METADATA"), comments.index("END METADATA")
        found = json.loads("\n".join(comments[start + 1 : stop]))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(metadata: Mapping[str, Any], key: str) -> float | None:
    try:
        return float(metadata[key])
    except (KeyError, TypeError, ValueError):
        return None
