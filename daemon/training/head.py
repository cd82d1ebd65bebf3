"""Few labels: the body of a network stays, its last layer is fitted anew on what labelled curves look like to it.

The result is an ordinary model. Its calibration and thresholds come from held-out simulated curves, as after any
training, and not from the labels: a few dozen curves that the head was fitted on cannot say where one event in a
hundred is lost (that takes 300 others). `afm-triage calibrate` with labels of other curves does say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.errors import UNREACHABLE, UserError
from models.data import Examples
from models.embedding import embed
from models.features import Linear, Vectors, own_logit, principal, standardise
from models.head import HEADS, fold
from models.network import ResNet18
from models.profile import RasterProfile


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """How the last layer is fitted."""

    kind: str  # a name in models.head.HEADS
    features: str = "none"  # none, pca
    unlabelled: tuple[Path, ...] = ()


def require_sklearn() -> None:
    """UserError (69) where scikit-learn, an extra, is missing."""
    try:
        import sklearn  # noqa: F401
    except ImportError:
        wanted = "few labels need scikit-learn; install it into the same environment: pip install scikit-learn"
        raise UserError(UNREACHABLE, wanted) from None


def fit_head(
    network: ResNet18,
    plan: HeadPlan,
    simulated: Examples,
    labelled: Examples | None,
    unlabelled: NDArray[np.float32] | None,
    profile: RasterProfile,
    labelled_share: float,
) -> ResNet18:
    """The same body with a last layer that labelled and simulated curves teach; of both kinds there must be some.

    Features are learned from the labelled and the ``unlabelled`` ((N, 2, W) envelopes), where there are any.
    ``labelled_share`` is what the labelled ones weigh of all that teach, where simulated ones stand beside them.
    """
    known = simulated if labelled is None else labelled + simulated
    count = 0 if labelled is None else len(labelled)
    vectors = embed(network, known.edges, profile).astype(np.float64)
    seen = vectors
    if unlabelled is not None:
        seen = np.concatenate((vectors[:count], embed(network, unlabelled, profile)))
    features = _features(network, plan.features, seen)
    weights = _weights(count, len(simulated), labelled_share)
    return fold(network, features, HEADS[plan.kind](features.apply(vectors), known.labels > 0.5, weights))


def _features(network: ResNet18, name: str, vectors: Vectors) -> Linear:
    """Fitted on curves whether labelled or not; the network's own logit stands beside them, where it has one."""
    features = {"none": standardise, "pca": principal}[name](vectors)
    return features.beside(own_logit(network, vectors)) if network.fc.weight.any() else features


def _weights(labelled: int, simulated: int, share: float) -> NDArray[np.float64]:
    """1 for a labelled curve; the simulated ones together weigh what is left, however many they are."""
    each = (1 - share) / share * labelled / simulated if labelled and simulated else 1.0
    return np.concatenate((np.ones(labelled), np.full(simulated, each)))
