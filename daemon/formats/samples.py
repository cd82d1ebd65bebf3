"""What all readers do with samples once they have them: cut, turn, check."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daemon.formats import limits
from daemon.formats.base import Unfinished, Unreadable
from models.curve import ForceUnit, Samples

_JUMP = 0.5  # of the span of a ramp


def check_points(count: int) -> None:
    """Refuse a curve longer than any instrument writes, before anything is allocated for it."""
    if count > limits.POINTS:
        raise Unreadable("too_long")


def check_written(stored: NDArray[np.generic]) -> None:
    """Refuse a retract with a stretch of exact zeros, at its end or inside: space that was reserved and never written.

    ``stored`` (n,): the numbers as they lie in the file, before any scaling. Shorter curves than the stretch
    looked for are left to the front-end, which finds them too short anyway. Real curves have 3 zeros in a row at most.
    """
    zeros, run = np.flatnonzero(stored == 0), limits.ZERO_SAMPLES
    if stored.shape[0] > run and zeros.size >= run and (zeros[run - 1 :] - zeros[: 1 - run] == run - 1).any():
        raise Unfinished("zero_tail")


def outward(distance: Samples) -> Samples:
    """The distance of a retract, so that it grows away from the surface.

    A retract moves away from the surface whatever the sign of the sensor, so its two ends tell the direction;
    the means of an eighth at each end, because a sensor's noise can exceed a step.
    """
    is_known = np.isfinite(distance)
    known = distance if is_known.all() else distance[is_known]
    span = max(known.shape[0] // 8, 1)
    if known.shape[0] < 2 or np.add.reduce(known[-span:]) / span >= np.add.reduce(known[:span]) / span:
        return distance
    turned: Samples = -distance
    return turned


def finite_range(*columns: Samples) -> slice:
    """The range without the NaN samples that some programs leave at both ends of a column."""
    good = np.isfinite(columns[0])
    for column in columns[1:]:
        good &= np.isfinite(column)
    if good.all():
        return slice(0, good.shape[0])
    where = np.flatnonzero(good)
    return slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(0, 0)


def is_steady(samples: Samples) -> bool:
    """Whether a column is a ramp or a clock: its parts follow each other one way, whatever the noise of a sensor."""
    if samples.shape[0] < 8 or not np.isfinite(samples).all():
        return False
    steps = np.diff([part.mean() for part in np.array_split(samples, 8 if samples.shape[0] >= 32 else 4)])
    return bool(np.all(steps > 0) or np.all(steps < 0))


def runs_on(before: Samples, after: Samples) -> bool:
    """Whether a steady column goes on after a gap as if there were none: the same way, with no jump."""
    ways = [float(one[-1] - one[0]) / max(one.shape[0] - 1, 1) for one in (before, after)]
    step, noise = max(map(abs, ways)), max(float(np.abs(np.diff(one)).max(initial=0.0)) for one in (before, after))
    gap = float(after[0] - before[-1])
    is_same_way = ways[0] * ways[1] > 0
    return is_same_way and abs(gap) <= max(8 * step, 2 * noise) and abs(gap) < _JUMP * float(np.ptp(before))


def calibrated(
    unit: ForceUnit, factor: float, sensitivity_m_per_v: float | None, spring_constant_n_per_m: float | None
) -> tuple[ForceUnit, float]:
    """The best unit that the calibration allows for what times ``factor`` is in ``unit``, and the factor to that."""
    if unit == "V" and sensitivity_m_per_v is not None:
        unit, factor = "m", factor * sensitivity_m_per_v
    if unit == "m" and spring_constant_n_per_m is not None:
        return "N", factor * spring_constant_n_per_m
    return unit, factor


def turnaround(position: Samples) -> tuple[int, int] | None:
    """Where approach ends and retract begins in a there-and-back distance: (stop of approach, start of retract).

    The surface is the extreme that lies inside. Each side is a ramp, so the straight line through its middle, carried
    on to the surface, tells where it ends; what is between is dwell. None when the distance only goes one way.
    """
    if position.shape[0] < 16 or not np.isfinite(position).all():
        return None
    smooth = np.convolve(position, np.full(5, 0.2), "same")
    smooth[:2], smooth[-2:] = smooth[2], smooth[-3]
    high, low = float(smooth.max()), float(smooth.min())
    span, above, below = high - low, high - max(smooth[0], smooth[-1]), min(smooth[0], smooth[-1]) - low
    if span <= 0 or max(above, below) < 0.1 * span:
        return None
    surface = high if above >= below else low
    near = np.flatnonzero(np.abs(smooth - surface) <= 0.02 * span)
    first, last = int(near[0]), int(near[-1])
    stop = first + _ramp_end(smooth[: first + 1] - surface, first)
    start = last + _ramp_end((smooth[last:] - surface)[::-1], position.shape[0] - 1 - last) * -1
    return min(max(stop, first), last) + 1, max(min(start, last), first)


def _ramp_end(ramp: Samples, last: int) -> int:
    """How many samples after ``last`` a ramp towards zero gets there, by the line through its middle half."""
    middle = np.flatnonzero((np.abs(ramp) > 0.25 * abs(ramp[0])) & (np.abs(ramp) < 0.75 * abs(ramp[0])))
    if middle.size < 2 or ramp[middle[0]] == ramp[middle[-1]]:
        return 0
    slope, level = np.polyfit(middle.astype(np.float64), ramp[middle], 1)
    return round(-level / slope) - last if slope else 0
