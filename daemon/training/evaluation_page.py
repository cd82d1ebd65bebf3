"""An evaluation on paper: the table for a terminal, and one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_HEAD = ("system", "events", "kept/review/discarded", "event-free", "kept/review/discarded", "AUC", "AP")
_SHARES = ("recall", "discarded", "precision")

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{model} on labelled curves</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2733 }}
table {{ border-collapse: collapse; margin: 1rem 0; width: 100% }}
th, td {{ padding: .35rem .6rem; border-bottom: 1px solid #d5dde5; text-align: right; white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
tr.pooled {{ font-weight: 600; background: #f2f6fa }}
small {{ color: #5b6b7b; font-weight: 400 }}
</style>
<h1>{model}</h1>
<p>Engine {engine}. A score up to {discard:.4g} is discard, from {keep:.4g} on keep, between is review.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table>
<p><small>Recall: share of events that were not discarded. Discarded: share of event-free curves that were. Precision:
share of events among the kept, in the mix of this set. Brackets: exact 95 % intervals (Clopper-Pearson). Calibration
error (ECE) at a prevalence of {prevalence:.2%}. Curves labelled unsure are counted apart.</small></p>
</html>
"""


def write_text(report: Mapping[str, Any]) -> str:
    """Lines for a terminal."""
    head: tuple[str, ...] = (*_HEAD, "recall", "cut", "precision", "ECE")
    rows = [head] + [_cells(name, figures) for name, figures in _groups(report)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    pooled, limits = report["pooled"], report["thresholds"]
    notes = [
        f"{report['model']} by {report['engine']}: discard at {limits['discard']:.4g}, keep from {limits['keep']:.4g}",
        *(f"pooled {name} {_number(pooled[name])} {_interval(pooled, name)}" for name in _SHARES),
        f"unsure: {pooled['unsure']}, of them discarded {pooled['unsure_discarded']}; "
        f"without a score: {pooled['without_score']}",
    ]
    return "\n".join([*lines, "", *notes])


def write_html(report: Mapping[str, Any]) -> str:
    """One page, nothing loaded from anywhere."""
    head = "".join(f"<th>{escape(name)}</th>" for name in (*_HEAD, "recall", "discarded", "precision", "ECE"))
    rows = []
    for name, figures in _groups(report):
        cells = [escape(cell) for cell in _cells(name, figures)]
        for place, share in enumerate(_SHARES, start=len(_HEAD)):
            cells[place] += f" <small>{_interval(figures, share)}</small>"
        kind = ' class="pooled"' if name == "pooled" else ""
        rows.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return _PAGE.format(
        model=escape(report["model"]),
        engine=escape(report["engine"]),
        prevalence=report["prevalence"],
        head=head,
        rows="\n".join(rows),
        **report["thresholds"],
    )


def _groups(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [*report["systems"].items(), ("pooled", report["pooled"])]


def _cells(name: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    table = figures["table"]
    event, none = ("/".join(str(table[verdict][kind]) for verdict in table) for kind in ("event", "none"))
    numbers = (_number(figures[key]) for key in ("auc", "ap", *_SHARES, "ece"))
    return (name, str(figures["events"]), event, str(figures["event_free"]), none, *numbers)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(figures: Mapping[str, Any], name: str) -> str:
    low, high = figures["intervals"][name]
    return f"[{low:.3f}, {high:.3f}]"
