"""The thresholds from labels of real curves: discard from the certificate's limit, keep from what a lab can look at.

The discard threshold goes no further than event-free curves lie: beyond the last of them it could only lose events.
That choice looks at the labels, and may: whatever lies below the certificate's limit keeps its promise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.metrics import class_weights

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]
HIGHEST = 1.0 - 1e-9  # a threshold that certainty alone reaches
MARGIN = 1.0 - 1e-9  # another processor may compute the last digits of a score otherwise


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
    """The highest score of an event-free curve **below** ``limit``, which is on the score; below all when none is."""
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
