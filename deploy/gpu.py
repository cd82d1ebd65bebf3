"""The device classifier: what engines on a GPU share, from signals over the envelope on the device to logits.

Batches are filled up to a few sizes, the buckets, so that whatever an engine prepares for a size is prepared once. The
picture of a curve does not depend on its batch, and its features only on the bucket: other sizes may take other
kernels, which round differently in the last place of half precision. One thread, one stream, pinned memory for copies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deploy.classifier import Device, EngineId, Precision, Seen, Signals, device_faults
from models.bundle import Bundle
from models.network import fold, load
from models.raster_torch import Picture, envelope

# The device network: all of the model that runs on a GPU in one piece, from envelopes to what the last layer
# reads.


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

    def __init__(self, bundle: Bundle, engine: EngineId, device: str | torch.device) -> None:
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


# The CUDA engine: the network by torch on an NVIDIA GPU, in half precision, one CUDA graph a bucket.
#
# What serves on a GPU where TensorRT is not installed or refuses the card. What half precision does to the
# verdicts: deploy/measurements/2026-11-21-engines-on-a-gpu.md.


_DTYPES: Mapping[Precision, torch.dtype] = {"fp16": torch.float16, "fp32": torch.float32}


class CudaClassifier(DeviceClassifier):
    """A :class:`deploy.classifier.Classifier` by torch on a GPU.

    Without ``graphs``, and on the device "cpu", the same step by step. Raises EngineFault when the device fails.
    """

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision = "fp16",
        device: Device = "cuda",
        graphs: bool = True,
    ) -> None:
        super().__init__(bundle, EngineId("torch", device, precision), device)
        self.dtype = _DTYPES[precision]
        self._graphs = graphs and self.stream is not None
        with device_faults(), self._on_stream():
            self._network = DeviceNetwork(bundle, self.dtype).to(self._device).eval()
        self.warm_up()

    def _prepare(self, edges: Tensor, features: Tensor) -> Callable[[], object]:
        def work() -> object:
            return features.copy_(self._network(edges))

        return recorded(work, self.stream) if self._graphs and self.stream is not None else work
