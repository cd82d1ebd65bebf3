"""The calibration: from logits to a probability at a stated prevalence, and to the two thresholds.

Temperature and bias together (Platt 1999), because a focal or balanced training shifts the intercept too. A later
calibration on real labels replaces all of this and earns the certificate; here only simulated curves speak.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Calibration
from models.metrics import auc, calibration_error, class_weights, clopper_pearson

Logits = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cut:
    """Both thresholds on the score, and what they were chosen on."""

    discard: float
    keep: float
    evidence: dict[str, Any]


def fit_platt(logits: Logits, labels: Labels, prevalence: float) -> Calibration:
    """Weighted maximum likelihood by Newton's method; ValueError when one class is missing."""
    if not labels.any() or labels.all():
        raise ValueError("calibration needs curves with and without an event")
    weights = class_weights(labels, prevalence)
    design = np.stack((logits, np.ones_like(logits)), axis=1)
    beta = np.array([1.0, math.log(prevalence / (1 - prevalence))])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ beta, -500, 500)))
        gradient = design.T @ (weights * (p - labels)) + 1e-3 * (beta - np.array([1.0, 0.0])) * np.array([1.0, 0.0])
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design + np.diag([1e-3, 1e-9])
        step = np.linalg.solve(curvature, gradient)
        beta = beta - np.clip(step, -2.0, 2.0)
        if float(np.abs(step).max()) < 1e-10:
            break
    slope = max(float(beta[0]), 0.05)  # a model that ranks backwards must not be turned around silently
    return Calibration(temperature=1 / slope, bias=float(beta[1]), prevalence=prevalence)


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
    missed, taken = int((events <= discard).sum()), int((others >= keep).sum())
    evidence = {
        "basis": "simulation, held out",
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
