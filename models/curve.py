"""The curve: one retract as numbers, already oriented, in SI units.

A reader knows its format's sign and direction, so orientation is decided there, once; everything from
here on (front-end, raster, network) sees the same picture whatever the instrument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]
ForceUnit = Literal["N", "m", "V"]  # force, deflection in metres, deflection in volts
DistanceKind = Literal["piezo", "separation"]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One retract in time order: sample 0 is at the surface, the last one farthest from it."""

    force: Samples  # (n,) pulling positive, in force_unit
    force_unit: ForceUnit | None  # None: the file does not say (a column of numbers)
    distance: Samples | None = None  # (n,) metres, growing away from the surface
    distance_kind: DistanceKind | None = None
    approach_force: Samples | None = None  # (m,) in time order (far to contact), same sign and unit
    spring_constant_n_per_m: float | None = None
    sensitivity_m_per_v: float | None = None
    duration_s: float | None = None  # of the retract
    acquired_s: float | None = None  # time of the measurement, seconds since 1970; None: the file does not say
    notes: tuple[str, ...] = ()  # what the reader had to assume, e.g. "sign_assumed"

    def __len__(self) -> int:
        return int(self.force.shape[0])
