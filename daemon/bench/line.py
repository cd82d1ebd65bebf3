"""The line under load: files into the folder of a service, events out of it, at a rate or as fast as it can.

Latency runs from the moment a file was closed by this process to the moment its event arrived here.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from daemon.bench import CURVES
from daemon.bench.harness import Plan, spread_ms
from daemon.bench.machine import OTHERS, ProcessMonitor, families, neighbours
from daemon.client.feed import EventListener
from daemon.client.temporary_service import TemporaryService
from daemon.common import ending
from daemon.common.errors import INTERNAL, UserError
from daemon.formats import NAMES
from daemon.instrument import Recording, Writer, play, recordings
from deploy.engines import candidates

GROWING_PER_S = 50  # files a second that are written in pieces; above, eight back to back
BURSTS = 3
_PATIENCE_S = 120.0
_QUIET_START_S = 0.5  # a folder that has just been made is not measured


class Line:
    """A service and a listener to its events."""

    def __init__(self, service: TemporaryService, monitor: ProcessMonitor, listener: EventListener) -> None:
        self._service, self._monitor, self._listener = service, monitor, listener
        self._number = 0

    def hold(self, found: Sequence[Recording], rate: float, count: int) -> dict[str, Any]:
        """``count`` files at ``rate`` a second -> {"rate_per_s", "lost", "latency_ms", "cpu_ms" for each curve}."""
        folder, closed_s = self._fresh(self._service.watch), dict[str, float]()
        writer: Writer = "burst" if rate > GROWING_PER_S else "grow"
        begun_s = time.monotonic()
        for path in play(found, folder, rate=rate, writer=writer, count=count, fresh=True):
            closed_s[path.relative_to(self._service.watch).as_posix()] = time.monotonic()
        self._listener.wait(closed_s, _PATIENCE_S)
        heard_s, curves = self._listener.heard_s, len(self._listener.curves_s)
        cpu_s = sum(self._monitor.cpu_between(begun_s, time.monotonic()).values())
        waited_s = [heard_s[name] - closed_s[name] for name in closed_s if name in heard_s]
        self._clear(folder)
        return {
            "rate_per_s": rate,
            "lost": count - len(waited_s),
            "latency_ms": spread_ms(waited_s),
            "cpu_ms": round(1000.0 * cpu_s / max(curves, 1), 3),
        }

    def sustain(self, found: Sequence[Recording], count: int) -> dict[str, float]:
        """``count`` files that appear all at once -> {"curves", "per_s", "cpu_ms", …}, medians of BURSTS.

        ``service_cpu_ms`` and the like say which kind of process used it.
        """
        runs = [self._burst(found, count) for _ in range(BURSTS)]
        middle = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
        return {**middle, "cpu_ms": round(sum(one for key, one in middle.items() if key.endswith("_cpu_ms")), 3)}

    def _burst(self, found: Sequence[Recording], count: int) -> dict[str, float]:
        """Written elsewhere, then moved in as one folder: writing is not the service's work. Counted from then on."""
        stock = self._fresh(self._service.folder / "stock")
        names = [path.name for path in play(found, stock, rate=1e6, writer="burst", count=count, fresh=True)]
        folder = self._service.watch / stock.name
        begun_s = time.monotonic()
        stock.rename(folder)
        if not self._listener.wait([f"{folder.name}/{name}" for name in names], _PATIENCE_S):
            raise UserError(INTERNAL, f"the service did not decide {count} files: {self._service.last_words()}")
        ended_s, curves = self._listener.curves_s[-1], len(self._listener.curves_s)
        ending.pause(0.2)  # one more look at its processes
        cpu_s = self._monitor.cpu_between(begun_s, ended_s)
        self._clear(folder)
        rate = {"curves": float(curves), "per_s": curves / max(ended_s - begun_s, 1e-6)}
        spent_ms = {f"{role}_cpu_ms": 1000.0 * used_s / curves for role, used_s in cpu_s.items()}
        return rate | spent_ms

    def _fresh(self, parent: Path) -> Path:
        self._number += 1
        folder = parent / f"part-{self._number}"
        folder.mkdir(parents=True)
        ending.pause(_QUIET_START_S)
        return folder

    def _clear(self, folder: Path) -> None:
        shutil.rmtree(folder)
        self._listener.forget()


# The service that is measured: one of its own, with the bench's model and engine.


@contextmanager
def serving(plan: Plan, every_s: float = 0.05) -> Iterator[tuple[TemporaryService, ProcessMonitor, EventListener]]:
    """It has proved itself when the block begins, and is gone with its folder when it ends."""
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as name:
        folder = Path(name)
        config = folder / "bench.toml"
        config.write_text(_toml(plan))
        with TemporaryService(folder, options=("--config", str(config)), instrument="bench") as service:
            assert service.process is not None
            with ProcessMonitor(service.process.pid, every_s) as monitor, EventListener(service.publish) as listener:
                yield service, monitor, listener


def _toml(plan: Plan) -> str:
    """JSON's strings are TOML's."""
    top = {"model": plan.model, "device": plan.device}
    engine = {"name": plan.engine, "precision": plan.precision}
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    return "\n".join([*lines, "[engine]", *(f"{key} = {json.dumps(value)}" for key, value in engine.items()), ""])


# The load on a real service in processes of its own: latency at several rates, and what it can sustain.
#
# Text files show no end of their own and must be still for two seconds; they are measured apart.

MIX = "the bundled mix"
TEXT_FILES, TEXT_PER_S = 20, 10.0


def measure(plan: Plan) -> dict[str, Any]:
    """``{"engine", "quiet": [row a rate], "busy": [row a rate], "text": row, "sustained": {mix: …}, "memory", …}``.

    Rows are what :meth:`Line.hold` gives. ``engines`` is what the mix is sustained at, engine by engine.
    """
    found, text = split(recordings([CURVES]))
    with serving(plan) as (service, monitor, listener):
        line = Line(service, monitor, listener)
        result: dict[str, Any] = {"quiet": [line.hold(found, rate, plan.count(rate)) for rate in plan.rates]}
        result["text"] = line.hold(text, TEXT_PER_S, TEXT_FILES)
        with neighbours(plan.busy):
            result["busy"] = [line.hold(found, rate, plan.count(rate)) for rate in plan.rates if plan.busy]
        result["sustained"] = {MIX: line.sustain(found, plan.burst)} | _by_family(line, plan)
        result["engine"] = "+".join(sorted(listener.engines))
        largest = monitor.largest
        result["memory"] = {"largest_bytes": largest.total_bytes, "processes": largest.rss_bytes}
    return {**result, "engines": {result["engine"]: result["sustained"][MIX]} | _by_engine(plan, found)}


def split(found: Sequence[Recording]) -> tuple[list[Recording], list[Recording]]:
    """Formats that show their own end, and those that must be still for a while."""
    own = [item for item in found if NAMES.quiet_s(item.files[0].name) == 0]
    return own, [item for item in found if NAMES.quiet_s(item.files[0].name) > 0]


def _by_family(line: Line, plan: Plan) -> dict[str, dict[str, float]]:
    """The families whose size the bars speak of, each alone."""
    return {
        family.name: line.sustain(recordings([arrival.file for arrival in family.arrivals]), max(plan.burst // 2, 1))
        for family in families(plan.folders)
        if family.name != OTHERS
    }


def _by_engine(plan: Plan, found: Sequence[Recording]) -> dict[str, dict[str, float]]:
    """The same with the engines that are not preferred here, where none was asked for."""
    sustained: dict[str, dict[str, float]] = {}
    names = [engine.name for engine in candidates(plan.wish)] if plan.engine == "auto" else []
    for name in names[1:]:
        with serving(replace(plan, engine=name)) as (service, monitor, listener):
            rate = Line(service, monitor, listener).sustain(found, plan.burst)
            sustained["+".join(sorted(listener.engines))] = rate
    return sustained
