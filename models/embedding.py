"""The embedding: a curve as the pooled features of the network's last layer, all that the one logit is made from.

Curves that look alike to the network lie together here, labelled or not; so a few dozen labels and many unlabelled
curves can say what another logit should be (``models/features.py``, ``models/head.py``).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.network import ResNet18
from models.profile import RasterProfile
from models.raster import coverage


def embed(
    network: ResNet18, edges: NDArray[np.float32], profile: RasterProfile, batch: int = 64
) -> NDArray[np.float32]:
    """(N, 2, W) envelopes -> (N, 8 width) float32; ``fc`` of a row is the logit of that curve."""
    network.eval()
    parts = [np.zeros((0, network.fc.in_features), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(edges), batch):
            images = torch.from_numpy(coverage(edges[start : start + batch], profile))
            features = network.forward_features(images.contiguous(memory_format=torch.channels_last))
            parts.append(features.mean((2, 3)).numpy())
    return np.concatenate(parts)
