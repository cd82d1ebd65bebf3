"""The report as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.columns import align
from daemon.training.evaluation import worst_first

SHARES = ("recall", "discarded", "precision")
_HEAD = ("system", "events", "kept/review/discarded", "event-free", "kept/review/discarded", "AUC", "AP")


def write_text(report: dict[str, Any]) -> str:
    """The systems in which most went wrong come first, the pooled line last."""
    groups = [*worst_first(report), ("pooled", report["pooled"])]
    rows = [(*_HEAD, "recall", "cut", "precision", "ECE")] + [_cells(name, figures) for name, figures in groups]
    lines = align(rows)
    pooled, limits = report["pooled"], report["thresholds"]
    notes = [
        f"{report['model']} by {report['engine']}: discard at {limits['discard']:.4g}, keep from {limits['keep']:.4g}",
        *(f"pooled {name} {number(pooled[name])} {interval(pooled, name)}" for name in SHARES),
        f"unsure: {pooled['unsure']}, of them discarded {pooled['unsure_discarded']}; "
        f"without a score: {pooled['without_score']}",
    ]
    return "\n".join([*lines, "", *notes])


def _cells(name: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    table = figures["table"]
    event, none = ("/".join(str(table[verdict][kind]) for verdict in table) for kind in ("event", "none"))
    numbers = (number(figures[key]) for key in ("auc", "ap", *SHARES, "ece"))
    return (name, str(figures["events"]), event, str(figures["event_free"]), none, *numbers)


def number(value: float | None) -> str:
    """Three digits, or a dash where there is nothing to say."""
    return "-" if value is None else f"{value:.3f}"


def interval(figures: Mapping[str, Any], name: str) -> str:
    """The exact 95 % interval of a share."""
    low, high = figures["intervals"][name]
    return f"[{low:.3f}, {high:.3f}]"
