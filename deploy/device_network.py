"""The device network: all of the model that runs on a GPU in one piece, from envelopes to what the last layer reads."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.bundle import Bundle
from models.network import fold, load
from models.raster_torch import Picture


class DeviceNetwork(nn.Module):
    """(B, 2, W) float32 envelopes in signal units -> (B, 8 width) float32 features, averaged over the picture.

    The picture is drawn in float32 and the network computes in ``dtype``, batch norm folded, channels last: in half
    precision a row's position would be off by a sixteenth of a row.
    """

    def __init__(self, bundle: Bundle, dtype: torch.dtype) -> None:
        super().__init__()
        self.picture = Picture(bundle.profile, dtype)
        network = fold(load(bundle.width, {name: torch.from_numpy(tensor) for name, tensor in bundle.weights.items()}))
        # torch's own stub of Module.to does not list memory_format
        self.network = cast(Any, network).to(dtype, memory_format=torch.channels_last)
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, edges: Tensor) -> Tensor:
        images = self.picture(edges).contiguous(memory_format=torch.channels_last)
        return cast(Tensor, self.network.forward_features(images).float().mean((2, 3)))


class Head:
    """The last layer, on the host in double and row by row: batch-mates must change nothing."""

    def __init__(self, bundle: Bundle) -> None:
        self._weight = bundle.weights["fc.weight"][0].astype(np.float64)
        self._bias = float(bundle.weights["fc.bias"][0])

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """(b, 8 width) -> (b,)."""
        logits: NDArray[np.float64] = (features.astype(np.float64) * self._weight).sum(1) + self._bias
        return logits
