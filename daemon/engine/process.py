"""The child: one engine process, as the service holds it. Every wait has an end, and every end is an EngineFault."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from daemon.common.ending import Closing
from daemon.processes import frames
from daemon.processes.child import launch
from deploy.classifier import EngineFault, EngineId, EngineRequest, NoEngine, Seen, Signals
from deploy.engines import Engine
from models.bundle import Bundle

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
