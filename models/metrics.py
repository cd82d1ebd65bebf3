"""The metrics: how good a ranking and its verdicts are, with exact intervals and no heavy dependency."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The logistic regression of one variable: what calibration and its check both rest on.


@dataclass(frozen=True, slots=True)
class Prior:
    """What is thought of the slope before any curve is seen: a normal distribution, of this precision in curves."""

    slope: float = 1.0
    weight: float = 1e-3


def regress(
    x: NDArray[np.float64], events: NDArray[np.bool_], weights: NDArray[np.float64], start: float, prior: Prior
) -> tuple[float, float]:
    """(slope, intercept) of the log odds of an event, most likely under (n,) weights; Newton's method.

    ``start`` is the first intercept. With both kinds among ``events`` it ends with finite values, however well x
    separates them: the prior holds the slope.
    """
    design = np.stack((x, np.ones_like(x)), axis=1)
    beta = np.array([prior.slope, start])
    middle, only_slope = np.array([prior.slope, 0.0]), np.array([1.0, 0.0])

    def loss(beta: NDArray[np.float64]) -> float:
        z = design @ beta
        return float(weights @ (np.logaddexp(0.0, z) - events * z) + prior.weight / 2 * (beta[0] - prior.slope) ** 2)

    here = loss(beta)
    for _ in range(200):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -500, 500)))
        gradient = design.T @ (weights * (p - events)) + prior.weight * (beta - middle) * only_slope
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design + np.diag([prior.weight, 1e-9])
        step = np.linalg.solve(curvature, gradient)
        while loss(beta - step) > here * (1 + 1e-9) and float(np.abs(step).max()) > 1e-10:
            step = step / 2  # uphill: where the curve is flat, Newton's step is far too long
        beta = beta - step
        here = loss(beta)
        if float(np.abs(step).max()) < 1e-10:
            break
    return float(beta[0]), float(beta[1])


def auc(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Chance that an event scores above an event-free curve, ties half (Mann-Whitney); None without both kinds."""
    s, events = _clean(scores, labels)
    positives, negatives = s[events], np.sort(s[~events])
    if not positives.size or not negatives.size:
        return None
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.sum() / 2 / (positives.size * negatives.size))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float | None:
    """Area under precision over recall as a step function; equal scores enter together. None without events."""
    s, events = _clean(scores, labels)
    if not events.any():
        return None
    order = np.argsort(-s, kind="stable")
    s, events = s[order], events[order]
    ends = np.append(np.flatnonzero(np.diff(s)), s.size - 1)  # last place of each group of equal scores
    found = np.cumsum(events)[ends]
    gained = np.diff(np.concatenate(([0], found))) / events.sum()
    return float((gained * found / (ends + 1)).sum())


def discarded_at(scores: ArrayLike, labels: ArrayLike, recall: float = 0.98) -> float | None:
    """Share of the event-free curves below the highest cut that saves ``recall`` of the events; None without both."""
    s, events = _clean(scores, labels)
    if not events.any() or events.all():
        return None
    saved = np.sort(s[events])
    cut = saved[int((1 - recall) * saved.size + 1e-9)]  # the lowest score that is not given up
    return float((s[~events] < cut).mean())


def calibration_error(scores: ArrayLike, labels: ArrayLike, prevalence: float | None = None, bins: int = 15) -> float:
    """Expected calibration error in equal-width bins, after weighting the classes to ``prevalence`` where given.

    A labelled set is rarely mixed like a run; without the weights the error would be that of the mix. NaN when empty.
    """
    s, events = _clean(scores, labels)
    weights = class_weights(events, prevalence) if prevalence is not None else np.ones(s.size)
    if not s.size or weights.sum() == 0:
        return math.nan
    place = np.minimum((s * bins).astype(np.int64), bins - 1)
    total = np.bincount(place, weights, bins)
    gap = np.bincount(place, weights * s, bins) - np.bincount(place, weights * events, bins)
    return float(np.abs(gap).sum() / total.sum())


def brier_skill(scores: ArrayLike, labels: ArrayLike, prevalence: float | None = None) -> float:
    """1 - Brier score / that of always saying the share of events (Brier 1950; Murphy 1973): 1 is perfect, 0 useless.

    The classes are weighted to ``prevalence`` where given. NaN without curves of both kinds.
    """
    s, events = _clean(scores, labels)
    if not events.any() or events.all():
        return math.nan
    weights = class_weights(events, prevalence) if prevalence is not None else np.ones(s.size)
    share = float(np.average(events, weights=weights))
    return 1 - float(np.average((s - events) ** 2, weights=weights)) / (share * (1 - share))


def reliability_slope(scores: ArrayLike, labels: ArrayLike, prevalence: float | None = None) -> float:
    """Slope of the logistic regression of the labels on the log odds of the scores (Cox 1958, Biometrika 45, 562).

    1: the scores are as bold as they may be; below: too bold; above: too timid. Weighted as :func:`brier_skill`. NaN
    without curves of both kinds, infinite where the scores separate them.
    """
    s, events = _clean(scores, labels)
    if not events.any() or events.all():
        return math.nan
    if s[events].min() > s[~events].max():
        return math.inf
    weights = class_weights(events, prevalence) if prevalence is not None else np.ones(s.size)
    odds = np.log(np.clip(s, 1e-300, None)) - np.log(np.clip(1 - s, 1e-16, None))
    return regress(odds, events, weights, 0.0, Prior(weight=1e-9))[0]


def class_weights(events: NDArray[np.bool_], prevalence: float) -> NDArray[np.float64]:
    """Weights, mean 1, under which ``prevalence`` of the whole are events; plain ones when a class is missing."""
    share = float(events.mean()) if events.size else 0.0
    if share in (0.0, 1.0):
        return np.ones(events.size)
    return np.where(events, prevalence / share, (1 - prevalence) / (1 - share))


def clopper_pearson(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share (Clopper & Pearson 1934); (0, 1) when ``of`` is 0."""
    if not 0 <= hits <= of:
        raise ValueError(f"{hits} of {of} is no share")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _bisect(lambda p: at_least(hits, of, p) - tail)
    high = 1.0 if hits == of else _bisect(lambda p: tail - at_most(hits, of, p))
    return low, high


def at_most(hits: int, of: int, p: float) -> float:
    """P(X <= hits) of a binomial of ``of`` draws with chance ``p``, summed from its largest term outwards.

    Terms too small to change the sum are left out.
    """
    if p <= 0.0:
        return 1.0
    if p >= 1.0:
        return 1.0 if hits >= of else 0.0
    peak, odds = min(hits, int((of + 1) * p)), p / (1 - p)
    reach = int(12 * math.sqrt(of * p * (1 - p))) + 60  # beyond it terms are below 1e-25 of the largest
    down = np.arange(peak, max(peak - reach, 0), -1, dtype=np.float64)
    up = np.arange(peak, min(peak + reach, hits), dtype=np.float64)
    terms = np.cumprod(down / ((of - down + 1) * odds)).sum() + np.cumprod((of - up) * odds / (up + 1)).sum() + 1.0
    at_peak = math.lgamma(of + 1) - math.lgamma(peak + 1) - math.lgamma(of - peak + 1)
    return min(1.0, float(terms) * math.exp(at_peak + peak * math.log(p) + (of - peak) * math.log1p(-p)))


def at_least(hits: int, of: int, p: float) -> float:
    """P(X >= hits); counted from the other side, so that small tails keep their digits."""
    return at_most(of - hits, of, 1.0 - p)


def _bisect(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2


def _clean(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    s, events = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    if s.shape != events.shape:
        raise ValueError(f"{s.shape} scores and {events.shape} labels")
    return s, events


def count_table(verdicts: Sequence[str], labels: Sequence[bool]) -> dict[str, dict[str, int]]:
    """The 3 x 2 table: {"keep": {"event": n, "none": n}, "review": …, "discard": …}."""
    table = {verdict: {"event": 0, "none": 0} for verdict in ("keep", "review", "discard")}
    for verdict, event in zip(verdicts, labels, strict=True):
        table[verdict]["event" if event else "none"] += 1
    return table


# Operating points: what a ranking could do at every cut, and whether its probabilities hold.


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
