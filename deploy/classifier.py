"""The classifier: the one seam between the line and whatever runs the network, and what engines on the CPU share.

An engine takes what the front-end made of curves and draws its own pictures, because on a GPU the raster belongs to the
device; what it saw comes back with the logits, so that an event's preview is the very picture that was judged.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.raster import coverage, envelope

Signals = Sequence[NDArray[np.float32]]  # each (n,), n at least the profile's columns, in profile units

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
FaultKind = Literal["out_of_memory", "illegal_access", "device_lost", "wedged", "died", "wrong"]


@dataclass(frozen=True, slots=True)
class EngineId:
    """Which engine computes, as events, metrics and the status name it: ``tensorrt-rtx-cuda-fp16``."""

    maker: str  # "tensorrt-rtx"
    device: Device
    precision: Precision

    def __str__(self) -> str:
        return f"{self.maker}-{self.device}-{self.precision}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse. Raises ValueError for what names no engine."""
        match text.rsplit("-", 2):
            case [maker, ("cpu" | "cuda") as device, ("fp32" | "bf16" | "fp16" | "int8") as precision] if maker:
                return cls(maker, device, precision)
        raise ValueError(f"no engine: {text!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What an engine made of B signals."""

    logits: NDArray[np.float64]  # (B,)
    edges: NDArray[np.float32]  # (B, 2, W) the envelope that the network saw, the same bits on every engine
    raster_s: float = 0.0  # of the whole batch; 0 where the raster is a part of the engine
    engine: EngineId | None = None  # that judged this batch, where it is not the classifier's usual one
    margin: float | None = None  # what a logit may be off, where that was measured; else the precision's tolerance


class EngineFault(Exception):
    """The device, not the curve, is at fault: the same batch can be judged by another engine."""

    def __init__(self, kind: FaultKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Classifier(Protocol):
    """Signals in, logits out. One thread at a time; a new model is a new classifier."""

    @property
    def engine(self) -> EngineId:
        """Which it is. Part of every event."""

    @property
    def model_id(self) -> str:
        """Of the model folder that the weights came from."""

    def classify(self, signals: Signals) -> Seen:
        """B signals -> B logits; what stands beside a signal in the batch changes nothing. Raises EngineFault."""


# Device faults: what torch and TensorRT raise when a GPU fails, in the words that the rest of the program knows.
#
# CUDA's numbers are those of its runtime API, ``cudaError``. After an illegal access every later call of the
# process fails too, so nothing is tried again here: whoever holds the process replaces it.


#: Kind, CUDA's numbers for it, and words by which it is known where there is no number.
_KINDS: tuple[tuple[FaultKind, frozenset[int], tuple[str, ...]], ...] = (
    (
        "out_of_memory",
        frozenset({2}),
        ("out of memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed", "outofmemory", "bad_alloc"),
    ),
    ("wedged", frozenset({702}), ("launch timed out", "timed out and was terminated")),
    (
        "illegal_access",
        frozenset({700, 709, 710, 714, 715, 716, 717, 718, 719}),  # illegal address to launch failure
        (
            "illegal memory access",
            "illegal address",
            "illegal instruction",
            "misaligned address",
            "device-side assert",
            "unspecified launch failure",
            "hardware stack error",
            "execution_failed",
            "err 700",
        ),
    ),
)
_OF_CUDA = ("cuda", "cudnn", "cublas", "nvml", "nvidia", "gpu")


def fault_of(error: Exception) -> EngineFault | None:
    """The fault that an exception of torch or TensorRT means; None when it is not the device's.

    A fault of CUDA that is not known by number or text is ``device_lost``: what cannot be named cannot be trusted.
    """
    if isinstance(error, EngineFault):
        return error
    if not isinstance(error, (RuntimeError, MemoryError, AssertionError)):
        return None
    code = getattr(error, "error_code", None)  # torch.AcceleratorError has it
    text = " ".join(f"{type(error).__name__}: {error}".split())
    plain = text.lower()
    for kind, codes, words in _KINDS:
        if code in codes or (code is None and any(word in plain for word in words)):
            return EngineFault(kind, _short(text))
    if code is not None or any(word in plain for word in _OF_CUDA):
        return EngineFault("device_lost", _short(text))
    return None


def _short(text: str) -> str:
    """One line, without torch's advice on how to debug itself."""
    for advice in ("Search for `cuda", "CUDA kernel errors might", "For debugging consider", "Compile with `TORCH"):
        text = text.partition(advice)[0]
    return text.strip()[:300]


@contextmanager
def device_faults() -> Iterator[None]:
    """Inside it a failing device raises :class:`EngineFault`; what is no fault of the device passes as it is."""
    try:
        yield
    except Exception as error:
        fault = fault_of(error)
        if fault is None or fault is error:
            raise
        raise fault from error


class NoEngine(Exception):
    """Nothing that was asked for can run here; the text says why, engine by engine."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What the user asked for; ``cache`` is where compiled engines are kept (the state's ``engines``)."""

    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    cache: Path | None = None

    def precision_or(self, usual: Precision) -> Precision:
        """That which was asked for; ``usual`` where none was."""
        return usual if self.precision == "auto" else cast(Precision, self.precision)


ANY = EngineRequest()


# The cores: how many threads an engine may keep busy on a machine that belongs to an instrument.

CGROUP = Path("/sys/fs/cgroup")


def default_threads() -> int:
    """The cores this process may use, less one for the instrument; at least one."""
    return max(1, usable_cores() - 1)


def usable_cores() -> int:
    """Those it may be scheduled on, or fewer where its control group has bought less time than they have.

    A container with two cores' worth of time on a machine of 64 sees all 64, and is halted when it uses them.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *quotas(_own_group())]))


def quotas(group: Path) -> Iterator[int]:
    """Whole cores, rounded up, that a control group (v2), or one above it, is limited to; none where none is."""
    for folder in (group, *group.parents):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            yield -(-int(quota) // int(period))


def _own_group() -> Path:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    return next((CGROUP / line[4:] for line in lines if line.startswith("0::/")), CGROUP)


# The heap of a process that judges batch after batch: what one frees is kept for the next.

#: Of mallopt(3). Blocks above the first still go back to the system at once; so does what lies free above the second.
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 32 << 20
_M_TRIM_THRESHOLD, _KEPT_BYTES = -1, 128 << 20
#: The main thread's heap, and one for all others.
_M_ARENA_MAX, _HEAPS = -8, 2


def keep_freed() -> None:
    """Have malloc keep what a batch frees.

    By default it gives every picture and every layer's output back to the system, which hands them out again page by
    page, each zeroed first: that way torch takes 0.9 ms a picture in batches of 16, and 0.6 ms this way.
    """
    with contextlib.suppress(OSError, AttributeError):  # another libc than glibc has its own ways
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def share_heaps() -> None:
    """Have all threads but the main one allocate from one heap; before they begin, for a heap that is there stays.

    Malloc makes up to eight for every core, gives a thread the next in turn, and each keeps what it held at most:
    threads that load one model after the other would leave that in all of them.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _HEAPS)


# The picture classifier: what engines on the CPU share, from signals over pictures to logits.

CHUNK = 16  # pictures at a time: 2 MB at 256 x 128, which stays in the caches; more are slower


class PictureClassifier(ABC):
    """A :class:`deploy.classifier.Classifier` that draws with numpy; subclasses bring the network."""

    def __init__(self, bundle: Bundle, engine: EngineId, margin: float | None = None) -> None:
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
