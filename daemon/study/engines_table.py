"""The engines on a CPU as text: agreement, every verdict that is another, and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.common.text import align

BAR = 0.001  # share of verdicts that may be another than single precision's
_MOST_SHOWN = 40


def write_text(report: Mapping[str, Any]) -> list[str]:
    """``report`` is what ``--out`` writes."""
    limits, counts, taught = report["thresholds"], report["curves"], report["int8"]
    lines = [
        f"{report['model']}: discard at {limits['discard']:.4g}, keep from {limits['keep']:.4g}",
        f"{counts['real']} real curves, {counts['simulated']} simulated ones, {report['prevalence']:.1%} with an event "
        f"(seed {report['seed']}); the reference is torch-cpu-fp32",
    ]
    lines += [f"no int8: {taught}"] if isinstance(taught, str) else [_int8(taught["evidence"])]
    asked = [one for one in report["agreement"] if "failed" not in one]
    lines += ["", *_agreement(asked), "", *_changes(asked)]
    lines += [f"{one['engine']} does not run here: {one['failed']}" for one in report["agreement"] if "failed" in one]
    if report["cost"]:
        lines += ["", *_cost(report["cost"])]
    return [*lines, "", *_installed(report["installed_bytes"])]


def _int8(said: Mapping[str, Any]) -> str:
    proved = said["proved_on"]
    return (
        f"int8: ranges from a quarter of the real curves, its margin from {proved['real']} more and "
        f"{proved['simulated']} simulated ones; it is asked of none of these"
    )


def _agreement(engines: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ["logit off by", "curves", "median", "99 %", "largest", "margin", "judged twice (real, simulated)"]
    head += ["other verdicts, alone", "as served", f"bar {BAR:.1%}"]
    rows = [
        [
            one["engine"],
            str(one["curves"]),
            *(f"{one['errors'][name]:.2g}" for name in ("median", "99 %", "max")),
            f"{one['margin']:.3g}" if one["margin"] else "-",
            ", ".join("-" if share is None else f"{share:.1%}" for share in one["judged_twice"].values()),
            _count(one["alone"], one["curves"]),
            _count(one["as_served"], one["curves"]),
            "reached" if one["as_served"]["share_changed"] <= BAR else "missed",
        ]
        for one in engines
    ]
    return align([head, *rows])


def _count(found: Mapping[str, Any], curves: int) -> str:
    jumps = f", {len(found['jumps'])} keep <-> discard" if found["jumps"] else ""
    return f"{len(found['changes'])} ({len(found['changes']) / curves:.3%}{jumps})"


def _changes(engines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every verdict that is another, with both scores; of a very long list the beginning."""
    lines = []
    for one in engines:
        for name in ("alone", "as_served"):
            changes = one[name]["changes"]
            if changes:
                lines.append(f"{one['engine']}, {name.replace('_', ' ')}")
            lines += [
                f"  {change['curve']}: {' -> '.join(change['verdicts'])}, "
                f"scores {change['scores'][0]:.5g} and {change['scores'][1]:.5g}"
                for change in changes[:_MOST_SHOWN]
            ]
            lines += [f"  and {len(changes) - _MOST_SHOWN} more (--out)"] if len(changes) > _MOST_SHOWN else []
    return lines or ["no verdict is another"]


def _cost(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    sizes = list(rows[0]["batches"])
    head = ["network alone", "threads", "busy neighbours", *(f"curves/s at {size}" for size in sizes)]
    head += ["CPU ms a curve", "one curve p50", "p99 ms", "load s", "memory MB"]
    cells = [
        [
            one["engine"],
            str(one["threads"]),
            str(one["neighbours"]),
            *(f"{one['batches'][size]['per_s']:.0f}" for size in sizes),
            f"{one['batches'][sizes[1]]['cpu_ms']:.2f}",
            f"{one['batches']['1']['latency_ms']['p50']:.2f}",
            f"{one['batches']['1']['latency_ms']['p99']:.2f}",
            f"{one['build_s']:.2f}",
            f"{one['peak_rss_bytes'] / 1e6:.0f}",
        ]
        for one in rows
    ]
    return align([head, *cells])


def _installed(sizes: Mapping[str, int]) -> list[str]:
    return ["installed: " + ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items())]
