"""The classifier: the one seam between the line and whatever runs the network."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Classifier(Protocol):
    """Pictures in, logits out. One thread at a time; a new model is a new classifier."""

    @property
    def engine(self) -> str:
        """What computes, on what, how precisely: ``torch-cpu-bf16``. Part of every event."""

    @property
    def model_id(self) -> str:
        """Of the model folder that the weights came from."""

    def classify(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """(B, 1, H, W) float32 in [0, 1] -> (B,) float64 logits; the batch-mates of a picture change nothing."""
