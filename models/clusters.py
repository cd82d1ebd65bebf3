"""Soft k-means: which kinds of curve there are among many that nobody has labelled, and how much a curve is of each.

As a mixture of round Gaussians of which each learns its own width and weight (MacKay 2003, Information Theory,
Inference and Learning Algorithms, algorithm 22.2), by scikit-learn, on the principal components. The responsibilities
are no linear function of a curve, so they rank curves and become no model.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.features import Linear, Vectors, principal


@dataclass(frozen=True, slots=True, eq=False)
class SoftKMeans:
    """(N, D) embedded curves -> (N, K) responsibilities; a row sums to 1."""

    components: Linear
    mixture: Any  # sklearn.mixture.GaussianMixture

    def apply(self, vectors: Vectors) -> Vectors:
        return np.asarray(self.mixture.predict_proba(self.components.apply(vectors)), np.float64)


def cluster(vectors: Vectors, count: int = 16, seed: int = 1) -> SoftKMeans:
    """Fit on (N, D); at most a cluster for every four curves. The same vectors and seed give the same clusters."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    components = principal(vectors)
    mixture = GaussianMixture(
        max(2, min(count, len(vectors) // 4)), covariance_type="spherical", reg_covar=1e-4, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly settled clusters are as good
        mixture.fit(components.apply(vectors))
    return SoftKMeans(components, mixture)
