"""The stages: what a curve costs one core on its way, from the file to the event, a column a family of formats.

CPU time, not wall time: the stages overlap in the service, which reads in processes of its own.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import zmq

from daemon.bench import BATCH, REPEAT_S, STAGES, cpu_ms, machine
from daemon.bench.engines import wish_of
from daemon.bench.machine import OTHERS, Family, families
from daemon.common.sockets import await_input, open_socket
from daemon.config import ThresholdsConfig
from daemon.judging import Decision, FileMark, decide, identity_of, with_compact_copy
from daemon.judging.judge import judge_of, load_model
from daemon.ledger import Ledger
from daemon.publish import Publisher
from daemon.reading import Reading
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival
from deploy.serving import Model
from models.frontend import prepare, prepare_to_judge
from models.raster import RasterProfile, coverage, envelope

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
    ledger = Ledger(folder / "ledger.sqlite", "bench")
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


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """``{"engine", "model", "families": {name: {"points", "files", "ms": {stage: …}, "beyond_ms", …}}}``."""
    model = load_model(request["model"], wish_of(request))
    found = families([Path(folder) for folder in request["folders"]])
    return {
        "engine": str(model.engine),
        "model": model.id,
        "families": {family.name: _measure(family, model, request.get("seconds", REPEAT_S)) for family in found},
    }


def _measure(family: Family, model: Model, seconds: float) -> dict[str, Any]:
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
    readings = [Reading(arrival, place, f"{place:064d}", curve) for place, (arrival, curve) in enumerate(pairs)]
    scored = model.judge(curves)
    raster = cpu_ms(lambda: coverage(envelope(signals, profile), profile), seconds) / len(signals)
    whole = cpu_ms(lambda: model.classify(signals), seconds) / len(signals)
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        commit, commit_wall, publish = record_ms(readings, decide(readings, scored, judge), profile, Path(folder))
    spent = {
        "front-end": cpu_ms(lambda: prepare_to_judge(curves, profile), seconds) / BATCH,
        "raster": raster,
        "network": max(whole - raster, 0.0),
        "decide": cpu_ms(lambda: decide(readings, scored, judge), seconds) / BATCH,
        "commit": commit,
        "publish": publish,
    }
    return spent, commit_wall
