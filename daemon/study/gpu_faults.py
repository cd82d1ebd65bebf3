"""`study gpu`, the faults: the device truly breaks under a batch; who judges it, and when the device is back."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from daemon.engine.guarded import GuardedClassifier
from daemon.engine.proof import Patience
from daemon.study.gpu_faulty import CPU, CUDA, MAGIC
from daemon.study.gpu_session import Session, failed
from daemon.study.gpu_swap import best_engine
from deploy.engines import Wish
from deploy.torch_engine import TorchClassifier

_BATCH = 32
_LONGEST_S = 120.0  # for a device to come back


def measure(session: Session) -> dict[str, Any]:
    """``{fault: {"answered_s", "by", "back_s", …}}``; the deadline is part of ``answered_s`` where a call is wedged."""
    found: dict[str, Any] = {}
    for fault in CUDA if session.has_gpu else CPU:
        try:
            found[fault] = _break(session, fault)
        except Exception as error:  # whatever a library raises
            found[fault] = failed(error)
    return found


def _break(session: Session, fault: str) -> dict[str, Any]:
    engine, patience = best_engine(session), Patience(first_pause_s=session.pause_s)
    wish = Wish(device=engine.device, engine=engine.name, cache=session.cache)
    fallback = TorchClassifier(session.bundle, "fp32", threads=1)
    command = (sys.executable, "-P", "-m", "daemon.study.gpu_faulty", fault)
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
            "by": broken.engine or guarded.engine,
            "same_verdicts": bool(np.abs(broken.logits[1:] - wanted[1:]).max() < 0.1),
            "back_s": None if back_s is None else round(back_s, 3),
            "pause_s": patience.first_pause_s,
            "batches_by_fallback": between,
            "same_bits_again": bool(np.array_equal(again.logits, usual.logits)),
            "faults": dict(guarded.standing.faults),
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
