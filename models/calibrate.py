"""The calibration: from logits to a probability at a stated prevalence, and to the two thresholds.

Temperature and bias together (Platt 1999), because a focal or balanced training shifts the intercept too. A fit to
simulated curves ends with :func:`choose_cut`, or of a tuned child with :func:`choose_like_parent`; one to labels of
real ones with :func:`choose_discard` and :func:`choose_keep`, and it earns a certificate.

The ladder, :func:`climb`: how far events that people have confirmed may raise the discard cut, the one number that a
lab moves. Everything is told in logits of the network. Confirmed events are cut off at the present cut, so nothing here
promises anything of events below it: that is what the audit of the discards is for. The prior and the shares were set
once, with known data in view, and stay as they are (deploy/measurements, the ladder).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.anytime import evidence_against
from models.bundle import CONFIRMED, Calibration, Cut
from models.certificate import CONFIDENCE, MAX_MISS, discard_limit, events_needed
from models.gate import SPARE, equal_loss_cut, most_below
from models.metrics import Prior, auc, calibration_error, class_weights, clopper_pearson, regress

Logits = NDArray[np.float64]
Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]
SIMULATED = "simulation, held out"  # the basis of a cut that was chosen on curves of the simulator
HIGHEST = 1.0 - 1e-9  # a threshold that certainty alone reaches
MARGIN = 1.0 - 1e-9  # another processor may compute the last digits of a score otherwise
#: Fewer confirmed events say nothing: the shipped cut stays.
FEWEST = 5
#: Shares of the confirmed events that the next one may lie below, by the provisional rule; the first is usual.
MISSES = (0.01, 0.02)
#: Normal-inverse-gamma prior of the events' logits: mean and its weight in events; shape and scale of the variance.
_MEAN, _WEIGHT, _SHAPE, _SCALE = 2.0, 1.0, 2.0, 2.0


def fit_platt(logits: Logits, labels: Labels, prevalence: float, prior: Prior = Prior()) -> Calibration:  # noqa: B008 - frozen
    """Weighted maximum likelihood; ValueError when one class is missing."""
    if not labels.any() or labels.all():
        raise ValueError("calibration needs curves with and without an event")
    weights = class_weights(labels, prevalence)
    slope, bias = regress(logits, labels, weights, math.log(prevalence / (1 - prevalence)), prior)
    slope = max(slope, 0.05)  # a model that ranks backwards must not be turned around silently
    return Calibration(temperature=1 / slope, bias=bias, prevalence=prevalence)


def prior_of(calibration: Calibration) -> Prior:
    """The slope that a model came with, believed within a factor of two or so.

    A few labelled curves are often separated without a fault; alone they would make every score a certainty.
    """
    slope = 1 / calibration.temperature
    return Prior(slope, 4 / slope**2)


def score_apart(
    logits: Logits, labels: Labels, groups: NDArray[np.str_], prevalence: float, prior: Prior
) -> NDArray[np.float64] | None:
    """(N,) scores, each by a fit on the other groups: what the probabilities are worth on an experiment not seen.

    None where the other groups of any lack one class, so that nothing could be fitted there.
    """
    scores = np.zeros(logits.shape)
    for group in np.unique(groups):
        held_out = groups == group
        others = labels[~held_out]
        if not others.any() or others.all():
            return None
        fitted = fit_platt(logits[~held_out], others, prevalence, prior)
        scores[held_out] = fitted.score(logits[held_out])
    return scores


def choose_cut(
    calibration: Calibration, logits: Logits, labels: Labels, most_missed: float = 0.01, most_kept: float = 0.002
) -> Cut:
    """``discard`` loses at most ``most_missed`` of these events, ``keep`` takes at most ``most_kept`` of the others."""
    scores = calibration.score(logits)
    events, others = np.sort(scores[labels]), np.sort(scores[~labels])
    discard = float(np.nextafter(events[int(most_missed * events.size)], 0.0))  # strictly below the first one saved
    keep = float(np.nextafter(others[others.size - 1 - int(most_kept * others.size)], 1.0))
    if keep <= discard:  # a model this good separates outright: leave a band for review between the two
        discard, keep = min(discard, keep), max(discard, keep)
        keep = max(keep, float(np.nextafter(discard, 1.0)))
    keep = min(keep, 1.0 - 1e-9)
    discard = min(discard, float(np.nextafter(keep, 0.0)))  # a model that is certain of everything discards less
    missed, taken = int((events <= discard).sum()), int((others >= keep).sum())
    evidence = {
        "basis": SIMULATED,
        "events": int(events.size),
        "event_free": int(others.size),
        "events_discarded": missed,
        "events_discarded_interval": list(clopper_pearson(missed, int(events.size))),
        "event_free_discarded": int((others <= discard).sum()),
        "event_free_kept": taken,
        "event_free_kept_interval": list(clopper_pearson(taken, int(others.size))),
        "most_missed": most_missed,
        "most_kept": most_kept,
        "auc": auc(scores, labels),
        "ece": calibration_error(scores, labels, calibration.prevalence),
    }
    return Cut(discard, keep, evidence)


def score_up_to(calibration: Calibration, logit: float, below: float = 1.0) -> float:
    """A score below ``below`` that stands for this logit or one just below it, whatever is rounded on the way."""
    at, score = logit, 1.0
    while not (score < below and calibration.logit(score) <= logit):
        score = float(calibration.score(np.array([at]))[0])
        at = math.nextafter(at, -math.inf)
    return score


def choose_like_parent(
    calibration: Calibration,
    before: Logits,
    after: Logits,
    labels: Labels,
    limits: tuple[float, float],
    confirmed: Logits,
    own: float | None = None,
) -> Cut:
    """Both thresholds of a tuned network, by what its parent does to the same simulated curves.

    ``before`` and ``after``, (N,): logits of held-out simulated curves by the parent and the child; ``limits``: the
    parent's logits of discard and keep in force, and ``own``, where its discard was raised, the one it was raised from.
    The child discards no more of the events, keeps no more of the others, and of ``confirmed``, (n,), at most
    :func:`models.gate.most_below`: cross-fitted logits of events that the parent does not discard; fewer than five say
    nothing.
    """
    starts = limits[0], limits[0] if own is None else own
    equal, old = (equal_loss_cut(before[labels], after[labels], limit, SPARE) for limit in starts)
    lowest = float(np.sort(confirmed)[most_below(confirmed.size)]) if confirmed.size >= FEWEST else math.inf
    cut = min(equal, math.nextafter(lowest, -math.inf))
    others = np.sort(after[~labels])[::-1]
    allowed = int((before[~labels] >= limits[1]).sum())
    top = float(others[allowed]) if allowed < others.size else -math.inf
    keep = float(calibration.score(np.array([math.nextafter(max(top, cut), math.inf)]))[0])
    keep = min(float(np.nextafter(keep, 1.0)), HIGHEST)
    discard = score_up_to(calibration, cut, keep)
    scores = calibration.score(after)
    missed, taken = int((scores[labels] <= discard).sum()), int((scores[~labels] >= keep).sum())
    is_held = cut < equal  # by events that people confirmed
    evidence = {
        "basis": CONFIRMED if is_held else SIMULATED,
        "events": int(confirmed.size if is_held else labels.sum()),
        "event_free": int((~labels).sum()),
        "events_discarded": int((confirmed <= cut).sum()) if is_held else missed,
        "event_free_discarded": int((scores[~labels] <= discard).sum()),
        "event_free_kept": taken,
        "simulated_loss": missed / int(labels.sum()),
        "simulated_loss_of_parent": float((before[labels] <= limits[0]).mean()),
        "discard_rule": "below the cross-fitted confirmed events, but for so many that 5 % of their like is the most"
        if is_held
        else "missing no more simulated events than its parent",
        "keep_rule": "taking no more simulated curves without an event than its parent",
        "auc": auc(scores, labels),
        "ece": calibration_error(scores, labels, calibration.prevalence),
        "cross_fitted": np.sort(confirmed).tolist(),
    }
    if own is not None and (low := score_up_to(calibration, old, keep)) < discard:
        evidence["band"] = [low, discard]
    return Cut(discard, keep, evidence)


@dataclass(frozen=True, slots=True)
class KeepRule:
    """What the keep threshold is chosen for: a precision among the kept, or a share of the stream to look at."""

    precision: float | None = 0.9
    review_share: float | None = None

    def words(self, prevalence: float) -> str:
        at = f"where {100 * prevalence:g} % of curves hold an event"
        if self.review_share is not None:
            return f"at most {100 * self.review_share:g} % go to review {at}"
        return f"{100 * (self.precision or 0.0):g} % of the kept are events {at}"


def choose_discard(scores: Scores, labels: Labels, limit: float) -> float:
    """The highest score of an event-free curve **below** ``limit``, which is on the score; below all when none is.

    Beyond the last event-free curve it could only lose events. The choice looks at the labels, and may: whatever lies
    below the certificate's limit keeps its promise.
    """
    free = scores[~labels & (scores < MARGIN * limit)]
    return float(free.max()) if free.size else MARGIN * min(limit, float(scores.min()))


def choose_keep(scores: Scores, labels: Labels, prevalence: float, discard: float, rule: KeepRule) -> float:
    """The lowest threshold above ``discard`` that has the precision, or the highest that keeps to the review share.

    Where no score has the precision the threshold is above them all, and everything not discarded goes to review.
    """
    weights = class_weights(labels, prevalence)
    order = np.argsort(-scores, kind="stable")
    s, w = scores[order], weights[order]
    ends = np.append(np.flatnonzero(np.diff(s)), s.size - 1)  # the last of each group of equal scores
    taken = np.cumsum(w)[ends]
    if rule.review_share is not None:
        between = taken[s[ends] > discard].max(initial=0.0) - taken  # review, were this score the threshold
        able = between <= rule.review_share * w.sum() + 1e-12
        found = s[ends][able & (s[ends] > discard)]
        return _above(discard, float(found.max()) if found.size else 0.0)
    able = np.cumsum(w * labels[order])[ends] >= (rule.precision or 0.0) * taken
    return _above(discard, float(s[ends][able].min()) if able.any() else HIGHEST)


def share_between(scores: Scores, labels: Labels, prevalence: float, discard: float, keep: float) -> float:
    """The share of a stream that a person looks at."""
    weights = class_weights(labels, prevalence)
    return float(weights[(scores > discard) & (scores < keep)].sum() / weights.sum())


def _above(discard: float, keep: float) -> float:
    return max(min(keep, HIGHEST), float(np.nextafter(discard, 1.0)))


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
