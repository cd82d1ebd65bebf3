"""The ladder: how far events that people have confirmed may raise the discard cut, the one number that a lab moves.

Everything is told in logits of the network. Confirmed events are cut off at the present cut, so nothing here promises
anything of events below it: that is what the audit of the discards is for. The prior, the shares and the five points
were set once, with known data in view, and stay as they are (deploy/measurements, the ladder).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from models.anytime import evidence_against
from models.certificate import CONFIDENCE, MAX_MISS, discard_limit, events_needed

#: Fewer confirmed events say nothing: the shipped cut stays.
FEWEST = 5
#: Points of the stream that must leave the pile for a move to be worth its risk.
LEAST_GAIN = 0.05
#: Shares of the confirmed events that the next one may lie below, by the provisional rule; the first is usual.
MISSES = (0.01, 0.02)
#: Normal-inverse-gamma prior of the events' logits: mean and its weight in events; shape and scale of the variance.
_MEAN, _WEIGHT, _SHAPE, _SCALE = 2.0, 1.0, 2.0, 2.0

Rung = Literal["shipped", "provisional", "exact"]


@dataclass(frozen=True, slots=True)
class Step:
    """Where the ladder puts the cut."""

    rung: Rung
    logit: float  # of the discard cut; the base's where nothing moves
    events: int  # that it rests on
    needed: int  # more of them earn the next rung; 0 on the last
    is_capped: bool = False  # the lowest confirmed event, or the ceiling, holds it and not the rule


def climb(
    base: float, events: ArrayLike, miss: float = MISSES[0], *, is_watched: bool = False, ceiling: float = math.inf
) -> Step:
    """The cut for these confirmed events: never below ``base``, always below each of ``events``, (n,) logits.

    ``miss``: the share that the provisional rule may lose. ``is_watched``: the count is looked at again and again, so
    that the exact rule needs more events. ``ceiling``: a logit that the cut stays below whatever the events say.
    ValueError for events that are not finite or lie below ``base``.
    """
    logits = np.sort(np.asarray(events, np.float64))
    if not np.isfinite(logits).all() or (logits.size and logits[0] <= base):
        raise ValueError("confirmed events have finite logits above the present cut")
    count, sure = int(logits.size), watched_events() if is_watched else events_needed(MAX_MISS, CONFIDENCE)
    if count < FEWEST:
        return Step("shipped", base, count, FEWEST - count)
    rung: Rung = "provisional" if count < sure else "exact"
    limit = predictive_limit(logits, miss)
    if rung == "exact":
        # People mostly confirm what was kept. Of weaker events these say nothing by their order alone, and the exact
        # rule by itself would discard all that is not kept: their spread goes on to hold the cut, and the promise too.
        exact = discard_limit(logits, MAX_MISS, CONFIDENCE)
        assert exact is not None
        limit = min(limit, exact)
    cap = math.nextafter(min(float(logits[0]), ceiling), -math.inf)  # a curve at the cut is discarded
    return Step(rung, max(base, min(limit, cap)), count, max(sure - count, 0), is_capped=cap < limit)


def predictive_limit(events: ArrayLike, miss: float) -> float:
    """The logit below which the next event lies with chance ``miss``, by the normal-inverse-gamma predictive."""
    logits = np.asarray(events, np.float64)
    count, mean = logits.size, float(logits.mean()) if logits.size else 0.0
    weight, shape = _WEIGHT + count, _SHAPE + count / 2
    centre = (_WEIGHT * _MEAN + count * mean) / weight
    squares = float(((logits - mean) ** 2).sum())
    scale = _SCALE + squares / 2 + _WEIGHT * count * (mean - _MEAN) ** 2 / (2 * weight)
    width = math.sqrt(scale * (weight + 1) / (shape * weight))
    return centre + student_quantile(miss, round(2 * shape)) * width


def student_quantile(share: float, degrees: int) -> float:
    """The value below which ``share`` of Student's t with this many degrees of freedom lies."""
    if not 0.0 < share < 1.0 or degrees < 1:
        raise ValueError("a share lies between 0 and 1, degrees of freedom from 1")
    if share > 0.5:
        return -student_quantile(1 - share, degrees)
    low, high = 0.0, 1.0  # of -t
    while _student_tail(high, degrees) > share:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_tail(middle, degrees) > share else (low, middle)
    return -(low + high) / 2


def _student_tail(t: float, degrees: int) -> float:
    """P(T > t), t >= 0: a finite sum for whole degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan2(t, math.sqrt(degrees))
    cos, sin = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term, total = (cos, 0.0) if odd else (1.0, 0.0)
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= cos * cos * k / (k + 1)
    inside = 2 / math.pi * (angle + sin * total) if odd else sin * total
    return max((1 - inside) / 2, 0.0)


def watched_events(max_miss: float = MAX_MISS, confidence: float = CONFIDENCE) -> int:
    """Events without a miss that keep the promise although they are counted again and again: 82 for 5 %, 95 % sure."""
    count = events_needed(max_miss, confidence)
    while evidence_against(max_miss, count, 0) < 1 / (1 - confidence):
        count += 1
    return count
