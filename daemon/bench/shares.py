"""The shares: what the whole line reaches of the bare engine's rate, and what the line costs beyond the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from daemon.bench import BATCH
from daemon.bench.engines import bare
from daemon.bench.plan import Plan


def shares(plan: Plan, load: Mapping[str, Any], engines: Mapping[str, Any] | None, cores: int) -> list[dict[str, Any]]:
    """A row for each engine that a service ran with.

    ``ceiling_per_s`` is what so many cores could reach at most with the CPU time that a curve takes.
    """
    rows = []
    for name, line in load["engines"].items():
        speed = _speed(name, plan, engines)["batches"][str(BATCH)]
        rows.append(
            {
                "engine": name,
                "line_per_s": line["per_s"],
                "bare_per_s": speed["per_s"],
                "share": round(line["per_s"] / speed["per_s"], 4),
                "ceiling_per_s": round(1000.0 * cores / line["cpu_ms"], 1),
                "line_cpu_ms": line["cpu_ms"],
                "engine_cpu_ms": speed["cpu_ms"],
                "beyond_cpu_ms": round(line["cpu_ms"] - speed["cpu_ms"], 3),
            }
        )
    return rows


def _speed(name: str, plan: Plan, engines: Mapping[str, Any] | None) -> dict[str, Any]:
    """As measured in this run; else it is measured now."""
    for one in engines["engines"] if engines else ():
        if one["engine"] == name and "batches" in one:
            found: dict[str, Any] = one
            return found
    words = name.split("-")  # maker, device, precision
    return bare(replace(plan, engine=words[0], precision=words[-1]))
