"""The head: from a curve's features to a logit, learned from a few labelled curves (scikit-learn).

A linear head on linear features is just another last layer: ``fold`` puts it into the network, which then is served
like any other, at the same speed. A support vector machine with a round kernel is not, and ranks only.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.features import Linear, Vectors
from models.network import ResNet18

Labels = NDArray[np.bool_]
Weights = NDArray[np.float64]

#: Inverse strength of the penalty on vectors of mean squared length 1. Chosen on simulated laboratories with 8 to 128
#: labels, in some of which every seventh label was wrong: 10 learns a new meaning of "event" sooner, but loses up to
#: 0.04 of AUC to wrong labels where the model was right already; 1 loses less than 0.01.
STRENGTH = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """(N, K) features -> (N,) logits."""

    weight: NDArray[np.float64]  # (K,)
    bias: float

    def score(self, features: Vectors) -> NDArray[np.float64]:
        return features @ self.weight + self.bias


def logistic(features: Vectors, labels: Labels, weights: Weights | None = None) -> LinearHead:
    """Logistic regression, both classes equally heavy. ValueError when one class is missing."""
    from sklearn.linear_model import LogisticRegression

    _check(labels)
    found = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=2000)
    return _plain(found.fit(features, labels, sample_weight=weights))


def support(features: Vectors, labels: Labels, weights: Weights | None = None) -> LinearHead:
    """The linear support vector machine, both classes equally heavy. ValueError when one class is missing."""
    from sklearn.svm import LinearSVC

    _check(labels)
    # liblinear penalises the intercept too, unless it is scaled; its random numbers only order the work
    found = LinearSVC(C=STRENGTH, class_weight="balanced", max_iter=20_000, intercept_scaling=10.0, random_state=0)
    return _plain(found.fit(features, labels, sample_weight=weights))


#: Heads that become a model's last layer, by name.
HEADS: dict[str, Callable[[Vectors, Labels, Weights | None], LinearHead]] = {"logistic": logistic, "svm": support}


def round_support(features: Vectors, labels: Labels) -> Callable[[Vectors], NDArray[np.float64]]:
    """The support vector machine with a Gaussian kernel: a function that ranks (N, K) features."""
    from sklearn.svm import SVC

    _check(labels)
    found: Any = SVC(C=STRENGTH, gamma="scale", class_weight="balanced").fit(features, labels)
    return lambda vectors: np.asarray(found.decision_function(vectors), np.float64)


def fold(network: ResNet18, features: Linear, head: LinearHead) -> ResNet18:
    """A network whose logit is ``head.score(features.apply(embedding))``, up to a scale: same body, other last layer.

    The scale keeps the layer no longer than the one it replaces, so that the rounding of a body in half precision moves
    the logit no further than before; calibration makes up for it.
    """
    folded = copy.deepcopy(network)
    weight, bias = head.weight @ features.matrix, float(head.weight @ features.offset) + head.bias
    longest = float(network.fc.weight.detach().norm()) or 1.0  # 1 where there was none
    scale = min(1.0, longest / max(float(np.linalg.norm(weight)), 1e-12))
    with torch.no_grad():
        folded.fc.weight.copy_(torch.from_numpy(scale * weight[None]))
        folded.fc.bias.fill_(scale * bias)
    return folded


def _check(labels: Labels) -> None:
    if not labels.any() or labels.all():
        raise ValueError("a head needs curves with and without an event")


def _plain(found: Any) -> LinearHead:
    return LinearHead(np.asarray(found.coef_[0], np.float64), float(found.intercept_[0]))
