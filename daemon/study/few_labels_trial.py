"""A trial: every rival on one split, labelled by the dozen, and what each makes of the tested curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.study.few_labels_bench import Bench
from daemon.study.few_labels_splits import Setting, Split, draw
from models.heads import (
    Features,
    Vectors,
    cluster,
    encode,
    logistic,
    own_logit,
    principal,
    round_support,
    standardise,
    support,
)
from models.metrics import auc, average_precision

Scores = NDArray[np.float64]

AS_IS, TUNED, SCRATCH = "model as it is", "all weights fine-tuned", "all weights from scratch"
LOOKED_AT = 32  # labelled curves at which the number of unlabelled ones is varied
ALL = "all"

#: Name -> (features, head); a star marks what `train --head` makes a model of.
RIVALS: Mapping[str, tuple[str, str]] = {
    "* logistic, pooled + own logit": ("own", "logistic"),
    "* linear SVM, pooled + own logit": ("own", "linear"),
    "* logistic, PCA + own logit": ("own-pca", "logistic"),
    "logistic, pooled": ("pooled", "logistic"),
    "SVM, pooled": ("pooled", "round"),
    "logistic, PCA": ("pca", "logistic"),
    "SVM, PCA": ("pca", "round"),
    "logistic, autoencoder": ("autoencoder", "logistic"),
    "SVM, autoencoder": ("autoencoder", "round"),
    "logistic, soft k-means": ("soft-kmeans", "logistic"),
    "SVM, soft k-means": ("soft-kmeans", "round"),
}


@dataclass(frozen=True, slots=True)
class Result:
    """How well one rival ranked the tested curves of one split."""

    setting: str
    repeat: int
    rival: str
    labelled: int  # 0: needs none
    unlabelled: str  # how many curves its features were learned from
    auc: float
    ap: float


def try_out(
    bench: Bench,
    setting: Setting,
    repeat: int,
    labels: Sequence[int],
    unlabelled: Sequence[int],
    tuned: Sequence[int],
) -> Iterator[Result]:
    """All rivals at every number of ``labels``, networks trained at those of ``tuned``; then by ``unlabelled``."""
    split, seed = setting.splits[repeat], bench.seed + 1000 * repeat
    truth = bench.events[split.test]

    def result(rival: str, labelled: int, learned: str, scores: Scores) -> Result:
        area, precision = auc(scores, truth), average_precision(scores, truth)
        return Result(setting.name, repeat, rival, labelled, learned, area or 0.0, precision or 0.0)

    yield result(AS_IS, 0, "", bench.logits()[split.test])
    by_features = _learn(bench, bench.vectors[split.unlabelled], seed)
    for count in labels:
        if (chosen := draw(split.pool, bench.events, count, seed)) is None:
            continue
        for rival, scores in _rank(bench, split, chosen, by_features):
            yield result(rival, count, ALL, scores)
        if count in tuned:
            yield result(TUNED, count, "", bench.train(chosen, split.test, seed, scratch=False))
            yield result(SCRATCH, count, "", bench.train(chosen, split.test, seed, scratch=True))
    if (chosen := draw(split.pool, bench.events, LOOKED_AT, seed)) is not None:
        for learned, vectors in _unlabelled(bench, split, chosen, unlabelled, seed):
            for rival, scores in _rank(bench, split, chosen, _learn(bench, vectors, seed)):
                yield result(rival, LOOKED_AT, learned, scores)


def _unlabelled(
    bench: Bench, split: Split, labelled: NDArray[np.int64], counts: Sequence[int], seed: int
) -> Iterator[tuple[str, Vectors]]:
    """Curves to learn features from: the labelled ones with ever more real ones beside them, then simulated ones."""
    others = np.setdiff1d(split.unlabelled, labelled)
    others = np.random.default_rng(seed).permutation(others)
    for count in counts:
        if count <= others.size:
            yield str(count), bench.vectors[np.concatenate((labelled, others[:count]))]
    yield f"{len(bench.simulated)} simulated", np.concatenate((bench.vectors[labelled], bench.simulated))


def _learn(bench: Bench, vectors: Vectors, seed: int) -> dict[str, Features]:
    own, standard, components = own_logit(bench.network(), vectors), standardise(vectors), principal(vectors)
    return {
        "own": standard.beside(own),
        "own-pca": components.beside(own),
        "pooled": standard,
        "pca": components,
        "autoencoder": encode(vectors, seed=seed),
        "soft-kmeans": cluster(vectors, seed=seed),
    }


def _rank(
    bench: Bench, split: Split, labelled: NDArray[np.int64], by_features: Mapping[str, Features]
) -> Iterator[tuple[str, Scores]]:
    events = bench.events[labelled]
    told = {
        name: (features.apply(bench.vectors[labelled]), features.apply(bench.vectors[split.test]))
        for name, features in by_features.items()
    }
    heads: dict[str, Callable[[Vectors], Callable[[Vectors], Scores]]] = {
        "logistic": lambda z: logistic(z, events).score,
        "linear": lambda z: support(z, events).score,
        "round": lambda z: round_support(z, events),
    }
    for rival, (features, head) in RIVALS.items():
        known, tested = told[features]
        yield rival, heads[head](known)(tested)
