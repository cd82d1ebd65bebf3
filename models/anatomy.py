"""The anatomy: the tensors of a ResNet18 by name and shape, and batch norm folded into convolutions.

Plain numbers, so that a service whose engine is not torch never loads torch; the network that learns is
``models.network``, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-5  # of every batch norm
NORM = ("weight", "bias", "running_mean", "running_var")

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution without bias, and the batch norm behind it."""

    name: str  # "layer2.0.downsample.0"
    norm: str  # "layer2.0.downsample.1"
    shape: Shape  # (channels out, channels in, k, k)
    stride: int

    @property
    def padding(self) -> int:
        return self.shape[-1] // 2


def convolutions(width: int) -> Iterator[Convolution]:
    """All 20, from the picture on; ``width`` is the number of channels after the first."""
    yield Convolution("conv1", "bn1", (width, 1, 7, 7), 2)
    before = width
    for layer in (1, 2, 3, 4):
        channels = width << (layer - 1)
        for block in (0, 1):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            yield Convolution(f"{name}.conv1", f"{name}.bn1", (channels, before, 3, 3), stride)
            yield Convolution(f"{name}.conv2", f"{name}.bn2", (channels, channels, 3, 3), 1)
            if before != channels:
                yield Convolution(f"{name}.downsample.0", f"{name}.downsample.1", (channels, before, 1, 1), stride)
            before = channels


def shapes(width: int) -> dict[str, Shape]:
    """Name -> shape of every tensor that a weight file of this width must hold, and no other."""
    found: dict[str, Shape] = {}
    for one in convolutions(width):
        found[f"{one.name}.weight"] = one.shape
        found |= {f"{one.norm}.{part}": one.shape[:1] for part in NORM}
    return {**found, "fc.weight": (1, 8 * width), "fc.bias": (1,)}


def fold(width: int, weights: Mapping[str, NDArray[np.floating[Any]]]) -> dict[str, NDArray[np.float32]]:
    """Weights as :func:`shapes` names them -> ``NAME.weight`` and ``NAME.bias`` of every convolution, and ``fc``.

    Computed in double and rounded once: no further from the network as written than torch's own folding.
    """
    folded: dict[str, NDArray[np.float32]] = {}
    for one in convolutions(width):
        scale, shift, mean, variance = (weights[f"{one.norm}.{part}"].astype(np.float64) for part in NORM)
        factor = scale / np.sqrt(variance + EPSILON)
        kernel = weights[f"{one.name}.weight"].astype(np.float64) * factor[:, None, None, None]
        folded[f"{one.name}.weight"] = kernel.astype(np.float32)
        folded[f"{one.name}.bias"] = (shift - mean * factor).astype(np.float32)
    return folded | {name: weights[name].astype(np.float32) for name in ("fc.weight", "fc.bias")}
