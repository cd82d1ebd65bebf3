"""The bars: what was promised, beside what was measured; a bar that is missed is told like one that holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

BEYOND_MS = 2.5  # of one core, for a JPK or NanoScope curve of 4,000 points
CHANGED = 0.001  # of the verdicts of torch in single precision
RATE_PER_S, QUIET_MS, BUSY_MS = 10.0, 50.0, 100.0  # p99 at this rate
SHARE = 0.85  # of the bare engine's rate
FACTOR = 10.0  # over the published recipe
MEMORY_GB = 1.2
GAP_MS = 100.0  # between two decisions while another model goes live
SLOPE_MB = 5.0  # for each 10,000 curves: flat is what a month of measuring does not notice


@dataclass(frozen=True, slots=True)
class Bar:
    """``value`` may be ``limit`` at most, or has to be that at least."""

    name: str
    value: float
    limit: float
    unit: str
    at_most: bool = True

    @property
    def holds(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def row(self) -> list[str]:
        """Name, value, limit, verdict."""
        sign = "<=" if self.at_most else ">="
        return [self.name, _number(self.value, self.unit), f"{sign} {_number(self.limit, self.unit)}", self._word()]

    def _word(self) -> str:
        return "holds" if self.holds else "missed"


def bars(found: Mapping[str, Any]) -> list[Bar]:
    """For whatever was measured."""
    makers = {"stages": _stages, "engines": _engines, "load": _load, "shares": _shares, "recipe": _recipe}
    makers |= {"swap": _swap, "soak": _soak}
    return [bar for part, make in makers.items() if part in found for bar in make(found)]


def _stages(found: Mapping[str, Any]) -> Iterator[Bar]:
    for name, family in found["stages"]["families"].items():
        if family["points"]:
            yield Bar(f"beyond the engine, {name} ({family['points']} points)", family["beyond_ms"], BEYOND_MS, "ms")


def _engines(found: Mapping[str, Any]) -> Iterator[Bar]:
    for one in found["engines"]["engines"]:
        if "in_service" in one:
            yield Bar(f"verdicts changed, {one['engine']}", one["in_service"]["share_changed"], CHANGED, "%")
            yield Bar(f"keep turned discard or back, {one['engine']}", len(one["in_service"]["jumps"]), 0, "")


def _load(found: Mapping[str, Any]) -> Iterator[Bar]:
    load = found["load"]
    for name, limit in (("quiet", QUIET_MS), ("busy", BUSY_MS)):
        beside = f", {found['settings']['busy']} busy neighbours" if name == "busy" else ""
        for row in load[name]:
            if row["rate_per_s"] == RATE_PER_S and row["latency_ms"]["count"]:
                yield Bar(f"p99 at {RATE_PER_S:g} curves/s{beside}", row["latency_ms"]["p99"], limit, "ms")
    yield Bar(
        "files without an event", sum(row["lost"] for row in (*load["quiet"], *load["busy"], load["text"])), 0, ""
    )
    yield Bar("memory of the service", load["memory"]["largest_bytes"] / 1e9, MEMORY_GB, "GB")


def _shares(found: Mapping[str, Any]) -> Iterator[Bar]:
    for row in found["shares"]:
        yield Bar(f"end to end of the bare engine, {row['engine']}", row["share"], SHARE, "%", at_most=False)


def _recipe(found: Mapping[str, Any]) -> Iterator[Bar]:
    if (factor := factor_of(found)) is not None:
        yield Bar("times the published recipe", factor, FACTOR, "x", at_most=False)


def _swap(found: Mapping[str, Any]) -> Iterator[Bar]:
    swap = found["swap"]
    yield Bar("largest gap while another model goes live", swap["largest_gap_ms"], GAP_MS, "ms")
    yield Bar("curves lost or decided twice by it", swap["lost"] + swap["doubled"], 0, "")


def _soak(found: Mapping[str, Any]) -> Iterator[Bar]:
    soak = found["soak"]
    curves = f"over {soak['curves']} curves"
    yield Bar(f"memory {curves}", soak["largest_bytes"] / 1e9, MEMORY_GB, "GB")
    yield Bar("its growth for 10,000 curves, second half", soak["slope_mb"], SLOPE_MB, "MB")
    yield Bar(f"files without an event {curves}", soak["lost"], 0, "")


def factor_of(found: Mapping[str, Any]) -> float | None:
    """Ours over the published recipe's rate, both from files; None where one of them was not measured."""
    if "load" not in found or "per_s" not in found.get("recipe", {}):
        return None
    sustained = found["load"]["engines"][found["load"]["engine"]]
    return float(sustained["per_s"] / found["recipe"]["per_s"])


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.3g} %"
    return f"{value:.3g} {unit}".strip() if value else f"0 {unit}".strip()
