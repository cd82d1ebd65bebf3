"""One engine process, as the service holds it, and the known curves by which it proves that it computes what it should.

Every wait has an end, and every end is an EngineFault.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.common.ending import Closing
from daemon.processes import frames
from daemon.processes.child import launch
from deploy.classifier import EngineFault, EngineId, EngineRequest, NoEngine, Seen, Signals
from deploy.engines import Engine, named
from deploy.serving import SelfTestFailed, compare, known_curves
from models.bundle import Bundle
from models.curve import Curve
from models.frontend import prepare
from models.raster import envelope

#: What is started; the number of the inherited socket follows it.
COMMAND = (sys.executable, "-P", "-m", "daemon.engine.worker")
#: A compiled engine takes minutes to build on a slow machine; longer than this it never ends.
BUILD_LIMIT_S = 1800.0
_EMPTY = np.zeros(0, np.float32)


class EngineProcess(Closing):
    """Started when made; for one thread, which must outlive it (the kernel ends the process with that thread).

    ``close`` may be called from any thread and ends it at once, whatever it is at.
    """

    def __init__(self, command: tuple[str, ...] | None = None) -> None:
        self.build_s = 0.0
        self._child = launch(command or COMMAND, {})
        self._engine: EngineId | None = None

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def engine(self) -> EngineId:
        """Which was built. Raises EngineFault before."""
        if self._engine is None:
            raise EngineFault("died", "no engine was built")
        return self._engine

    def build(self, engine: Engine, bundle: Bundle, wish: EngineRequest, limit_s: float = BUILD_LIMIT_S) -> None:
        """Have it build an engine for the model in the bundle's folder. Raises EngineFault and NoEngine."""
        asked = asdict(wish) | {"cache": str(wish.cache) if wish.cache else None}
        request = {"ask": "build", "engine": engine.name, "wish": asked}
        request |= {"folder": str(bundle.folder.resolve()), "model": bundle.id}
        said, _ = self._ask(request, [], time.monotonic() + limit_s)
        if "refused" in said:
            raise NoEngine(said["refused"])
        self._engine, self.build_s = EngineId.parse(said["engine"]), said["build_s"]

    def classify(self, signals: Signals, until_s: float) -> Seen:
        """As a Classifier's, by ``until_s`` of the monotonic clock. Raises EngineFault, and ValueError for a signal."""
        request = {"ask": "classify", "lengths": [len(signal) for signal in signals]}
        samples = np.concatenate(signals, dtype=np.float32) if len(signals) else _EMPTY
        said, arrays = self._ask(request, [samples], until_s)
        if "refused" in said:
            raise ValueError(said["refused"])
        if len(arrays) != 2 or arrays[0].shape != (len(signals),) or arrays[1].shape[:1] != (len(signals),):
            raise EngineFault("wrong", f"{len(signals)} curves came back as {[array.shape for array in arrays]}")
        logits, edges = arrays[0].astype(np.float64, copy=False), arrays[1].astype(np.float32, copy=False)
        return Seen(logits=logits, edges=edges, raster_s=float(said["raster_s"]))

    def _ask(self, request: frames.Header, arrays: Sequence[frames.Array], until_s: float) -> frames.Answer:
        connection = self._child.connection
        try:
            frames.send(connection, request, arrays, until_s)
            said, results = frames.receive(connection, until_s)
        except TimeoutError:
            raise EngineFault("wedged", "no answer in time") from None
        except (EOFError, OSError):
            raise EngineFault("died", f"the engine process {self._child.last_words()}") from None
        if "fault" in said:
            raise EngineFault(said["fault"], said["text"])
        return said, results

    def close(self) -> None:
        self._child.end()


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
