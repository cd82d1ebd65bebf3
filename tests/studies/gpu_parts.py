"""What the parts of study gpu share: the model, the curves, the engines, and a clock that waits for the device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from daemon.bench import compare
from daemon.learn.int8 import PreparedCurves
from deploy.classifier import Classifier, EngineFault, Signals
from deploy.serving import TOLERANCE, Model, SelfTestFailed
from deploy.tensorrt_engine import TensorRtClassifier, missing
from deploy.torch_engine import (
    LARGEST_ROW_ERROR,
    CudaClassifier,
    DeviceClassifier,
    Picture,
    TorchClassifier,
    envelope,
    recorded,
)
from models.bundle import Bundle
from models.raster import coverage, to_rows
from models.raster import envelope as envelope_by_numpy

BATCHES = (1, 8, 64, 256)
Note = Callable[[Mapping[str, Any]], None]  # what was found so far, should the process not come to its end
_FEWEST = 3


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One run of the study."""

    bundle: Bundle
    device: str  # "cuda", or "cpu" to try the study itself
    curves: PreparedCurves
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


def failed(error: BaseException) -> dict[str, str]:
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


# The raster: whether the device draws what the processor draws, and what a curve costs.

_PART = 256


def compare_rasters(session: Session, note: Note) -> dict[str, Any]:
    """Curves, how many envelopes differ in a bit, the largest errors of rows and pixels, microseconds by batch size."""
    signals, profile = session.curves.signals, session.bundle.profile
    picture = Picture(profile).to(session.device)
    differ, row_error, pixel_error = 0, 0.0, 0.0
    for start in range(0, len(signals), _PART):
        part = signals[start : start + _PART]
        drawn = envelope(*_on(session, part), profile)
        expected = envelope_by_numpy(part, profile)
        differ += int((drawn.cpu().numpy() != expected).any(axis=(1, 2)).sum())
        rows, pixels = picture.to_rows(drawn).cpu().numpy(), picture(drawn).cpu().numpy()
        row_error = max(row_error, float(np.abs(rows - to_rows(expected, profile)).max()))
        pixel_error = max(pixel_error, float(np.abs(pixels - coverage(expected, profile)).max()))
    return {
        "curves": len(signals),
        "envelopes_differ": differ,
        "row_error": row_error,
        "row_error_allowed": LARGEST_ROW_ERROR,
        "pixel_error": pixel_error,
        "microseconds": {str(size): _cost(session, size, picture) for size in BATCHES},
    }


def _cost(session: Session, size: int, picture: Picture) -> dict[str, float]:
    """Of one curve of a batch: envelope from samples that lie on the device, picture, and both by numpy."""
    profile, seconds = session.bundle.profile, session.seconds
    batch = session.batch(size)
    samples, sizes = _on(session, batch)
    edges = envelope(samples, sizes, profile)
    stream = torch.cuda.current_stream() if session.has_gpu else None
    by_numpy = wall_ms(lambda: coverage(envelope_by_numpy(batch, profile), profile), seconds / 4)
    each = 1000.0 / size
    return {
        "envelope": round(each * queued_ms(lambda: envelope(samples, sizes, profile), stream, seconds / 2), 3),
        "picture": round(each * queued_ms(lambda: picture(edges), stream, seconds / 2), 3),
        "numpy": round(each * by_numpy[len(by_numpy) // 2], 3),
    }


def _on(session: Session, signals: Signals) -> tuple[torch.Tensor, NDArray[np.int64]]:
    sizes = np.array([signal.shape[0] for signal in signals], np.int64)
    return torch.from_numpy(np.concatenate(signals)).to(session.device), sizes


# The engines: how long each takes to be built and to judge a batch, and the raster's share of it.


def time_engines(session: Session, note: Note) -> dict[str, Any]:
    """``{name: {"engine", "build_s", "again_s", "batches": {size: …}} or {"failed"}}``; a failure hides no other."""
    found: dict[str, Any] = {}
    if session.has_gpu and (why := missing()) is not None:
        found["TensorRT"] = {"failed": why}
    for name, make in session.makers().items():
        try:
            begun_s = time.perf_counter()
            make()
            built_s = time.perf_counter()
            engine = make()  # what is cached is cached by now
            again_s = time.perf_counter() - built_s
            found[name] = {
                "engine": str(engine.engine),
                "build_s": round(built_s - begun_s, 3),
                "again_s": round(again_s, 3),
                "batches": {str(size): _speed(session, engine, size) for size in BATCHES},
                "bucket_difference": _between_buckets(session, engine),
            }
        except Exception as error:  # whatever a library raises
            found[name] = failed(error)
        note(found)
    return found


def _speed(session: Session, engine: DeviceClassifier, size: int) -> dict[str, Any]:
    """From signals on the host to logits on the host; and what of it the device is busy with, step by step."""
    batch = session.batch(size)
    times = wall_ms(lambda: engine.classify(batch), session.seconds)
    drawn = engine.draw(batch)
    network_ms = queued_ms(lambda: engine.infer(drawn), engine.stream, session.seconds / 2)
    envelope_ms = queued_ms(lambda: engine.draw(batch), engine.stream, session.seconds / 2)
    picture_ms = _picture_ms(session, engine, drawn)
    return {
        "p50_ms": round(times[len(times) // 2], 4),
        "p99_ms": round(times[int(0.99 * len(times))], 4),
        "per_s": round(1000.0 * size / times[len(times) // 2], 1),
        "device_ms": round(envelope_ms + network_ms, 4),
        "envelope_ms": round(envelope_ms, 4),
        "picture_ms": None if picture_ms is None else round(picture_ms, 4),  # a part of the compiled engine
        "raster_share": round((envelope_ms + (picture_ms or 0.0)) / (envelope_ms + network_ms), 3),
    }


def _picture_ms(session: Session, engine: DeviceClassifier, drawn: Any) -> float | None:
    if not isinstance(engine, CudaClassifier):
        return None
    picture = Picture(session.bundle.profile, engine.dtype).to(session.device)
    if engine.stream is None:
        return queued_ms(lambda: picture(drawn), None, session.seconds / 4)
    engine.stream.synchronize()
    return queued_ms(recorded(lambda: picture(drawn), engine.stream), engine.stream, session.seconds / 4)


def _between_buckets(session: Session, engine: DeviceClassifier) -> float:
    """The largest difference of a logit between batches of other sizes."""
    signals = session.curves.signals[:256]
    whole = engine.classify(signals).logits
    parts = [
        np.concatenate([engine.classify(signals[at : at + size]).logits for at in range(0, len(signals), size)])
        for size in (1, 8, 64)
    ]
    return float(max(np.abs(part - whole).max() for part in parts))


# The verdicts: what half precision changes, and a million curves judged again.

_CHUNK = 4096


def compare_verdicts(session: Session, note: Note) -> dict[str, Any]:
    """Of each engine: the self-test, verdicts against single precision alone and with the second look."""
    reference = TorchClassifier(session.bundle, "fp32", threads=len(os.sched_getaffinity(0)))
    wanted = reference.classify(session.curves.signals).logits
    found: dict[str, Any] = {"real": session.curves.real, "curves": len(session.curves.names)}
    for name, make in (session.makers() | session.half).items():
        try:
            found[name] = _verdicts(session, make(), reference, wanted.tolist())
        except Exception as error:  # whatever a library raises
            found[name] = failed(error)
        note(found)
    return found


def _verdicts(session: Session, engine: Classifier, reference: Classifier, wanted: list[float]) -> dict[str, Any]:
    model = Model(session.bundle, engine, reference)
    try:
        model.selftest()
        selftest = f"passed (tolerance {TOLERANCE[engine.engine.precision]:g})"
    except SelfTestFailed as error:
        selftest = str(error)
    alone = engine.classify(session.curves.signals).logits.tolist()
    looked = model.classify(session.curves.signals).logits.tolist()
    return {
        "engine": str(engine.engine),
        "selftest": selftest,
        "alone": compare(session.curves, session.bundle, wanted, alone),
        "in_service": compare(session.curves, session.bundle, wanted, looked),
    }


def rescore(session: Session, note: Note) -> dict[str, Any]:
    """So many prepared signals, as they lie in memory, by each engine: alone, and with the second look."""
    rows = _rows(session)
    reference = TorchClassifier(session.bundle, "fp32", threads=len(os.sched_getaffinity(0)))
    found: dict[str, Any] = {"curves": len(rows), "bytes": rows.nbytes}
    for name, make in session.makers().items():
        try:
            engine = make()
            model = Model(session.bundle, engine, reference)
            found[name] = {"alone_s": _through(rows, engine.classify), "in_service_s": _through(rows, model.classify)}
        except Exception as error:  # whatever a library raises
            found[name] = failed(error)
        note(found)
    return found


def _rows(session: Session) -> Any:
    """(N, samples): the curves again and again, none at the same place of memory."""
    full = [signal for signal in session.curves.signals if len(signal) == session.bundle.profile.samples]
    block = np.stack(full)
    return np.concatenate([block] * -(-session.rescore // len(block)))[: session.rescore]


def _through(rows: Any, classify: Any) -> float:
    begun_s = time.perf_counter()
    for start in range(0, len(rows), _CHUNK):
        classify(list(rows[start : start + _CHUNK]))
    return round(time.perf_counter() - begun_s, 3)
