"""The four diagrams of a report: scores, reliability, precision over recall, and ROC."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray

from daemon.judging import Thresholds
from daemon.learn.evaluation import Judged
from models.metrics import Cuts, reliability, sweep

# Small drawings as SVG inside a page: axes, lines, dots. Colours are the page's, so that dark mode and print
# hold.

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40


@dataclass(frozen=True, slots=True)
class Axis:
    """What one axis shows; ``logit`` stretches both ends of 0…1, where probabilities crowd."""

    label: str
    low: float = 0.0
    high: float = 1.0
    ticks: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    logit: bool = False

    def share(self, value: float) -> float:
        """Where a value lies along the axis, 0 to 1; values beyond its ends lie at them."""
        value = min(max(value, self.low), self.high)
        if not self.logit:
            return (value - self.low) / (self.high - self.low)
        low, here, high = (math.log(p / (1 - p)) for p in (self.low, value, self.high))
        return (here - low) / (high - low)


@dataclass(slots=True)
class Drawing:
    """One diagram with axes, in pixels."""

    title: str
    x: Axis
    y: Axis
    width: int = 360
    height: int = 300
    _parts: list[str] = field(default_factory=list)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Values -> pixels."""
        wide, tall = self.width - LEFT - RIGHT, self.height - TOP - BOTTOM
        return LEFT + self.x.share(x) * wide, TOP + (1 - self.y.share(y)) * tall

    def line(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """A polyline of class ``kind``."""
        told = " ".join(f"{px:.1f},{py:.1f}" for px, py in (self.place(*point) for point in points))
        self._parts.append(f'<polyline class="{kind}" points="{told}"/>')

    def dot(self, x: float, y: float, radius: float, kind: str, says: str) -> None:
        """A dot that says what it is when pointed at."""
        px, py = self.place(x, y)
        self._parts.append(
            f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}">'
            f"<title>{escape(says)}</title></circle>"
        )

    def box(self, x: tuple[float, float], y: tuple[float, float], kind: str, says: str) -> None:
        """A filled rectangle between two corners."""
        (left, bottom), (right, top) = self.place(x[0], y[0]), self.place(x[1], y[1])
        shape = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        self._parts.append(f'<rect class="{kind}" {shape}><title>{escape(says)}</title></rect>')

    def note(self, x: float, y: float, text: str, anchor: str = "start", shift: tuple[int, int] = (4, 4)) -> None:
        """Words beside a point."""
        px, py = self.place(x, y)
        at = f'x="{px + shift[0]:.1f}" y="{py + shift[1]:.1f}" text-anchor="{anchor}"'
        self._parts.append(f"<text {at}>{escape(text)}</text>")

    def __str__(self) -> str:
        frame = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title)}">'
        return "".join([frame, *self._grid(), *self._parts, "</svg>"])

    def _grid(self) -> list[str]:
        (left, bottom), (right, top) = self.place(self.x.low, self.y.low), self.place(self.x.high, self.y.high)
        parts = []
        for tick in self.x.ticks:
            px = self.place(tick, self.y.low)[0]
            parts.append(f'<path class="grid" d="M{px:.1f} {top:.1f}V{bottom:.1f}"/>')
            parts.append(f'<text x="{px:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{tick:g}</text>')
        for tick in self.y.ticks:
            py = self.place(self.x.low, tick)[1]
            parts.append(f'<path class="grid" d="M{left:.1f} {py:.1f}H{right:.1f}"/>')
            parts.append(f'<text x="{left - 6:.1f}" y="{py + 4:.1f}" text-anchor="end">{abs(tick):g}</text>')
        middle = (top + bottom) / 2
        parts.append(
            f'<text class="axis" x="{(left + right) / 2:.1f}" y="{bottom + 33:.1f}" text-anchor="middle">'
            f"{escape(self.x.label)}</text>"
            f'<text class="axis" transform="translate(12 {middle:.1f}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y.label)}</text>"
        )
        return parts


def outline(lower: Sequence[float], upper: Sequence[float], width: float, height: float) -> str:
    """Two edges of equal length, 0 to 1 upwards -> the d of a closed path over the whole of ``width``."""
    step = width / max(len(lower) - 1, 1)
    forth = [f"{place * step:.1f} {(1 - value) * height:.1f}" for place, value in enumerate(upper)]
    back = [f"{place * step:.1f} {(1 - value) * height:.1f}" for place, value in enumerate(lower)]
    return "M" + "L".join([*forth, *reversed(back)]) + "Z"


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
    """A round number that is no smaller: 1, 2, 5, 10, 20 and so on."""
    size = 10 ** math.floor(math.log10(max(count, 1)))
    return float(next(step * size for step in (1, 2, 5, 10) if step * size >= count))
