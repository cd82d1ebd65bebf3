"""One engine by itself, in the process that measures it: speed, tail, start, memory, and what it says of curves."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from daemon.bench.harness import REPEAT_S, spread_ms
from daemon.learn.int8 import load
from deploy.classifier import Classifier, Signals
from deploy.engines import Wish, named
from deploy.registry import resolve
from deploy.serving import Model, SelfTestFailed
from models.bundle import read

BATCHES = {"cpu": (1, 8, 32), "cuda": (1, 8, 32, 64, 256)}
_FEWEST = 5


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Speed at BATCHES on real signals; logits of all of them without and with the second look near a threshold."""
    signals, wish = load(Path(request["signals"])), wish_of(request)
    begun_s = time.perf_counter()
    classifier = _build(request["model"], wish)
    found: dict[str, Any] = {"engine": classifier.engine, "build_s": round(time.perf_counter() - begun_s, 3)}
    seconds, sizes = request.get("seconds", REPEAT_S), BATCHES["cuda" if "-cuda-" in classifier.engine else "cpu"]
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


def wish_of(request: Mapping[str, Any]) -> Wish:
    """From JSON, which has no paths."""
    wish = Wish(**request["wish"])
    return replace(wish, cache=None if wish.cache is None else Path(wish.cache))


def _build(model: str, wish: Wish) -> Classifier:
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
