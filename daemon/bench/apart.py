"""What is measured in a process of its own, so that no part disturbs another: each engine, the stages, the recipe.

``python -m daemon.bench.apart TASK`` takes a JSON object from standard input and prints one. An engine has as many
threads as the service gives it. The stages are what a curve costs one core on its way from the file to the event, a
column a family of formats: CPU time, not wall time, because they overlap in the service, which reads in processes of
its own.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import zmq

from daemon.bench import BATCH, REPEAT_S, STAGES, Plan, compare, cpu_ms, machine, spread_ms
from daemon.bench.machine import OTHERS, Family, families
from daemon.common.errors import UserError
from daemon.common.sockets import await_input, open_socket
from daemon.common.stdio import progress
from daemon.config import INSTRUMENT, ThresholdsConfig
from daemon.config.origin import LEDGER_FILE, default_state
from daemon.judging import Decision, FileMark, decide, identity_of, with_compact_copy
from daemon.judging.judge import judge_of, load_model
from daemon.learn.int8 import PreparedCurves, gather, load
from daemon.ledger import Ledger
from daemon.processes.child import run_errand
from daemon.publish import Publisher
from daemon.reading import Reading
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival
from deploy.classifier import Classifier, EngineFault, EngineRequest, NoEngine, Signals
from deploy.engines import ENGINES, named
from deploy.serving import Model, SelfTestFailed
from models.bundle import Bundle, read, resolve
from models.frontend import prepare
from models.raster import RasterProfile, coverage, envelope
from models.ruptures import prepare_to_tell

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


# Reading: what it costs to get a curve out of a file, in the reader process and in the one that asks.

_READER_PATIENCE_S = 10.0


def read_ms(arrivals: Sequence[Arrival], profile: RasterProfile, seconds: float) -> float:
    """Milliseconds of CPU a file, all processes together, with the front-end, which the reader runs for ``profile``.

    Files of one curve each are read again and again, for ``seconds`` of CPU: the kernel counts in hundredths.
    """
    batch = list(islice(cycle(arrivals), BATCH))
    with ReaderPool(workers=1, profile=profile) as pool:
        _read(pool, batch)  # the first time imports are made
        before_s, spent_s, files = machine.usage(os.getpid()).total_s, 0.0, 0
        while spent_s < seconds:
            _read(pool, batch)
            files += len(batch)
            spent_s = machine.usage(os.getpid()).total_s - before_s
    return 1000.0 * spent_s / files


def _read(pool: ReaderPool, batch: Sequence[Arrival]) -> None:
    pool.submit(batch)
    left = len(batch)
    while left:
        done = pool.collect(_READER_PATIENCE_S)
        if not done:
            raise TimeoutError("the reader is silent")
        left -= len(done)


# Recording and publishing: what the ledger and the publisher cost for each curve of a batch.

_BATCHES = 24
_ANY = "tcp://127.0.0.1:*"
_PUBLISHER_PATIENCE_S = 5.0


def record_ms(
    readings: Sequence[Reading], decisions: Sequence[Decision], profile: RasterProfile, folder: Path
) -> tuple[float, float, float]:
    """Milliseconds a curve: CPU of the commit, its wall time (the disk included), CPU of the publication.

    As in the pipeline: known identities are looked up, a curve for review is kept in a compact copy, the marks of
    finished files go into the same transaction. The ledger is made in ``folder``.
    """
    ledger = Ledger(folder / LEDGER_FILE, "bench")
    cpu_s: list[float] = []
    wall_s: list[float] = []
    sent_s: list[float] = []
    with _publisher(ledger) as (publisher, socket):
        for number in range(_BATCHES):
            fresh = [replace(one, identity=f"{number:032d}{place:032d}#0") for place, one in enumerate(decisions)]
            begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
            ledger.known([one.identity for one in fresh])
            past = ledger.past(fresh[0].judge.pipeline)
            kept = [with_compact_copy(*pair, profile, past) for pair in zip(fresh, readings, strict=True)]
            ledger.record(kept, [_mark(reading) for reading in readings])
            cpu_s.append(time.process_time() - begun_cpu_s)
            wall_s.append(time.perf_counter() - begun_s)
            sent_s.append(_publish_s(publisher, socket, len(fresh)))
    ledger.close()
    commit, wall, publish = (1000.0 * statistics.median(taken) / len(decisions) for taken in (cpu_s, wall_s, sent_s))
    return commit, wall, publish


def _publish_s(publisher: Publisher, socket: zmq.Socket[bytes], count: int) -> float:
    """CPU time of everything but the listening thread, which is this one."""
    begun_s = time.process_time() - time.thread_time()
    publisher.poke()
    heard = 0
    while heard < count:
        if not await_input(socket, _PUBLISHER_PATIENCE_S):
            raise TimeoutError("the publisher is silent")
        heard += b".decision." in socket.recv_multipart(zmq.DONTWAIT)[0]
    return time.process_time() - time.thread_time() - begun_s


@contextmanager
def _publisher(ledger: Ledger) -> Iterator[tuple[Publisher, zmq.Socket[bytes]]]:
    """One that serves, and a subscriber that it has greeted."""
    publisher = Publisher(ledger.path, "bench", publish=_ANY, replay=_ANY, heartbeat_s=60.0)
    publisher.start()
    try:
        with open_socket(zmq.SUB) as socket:
            socket.subscribe(b"")
            socket.connect(publisher.publish_endpoint)
            if not await_input(socket, _PUBLISHER_PATIENCE_S):
                raise TimeoutError("the publisher is silent")
            yield publisher, socket
    finally:
        publisher.stop()


_fresh = itertools.count()


def _mark(reading: Reading) -> FileMark:
    """Of a file of its own each time: a new row."""
    arrival, folder = reading.arrival, reading.arrival.folder or ""
    path, sha256 = f"{next(_fresh)}/{arrival.path}", identity_of(reading)
    return FileMark(folder, path, arrival.size_bytes, arrival.mtime_ns, sha256, 1)


BEYOND = tuple(stage for stage in STAGES if stage != "network")  # what is not the engine's


def measure_stages(request: Mapping[str, Any]) -> dict[str, Any]:
    """``{"engine", "model", "families": {name: {"points", "files", "ms": {stage: …}, "beyond_ms", …}}}``."""
    model = load_model(request["model"], wish_of(request))
    found = families([Path(folder) for folder in request["folders"]])
    return {
        "engine": str(model.engine),
        "model": model.id,
        "families": {family.name: _of_family(family, model, request.get("seconds", REPEAT_S)) for family in found},
    }


def _of_family(family: Family, model: Model, seconds: float) -> dict[str, Any]:
    spent, commit_wall_ms = _judged_ms(family, model, seconds)
    spent["read"] = max(read_ms(family.arrivals, model.bundle.profile, 2 * seconds) - spent["front-end"], 0.0)
    return {
        "points": None if family.name == OTHERS else family.points,
        "files": len(family.arrivals),
        "ms": {stage: round(spent[stage], 4) for stage in STAGES},
        "beyond_ms": round(sum(spent[stage] for stage in BEYOND), 3),
        "commit_wall_ms": round(commit_wall_ms, 4),
    }


def _judged_ms(family: Family, model: Model, seconds: float) -> tuple[dict[str, float], float]:
    """All but reading, in batches as large as the service's; and the wall time of the commit."""
    pairs = list(islice(cycle(zip(family.arrivals, family.curves, strict=True)), BATCH))
    curves, profile = [curve for _, curve in pairs], model.bundle.profile
    judge = judge_of(model, ThresholdsConfig())
    signals = [one.signal for one in prepare(curves, profile) if one.signal is not None]
    readings = [
        Reading(arrival, place, f"{place:064d}", curve, prepared=prepared, profile=profile)  # as the readers hand it on
        for place, ((arrival, curve), prepared) in enumerate(zip(pairs, prepare_to_tell(curves, profile), strict=True))
    ]
    scored = model.judge(curves)
    raster = cpu_ms(lambda: coverage(envelope(signals, profile), profile), seconds) / len(signals)
    whole = cpu_ms(lambda: model.classify(signals), seconds) / len(signals)
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        commit, commit_wall, publish = record_ms(readings, decide(readings, scored, judge), profile, Path(folder))
    spent = {
        "front-end": cpu_ms(lambda: prepare_to_tell(curves, profile), seconds) / BATCH,
        "raster": raster,
        "network": max(whole - raster, 0.0),
        "decide": cpu_ms(lambda: decide(readings, scored, judge), seconds) / BATCH,
        "commit": commit,
        "publish": publish,
    }
    return spent, commit_wall


_ROOT = Path(__file__).resolve().parents[2]


class ChildFailed(Exception):
    """The child ended without an answer; the text is its last line."""


def call(task: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the task's function makes of ``request``. Raises ChildFailed."""
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "daemon.bench.apart", task]
    run = run_errand(command, said=json.dumps(request), env={**os.environ, "PYTHONPATH": path})
    if run.returncode:
        words = run.stderr.strip().splitlines() or [f"it ended with {run.returncode}"]
        raise ChildFailed(words[-1])
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def measure_recipe(request: Mapping[str, Any]) -> dict[str, Any]:
    """As daemon.bench.recipe, which alone needs torch and matplotlib."""
    from daemon.bench import recipe

    return recipe.measure(request)


#: Each is given the request and gives the answer, both as JSON takes them.
TASKS = {"stages": measure_stages, "engine": measure_one, "recipe": measure_recipe}


def main(task: str) -> None:
    """Whatever a library prints goes to standard error; the answer alone goes to standard output."""
    request = json.load(sys.stdin)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            answer = TASKS[task](request)
    except (UserError, NoEngine, EngineFault) as error:  # what a user can do something about
        sys.exit(str(error))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
