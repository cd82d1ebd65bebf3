"""The classifier: the one seam between the line and whatever runs the network.

An engine takes what the front-end made of curves and draws its own pictures, because on a GPU the raster belongs to the
device; what it saw comes back with the logits, so that an event's preview is the very picture that was judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Signals = Sequence[NDArray[np.float32]]  # each (n,), n at least the profile's columns, in profile units

FaultKind = Literal["out_of_memory", "illegal_access", "device_lost", "wedged", "died", "wrong"]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What an engine made of B signals."""

    logits: NDArray[np.float64]  # (B,)
    edges: NDArray[np.float32]  # (B, 2, W) the envelope that the network saw, the same bits on every engine
    raster_s: float = 0.0  # of the whole batch; 0 where the raster is a part of the engine
    engine: str | None = None  # that judged this batch, where it is not the classifier's usual one
    margin: float | None = None  # what a logit may be off, where that was measured; else the precision's tolerance


class EngineFault(Exception):
    """The device, not the curve, is at fault: the same batch can be judged by another engine."""

    def __init__(self, kind: FaultKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Classifier(Protocol):
    """Signals in, logits out. One thread at a time; a new model is a new classifier."""

    @property
    def engine(self) -> str:
        """Maker, device and precision: ``torch-cpu-bf16``. Part of every event."""

    @property
    def model_id(self) -> str:
        """Of the model folder that the weights came from."""

    def classify(self, signals: Signals) -> Seen:
        """B signals -> B logits; what stands beside a signal in the batch changes nothing. Raises EngineFault."""
