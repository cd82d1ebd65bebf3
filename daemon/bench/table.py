"""The table of `bench`: what was measured, part by part, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from daemon.bench import BATCH, STAGES
from daemon.bench.bars import Bar, factor_of
from daemon.common.text import align

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
