"""`study gpu`, the engines: how long each takes to be built and to judge a batch, and the raster's share of it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from daemon.study.gpu_session import BATCHES, Session, failed, queued_ms, wall_ms
from deploy.gpu import CudaClassifier, DeviceClassifier, recorded
from deploy.tensorrt_engine import missing
from models.raster_torch import Picture


def measure(session: Session) -> dict[str, Any]:
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
                "engine": engine.engine,
                "build_s": round(built_s - begun_s, 3),
                "again_s": round(again_s, 3),
                "batches": {str(size): _speed(session, engine, size) for size in BATCHES},
                "bucket_difference": _between_buckets(session, engine),
            }
        except Exception as error:  # whatever a library raises
            found[name] = failed(error)
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
