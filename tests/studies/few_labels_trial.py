"""A trial: every rival on one split, labelled by the dozen, and what each makes of the tested curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray

from daemon.common.stdio import progress
from daemon.learn.evidence import Collection
from deploy.torch_engine import bf16_in_hardware
from models.bundle import Bundle
from models.heads import (
    Features,
    Vectors,
    cluster,
    embed,
    encode,
    logistic,
    own_logit,
    principal,
    round_support,
    standardise,
    support,
)
from models.metrics import auc, average_precision
from models.network import ResNet18, load
from models.simulate import simulate
from models.train import Examples, Recipe, Run, gather, infer

# The bench: what every rival of `make study TOPIC=few-labels` works with, made once.

UNLABELLED_SEED = 3_000_000  # added to the seed: curves that no training has drawn
BATCH = 16
TUNED_PICTURES, SCRATCH_PICTURES = 480, 960  # shown to a network: enough for the loss to level off on 16 to 64 curves


@dataclass(frozen=True, slots=True, eq=False)
class Arena:
    """N real curves as envelopes and embedded, and simulated ones embedded."""

    bundle: Bundle
    edges: NDArray[np.float32]  # (N, 2, W)
    events: NDArray[np.bool_]  # (N,)
    vectors: Vectors  # (N, D)
    simulated: Vectors  # (M, D)
    seed: int

    def network(self) -> ResNet18:
        """The model's, a fresh copy."""
        return load(self.bundle.width, {name: torch.from_numpy(one) for name, one in self.bundle.weights.items()})

    def logits(self) -> NDArray[np.float64]:
        """(N,) of the model as it is."""
        head = self.network().fc
        weight, bias = head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
        return np.asarray(self.vectors @ weight[0] + bias[0], np.float64)

    def train(
        self, labelled: NDArray[np.int64], tested: NDArray[np.int64], seed: int, scratch: bool
    ) -> NDArray[np.float64]:
        """All weights, from the model's or from none, on these labels alone -> logits of the tested curves."""
        examples = Examples(self.edges[labelled], self.events[labelled].astype(np.float32))
        pictures = SCRATCH_PICTURES if scratch else TUNED_PICTURES
        batch = min(BATCH, len(examples))
        recipe = Recipe(
            width=self.bundle.width,
            epochs=-(-pictures // (len(examples) // batch * batch)),
            batch=batch,
            rate=2e-3 if scratch else 2e-4,
            seed=seed,
            bf16=bf16_in_hardware(),
        )
        run = Run(examples, self.bundle.profile, recipe, None if scratch else self.network())
        for _ in run:
            pass
        return infer(run.network, self.edges[tested], self.bundle.profile)


def make_bench(bundle: Bundle, collection: Collection, simulated: int, seed: int) -> Arena:
    """Embed the collection, and ``simulated`` curves that stand for unlabelled ones."""
    torch.set_num_threads(1)
    weights = {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()}
    network = load(bundle.width, weights)
    curves = progress(simulate(simulated, seed + UNLABELLED_SEED, 0.5), "simulating", simulated)
    drawn = gather(((item.curve, item.label == "keep") for item in curves), bundle.profile)
    return Arena(
        bundle=bundle,
        edges=collection.edges,
        events=collection.events,
        vectors=embed(network, collection.edges, bundle.profile).astype(np.float64),
        simulated=embed(network, drawn.edges, bundle.profile).astype(np.float64),
        seed=seed,
    )


# Splits: which curves may be labelled and which are tested on, by whole experiments or within one.

Places = NDArray[np.int64]
Names = NDArray[np.str_]

LEAST = 9  # curves of each kind on both sides of a split by experiments
LEAST_WITHIN, LEAST_SIZE = 4, 30  # curves of each kind, and of both, in an experiment that is split within itself
TESTED = 1 / 3  # of an experiment that is split within itself
_DRAWS = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Places of curves; no curve stands on both sides."""

    pool: Places  # those that labels may be drawn from
    test: Places
    unlabelled: Places  # all that are not on the side of the test, the unsure ones too


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """One way to split, and its repeats."""

    name: str
    splits: tuple[Split, ...]


def settings(experiments: Names, labels: Names, apart: Sequence[str], repeats: int, seed: int) -> list[Setting]:
    """Every setting that (N,) experiments and labels (keep, discard, unsure) allow.

    Across experiments, once for all that no glob of ``apart`` names and once for each glob; then within each experiment
    that has enough of both kinds.
    """
    named = [np.array([fnmatchcase(str(name), glob) for name in experiments]) for glob in apart]
    rest = ~np.any(named, axis=0) if named else np.ones(len(experiments), bool)
    found: list[Setting] = []
    for words, mask in (("", rest), *((f" {glob}", mask) for glob, mask in zip(apart, named, strict=True))):
        rng = np.random.default_rng((seed, len(found)))
        splits = [one for _ in range(repeats) if (one := _across(experiments, labels, mask, rng)) is not None]
        if len(splits) == repeats:
            found.append(Setting(f"other experiments{words}", tuple(splits)))
    for name in np.unique(experiments):
        mask = experiments == name
        counts = [int((mask & (labels == kind)).sum()) for kind in ("keep", "discard")]
        if min(counts) >= LEAST_WITHIN and sum(counts) >= LEAST_SIZE:
            rng = np.random.default_rng((seed, 1000 + len(found)))
            found.append(Setting(f"within {name}", tuple(_within(labels, mask, rng) for _ in range(repeats))))
    return found


def _across(experiments: Names, labels: Names, mask: NDArray[np.bool_], rng: np.random.Generator) -> Split | None:
    """Each experiment wholly on one side, at random; None where no draw leaves enough of both kinds on both."""
    names = np.unique(experiments[mask])
    for _ in range(_DRAWS):
        tested = mask & np.isin(experiments, names[rng.random(names.size) < 0.5])
        sides = (tested, mask & ~tested)
        if min(int((side & (labels == kind)).sum()) for side in sides for kind in ("keep", "discard")) >= LEAST:
            return _split(labels, mask, tested)
    return None


def _within(labels: Names, mask: NDArray[np.bool_], rng: np.random.Generator) -> Split:
    """A third of each label is tested on."""
    tested = np.zeros(len(labels), bool)
    for label in np.unique(labels[mask]):
        places = np.flatnonzero(mask & (labels == label))
        tested[rng.permutation(places)[: max(round(TESTED * places.size), 1)]] = True
    return _split(labels, mask, tested)


def _split(labels: Names, mask: NDArray[np.bool_], tested: NDArray[np.bool_]) -> Split:
    sure = labels != "unsure"
    sides = (mask & ~tested & sure, tested & sure, mask & ~tested)
    pool, test, unlabelled = (np.flatnonzero(side).astype(np.int64) for side in sides)
    return Split(pool, test, unlabelled)


def draw(pool: Places, events: NDArray[np.bool_], count: int, seed: int) -> Places | None:
    """``count`` curves of the pool to label, None when there are not as many; larger draws hold the smaller ones.

    As mixed as the pool, but a quarter of each kind where it has that many: a lab labels until it has some of both.
    """
    if count > pool.size:
        return None
    rng = np.random.default_rng(seed)
    with_event, without = (rng.permutation(pool[events[pool] == wanted]) for wanted in (True, False))
    wanted = round(count * with_event.size / pool.size)
    wanted = min(max(wanted, -(-count // 4)), count - -(-count // 4))
    wanted = min(max(wanted, count - without.size), with_event.size)
    return np.concatenate((with_event[:wanted], without[: count - wanted]))


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
    bench: Arena,
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
    bench: Arena, split: Split, labelled: NDArray[np.int64], counts: Sequence[int], seed: int
) -> Iterator[tuple[str, Vectors]]:
    """Curves to learn features from: the labelled ones with ever more real ones beside them, then simulated ones."""
    others = np.setdiff1d(split.unlabelled, labelled)
    others = np.random.default_rng(seed).permutation(others)
    for count in counts:
        if count <= others.size:
            yield str(count), bench.vectors[np.concatenate((labelled, others[:count]))]
    yield f"{len(bench.simulated)} simulated", np.concatenate((bench.vectors[labelled], bench.simulated))


def _learn(bench: Arena, vectors: Vectors, seed: int) -> dict[str, Features]:
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
    bench: Arena, split: Split, labelled: NDArray[np.int64], by_features: Mapping[str, Features]
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
