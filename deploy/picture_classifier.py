"""The picture classifier: what engines on the CPU share, from signals over pictures to logits."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from deploy.classifier import Seen, Signals
from deploy.heap import keep_freed
from models.bundle import Bundle
from models.raster import coverage, envelope

CHUNK = 16  # pictures at a time: 2 MB at 256 x 128, which stays in the caches; more are slower


class PictureClassifier(ABC):
    """A :class:`deploy.classifier.Classifier` that draws with numpy; subclasses bring the network."""

    def __init__(self, bundle: Bundle, engine: str, margin: float | None = None) -> None:
        keep_freed()
        self._profile = bundle.profile
        self._shape = (1, bundle.profile.rows, bundle.profile.columns)
        self.engine, self._margin = engine, margin
        self.model_id = bundle.id

    def classify(self, signals: Signals) -> Seen:
        """B signals -> their logits and envelopes; ValueError for a signal with fewer samples than columns."""
        begun_s = time.perf_counter()
        edges = envelope(signals, self._profile)
        raster_s = time.perf_counter() - begun_s
        logits = np.zeros(len(signals), np.float64)
        for start in range(0, len(signals), CHUNK):
            begun_s = time.perf_counter()
            images = coverage(edges[start : start + CHUNK], self._profile)
            raster_s += time.perf_counter() - begun_s
            logits[start : start + CHUNK] = self.logits_of(images)
        return Seen(logits, edges, raster_s, margin=self._margin)

    def logits_of(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """(B, 1, H, W) float32 in [0, 1] -> (B,); ValueError when the pictures are not of the profile's size."""
        if images.shape[1:] != self._shape:
            raise ValueError(f"pictures are {images.shape[1:]}, the model wants {self._shape}")
        parts = [self._forward(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float64)

    def warm_up(self) -> None:
        """The first call is slow: not on a curve's time."""
        for count in (1, 8):
            self.logits_of(np.zeros((count, *self._shape), np.float32))

    @abstractmethod
    def _forward(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        """(b, 1, H, W), b from 1 to CHUNK, -> (b,)."""
