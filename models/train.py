"""The training: one loop, resumable after every epoch.

AdamW with a short warm-up and a cosine to zero, bf16 arithmetic where the processor has it, pictures drawn from the
envelopes as they are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from models.checkpoint import restore, store
from models.data import Examples, order
from models.loss import LOSSES
from models.network import ResNet18
from models.profile import RasterProfile
from models.raster import Floats, coverage

Progress = Callable[[int, float], None]  # curves seen in this step, loss


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a training run makes of its data."""

    width: int = 32
    epochs: int = 6
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.02
    warmup: float = 0.05  # share of all steps
    smoothing: float = 0.01  # labels are pulled this far towards the middle: no simulator is certain
    loss: str = "focal"
    seed: int = 1
    threads: int = 1
    bf16: bool = True


def fit(
    examples: Examples,
    profile: RasterProfile,
    recipe: Recipe,
    initial: ResNet18 | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> ResNet18:
    """Train on ``examples``; goes on from ``checkpoint`` (a folder) where it holds an unfinished run.

    The same arguments on the same machine give the same network, interrupted or not.
    """
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    network = ResNet18(recipe.width) if initial is None else initial
    cast(Any, network).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(_groups(network, recipe.decay), lr=recipe.rate)
    done = restore(checkpoint, network, optimiser) if checkpoint is not None else 0
    per_epoch = len(examples) // recipe.batch or 1
    network.train()
    for epoch in range(done, recipe.epochs):
        for place, (images, labels) in enumerate(batches(examples, profile, recipe, epoch)):
            rate = recipe.rate * rate_at(epoch * per_epoch + place, recipe.epochs * per_epoch, recipe.warmup)
            loss = _step(network, optimiser, images, labels, rate, recipe)
            if progress is not None:
                progress(len(labels), loss)
        if checkpoint is not None:
            store(checkpoint, network, optimiser, epoch + 1)
    return network.eval()


def batches(
    examples: Examples, profile: RasterProfile, recipe: Recipe, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(B, 1, H, W) pictures and (B,) smoothed labels; the last, incomplete batch of an epoch is left out."""
    places = order(examples, recipe.seed, epoch)
    for start in range(0, max(len(places) - recipe.batch + 1, 1), recipe.batch):
        chosen = places[start : start + recipe.batch]
        images = torch.from_numpy(coverage(examples.edges[chosen], profile))
        labels = torch.from_numpy(examples.labels[chosen])
        smooth = labels * (1 - 2 * recipe.smoothing) + recipe.smoothing
        yield images.contiguous(memory_format=torch.channels_last), smooth


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the full learning rate: a line up, then half a cosine down to zero."""
    rising = max(1.0, warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))


def _step(
    network: ResNet18,
    optimiser: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    rate: float,
    recipe: Recipe,
) -> float:
    for group in optimiser.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bf16):
        logits = network(images)
    loss = LOSSES[recipe.loss](logits.float(), labels)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach())


def _groups(network: ResNet18, decay: float) -> list[dict[str, Any]]:
    """Weights decay; norms and biases do not."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
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
