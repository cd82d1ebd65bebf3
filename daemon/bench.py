"""The bench: what a curve costs on this machine, stage by stage and from end to end, from real files.

End to end means: a real service in its own processes, files written into its folder by this one, events received over
ZeroMQ by this one. Latency runs from the moment a file was closed to the moment its event arrived here.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq

from daemon import events
from daemon.decide import decide
from daemon.decision import Judge
from daemon.formats import open_file, quiet_s
from daemon.formats.walk import find
from daemon.instrument import Specimen, play, specimens
from daemon.ledger import Ledger
from daemon.reading import Reading
from daemon.trial import Trial
from deploy.serving import Model
from models.curve import Curve
from models.frontend import prepare
from models.raster import coverage, envelope

CURVES = Path(__file__).resolve().parent / "curves"
BATCH = 32
_REPEAT_S = 0.6  # each stage is repeated for so long


def stages_ms(model: Model, judge: Judge, folder: Path) -> dict[str, float]:
    """Milliseconds a curve in each stage, medians over the files of ``folder`` (network in batches of 32)."""
    files = [arrival.file for arrival in find([folder])]
    curves: list[Curve] = [curve for file in files for curve in open_file(file)]
    batch = [curves[index % len(curves)] for index in range(BATCH)]
    profile = model.bundle.profile
    signals = [item.signal for item in prepare(batch, profile) if item.signal is not None]
    scored = model.judge(batch)
    arrivals = list(find([folder])) * BATCH
    readings = [Reading(arrivals[i], i, f"{i:064d}", curve, read_s=0.0) for i, curve in enumerate(batch)]
    return {
        "read": sum(_median_ms(lambda file=file: open_file(file)) for file in files) / len(curves),  # type: ignore[misc]
        "front-end": _median_ms(lambda: prepare(batch, profile)) / len(batch),
        "raster": _median_ms(lambda: coverage(envelope(signals, profile), profile)) / len(signals),
        "network": _median_ms(lambda: model.classifier.classify(signals)) / len(signals),
        "network, alone": _median_ms(lambda: model.classifier.classify(signals[:1])),
        "decide": _median_ms(lambda: decide(readings, scored, judge)) / len(batch),
        "record": _commit_ms(readings, scored, judge) / len(batch),
    }


def network_per_s(model: Model) -> float:
    """Pictures a second through the bare network, in batches of 32, on as many threads as the service uses."""
    profile = model.bundle.profile
    curves = [curve for arrival in find([CURVES]) for curve in open_file(arrival.file)][:BATCH]
    signals = [item.signal for item in prepare(curves, profile) if item.signal is not None]
    return 1000.0 * len(signals) / _median_ms(lambda: model.classifier.classify(signals), seconds=2.0)


def latency(rate: float, count: int) -> dict[str, Any]:
    """Closed file to received event, at ``rate`` files a second; text, which shows no end of its own, apart."""
    found = specimens([CURVES])
    with Trial(instrument="bench") as trial:
        ear = _Ear(trial)
        closed_s: dict[str, float] = {}
        for path in play(found, trial.watch, rate=rate, writer="burst" if rate > 50 else "grow", count=count):
            closed_s[path.name] = time.monotonic()
        heard_s = ear.wait(set(closed_s), timeout_s=60.0)
    waited = {name: heard_s[name] - closed_s[name] for name in closed_s if name in heard_s}
    own_end = [value for name, value in waited.items() if quiet_s(name) == 0]
    text = [value for name, value in waited.items() if quiet_s(name) > 0]
    return {"rate_per_s": rate, "lost": count - len(waited), "own_end": _spread_ms(own_end), "text": _spread_ms(text)}


def sustained(count: int) -> float:
    """Curves a second from files that lie in the folder already, first decision to last."""
    found = [item for item in specimens([CURVES]) if _shows_its_end(item)]
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        trial = Trial(Path(folder), instrument="bench")
        names = {path.name for path in play(found, trial.watch, rate=100_000, writer="burst", count=count)}
        ear = _Ear(trial)
        trial.start()
        try:
            trial.wait_ready()
            heard_s = sorted(ear.wait(names, timeout_s=300.0).values())
        finally:
            trial.stop()
        return ear.curves / max(heard_s[-1] - heard_s[0], 1e-3)


def _shows_its_end(item: Specimen) -> bool:
    return quiet_s(item.files[0].name) == 0


class _Ear(threading.Thread):
    """Listens to a trial's events: file name -> when its last event was heard."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(daemon=True)
        self._endpoint, self._heard_s, self.curves = trial.publish, dict[str, float](), 0
        self._wanted, self._done = set[str](), threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._listens = threading.Event()
        self.start()
        self._listens.wait(5)

    def run(self) -> None:
        with self._context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.subscribe(b"afm.")
            socket.connect(self._endpoint)
            self._listens.set()
            while not self._done.is_set():
                if not socket.poll(100):
                    continue
                event = events.decode(socket.recv_multipart()[1])
                if events.kind_of(event) == "decision":
                    self.curves += 1
                    self._heard_s[Path(event["data"]["path"]).name] = time.monotonic()
        self._context.term()

    def wait(self, names: set[str], timeout_s: float) -> dict[str, float]:
        """Until every one of ``names`` was heard of, or the time is up."""
        deadline_s = time.monotonic() + timeout_s
        while not names <= self._heard_s.keys() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        self._done.set()
        self.join()
        return self._heard_s


def _spread_ms(values_s: Sequence[float]) -> dict[str, float] | None:
    if not values_s:
        return None
    ordered = [1000.0 * value for value in sorted(values_s)]
    at = {"p50": 0.5, "p99": 0.99}
    spread = {name: round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 1) for name, share in at.items()}
    return {**spread, "max": round(ordered[-1], 1), "files": len(ordered)}


def _median_ms(work: Callable[[], object], seconds: float = _REPEAT_S) -> float:
    taken: list[float] = []
    until_s = time.perf_counter() + seconds
    while not taken or time.perf_counter() < until_s:
        begun_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun_s)
    return 1000.0 * sorted(taken)[len(taken) // 2]


def _commit_ms(readings: list[Reading], scored: Sequence[Any], judge: Judge) -> float:
    """One transaction of a batch, on the disk that temporary files go to."""
    taken: list[float] = []
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite", "bench")
        for number in range(30):
            fresh = [
                Reading(reading.arrival, reading.index, f"{number:032d}{reading.index:032d}", reading.curve)
                for reading in readings
            ]
            decisions = decide(fresh, scored, judge)
            begun_s = time.perf_counter()
            ledger.record(decisions)
            taken.append(time.perf_counter() - begun_s)
        ledger.close()
    return 1000.0 * sorted(taken)[len(taken) // 2]
