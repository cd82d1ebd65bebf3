"""The picture of an explanation, 1200 x 700 dots.

Above, the force curve with its heat; below, the picture that the network saw with the map laid over, and the verdict
beside its thresholds.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from daemon.common.text import clean
from daemon.explain import Explanation, sentences, share
from daemon.judging import Judge
from models.curve import Curve, Prepared, Samples
from models.frontend import LARGEST, newton_per_unit
from models.raster import to_rows

# The axes of an explanation: a retract in units that a biophysicist reads, thinned to what a screen can show.

SCREEN = 1500  # pairs of points; a picture is not wider
_EARLY = 0.2  # of a push: the tip is deepest where it turns round, and while it rests there


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A retract ready to be drawn, (n,) each."""

    x: Samples
    y: Samples  # baseline at 0 where it is known; NaN where the file holds no finite number
    baseline: Samples | None  # (n,) what the model took away
    heat: Samples  # 0 to 1, NaN where the picture does not show the sample
    noise: float | None  # rms of the averaged baseline, as y
    x_label: str
    y_label: str
    x_unit: str
    y_unit: str


def trace_of(explanation: Explanation) -> Trace:
    """Force in pN where the file says how, else in nm or V of deflection, else in the file's own numbers."""
    curve, prepared = explanation.curve, explanation.prepared
    x, x_label, x_unit = _abscissa(curve)
    level = prepared.level if prepared.level is not None else 0.0
    force = np.where(np.abs(curve.force) < LARGEST, curve.force - level, np.nan)
    factor, y_label, y_unit = _ordinate(curve, float(np.nanmax(np.abs(force), initial=0.0)))
    attention = explanation.attention
    heat = np.full(len(curve), np.nan) if attention is None else attention.place.spread(attention.along)
    baseline = None if attention is None else factor * _baseline(prepared, attention.place.first, len(curve))
    noise = None if prepared.noise is None else factor * prepared.noise
    return Trace(x, factor * force, baseline, heat, noise, x_label, y_label, x_unit, y_unit)


def extent_of(trace: Trace) -> tuple[float, float]:
    """(bottom, top) that hold the whole retract, both ways, and of the push against the surface a third of the rest.

    A push is often many times as high as a rupture and would press everything else flat. Raises ValueError where no
    sample is finite.
    """
    y = trace.y[np.isfinite(trace.y)]
    bottom, top = float(y.min()), float(y.max())
    if trace.baseline is None:
        return bottom, top  # no score: nobody has said which part is the retract
    beyond = y[_contact_of(y) :]
    lowest, highest = float(beyond.min()), float(beyond.max())
    return max(bottom, min(lowest, -0.35 * max(highest, -lowest))), top


def _contact_of(y: Samples) -> int:
    """How many samples push against the surface: from the deepest, at the very start, up to the baseline.

    A dip that begins at the baseline is none, however low it goes: it may be an event of a curve of the wrong sign.
    """
    above = np.flatnonzero(y >= 0.0)
    stop = int(above[0]) if above.size else 0
    return stop if stop and int(y[:stop].argmin()) <= _EARLY * stop else 0


def thin(trace: Trace, most: int = SCREEN) -> NDArray[np.int64]:
    """The samples to draw: of many, the lowest and the highest of each of ``most`` stretches, in order."""
    n = trace.y.shape[0]
    if n <= 2 * most:
        return np.arange(n)
    edges = np.linspace(0, n, most + 1).astype(np.int64)
    filled = np.nan_to_num(trace.y)
    pairs = [
        (start + int(filled[start:stop].argmin()), start + int(filled[start:stop].argmax()))
        for start, stop in pairwise(edges)
    ]
    return np.unique(np.array(pairs))


def _baseline(prepared: Prepared, first: int, n: int) -> Samples:
    """(n,) in force_unit, 0 at the far end; a line over what is shown."""
    return (prepared.tilt or 0.0) * (np.arange(n) - (n - 1)) / max(n - first, 1)


def _abscissa(curve: Curve) -> tuple[Samples, str, str]:
    if curve.distance is None or not np.isfinite(curve.distance).all():
        return np.arange(len(curve), dtype=np.float64), "sample of the retract", ""
    x = (curve.distance - curve.distance[0]) * 1e9
    words = {"piezo": "piezo travel", "separation": "tip–sample separation"}
    return x, f"{words.get(curve.distance_kind or '', 'distance')} since the turnaround (nm)", "nm"


def _ordinate(curve: Curve, largest: float) -> tuple[float, str, str]:
    newton = newton_per_unit(curve)
    if newton is not None and newton * largest > 1e-8:
        return newton * 1e9, "force (nN)", "nN"
    if newton is not None:
        return newton * 1e12, "force (pN)", "pN"
    if curve.force_unit == "m":
        return 1e9, "deflection (nm)", "nm"
    return (1.0, "deflection (V)", "V") if curve.force_unit == "V" else (1.0, "force (the file names no unit)", "")


# The colours of an explanation: ink on paper, and warmth for heat alone.

PAPER, INK, QUIET, FAINT = "#ffffff", "#1f2933", "#5b6770", "#b8c1ca"
COLD, WARM = "#8fa3b8", "#b3200f"
#: Distinct in grey and for the colour-blind (after Okabe & Ito 2008).
VERDICT = {"keep": "#00795a", "review": "#c77800", "discard": "#6b7280"}


# The gauge: a score between its two thresholds, on a scale on which one chance in a thousand still has a width.

_LEAST = 1e-4  # the ends of the scale, from 0 and from 1


def draw_gauge(figure: Figure, box: tuple[float, float, float, float], score: float, judge: Judge) -> None:
    """``box`` is left, bottom, width, height in shares of the figure; the words stand above the scale."""
    left, bottom, width, height = box
    figure.text(left, bottom + height + 0.012, f"score {share(score)}", size=13, weight="bold", va="bottom")
    words = f"chance of an event where {100 * judge.prevalence:.3g} % of curves hold one, by {_basis(judge)}"
    figure.text(left, bottom + height - 0.012, words, size=9, color=QUIET, va="center")
    axes = figure.add_axes((left, bottom + 0.01, width, 0.3 * height))
    axes.set_axis_off()
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    edges = [0.0, along(judge.thresholds.discard), along(judge.thresholds.keep), 1.0]
    for verdict, start, stop in zip(("discard", "review", "keep"), edges[:-1], edges[1:], strict=True):
        axes.axvspan(start, stop, color=VERDICT[verdict], alpha=0.28, linewidth=0)
        if stop - start > 0.09:
            axes.text((start + stop) / 2, 0.48, verdict, ha="center", va="center", size=9, color=INK)
    for value, edge in zip(judge.thresholds.both, edges[1:-1], strict=True):
        axes.axvline(edge, color=PAPER, linewidth=2)
        axes.text(edge, -0.15, share(value), ha="center", va="top", size=9, color=QUIET)
    at = along(score)
    axes.plot([at], [1.0], marker="v", markersize=11, color=INK, clip_on=False, zorder=5)
    axes.plot([at, at], [0.0, 1.0], color=INK, linewidth=1.6, clip_on=False)


def along(score: float) -> float:
    """0 to 1 by log odds: how far a score lies up the scale."""
    end = math.log(_LEAST / (1 - _LEAST))
    held = min(max(score, _LEAST), 1 - _LEAST)
    return (math.log(held / (1 - held)) - end) / (-2 * end)


def _basis(judge: Judge) -> str:
    return "labels of real curves" if judge.score_basis == "labels" else "simulation"


BARE = "#eef0f2"
_WARMING = ["#e9b872", "#e4572e", "#9d0208"]
LINE = LinearSegmentedColormap.from_list("line", [COLD, *_WARMING])
STRIP = LinearSegmentedColormap.from_list("strip", [BARE, *_WARMING])
GLOW = LinearSegmentedColormap.from_list(
    "glow", [(1, 0.75, 0.3, 0.0), (0.95, 0.45, 0.15, 0.55), (0.62, 0.01, 0.03, 0.8)]
)
_STYLE: dict[Any, Any] = {
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": QUIET,
    "text.parse_math": False,  # a dollar in a file's name is a dollar
}
TALL, BEND = 200.0, 60.0  # times the noise: a curve so high is drawn logarithmically from there on
CAPTION = """Heat: what raised the score (Grad-CAM), paler the lower the score.
It tells where the network looked, not what the molecule was."""
BASELINE = "baseline: what the model takes away before it looks"
_FOOT: dict[str, Any] = {"textcoords": "offset points", "size": 8.5, "color": QUIET, "style": "italic"}
_NOTE: dict[str, Any] = {"ha": "right", "va": "top", "size": 8.5, "color": QUIET, "style": "italic"}
_TICKS = (-30.0, -10.0, -3.0, 0.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def draw(explanation: Explanation) -> bytes:
    """The picture as a PNG."""
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a name in letters that the font lacks shows as boxes
        figure = Figure(figsize=(12, 7), dpi=100, facecolor=PAPER)
        FigureCanvasAgg(figure)
        trace, attention, score = trace_of(explanation), explanation.attention, explanation.decision.score
        _head(figure, explanation)
        if attention is None or score is None:
            _curve(figure.add_axes((0.068, 0.34, 0.914, 0.51)), trace, 0.0)
        else:
            warmth = math.sqrt(along(score))  # where little speaks for an event, little is warm
            axes = figure.add_axes((0.068, 0.505, 0.914, 0.345))
            _curve(axes, trace, warmth)
            if attention.peak is not None and score > explanation.decision.judge.thresholds.discard:
                _mark(axes, trace, attention.peak)
            _strip(figure.add_axes((0.068, 0.484, 0.914, 0.019)), trace, warmth)
            _picture(figure.add_axes((0.068, 0.085, 0.49, 0.285)), trace, explanation, warmth)
        _facts(figure, explanation)
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": "afm-triage"})
    return out.getvalue()


def _head(figure: Figure, explanation: Explanation) -> None:
    decision = explanation.decision
    name = clean(decision.path)
    name = name if len(name) <= 90 else f"… {name[-88:]}"
    figure.text(0.068, 0.945, name, size=15 if len(name) <= 66 else 11.5, weight="bold", va="center")
    figure.text(0.068, 0.896, f"curve {decision.curve}  ·  {len(explanation.curve):,} points", color=QUIET, va="center")
    figure.text(
        0.982,
        0.945,
        f" {decision.verdict} ",
        size=15,
        weight="bold",
        color="white",
        ha="right",
        va="center",
        bbox={"boxstyle": "round,pad=0.35", "facecolor": VERDICT[decision.verdict], "edgecolor": "none"},
    )


def _plain(axes: Axes) -> None:
    axes.set_facecolor(PAPER)
    axes.tick_params(colors=QUIET, length=3, color=FAINT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _curve(axes: Axes, trace: Trace, warmth: float) -> None:
    """The retract, warmer and thicker where the heat is; without its labels below where a strip follows."""
    _plain(axes)
    chosen = thin(trace)
    if trace.baseline is not None:
        ends = trace.x[[0, -1]], trace.baseline[[0, -1]]
        axes.plot(*ends, color=FAINT, linewidth=1, linestyle=(0, (5, 4)), zorder=1, label=BASELINE)
        _name_baseline(axes)
        axes.tick_params(labelbottom=False, bottom=False)
    else:
        axes.set_xlabel(trace.x_label)
    points = np.stack((trace.x[chosen], trace.y[chosen]), axis=1)
    heat = warmth * np.nan_to_num(trace.heat[chosen])[:-1]
    segments = np.stack((points[:-1], points[1:]), axis=1)
    line = LineCollection(list(segments), cmap=LINE, array=heat, linewidths=list(0.9 + 1.3 * heat), capstyle="round")
    line.set_clim(0.0, 1.0)
    axes.add_collection(line)
    _limit(axes, trace)
    axes.set_ylabel(trace.y_label)
    axes.yaxis.set_label_coords(-0.054, 0.5)


def _limit(axes: Axes, trace: Trace) -> None:
    """All of the retract; of the push in front of it what its scale has room for, and how deep it goes in words.

    An adhesion, or a curve of the other sign, can be a hundred times as high as a rupture: there the scale becomes
    logarithmic, and says so.
    """
    known = np.isfinite(trace.y) & np.isfinite(trace.x)
    if not known.any():
        axes.text(0.5, 0.5, "no finite number in this curve", transform=axes.transAxes, ha="center", color=QUIET)
        return
    axes.set_xlim(*_span(trace))
    bottom, top = extent_of(trace)
    deepest = int(np.nanargmin(trace.y))
    if trace.y[deepest] < bottom:
        words = f"the push goes down to {float(f'{trace.y[deepest]:.3g}'):,g} {trace.y_unit}".rstrip()
        axes.annotate(words, (trace.x[deepest], 0.0), (24, 3), **_FOOT, xycoords=axes.get_xaxis_transform())
    largest = max(top, -bottom)
    if trace.baseline is None or not trace.noise or largest <= TALL * trace.noise:
        room = 0.06 * (top - bottom) or 1.0
        axes.set_ylim(bottom - room, top + 2 * room)
        return
    axes.set_yscale("asinh", linear_width=BEND * trace.noise)
    axes.text(0.998, 0.97, "force scale: logarithmic far from 0", transform=axes.transAxes, **_NOTE)
    bottom, top = min(1.3 * bottom, -BEND * trace.noise), max(1.6 * top, BEND * trace.noise)
    axes.set_ylim(bottom, top)
    decades = 10.0 ** np.arange(math.ceil(math.log10(BEND * trace.noise)), math.ceil(math.log10(1.6 * largest)))
    ticks = [tick for tick in (*-decades[::-1], 0.0, *decades) if bottom < tick < top]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _name_baseline(axes: Axes) -> None:
    """Above the curve, where nothing is in its way."""
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.1}
    axes.legend(frameon=False, fontsize=8.5, labelcolor=QUIET, handlelength=3.2, **place)


def _mark(axes: Axes, trace: Trace, peak: float) -> None:
    """Where the curve is warmest."""
    at = float(np.interp(peak, np.arange(trace.x.shape[0]), trace.x))
    side, shift = ("left", 6) if at < sum(axes.get_xlim()) / 2 else ("right", -6)
    axes.axvline(at, color=WARM, linewidth=0.9, linestyle=(0, (1, 3)), zorder=0)
    place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
    words = f"warmest at {at:.4g} {trace.x_unit}".rstrip() if trace.x_unit else f"warmest at sample {at:.0f}"
    axes.annotate(words, (at, 1.0), (shift, -2), ha=side, va="top", color=WARM, **place)


def _strip(axes: Axes, trace: Trace, warmth: float) -> None:
    """The heat alone, below the curve; hatched where the picture does not show the retract."""
    axes.set_facecolor(BARE)
    known = np.isfinite(trace.heat)
    span, first = _span(trace), float(trace.x[known][0])
    heat = np.interp(np.linspace(*span, 1000), trace.x[known], trace.heat[known])
    axes.imshow(warmth * heat[None], cmap=STRIP, vmin=0, vmax=1, aspect="auto", extent=(*span, 0, 1))
    if first > span[0]:
        axes.axvspan(span[0], first, facecolor=BARE, edgecolor=FAINT, hatch="////", linewidth=0)
    axes.set_yticks([])
    axes.set_ylabel("heat", rotation=0, ha="right", va="center")
    axes.tick_params(colors=QUIET, length=3, color=FAINT)
    axes.set_xlabel(trace.x_label, labelpad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _span(trace: Trace) -> tuple[float, float]:
    low, high = float(trace.x.min()), float(trace.x.max())
    return low, high if high > low else low + 1.0


def _picture(axes: Axes, trace: Trace, explanation: Explanation, warmth: float) -> None:
    """What the network saw, and what in it speaks for an event."""
    attention, profile = explanation.attention, explanation.bundle.profile
    assert attention is not None
    _plain(axes)
    whole: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": (0, profile.columns, 0, profile.rows)}
    axes.imshow(1.0 - 0.85 * attention.picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", **whole)
    axes.imshow(warmth * attention.map, cmap=GLOW, vmin=0, vmax=1, interpolation="bilinear", **whole)
    rows = to_rows(np.array(_TICKS, np.float32), profile)
    ticks = [(float(row), f"{tick:g}") for row, tick in zip(rows, _TICKS, strict=True) if 0 < row < profile.rows]
    axes.set_yticks([row for row, _ in ticks], [words for _, words in ticks], size=8)
    axes.set_ylabel("force / its noise" if profile.scale == "sigma" else "force (pN)", size=9)
    columns = np.linspace(0, profile.columns - 1, 5)
    at = np.interp(attention.place.sample_of(columns), np.arange(trace.x.shape[0]), trace.x)
    words = [str(round(float(x))) if np.ptp(at) > 40 else f"{x:.2g}" for x in at]
    axes.set_xticks([float(column) + 0.5 for column in columns], words, size=8)
    axes.set_title("what the network saw, and where it looked", size=10, loc="left", color=QUIET)
    axes.set_xlabel("place on the retract" + (f" ({trace.x_unit})" if trace.x_unit else ""), size=9, labelpad=2)


def _facts(figure: Figure, explanation: Explanation) -> None:
    """The verdict's grounds in words, beside the picture or below a curve that has none."""
    decision, attention = explanation.decision, explanation.attention
    said = sentences(decision.reasons)
    if decision.score is None or attention is None:
        x, y = 0.068, 0.175
        figure.text(x, y + 0.05, "No score could be made: a person has to look.", size=13, weight="bold")
    else:
        x, y = 0.615, 0.2
        draw_gauge(figure, (x, 0.255, 0.367, 0.105), decision.score, decision.judge)
        said += [] if attention.peak is not None else ["nothing in the picture speaks for an event: no heat"]
        figure.text(x, 0.026, CAPTION, size=8.5, color=QUIET, linespacing=1.45, style="italic")
    certificate = explanation.bundle.certificate
    lines = [*((f"•  {text}", INK) for text in said)]
    lines.append((f"model {decision.judge.model}  ·  {decision.judge.engine}", QUIET))
    lines.append((f"certificate: {certificate.sentence() if certificate else 'none'}", QUIET))
    step = min(0.033, 0.125 / len(lines))
    for place, (text, colour) in enumerate(lines):
        figure.text(x, y - step * place, text, color=colour, size=9.5, va="top")
