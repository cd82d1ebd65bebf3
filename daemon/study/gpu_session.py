"""What the parts of `study gpu` share: the model, the curves, the engines, and a clock that waits for the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from daemon.learn.int8 import Curves
from deploy.classifier import EngineFault
from deploy.gpu import CudaClassifier, DeviceClassifier
from deploy.tensorrt_engine import TensorRtClassifier, missing
from models.bundle import Bundle

BATCHES = (1, 8, 64, 256)
_FEWEST = 3


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One run of the study."""

    bundle: Bundle
    device: str  # "cuda", or "cpu" to try the study itself
    curves: Curves
    seconds: float  # each repeated measurement takes so long
    rescore: int  # curves
    cache: Path  # of compiled engines, empty at first
    pause_s: float = 1.0  # before a lost device is tried again

    @property
    def has_gpu(self) -> bool:
        return self.device == "cuda"

    def makers(self) -> dict[str, Callable[[], DeviceClassifier]]:
        """Name in the tables -> what builds it, the best first; TensorRT only where it is installed."""
        if not self.has_gpu:
            return {"step by step": lambda: CudaClassifier(self.bundle, "fp32", "cpu")}
        graphs: dict[str, Callable[[], DeviceClassifier]] = {
            "CUDA graphs": lambda: CudaClassifier(self.bundle),
            "step by step": lambda: CudaClassifier(self.bundle, graphs=False),
        }
        if missing():
            return graphs
        return {
            "TensorRT": lambda: TensorRtClassifier(self.bundle, self.cache),
            "TensorRT, no graphs": lambda: TensorRtClassifier(self.bundle, self.cache, graphs=False),
            **graphs,
        }

    @property
    def half(self) -> dict[str, Callable[[], DeviceClassifier]]:
        """What half precision does to a logit can be seen on the processor, slowly."""
        return {} if self.has_gpu else {"half precision": lambda: CudaClassifier(self.bundle, "fp16", "cpu")}

    def batch(self, size: int) -> list[NDArray[np.float32]]:
        """So many signals, over and over."""
        signals = self.curves.signals
        return [signals[place % len(signals)] for place in range(size)]


def failed(error: Exception) -> dict[str, str]:
    """What stands in the place of figures: one failure hides no other."""
    kind = error.kind if isinstance(error, EngineFault) else type(error).__name__
    return {"failed": " ".join(f"{kind}: {error}".split())[:400]}


def wall_ms(work: Callable[[], object], seconds: float) -> list[float]:
    """Of each repeat, in order of size; ``work`` itself waits for the device."""
    work()
    taken: list[float] = []
    until_s = time.perf_counter() + seconds
    while len(taken) < _FEWEST or time.perf_counter() < until_s:
        begun_s = time.perf_counter()
        work()
        taken.append(1000.0 * (time.perf_counter() - begun_s))
    return sorted(taken)


def queued_ms(work: Callable[[], object], stream: torch.cuda.Stream | None, seconds: float) -> float:
    """Of one call among many queued: what the device needs, or the launching where that is slower."""
    if stream is None:
        times = wall_ms(work, seconds)
        return times[len(times) // 2]

    def alone() -> None:
        work()
        stream.synchronize()

    count = max(_FEWEST, int(500.0 * seconds / max(wall_ms(alone, seconds / 2)[0], 1e-3)))
    event: Any = torch.cuda.Event  # torch's stub of it has no types
    begun, ended = event(enable_timing=True), event(enable_timing=True)
    with torch.cuda.stream(stream):
        begun.record()
        for _ in range(count):
            work()
        ended.record()
    ended.synchronize()
    return float(begun.elapsed_time(ended)) / count
