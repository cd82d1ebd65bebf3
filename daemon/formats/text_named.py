"""Text tables that say what their columns are: NanoScope exports and AFM Workshop files, approach beside retract.

A column is known by its name: the side (``_Rt``, ``Retract``), the quantity and the unit (``Defl_pN_Rt``,
``Retract Z-Sense(nm)``). Raw sign of both: repulsion positive; Z grows towards the surface. Columns run in time order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from daemon.formats import limits, nanoscope_header, shape
from daemon.formats.nanoscope_header import Section, sensitivity_m_per_v
from daemon.formats.numbers import is_numeric, table
from daemon.reading import Unfinished, Unreadable
from models.curve import Curve, ForceUnit, Samples

_NANOSCOPE = re.compile(r'^"\\[?*]Force file list')
_WORKSHOP = "Force-Distance Curve"
_RETRACT = re.compile(r"(?:^|[_\W])(?:rt|ret|retract|retrace)(?:$|[_\W])", re.IGNORECASE)
_APPROACH = re.compile(r"(?:^|[_\W])(?:ex|ext|extend|app|approach)(?:$|[_\W])", re.IGNORECASE)
_UNIT = re.compile(r"(?:[_(\s])(pN|nN|uN|N|pm|nm|um|µm|V|mV)(?:[_)\s]|$)")
_SI: dict[str, tuple[ForceUnit, float]] = {
    "pN": ("N", 1e-12),
    "nN": ("N", 1e-9),
    "uN": ("N", 1e-6),
    "N": ("N", 1.0),
    "pm": ("m", 1e-12),
    "nm": ("m", 1e-9),
    "um": ("m", 1e-6),
    "µm": ("m", 1e-6),
    "V": ("V", 1.0),
    "mV": ("V", 1e-3),
}


def is_named(start: str) -> bool:
    return _NANOSCOPE.match(start) is not None or start.startswith(_WORKSHOP)


@dataclass(frozen=True)
class _Column:
    side: str  # "retract", "approach", ""
    is_deflection: bool
    unit: ForceUnit
    samples: Samples  # in SI


def read(text: str) -> list[Curve]:
    """The one curve of the file."""
    lines = [line for line in text.splitlines() if line.strip()]
    sections = _sections(lines)
    first = next((i for i, line in enumerate(lines) if is_numeric(line)), len(lines))
    rows = [line for line in lines[first:] if is_numeric(line)]
    promised = max((max(s.integers("Samps/line"), default=0) for s in sections if "force image" in s.title), default=0)
    if not rows or len(rows) < promised:
        raise Unfinished("truncated")
    shape.check_points(len(rows))
    columns = _columns(re.split(r"[\t,;]", lines[first - 1].strip("\t,; \r")), table(rows)) if first else []
    k = next(
        (limits.plausible_spring_constant(s.number("Spring Constant")) for s in sections if "force image" in s.title),
        None,
    )
    sensitivity = limits.plausible_sensitivity(sensitivity_m_per_v(sections, "Sens. DeflSens"))
    deflection = _best(columns, "retract")
    if deflection is None:
        raise Unreadable("no_force_channel")
    unit, factor = _raised(deflection.unit, k, sensitivity)
    before = next((c for c in columns if c.is_deflection and c.side == "approach" and c.unit == deflection.unit), None)
    distance = _distance(columns)
    return [
        Curve(
            force=deflection.samples * -factor,
            force_unit=unit,
            distance=None if distance is None else shape.outward(-distance),
            distance_kind=None if distance is None else "piezo",
            approach_force=None if before is None else before.samples * -factor,
            spring_constant_n_per_m=k,
            sensitivity_m_per_v=sensitivity,
        )
    ]


def _sections(lines: list[str]) -> list[Section]:
    """The NanoScope header that such an export repeats, each line in quotes."""
    header = [line.strip().strip('"') for line in lines if line.startswith('"\\')]
    if not header:
        return []
    if header[0].startswith("\\?"):
        header[0] = "\\*" + header[0][2:]
    joined = "\n".join([*header, "\\*File list end"]).encode("latin-1", "replace")
    return nanoscope_header.parse(joined, len(joined))


def _columns(names: list[str], rows: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[_Column]:
    if len(names) != rows.shape[1]:
        raise Unreadable("unreadable")
    columns = []
    for name, samples in zip(names, rows.T, strict=True):
        found = _UNIT.search(name)
        if not found:
            continue
        unit, factor = _SI[found[1]]
        side = "retract" if _RETRACT.search(name) else "approach" if _APPROACH.search(name) else ""
        is_deflection = unit == "N" or "defl" in name.lower()
        columns.append(_Column(side, is_deflection, unit, samples * factor))
    return columns


def _best(columns: list[_Column], side: str) -> _Column | None:
    """The deflection of a side in the unit that says most."""
    of_side = [c for c in columns if c.is_deflection and c.side == side]
    return min(of_side, key=lambda c: "NmV".index(c.unit), default=None)


def _distance(columns: list[_Column]) -> Samples | None:
    """The position on the retract side: a sensor, which stands last, before the calculated ramp."""
    found = [c.samples for c in columns if not c.is_deflection and c.unit == "m" and c.side == "retract"]
    return found[-1] if found else None


def _raised(unit: ForceUnit, k: float | None, sensitivity: float | None) -> tuple[ForceUnit, float]:
    """The best unit the calibration allows, and what to multiply with."""
    if unit == "V" and sensitivity is not None:
        unit, factor = "m", sensitivity
    else:
        factor = 1.0
    if unit == "m" and k is not None:
        return "N", factor * k
    return unit, factor
