"""The soak: tens of thousands of curves through one service, and what its memory does meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from daemon.bench import CURVES
from daemon.bench.load import split
from daemon.bench.plan import Plan
from daemon.bench.serving import serving
from daemon.bench.vitals import Sample
from daemon.client.feed import Ear
from daemon.client.temporary import Trial
from daemon.common import ending
from daemon.common.errors import INTERNAL, UserError
from daemon.common.progress import progress
from daemon.instrument import play, specimens

AHEAD = 256  # files that wait to be decided, at most
EVERY_S = 0.5
_PATIENCE_S = 60.0

Course = list[tuple[int, Sample]]  # curves decided, and what the processes held then


def measure(plan: Plan) -> dict[str, Any]:
    """``{"files", "curves", "per_s", "lost", "largest_bytes", "slope_mb", "course": [{"curves", "rss_bytes"}]}``.

    ``slope_mb`` is the growth for each 10,000 curves over the second half, all processes together.
    """
    found, _ = split(specimens([CURVES]))
    with serving(plan, EVERY_S) as (trial, vitals, ear):
        begun_s = time.monotonic()
        files = 0
        watch = trial.watch
        waiting: set[Path] = set()
        coming = play(found, watch, rate=1e6, writer="burst", count=plan.soak, fresh=True)
        for path in progress(coming, "soak", plan.soak):
            files += 1
            waiting.add(path)
            if len(ear.curves_s) >= plan.soak:
                break
            _hold_back(trial, ear, waiting, AHEAD)
        _hold_back(trial, ear, waiting, 0)
        took_s, curves_s = time.monotonic() - begun_s, list(ear.curves_s)
        ending.pause(2 * EVERY_S)
        samples = [sample for sample in vitals.samples if sample.at_s >= begun_s]
    course = [(int(np.searchsorted(curves_s, sample.at_s)), sample) for sample in samples]
    return {
        "files": files,
        "curves": len(curves_s),
        "per_s": round(len(curves_s) / took_s, 1),
        "lost": len(waiting),
        "largest_bytes": vitals.largest.total_bytes,
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


def _hold_back(trial: Trial, ear: Ear, waiting: set[Path], most: int) -> None:
    """Until no more than ``most`` files wait; what is decided is deleted, or the disk would fill up."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while len(waiting) > most:
        done = {path for path in waiting if path.relative_to(trial.watch).as_posix() in ear.heard_s}
        for path in done:
            os.unlink(path)
            ear.heard_s.pop(path.relative_to(trial.watch).as_posix())
        waiting -= done
        if not done:
            if time.monotonic() > deadline_s:
                raise UserError(INTERNAL, f"the service decides nothing any more: {trial.last_words()}")
            ending.pause(0.01)
