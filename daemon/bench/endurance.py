"""Endurance: a service whose model is swapped while curves come, and one that tens of thousands of curves go through.

The swap: three times another model goes live. The largest gap between two decisions around a swap is the pause that
anybody could notice. The models differ in their name and in a millionth of what their self-test expects: so their
weights are read, checked, folded and built anew, where those of a moved cut are not. The soak: what the memory of one
service does over many curves.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from daemon.bench import CURVES
from daemon.bench.harness import Plan
from daemon.bench.line import serving, split
from daemon.bench.machine import Sample
from daemon.client.feed import EventListener
from daemon.client.temporary_service import TemporaryService
from daemon.common import ending
from daemon.common.ending import Closing
from daemon.common.errors import INTERNAL, UserError
from daemon.common.progress import progress
from daemon.formats import NAMES
from daemon.instrument import Recording, play, recordings
from daemon.ledger import events, wire
from models.bundle import Bundle, read, resolve, write

RATE_PER_S = 200.0
SWAPS = 3
_BEFORE_S = 3.0  # of steady stream before the first swap, and between two
_PATIENCE_S = 60.0
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


def measure(plan: Plan) -> dict[str, Any]:
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
