"""The fine-tuning: layer4 and the last layer learn a laboratory's labels, on what the layers below them give.

The trunk (through layer3) never changes, so that what it gives of a curve is worked out once and kept in half
precision: 16 kB a curve with the shipped raster and width. Batch norms stay as they are, statistics and scales. Two
things hold the network back from forgetting: replayed curves in every batch, of which it goes on to say what its parent
says (distillation, Li & Hoiem 2016, arXiv 1606.09282), and a pull of every weight towards the parent's (L2-SP, Li et
al. 2018, arXiv 1802.01483).
"""

from __future__ import annotations

import copy
import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from models.loss import CrossEntropy, select
from models.network import ResNet18
from models.raster import Floats, RasterProfile, coverage
from models.train import descend, layout_of, rate_at, restore, store

#: The group of curves that are replayed: of no experiment.
REPLAY = -1
#: What is learned; everything else of a tuned network has its parent's bits.
TAIL = ("layer4.", "fc.")

Trunk = NDArray[np.float16]


def trunk_of(
    network: ResNet18,
    edges: Floats,
    profile: RasterProfile,
    device: str = "cpu",
    batch: int = 64,
    file: Path | None = None,
) -> Trunk:
    """(N, 2, W) envelopes -> (N, 4 width, H/16, W/16) float16, what the trunk makes of their pictures.

    ``file``: where it goes instead of into memory, as a plain numpy array. OSError for a full disk.
    """
    network.to(device).eval()
    shape = (len(edges), 4 * network.width, -(-profile.rows // 16), -(-profile.columns // 16))
    if file is None:
        made: Trunk = np.empty(shape, np.float16)
    else:
        made = np.lib.format.open_memmap(file, "w+", np.float16, shape)
    with torch.inference_mode():
        for start in range(0, len(edges), batch):
            images = torch.from_numpy(coverage(edges[start : start + batch], profile)).to(device)
            trunk = network.forward_trunk(images.contiguous(memory_format=torch.channels_last))
            made[start : start + batch] = trunk.half().cpu().numpy()
    return made


def tail_logits(network: ResNet18, trunk: Trunk, device: str = "cpu", batch: int = 256) -> NDArray[np.float64]:
    """(N, 4 width, h, w) -> (N,) logits in float32 arithmetic.

    They differ from those of :func:`models.train.infer` by the half precision of the trunk, about 0.002.
    """
    network.to(device).eval()
    parts = [np.zeros(0, np.float64)]
    with torch.inference_mode():
        for start in range(0, len(trunk), batch):
            parts.append(network.forward_tail(_on(trunk[start : start + batch], device)).double().cpu().numpy())
    return np.concatenate(parts)


def _on(trunk: Trunk, device: str) -> torch.Tensor:
    whole = torch.from_numpy(np.ascontiguousarray(trunk)).to(device).float()
    return whole.contiguous(memory_format=layout_of(whole.shape[1]))


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """N curves to learn from, as the trunk gives them."""

    trunk: Trunk  # (N, 4 width, h, w)
    targets: NDArray[np.float32]  # (N,), 0 … 1; between both where raters differ
    weights: NDArray[np.float32]  # (N,), how often a curve is drawn beside others of its kind
    groups: NDArray[np.int64]  # (N,), experiment and day; REPLAY of what is replayed

    def __len__(self) -> int:
        return int(self.targets.shape[0])

    def __add__(self, other: Lessons) -> Lessons:
        return Lessons(
            np.concatenate((self.trunk, other.trunk)),
            np.concatenate((self.targets, other.targets)),
            np.concatenate((self.weights, other.weights)),
            np.concatenate((self.groups, other.groups)),
        )

    @classmethod
    def replayed(cls, network: ResNet18, trunk: Trunk, device: str = "cpu") -> Lessons:
        """Curves of which the tuned network is to say what this one says, its parent; all of one weight.

        The truth of simulated curves would push weak events up, and down what resembles them, whatever labels say of
        the two: the cut of equal simulated loss then falls, and the pile that labels made small grows again.
        """
        count, said = len(trunk), 1 / (1 + np.exp(-tail_logits(network, trunk, device)))
        return cls(trunk, said.astype(np.float32), np.ones(count, np.float32), np.full(count, REPLAY, np.int64))

    @property
    def is_replayed(self) -> NDArray[np.bool_]:
        """(N,)."""
        return np.asarray(self.groups == REPLAY, np.bool_)

    @property
    def digest(self) -> str:
        """What the lessons are, in a few digits; some 0.1 s for 130 MB."""
        whole = hashlib.sha256()
        for array in (self.trunk, self.targets, self.weights, self.groups):
            whole.update(np.ascontiguousarray(array).data)
        return whole.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class TuningRecipe:
    """Everything that decides what a fine-tuning makes of its lessons."""

    epochs: int = 8
    batch: int = 32
    rate: float = 3e-4
    warmup: float = 0.1  # share of all steps
    loss: str = "focal"  # of labelled curves, as models.loss.select reads it
    smoothing: float = 0.05  # labels are pulled this far towards the middle: people err
    most: int = 1_000  # labelled curves an epoch draws, however many there are: a night has its time
    replay: float = 0.75  # share of what is drawn that is replayed
    events: float = 0.5  # share of events in what is drawn, of the labelled and of the replayed alike
    pull: float = 0.01  # towards the parent, a step at the full rate: no weight gets further than rate / pull from it
    seed: int = 1
    threads: int = 1


class Tuning:
    """A fine-tuning: ``for loss in tuning`` works through what is left of it, then ``tuning.network`` is tuned.

    The same arguments on the same machine give the same network, whether it was interrupted or not. The given network
    stays as it is. ``checkpoint`` is a folder, of these lessons and this recipe alone; what it holds is gone on with.
    ValueError for lessons without any labelled curve.
    """

    def __init__(
        self,
        network: ResNet18,
        lessons: Lessons,
        recipe: TuningRecipe,
        checkpoint: Path | None = None,
        device: str = "cpu",
    ) -> None:
        torch.set_num_threads(recipe.threads)
        self.network = copy.deepcopy(network).to(device).eval()  # a batch norm that is evaluated learns no statistics
        self._learned = _thaw(self.network)
        self._parent = [parameter.detach().clone() for parameter in self._learned]
        self._lessons, self._recipe, self._checkpoint, self._device = lessons, recipe, checkpoint, device
        self._loss = select(recipe.loss)
        self._draw = _Draw(lessons, recipe)
        self._optimiser = torch.optim.AdamW(self._learned, lr=recipe.rate, weight_decay=0.0)
        self._done = restore(checkpoint, self.network, self._optimiser) if checkpoint is not None else 0

    def __len__(self) -> int:
        """Steps that are left."""
        return (self._recipe.epochs - self._done) * self._draw.steps

    def __iter__(self) -> Iterator[float]:
        """Take one step after the other; yields the loss of each. OSError for a full disk."""
        recipe, per_epoch = self._recipe, self._draw.steps
        for epoch in range(self._done, recipe.epochs):
            for place, chosen in enumerate(self._draw.epoch(epoch)):
                rate = recipe.rate * rate_at(epoch * per_epoch + place, recipe.epochs * per_epoch, recipe.warmup)
                yield self._step(chosen, rate)
            self._done = epoch + 1
            if self._checkpoint is not None:
                store(self._checkpoint, self.network, self._optimiser, self._done)

    def _step(self, chosen: NDArray[np.int64], rate: float) -> float:
        logits = self.network.forward_tail(_on(self._lessons.trunk[chosen], self._device))
        loss = descend(self.network, self._optimiser, self._loss_of(logits, chosen), rate)
        with torch.no_grad():
            for parameter, parent in zip(self._learned, self._parent, strict=True):
                parameter.lerp_(parent, rate / self._recipe.rate * self._recipe.pull)
        return loss

    def _loss_of(self, logits: torch.Tensor, chosen: NDArray[np.int64]) -> torch.Tensor:
        """By the shares of labelled and replayed curves among the chosen, (B,).

        What is replayed counts by cross entropy, whatever the loss of labels: a focal one would pass over what its
        parent is unsure of, which is where the cut lies.
        """
        smoothing = self._recipe.smoothing
        targets = torch.from_numpy(self._lessons.targets[chosen]).to(self._device)
        replayed = torch.from_numpy(self._lessons.is_replayed[chosen]).to(self._device)
        share, loss = replayed.float().mean(), torch.zeros((), device=logits.device)
        if not replayed.all():
            loss = loss + (1 - share) * self._loss(
                logits[~replayed], targets[~replayed] * (1 - 2 * smoothing) + smoothing
            )
        if replayed.any():
            loss = loss + share * CrossEntropy()(logits[replayed], targets[replayed])
        return loss


def _thaw(network: ResNet18) -> list[torch.nn.Parameter]:
    """Only the convolutions of layer4 and the last layer learn; returns their parameters."""
    norms = {
        id(parameter)
        for module in network.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for parameter in module.parameters()
    }
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(TAIL) and id(parameter) not in norms)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


class _Draw:
    """Which curves each batch of an epoch holds: from seed and number alone, so that a resumed run goes on alike."""

    def __init__(self, lessons: Lessons, recipe: TuningRecipe) -> None:
        replayed = lessons.is_replayed
        self._labelled, self._replayed = np.flatnonzero(~replayed), np.flatnonzero(replayed)
        if not len(self._labelled):
            raise ValueError("lessons without a labelled curve teach nothing")
        share = recipe.replay if len(self._replayed) else 0.0
        count = min(len(self._labelled), recipe.most) / (1 - share)
        self.steps = max(round(count / recipe.batch), 1)
        self._of_replay = round(share * recipe.batch)
        self._batch, self._seed = recipe.batch, recipe.seed
        self._chances = [_chances(lessons, part, recipe.events) for part in (self._labelled, self._replayed)]

    def epoch(self, number: int) -> Iterator[NDArray[np.int64]]:
        """(B,) places in the lessons, a batch after the other."""
        rng = np.random.default_rng((self._seed, number))
        labelled = _spread(self._labelled, self._chances[0], self.steps * (self._batch - self._of_replay), rng)
        replayed = _spread(self._replayed, self._chances[1], self.steps * self._of_replay, rng)
        for own, old in zip(np.array_split(labelled, self.steps), np.array_split(replayed, self.steps), strict=True):
            yield np.concatenate((own, old))


def _chances(lessons: Lessons, places: NDArray[np.int64], events: float) -> NDArray[np.float64]:
    """(K,) chances by weight, with events and event-free curves in the wanted shares where there are both."""
    targets, weights = lessons.targets[places].astype(np.float64), lessons.weights[places].astype(np.float64)
    kinds = [(events, weights * targets), (1 - events, weights * (1 - targets))]
    chances = sum((share * kind / kind.sum() for share, kind in kinds if kind.sum() > 0), np.zeros(len(places)))
    return np.asarray(chances / max(float(np.sum(chances)), 1e-300))


def _spread(
    places: NDArray[np.int64], chances: NDArray[np.float64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """``count`` of the places, each as often as its chance says to within one, in random order (systematic draw)."""
    if not count:
        return np.zeros(0, np.int64)
    shuffled = rng.permutation(len(places))
    bounds = np.cumsum(chances[shuffled]) * count
    drawn = np.minimum(np.searchsorted(bounds, rng.random() + np.arange(count), side="right"), len(places) - 1)
    return cast(NDArray[np.int64], rng.permutation(places[shuffled[drawn]]))


# What a network says of each labelled curve that it saw no curve of.


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """Logits of the lessons, each by a network that saw no curve of its group."""

    logits: NDArray[np.float64]  # (N,), NaN of what is replayed
    is_by_group: bool  # else there were fewer groups than folds, and curves were split one by one
    text: str  # one sentence


def cross_fit(
    network: ResNet18,
    lessons: Lessons,
    recipe: TuningRecipe,
    folds: int = 5,
    checkpoint: Path | None = None,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> CrossFit:
    """Tune once a fold, on the others and all that is replayed. ``progress`` is told of every step, as 1.

    Where there are fewer groups than folds, curves are split by the hash of their content, so that copies of one curve
    stay together. ``checkpoint`` as of :class:`Tuning`. ValueError for fewer than two different labelled curves.
    """
    places = np.flatnonzero(~lessons.is_replayed)
    fold_of, is_by_group = _folds(lessons, places, folds)
    if len(np.unique(fold_of)) < 2:
        raise ValueError("a cross-fit takes at least two different labelled curves")
    logits = np.full(len(lessons), np.nan)
    for fold in range(folds):
        own = places[fold_of == fold]
        if not len(own):
            continue
        seen = np.ones(len(lessons), np.bool_)
        seen[own] = False
        masked = Lessons(lessons.trunk, lessons.targets, lessons.weights * seen, lessons.groups)
        tuning = Tuning(network, masked, recipe, None if checkpoint is None else checkpoint / f"fold-{fold}", device)
        for _ in tuning:
            if progress is not None:
                progress(1)
        logits[own] = tail_logits(tuning.network, lessons.trunk[own], device)
    number = len(np.unique(lessons.groups[places]))
    text = f"cross-fitted over {folds} folds of {number} experiments and days"
    if not is_by_group:
        text = f"only {number} experiments and days, so curves were cross-fitted one by one: it flatters new days"
    return CrossFit(logits, is_by_group, text)


def steps_of(lessons: Lessons, recipe: TuningRecipe) -> int:
    """Steps of one tuning; a cross-fit takes as many a fold."""
    return recipe.epochs * _Draw(lessons, recipe).steps


def _folds(lessons: Lessons, places: NDArray[np.int64], folds: int) -> tuple[NDArray[np.int64], bool]:
    """(K,) fold of each labelled curve: whole groups, the largest first to the fold that has least of its events."""
    groups = lessons.groups[places]
    names = np.unique(groups)
    if len(names) < folds:
        prints = [zlib.crc32(np.ascontiguousarray(lessons.trunk[place]).data) for place in places]
        ranked = np.unique(prints)
        return np.searchsorted(ranked, prints) * folds // len(ranked), False
    events = np.array([lessons.targets[places][groups == name].sum() for name in names])
    counts = np.array([(groups == name).sum() for name in names])
    filled = np.zeros((folds, 2))
    fold_of = np.zeros(len(places), np.int64)
    for one in np.lexsort((names, -counts, -events)):
        fold = int(np.lexsort((np.arange(folds), filled[:, 1], filled[:, 0]))[0])
        filled[fold] += events[one], counts[one]
        fold_of[groups == names[one]] = fold
    return fold_of, True
