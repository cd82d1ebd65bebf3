"""The engines, each by itself in a process of its own, with as many threads as the service gives it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from daemon.bench import REPEAT_S, Plan, compare, spread_ms
from daemon.bench.child import ChildFailed, call
from daemon.common.progress import progress
from daemon.config import INSTRUMENT
from daemon.config.origin import default_state
from daemon.learn.int8 import PreparedCurves, gather, load
from deploy.classifier import Classifier, EngineRequest, Signals
from deploy.engines import ENGINES, named
from deploy.serving import Model, SelfTestFailed
from models.bundle import Bundle, read, resolve

REFERENCE = "torch-cpu-fp32"
BATCHES = {"cpu": (1, 8, 32), "cuda": (1, 8, 32, 64, 256)}
_FEWEST = 5  # repetitions of a batch


def measure(plan: Plan, seconds: float = REPEAT_S) -> dict[str, Any]:
    """``{"curves", "thresholds", "engines": [{"engine", "batches", …} or {"engine", "failed"}], "missing": {…}}``."""
    bundle = read(resolve(plan.model))
    curves = gather(plan.folders, plan.simulated, plan.seed, bundle.profile)
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        signals = Path(folder) / "signals.npz"
        curves.save(signals)
        built = str(default_state(INSTRUMENT, serves=False) / "engines")  # with a laboratory's own ranges for int8
        wishes = [asdict(wish) | {"cache": built if wish.precision == "int8" else folder} for wish in _wishes()]
        request = plan.request(signals=str(signals), compare=True, seconds=seconds)
        engines = [_run({**request, "wish": wish}) for wish in progress(wishes, "engines", len(wishes))]
    return {
        "curves": {"real": curves.real, "simulated": len(curves.names) - curves.real},
        "thresholds": {"discard": bundle.discard, "keep": bundle.keep},
        "engines": _compared(engines, curves, bundle),
        "missing": {engine.name: why for engine in ENGINES if (why := engine.missing()) is not None},
    }


def bare(plan: Plan) -> dict[str, Any]:
    """Only the engine that serves, and only its speed. Raises ChildFailed."""
    bundle = read(resolve(plan.model))
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        signals = Path(folder) / "signals.npz"
        gather(plan.folders[:1], 0, plan.seed, bundle.profile).save(signals)
        return call("engine", plan.request(signals=str(signals), compare=False, wish=asdict(plan.wish)))


def _wishes() -> Iterator[EngineRequest]:
    """Every precision of every engine that can be used here; torch in single precision is always one of them."""
    for engine in ENGINES:
        if engine.missing() is None:
            for precision in engine.precisions:
                yield EngineRequest(engine.device, engine.name, precision)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return call("engine", request)
    except ChildFailed as error:
        wish = request["wish"]
        return {"engine": f"{wish['engine']}-{wish['device']}-{wish['precision']}", "failed": str(error)}


def _compared(engines: list[dict[str, Any]], curves: PreparedCurves, bundle: Bundle) -> list[dict[str, Any]]:
    """Logits give way to what they say against the reference."""
    wanted = next((one["logits"] for one in engines if one["engine"] == REFERENCE and "logits" in one), None)
    for one in engines:
        raw, final = one.pop("logits", None), one.pop("final", None)
        if wanted is not None and raw is not None:
            one["alone"] = compare(curves, bundle, wanted, raw)
        if wanted is not None and final is not None:
            one["in_service"] = compare(curves, bundle, wanted, final)
    return engines


def measure_one(request: Mapping[str, Any]) -> dict[str, Any]:
    """One engine by itself, in this process: speed at BATCHES on real signals, start, memory, and its logits.

    These of all signals, without and with the second look near a threshold.
    """
    signals, wish = load(Path(request["signals"])), wish_of(request)
    begun_s = time.perf_counter()
    classifier = _build(request["model"], wish)
    found: dict[str, Any] = {"engine": str(classifier.engine), "build_s": round(time.perf_counter() - begun_s, 3)}
    seconds, sizes = request.get("seconds", REPEAT_S), BATCHES[classifier.engine.device]
    found["batches"] = {str(size): _speed(classifier, signals, size, seconds) for size in sizes}
    found["peak_rss_bytes"] = _peak_bytes()
    begun_s = time.perf_counter()
    _build(request["model"], wish)
    found["rebuild_s"] = round(time.perf_counter() - begun_s, 3)  # as a swap does it, with everything imported
    if request["compare"]:
        found["logits"] = classifier.classify(signals).logits.tolist()
        try:
            found["final"] = Model.load(request["model"], wish).classify(signals).logits.tolist()
        except SelfTestFailed as error:
            found["refused"] = str(error)  # it would not serve, and its speed is no use
    return found


def wish_of(request: Mapping[str, Any]) -> EngineRequest:
    """From JSON, which has no paths."""
    wish = EngineRequest(**request["wish"])
    return replace(wish, cache=None if wish.cache is None else Path(wish.cache))


def _build(model: str, wish: EngineRequest) -> Classifier:
    """The engine itself, without a self-test; the best that there is where the wish names none."""
    if wish.engine == "auto":
        return Model.load(model, wish).classifier
    return named(wish.engine).build(read(resolve(model)), wish)


def _speed(classifier: Classifier, signals: Signals, size: int, seconds: float) -> dict[str, Any]:
    """The raster is taken away where the engine says what it took: it is a stage of its own."""
    coming = cycle(signals)
    taken_s: list[float] = []
    cpu_s: list[float] = []
    classifier.classify(list(islice(coming, size)))
    until_s = time.perf_counter() + (3 * seconds if size == 1 else seconds)  # one alone has a tail
    while len(taken_s) < _FEWEST or time.perf_counter() < until_s:
        batch = list(islice(coming, size))
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        raster_s = classifier.classify(batch).raster_s
        taken_s.append(time.perf_counter() - begun_s - raster_s)
        cpu_s.append(time.process_time() - begun_cpu_s - raster_s)
    return {
        "per_s": round(size / statistics.median(taken_s), 1),
        "cpu_ms": round(1000.0 * statistics.median(cpu_s) / size, 4),
        **({"latency_ms": spread_ms(taken_s)} if size == 1 else {}),
    }


def _peak_bytes() -> int:
    """Of this process since it began; getrusage would tell of the parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
