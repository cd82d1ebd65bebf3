"""The report as one page: nothing is loaded, nothing is run, and whoever gets the file has all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from daemon.clean import clean
from daemon.decision import Thresholds
from daemon.training.evaluation import Judged, worst_first
from daemon.training.report.diagrams import draw_all, rank
from daemon.training.report.style import SHEET
from daemon.training.report.text import interval, number
from daemon.training.report.thumbnails import draw_thumbnail, worst

_HEAD = (
    "system",
    *("events", "kept", "review", "discarded"),
    *("event-free", "kept", "review", "discarded"),
    *("unsure", "recall", "event-free discarded", "precision", "AP", "AUC", "ECE"),
)
_DEFINITIONS = """Recall: share of the events that were not discarded; review finds an event too. Precision: share of
events among the kept, in the mix of this set. Brackets: exact 95 % intervals (Clopper-Pearson), which hold for curves
like these, not for another tip or molecule. ECE: expected calibration error at the prevalence of the model. Curves
labelled unsure are counted apart and stand in no other figure. A dash: these labels cannot say."""


def write_html(report: dict[str, Any], judged: Sequence[Judged]) -> str:
    """A report of ``evaluate`` and the curves behind it."""
    limits = Thresholds(**report["thresholds"])
    parts = [
        f"<h1>{escape(report['model'])} on labelled curves</h1>",
        f'<p class="soft">Engine {escape(report["engine"])}. A score up to {limits.discard:.4g} is discard, from '
        f"{limits.keep:.4g} on keep, between is review. Prevalence of the model {report['prevalence']:.2%}.</p>",
        *(f'<p class="warning">{escape(clean(line))}</p>' for line in report.get("warnings", [])),
        _tiles(report["pooled"]),
        "<h2>Verdicts by system</h2>",
        _table(report),
        f"<p><small>{_DEFINITIONS}</small></p>",
        "<h2>Scores, all systems together</h2>",
        _diagrams(judged, limits, report["prevalence"]),
        *_thumbnails(judged),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{SHEET}</style>'
    title = f"<title>{escape(report['model'])} on labelled curves</title>"
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}{title}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"
    )


def _tiles(pooled: Mapping[str, Any]) -> str:
    """The answer before the evidence."""
    events, free = pooled["events"], pooled["event_free"]
    lost, cut = pooled["table"]["discard"]["event"], pooled["table"]["discard"]["none"]
    tiles = [
        ("recall", f"{lost} of {events} events discarded {interval(pooled, 'recall')}"),
        ("discarded", f"{cut} of {free} event-free curves {interval(pooled, 'discarded')}"),
        ("precision", f"events among the kept {interval(pooled, 'precision')}"),
        ("auc", f"AUC, {events} events and {free} others"),
        ("ap", "average precision"),
        ("ece", "calibration error"),
    ]
    names = {"discarded": "event-free discarded", "auc": "AUC", "ap": "AP", "ece": "ECE"}
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile">{names.get(key, key)}<b>{number(pooled[key])}</b><small>{escape(says)}</small></div>'
            for key, says in tiles
        )
        + "</div>"
    )


def _table(report: dict[str, Any]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in _HEAD)
    rows = [_row(name, figures) for name, figures in worst_first(report)]
    pooled = _row("pooled", report["pooled"], ' class="pooled"')
    body = "\n".join([pooled, *rows])
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _row(name: str, figures: Mapping[str, Any], kind: str = "") -> str:
    table = figures["table"]
    cells = [f"<td>{escape(clean(name))}</td>"]
    for count, truth in ((figures["events"], "event"), (figures["event_free"], "none")):
        cells.append(f"<td>{count}</td>")
        for verdict in ("keep", "review", "discard"):
            is_bad = truth == "event" and verdict == "discard" and table[verdict][truth]
            cells.append(('<td class="bad">' if is_bad else "<td>") + f"{table[verdict][truth]}</td>")
    cells.append(f"<td>{figures['unsure']}<small>{figures['unsure_discarded']} discarded</small></td>")
    for share in ("recall", "discarded", "precision"):
        known = figures[share] is not None
        cells.append(
            f"<td>{number(figures[share])}{f'<small>{interval(figures, share)}</small>' if known else ''}</td>"
        )
    cells += [f"<td>{number(figures[key])}</td>" for key in ("ap", "auc", "ece")]
    return f"<tr{kind}>{''.join(cells)}</tr>"


def _diagrams(judged: Sequence[Judged], limits: Thresholds, prevalence: float) -> str:
    ranking = rank(judged)
    if not ranking.scores.size:
        return "<p>No curve with a sure label got a score.</p>"
    figures = (
        f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
        for svg, caption in draw_all(ranking, limits, prevalence)
    )
    return '<div class="diagrams">' + "".join(figures) + "</div>"


def _thumbnails(judged: Sequence[Judged]) -> list[str]:
    parts = []
    lowest, highest = worst(judged)
    for title, curves in (
        ("Events with the lowest scores", lowest),
        ("Event-free curves with the highest scores", highest),
    ):
        if curves:
            drawn = "".join(draw_thumbnail(one) for one in curves)
            parts.append(f'<h2>{title}</h2><div class="thumbnails">{drawn}</div>')
    return parts
