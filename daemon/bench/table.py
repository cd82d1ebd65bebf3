"""The table of `bench`: what was measured, part by part, as lines for a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from daemon.bench import BATCH, STAGES
from daemon.common.text import align
from daemon.explain.picture import FAINT, INK, PAPER, QUIET, VERDICT

# The bars: what was promised, beside what was measured; a bar that is missed is told like one that holds.

BEYOND_MS = 1.0  # of one core, for a JPK or NanoScope curve of 4,000 points
CHANGED = 0.001  # of the verdicts of torch in single precision
RATE_PER_S, QUIET_MS, BUSY_MS = 10.0, 50.0, 100.0  # p99 at this rate
SHARE = 0.65  # of the bare engine's rate, which has a core for itself
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
    makers = {
        "stages": _stage_bars,
        "engines": _engine_bars,
        "load": _load_bars,
        "shares": _share_bars,
        "recipe": _recipe_bars,
    }
    makers |= {"swap": _swap_bars, "soak": _soak_bars}
    return [bar for part, make in makers.items() if part in found for bar in make(found)]


def _stage_bars(found: Mapping[str, Any]) -> Iterator[Bar]:
    for name, family in found["stages"]["families"].items():
        if family["points"]:
            yield Bar(f"beyond the engine, {name} ({family['points']} points)", family["beyond_ms"], BEYOND_MS, "ms")


def _engine_bars(found: Mapping[str, Any]) -> Iterator[Bar]:
    for one in found["engines"]["engines"]:
        if "in_service" in one:
            yield Bar(f"verdicts changed, {one['engine']}", one["in_service"]["share_changed"], CHANGED, "%")
            yield Bar(f"keep turned discard or back, {one['engine']}", len(one["in_service"]["jumps"]), 0, "")


def _load_bars(found: Mapping[str, Any]) -> Iterator[Bar]:
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


def _share_bars(found: Mapping[str, Any]) -> Iterator[Bar]:
    for row in found["shares"]:
        yield Bar(f"end to end of the bare engine, {row['engine']}", row["share"], SHARE, "%", at_most=False)


def _recipe_bars(found: Mapping[str, Any]) -> Iterator[Bar]:
    if (factor := factor_of(found)) is not None:
        yield Bar("times the published recipe", factor, FACTOR, "x", at_most=False)


def _swap_bars(found: Mapping[str, Any]) -> Iterator[Bar]:
    swap = found["swap"]
    yield Bar("largest gap while another model goes live", swap["largest_gap_ms"], GAP_MS, "ms")
    yield Bar("curves lost or decided twice by it", swap["lost"] + swap["doubled"], 0, "")


def _soak_bars(found: Mapping[str, Any]) -> Iterator[Bar]:
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


Found = Mapping[str, Any]


def write_text(found: Found, bars: Sequence[Bar]) -> str:
    """Every part that was measured, then the bars."""
    parts = {
        "stages": _stages,
        "engines": _engines,
        "load": _load,
        "shares": _shares,
        "recipe": _recipe,
        "swap": _swap,
        "soak": _soak,
    }
    lines = list(_head(found))
    for part, write in parts.items():
        if part in found:
            lines += ["", *write(found)]
    lines += ["", "bars", *_indent(align([bar.row() for bar in bars]))] if bars else []
    return "\n".join(lines)


def _head(found: Found) -> Iterator[str]:
    machine = found["machine"]
    yield f"{machine['cores']} cores ({machine['processor']}), {machine['architecture']}; {found['versions']}"
    yield (
        f"model {found['model']}; before the run: load {machine['load']:.2f}, {machine['others_cores']:.2f} cores in "
        f"use; others used {found['others_cores']:.2f} cores meanwhile"
    )
    if found["warning"]:
        yield f"WARNING: {found['warning']}"


def _stages(found: Found) -> Iterator[str]:
    stages = found["stages"]
    families = stages["families"]
    yield f"CPU of one core for a curve, stage by stage (ms; {stages['engine']}, batches of {found['batch']})"
    rows = [["", *(_shown(name, family["points"]) for name, family in families.items())]]
    rows += [[stage, *(f"{family['ms'][stage]:.3f}" for family in families.values())] for stage in STAGES]
    rows += [["beyond the engine", *(f"{family['beyond_ms']:.3f}" for family in families.values())]]
    rows += [["commit, wall time", *(f"{family['commit_wall_ms']:.3f}" for family in families.values())]]
    yield from _indent(align(rows))


def _shown(name: str, points: int | None) -> str:
    return f"{name}, {points} points" if points else name


def _engines(found: Found) -> Iterator[str]:
    engines = found["engines"]
    yield f"bare engines, each in its own process, {found['threads']} thread(s) as in the service"
    measured = [one for one in engines["engines"] if "batches" in one]
    sizes = sorted({size for one in measured for size in one["batches"]}, key=int)
    head = ["images/s at", *sizes, "CPU ms", "p50 ms", "p99 ms", "start s", "again s", "peak MB"]
    rows = [head, *(_speed(one, sizes) for one in measured)]
    yield from _indent(align(rows))
    for one in engines["engines"]:
        if trouble := one.get("failed") or one.get("refused"):
            yield f"  {one['engine']}: {trouble}"
    for name, why in engines["missing"].items():
        yield f"  {name}: {why}"
    counts = engines["curves"]
    yield ""
    yield f"against torch in single precision: {counts['real']} real and {counts['simulated']} simulated curves"
    rows = [["", "largest difference", "verdicts changed", "with the second look", "keep <-> discard"]]
    rows += [_agreement(one) for one in engines["engines"] if "alone" in one]
    yield from _indent(align(rows))
    yield from _changes(engines)


def _speed(one: Found, sizes: Sequence[str]) -> list[str]:
    alone, batches = one["batches"]["1"]["latency_ms"], one["batches"]
    return [
        one["engine"],
        *(f"{batches[size]['per_s']:.0f}" if size in batches else "-" for size in sizes),
        f"{batches[str(BATCH)]['cpu_ms']:.3f}",
        *(f"{alone[name]:.2f}" for name in ("p50", "p99")),
        *(f"{one[name]:.2f}" for name in ("build_s", "rebuild_s")),
        f"{one['peak_rss_bytes'] / 1e6:.0f}",
    ]


def _agreement(one: Found) -> list[str]:
    alone = one["alone"]
    changed = [f"{len(it['changes'])} ({it['share_changed']:.3%})" for it in (alone, one.get("in_service")) if it]
    changed += ["refused"] * (2 - len(changed))
    return [one["engine"], f"{alone['largest_difference']:.5f}", *changed, str(len(alone["jumps"]))]


def _changes(engines: Found) -> Iterator[str]:
    """Each verdict that is another: without the second look, and, which matters, with it."""
    thresholds = engines["thresholds"]
    for one in engines["engines"]:
        for which, words in (("alone", "without the second look"), ("in_service", "IN SERVICE")):
            for change in one.get(which, {}).get("changes", ()):
                before, after = change["verdicts"]
                scores = " -> ".join(f"{score:.6f}" for score in change["scores"])
                yield f"  {one['engine']}, {words}: {change['curve']}: {before} -> {after}, score {scores}"
    yield f"  thresholds: discard {thresholds['discard']:.6f}, keep {thresholds['keep']:.6f}"


def _load(found: Found) -> Iterator[str]:
    load, busy = found["load"], found["settings"]["busy"]
    yield f"file closed to event received, service on {load['engine']} (ms; CPU of its processes for each curve)"
    rows = [["curves/s", "p50", "p99", "max", "files", "CPU ms"]]
    rows += [_held(row, "") for row in load["quiet"]]
    rows += [_held(row, f", {busy} busy neighbours") for row in load["busy"]]
    rows += [_held(load["text"], ", text (must be still for 2 s)")]
    yield from _indent(align(rows))
    yield ""
    yield "sustained, from files that appear at once (CPU ms for each curve)"
    spent = [key for key in next(iter(load["sustained"].values())) if key.endswith("cpu_ms")]
    rows = [["", "curves/s", *(key.replace("_cpu_ms", "").replace("cpu_ms", "together") for key in spent)]]
    for name, one in load["sustained"].items():
        rows.append([name, f"{one['per_s']:.0f}", *(f"{one[key]:.2f}" for key in spent)])
    yield from _indent(align(rows))
    memory = load["memory"]
    each = ", ".join(f"{name.split()[0]} {size / 1e6:.0f}" for name, size in memory["processes"].items())
    yield f"memory at its largest: {memory['largest_bytes'] / 1e6:.0f} MB ({each})"


def _held(row: Found, beside: str) -> list[str]:
    latency = row["latency_ms"]
    cells = [f"{latency[name]:.1f}" if name in latency else "-" for name in ("p50", "p99", "max")]
    lost = f" ({row['lost']} lost)" if row["lost"] else ""
    return [f"{row['rate_per_s']:g}{beside}", *cells, f"{latency['count']}{lost}", f"{row['cpu_ms']:.2f}"]


def _shares(found: Found) -> Iterator[str]:
    yield "the whole line beside the bare engine, same run, same threads"
    rows = [["", "line/s", "bare engine/s", "share", "CPU ms: line", "engine", "beyond", "ceiling/s of all cores"]]
    for row in found["shares"]:
        rates = [f"{row['line_per_s']:.0f}", f"{row['bare_per_s']:.0f}", f"{row['share']:.0%}"]
        spent = [f"{row[name]:.2f}" for name in ("line_cpu_ms", "engine_cpu_ms", "beyond_cpu_ms")]
        rows.append([row["engine"], *rates, *spent, f"{row['ceiling_per_s']:.0f}"])
    yield from _indent(align(rows))


def _recipe(found: Found) -> Iterator[str]:
    recipe = found["recipe"]
    if "failed" in recipe:
        yield f"the published recipe could not be run: {recipe['failed']}"
        return
    spent = ", ".join(f"{stage} {milliseconds:.1f}" for stage, milliseconds in recipe["ms"].items())
    yield f"the published recipe (arXiv 2606.09541), curve by curve on {recipe['threads']} threads"
    by = f"{recipe['by_afmformats']} of {recipe['files']} files by afmformats"
    yield f"  {recipe['per_s']:.1f} curves/s: {spent} ms; {by}"
    if (factor := factor_of(found)) is not None:
        yield f"  ours, from the same files: {factor:.1f} times as many"
    if recipe["readers"] is None:
        yield "  afmformats is not installed (pip install afmformats): our reader stood in for it"
        return
    rows = [["reading, CPU ms a file", "curves", "afmformats", "ours"]]
    for row in recipe["readers"]:
        rows.append([row["file"], str(row["curves"]), f"{row['afmformats_ms']:.2f}", f"{row['ours_ms']:.2f}"])
    yield from _indent(align(rows))


def _swap(found: Found) -> Iterator[str]:
    swap = found["swap"]
    yield f"{swap['swaps']} models made live at {swap['rate_per_s']:g} files a second, {swap['curves']} curves"
    gap, usual = swap["largest_gap_ms"], swap["usual_gap_ms"]
    yield f"  largest gap between two decisions around a swap: {gap} ms, else {usual} ms"
    yield f"  reload asked for to answered: {', '.join(map(str, swap['swap_ms']))} ms"
    books = f"files without an event {swap['lost']}, curves decided twice {swap['doubled']}"
    yield f"  {books}, changes of model {swap['switches']}"


def _soak(found: Found) -> Iterator[str]:
    soak = found["soak"]
    yield f"{soak['curves']} curves ({soak['files']} files) through one service, {soak['per_s']:.0f} a second"
    course = [soak["course"][place * (len(soak["course"]) - 1) // 10] for place in range(11)]
    rows = [["resident memory (MB) after curves:", *(str(one["curves"]) for one in course)]]
    for name in course[0]["rss_bytes"]:
        rows.append([name.split()[0], *(f"{one['rss_bytes'].get(name, 0) / 1e6:.0f}" for one in course)])
    rows.append(["together", *(f"{sum(one['rss_bytes'].values()) / 1e6:.0f}" for one in course)])
    yield from _indent(align(rows))
    yield f"  growth over the second half: {soak['slope_mb']:.2f} MB for each 10,000 curves"


def _indent(lines: Sequence[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


# The picture of latency against load, with and without busy neighbours, as SVG.

_STYLE: dict[Any, Any] = {
    "font.size": 11.0,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "svg.fonttype": "path",
    "svg.hashsalt": "afm-triage",
}
_TICKS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def draw(found: Mapping[str, Any]) -> bytes:
    """The load of a run as a picture of 760 x 360 dots: p50 and p99, alone and beside busy neighbours."""
    load, busy = found["load"], found["settings"]["busy"]
    panels = [("quiet", "alone", VERDICT["keep"], QUIET_MS)]
    panels += [("busy", f"beside {busy} busy programs", VERDICT["review"], BUSY_MS)] if load["busy"] else []
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 3.6), dpi=100, facecolor=PAPER)
        FigureCanvasSVG(figure)
        figure.text(0.075, 0.925, "From closed file to received event", size=14, weight="bold")
        figure.text(0.075, 0.865, _foot(found), size=9, color=QUIET)
        for place, (name, words, colour, limit_ms) in enumerate(panels):
            axes = figure.add_axes((0.075 + 0.475 * place, 0.15, 0.38, 0.59))
            axes.set_title(words, size=11, color=colour, loc="left", weight="bold")
            _course(axes, load[name], colour)
            _promise(axes, colour, limit_ms)
            _dress(axes, [row["rate_per_s"] for row in load[name]], _highest_ms(load))
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _course(axes: Axes, rows: Sequence[Mapping[str, Any]], colour: str) -> None:
    known = [row for row in rows if row["latency_ms"]["count"]]
    if not known:
        return
    rates = [row["rate_per_s"] for row in known]
    middle, tail = ([row["latency_ms"][name] for row in known] for name in ("p50", "p99"))
    axes.fill_between(rates, middle, tail, color=colour, alpha=0.12, linewidth=0)
    axes.plot(rates, middle, color=colour, marker="o", linewidth=2)
    axes.plot(rates, tail, color=colour, marker="o", markersize=4, linewidth=1, linestyle=(0, (4, 2)))
    for words, at_ms, side in (("p99", tail[-1], "bottom"), ("median", middle[-1], "top")):
        axes.annotate(words, (rates[-1], at_ms), (7, 0), textcoords="offset points", color=colour, va=side, size=10)


def _promise(axes: Axes, colour: str, limit_ms: float) -> None:
    axes.plot([RATE_PER_S], [limit_ms], marker="_", markersize=30, color=colour, markeredgewidth=2)
    where: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
    axes.annotate(f"p99 promised: {limit_ms:g} ms", (RATE_PER_S, limit_ms), (0, 4), color=QUIET, size=9, **where)


def _dress(axes: Axes, rates: Sequence[float], highest_ms: float) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_yticks(_TICKS_MS, [f"{tick:g}" for tick in _TICKS_MS])
    axes.minorticks_off()
    axes.set_ylim(1.0, highest_ms)
    axes.set_xlabel("curves a second")
    axes.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _highest_ms(load: Mapping[str, Any]) -> float:
    """The same for both panels, with room for what is promised."""
    tails = [row["latency_ms"].get("p99", 0.0) for name in ("quiet", "busy") for row in load[name]]
    return 1.3 * max([float(tail) for tail in tails] + [1.6 * BUSY_MS])


def _foot(found: Mapping[str, Any]) -> str:
    cores, engine = found["machine"]["cores"], found["load"]["engine"]
    return f"milliseconds; real files, {cores} cores, {engine}, {found['time'][:10]}"
