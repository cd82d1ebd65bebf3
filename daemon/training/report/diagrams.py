"""The four diagrams of a report: scores, reliability, precision over recall, and ROC."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.decision import Thresholds
from daemon.training.evaluation import Judged
from daemon.training.report.svg import Axis, Drawing
from models.operating import Cuts, reliability, sweep

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


def draw_all(ranking: Ranking, thresholds: Thresholds, prevalence: float) -> list[tuple[str, str]]:
    """(SVG, caption) of each diagram that these curves allow."""
    drawn = [(str(histogram(ranking, thresholds)), "How many curves have which score. Up: events. Down: event-free.")]
    if ranking.events.any() and not ranking.events.all():
        cuts = sweep(ranking.scores, ranking.events)
        weighted = f"Share of events among curves of about one score, at a prevalence of {prevalence:.1%}."
        drawn += [
            (
                str(calibration(ranking, prevalence)),
                f"{weighted} On the diagonal a score means what it says; bars: 95 %.",
            ),
            (str(precision_recall(cuts, ranking, thresholds)), "Every cut, in the mix of this set. AP is the area."),
            (str(roc(cuts, ranking, thresholds)), "Every cut. AUC is the area."),
        ]
    return drawn


def histogram(ranking: Ranking, thresholds: Thresholds) -> Drawing:
    """Scores on a logit axis, events above and the others below the line."""
    places = np.array([_SCORES.share(score) for score in ranking.scores])
    slots = np.minimum((places * _BINS).astype(int), _BINS - 1)
    counts = [np.bincount(slots[ranking.events == kind], minlength=_BINS) for kind in (True, False)]
    up, down = (_round_up(int(count.max())) for count in counts)
    drawing = Drawing("histogram of scores", _SCORES, Axis("curves", -down, up, (-down, 0.0, up)), width=520)
    edges = [_unlogit(place / _BINS) for place in range(_BINS + 1)]
    for kind, sign, count in (("event", 1, counts[0]), ("none", -1, counts[1])):
        for slot in np.flatnonzero(count):
            ends = sorted((0.0, sign * float(count[slot])))
            words = "events" if kind == "event" else "event-free"
            says = f"{count[slot]} {words}, score {edges[slot]:.3g} to {edges[slot + 1]:.3g}"
            drawing.box((edges[slot], edges[slot + 1]), (ends[0], ends[1]), kind, says)
    drawing.line([(_SCORES.low, 0.0), (_SCORES.high, 0.0)], "rule")
    for name, value, height, below in (("discard", thresholds.discard, -down, -6), ("keep", thresholds.keep, up, 10)):
        drawing.line([(value, -down), (value, up)], "threshold")
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


def _round_up(count: int) -> float:
    """A round number that is no smaller: 1, 2, 5, 10, 20 …"""
    size = 10 ** math.floor(math.log10(max(count, 1)))
    return float(next(step * size for step in (1, 2, 5, 10) if step * size >= count))
