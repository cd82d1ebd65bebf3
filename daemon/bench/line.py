"""The line under load: files into the folder of a service, events out of it, at a rate or as fast as it can.

Latency runs from the moment a file was closed by this process to the moment its event arrived here.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daemon.bench.timing import spread_ms
from daemon.bench.vitals import Vitals
from daemon.client.feed import Ear
from daemon.client.temporary import Trial
from daemon.common import ending
from daemon.common.errors import INTERNAL, UserError
from daemon.instrument import Specimen, Writer, play

GROWING_PER_S = 50  # files a second that are written in pieces; above, eight back to back
BURSTS = 3
_PATIENCE_S = 120.0
_SETTLE_S = 0.5  # a folder that has just been made is not measured


class Line:
    """A service with an ear to it."""

    def __init__(self, trial: Trial, vitals: Vitals, ear: Ear) -> None:
        self._trial, self._vitals, self._ear = trial, vitals, ear
        self._number = 0

    def hold(self, found: Sequence[Specimen], rate: float, count: int) -> dict[str, Any]:
        """``count`` files at ``rate`` a second -> {"rate_per_s", "lost", "latency_ms", "cpu_ms" for each curve}."""
        folder, closed_s = self._fresh(self._trial.watch), dict[str, float]()
        writer: Writer = "burst" if rate > GROWING_PER_S else "grow"
        begun_s = time.monotonic()
        for path in play(found, folder, rate=rate, writer=writer, count=count, fresh=True):
            closed_s[path.relative_to(self._trial.watch).as_posix()] = time.monotonic()
        self._ear.wait(closed_s, _PATIENCE_S)
        heard_s, curves = self._ear.heard_s, len(self._ear.curves_s)
        cpu_s = sum(self._vitals.cpu_between(begun_s, time.monotonic()).values())
        waited_s = [heard_s[name] - closed_s[name] for name in closed_s if name in heard_s]
        self._clear(folder)
        return {
            "rate_per_s": rate,
            "lost": count - len(waited_s),
            "latency_ms": spread_ms(waited_s),
            "cpu_ms": round(1000.0 * cpu_s / max(curves, 1), 3),
        }

    def sustain(self, found: Sequence[Specimen], count: int) -> dict[str, float]:
        """``count`` files that appear all at once -> {"curves", "per_s", "cpu_ms", …}, medians of BURSTS.

        ``service_cpu_ms`` and the like say which kind of process used it.
        """
        runs = [self._burst(found, count) for _ in range(BURSTS)]
        middle = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
        return {**middle, "cpu_ms": round(sum(one for key, one in middle.items() if key.endswith("_cpu_ms")), 3)}

    def _burst(self, found: Sequence[Specimen], count: int) -> dict[str, float]:
        """Written elsewhere, then moved in as one folder: writing is not the service's work. Counted from then on."""
        stock = self._fresh(self._trial.folder / "stock")
        names = [path.name for path in play(found, stock, rate=1e6, writer="burst", count=count, fresh=True)]
        folder = self._trial.watch / stock.name
        begun_s = time.monotonic()
        stock.rename(folder)
        if not self._ear.wait([f"{folder.name}/{name}" for name in names], _PATIENCE_S):
            raise UserError(INTERNAL, f"the service did not decide {count} files: {self._trial.last_words()}")
        ended_s, curves = self._ear.curves_s[-1], len(self._ear.curves_s)
        ending.pause(0.2)  # one more look at its processes
        cpu_s = self._vitals.cpu_between(begun_s, ended_s)
        self._clear(folder)
        rate = {"curves": float(curves), "per_s": curves / max(ended_s - begun_s, 1e-6)}
        spent_ms = {f"{role}_cpu_ms": 1000.0 * used_s / curves for role, used_s in cpu_s.items()}
        return rate | spent_ms

    def _fresh(self, parent: Path) -> Path:
        self._number += 1
        folder = parent / f"part-{self._number}"
        folder.mkdir(parents=True)
        ending.pause(_SETTLE_S)
        return folder

    def _clear(self, folder: Path) -> None:
        shutil.rmtree(folder)
        self._ear.forget()
