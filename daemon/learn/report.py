"""The report of an evaluation: lines for a terminal, and one HTML page that needs no other file and runs no code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from daemon.common.text import align, clean
from daemon.judging import Thresholds
from daemon.learn.diagrams import draw_all, outline, rank
from daemon.learn.evaluation import Judged, Trace, worst_first

# One style for screen, dark screen and paper.

STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7b; --line: #d5dde5; --paper: #ffffff; --band: #f2f6fa;
  --event: #0b7a75; --none: #9a6a00; --mark: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #e4eaf0; --soft: #9fb0c0; --line: #33414f; --paper: #12181f;
  --band: #1b242e; --event: #4fc3b8; --none: #e0b050; --mark: #ff8a80 } }
@page { size: A4 landscape; margin: 12mm }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --band: #eee; --event: #0b7a75;
  --none: #9a6a00; --mark: #b3261e } body { margin: 0; font-size: 10pt } figure, tr { break-inside: avoid }
  h2 { break-after: avoid } table { font-size: 7.5pt } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
p { max-width: 60rem } small, .soft { color: var(--soft); font-weight: 400 }
.warning { border-left: 4px solid var(--mark); background: var(--band); padding: .6rem 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .88rem }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  vertical-align: top }
th:first-child, td:first-child { text-align: left } th { vertical-align: bottom; color: var(--soft) }
td small { display: block; font-size: .75rem }
tr.pooled { font-weight: 600; background: var(--band) } td.bad { color: var(--mark); font-weight: 600 }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0 }
.tile { background: var(--band); border-radius: .5rem; padding: .6rem 1rem; min-width: 9rem }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2 }
.tile small { display: block }
.diagrams { display: flex; flex-wrap: wrap; gap: 1.5rem } .diagrams figure { flex: 0 1 24rem }
.diagrams figure:first-child { flex-basis: 34rem }
.thumbnails { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }
.thumbnails figure { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem }
figure { margin: 0 } figcaption { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere }
figcaption b { color: var(--ink) }
.keep { color: var(--event); font-weight: 600 } .review { color: var(--none); font-weight: 600 }
.discard { color: var(--mark); font-weight: 600 }
svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg text.axis { fill: var(--ink) } svg .grid { stroke: var(--line); fill: none; stroke-width: 1 }
svg .rule { stroke: var(--soft); fill: none; stroke-dasharray: 3 3 }
svg .curve { stroke: var(--event); fill: none; stroke-width: 2 }
svg .whisker { stroke: var(--event); fill: none; opacity: .5 }
svg .point { fill: var(--event) }
svg .event { fill: var(--event) } svg .none { fill: var(--none) } svg .mark { fill: var(--mark) }
svg .threshold { stroke: var(--mark); fill: none; stroke-width: 1.5 } svg .trace { fill: var(--ink) }
"""


# The report as lines for a terminal.

SHARES = ("recall", "discarded", "precision")
_TEXT_HEAD = ("system", "events", "kept/review/discarded", "event-free", "kept/review/discarded", "AUC", "AP")


def write_text(report: dict[str, Any]) -> str:
    """The systems in which most went wrong come first, the pooled line last."""
    groups = [*worst_first(report), ("pooled", report["pooled"])]
    rows = [(*_TEXT_HEAD, "recall", "cut", "precision", "ECE")] + [_cells(name, figures) for name, figures in groups]
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


# The worst curves, drawn: a person sees at a glance whether the model or the label is wrong.

MOST = 12
WIDTH, HEIGHT = 220, 110
HEAD = 0.16  # share of the height that the words above the curve have to themselves
_UNITS = {"N": (1e12, "pN"), "m": (1e9, "nm deflection"), "V": (1.0, "V"), None: (1.0, "as stored")}


def worst(judged: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """Events with the lowest scores, and event-free curves with the highest; those without a score are no one's."""
    events = [one for one in judged if one.label == "keep" and one.score is not None]
    free = [one for one in judged if one.label == "discard" and one.score is not None]
    return sorted(events, key=_score)[:MOST], sorted(free, key=_score, reverse=True)[:MOST]


def _score(one: Judged) -> float:
    return -1.0 if one.score is None else one.score


def draw_thumbnail(one: Judged) -> str:
    """A figure: the force curve, its name, and what was said of it."""
    score = "no score" if one.score is None else f"{one.score:.4f}"
    reasons = ", ".join(reason for reason in one.reasons if reason != "score")
    label = {"keep": "event", "discard": "no event"}.get(one.label, one.label)
    facts = f"labelled {label}; {one.system}" + (f"; {reasons}" if reasons else "")
    return (
        f"<figure>{_curve(one.trace)}<figcaption><b>{escape(clean(one.name))}</b><br>"
        f'<span class="{one.verdict}">{one.verdict}</span> {score}<br>{escape(clean(facts))}</figcaption></figure>'
    )


def _curve(trace: Trace | None) -> str:
    """The retract, pulling up, surface at the left; of the push only as much as leaves the pull its room."""
    if trace is None:
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}"><text x="10" y="20">cannot be drawn</text></svg>'
    lower, upper = trace.edges.astype(float)
    far = slice(2 * lower.size // 3, None)
    base = float(np.median((lower[far] + upper[far]) / 2))
    top = float(upper.max())
    rise = max(top - base, 4 * float(np.median(upper[far] - lower[far])), 1e-30)
    bottom = max(float(lower.min()), base - 0.5 * rise) - 0.05 * rise
    top = bottom + (max(top, base + rise) - bottom) / (1 - HEAD)
    shares = [
        np.clip((edge - bottom) / (top - bottom), 0.0, 1.0).tolist() for edge in _thick(lower, upper, top - bottom)
    ]
    scale, unit = _UNITS.get(trace.unit, _UNITS[None])
    size = f"{rise * scale:.3g} {unit}" + ("" if trace.travel_nm is None else f" over {trace.travel_nm:.0f} nm")
    level = (1 - (base - bottom) / (top - bottom)) * HEIGHT
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="force curve, {escape(size)}">'
        f'<path class="grid" d="M0 {level:.1f}H{WIDTH}"/>'
        f'<path class="trace" d="{outline(shares[0], shares[1], WIDTH, HEIGHT)}"/>'
        f'<text x="{WIDTH - 4}" y="12" text-anchor="end">{escape(size)}</text></svg>'
    )


def _thick(
    lower: np.ndarray[tuple[int], np.dtype[np.float64]],
    upper: np.ndarray[tuple[int], np.dtype[np.float64]],
    span: float,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Joined to the neighbour, and at least about a pixel high."""
    joined = np.minimum(lower, np.append(upper[0], upper[:-1])), np.maximum(upper, np.append(lower[0], lower[:-1]))
    thin = 0.006 * span
    return joined[0] - thin, joined[1] + thin


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
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
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
