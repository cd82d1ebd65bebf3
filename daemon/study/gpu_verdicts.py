"""`study gpu`, the verdicts: what half precision changes, and a million curves judged again."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from daemon.bench.harness import compare
from daemon.study.gpu_session import Session, failed
from deploy.classifier import Classifier
from deploy.serving import Model, SelfTestFailed, tolerance_of
from deploy.torch_engine import TorchClassifier

_CHUNK = 4096


def measure(session: Session) -> dict[str, Any]:
    """Of each engine: the self-test, verdicts against single precision alone and with the second look."""
    reference = TorchClassifier(session.bundle, "fp32", threads=len(os.sched_getaffinity(0)))
    wanted = reference.classify(session.curves.signals).logits
    found: dict[str, Any] = {"real": session.curves.real, "curves": len(session.curves.names)}
    for name, make in (session.makers() | session.half).items():
        try:
            found[name] = _verdicts(session, make(), reference, wanted.tolist())
        except Exception as error:  # whatever a library raises
            found[name] = failed(error)
    return found


def _verdicts(session: Session, engine: Classifier, reference: Classifier, wanted: list[float]) -> dict[str, Any]:
    model = Model(session.bundle, engine, reference)
    try:
        model.selftest()
        selftest = f"passed (tolerance {tolerance_of(engine.engine):g})"
    except SelfTestFailed as error:
        selftest = str(error)
    alone = engine.classify(session.curves.signals).logits.tolist()
    looked = model.classify(session.curves.signals).logits.tolist()
    return {
        "engine": engine.engine,
        "selftest": selftest,
        "alone": compare(session.curves, session.bundle, wanted, alone),
        "in_service": compare(session.curves, session.bundle, wanted, looked),
    }


def rescore(session: Session) -> dict[str, Any]:
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
