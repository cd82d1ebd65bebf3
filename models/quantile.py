"""Quantiles of short arrays: numpy's own, bit for bit, at a tenth of their cost.

``numpy.median`` spends 7 microseconds around a selection that takes one, and the front-end asks for a dozen a curve.
"""

from __future__ import annotations

import math

from models.curve import Samples


def median(values: Samples) -> float:
    """(n,) -> what ``numpy.median`` gives; NaN where there is nothing, or where a NaN is among them."""
    count = values.shape[0]
    if not count:
        return math.nan
    half = count // 2
    ordered = values.copy()
    ordered.partition((half, -1) if count % 2 else (half - 1, half, -1))  # NaN is sorted to the end
    if math.isnan(ordered[-1]):
        return math.nan
    middle = ordered[half] if count % 2 else (ordered[half - 1] + ordered[half]) / 2
    return float(middle) + 0.0  # numpy's sum begins at zero: never -0.0


def quantile(values: Samples, share: float) -> float:
    """(n,) -> what ``numpy.quantile`` gives, between two neighbours by a straight line; NaN as in :func:`median`."""
    count = values.shape[0]
    if not count:
        return math.nan
    place = (count - 1) * share
    below = int(place)
    above = min(below + 1, count - 1)
    ordered = values.copy()
    ordered.partition((below, above, -1))
    if math.isnan(ordered[-1]):
        return math.nan
    low, high = float(ordered[below]), float(ordered[above])
    along, step = float(place - below), high - low
    return high - step * (1 - along) if along >= 0.5 else low + step * along  # each end is met exactly
