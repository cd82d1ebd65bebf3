"""The training: one loop, resumable after every epoch.

AdamW with a short warm-up and a cosine to zero, bf16 arithmetic where the processor has it, pictures drawn from the
envelopes as they are needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from models.checkpoint import restore, store
from models.data import Examples, order
from models.loss import select
from models.network import ResNet18
from models.profile import RasterProfile
from models.raster import Floats, coverage


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a training run makes of its data."""

    width: int = 16
    epochs: int = 4
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.02
    warmup: float = 0.05  # share of all steps
    smoothing: float = 0.01  # labels are pulled this far towards the middle: no simulator is certain
    loss: str = "focal"  # as models.loss.select reads it
    seed: int = 1
    threads: int = 1
    bf16: bool = True
    frozen: bool = False  # the last layer alone learns; the rest stays, the statistics of its batch norms too


class Run:
    """A training run: ``for loss in run`` works through what is left of it, then ``run.network`` is trained.

    The same arguments on the same machine give the same network, whether it was interrupted or not.
    """

    def __init__(
        self,
        examples: Examples,
        profile: RasterProfile,
        recipe: Recipe,
        initial: ResNet18 | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        """``checkpoint`` is a folder; a run that it holds is gone on with. ``initial`` is where to start instead."""
        torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.network = ResNet18(recipe.width) if initial is None else initial
        cast(Any, self.network).to(memory_format=torch.channels_last)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not recipe.frozen or name.startswith("fc."))
        self._examples, self._profile, self._recipe, self._checkpoint = examples, profile, recipe, checkpoint
        self._loss = select(recipe.loss)
        self._optimiser = torch.optim.AdamW(_groups(self.network, recipe.decay), lr=recipe.rate)
        self._done = restore(checkpoint, self.network, self._optimiser) if checkpoint is not None else 0
        self._per_epoch = max(len(examples) // recipe.batch, 1)

    def __len__(self) -> int:
        """Steps that are left."""
        return (self._recipe.epochs - self._done) * self._per_epoch

    def __iter__(self) -> Iterator[float]:
        """Take one step after the other; yields the loss of each."""
        steps = self._recipe.epochs * self._per_epoch
        for epoch in range(self._done, self._recipe.epochs):
            self.network.train(not self._recipe.frozen)
            for place, (images, labels) in enumerate(self._batches(epoch)):
                share = rate_at(epoch * self._per_epoch + place, steps, self._recipe.warmup)
                yield self._step(images, labels, self._recipe.rate * share)
            self._done = epoch + 1
            if self._checkpoint is not None:
                store(self._checkpoint, self.network, self._optimiser, self._done)
        self.network.eval()

    def _batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(B, 1, H, W) pictures and (B,) smoothed labels; the incomplete batch at the end is left out."""
        places, size, smoothing = (
            order(self._examples, self._recipe.seed, epoch),
            self._recipe.batch,
            self._recipe.smoothing,
        )
        for step in range(self._per_epoch):
            chosen = places[step * size : (step + 1) * size]
            images = torch.from_numpy(coverage(self._examples.edges[chosen], self._profile))
            labels = torch.from_numpy(self._examples.labels[chosen])
            yield images.contiguous(memory_format=torch.channels_last), labels * (1 - 2 * smoothing) + smoothing

    def _step(self, images: torch.Tensor, labels: torch.Tensor, rate: float) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=self._recipe.bf16):
            logits = self.network(images)
        loss = self._loss(logits.float(), labels)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self._optimiser.step()
        return float(loss.detach())


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the full learning rate: a line up, then half a cosine down to zero."""
    rising = max(1.0, warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))


def _groups(network: ResNet18, decay: float) -> list[dict[str, Any]]:
    """Weights decay; norms and biases do not."""
    learned = [p for p in network.parameters() if p.requires_grad]
    weights = [p for p in learned if p.ndim > 1]
    others = [p for p in learned if p.ndim <= 1]
    return [{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def infer(network: ResNet18, edges: Floats, profile: RasterProfile, batch: int = 64) -> NDArray[np.float64]:
    """(N, 2, W) envelopes -> (N,) logits in float32 arithmetic: the reference that engines are held against."""
    network.eval()
    parts = [np.zeros(0, np.float64)]
    with torch.inference_mode():
        for start in range(0, len(edges), batch):
            images = torch.from_numpy(coverage(edges[start : start + batch], profile))
            logits = network(images.contiguous(memory_format=torch.channels_last))
            parts.append(logits.double().numpy())
    return np.concatenate(parts)
