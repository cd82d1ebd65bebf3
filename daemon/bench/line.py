"""The line under load: files into the folder of a service, events out of it, at a rate or as fast as it can.

Latency runs from the moment a file was closed by this process to the moment its event arrived here.

The swap: three times another model goes live while curves come. The largest gap between two decisions around a swap is
the pause that anybody could notice. The models differ in their name and in a millionth of what their self-test expects:
so their weights are read, checked, folded and built anew, where those of a moved cut are not. The soak: what the memory
of one service does over tens of thousands of curves.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from daemon.bench import CURVES, Plan, spread_ms
from daemon.bench.machine import OTHERS, ProcessMonitor, Sample, families, neighbours
from daemon.client.feed import EventListener
from daemon.client.service_file import TemporaryService
from daemon.common import ending
from daemon.common.ending import Closing
from daemon.common.errors import INTERNAL, UserError
from daemon.common.stdio import progress
from daemon.formats import NAMES
from daemon.instrument import Recording, Writer, play, recordings
from daemon.ledger import events, wire
from deploy.engines import candidates
from models.bundle import Bundle, read, resolve, write

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
        """Written elsewhere, then moved in as one folder: writing is not the service's work.

        What it uses is counted from then on, its rate once a tenth has come: that a new folder is listed after 0.3 s
        says nothing of how much goes through.
        """
        stock = self._fresh(self._service.folder / "stock")
        names = [path.name for path in play(found, stock, rate=1e6, writer="burst", count=count, fresh=True)]
        folder = self._service.watch / stock.name
        begun_s = time.monotonic()
        stock.rename(folder)
        if not self._listener.wait([f"{folder.name}/{name}" for name in names], _PATIENCE_S):
            raise UserError(INTERNAL, f"the service did not decide {count} files: {self._service.last_words()}")
        heard_s, curves = self._listener.curves_s, len(self._listener.curves_s)
        ended_s, tenth = heard_s[-1], curves // 10
        ending.pause(0.2)  # one more look at its processes
        cpu_s = self._monitor.cpu_between(begun_s, ended_s)
        self._clear(folder)
        took_s = ended_s - (heard_s[tenth - 1] if tenth else begun_s)
        rate = {"curves": float(curves), "per_s": (curves - tenth) / max(took_s, 1e-6)}
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


RATE_PER_S = 200.0
SWAPS = 3
_BEFORE_S = 3.0  # of steady stream before the first swap, and between two
AHEAD = 256  # files of the soak that wait to be decided, at most
EVERY_S = 0.5  # looks at its memory

Course = list[tuple[int, Sample]]  # curves decided, and what the processes held then


@dataclass(frozen=True, slots=True)
class ReceivedDecision:
    """One decision as a subscriber met it."""

    at_s: float
    seq: int
    model: str
    path: str
    curve: int


class DecisionListener(EventListener):
    """A listener that also keeps the order of decisions, and when a reload was answered."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.decisions: list[ReceivedDecision] = []
        self.answers: list[tuple[float, str]] = []  # when, and how

    def _note(self, body: bytes) -> None:
        super()._note(body)
        now_s, event = time.monotonic(), wire.decode(body)
        if events.kind_of(event) == "decision":
            data = event["data"]
            self.decisions.append(ReceivedDecision(now_s, event["seq"], data["model"], data["path"], data["curve"]))
        elif events.kind_of(event) == "config":
            self.answers.append((now_s, event["data"]["result"]))


def measure_swap(plan: Plan) -> dict[str, Any]:
    """``{"largest_gap_ms", "usual_gap_ms", "swap_ms": [...], "lost", "doubled", "switches", …}``."""
    with tempfile.TemporaryDirectory(prefix="afm-triage-") as name:
        bundle, ours = read(resolve(plan.model)), Path(name) / "ours"
        rename(bundle, ours, 0)
        with serving(replace(plan, model=str(ours))) as (service, _, _), DecisionListener(service.publish) as listener:
            assert service.process is not None
            found = [one for one in recordings([CURVES]) if NAMES.quiet_s(one.files[0].name) == 0]
            with _Writing(found, service.watch) as written:
                asked_s = _swap_all(bundle, ours, service, listener)
            listener.wait(written.names, _PATIENCE_S)
    return {"rate_per_s": RATE_PER_S, "swaps": SWAPS, **judge(written.names, listener, asked_s)}


def rename(bundle: Bundle, folder: Path, number: int) -> None:
    """The same model under another name: another id, in the same folder; no engine of the one before is good for it."""
    card, told = (bundle.folder / "card.md").read_text(), bundle.manifest.selftest
    selftest = msgspec.structs.replace(told, logits=[logit + 1e-6 * number for logit in told.logits])
    manifest = msgspec.structs.replace(bundle.manifest, name=f"swap-{number}", selftest=selftest)
    write(folder, bundle.weights, manifest, card, parent=bundle, replaces=True)


def _swap_all(bundle: Bundle, ours: Path, service: TemporaryService, listener: DecisionListener) -> list[float]:
    """When each reload was asked for."""
    assert service.process is not None
    asked_s = []
    for number in range(1, SWAPS + 1):
        ending.pause(_BEFORE_S)
        rename(bundle, ours, number)
        ending.pause(0.5)  # what writing the model costs this machine is not the service's
        asked_s.append(time.monotonic())
        service.process.send_signal(signal.SIGHUP)
        while len(listener.answers) < number:
            if time.monotonic() - asked_s[-1] > _PATIENCE_S:
                raise UserError(INTERNAL, f"the service did not answer a reload: {service.last_words()}")
            ending.pause(0.01)
    ending.pause(_BEFORE_S)
    return asked_s


def judge(names: Sequence[str], listener: DecisionListener, asked_s: Sequence[float]) -> dict[str, Any]:
    """What the stream of decisions shows; a swap lasts from its reload to a second after the answer to it."""
    decisions = sorted(listener.decisions, key=lambda one: one.seq)
    times = Counter((one.path, one.curve) for one in decisions)
    around = [(asked, answer[0] + 1.0) for asked, answer in zip(asked_s, listener.answers, strict=True)]
    gaps = [(one.at_s, other.at_s) for one, other in pairwise(decisions)]
    inside = [gap for gap in gaps if any(gap[1] > start and gap[0] < end for start, end in around)]
    first_s = asked_s[0] - _BEFORE_S + 1.0
    outside = [gap for gap in gaps if gap not in inside and first_s < gap[0] < around[-1][1] + 1.0]
    return {
        "curves": len(decisions),
        "lost": len(set(names) - {one.path for one in decisions}),
        "doubled": sum(count > 1 for count in times.values()),
        "switches": sum(one.model != other.model for one, other in pairwise(decisions)),
        "answers": [answer for _, answer in listener.answers],
        "swap_ms": [round(1000 * (answer[0] - asked)) for asked, answer in zip(asked_s, listener.answers, strict=True)],
        "largest_gap_ms": _largest_ms(inside),
        "usual_gap_ms": _largest_ms(outside),
    }


def _largest_ms(gaps: Sequence[tuple[float, float]]) -> float:
    return round(1000 * max((end - start for start, end in gaps), default=0.0), 1)


class _Writing(threading.Thread, Closing):
    """The instrument, until it is stopped."""

    def __init__(self, found: Sequence[Recording], into: Path) -> None:
        super().__init__(name="instrument", daemon=True)
        self.names: list[str] = []
        self._found, self._into = found, into
        self._ending = threading.Event()
        self.start()

    def run(self) -> None:
        for path in play(self._found, self._into, rate=RATE_PER_S, writer="grow", count=1_000_000, fresh=True):
            self.names.append(path.relative_to(self._into).as_posix())
            if self._ending.is_set():
                return

    def close(self) -> None:
        self._ending.set()
        self.join(_PATIENCE_S)


def measure_soak(plan: Plan) -> dict[str, Any]:
    """``{"files", "curves", "per_s", "lost", "largest_bytes", "slope_mb", "course": [{"curves", "rss_bytes"}]}``.

    ``slope_mb`` is the growth for each 10,000 curves over the second half, all processes together.
    """
    found, _ = split(recordings([CURVES]))
    with serving(plan, EVERY_S) as (service, monitor, listener):
        begun_s = time.monotonic()
        files = 0
        watch = service.watch
        waiting: set[Path] = set()
        coming = play(found, watch, rate=1e6, writer="burst", count=plan.soak, fresh=True)
        for path in progress(coming, "soak", plan.soak):
            files += 1
            waiting.add(path)
            if len(listener.curves_s) >= plan.soak:
                break
            _hold_back(service, listener, waiting, AHEAD)
        _hold_back(service, listener, waiting, 0)
        took_s, curves_s = time.monotonic() - begun_s, list(listener.curves_s)
        ending.pause(2 * EVERY_S)
        samples = [sample for sample in monitor.samples if sample.at_s >= begun_s]
    course = [(int(np.searchsorted(curves_s, sample.at_s)), sample) for sample in samples]
    return {
        "files": files,
        "curves": len(curves_s),
        "per_s": round(len(curves_s) / took_s, 1),
        "lost": len(waiting),
        "largest_bytes": monitor.largest.total_bytes,
        "slope_mb": round(slope_mb(course), 3),
        "course": [{"curves": curves, "rss_bytes": sample.rss_bytes} for curves, sample in thin(course)],
    }


def thin(course: Course, most: int = 200) -> Course:
    """Every so many samples, and the last one."""
    return [*course[: -1 : max(len(course) // most, 1)], course[-1]]


def slope_mb(course: Course) -> float:
    """Least squares over the second half: MB for each 10,000 curves."""
    half = course[-1][0] / 2
    x = np.array([curves for curves, _ in course if curves >= half], np.float64)
    y = np.array([sample.total_bytes for curves, sample in course if curves >= half], np.float64)
    return float(np.polyfit(x, y, 1)[0]) * 1e4 / 1e6 if np.ptp(x) > 0 else 0.0


def _hold_back(service: TemporaryService, listener: EventListener, waiting: set[Path], most: int) -> None:
    """Until no more than ``most`` files wait; what is decided is deleted, or the disk would fill up."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while len(waiting) > most:
        done = {path for path in waiting if path.relative_to(service.watch).as_posix() in listener.heard_s}
        for path in done:
            os.unlink(path)
            listener.heard_s.pop(path.relative_to(service.watch).as_posix())
        waiting -= done
        if not done:
            if time.monotonic() > deadline_s:
                raise UserError(INTERNAL, f"the service decides nothing any more: {service.last_words()}")
            ending.pause(0.01)
