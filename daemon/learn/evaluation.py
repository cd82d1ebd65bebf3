"""The evaluation: a model's verdicts on labelled curves, per system and pooled, with exact intervals, and its report.

The report is lines for a terminal, or one HTML page with diagrams and the worst curves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.charts import (
    Axis,
    Cell,
    Drawing,
    Picture,
    Tile,
    Trace,
    draw_trace,
    heading,
    page,
    paragraph,
    pictures,
    round_up,
    table,
    tiles,
    trace,
)
from daemon.common.text import align
from daemon.judging import Judge, Thresholds, Verdict, verdict_of
from daemon.learn.evidence import LabelledCurve
from deploy.serving import Model
from models.frontend import turned
from models.metrics import (
    Cuts,
    auc,
    average_precision,
    calibration_error,
    clopper_pearson,
    count_table,
    reliability,
    sweep,
)

BATCH = 64


@dataclass(frozen=True, slots=True)
class Judged:
    """What was said of one labelled curve."""

    system: str
    label: str  # keep, discard, unsure
    verdict: Verdict
    score: float | None
    name: str = ""  # path#index
    reasons: tuple[str, ...] = ()
    trace: Trace | None = None


def judge_all(curves: Iterable[LabelledCurve], model: Model, judge: Judge) -> list[Judged]:
    """The service's own way from curve to verdict, in batches."""
    judged: list[Judged] = []
    batch: list[LabelledCurve] = []
    for item in curves:
        batch.append(item)
        if len(batch) == BATCH:
            judged += _judge(batch, model, judge)
            batch = []
    return judged + _judge(batch, model, judge)


def _judge(batch: Sequence[LabelledCurve], model: Model, judge: Judge) -> list[Judged]:
    if not batch:
        return []
    scored = model.judge([item.curve for item in batch], judge.thresholds.both)
    return [
        Judged(
            system=item.row.system,
            label=item.row.label,
            verdict=verdict_of(one.score, one.reasons, judge.thresholds),
            score=one.score,
            name=f"{item.row.path}#{item.row.index}",
            reasons=one.reasons,
            trace=trace(turned(item.curve) if one.is_turned else item.curve),
        )
        for item, one in zip(batch, scored, strict=True)
    ]


def evaluate(judged: Sequence[Judged], judge: Judge) -> dict[str, Any]:
    """``{"pooled": {…}, "systems": {name: {…}}}``, as ``evaluate --json`` prints it; unsure labels are only counted."""
    systems = sorted({one.system for one in judged})
    return {
        "model": judge.model,
        "engine": str(judge.engine),
        "thresholds": {"discard": judge.thresholds.discard, "keep": judge.thresholds.keep},
        "prevalence": judge.prevalence,
        "pooled": summarise(judged, judge.prevalence),
        "systems": {
            name: summarise([one for one in judged if one.system == name], judge.prevalence) for name in systems
        },
    }


def summarise(judged: Sequence[Judged], prevalence: float) -> dict[str, Any]:
    """The figures of one group. Recall counts an event as found unless it was discarded: review finds it too.

    ``precision`` is the share of events among the kept, in this set's own mix; ``ece`` is weighted to the model's
    prevalence. Curves without a score stand in the table, not in the figures about scores.
    """
    sure = [one for one in judged if one.label != "unsure"]
    events = [one.label == "keep" for one in sure]
    table = count_table([one.verdict for one in sure], events)
    scored = [(one.score, one.label == "keep") for one in sure if one.score is not None]
    scores, labels = [score for score, _ in scored], [label for _, label in scored]
    count, free = sum(events), len(events) - sum(events)
    kept = table["keep"]["event"] + table["keep"]["none"]
    error = calibration_error(scores, labels, prevalence)
    return {
        "events": count,
        "event_free": free,
        "unsure": len(judged) - len(sure),
        "unsure_discarded": sum(one.label == "unsure" and one.verdict == "discard" for one in judged),
        "without_score": len(sure) - len(scored),
        "table": table,
        "auc": auc(scores, labels),
        "ap": average_precision(scores, labels),
        "ece": None if math.isnan(error) else error,
        **_shares(
            recall=(count - table["discard"]["event"], count),
            discarded=(table["discard"]["none"], free),
            precision=(table["keep"]["event"], kept),
        ),
    }


def _shares(**counts: tuple[int, int]) -> dict[str, Any]:
    """Each share by its name, and under ``intervals`` its exact 95 % interval; None where there is nothing to share."""
    values = {name: hits / of if of else None for name, (hits, of) in counts.items()}
    return {**values, "intervals": {name: list(clopper_pearson(*count)) for name, count in counts.items()}}


def worst_first(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The systems, those in which most went wrong before the others: events discarded, then the AUC, then the name."""

    def badness(item: tuple[str, dict[str, Any]]) -> tuple[int, float, str]:
        name, figures = item
        return -figures["table"]["discard"]["event"], 2.0 if figures["auc"] is None else figures["auc"], name

    return sorted(report["systems"].items(), key=badness)


# Its report.

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


#: Curves of each kind that are drawn: a person sees at a glance whether the model or the label is wrong.
MOST = 12


def worst(judged: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """Events with the lowest scores, and event-free curves with the highest; those without a score are no one's."""
    events = [one for one in judged if one.label == "keep" and one.score is not None]
    free = [one for one in judged if one.label == "discard" and one.score is not None]
    return sorted(events, key=_score)[:MOST], sorted(free, key=_score, reverse=True)[:MOST]


def _score(one: Judged) -> float:
    return -1.0 if one.score is None else one.score


def thumbnail(one: Judged) -> Picture:
    """The force curve, its name, and what was said of it."""
    score = "no score" if one.score is None else f"{one.score:.4f}"
    reasons = ", ".join(reason for reason in one.reasons if reason != "score")
    label = {"keep": "event", "discard": "no event"}.get(one.label, one.label)
    facts = f"labelled {label}; {one.system}" + (f"; {reasons}" if reasons else "")
    return Picture(draw_trace(one.trace), facts, one.name, one.verdict, score)


_VERDICTS = ("all", "kept", "review", "discarded")
_HEAD: tuple[str | tuple[str, str], ...] = (
    "system",
    *(("events", name) for name in _VERDICTS),
    *(("event-free", name) for name in _VERDICTS),
    *("unsure", "recall", "event-free discarded", "precision", "AP", "AUC", "ECE"),
)
_DEFINITIONS = """Recall: share of the events that were not discarded; review finds an event too. Precision: share of \
events among the kept, in the mix of this set. Brackets: exact 95 % intervals (Clopper-Pearson), which hold for curves \
like these, not for another tip or molecule. ECE: expected calibration error at the prevalence of the model. Curves \
labelled unsure are counted apart and stand in no other figure. A dash: these labels cannot say."""


def write_html(report: dict[str, Any], judged: Sequence[Judged]) -> str:
    """A report of ``evaluate`` and the curves behind it."""
    limits = Thresholds(**report["thresholds"])
    rows = [_row("pooled", report["pooled"]), *(_row(name, figures) for name, figures in worst_first(report))]
    parts = [
        paragraph(
            f"Engine {report['engine']}. A score up to {limits.discard:.4g} is discard, from {limits.keep:.4g} on "
            f"keep, between is review. Prevalence of the model {report['prevalence']:.2%}.",
            "soft",
        ),
        *(paragraph(line, "warning") for line in report.get("warnings", [])),
        tiles(_tiles(report["pooled"])),
        heading("Verdicts by system"),
        table(_HEAD, rows, strong=1),
        paragraph(_DEFINITIONS, "soft"),
        heading("Scores, all systems together"),
        _diagrams(judged, limits, report["prevalence"]),
    ]
    lowest, highest = worst(judged)
    for title, curves, mark in (
        ("Events with the lowest scores", lowest, "low"),
        ("Event-free curves with the highest scores", highest, "high"),
    ):
        if curves:
            parts += [heading(title), pictures(map(thumbnail, curves), "thumbnails", mark)]
    return page(f"{report['model']} on labelled curves", parts)


def _tiles(pooled: Mapping[str, Any]) -> list[Tile]:
    """The answer before the evidence."""
    events, free = pooled["events"], pooled["event_free"]
    lost, cut = pooled["table"]["discard"]["event"], pooled["table"]["discard"]["none"]
    told = [
        ("recall", f"{lost} of {events} events discarded {interval(pooled, 'recall')}"),
        ("discarded", f"{cut} of {free} event-free curves {interval(pooled, 'discarded')}"),
        ("precision", f"events among the kept {interval(pooled, 'precision')}"),
        ("auc", f"{events} events and {free} others"),
        ("ap", "average precision"),
        ("ece", "calibration error"),
    ]
    names = {"discarded": "event-free discarded", "auc": "AUC", "ap": "AP", "ece": "ECE"}
    return [Tile(names.get(key, key), number(pooled[key]), says) for key, says in told]


def _row(name: str, figures: Mapping[str, Any]) -> list[Cell]:
    counts = figures["table"]
    cells = [Cell(name)]
    for count, truth in ((figures["events"], "event"), (figures["event_free"], "none")):
        cells.append(Cell(str(count)))
        for verdict in ("keep", "review", "discard"):
            is_bad = truth == "event" and verdict == "discard" and counts[verdict][truth]
            cells.append(Cell(str(counts[verdict][truth]), kind="bad" if is_bad else ""))
    cells.append(Cell(str(figures["unsure"]), f"{figures['unsure_discarded']} discarded"))
    for share in SHARES:
        cells.append(Cell(number(figures[share]), "" if figures[share] is None else interval(figures, share)))
    return [*cells, *(Cell(number(figures[key])) for key in ("ap", "auc", "ece"))]


def _diagrams(judged: Sequence[Judged], limits: Thresholds, prevalence: float) -> str:
    ranking = rank(judged)
    if not ranking.scores.size:
        return paragraph("No curve with a sure label got a score.")
    return pictures(draw_all(ranking, limits, prevalence), "diagrams two", "scores")


# The four diagrams: scores, reliability, precision over recall, and ROC.

_SCORES = Axis("score", 1e-4, 1 - 1e-4, (1e-4, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999), logit=True)
_BINS = 36


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The sure curves that have a score."""

    scores: NDArray[np.float64]  # (N,)
    events: NDArray[np.bool_]  # (N,)


def rank(judged: Sequence[Judged]) -> Ranking:
    """What the diagrams are drawn from."""
    sure = [(one.score, one.label == "keep") for one in judged if one.label != "unsure" and one.score is not None]
    return Ranking(np.array([score for score, _ in sure]), np.array([event for _, event in sure], np.bool_))


def draw_all(ranking: Ranking, thresholds: Thresholds, prevalence: float) -> list[Picture]:
    """Each diagram that these curves allow."""
    both = "How many curves have which score. Up: events. Down: event-free, on a scale of their own."
    drawn = [Picture(str(histogram(ranking, thresholds)), both)]
    if ranking.events.any() and not ranking.events.all():
        cuts = sweep(ranking.scores, ranking.events)
        meaning = (
            f"Share of events among curves of about one score, at a prevalence of {prevalence:.1%}. On the diagonal a "
            "score means what it says; bars: 95 %."
        )
        in_all = "Every cut, in the mix of this set. AP is the area."
        drawn += [
            Picture(str(calibration(ranking, prevalence)), meaning),
            Picture(str(precision_recall(cuts, ranking, thresholds)), in_all),
            Picture(str(roc(cuts, ranking, thresholds)), "Every cut. AUC is the area."),
        ]
    return drawn


def histogram(ranking: Ranking, thresholds: Thresholds) -> Drawing:
    """Scores on a logit axis, events above and the others below the line, each half on its own scale."""
    places = np.array([_SCORES.share(score) for score in ranking.scores])
    slots = np.minimum((places * _BINS).astype(int), _BINS - 1)
    counts = [np.bincount(slots[ranking.events == kind], minlength=_BINS) for kind in (True, False)]
    most = [round_up(int(count.max())) for count in counts]
    names = (f"{most[1]:,.0f}", "0", f"{most[0]:,.0f}")
    drawing = Drawing("histogram of scores", _SCORES, Axis("curves", -1.0, 1.0, (-1.0, 0.0, 1.0), names=names))
    edges = [_unlogit(place / _BINS) for place in range(_BINS + 1)]
    for kind, scale, count in (("event", 1 / most[0], counts[0]), ("none", -1 / most[1], counts[1])):
        for slot in np.flatnonzero(count):
            ends = sorted((0.0, scale * float(count[slot])))
            words = "events" if kind == "event" else "event-free"
            says = f"{count[slot]} {words}, score {edges[slot]:.3g} to {edges[slot + 1]:.3g}"
            drawing.box((edges[slot], edges[slot + 1]), (ends[0], ends[1]), kind, says)
    drawing.line([(_SCORES.low, 0.0), (_SCORES.high, 0.0)], "rule")
    for name, value, height, below in (("discard", thresholds.discard, -1.0, -6), ("keep", thresholds.keep, 1.0, 10)):
        drawing.line([(value, -1.0), (value, 1.0)], "threshold")
        drawing.note(value, height, f"{name} {value:.3g}", "start", (4, below))
    return drawing


def calibration(ranking: Ranking, prevalence: float) -> Drawing:
    """The reliability diagram; the dots grow with the curves behind them."""
    drawing = Drawing("reliability diagram", Axis("mean score"), Axis("share of events"))
    drawing.line([(0.0, 0.0), (1.0, 1.0)], "rule")
    bins = reliability(ranking.scores, ranking.events, prevalence)
    for one in bins:
        drawing.line([(one.predicted, one.low), (one.predicted, one.high)], "whisker")
        says = f"{one.curves} curves: score {one.predicted:.3f}, events {one.observed:.3f}"
        drawing.dot(one.predicted, one.observed, 2.5 + math.log10(one.curves), "point", says)
    return drawing


def precision_recall(cuts: Cuts, ranking: Ranking, thresholds: Thresholds) -> Drawing:
    """Precision over recall as steps, with both thresholds."""
    drawing = Drawing("precision over recall", Axis("recall"), Axis("precision"))
    share = float(ranking.events.mean())
    drawing.line([(0.0, share), (1.0, share)], "rule")
    recall, precision = cuts.found / ranking.events.sum(), cuts.found / (cuts.found + cuts.alarms)
    corners = zip(np.append(0.0, recall[:-1]), recall, precision, strict=True)
    drawing.line([(x, y) for start, end, y in corners for x in (start, end)], "curve")
    _mark(drawing, ranking, thresholds, lambda found, alarms: (found / ranking.events.sum(), found / (found + alarms)))
    return drawing


def roc(cuts: Cuts, ranking: Ranking, thresholds: Thresholds) -> Drawing:
    """Events found over event-free curves taken, with both thresholds."""
    drawing = Drawing("ROC curve", Axis("event-free curves not cut"), Axis("events not cut"))
    drawing.line([(0.0, 0.0), (1.0, 1.0)], "rule")
    events, free = int(ranking.events.sum()), int((~ranking.events).sum())
    points = zip(cuts.alarms / free, cuts.found / events, strict=True)
    drawing.line([(0.0, 0.0), *((float(x), float(y)) for x, y in points)], "curve")
    _mark(drawing, ranking, thresholds, lambda found, alarms: (alarms / free, found / events))
    return drawing


def _mark(
    drawing: Drawing, ranking: Ranking, thresholds: Thresholds, place: Callable[[int, int], tuple[float, float]]
) -> None:
    """Where the two thresholds stand on a curve; ``place`` turns events and others taken into a point."""
    for name, taken in (
        ("keep", ranking.scores >= thresholds.keep),
        ("not discarded", ranking.scores > thresholds.discard),
    ):
        found, alarms = int((taken & ranking.events).sum()), int((taken & ~ranking.events).sum())
        if found + alarms:
            x, y = place(found, alarms)
            drawing.dot(x, y, 4.5, "mark", f"{name}: {found} events, {alarms} event-free curves")
            drawing.note(x, y, name, "end" if x > 0.5 else "start", (-8 if x > 0.5 else 8, 14))


def _unlogit(share: float) -> float:
    low, high = (math.log(p / (1 - p)) for p in (_SCORES.low, _SCORES.high))
    return 1 / (1 + math.exp(-(low + share * (high - low))))
