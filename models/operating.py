"""Operating points: what a ranking could do at every cut, and whether its probabilities hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.metrics import class_weights, clopper_pearson

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """C cuts from strict to lenient, each taking every score of at least ``score``."""

    score: Floats  # (C,)
    found: NDArray[np.int64]  # (C,) events taken
    alarms: NDArray[np.int64]  # (C,) event-free curves taken


def sweep(scores: Floats, events: Flags) -> Cuts:
    """(N,) scores and truths -> every cut that tells some of them apart; equal scores enter together."""
    order = np.argsort(-scores, kind="stable")
    s, e = scores[order], events[order]
    ends = np.append(np.flatnonzero(np.diff(s)), s.size - 1) if s.size else np.zeros(0, np.int64)
    return Cuts(s[ends], np.cumsum(e)[ends], np.cumsum(~e)[ends])


@dataclass(frozen=True, slots=True)
class Bin:
    """Curves of about the same score."""

    predicted: float  # mean score
    observed: float  # share of events
    low: float  # exact 95 % interval of that share
    high: float
    curves: int


def reliability(scores: Floats, events: Flags, prevalence: float, bins: int = 10) -> list[Bin]:
    """Equal-width bins that hold anything, means and shares weighted to ``prevalence`` (Murphy & Winkler 1977).

    Within a bin the weights only change the odds by one factor, so the exact interval of the plain share (Clopper &
    Pearson 1934) is carried over by the same factor and stays exact.
    """
    weights = class_weights(events, prevalence)
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    factor = _odds(prevalence) / _odds(float(events.mean())) if events.any() and not events.all() else 1.0
    found = []
    for number in np.unique(place):
        inside = place == number
        hits, of = int(events[inside].sum()), int(inside.sum())
        shares = [_reweigh(share, factor) for share in (hits / of, *clopper_pearson(hits, of))]
        predicted = float(np.average(scores[inside], weights=weights[inside]))
        found.append(Bin(predicted, shares[0], shares[1], shares[2], of))
    return found


def _odds(share: float) -> float:
    return share / (1 - share)


def _reweigh(share: float, factor: float) -> float:
    return share * factor / (share * factor + 1 - share)
