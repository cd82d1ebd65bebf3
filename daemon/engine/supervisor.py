"""The guarded classifier: an engine in a process of its own, and another at hand for when it fails.

An engine process proves with known curves that it computes what it should. Every wait for it has an end, and every end
is an EngineFault.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from daemon.common import ending
from daemon.common.ending import Closing
from daemon.processes import frames
from daemon.processes.child import launch
from deploy.classifier import Classifier, EngineFault, EngineId, EngineRequest, NoEngine, Seen, Signals
from deploy.engines import Engine, named
from deploy.serving import SelfTestFailed, compare, known_curves
from models.bundle import Bundle
from models.clock import utc_now
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


log = logging.getLogger(__name__)

#: Beyond the deadline, before whoever asks stops believing in this thread itself.
_GRACE_S = 0.5
#: The first batches after a build: a device may compile, load and allocate.
_FIRST_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class EngineTimeouts:
    """How long a device may take, and how often a lost one is tried again."""

    deadline_s: float = 2.0  # for one batch
    first_pause_s: float = 5.0  # after a fault; doubles with each that follows
    longest_pause_s: float = 600.0  # and a device that served so long is trusted anew
    canary_s: float = 30.0  # idle time between two canaries
    canary_curves: int = 10_000  # or so many curves

    def pause_s(self, faults: int) -> float:
        """Before the next try, after so many faults in a row (from 1)."""
        return min(self.first_pause_s * 2.0 ** min(faults - 1, 30), self.longest_pause_s)


PATIENT = EngineTimeouts()


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """Who judges now; ``troubles`` say why it is not who should."""

    engine: EngineId
    troubles: tuple[str, ...]
    faults: Mapping[str, int]  # by kind, since it was made


class GuardedClassifier(Closing):
    """A :class:`deploy.classifier.Classifier` that answers also when its device does not.

    A batch that the device fails on, or does not answer within the deadline, is judged by ``fallback``, and ``Seen``
    says so. Raises EngineFault or NoEngine when the engine cannot be had to begin with.
    """

    def __init__(
        self,
        engine: Engine,
        bundle: Bundle,
        wish: EngineRequest,
        fallback: Classifier,
        patience: EngineTimeouts,
        command: tuple[str, ...] | None = None,
    ) -> None:
        self._fallback = fallback
        self.model_id = bundle.id
        self._supervisor = EngineSupervisor(engine, bundle, wish, patience, command)
        self._supervisor.start()
        self.engine = self._supervisor.wait_built()  # the usual one, whoever judges now

    @property
    def status(self) -> EngineStatus:
        fault, faults = self._supervisor.fault, dict(self._supervisor.faults)
        if fault is None:
            return EngineStatus(self.engine, (), faults)
        kind = f" ({fault.kind})" if isinstance(fault, EngineFault) else ""
        trouble = f"{self.engine} failed{kind}: {fault}; it is tried again in the background"
        return EngineStatus(self._fallback.engine, (trouble,), faults)

    @property
    def pid(self) -> int | None:
        """Of the engine process, while there is one."""
        return self._supervisor.pid

    def classify(self, signals: Signals) -> Seen:
        """As any classifier; never EngineFault, as long as the processor is well."""
        if not signals:
            return self._fallback.classify(signals)
        try:
            seen = self._supervisor.ask(signals)
        except EngineFault:
            return self._instead(signals)
        if np.isfinite(seen.logits).all():
            return seen
        self._supervisor.suspect()  # one odd curve, or a device gone mad: the known curves will tell
        return self._instead(signals)

    def _instead(self, signals: Signals) -> Seen:
        return replace(self._fallback.classify(signals), engine=self._fallback.engine)

    def close(self) -> None:
        """End the engine process."""
        self._supervisor.close()


class EngineSupervisor(threading.Thread, Closing):
    """The one thread that owns an engine process, from its start over its faults to its end.

    Batches reach it through a queue, so that whoever asks can go on without it when the time is up. After a fault it
    ends the process, says so, and tries a new one behind everybody's back: first after 5 s, then after twice as long,
    up to 10 min. A new process serves only once it has passed the proof; from time to time the proof is repeated as a
    canary.
    """

    def __init__(
        self,
        engine: Engine,
        bundle: Bundle,
        wish: EngineRequest,
        patience: EngineTimeouts,
        command: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(name="engine-supervisor", daemon=True)
        self._wanted, self._command = (engine, bundle, wish), command
        self._proof, self._patience = Proof.of(bundle), patience
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._child: EngineProcess | None = None
        self._tried, self._ending = threading.Event(), threading.Event()
        self.is_serving = False
        self.fault: EngineFault | NoEngine | None = None  # the last, while it does not serve
        self.faults: Counter[str] = Counter()  # by kind, since the start
        self.engine: EngineId | None = None  # which serves, or did before its last fault
        self._in_a_row = 0
        self._since_s = time.monotonic()
        self._proved_at = ""
        self._unproved = 0  # curves judged since the last proof

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        child = self._child
        return child.pid if child else None

    def wait_built(self) -> EngineId:
        """Which engine serves, once the first try is over.

        Raises EngineFault or NoEngine when it failed; the thread is at its end then.
        """
        while not self._tried.wait(ending.LOOK_S):
            ending.check()
        if not self.is_serving or self.engine is None:
            self.close()
            raise self.fault or EngineFault("died", "closed before it was built")
        return self.engine

    def ask(self, signals: Signals) -> Seen:
        """Have a batch judged. Raises EngineFault at the deadline at the latest, ValueError for a signal."""
        job = _Job(signals, time.monotonic() + self._patience.deadline_s)
        with self._lock:
            if not self.is_serving:
                raise self.fault if isinstance(self.fault, EngineFault) else EngineFault("died", "not there")
            self._jobs.put(job)
        if not job.done.wait(self._patience.deadline_s + _GRACE_S):
            raise EngineFault("wedged", "no answer in time")
        if job.error is not None:
            raise job.error
        assert job.seen is not None
        return job.seen

    def suspect(self) -> None:
        """Something came back that may be the device's fault: have it prove itself before long."""
        self._jobs.put(None)

    def close(self) -> None:
        """End the process, whatever it is at, and the thread."""
        self._ending.set()
        self._jobs.put(None)
        if (child := self._child) is not None:
            child.close()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(5.0)

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                self._begin()
                self._serve()
            except (EngineFault, NoEngine) as error:
                self._lose(error)
            except Exception as error:  # a thread that dies silently would leave the device lost for ever
                self._lose(EngineFault("died", f"{type(error).__name__}: {error}"))
            self._tried.set()
            if not self._ending.is_set():
                self._ending.wait(self._patience.pause_s(self._in_a_row))
        self._tried.set()

    def _begin(self) -> None:
        """A new process that has proved itself; from here on it serves."""
        child = self._child = EngineProcess(self._command)  # from here on ``close`` ends it, also while it builds
        if self._ending.is_set():
            child.close()
            raise EngineFault("died", "ended before it began")
        child.build(*self._wanted)
        self.engine = child.engine
        self._prove(child, _FIRST_LIMIT_S)
        self._since_s = time.monotonic()
        with self._lock:
            self.is_serving, self.fault = True, None
        log.info("%s has proved itself (built in %.1f s) and judges", child.engine, child.build_s)
        self._tried.set()

    def _serve(self) -> None:
        """Batches, and canaries in between; ends with a fault or at ``close``."""
        child = self._child
        assert child is not None
        while not self._ending.is_set():
            try:
                job = self._jobs.get(timeout=self._patience.canary_s)
            except queue.Empty:
                job = None
            if job is not None:
                self._answer(child, job)
            if (job is None or self._unproved >= self._patience.canary_curves) and not self._ending.is_set():
                self._prove(child, self._patience.deadline_s)

    def _answer(self, child: EngineProcess, job: _Job) -> None:
        try:
            seen = self._classify(child, job)
        except EngineFault as fault:
            with self._lock:
                self.is_serving = False
            job.end(error=fault)
            raise
        except ValueError as error:  # the curve's fault, and the device is well
            job.end(error=error)
        else:
            self._unproved += len(job.signals)
            job.end(seen)

    def _classify(self, child: EngineProcess, job: _Job) -> Seen:
        """A batch that is too large for the memory is tried once more as two halves."""
        try:
            return child.classify(job.signals, job.until_s)
        except EngineFault as fault:
            if fault.kind != "out_of_memory" or len(job.signals) < 2:
                raise
            self.faults[fault.kind] += 1
            log.warning("%s: no memory for %d curves, trying halves: %s", child.engine, len(job.signals), fault)
        middle = len(job.signals) // 2
        parts = [child.classify(part, job.until_s) for part in (job.signals[:middle], job.signals[middle:])]
        return Seen(
            logits=np.concatenate([part.logits for part in parts]),
            edges=np.concatenate([part.edges for part in parts]),
            raster_s=sum(part.raster_s for part in parts),
        )

    def _prove(self, child: EngineProcess, limit_s: float) -> None:
        until_s = time.monotonic() + limit_s
        try:
            self._proof.demand(child.engine, lambda signals: child.classify(signals, until_s))
        except EngineFault as fault:
            if fault.kind == "wrong" and self._unproved:
                doubt = f"; {self._unproved} curves judged since {self._proved_at} should be scored again"
                raise EngineFault("wrong", f"{fault}{doubt}") from None
            raise
        self._proved_at = utc_now("seconds")
        self._unproved = 0

    def _lose(self, error: EngineFault | NoEngine) -> None:
        """The device is poisoned: nobody may ask it, what waits is told, the process ends."""
        served_s = time.monotonic() - self._since_s if self.is_serving or self.fault is None else 0.0
        with self._lock:
            self.is_serving, self.fault = False, error
            waiting = [self._jobs.get_nowait() for _ in range(self._jobs.qsize())]
        for job in waiting:
            if job is not None:
                job.end(error=error if isinstance(error, EngineFault) else EngineFault("died", str(error)))
        if self._ending.is_set():
            return
        kind = error.kind if isinstance(error, EngineFault) else "died"
        self.faults[kind] += 1
        self._in_a_row = 1 if served_s >= self._patience.longest_pause_s else self._in_a_row + 1
        pause_s = self._patience.pause_s(self._in_a_row)
        if self.engine is not None:  # else it never began, which whoever waits for it tells
            log.error("%s failed (%s): %s; tried again in %g s", self.engine, kind, error, pause_s)
        if (child := self._child) is not None:
            self._child = None
            child.close()


@dataclass(slots=True, eq=False)
class _Job:
    """A batch on its way; ``done`` is set with either ``seen`` or ``error``."""

    signals: Signals
    until_s: float
    done: threading.Event = field(default_factory=threading.Event)
    seen: Seen | None = None
    error: Exception | None = None

    def end(self, seen: Seen | None = None, error: Exception | None = None) -> None:
        self.seen, self.error = seen, error
        self.done.set()
