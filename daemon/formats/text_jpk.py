"""Text exports of the JPK data processing program: a header block in front of every segment, SI units.

Raw sign as in the archives: repulsion positive, height grows away from the surface. Programs of 2011 (``.out``) call
the segments ``direction: trace`` and ``retrace``, later ones ``segment: extend`` and ``retract``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from daemon.formats import limits, shape
from daemon.formats.columns import unit_of
from daemon.formats.table import Table, rows_of
from daemon.reading import Unfinished, Unreadable
from models.curve import Curve, ForceUnit, Samples

_HEIGHTS = (
    "measuredHeight",
    "capacitiveSensorHeight",
    "strainGaugeHeight",
    "height",
    "head-height",
    "cellhesion-height",
)
_MARKS = ("\n# segmentIndex:", "\n# fancyNames:", "\n# columns:")
_APPROACH, _RETRACT = ("extend", "trace"), ("retract", "retrace")
_UNITS: dict[str, ForceUnit] = {"N": "N", "m": "m", "V": "V"}


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


def is_export(text: str) -> bool:
    """Told by more than one mark, for one may be damaged."""
    start = text[: limits.HEAD_BYTES].replace("\r", "")
    if start[:256].lstrip("\ufeff \n").startswith("# TEXT EXPORT") or _MARKS[0] in start:
        return True
    return _MARKS[1] in start and _MARKS[2] in start


def read(text: str) -> list[Curve]:
    """Every retract segment, with the approach before it."""
    curves, approach = [], None
    segments = _segments(text)
    for segment in segments:
        if not segment.lines:
            continue
        if segment.side in _APPROACH:
            approach = segment
        elif segment.side in _RETRACT:
            curves.append(_curve(segment, approach))
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


def _curve(retract: _Segment, approach: _Segment | None) -> Curve:
    rows = retract.table()
    shape.check_points(rows.shape[0])
    deflection = retract.column(rows, "vDeflection")
    if deflection is None or deflection[1] not in _UNITS:
        raise Unreadable("no_force_channel")
    distance = next((c[0] for name in _HEIGHTS if (c := retract.column(rows, name)) and c[1] == "m"), None)
    before = approach.column(approach.table(), "vDeflection") if approach else None
    return Curve(
        force=-deflection[0],
        force_unit=_UNITS[deflection[1]],
        distance=None if distance is None else shape.outward(distance),
        distance_kind=None if distance is None else "piezo",
        approach_force=-before[0] if before and before[1] == deflection[1] else None,
        spring_constant_n_per_m=limits.plausible_spring_constant(retract.number("springConstant")),
        sensitivity_m_per_v=limits.plausible_sensitivity(retract.number("sensitivity")),
        duration_s=retract.number("retraceScanTime"),
    )
