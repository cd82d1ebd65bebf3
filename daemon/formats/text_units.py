"""Units of text columns: as a name states them, else as the size of the numbers allows; raised by a calibration."""

from __future__ import annotations

import numpy as np

from daemon.formats.columns import Column
from daemon.formats.text_facts import Facts
from models.curve import ForceUnit, Samples

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
