"""The logistic regression of one variable: what calibration and its check both rest on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
