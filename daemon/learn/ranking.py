"""The ranking: unlabelled curves by what a few labelled ones teach, on any features and heads, linear or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from daemon.reading import Reading
from models.frontend import prepare
from models.heads import Features, Vectors, cluster, embed, encode, logistic, principal, round_support, standardise
from models.network import ResNet18
from models.profile import RasterProfile
from models.raster import envelope

CHUNK = 256


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
