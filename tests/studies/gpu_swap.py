"""Study gpu, new weights: a compiled engine built, taken from the cache, refitted, and swapped in under load."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from daemon.engine import EngineTimeouts, GuardedClassifier
from deploy.classifier import EngineRequest, Signals
from deploy.engines import Engine, named
from deploy.tensorrt_engine import TensorRtClassifier, bindings_of, build, flavours_here, missing
from deploy.torch_engine import DeviceNetwork, TorchClassifier
from tests.studies.gpu_faulty import CPU, CUDA, MAGIC
from tests.studies.gpu_parts import Note, Session, failed

_RATE_PER_S = 200.0


def plans(session: Session, note: Note) -> dict[str, Any]:
    """Seconds that TensorRT needs to compile the model, to load it, and to give a loaded one other weights."""
    if not session.has_gpu or (why := missing()) is not None:
        return {"skipped": why if session.has_gpu else "no GPU"}
    trt = bindings_of(flavours_here()[0])
    logger = trt.Logger(trt.Logger.ERROR)
    note({"library": f"{trt.__name__} {trt.__version__}", "accepted": _accepts(trt, logger)})
    runtime, columns = trt.Runtime(logger), session.bundle.profile.columns
    network = DeviceNetwork(session.bundle, torch.float16).to(session.device)
    begun_s = time.perf_counter()
    plan = build(network, columns)
    built_s = time.perf_counter()
    engine = runtime.deserialize_cuda_engine(plan)
    loaded_s = time.perf_counter()
    found: dict[str, Any] = {
        "library": f"{trt.__name__} {trt.__version__}",
        "bytes": len(plan),
        "build_s": round(built_s - begun_s, 3),
        "load_s": round(loaded_s - built_s, 3),
        "accepted": engine is not None,
    }
    note(found)
    try:
        found["refit"] = _refit(trt, logger, runtime, build(network, columns, refittable=True))
    except Exception as error:  # whatever the library raises: it is what is to be found out
        found["refit"] = failed(error)
    return found


def _accepts(trt: Any, logger: Any) -> bool:
    """Whether the library builds and loads anything at all for this card: a network of one layer."""
    builder = trt.Builder(logger)
    network, config = builder.create_network(0), builder.create_builder_config()
    layer = network.add_identity(network.add_input("x", trt.float32, (1, 1, 32, 32)))
    network.mark_output(layer.get_output(0))
    plan = builder.build_serialized_network(network, config)
    return plan is not None and trt.Runtime(logger).deserialize_cuda_engine(plan) is not None


def _refit(trt: Any, logger: Any, runtime: Any, plan: bytes) -> dict[str, Any]:
    """Zeros for weights: the time is the same."""
    engine = runtime.deserialize_cuda_engine(plan)
    begun_s = time.perf_counter()
    refitter = trt.Refitter(engine, logger)
    names = list(refitter.get_all_weights())
    for name in names:
        wanted = refitter.get_weights_prototype(name)
        values = np.zeros(wanted.size, trt.nptype(wanted.dtype))
        refitter.set_named_weights(name, trt.Weights(values))
    done = bool(refitter.refit_cuda_engine())
    return {"tensors": len(names), "done": done, "refit_s": round(time.perf_counter() - begun_s, 3)}


def swap(session: Session, _note: Note) -> dict[str, Any]:
    """A second engine process is built, not from the cache, beside one that judges 200 curves/s, and then takes over.

    The longest wait between two answers counts, at any time of it.
    """
    engine = best_engine(session)
    fallback = TorchClassifier(session.bundle, "fp32", threads=1)

    def made(kept: Path | None) -> GuardedClassifier:
        wish = EngineRequest(device=engine.device, engine=engine.name, cache=kept)
        return GuardedClassifier(engine, session.bundle, wish, fallback, EngineTimeouts())

    fresh: list[GuardedClassifier] = []
    builder = threading.Thread(target=lambda: fresh.append(made(None)))
    load, old = _Load(session.batch(1)), made(session.cache)
    try:
        load.run(old, load.after(session.seconds))
        begun_s = time.perf_counter()
        builder.start()
        load.run(old, lambda: not builder.is_alive())
        beside_s = time.perf_counter() - begun_s
        if not fresh:
            return {"failed": "the second engine could not be built"}
        load.run(fresh[0], load.after(session.seconds))
    finally:
        for guarded in (old, *fresh):
            guarded.close()
    return {"engine": str(old.engine), "beside_s": round(beside_s, 3), **load.found()}


class _Load:
    """One curve after the other at a steady rate, and when each was answered."""

    def __init__(self, batch: Signals) -> None:
        self._batch, self._answered_s, self._instead = batch, list[float](), 0

    def run(self, classifier: GuardedClassifier, is_over: Callable[[], bool]) -> None:
        while not is_over():
            begun_s = time.perf_counter()
            self._instead += classifier.classify(self._batch).engine is not None
            self._answered_s.append(time.perf_counter())
            time.sleep(max(0.0, begun_s + 1.0 / _RATE_PER_S - time.perf_counter()))

    def after(self, seconds: float) -> Callable[[], bool]:
        until_s = time.perf_counter() + seconds
        return lambda: time.perf_counter() >= until_s

    def found(self) -> dict[str, Any]:
        gaps_ms = 1000.0 * np.diff(self._answered_s)
        return {
            "answers": len(self._answered_s),
            "by_fallback": self._instead,
            "longest_gap_ms": round(float(gaps_ms.max()), 2),
            "p99_gap_ms": round(float(np.quantile(gaps_ms, 0.99)), 2),
        }


@cache
def best_engine(session: Session) -> Engine:
    """The best that this GPU runs; torch's own where the study only tries itself."""
    if not session.has_gpu:
        return named("torch")
    with contextlib.suppress(Exception):  # TensorRT may refuse the card
        TensorRtClassifier(session.bundle, session.cache)
        return named("tensorrt")
    return named("cuda")


# The faults: the device truly breaks under a batch; who judges it, and when the device is back.

_BATCH = 32
_LONGEST_S = 120.0  # for a device to come back


def cause_faults(session: Session, note: Note) -> dict[str, Any]:
    """``{fault: {"answered_s", "by", "back_s", …}}``; the deadline is part of ``answered_s`` where a call is wedged."""
    found: dict[str, Any] = {}
    for fault in CUDA if session.has_gpu else CPU:
        try:
            found[fault] = _break(session, fault)
        except Exception as error:  # whatever a library raises
            found[fault] = failed(error)
        note(found)
    return found


def _break(session: Session, fault: str) -> dict[str, Any]:
    engine, patience = best_engine(session), EngineTimeouts(first_pause_s=session.pause_s)
    wish = EngineRequest(device=engine.device, engine=engine.name, cache=session.cache)
    fallback = TorchClassifier(session.bundle, "fp32", threads=1)
    command = (sys.executable, "-P", "-m", "tests.studies.gpu_faulty", fault)
    guarded = GuardedClassifier(engine, session.bundle, wish, fallback, patience, command)
    try:
        batch = session.batch(_BATCH)
        wanted = fallback.classify(batch).logits
        usual = guarded.classify(batch)
        magic = batch[0].copy()
        magic[0] = MAGIC
        begun_s = time.perf_counter()
        broken = guarded.classify([magic, *batch[1:]])
        answered_s = time.perf_counter() - begun_s
        back_s, between = _until_back(guarded, batch, begun_s)
        again = guarded.classify(batch)
        return {
            "answered_s": round(answered_s, 3),
            "by": str(broken.engine or guarded.engine),
            "same_verdicts": bool(np.abs(broken.logits[1:] - wanted[1:]).max() < 0.1),
            "back_s": None if back_s is None else round(back_s, 3),
            "pause_s": patience.first_pause_s,
            "batches_by_fallback": between,
            "same_bits_again": bool(np.array_equal(again.logits, usual.logits)),
            "faults": dict(guarded.status.faults),
        }
    finally:
        guarded.close()


def _until_back(guarded: GuardedClassifier, batch: Any, begun_s: float) -> tuple[float | None, int]:
    """Seconds from the fault until the device judges again, and how many batches another judged meanwhile."""
    between = 0
    while time.perf_counter() - begun_s < _LONGEST_S:
        if guarded.classify(batch).engine is None:
            return time.perf_counter() - begun_s, between
        between += 1
        time.sleep(0.05)
    return None, between
