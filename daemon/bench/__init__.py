"""The bench: what this program costs and delivers on this machine, from real files, in one run.

A ``Plan`` says what is to be measured, and how thoroughly. Each part has a module with ``measure``; the table, the bars
and the picture are made from what they return. What must not be disturbed by its neighbour (an engine, the published
recipe, the stages) is measured in a process of its own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.judging import Thresholds, Verdict, verdict_of
from daemon.learn.int8 import PreparedCurves
from deploy.classifier import EngineRequest
from deploy.engines import DEVICES, NAMES, PRECISIONS
from models.bundle import Bundle

CURVES = Path(__file__).resolve().parents[1] / "curves"
BATCH = 32  # the service's largest, unless configured otherwise
#: In the order they are measured; "swap" and "soak" only where they are asked for.
PARTS = ("stages", "engines", "load", "recipe", "swap", "soak")
STAGES = ("read", "front-end", "raster", "network", "decide", "commit", "publish")


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = sorted({float(word) for word in text.split(",")})
    except ValueError:
        rates = []
    if not rates or not all(0 < rate <= 10_000 for rate in rates):
        raise UserError(USAGE, f"--rates {text}: numbers above 0 with commas between, as in 1,10,100")
    return tuple(rates)


_PARTS = Option(
    f"measure this alone (repeatable; all but swap and soak): {', '.join(PARTS)}",
    "PART",
    flag="only",
    choices=PARTS,
    unless="",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the command line asked for; most fields are flags of `bench`."""

    parts: Annotated[tuple[str, ...], _PARTS] = ("stages", "engines", "load", "recipe")
    model: Annotated[str, Option("model that judges", "NAME-or-DIR")] = "shipped"
    device: Annotated[str, Option("where the service runs", choices=DEVICES)] = "auto"
    engine: Annotated[str, Option("of the service and the stages", choices=NAMES)] = "auto"
    precision: Annotated[str, Option("the same", choices=PRECISIONS)] = "auto"
    rates: Annotated[tuple[float, ...], Option("files a second", "R,R,…", parse=_rates)] = (1.0, 10.0, 100.0)
    files: Annotated[int, Option("at one rate, at most", "N")] = 300
    hold_s: Annotated[float, Option("each rate so long", "S", unit="s")] = 8.0
    burst: Annotated[int, Option("files at once", "N")] = 1500
    busy: Annotated[int, Option("neighbours that compute", "N")] = 2
    curves: Annotated[tuple[Path, ...], Option("more real curves", "DIR")] = ()
    simulated: Annotated[int, Option("to compare engines", "N", flag="simulate")] = 1000
    seed: Annotated[int, Option("of the simulated curves", "N")] = 1
    soak: int = 50_000  # curves through one service, where that part is asked for

    @property
    def wish(self) -> EngineRequest:
        """The engine of the service and of the stages."""
        return EngineRequest(self.device, self.engine, self.precision)

    @property
    def folders(self) -> tuple[Path, ...]:
        return (CURVES, *self.curves)

    def count(self, rate: float) -> int:
        """Files to write at ``rate`` a second."""
        return max(1, min(self.files, round(rate * self.hold_s)))

    def request(self, **more: Any) -> dict[str, Any]:
        """What a child process needs to know, as JSON takes it."""
        return {"model": self.model, "folders": [str(folder) for folder in self.folders], **more}

    def settings(self) -> dict[str, Any]:
        """For the record."""
        return {**asdict(self), "curves": [str(folder) for folder in self.curves]}


# Agreement: whether an engine gives the verdicts of torch in single precision, curve by curve.

_APART = {"keep", "discard"}


def compare(curves: PreparedCurves, bundle: Bundle, wanted: Sequence[float], found: Sequence[float]) -> dict[str, Any]:
    """Logits of N curves, ``wanted`` and ``found``: the largest difference, and every verdict that is another.

    In ``verdicts`` and ``scores`` the first is the reference's. ``jumps`` are curves that went from keep to discard or
    back: no rounding does that.
    """
    reference, other = np.asarray(wanted, np.float64), np.asarray(found, np.float64)
    before, after = _verdicts(curves, bundle, reference), _verdicts(curves, bundle, other)
    scores = bundle.calibration.score(reference), bundle.calibration.score(other)
    changes = [
        {
            "curve": curves.names[place],
            "verdicts": [before[place], after[place]],
            "scores": [float(scores[0][place]), float(scores[1][place])],
            "logit_difference": round(float(other[place] - reference[place]), 4),
        }
        for place in range(len(curves.names))
        if before[place] != after[place]
    ]
    jumps = [name for name, one, two in zip(curves.names, before, after, strict=True) if {one, two} == _APART]
    return {
        "largest_difference": round(float(np.abs(other - reference).max(initial=0.0)), 5),
        "share_changed": len(changes) / max(len(curves.names), 1),
        "changes": changes,
        "jumps": jumps,
    }


def _verdicts(curves: PreparedCurves, bundle: Bundle, logits: NDArray[np.float64]) -> list[Verdict]:
    thresholds = Thresholds(bundle.discard, bundle.keep)
    scores = bundle.calibration.score(logits)
    return [
        verdict_of(float(score), reasons, thresholds) for score, reasons in zip(scores, curves.reasons, strict=True)
    ]


# Timing: repeats, medians and tails.

REPEAT_S = 0.6  # what one figure is repeated for
_FEWEST = 5


def cpu_ms(work: Callable[[], object], seconds: float = REPEAT_S) -> float:
    """Milliseconds of one core that ``work`` takes, all threads of this process together: the median of repeats.

    CPU time, because what another program does on the machine hardly changes it.
    """
    taken: list[float] = []
    until_s = time.perf_counter() + seconds
    while len(taken) < _FEWEST or time.perf_counter() < until_s:
        begun_s = time.process_time()
        work()
        taken.append(time.process_time() - begun_s)
    return 1000.0 * statistics.median(taken)


def spread_ms(values_s: Sequence[float]) -> dict[str, float]:
    """Seconds -> {"p50", "p99", "max"} in milliseconds and "count"; of none, only that."""
    if not values_s:
        return {"count": 0}
    ordered = [1000.0 * value for value in sorted(values_s)]
    at = {name: ordered[min(int(share * len(ordered)), len(ordered) - 1)] for name, share in _TAIL.items()}
    return {**{name: round(value, 2) for name, value in at.items()}, "count": len(ordered)}


_TAIL = {"p50": 0.5, "p99": 0.99, "max": 1.0}
