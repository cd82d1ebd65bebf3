"""The published recipe, plainly: a picture of the curve, autoscaled, and an ImageNet-style network on it.

After Rodriguez-Ramos 2026 (arXiv 2606.09541: rasterised curves, ResNet18, focal loss) and FUSION (Doffini, Liu, Liu &
Nash 2023, Nano Lett. 23:10406: pictures of 224 x 224 and an ImageNet network). What those papers leave open is filled
with the defaults of the tools: matplotlib's margins, ImageNet's normalisation, Lin's alpha and gamma (2017, arXiv
1708.02002), Adam at 0.001. It stands here only to be compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.curve import Curve, Samples
from models.loss import Focal
from models.network import ResNet18
from models.train import rate_at, restore, store

SIDE = 224
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

Pictures = NDArray[np.uint8]  # (N, 224, 224), grey, 255 is paper


def draw(curves: Iterable[Curve]) -> Iterator[Pictures]:
    """Each curve as matplotlib draws a line, axes to its own smallest and largest value: (224, 224)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIDE / 100, SIDE / 100), dpi=100)
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    (line,) = axes.plot([0.0, 1.0], [0.0, 1.0], color="black", linewidth=1.0)
    for curve in curves:
        places = curve.distance if curve.distance is not None else np.arange(len(curve), dtype=np.float64)
        line.set_data(_scaled(places), _scaled(curve.force))
        axes.relim()
        axes.autoscale_view()
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].mean(axis=2).astype(np.uint8)


def _scaled(values: Samples) -> Samples:
    """Newton and metres brought near 1, so that no limit of matplotlib's is met; the drawing is the same."""
    largest: float = float(np.abs(values).max())
    return values / (largest or 1.0)


class ThreeChannels(nn.Module):
    """torchvision's ResNet18 in shape, with one logit: (B, 224, 224) grey bytes -> (B,)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.body = ResNet18(width)
        self.body.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(self.body.conv1.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, grey: Tensor) -> Tensor:
        mean, spread = (torch.tensor(values)[None, :, None, None] for values in (_MEAN, _SPREAD))
        x = (grey[:, None].float() / 255 - mean) / spread
        return cast(Tensor, self.body(x))


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
