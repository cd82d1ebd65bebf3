"""Ahead of time: engines for a GPU, built and proved before a service wants them, in the cache that it looks in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from daemon.engine.child import Child
from daemon.engine.proof import Proof
from deploy.classifier import EngineFault
from deploy.engines import Engine, NoEngine, Wish, candidates
from models.bundle import Bundle

_PROOF_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Built:
    """What became of one engine; ``problem`` is None where it is ready."""

    engine: str
    seconds: float
    problem: str | None = None


def build_ahead(bundle: Bundle, wish: Wish) -> Iterator[Built]:
    """Every engine on a GPU that ``wish`` means, the best first, each in a process of its own.

    Raises NoEngine, before anything is built, where none can be had here.
    """
    found = [engine for engine in candidates(wish) if engine.device == "cuda"]
    if not found:
        raise NoEngine("there is no GPU engine to compile here; the processor's are built at every start, in no time")
    proof = Proof.of(bundle)
    return (_build(engine, bundle, wish, proof) for engine in found)


def _build(engine: Engine, bundle: Bundle, wish: Wish, proof: Proof) -> Built:
    begun_s = time.monotonic()
    try:
        with Child() as child:
            child.build(engine, bundle, wish)
            proof.demand(child.engine, lambda signals: child.classify(signals, time.monotonic() + _PROOF_LIMIT_S))
    except (EngineFault, NoEngine) as error:
        return Built(engine.name, time.monotonic() - begun_s, str(error))
    return Built(child.engine, time.monotonic() - begun_s)
