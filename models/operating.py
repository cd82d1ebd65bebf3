"""Operating points: what a ranking could do at every cut, and whether its probabilities hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.metrics import class_weights

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
    curves: int


def reliability(scores: Floats, events: Flags, prevalence: float, bins: int = 10) -> list[Bin]:
    """Equal-width bins that hold anything, means and shares weighted to ``prevalence`` (Murphy & Winkler 1977)."""
    weights = class_weights(events, prevalence)
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    found = []
    for number in range(bins):
        inside = place == number
        if inside.any():
            weight = weights[inside]
            means = [float(np.average(values[inside], weights=weight)) for values in (scores, events.astype(float))]
            found.append(Bin(means[0], means[1], int(inside.sum())))
    return found
