"""Sheets: what curves that were drawn blind can say of the events that a cut loses, and what that costs.

A *uniform* sheet gives every decision the same chance. The events in it are a fair sample of all events, so the share
of them that was discarded has an exact binomial bound (models/certificate.py), whatever the scores look like.

A *weighted* sheet gives each decision a chance of its own, independently of all others, and remembers it (Poisson
sampling). Sums are then estimated without bias by weighting what was found with 1 / chance (Horvitz & Thompson 1952,
JASA 47, 663). Its bound is a test by betting (Waudby-Smith & Ramdas 2024, JRSS B 86, 1): of a miss of r or more the
product over all events of 1 - L*w*(missed - r) has a mean of at most 1, because its factors have the mean
1 - L*(missed - r) each and the geometric mean is below the arithmetic one; so that it seldom exceeds 20. With equal
weights, no miss and the largest L it is (1 - r)^-n: the rule of 59 events. Several L are mixed, so that a miss does not
end the bet; that costs a few events.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

#: How much of the largest bet is placed, and which part of the stake goes on it.
_BETS = ((1.0, 0.8), (0.6, 0.04), (0.35, 0.04), (0.2, 0.04), (0.1, 0.04), (0.05, 0.04))


def lost_estimate(weights: ArrayLike) -> tuple[float, float]:
    """How many curves there are like those that were found with these weights, and the standard error of that.

    Unbiased, with an unbiased estimate of the variance; both are 0 where none was found.
    """
    w = np.asarray(weights, np.float64)
    return float(w.sum()), math.sqrt(float((w * (w - 1)).sum()))


def weighted_bound(above: ArrayLike, missed: ArrayLike, heaviest: float, confidence: float = 0.95) -> float:
    """The share of all events that lies below the cut at the most, from a weighted sheet; 1 where nothing was found.

    ``above`` and ``missed``: the weights of the confirmed events on either side of the cut; ``heaviest``: the largest
    weight that a discard could have had, found or not. ValueError for weights below 1 or above that.
    """
    found, lost = np.asarray(above, np.float64), np.asarray(missed, np.float64)
    if not 0.5 <= confidence < 1.0 or not (1.0 <= heaviest < math.inf):
        raise ValueError("the confidence lies from 0.5 to below 1, a weight from 1")
    if (found.size and found.min() < 1) or (lost.size and not 1 <= lost.min() <= lost.max() <= heaviest * (1 + 1e-9)):
        raise ValueError("a weight is 1 / a chance, and no discard has more than the heaviest")
    if not found.size:
        return 1.0
    against = -math.log(1 - confidence)
    low, high = 0.0, 1.0 - 1e-9  # the evidence against a share rises with it
    if _evidence(found, lost, heaviest, high) < against:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _evidence(found, lost, heaviest, middle) >= against else (middle, high)
    return high


def _evidence(above: np.ndarray, missed: np.ndarray, heaviest: float, share: float) -> float:
    """Logarithm of what a stake of 1 has become that was bet against a miss of ``share`` or more."""
    logs = []
    for bet, stake in _BETS:
        step = bet * share / (heaviest * (1 - share))
        with np.errstate(divide="ignore"):  # all is lost where the whole stake was on no miss
            logs.append(math.log(stake) + np.log1p(step * above).sum() + np.log(1 - bet * missed / heaviest).sum())
    return float(np.logaddexp.reduce(logs))


def labels_needed(events: int, share: float) -> int:
    """The curves that hold so many events, on average, when ``share`` of them are events."""
    if not 0 < share <= 1:
        raise ValueError("the share of events lies above 0, up to 1")
    return math.ceil(events / share - 1e-9)
