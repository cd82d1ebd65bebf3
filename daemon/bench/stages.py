"""The stages: what a curve costs one core on its way, from the file to the event, a column a family of formats.

CPU time, not wall time: the stages overlap in the service, which reads in processes of its own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from daemon.bench import BATCH, STAGES
from daemon.bench.engine import wish_of
from daemon.bench.families import OTHERS, Family, families
from daemon.bench.reading import read_ms
from daemon.bench.recording import record_ms
from daemon.bench.timing import REPEAT_S, cpu_ms
from daemon.config import ThresholdsConfig
from daemon.judging import decide
from daemon.judging.judge import judge_of, load_model
from daemon.reading import Reading
from deploy.serving import Model
from models.frontend import prepare
from models.raster import coverage, envelope
from models.sign import prepare_to_judge

BEYOND = tuple(stage for stage in STAGES if stage != "network")  # what is not the engine's


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """``{"engine", "model", "families": {name: {"points", "files", "ms": {stage: …}, "beyond_ms", …}}}``."""
    model = load_model(request["model"], wish_of(request))
    found = families([Path(folder) for folder in request["folders"]])
    return {
        "engine": model.engine,
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
        commit, commit_wall, publish = record_ms(readings, decide(readings, scored, judge), Path(folder))
    spent = {
        "front-end": cpu_ms(lambda: prepare_to_judge(curves, profile), seconds) / BATCH,
        "raster": raster,
        "network": max(whole - raster, 0.0),
        "decide": cpu_ms(lambda: decide(readings, scored, judge), seconds) / BATCH,
        "commit": commit,
        "publish": publish,
    }
    return spent, commit_wall
