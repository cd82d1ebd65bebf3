"""The engines by torch: on the processor, where it is the reference for every other engine, and on a GPU.

*On the processor* batch norm is folded, memory is channels-last, and precision is single unless another is asked for,
as for every engine there (deploy/decisions/0010). One core is left to the acquisition software. Beside other busy
programs the waiting threads of OpenMP turn 16 ms into 150 ms, unless they are told not to spin before torch is first
imported (daemon/cli.py does).

*On a GPU* signals go over the envelope on the device to logits. Batches are filled up to a few sizes, the buckets, so
that whatever an engine prepares for a size is prepared once. The picture of a curve does not depend on its batch, and
its features only on the bucket: other sizes may take other kernels, which round differently in the last place of half
precision. One thread, one stream, pinned memory for copies.

The raster is drawn by torch there. Its envelope is gathers, minima and maxima of float32, which no device rounds, and
no atomic float operation: the bits of :mod:`models.raster` on every device, in every batch. The picture differs from
numpy's where asinh does, which numpy itself rounds differently on processors with and without AVX-512: see
``LARGEST_ROW_ERROR``. What half precision does to the verdicts: deploy/measurements/2026-11-21-engines-on-a-gpu.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deploy.classifier import (
    Device,
    EngineId,
    PictureClassifier,
    Precision,
    Seen,
    Signals,
    default_threads,
    device_faults,
)
from models.bundle import Bundle
from models.network import ResNet18, fold, load
from models.raster import RasterProfile


def bf16_in_hardware() -> bool:
    """Whether bf16 is computed and not emulated; torch 2.11 can not say, and gets False."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    known: dict[str, Any] = capabilities() if capabilities is not None else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


class TorchClassifier(PictureClassifier):
    """A :class:`deploy.classifier.Classifier` by torch on the CPU."""

    def __init__(self, bundle: Bundle, precision: Precision = "fp32", threads: int | None = None) -> None:
        super().__init__(bundle, EngineId("torch", "cpu", precision))
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        torch.set_num_threads(threads or default_threads())
        network = fold(load(bundle.width, bundle.weights))
        self._head = network.fc.weight[0].detach().double(), network.fc.bias.detach().double()
        # torch's own stub of Module.to does not list memory_format
        self._network = cast(ResNet18, cast(Any, network).to(self._dtype, memory_format=torch.channels_last))
        self.warm_up()

    def _forward(self, images: NDArray[np.float32]) -> NDArray[np.float64]:
        if len(images) == 1 and self._dtype == torch.float32:
            # a lone picture is summed in another order, and a live verdict could differ from a later one
            return self._forward(np.concatenate((images, images)))[:1]
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(images)).to(self._dtype)
            features = self._network.forward_features(x.contiguous(memory_format=torch.channels_last))
            # the last layer row by row in double: a matrix product rounds differently with the number of rows
            weight, bias = self._head
            logits = (features.float().mean((2, 3)).double() * weight).sum(1) + bias
            return cast(NDArray[np.float64], logits.numpy())


CELLS = 1 << 22  # gathered at a time, 48 MB: one long curve must not take the device's memory

#: Rows by which a picture may differ from numpy's. asinh is off by at most 1.7 units in the last place in numpy and in
#: torch on a CPU, by at most 4 on a GPU (CUDA C++ Programming Guide, table of standard functions); a unit is 5e-7 and
#: a row of the shipped profile 0.07.
LARGEST_ROW_ERROR = 5e-5


def envelope(samples: Tensor, sizes: NDArray[np.int64], profile: RasterProfile) -> Tensor:
    """B signals, one after the other as (N,) float32, and their sizes (B,) -> (B, 2, W) on the device of ``samples``.

    Equals :func:`models.raster.envelope` in every bit, except that a zero may carry the other sign. ValueError for a
    signal with fewer samples than columns and for sizes that are not those of ``samples``.
    """
    width = profile.columns
    if int(sizes.sum()) != samples.shape[0]:
        raise ValueError(f"{samples.shape[0]} samples for signals of {int(sizes.sum())} together")
    if sizes.shape[0] and int(sizes.min()) < width:
        raise ValueError(f"a signal of {int(sizes.min())} samples has fewer than the {width} columns")
    edges = torch.empty((sizes.shape[0], 2, width), dtype=torch.float32, device=samples.device)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)[: sizes.shape[0]]
    for chosen, depth in _alike(sizes, width):
        bounds = torch.from_numpy(np.stack((starts[chosen], sizes[chosen]))).to(samples.device)
        part = _gathered(samples, bounds[0, :, None], bounds[1, :, None], width, depth)
        if chosen.shape[0] == sizes.shape[0]:
            return part
        edges[torch.from_numpy(chosen).to(samples.device)] = part
    return edges


def _alike(sizes: NDArray[np.int64], width: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Signals of about the same length, so many that the gather stays bounded, and how many samples a column takes."""
    needed = -(-sizes // width) + 1  # a column's samples, rounded up, and the one before them
    depths = 2 ** np.ceil(np.log2(needed)).astype(np.int64)
    for depth in np.unique(depths):
        alike = np.flatnonzero(depths == depth)
        deepest = int(needed[alike].max())
        step = max(1, CELLS // (width * deepest))
        for start in range(0, alike.shape[0], step):
            yield alike[start : start + step], deepest


def _gathered(samples: Tensor, starts: Tensor, sizes: Tensor, width: int, depth: int) -> Tensor:
    """Signals by their starts and sizes (b, 1) -> (b, 2, W): each column looks at ``depth`` samples, some twice."""
    column = torch.arange(width + 1, device=samples.device)
    first = starts + (column * sizes + (width - 1)) // width  # (b, W + 1), where each column begins and the last ends
    before = torch.maximum(first[:, :-1] - 1, starts)  # joins the polyline
    reach = before[:, :, None] + torch.arange(depth, device=samples.device)
    lower, upper = samples[torch.minimum(reach, first[:, 1:, None] - 1)].aminmax(dim=2)
    return torch.stack((lower, upper), dim=1)


class Picture(nn.Module):
    """(B, 2, W) in signal units -> (B, 1, H, W) in [0, 1], as :func:`models.raster.coverage`; always float32 inside.

    A part of the engine on a GPU: three elementwise steps on the picture, and one cast to ``dtype`` for the network.
    """

    softness: Tensor
    bottom: Tensor
    scale: Tensor
    floor: Tensor  # (H, 1), the lower end of each row

    def __init__(self, profile: RasterProfile, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        soft = np.float32(profile.softness)
        bottom, top = (np.arcsinh(np.float32(edge) / soft) for edge in (profile.lowest, profile.highest))
        # tensors and no numbers: a GPU divides by a number as it multiplies by its reciprocal, which rounds otherwise
        self._constant("softness", soft)
        self._constant("bottom", bottom)
        self._constant("scale", np.float32(profile.rows) / (top - bottom))
        self.register_buffer("floor", torch.arange(profile.rows, dtype=torch.float32)[:, None], persistent=False)
        self._half, self._rows, self._dtype = profile.thickness / 2, float(profile.rows), dtype

    def _constant(self, name: str, value: np.float32) -> None:
        self.register_buffer(name, torch.tensor(float(value), dtype=torch.float32), persistent=False)

    def to_rows(self, edges: Tensor) -> Tensor:
        """(B, 2, W) in signal units -> rows, 0 to H; within LARGEST_ROW_ERROR of :func:`models.raster.to_rows`."""
        rows = (torch.asinh(edges / self.softness) - self.bottom) * self.scale
        return rows.clamp(0.0, self._rows)

    def forward(self, edges: Tensor) -> Tensor:
        rows = self.to_rows(edges)
        # an interval's length inside a pixel: both ends cut to the pixel, then subtracted; the same bits as numpy's way
        lower = torch.clamp((rows[:, 0] - self._half)[:, None], self.floor, self.floor + 1)
        upper = torch.clamp((rows[:, 1] + self._half)[:, None], self.floor, self.floor + 1)
        return (upper - lower)[:, None].to(self._dtype)


class DeviceNetwork(nn.Module):
    """(B, 2, W) float32 envelopes in signal units -> (B, 8 width) float32 features, averaged over the picture.

    The picture is drawn in float32 and the network computes in ``dtype``, batch norm folded, channels last: in half
    precision a row's position would be off by a sixteenth of a row.
    """

    def __init__(self, bundle: Bundle, dtype: torch.dtype) -> None:
        super().__init__()
        self.picture = Picture(bundle.profile, dtype)
        network = fold(load(bundle.width, bundle.weights))
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


_DTYPES: Mapping[Precision, torch.dtype] = {"fp16": torch.float16, "fp32": torch.float32}


class CudaClassifier(DeviceClassifier):
    """A :class:`deploy.classifier.Classifier` by torch on a GPU, one CUDA graph a bucket.

    It serves where TensorRT is not installed or refuses the card. Without ``graphs``, and on the device "cpu", the same
    step by step. Raises EngineFault when the device fails.
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
