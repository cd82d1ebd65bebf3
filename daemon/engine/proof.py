"""The proof: known curves with known answers, by which a device shows that it computes what it should.

The answers are those of the model's manifest for its six curves, and for ten variants of them those of single
precision on this machine's processor. The same few milliseconds of work serve at every start and, every so often, as
a canary in the stream: a device that computes wrongly without an error is the worst of all faults.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.engine.process import EngineProcess
from deploy.classifier import EngineFault, EngineId, EngineRequest, NoEngine, Seen, Signals
from deploy.engines import Engine, candidates, named
from deploy.serving import SelfTestFailed, compare, known_curves
from models.bundle import Bundle
from models.curve import Curve
from models.frontend import prepare
from models.raster import envelope

_ENVELOPE_TOLERANCE = 1e-4  # of a row's height; engines are bit-equal, and a device in error is far off


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """Signals and what they must give."""

    signals: Signals
    logits: NDArray[np.float64]  # (S,)
    edges: NDArray[np.float32]  # (S, 2, W)

    @classmethod
    def of(cls, bundle: Bundle) -> Proof:
        """For the model of ``bundle``; 0.1 s on one core. Raises SelfTestFailed when the processor itself is off."""
        known = known_curves()
        further = [_variant(curve, turn) for turn in (0.6, 1.7) for curve in known[:5]]
        prepared = prepare([*known, *further], bundle.profile)
        signals = [item.signal for item in prepared if item.signal is not None]
        exact = named("torch").build(bundle, EngineRequest(device="cpu", precision="fp32"))
        seen = exact.classify(signals)
        wanted = bundle.manifest.selftest.logits
        compare(exact.engine, [float(logit) for logit in seen.logits[: len(wanted)]], wanted)
        logits = seen.logits.copy()
        logits[: len(wanted)] = wanted
        return cls(signals, logits, envelope(signals, bundle.profile))

    def demand(self, engine: EngineId, classify: Callable[[Signals], Seen]) -> None:
        """All at once, and the first alone, must come back right; EngineFault("wrong") otherwise."""
        for count in (len(self.signals), 1):
            seen = classify(self.signals[:count])
            try:
                compare(engine, [float(logit) for logit in seen.logits], [float(one) for one in self.logits[:count]])
            except SelfTestFailed as error:
                raise EngineFault("wrong", str(error)) from None
            if seen.edges.shape != self.edges[:count].shape:
                raise EngineFault("wrong", f"{engine}: pictures of another size: {seen.edges.shape}")
            if not np.allclose(seen.edges, self.edges[:count], rtol=0.0, atol=_ENVELOPE_TOLERANCE):
                raise EngineFault("wrong", f"{engine}: known curves are drawn differently")


def _variant(curve: Curve, factor: float) -> Curve:
    """The curve of a softer or stiffer day."""
    return Curve(force=curve.force * factor, force_unit=curve.force_unit)


# ---- Ahead of time: engines for a GPU, built and proved before a service wants them, in the cache that it looks in.

_PROOF_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Built:
    """What became of one engine; ``problem`` is None where it is ready."""

    engine: str  # its full name; that of its kind where it could not be built
    seconds: float
    problem: str | None = None


def build_ahead(bundle: Bundle, wish: EngineRequest) -> Iterator[Built]:
    """Every engine on a GPU that ``wish`` means, the best first, each in a process of its own.

    Raises NoEngine, before anything is built, where none can be had here.
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


# ---- The patience: how long a device may take, and how often a lost one is tried again.


@dataclass(frozen=True, slots=True)
class EngineTimeouts:
    """All in seconds, but for the curves between two canaries."""

    deadline_s: float = 2.0  # for one batch
    first_pause_s: float = 5.0  # after a fault; doubles with each that follows
    longest_pause_s: float = 600.0  # and a device that served so long is trusted anew
    canary_s: float = 30.0  # idle time between two canaries
    canary_curves: int = 10_000  # or so many curves

    def pause_s(self, faults: int) -> float:
        """Before the next try, after so many faults in a row (from 1)."""
        return min(self.first_pause_s * 2.0 ** min(faults - 1, 30), self.longest_pause_s)


PATIENT = EngineTimeouts()
