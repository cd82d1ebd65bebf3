"""The calibration: from logits to a probability at a stated prevalence, and to the two thresholds.

Temperature and bias together (Platt 1999), because a focal or balanced training shifts the intercept too. A fit to
simulated curves ends with :func:`choose_cut`, or of a tuned child with :func:`choose_like_parent`; one to labels of
real ones with :func:`choose_discard` and :func:`choose_keep`, and it earns a certificate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.bundle import CONFIRMED, Calibration, Cut
from models.cut import FEWEST
from models.gate import SPARE, equal_loss_cut, most_below
from models.metrics import Prior, auc, calibration_error, class_weights, clopper_pearson, regress

Logits = NDArray[np.float64]
Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]
SIMULATED = "simulation, held out"  # the basis of a cut that was chosen on curves of the simulator
HIGHEST = 1.0 - 1e-9  # a threshold that certainty alone reaches
MARGIN = 1.0 - 1e-9  # another processor may compute the last digits of a score otherwise


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
