"""The plain published recipe, trained: what the model is compared with in `make study TOPIC=baselines`.

What the paper leaves open is filled with the defaults of the tools: Lin's alpha and gamma (2017, arXiv 1708.02002),
Adam at 0.001. Its picture and its network are those of the bench.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from daemon.bench.recipe import Pictures, ThreeChannels
from models.loss import Focal
from models.train import rate_at, restore, store


@dataclass(frozen=True, slots=True)
class Settings:
    """What the recipe is run with."""

    epochs: int = 3
    batch: int = 32
    rate: float = 1e-3
    width: int = 64
    seed: int = 1
    threads: int = 1
    bf16: bool = True


class PublishedRun:
    """``for loss in run`` trains what is left; then ``score`` judges. Goes on from ``checkpoint`` after every epoch."""

    def __init__(self, pictures: Pictures, events: NDArray[np.bool_], settings: Settings, checkpoint: Path) -> None:
        torch.set_num_threads(settings.threads)
        torch.manual_seed(settings.seed)
        self.network = ThreeChannels(settings.width)
        if settings.bf16:  # faster; in float32 torch 2.13 corrupts memory in this layout, on a narrow network
            cast(Any, self.network).to(memory_format=torch.channels_last)
        self._pictures, self._labels, self._settings = pictures, torch.from_numpy(events.astype(np.float32)), settings
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.rate)
        self._checkpoint = checkpoint
        self._done = restore(checkpoint, self.network, self._optimiser)
        self._per_epoch = max(len(pictures) // settings.batch, 1)

    def __len__(self) -> int:
        """Steps that are left."""
        return (self._settings.epochs - self._done) * self._per_epoch

    def __iter__(self) -> Iterator[float]:
        loss_of, batch = Focal(alpha=0.25, gamma=2.0), self._settings.batch
        steps = self._settings.epochs * self._per_epoch
        for epoch in range(self._done, self._settings.epochs):
            self.network.train()
            places = np.random.default_rng((self._settings.seed, epoch)).permutation(len(self._pictures))
            for step in range(self._per_epoch):
                share = rate_at(epoch * self._per_epoch + step, steps, 0.05)
                for group in self._optimiser.param_groups:
                    group["lr"] = self._settings.rate * share
                chosen = np.sort(places[step * batch : (step + 1) * batch])
                loss = loss_of(self._logits(self._pictures[chosen]), self._labels[chosen])
                self._optimiser.zero_grad(set_to_none=True)
                cast(Any, loss).backward()
                self._optimiser.step()
                yield float(loss.detach())
            self._done = epoch + 1
            store(self._checkpoint, self.network, self._optimiser, self._done)

    def score(self, pictures: Pictures) -> NDArray[np.float64]:
        """(N, 224, 224) -> (N,) logits."""
        self.network.eval()
        batch, parts = self._settings.batch, [np.zeros(0)]
        with torch.inference_mode():
            for start in range(0, len(pictures), batch):
                parts.append(self._logits(pictures[start : start + batch]).double().numpy())
        return np.concatenate(parts)

    def _logits(self, pictures: Pictures) -> Tensor:
        grey = torch.from_numpy(np.ascontiguousarray(pictures))  # the weights decide the layout of all that follows
        with torch.autocast("cpu", torch.bfloat16, enabled=self._settings.bf16):
            return cast(Tensor, self.network(grey)).float()
