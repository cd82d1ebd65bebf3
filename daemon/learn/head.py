"""Few labels: the body of a network stays, its last layer is fitted anew on what labelled curves look like to it.

The result is an ordinary model. Its calibration and thresholds come from held-out simulated curves, as after any
training, and not from the labels: a few dozen curves that the head was fitted on cannot say where one event in a
hundred is lost (that takes 300 others). `afm-triage calibrate` with labels of other curves does say it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, UNREACHABLE, UserError
from daemon.formats.afmcurve import unpack
from daemon.formats.base import Unfinished, Unreadable
from daemon.reading import Reading
from models.bundle import BadBundle, Bundle, read, resolve
from models.frontend import prepare, prepare_to_judge
from models.heads import (
    HEADS,
    LEAN,
    WIDTH,
    BadWeights,
    Features,
    Linear,
    Vectors,
    cluster,
    embed,
    encode,
    fold,
    logistic,
    own_logit,
    principal,
    read_imagenet,
    round_support,
    standardise,
)
from models.network import ResNet18, load
from models.raster import RasterProfile, envelope
from models.train import Examples


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """How the last layer is fitted."""

    kind: str  # a name in models.heads.HEADS
    features: str = "none"  # none, pca
    unlabelled: tuple[Path, ...] = ()


def require_sklearn() -> None:
    """UserError (69) where scikit-learn, an extra, is missing."""
    try:
        import sklearn  # noqa: F401 - only whether it is there
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


# The start: the weights that a training run begins from, as ``--init`` names them.

PUBLISHED = "imagenet:"


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """``scratch`` when neither is given."""

    parent: Bundle | None = None
    published: Path | None = None  # a file with torchvision's ResNet18

    @property
    def width(self) -> int | None:
        """Channels of the first layer, where the weights fix it."""
        if self.parent is not None:
            return self.parent.width
        return WIDTH if self.published is not None else None

    @property
    def note(self) -> dict[str, str]:
        """What stands in the manifest: the parent stands there anyway."""
        if self.published is None:
            return {}
        return {"init": f"imagenet {hashlib.sha256(self.published.read_bytes()).hexdigest()[:12]}"}

    def network(self) -> ResNet18 | None:
        """A network with these weights, None from scratch; UserError (65) when the file is none."""
        if self.published is not None:
            try:
                return read_imagenet(self.published)
            except BadWeights as error:
                raise UserError(BAD_DATA, f"--init {PUBLISHED}{error}") from None
        return None if self.parent is None else load(self.parent.width, self.parent.weights)


def start_of(name: str) -> Start:
    """What ``--init`` names: ``scratch``, ``imagenet:FILE`` or a model; UserError (65) when it is none of these."""
    if name == "scratch":
        return Start()
    if name.startswith(PUBLISHED):
        return Start(published=Path(name.removeprefix(PUBLISHED)))
    return Start(parent=parent_of(name))


def parent_of(name: str) -> Bundle:
    """The model that ``--init`` names; UserError when it is none."""
    try:
        return read(resolve(name))
    except BadBundle as error:
        raise UserError(BAD_DATA, f"--init {error}") from None


# The ranking: unlabelled curves by what a few labelled ones teach, on any features and heads, linear or not.

CHUNK = 256


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """Features of two kinds, one after the other: (N, K + L)."""

    first: Features
    second: Features

    def apply(self, vectors: Vectors) -> Vectors:
        return np.concatenate((self.first.apply(vectors), self.second.apply(vectors)), axis=1)


def features_of(network: ResNet18, name: str, seen: Vectors, seed: int = 1) -> Features:
    """Features learned from (N, D) curves whether labelled or not, with the network's own logit beside them.

    ``name``: none, pca, autoencoder or soft-kmeans.
    """
    if name in ("none", "pca"):
        return _features(network, name, seen)
    return Beside(_learn(seen, name, seed), own_logit(network, seen))


#: Of a head that orders a pile: its inverse penalty, and how much the network's own logit counts beside it: so much,
#: and so much more by the number of labels. Chosen on the piles of ten simulated laboratories.
ORDERS, OWN, OWN_BY_LABELS = 3.0, 0.5, 8.0


def order(
    network: ResNet18, features: Features, known: Vectors, events: NDArray[np.bool_], others: Vectors
) -> NDArray[np.float64]:
    """(N, D) labelled and (M, D) other embedded curves -> (M,), the greater the sooner to be looked at.

    ValueError when all that is labelled is of one kind.
    """
    found = logistic(features.apply(known), events, strength=ORDERS).score(features.apply(others))
    own = own_logit(network, others).apply(others)[:, 0] / LEAN
    return found / max(float(found.std()), 1e-9) + (OWN + OWN_BY_LABELS / len(known)) * own


def rank(
    known: Vectors, events: NDArray[np.bool_], others: Vectors, features: str, head: str, seed: int
) -> NDArray[np.float64]:
    """(N, D) labelled and (M, D) unlabelled embedded curves -> (M,), the greater the more like an event."""
    seen = np.concatenate((known, others))
    made = _learn(seen, features, seed)
    learned, asked = made.apply(known), made.apply(others)
    return logistic(learned, events).score(asked) if head == "logistic" else round_support(learned, events)(asked)


def _learn(seen: Vectors, features: str, seed: int) -> Features:
    if features == "autoencoder":
        return encode(seen, seed=seed)
    if features == "soft-kmeans":
        return cluster(seen, seed=seed)
    return {"none": standardise, "pca": principal}[features](seen)


def embed_all(
    network: ResNet18, readings: Iterable[Reading], profile: RasterProfile
) -> tuple[list[tuple[str, int]], Vectors]:
    """Path and index of every curve, and (N, D) vectors; a row of NaN for one that can get no score."""
    names: list[tuple[str, int]] = []
    parts: list[Vectors] = [np.zeros((0, network.fc.in_features))]
    waiting: list[Reading] = []
    for reading in readings:
        names.append((reading.arrival.path, reading.index))
        waiting.append(reading)
        if len(waiting) == CHUNK:
            parts.append(_embed(network, waiting, profile))
            waiting = []
    parts.append(_embed(network, waiting, profile))
    return names, np.concatenate(parts)


def _embed(network: ResNet18, readings: Sequence[Reading], profile: RasterProfile) -> Vectors:
    vectors = np.full((len(readings), network.fc.in_features), np.nan)
    there = [place for place, one in enumerate(readings) if one.curve is not None]
    prepared = prepare([curve for one in readings if (curve := one.curve) is not None], profile)
    able = [place for place, one in zip(there, prepared, strict=True) if one.signal is not None]
    if able:
        signals = [signal for one in prepared if (signal := one.signal) is not None]
        vectors[able] = embed(network, envelope(signals, profile), profile)
    return vectors


def embed_copies(
    network: ResNet18, profile: RasterProfile, copies: Mapping[int, bytes | None]
) -> dict[int, NDArray[np.float16]]:
    """Compact copies -> (D,) of each, or (0,) where it can get no score.

    Where the sign is open, that of the sign which is the more like an event.
    """
    owners, signals = list[int](), []
    for seq, copy in copies.items():
        with suppress(Unreadable, Unfinished):
            prepared = prepare_to_judge([unpack(copy or b"")[0]], profile)[0]
            ways = (prepared, prepared.flipped)
            mine = [signal for way in ways if way is not None and (signal := way.signal) is not None]
            owners += [seq] * len(mine)
            signals += mine
    found = dict.fromkeys(copies, np.zeros(0, np.float16))
    if signals:
        vectors = embed(network, envelope(signals, profile), profile)
        logits = vectors @ network.fc.weight.detach().numpy()[0]
        for place in np.argsort(logits, kind="stable"):  # the most like an event last
            found[owners[place]] = vectors[place].astype(np.float16)
    return found
