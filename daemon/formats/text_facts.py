"""What the lines above a table say besides the names of its columns: who wrote it, which way is pulling, calibration.

Programs whose sign is known: NanoScope exports and AFM Workshop (repulsion positive). WSxM names its columns by two
units and a number of lines. A spring constant with its unit is taken from whoever states one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from daemon.formats import columns, limits, nanoscope
from daemon.formats.columns import Column
from daemon.formats.nanoscope import Section, sensitivity_m_per_v
from daemon.formats.text_rule import TextRule
from models.curve import ForceUnit, Samples

_NANOSCOPE = re.compile(r'^"\\[?*]Force file list')
_NANOSCOPE_INSIDE = '"\\*Ciao force image list"'
_WORKSHOP = "Force-Distance Curve"
_WSXM = "WSxM file"
_NUMBER = r"([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)"
_STIFFNESS = {"n/m": 1.0, "nn/nm": 1.0, "pn/nm": 1e-3, "mn/m": 1e-3}
_UNIT = r"(N/m|nN/nm|pN/nm|mN/m)"
_SPRING = re.compile(
    rf"\b(?:spring[ _]?constant|federkonstante|k)\s*(?:[(\[]\s*{_UNIT}\s*[)\]])?\s*[:=\t,;]\s*{_NUMBER}\s*{_UNIT}?",
    re.IGNORECASE,
)
_WSXM_LINES = re.compile(r"^\s*Number of lines:\s*(\d+)", re.MULTILINE)
_WSXM_UNIT = r"^\s*{} axis unit:\s*(\S+)"
_LOOKED_AT = 64 * limits.KIB
_LONGEST_LINE = 400  # of a line that states a stiffness


@dataclass(frozen=True, slots=True)
class Facts:
    """``pulling``: what makes pulling positive, None where the file does not say."""

    pulling: float | None = None
    spring_constant_n_per_m: float | None = None
    sensitivity_m_per_v: float | None = None
    rows: int = 0  # promised by the header
    columns: tuple[Column, ...] = ()  # where the names do not stand above the numbers
    rule: TextRule | None = None  # what the laboratory says of this file

    def under(self, rule: TextRule | None) -> Facts:
        """The same, with what the laboratory says instead."""
        if rule is None:
            return self
        pulling = self.pulling if rule.sign is None else rule.sign
        return replace(self, pulling=pulling, columns=rule.meaning or self.columns, rule=rule)

    def names_for(self, count: int, written: list[Column] | None) -> list[Column] | None:
        """The columns of a table of ``count``: as known here, else as ``written`` above the numbers.

        A unit that is not known here is the written one.
        """
        found = written
        if len(self.columns) == count:
            beside: Sequence[Column | None] = written if written and len(written) == count else [None] * count
            found = [_with_written_unit(*both) for both in zip(self.columns, beside, strict=True)]
        return found if found is None or self.rule is None else self.rule.with_units(found)

    @property
    def note(self) -> tuple[str, ...]:
        """What a curve carries that was read so."""
        return () if self.rule is None else ("text_rule",)


def _with_written_unit(known: Column, written: Column | None) -> Column:
    if known.unit is not None or written is None or written.unit is None or written.unit.dimension == "?":
        return known
    return columns.in_unit(known, written.unit)


def is_known(text: str) -> bool:
    """Whether a text begins as one of these programs begins it, so that it is a curve whatever follows."""
    start = text[:4096].lstrip("\ufeff \r\n")
    known = _NANOSCOPE.match(start) is not None or start.startswith((_WORKSHOP, _WSXM))
    return known or _NANOSCOPE_INSIDE in text[:_LOOKED_AT]


def facts_of(text: str, above: Sequence[str]) -> Facts:
    """Nothing where nothing is known; ``above``: the lines of words above the first table."""
    start = text[:4096].lstrip("\ufeff \r\n")
    if _NANOSCOPE.match(start) or _NANOSCOPE_INSIDE in text[:_LOOKED_AT]:
        return _nanoscope(text)
    if start.startswith(_WORKSHOP):
        return Facts(pulling=-1.0)
    return Facts(
        spring_constant_n_per_m=_spring_constant(above),
        columns=_wsxm(text[:_LOOKED_AT]) if start.startswith(_WSXM) else (),
    )


def _nanoscope(text: str) -> Facts:
    """The header that such an export repeats, each line in quotes; rows are as many as its shorter side has."""
    header = [line.strip().strip('"') for line in text.splitlines() if line.startswith('"\\')]
    if header and header[0].startswith("\\?"):
        header[0] = "\\*" + header[0][2:]
    joined = "\n".join([*header, "\\*File list end"]).encode("latin-1", "replace")
    sections = nanoscope.parse(joined, len(joined)) if header else []
    images = [section for section in sections if "force image" in section.title]
    k = (limits.plausible_spring_constant(section.number("Spring Constant")) for section in images)
    return Facts(
        pulling=-1.0,
        spring_constant_n_per_m=next(k, None),
        sensitivity_m_per_v=limits.plausible_sensitivity(sensitivity_m_per_v(sections, "Sens. DeflSens")),
        rows=max((_shorter(section) for section in images), default=0),
    )


def _shorter(section: Section) -> int:
    sides = [rows for rows in section.integers("Samps/line") if rows > 0]
    return min(sides, default=0)


def _spring_constant(above: Sequence[str]) -> float | None:
    for before, number, after in _SPRING.findall("\n".join(line for line in above if len(line) < _LONGEST_LINE)):
        factor = _STIFFNESS.get((before or after).lower())
        if factor is not None:
            return limits.plausible_spring_constant(float(number) * factor)
    return None


def _wsxm(text: str) -> tuple[Column, ...]:
    """Lines of X and Y beside each other; of two the first is the approach."""
    units = [re.search(_WSXM_UNIT.format(axis), text, re.MULTILINE) for axis in "XY"]
    count = _WSXM_LINES.search(text)
    if not all(units) or count is None or not 1 <= int(count[1]) <= limits.TEXT_CURVES:
        return ()
    words = [unit[1] for unit in units if unit]
    sides = ["approach ", "retract "] if int(count[1]) == 2 else [""] * int(count[1])
    names = [f"{side}{name} ({word})" for side in sides for name, word in zip(("Z", "force"), words, strict=True)]
    return tuple(columns.columns(names))


# ---- Units of text columns: as a name states them, else as the size of the numbers allows; raised by a calibration.

SI_FORCE, SI_LENGTH = 1e-6, 1e-3  # no force curve reaches a micronewton or a millimetre


def force_unit(column: Column, force: Samples) -> tuple[ForceUnit | None, float, bool]:
    """Unit, factor to it, and whether the size of the numbers had to tell."""
    if column.unit is not None:
        return column.unit.force, column.unit.factor if column.unit.force else 1.0, False
    if float(np.nanmax(np.abs(force), initial=0.0)) < SI_FORCE:
        return ("m" if column.quantity == "deflection" else "N"), 1.0, True
    return None, 1.0, True


def in_metres(column: Column | None, distance: Samples | None) -> tuple[Samples | None, bool]:
    """The distance in metres, where it is a length, and whether the size of the numbers had to tell."""
    if distance is None or column is None:
        return None, False
    if column.unit is not None:
        return (distance * column.unit.factor if column.unit.dimension == "m" else None), False
    is_si = float(np.nanmax(np.abs(distance), initial=0.0)) < SI_LENGTH
    return distance * (1.0 if is_si else 1e-9), True


def span_of(samples: Samples) -> float:
    """Between the smallest and the largest of the numbers there are."""
    known = samples[np.isfinite(samples)]
    return float(np.ptp(known)) if known.size else 0.0


def raised(unit: ForceUnit | None, factor: float, facts: Facts) -> tuple[ForceUnit | None, float]:
    """The best unit the calibration allows, and what to multiply with."""
    if unit == "V" and facts.sensitivity_m_per_v is not None:
        unit, factor = "m", factor * facts.sensitivity_m_per_v
    if unit == "m" and facts.spring_constant_n_per_m is not None:
        return "N", factor * facts.spring_constant_n_per_m
    return unit, factor
