"""The ruptures of a retract: at which force and at which place each of them broke.

``models.steps`` finds where the averaged curve falls; here each fall is placed on the curve as it was recorded, and its
force is read off. Two forces are told of each. ``force`` is what the tip felt just before the break, against the
baseline: the usual figure of a single bond and of an unfolding domain. ``drop`` is by how much the force fell: that of
one tether of several that pull side by side. Of the last rupture of a curve both should agree.

It is enough for a histogram of a night and for a first look. It is no analysis: no chain is fitted, and what hides in
the noise or in the snap-off at the surface is passed over (how far the figures are off where the truth is known:
deploy/measurements/2026-11-28-ruptures.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from models.curve import MOST_TOLD, Curve, DistanceKind, Prepared, Samples, ToldRupture
from models.frontend import (
    LARGEST,
    MIN_POINTS,
    OPEN,
    first_shown,
    force_scale,
    median,
    newton_per_unit,
    prepare,
    prepare_to_judge,
    turned,
)
from models.raster import ForceLabel, RasterProfile
from models.steps import LINE, SURFACE, Fall, falls, may_fall, snap_off

_PROFILE = RasterProfile()

SHARP = 5.0  # a break is looked for on ever shorter means, while its drop is so many of their standard errors
SHORTEST = 4  # samples of a line
GROWTH = 1.5  # from one line to the next longer one
DETAIL = (1, 2, 4)  # times as many averages as models.steps has: the finer tell apart what lies close
AGREE = 1.4  # standard errors: a longer line is taken as long as it agrees so well with all shorter ones
WINDOWS = 6  # of the free end, at least, that tell how far a line of their length is off
FALLING = 1.0  # times the noise of a sample: one that lies so far above the next few belongs to the fall
NEXT = 4  # samples
SLOWEST = 30  # samples that a fall takes, at most
PIECES = 16  # of the free end, through which the baseline is laid
HELD = 2.0  # lengths of the free end: as far in front of it its slope is believed
#: Lines and baseline are off by so many times what their noise says: a fall takes time, and a wave has a shape.
DOUBT = 2.0
AWAY = 10.0  # nm between tip and sample: what breaks farther out is no snap-off, however it looks
CLEAR = 2.0  # standard errors, so doubted: what falls by less is no rupture


@dataclass(frozen=True, slots=True)
class Rupture:
    """One break. ``force``, ``drop`` and ``error`` are in ``unit``, pulling positive."""

    index: int  # last sample of the retract before it
    force: float  # there, against the baseline
    drop: float  # to the branch behind it
    error: float  # standard error of ``force`` by noise and baseline; that of the spring constant comes on top
    drop_error: float  # of ``drop``, by noise
    unit: ForceLabel  # "nm" and "mV": of deflection, where the file does not say what makes it a force; "" says nothing
    position_nm: float  # from the surface, or without a push from the first sample; NaN without a distance
    position_kind: DistanceKind | None  # of ``position_nm``; None: the file does not say of what its distance is

    @property
    def force_pn(self) -> float:
        """NaN where the file does not say what makes a deflection a force."""
        return self.force if self.unit == "pN" else math.nan

    @property
    def drop_pn(self) -> float:
        """NaN as ``force_pn``."""
        return self.drop if self.unit == "pN" else math.nan

    @property
    def error_pn(self) -> float:
        """NaN as ``force_pn``."""
        return self.error if self.unit == "pN" else math.nan


def ruptures(curve: Curve, prepared: Prepared | None = None) -> tuple[Rupture, ...]:
    """Every rupture of a retract that stands out, in order of time, which is that of position.

    ``prepared``: what the front-end made of this curve, where the caller has it. A curve that is not finite, too short,
    or without a baseline has none. Of a curve whose sign is open, pass :func:`pulling` of it.
    """
    n = len(curve)
    if n < MIN_POINTS:
        return ()
    found = prepared or prepare([curve], _PROFILE)[0]
    if found.level is None or not _may_break(found, n) or not (np.abs(curve.force) < LARGEST).all():
        return ()
    force = curve.force - found.level
    breaks = _breaks_of(force, found.contact)
    if not breaks:
        return ()
    axis, kind = positions_nm(curve, found)
    push = round((found.contact or 0.0) * n)
    away = AWAY if axis is not None and kind == "separation" else math.inf
    if any(axis is None or not axis[one.before] > away for one in breaks):
        adhesion = max(_snapped_off(found, n), push)
        breaks = [one for one in breaks if one.before >= adhesion or (axis is not None and axis[one.before] > away)]
    if not breaks:
        return ()
    free = force[breaks[-1].after :]
    baseline, scatter = _Baseline(free), _Scatter(free)
    factor, unit = force_scale(curve)
    told: list[Rupture] = []
    start = push
    for one, stop in zip(breaks, [*(other.before + 1 for other in breaks[1:]), n], strict=True):
        at = one.before
        before, error = _end_of(force[min(start, at) : at + 1][::-1], scatter, 0)
        behind, rest = _end_of(force[one.after : max(stop, one.after + 1)], scatter, one.after - at)
        level, spread = baseline.at(breaks[-1].after - at)
        told.append(
            Rupture(
                index=at,
                force=factor * (before - level),
                drop=factor * (before - behind),
                error=factor * DOUBT * math.hypot(error, spread),
                drop_error=factor * DOUBT * math.hypot(error, rest),
                unit=unit,
                position_nm=math.nan if axis is None else float(axis[at]),
                position_kind=kind,
            )
        )
        start = one.after
    return tuple(one for one in told if one.force > 0.0 and one.drop > CLEAR * one.drop_error)


def prepare_to_tell(curves: Sequence[Curve], profile: RasterProfile) -> list[Prepared]:
    """As ``prepare_to_judge``, with all that an event tells of a curve beside its verdict."""
    prepared = zip(prepare_to_judge(curves, profile), curves, strict=True)
    return [with_ruptures(one, curve, profile) for one, curve in prepared]


def with_ruptures(prepared: Prepared, curve: Curve, profile: RasterProfile) -> Prepared:
    """What the front-end made of a curve for ``profile``, with its ruptures; once there, they stay.

    So a compact copy keeps those of its original. What goes wrong here costs the ruptures, and never the curve.
    """
    told, flipped = prepared.ruptures, prepared.flipped
    if told is None:
        told = _told(curve, prepared, profile)
    if flipped is not None and flipped.ruptures is None and OPEN in curve.notes:  # no other is told upside down
        flipped = replace(flipped, ruptures=_told(turned(curve), flipped, profile))
    if told is prepared.ruptures and flipped is prepared.flipped:
        return prepared
    return replace(prepared, ruptures=told, flipped=flipped)


def _told(curve: Curve, prepared: Prepared, profile: RasterProfile) -> tuple[ToldRupture, ...] | None:
    """As events tell them: of many the highest, in pN and nm to a tenth."""
    if prepared.signal is None or newton_per_unit(curve) is None:
        return None
    try:
        found = ruptures(curve, prepared if profile == _PROFILE else None)
    except Exception:  # an advice less
        return None
    if len(found) > MOST_TOLD:
        weakest = sorted(found, key=lambda one: one.force)[: len(found) - MOST_TOLD]
        found = tuple(one for one in found if one not in weakest)
    return tuple(
        ToldRupture(
            round(one.force, 1),
            round(one.drop, 1),
            None if math.isnan(one.position_nm) else round(one.position_nm, 1),
            one.position_kind,
        )
        for one in found
    )


def pulling(curve: Curve) -> Curve:
    """A curve whose sign is open the way round on which its strongest fall stands out more; both look at all of it."""
    other = turned(curve)
    ways = [max((one.t for one in falls(way.force)), default=0.0) for way in (curve, other)]
    return other if ways[1] > ways[0] else curve


def bend_nm_per_unit(curve: Curve) -> float | None:
    """How far the cantilever bends at one unit of the curve's force; None where the file does not say enough."""
    if curve.force_unit == "m":
        return 1e9
    if curve.force_unit == "V" and curve.sensitivity_m_per_v:
        return curve.sensitivity_m_per_v * 1e9
    if curve.force_unit == "N" and curve.spring_constant_n_per_m:
        return 1e9 / curve.spring_constant_n_per_m
    return None


def positions_nm(curve: Curve, prepared: Prepared) -> tuple[Samples | None, DistanceKind | None]:
    """(n,) from the surface, and of what: the separation of tip and surface where the bend of the cantilever is known.

    A piezo's travel less the bend; else what the file has. None where it has no distance, or one that is not finite.
    """
    distance = curve.distance
    if distance is None or not np.isfinite(distance).all():
        return None, None
    axis, kind, bend = distance * 1e9, curve.distance_kind, bend_nm_per_unit(curve)
    if kind == "piezo" and bend is not None:
        axis, kind = axis - bend * _known(curve.force, prepared), "separation"
    if prepared.contact is None:
        return axis - axis[0], kind
    at = min(round(prepared.contact * len(curve)), len(curve) - 1)
    return axis - median(axis[max(at - 2, 0) : at + 3]), kind


def approach_nm(curve: Curve, prepared: Prepared) -> Samples | None:
    """(m,) where the approach lies on the axis of :func:`positions_nm`; None where that has none.

    Readers hand on its force alone: its piezo is taken to go evenly the way back.
    """
    approach, (axis, kind) = curve.approach_force, positions_nm(curve, prepared)
    if approach is None or axis is None:
        return None
    if kind != "separation" or (bend := bend_nm_per_unit(curve)) is None:
        return np.linspace(axis[-1], axis[0], approach.shape[0])
    ends = axis[[-1, 0]] + bend * _known(curve.force[[-1, 0]], prepared)
    return np.linspace(ends[0], ends[1], approach.shape[0]) - bend * _known(approach, prepared)


def _known(force: Samples, prepared: Prepared) -> Samples:
    """Above the baseline; 0 where the file holds no finite number."""
    return np.where(np.abs(force) < LARGEST, force - (prepared.level or 0.0), 0.0)


@dataclass(frozen=True, slots=True)
class _Break:
    before: int  # last sample of the branch before
    after: int  # first sample of the branch behind
    t: float


def _snapped_off(found: Prepared, n: int) -> int:
    """The first sample behind the snap-off from the surface; 0 where there is none."""
    if found.signal is None or (end := snap_off(found.signal)) == 0.0:
        return 0
    first = first_shown(n, found.contact or 0.0, _PROFILE)
    return first + int(end * (n - first))


def _may_break(found: Prepared, n: int) -> bool:
    """A quick look at what the front-end made of ``n`` samples, which spares most curves the others."""
    if found.signal is None or n < found.signal.shape[0] // 2:  # stretched, a break is no longer steep
        return True
    push = found.contact or 0.0
    first = first_shown(n, push, _PROFILE)
    beyond = ((push + SURFACE) * n - first) / (n - first)
    return may_fall(found.signal, int(beyond * found.signal.shape[0]) - LINE)


def _breaks_of(force: Samples, push: float | None) -> list[_Break]:
    """In order; of those that are one and the same fall, seen in more and in less detail, the clearest."""
    total = None
    placed: list[_Break] = []
    for finer in DETAIL:
        if finer > 1 and force.shape[0] <= 256 * finer:
            break
        known = [one.before for one in placed]
        for fall in falls(force, finer, push):
            if any(abs(fall.sample - before) <= fall.width for before in known):
                continue  # less detail has less noise
            if total is None:
                total = np.concatenate(([0.0], np.cumsum(force)))
            if (one := _break_of(force, total, fall)) is not None:
                placed.append(one)
    told: list[_Break] = []
    for one in sorted(placed, key=lambda one: (one.before, -one.t)):
        if told and one.before <= told[-1].after:
            told[-1] = max(told[-1], one, key=lambda one: one.t)
        else:
            told.append(one)
    return told


def _break_of(force: Samples, total: Samples, fall: Fall) -> _Break | None:
    """Where a fall of the averaged curve lies on the curve itself, and what of it belongs to neither branch.

    The means of some samples on each side differ most there; and of fewer and fewer, as long as the drop is clear of
    their noise, so that a long curve is not placed by its averages alone. ``total``: (n + 1,) sums of ``force``.
    """
    n, few = force.shape[0], max(fall.width, 1)
    middle, reach, noise = fall.sample, max(fall.width, 2), _noise_near(force, fall)
    while True:
        cut = np.arange(max(middle - reach, few), min(middle + reach, n - few) + 1)
        if not cut.size:
            return None
        drops = (2 * total[cut] - total[cut - few] - total[cut + few]) / few
        best = int(drops.argmax())
        middle, drop = int(cut[best]), float(drops[best])
        if few == 1 or drop < SHARP * noise * math.sqrt(2 / (few // 2)):
            break
        reach, few = few, few // 2
    if drop <= 0.0:
        return None
    before, after = middle - 1, middle
    reach = max(4 * few, SLOWEST)
    first, last, clear = max(middle - reach, NEXT), min(middle + reach, n - 1 - NEXT), FALLING * noise
    start = first - NEXT
    near = force[start : last + 1 + NEXT].tolist()  # numpy is slow with so few
    while before > first and sum(near[before - NEXT - start : before - start]) / NEXT > near[before - start] + clear:
        before -= 1
    while after < last and near[after - start] > sum(near[after + 1 - start : after + 1 + NEXT - start]) / NEXT + clear:
        after += 1
    return _Break(before, after, fall.t)


def _mean(some: Samples) -> float:
    return float(np.add.reduce(some) / some.shape[0])


def _noise_near(force: Samples, fall: Fall) -> float:
    """Of single samples around a fall: from how they differ from their neighbours, which no slope or step moves."""
    near = force[max(fall.sample - 4 * fall.width - 8, 0) : fall.sample + 4 * fall.width + 8]
    return median(np.abs(near[1:] - near[:-1])) * 1.4826 / math.sqrt(2.0)


class _Baseline:
    """What nothing pulls at: a straight line through the free end.

    In front of it the line goes on as steep as both halves of the free end agree on: a tilt has one slope, and a slow
    wave has another one in each.
    """

    def __init__(self, free: Samples) -> None:
        pieces = min(PIECES, max(free.shape[0] // SHORTEST, 1))
        self._size = free.shape[0] // pieces
        heights = free[free.shape[0] - self._size * pieces :].reshape(pieces, self._size).mean(axis=1)
        slope, self._waves = _slope(heights)
        half = pieces // 2
        self._differ = abs(_slope(heights[:half])[0] - _slope(heights[half:])[0]) if half > 1 else abs(slope)
        self._slope = slope**3 / max(slope * slope + self._differ * self._differ, 1e-300)
        self._edge = _mean(heights) - slope * pieces / 2
        self._most = HELD * pieces

    def at(self, before: int) -> tuple[float, float]:
        """Its height ``before`` samples before the free end, and its standard error."""
        beyond = min(before / self._size, self._most)
        return self._edge - self._slope * beyond, math.hypot(self._waves, self._differ * beyond)


def _slope(heights: Samples) -> tuple[float, float]:
    """Of a straight line through them, a piece, and the rms of what is left."""
    places = np.arange(heights.shape[0]) - (heights.shape[0] - 1) / 2
    slope = float(places @ heights) / max(float(places @ places), 1.0)
    rest = heights - _mean(heights) - slope * places
    return slope, math.sqrt(_mean(rest * rest))


class _Scatter:
    """How far the end of a line of some samples is off by noise: its standard error.

    Of two lines that meet in a point of the free end, each tells of the other how far it is off; what is slow moves
    both.
    """

    def __init__(self, free: Samples) -> None:
        self._free = free
        self._known: dict[int, float] = {}

    def of(self, size: int) -> float:
        """Of a line of ``size`` samples."""
        if size not in self._known:
            self._known[size] = self._measure(size)
        return self._known[size]

    def _measure(self, size: int) -> float:
        longest = max(self._free.shape[0] // WINDOWS, SHORTEST)
        if size > longest:
            return self.of(longest) * math.sqrt(longest / size)
        count = self._free.shape[0] // size
        if count < 2:  # nothing can be said, and so no rupture stands out
            return math.inf
        windows = self._free[self._free.shape[0] - count * size :].reshape(count, size)
        first, last = windows @ _weights(size, 0.5), windows[:, ::-1] @ _weights(size, 0.5)
        apart = last[:-1] - first[1:]
        return float(np.sqrt(np.mean(apart * apart) / 2))


@lru_cache(maxsize=512)
def _weights(size: int, back: float) -> Samples:
    """(size,) that make of samples the value of their line ``back`` samples before the first of them."""
    x = np.arange(size) - (size - 1) / 2
    at = -(size - 1) / 2 - back
    return np.asarray(1 / size + at * x / float(x @ x))


def _end_of(branch: Samples, scatter: _Scatter, back: int) -> tuple[float, float]:
    """The force at the end of a branch, ``back`` samples before its first one, and its standard error.

    A line through many samples has little noise, and one through few follows a chain that stiffens. So the longest
    one is taken that agrees with all shorter ones (the rule of intersecting confidence intervals, Goldenshluger &
    Nemirovski 1997, Math. Methods Statist. 6:135).
    """
    most = branch.shape[0]
    if most < SHORTEST:
        return (float(branch.mean()) if most else math.nan), scatter.of(SHORTEST)
    low, high, told = -math.inf, math.inf, (math.nan, math.nan)
    for size in _sizes(int(math.log(most / SHORTEST, GROWTH)) + 1):
        value, error = float(branch[:size] @ _weights(size, back)), scatter.of(size)
        low, high = max(low, value - AGREE * error), min(high, value + AGREE * error)
        if low > high:
            break
        told = value, error
    return told


@lru_cache(maxsize=64)
def _sizes(count: int) -> list[int]:
    return sorted({int(SHORTEST * GROWTH**step) for step in range(count)})
