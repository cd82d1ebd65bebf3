"""The classifier: the one seam between the line and whatever runs the network.

An engine takes what the front-end made of curves and draws its own pictures, because on a GPU the raster belongs to the
device; what it saw comes back with the logits, so that an event's preview is the very picture that was judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

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
