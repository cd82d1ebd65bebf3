"""Small draws shared by all parts of the simulator."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Rng = np.random.Generator


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Every factor equally likely: for quantities known only to within decades."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def chance(rng: Rng, probability: float) -> bool:
    return bool(rng.random() < probability)


def sign(rng: Rng) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def pick(rng: Rng, weights: Mapping[str, float]) -> str:
    """One key, with a probability proportional to its weight."""
    mark = rng.random() * sum(weights.values())
    for name, weight in weights.items():
        mark -= weight
        if mark < 0.0:
            return name
    return next(reversed(list(weights)))
