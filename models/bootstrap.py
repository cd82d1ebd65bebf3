"""The bootstrap: how far a figure of a set would move had other curves been measured (Efron & Tibshirani 1993, ch. 13).

Curves are drawn again within events and event-free curves apart, so that no draw lacks one kind; two methods are
compared on the same draws, which takes away what they share.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.metrics import auc, average_precision, discarded_at

Statistic = Callable[[NDArray[np.float64], NDArray[np.bool_]], float | None]

#: What the studies state of a ranking, by name.
STATISTICS: dict[str, Statistic] = {"auc": auc, "ap": average_precision, "discarded": discarded_at}


def redraw(events: NDArray[np.bool_], draws: int, seed: int) -> NDArray[np.int64]:
    """(N,) -> (draws, N) places, each row with as many events and event-free curves as the set has."""
    rng = np.random.default_rng(seed)
    kinds = [np.flatnonzero(events), np.flatnonzero(~events)]
    return np.concatenate([rng.choice(kind, (draws, kind.size)) for kind in kinds if kind.size], axis=1)


def interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """The middle ``confidence`` of some draws."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def spread(
    statistic: Statistic, scores: NDArray[np.float64], events: NDArray[np.bool_], draws: int = 1000, seed: int = 1
) -> tuple[float, float] | None:
    """The percentile interval of a statistic of (N,) scores; None where the statistic is."""
    if statistic(scores, events) is None:
        return None
    return interval(np.array([statistic(scores[p], events[p]) for p in redraw(events, draws, seed)], np.float64))


def difference(
    statistic: Statistic,
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    events: NDArray[np.bool_],
    draws: int = 1000,
    seed: int = 1,
) -> tuple[float, float, float] | None:
    """(difference, low, high) of ``first`` less ``second``, paired: both see the same draws."""
    one, other = statistic(first, events), statistic(second, events)
    if one is None or other is None:
        return None
    places = redraw(events, draws, seed)
    gaps = [(statistic(first[p], events[p]) or 0.0) - (statistic(second[p], events[p]) or 0.0) for p in places]
    return one - other, *interval(np.array(gaps))
