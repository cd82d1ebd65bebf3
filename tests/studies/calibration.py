"""`make study TOPIC=calibration`: are probabilities that were fitted once right on other streams, at other prevalences?

Temperature and bias are fitted to a simulated set mixed like a labelled one, for a stream of one prevalence. Other
simulated streams, of other seeds, are judged: with the fit made for their prevalence, and with the one fit whose log
odds were moved there. Rarer streams are thinned out of the richest: events are dropped at random, nothing else changes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deploy.serving import Model

PREVALENCES = (0.01, 0.02, 0.05, 0.10)
BARS = {"ece": (0.0, 0.03), "brier_skill": (0.5, 1.0), "reliability_slope": (0.8, 1.25)}
FITTED_SEED, STREAM_SEED = 9_100_000, 9_200_000  # of no other use of the simulator


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """N simulated curves that the model gave a logit."""

    logits: NDArray[np.float64]
    events: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """About 100 curves a second on one core."""

    model: Annotated[str, Option("shipped, or a model folder")] = "shipped"
    labelled: Annotated[int, Option("curves to fit on, half with one", "N")] = 1000
    curves: Annotated[int, Option("curves of a stream", "N")] = 10_000
    streams: Annotated[int, Option("streams, each of its own seed", "N")] = 3
    seed: Annotated[int, Option("", "N")] = 1
    threads: Annotated[int, Option("", "N")] = 1
    out: Annotated[Path | None, Option("what the table was made from", "FILE.json")] = None


def run(options: Options) -> int:
    """Exit 0 with the table, whatever it says."""
    if min(options.labelled - 49, options.curves - 999, options.streams, options.threads, options.seed + 1) < 1:
        raise UserError(USAGE, "--labelled is 50 or more, --curves 1000, --streams and --threads 1, --seed 0")
    from daemon.judging.judge import load_model
    from deploy.classifier import EngineRequest

    model = load_model(options.model, EngineRequest("cpu", threads=options.threads))
    fitted_on = _judge(model, options.labelled, FITTED_SEED + options.seed, 0.5)
    rows = []
    for number in range(options.streams):
        stream = _judge(model, options.curves, STREAM_SEED + 1000 * options.seed + number, max(PREVALENCES))
        rows += [_row(model, fitted_on, stream, number, prevalence) for prevalence in PREVALENCES]
    found = {
        "model": model.id,
        "engine": str(model.engine),
        "labelled": options.labelled,
        "seed": options.seed,
        "rows": rows,
    }
    print(write_text(found))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _judge(model: Model, count: int, seed: int, prevalence: float) -> Judged:
    """Through the service's own way from curve to logit."""
    from itertools import islice

    import numpy as np

    from daemon.common.stdio import progress
    from models.simulate import simulate

    curves = iter(progress(simulate(count, seed, prevalence), f"judging curves of seed {seed}", count))
    logits, events = [], []
    while batch := list(islice(curves, 64)):
        for item, scored in zip(batch, model.judge([item.curve for item in batch]), strict=True):
            if scored.logit is not None:
                logits.append(scored.logit)
                events.append(item.label == "keep")
    return Judged(np.array(logits), np.array(events))


def _row(model: Model, fitted_on: Judged, stream: Judged, number: int, prevalence: float) -> dict[str, Any]:
    from models.calibrate import fit_platt, prior_of

    rare = thin(stream, prevalence, number)
    prior = prior_of(model.bundle.calibration)
    asked = fit_platt(fitted_on.logits, fitted_on.events, prevalence, prior)
    moved = fit_platt(fitted_on.logits, fitted_on.events, 0.02, prior).at(prevalence)
    return {
        "stream": number + 1,
        "prevalence": prevalence,
        "events": int(rare.events.sum()),
        "curves": int(rare.events.size),
        "fitted": figures(asked.score(rare.logits), rare.events),
        "moved": figures(moved.score(rare.logits), rare.events),
    }


def thin(stream: Judged, prevalence: float, seed: int) -> Judged:
    """Events dropped at random until they are ``prevalence`` of what is left; all stay where they are no more."""
    import numpy as np

    events, free = np.flatnonzero(stream.events), np.flatnonzero(~stream.events)
    wanted = min(round(prevalence / (1 - prevalence) * free.size), events.size)
    kept = np.sort(np.append(np.random.default_rng(seed).choice(events, wanted, replace=False), free))
    return Judged(stream.logits[kept], stream.events[kept])


def figures(scores: NDArray[np.float64], events: NDArray[np.bool_]) -> dict[str, float]:
    """What the bars speak of, in the stream's own mix."""
    from models.metrics import brier_skill, calibration_error, reliability_slope

    return {
        "ece": calibration_error(scores, events),
        "brier_skill": brier_skill(scores, events),
        "reliability_slope": reliability_slope(scores, events),
    }


def write_text(found: dict[str, Any]) -> str:
    """The table, and for each figure the worst of the streams against its bar."""
    lines = [
        f"{found['model']} by {found['engine']}, fitted to {found['labelled']} simulated curves, half of them events",
        "",
        "                          fitted at this prevalence    fitted at 2 %, moved here",
        "stream  events/curves        ECE   skill   slope           ECE   skill   slope",
    ]
    for row in found["rows"]:
        cells = [[row[way][name] for name in BARS] for way in ("fitted", "moved")]
        fitted, moved = (f"{ece:.4f}  {skill:6.3f}  {slope:6.3f}" for ece, skill, slope in cells)
        mix = f"{row['prevalence']:>4.0%}  {row['events']:>5}/{row['curves']}"
        lines.append(f"{row['stream']:>2} {mix:<20}  {fitted}        {moved}")
    return "\n".join([*lines, "", *(_verdict(found["rows"], way) for way in ("fitted", "moved"))])


def _verdict(rows: list[dict[str, Any]], way: str) -> str:
    parts = []
    for name, (low, high) in BARS.items():
        values = [row[way][name] for row in rows]
        inside = all(low <= value <= high for value in values)
        mark = "holds" if inside else "FAILS"
        parts.append(f"{name} {min(values):.3f} to {max(values):.3f} (bar {low:g} to {high:g}: {mark})")
    return f"{way}: " + ", ".join(parts)
