"""The load on a real service in processes of its own: latency at several rates, and what it can sustain.

Text files show no end of their own and must be still for two seconds; they are measured apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from daemon.bench import CURVES
from daemon.bench.busy import neighbours
from daemon.bench.families import OTHERS, families
from daemon.bench.line import Line
from daemon.bench.plan import Plan
from daemon.bench.serving import serving
from daemon.formats import quiet_s
from daemon.instrument import Specimen, specimens
from deploy.engines import candidates

MIX = "the bundled mix"
TEXT_FILES, TEXT_PER_S = 20, 10.0


def measure(plan: Plan) -> dict[str, Any]:
    """``{"engine", "quiet": [row a rate], "busy": [row a rate], "text": row, "sustained": {mix: …}, "memory", …}``.

    Rows are what :meth:`Line.hold` gives. ``engines`` is what the mix is sustained at, engine by engine.
    """
    found, text = split(specimens([CURVES]))
    with serving(plan) as (trial, vitals, ear):
        line = Line(trial, vitals, ear)
        result: dict[str, Any] = {"quiet": [line.hold(found, rate, plan.count(rate)) for rate in plan.rates]}
        result["text"] = line.hold(text, TEXT_PER_S, TEXT_FILES)
        with neighbours(plan.busy):
            result["busy"] = [line.hold(found, rate, plan.count(rate)) for rate in plan.rates if plan.busy]
        result["sustained"] = {MIX: line.sustain(found, plan.burst)} | _by_family(line, plan)
        result["engine"] = "+".join(sorted(ear.engines))
        largest = vitals.largest
        result["memory"] = {"largest_bytes": largest.total_bytes, "processes": largest.rss_bytes}
    return {**result, "engines": {result["engine"]: result["sustained"][MIX]} | _by_engine(plan, found)}


def split(found: Sequence[Specimen]) -> tuple[list[Specimen], list[Specimen]]:
    """Formats that show their own end, and those that must be still for a while."""
    own = [item for item in found if quiet_s(item.files[0].name) == 0]
    return own, [item for item in found if quiet_s(item.files[0].name) > 0]


def _by_family(line: Line, plan: Plan) -> dict[str, dict[str, float]]:
    """The families whose size the bars speak of, each alone."""
    return {
        family.name: line.sustain(specimens([arrival.file for arrival in family.arrivals]), max(plan.burst // 2, 1))
        for family in families(plan.folders)
        if family.name != OTHERS
    }


def _by_engine(plan: Plan, found: Sequence[Specimen]) -> dict[str, dict[str, float]]:
    """The same with the engines that are not preferred here, where none was asked for."""
    sustained: dict[str, dict[str, float]] = {}
    names = [engine.name for engine in candidates(plan.wish)] if plan.engine == "auto" else []
    for name in names[1:]:
        with serving(replace(plan, engine=name)) as (trial, vitals, ear):
            rate = Line(trial, vitals, ear).sustain(found, plan.burst)
            sustained["+".join(sorted(ear.engines))] = rate
    return sustained
