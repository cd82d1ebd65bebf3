"""The curve: one retract as numbers, already oriented, in SI units.

A reader knows its format's sign and direction, so orientation is decided there, once; everything from
here on (front-end, raster, network) sees the same picture whatever the instrument. What the front-end makes of
it (models.frontend) is a value here, because a compact copy of a curve carries it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]
ForceUnit = Literal["N", "m", "V"]  # force, deflection in metres, deflection in volts
DistanceKind = Literal["piezo", "separation"]

MOST_TOLD = 16  # ruptures of a curve that an event tells of

_WAYS = ("prepared", "flipped")
_FINDINGS = ("noise", "level", "tilt", "contact")


@dataclass(frozen=True, slots=True)
class ToldRupture:
    """One rupture: its force against the baseline, by how much it falls, and its place from the surface.

    Pulling is positive. Without a push the place is counted from the first sample; it is None without a distance.
    """

    force_pn: float
    drop_pn: float
    position_nm: float | None
    position_kind: DistanceKind | None  # None: the file does not say of what its distance is


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One retract, ready for the raster."""

    signal: NDArray[np.float32] | None  # (n,), 2 W <= n <= samples of the profile, in profile units, baseline 0
    reasons: tuple[str, ...] = ()  # of models.reasons
    noise: float | None = None  # rms of the averaged baseline, in force_unit
    level: float | None = None  # of the baseline, in force_unit
    tilt: float | None = None  # of the baseline, in force_unit per whole signal; already taken away
    contact: float | None = None  # where along the retract contact ends, 0 to 1
    flipped: Prepared | None = None  # the same upside down, where that is to be judged too (models.frontend)
    #: Of this way up, in order of place; None where the forces are not known, and where nobody has looked
    ruptures: tuple[ToldRupture, ...] | None = None

    @property
    def blocking(self) -> bool:
        """No score can be made."""
        return self.signal is None


def describe(prepared: Prepared | None) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """What was found, as JSON takes it, and the signals; a key for each way that was prepared."""
    found: dict[str, Any] = {}
    signals: dict[str, NDArray[np.float32]] = {}
    for way, item in zip(_WAYS, (prepared, prepared and prepared.flipped), strict=True):
        if item is not None:
            found[way] = {name: getattr(item, name) for name in _FINDINGS} | {"reasons": list(item.reasons)}
            if item.ruptures is not None:
                found[way]["ruptures"] = plain(item.ruptures)
            if item.signal is not None:
                signals[way] = item.signal
    return found, signals


def restore(found: Mapping[str, Any], signals: Mapping[str, Any]) -> Prepared | None:
    """What ``describe`` described. Raises KeyError, TypeError and ValueError for what it never wrote."""
    prepared: Prepared | None = None
    for way in reversed(_WAYS):
        one = found.get(way)
        if one is not None:
            findings = {name: one[name] for name in _FINDINGS}
            ruptures = told_of(one.get("ruptures"))  # which older copies lack
            prepared = Prepared(
                signals.get(way), tuple(one["reasons"]), **findings, flipped=prepared, ruptures=ruptures
            )
    return prepared


def plain(ruptures: Sequence[ToldRupture]) -> list[list[Any]]:
    """As JSON takes them."""
    return [[one.force_pn, one.drop_pn, one.position_nm, one.position_kind] for one in ruptures]


def told_of(rows: Iterable[Sequence[Any]] | None) -> tuple[ToldRupture, ...] | None:
    """The inverse of :func:`plain`; None of None. Raises TypeError and ValueError for what it never wrote."""
    if rows is None:
        return None
    told = tuple(ToldRupture(*row) for row in rows)
    numbers = [number for one in told for number in (one.force_pn, one.drop_pn, one.position_nm or 0.0)]
    if len(told) > MOST_TOLD or not all(map(math.isfinite, numbers)):
        raise ValueError("ruptures that are none")
    if {one.position_kind for one in told} - {"piezo", "separation", None}:
        raise ValueError("a distance of another kind")
    return told


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """Of a compact copy: what the front-end made of the curve itself, so that the copy is judged as that was.

    It holds for one raster profile, and for these very samples: whoever changes them has another curve.
    """

    profile: str  # its id
    prepared: Prepared
    samples: Samples  # the force of the copy


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
    original: Original | None = None  # only of a compact copy

    def __len__(self) -> int:
        return int(self.force.shape[0])

    @property
    def velocity_um_per_s(self) -> float | None:
        """Of the retract; None where the file does not say enough."""
        if self.distance is None or not self.duration_s:
            return None
        return float(abs(self.distance[-1] - self.distance[0])) * 1e6 / self.duration_s
