"""The device classifier: what engines on a GPU share, from signals over the envelope on the device to logits.

Batches are filled up to a few sizes, the buckets, so that whatever an engine prepares for a size is prepared once. The
picture of a curve does not depend on its batch, and its features only on the bucket: other sizes may take other
kernels, which round differently in the last place of half precision. One thread, one stream, pinned memory for copies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deploy.classifier import Seen, Signals
from deploy.device_faults import device_faults
from deploy.device_network import Head
from models.bundle import Bundle
from models.raster_torch import envelope

BUCKETS = (1, 8, 32, 64, 256)
_SAMPLES = 1 << 17  # of pinned memory at first: 256 signals of the shipped profile


@dataclass(frozen=True, slots=True)
class Slot:
    """One bucket, ready: fill ``edges``, call ``run``, find the features of every row in ``features``."""

    edges: Tensor  # (bucket, 2, W) float32 on the device; rows beyond the batch hold what an earlier one left there
    features: Tensor  # (bucket, 8 width) float32 on the device
    run: Callable[[], object]


class DeviceClassifier(ABC):
    """A :class:`deploy.classifier.Classifier` that draws on the device; subclasses bring the network."""

    def __init__(self, bundle: Bundle, engine: str, device: str | torch.device) -> None:
        self.engine, self.model_id = engine, bundle.id
        self._profile, self._head = bundle.profile, Head(bundle)
        self._features = 8 * bundle.width
        self._device = torch.device(device)
        self._slots: dict[int, Slot] = {}
        with device_faults():
            stream: Any = torch.cuda.Stream  # torch's stub of it has no types
            self.stream: torch.cuda.Stream | None = stream(self._device) if self._device.type == "cuda" else None
            self._samples = self._pinned(_SAMPLES)
            self._seen = self._pinned(BUCKETS[-1], 2, bundle.profile.columns)
            self._found = self._pinned(BUCKETS[-1], self._features)

    def classify(self, signals: Signals) -> Seen:
        """B signals -> their logits and envelopes; ValueError for a signal with fewer samples than columns."""
        edges = np.empty((len(signals), 2, self._profile.columns), np.float32)
        logits = np.empty(len(signals), np.float64)
        for start in range(0, len(signals), BUCKETS[-1]):
            part = slice(start, start + BUCKETS[-1])
            edges[part], logits[part] = self._judge(signals[part])
        return Seen(logits, edges)

    def warm_up(self) -> None:
        """Prepares every bucket: the first call of each is slow, and must not be on a curve's time."""
        flat = np.zeros(self._profile.samples, np.float32)
        for bucket in BUCKETS:
            self.classify([flat] * bucket)

    def _judge(self, signals: Signals) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """At most a bucket of signals -> views of their edges and their logits, good until the next call."""
        count = len(signals)
        with device_faults():
            drawn = self.draw(signals)
            features = self.infer(drawn)
            with self._on_stream():
                self._seen[:count].copy_(drawn, non_blocking=True)
                self._found[:count].copy_(features, non_blocking=True)
            if self.stream is not None:
                self.stream.synchronize()
        return self._seen[:count].numpy(), self._head.logits(self._found[:count].numpy())

    def draw(self, signals: Signals) -> Tensor:
        """At most a bucket of signals -> their envelopes (b, 2, W) on the device; does not wait for it."""
        with torch.no_grad(), self._on_stream():
            return envelope(*self._upload(signals), self._profile)

    def infer(self, drawn: Tensor) -> Tensor:
        """Envelopes of at most a bucket -> a view of their features (b, 8 width); good until the next call."""
        count = drawn.shape[0]
        with torch.no_grad(), self._on_stream():
            slot = self._slot(next(bucket for bucket in BUCKETS if bucket >= count))
            slot.edges[:count].copy_(drawn)
            slot.run()
            return slot.features[:count]

    def _upload(self, signals: Signals) -> tuple[Tensor, NDArray[np.int64]]:
        sizes = np.array([signal.shape[0] for signal in signals], np.int64)
        total = int(sizes.sum())
        if total > self._samples.shape[0]:
            self._samples = self._pinned(total)
        np.concatenate(signals, out=self._samples.numpy()[:total])
        return self._samples[:total].to(self._device, non_blocking=True), sizes

    def _slot(self, bucket: int) -> Slot:
        if bucket not in self._slots:
            edges = torch.zeros((bucket, 2, self._profile.columns), dtype=torch.float32, device=self._device)
            features = torch.zeros((bucket, self._features), dtype=torch.float32, device=self._device)
            self._slots[bucket] = Slot(edges, features, self._prepare(edges, features))
        return self._slots[bucket]

    def _pinned(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, pin_memory=self._device.type == "cuda")

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    @abstractmethod
    def _prepare(self, edges: Tensor, features: Tensor) -> Callable[[], object]:
        """What computes ``features`` (bucket, 8 width) from ``edges`` (bucket, 2, W), on the current stream."""


def recorded(work: Callable[[], object], stream: torch.cuda.Stream) -> Callable[[], object]:
    """``work`` as a CUDA graph, played by one call: hundreds of launches cost more than the network at batch 1."""
    with torch.cuda.stream(stream):
        for _ in range(3):  # algorithms are chosen and memory is taken before the recording
            work()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        work()
    return graph.replay
