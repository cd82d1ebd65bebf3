"""The features: embedded curves told in fewer numbers, learned from curves that nobody has labelled.

Linear ones fold into a network's last layer (``models/head.py``) and so become models; the others rank. Every one gives
vectors of mean squared length 1, so that a head's strength means the same on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.network import ResNet18

Vectors = NDArray[np.float64]  # (N, D)

#: How long the network's own logit is beside all channels together: the penalty of a head on it is nine times lighter.
LEAN = 3.0

#: A channel that was nearly silent among the curves fitted on must not shout at the first one where it speaks.
QUIETEST = 0.05  # of the largest spread of any channel


class Features(Protocol):
    """(N, D) embedded curves -> (N, K)."""

    def apply(self, vectors: Vectors) -> Vectors: ...


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """Features that are a matrix and an offset."""

    matrix: NDArray[np.float64]  # (K, D)
    offset: NDArray[np.float64]  # (K,)

    def apply(self, vectors: Vectors) -> Vectors:
        return vectors @ self.matrix.T + self.offset

    def beside(self, other: Linear) -> Linear:
        """Both, one after the other: (N, K + L)."""
        return Linear(np.concatenate((self.matrix, other.matrix)), np.concatenate((self.offset, other.offset)))


def standardise(vectors: Vectors) -> Linear:
    """Each channel less its mean, by its spread."""
    spread = vectors.std(axis=0)
    spread = np.maximum(spread, max(QUIETEST * float(spread.max(initial=0.0)), 1e-9))
    matrix = np.diag(1 / spread / np.sqrt(spread.size))
    return Linear(matrix, -(matrix @ vectors.mean(axis=0)))


def own_logit(network: ResNet18, vectors: Vectors) -> Linear:
    """What the network itself says, as one more feature: with few labels it is the best there is to lean on."""
    weight, bias = network.fc.weight.detach().double().numpy(), network.fc.bias.detach().double().numpy()
    logits = vectors @ weight[0] + bias[0]
    scale = max(float(logits.std()), 1e-9) / LEAN
    return Linear(weight / scale, (bias - logits.mean()) / scale)


def principal(vectors: Vectors, count: int = 16) -> Linear:
    """The ``count`` directions in which these curves differ most (PCA of the standardised channels; scikit-learn)."""
    from sklearn.decomposition import PCA  # an extra; paid for only where it is used

    standard = standardise(vectors)
    found = PCA(min(count, len(vectors) - 1, vectors.shape[1]), svd_solver="full").fit(standard.apply(vectors))
    scale = max(float(np.sqrt(found.explained_variance_.sum())), 1e-9)
    turn = np.asarray(found.components_, np.float64) / scale
    return Linear(turn @ standard.matrix, turn @ (standard.offset - found.mean_))
