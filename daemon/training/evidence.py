"""The evidence: what a calibration does to the labelled curves, and what it is worth on experiments it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.decide import verdict_of
from daemon.decision import Thresholds
from daemon.training.exhibits import Exhibits
from models.calibrate import score_apart
from models.certificate import discard_limit
from models.logistic import Prior
from models.metrics import brier_skill, calibration_error, clopper_pearson, reliability_slope
from models.thresholds import choose_discard


def count_verdicts(exhibits: Exhibits, scores: NDArray[np.float64], thresholds: Thresholds) -> dict[str, Any]:
    """What happens to these very curves, floors included, with exact intervals."""
    verdicts = [verdict_of(float(s), why, thresholds) for s, why in zip(scores, exhibits.reasons, strict=True)]
    events = exhibits.events
    discarded, kept = (np.array([one == word for one in verdicts], np.bool_) for word in ("discard", "keep"))
    counts = {
        "events": int(events.sum()),
        "event_free": int((~events).sum()),
        "events_discarded": int((discarded & events).sum()),
        "events_kept": int((kept & events).sum()),
        "event_free_discarded": int((discarded & ~events).sum()),
        "event_free_kept": int((kept & ~events).sum()),
    }
    of = {"events_discarded": "events", "event_free_discarded": "event_free", "event_free_kept": "event_free"}
    return counts | {f"{n}_interval": list(clopper_pearson(counts[n], counts[whole])) for n, whole in of.items()}


def judge_probabilities(exhibits: Exhibits, prevalence: float, prior: Prior) -> Mapping[str, float | None]:
    """Each experiment's scores by a fit on the others; None where there is no such fit, or no finite figure."""
    figures = {"ece": calibration_error, "brier_skill": brier_skill, "reliability_slope": reliability_slope}
    apart = score_apart(exhibits.logits, exhibits.events, exhibits.experiments, prevalence, prior)
    if apart is None:
        return dict.fromkeys(figures)
    found = {name: float(figure(apart, exhibits.events, prevalence)) for name, figure in figures.items()}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def judge_across(exhibits: Exhibits, max_miss: float, confidence: float) -> Mapping[str, int] | None:
    """Events of each experiment that a threshold certified on the others alone would have missed.

    It is no part of the promise, which names its experiments; it tells what to expect of the next one. Experiments
    without which the promise cannot be made are left out; None where that is all of them.
    """
    logits, events = exhibits.logits, exhibits.events
    missed = tried = 0
    for name in np.unique(exhibits.experiments[events]):
        here = exhibits.experiments == name
        limit = discard_limit(logits[events & ~here], max_miss, confidence)
        if limit is not None:
            cut = _cut(logits[~here], events[~here], limit)
            missed, tried = missed + int((logits[here & events] <= cut).sum()), tried + int((here & events).sum())
    return {"events": tried, "missed": missed} if tried else None


def _cut(logits: NDArray[np.float64], events: NDArray[np.bool_], limit: float) -> float:
    """The discard threshold as a logit, by the rule for scores: a logistic curve keeps the order."""

    def squash(x: NDArray[np.float64] | float) -> Any:
        return 1 / (1 + np.exp(-np.clip(x, -700.0, 700.0)))

    score = choose_discard(squash(logits), events, float(squash(limit)))
    return float(np.log(score) - np.log1p(-score))
