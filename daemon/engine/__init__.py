"""Engines that may fail: those on a GPU run in a process of their own, guarded, with the processor as their fallback.

See deploy/decisions/0008. Engines on the processor run where they are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from daemon.common.text import first_line
from daemon.engine.supervisor import PATIENT, EngineProcess, EngineStatus, EngineTimeouts, GuardedClassifier, Proof
from deploy.classifier import Classifier, EngineFault, EngineRequest, NoEngine
from deploy.engines import Engine, candidates
from deploy.serving import Build, Model
from models.bundle import Bundle

__all__ = [
    "PATIENT",
    "EngineStatus",
    "EngineTimeouts",
    "GuardedClassifier",
    "build_ahead",
    "builder",
    "engine_status",
]

_PROOF_LIMIT_S = 60.0


def builder(patience: EngineTimeouts, command: tuple[str, ...] | None = None) -> Build:
    """What ``Model.load`` builds engines with; ``command`` starts another engine process than ours."""

    def build(engine: Engine, bundle: Bundle, wish: EngineRequest) -> Classifier:
        if engine.device == "cpu":
            return _here(engine, bundle, wish)
        fallback = Model.of(bundle, replace(wish, device="cpu", engine="auto", precision="auto"), _here).classifier
        return GuardedClassifier(engine, bundle, wish, fallback, patience, command)

    return build


def _here(engine: Engine, bundle: Bundle, wish: EngineRequest) -> Classifier:
    """In this process; what its library raises makes the next engine serve, not the service fail."""
    try:
        return engine.build(bundle, wish)
    except (EngineFault, NoEngine):
        raise
    except Exception as error:
        raise EngineFault("died", first_line(error)) from error


def engine_status(model: Model) -> EngineStatus:
    """Who judges for this model now, and why not a better one."""
    classifier = model.classifier
    own = classifier.status if isinstance(classifier, GuardedClassifier) else EngineStatus(model.engine, (), {})
    return replace(own, troubles=(*model.passed_over, *own.troubles))


@dataclass(frozen=True, slots=True)
class Built:
    """What became of one engine; ``problem`` is None where it is ready."""

    engine: str
    seconds: float
    problem: str | None = None


def build_ahead(bundle: Bundle, wish: EngineRequest) -> Iterator[Built]:
    """Every engine on a GPU that ``wish`` means, the best first, each in a process of its own, proved there.

    They lie in the cache that a service looks in. Raises NoEngine, before anything is built, where none can
    be had here.
    """
    found = [engine for engine in candidates(wish) if engine.device == "cuda"]
    if not found:
        raise NoEngine("there is no GPU engine to compile here; the processor's are built at every start, in no time")
    proof = Proof.of(bundle)
    return (_build(engine, bundle, wish, proof) for engine in found)


def _build(engine: Engine, bundle: Bundle, wish: EngineRequest, proof: Proof) -> Built:
    begun_s = time.monotonic()
    try:
        with EngineProcess() as child:
            child.build(engine, bundle, wish)
            proof.demand(child.engine, lambda signals: child.classify(signals, time.monotonic() + _PROOF_LIMIT_S))
    except (EngineFault, NoEngine) as error:
        return Built(engine.name, time.monotonic() - begun_s, str(error))
    return Built(str(child.engine), time.monotonic() - begun_s)
