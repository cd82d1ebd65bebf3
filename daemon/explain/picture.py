"""The picture of an explanation, 1200 x 700 dots, or as many hundredths of an inch where it is drawn in lines.

Above, the force curve with its heat and its ruptures, and the approach in grey; below, the picture that the network saw
with the map laid over, and the verdict beside its thresholds.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from daemon.common.text import clean
from daemon.explain import SCREEN, Explanation, Trace, extent_of, sentences, share, thin, trace_of
from daemon.judging import Judge
from models.clock import day_and_minute, moment
from models.curve import Prepared, Samples
from models.raster import to_rows
from models.ruptures import Rupture

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
    "svg.hashsalt": "afm-triage",
}
TALL, BEND = 200.0, 60.0  # times the noise: a curve so high is drawn logarithmically from there on
CAPTION = """Heat: what raised the score (Grad-CAM), paler the lower the score.
It tells where the network looked, not what the molecule was."""
BASELINE = "baseline: what the model takes away before it looks"
_BESIDE: dict[str, Any] = {"textcoords": "offset points", "size": 9, "color": INK, "zorder": 4}
_FOOT: dict[str, Any] = {"textcoords": "offset points", "size": 8.5, "color": QUIET, "style": "italic"}
APPROACH = "approach"
RUPTURES = "rupture, with its force: a line through the branch, less the baseline that is free"
MOST_NAMED = 6  # ruptures, the highest: more words would hide the curve
APART = 0.03  # of the width: words that are nearer to those of a higher one are left out
Form = Literal["png", "svg", "pdf"]
_NOTE: dict[str, Any] = {"ha": "right", "va": "top", "size": 8.5, "color": QUIET, "style": "italic"}
#: No moment at which it was drawn.
_METADATA: dict[Form, dict[str, Any]] = {
    "png": {"Software": "afm-triage"},
    "svg": {"Creator": "afm-triage", "Date": None},
    "pdf": {"Creator": "afm-triage", "CreationDate": None},
}
_TICKS = (-30.0, -10.0, -3.0, 0.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def draw(explanation: Explanation, form: Form = "png") -> bytes:
    """The picture as the bytes of a file; the same curve gives the same ones."""
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
            _mark_ruptures(axes, trace, explanation.ruptures)
            _strip(figure.add_axes((0.068, 0.484, 0.914, 0.019)), trace, warmth)
            _picture(figure.add_axes((0.068, 0.085, 0.49, 0.285)), trace, explanation, warmth)
        _facts(figure, explanation)
        out = io.BytesIO()
        figure.savefig(out, format=form, metadata=_METADATA[form])
    return out.getvalue()


def _head(figure: Figure, explanation: Explanation) -> None:
    decision = explanation.decision
    name = clean(decision.path)
    name = name if len(name) <= 90 else f"… {name[-88:]}"
    figure.text(0.068, 0.945, name, size=15 if len(name) <= 66 else 11.5, weight="bold", va="center")
    figure.text(0.068, 0.896, "  ·  ".join(_particulars(explanation)), color=QUIET, va="center")
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


def _particulars(explanation: Explanation) -> list[str]:
    """What the file says of the measurement."""
    curve, said = explanation.curve, [f"curve {explanation.decision.curve}", f"{len(explanation.curve):,} points"]
    if curve.acquired_s is not None and (when := moment(curve.acquired_s)) is not None:
        said.append(f"measured {day_and_minute(when)}")
    spring = curve.spring_constant_n_per_m
    said.append("no spring constant" if spring is None else f"spring constant {spring:.3g} N/m")
    speed = curve.velocity_um_per_s
    return said if speed is None else [*said, f"{speed:.3g} µm/s"]


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
    if trace.approach is not None:
        x, y = (side[:: max(side.shape[0] // SCREEN, 1)] for side in trace.approach)
        axes.plot(x, y, color=FAINT, linewidth=0.8, zorder=0.5, label=APPROACH)
    if trace.baseline is not None:
        _name_lines(axes)
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
        words = f"the push against the surface goes on below, to {_amount(float(trace.y[deepest]), trace.y_unit)}"
        axes.annotate(words, (trace.x[deepest], 0.0), (24, 3), **_FOOT, xycoords=axes.get_xaxis_transform())
    largest = max(top, -bottom)
    if trace.baseline is None or not trace.noise or largest <= TALL * trace.noise:
        room = 0.06 * (top - bottom) or 1.0
        axes.set_ylim(bottom - room, top + 3.5 * room)  # above: the words of a rupture, and over them the warmest
        return
    axes.set_yscale("asinh", linear_width=BEND * trace.noise)
    axes.text(0.998, 0.97, "force scale: logarithmic far from 0", transform=axes.transAxes, **_NOTE)
    bottom, top = min(1.3 * bottom, -BEND * trace.noise), max(1.6 * top, BEND * trace.noise)
    axes.set_ylim(bottom, top)
    decades = 10.0 ** np.arange(math.ceil(math.log10(BEND * trace.noise)), math.ceil(math.log10(1.6 * largest)))
    ticks = [tick for tick in (*-decades[::-1], 0.0, *decades) if bottom < tick < top]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _name_lines(axes: Axes) -> None:
    """Above the curve, where nothing is in its way."""
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.1}
    axes.legend(frameon=False, fontsize=8.5, labelcolor=QUIET, handlelength=3.2, ncols=3, **place)


def _mark(axes: Axes, trace: Trace, peak: float) -> None:
    """Where the curve is warmest."""
    at = float(trace.x[round(peak)])
    side, shift = ("left", 6) if at < sum(axes.get_xlim()) / 2 else ("right", -6)
    axes.axvline(at, color=WARM, linewidth=0.9, linestyle=(0, (1, 3)), zorder=0)
    place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
    words = f"warmest at {at:.4g} {trace.x_unit}".rstrip() if trace.x_unit else f"warmest at sample {at:.0f}"
    axes.annotate(words, (at, 1.0), (shift, -2), ha=side, va="top", color=WARM, **place)


def _mark_ruptures(axes: Axes, trace: Trace, ruptures: Sequence[Rupture]) -> None:
    """A ring on each, and the force of the highest beside it."""
    axes.plot(
        [trace.x[one.index] for one in ruptures], [trace.y[one.index] for one in ruptures],
        linestyle="", marker="o", markersize=6, markerfacecolor="none", markeredgecolor=INK, zorder=4,
        label=RUPTURES if ruptures else "",
    )  # fmt: skip
    _name_lines(axes)
    low, high = axes.get_xlim()
    named: list[float] = []
    for one in sorted(ruptures, key=lambda one: -one.force):
        at = float(trace.x[one.index])
        if len(named) == MOST_NAMED or any(abs(at - other) < APART * (high - low) for other in named):
            continue
        named.append(at)
        words = _amount(one.force, one.unit)
        axes.annotate(words, (at, float(trace.y[one.index])), (-5, 3), ha="right", **_BESIDE)


def _strip(axes: Axes, trace: Trace, warmth: float) -> None:
    """The heat alone, below the curve; hatched where the picture does not show the retract."""
    axes.set_facecolor(BARE)
    known = np.isfinite(trace.heat)
    span, first = _span(trace), float(trace.x[known].min())
    heat = _along_axis(trace.x[known], trace.heat[known], np.linspace(*span, 1001))
    axes.imshow(warmth * heat[None], cmap=STRIP, vmin=0, vmax=1, aspect="auto", extent=(*span, 0, 1))
    if first > span[0]:
        axes.axvspan(span[0], first, facecolor=BARE, edgecolor=FAINT, hatch="////", linewidth=0)
    axes.set_yticks([])
    axes.set_ylabel("heat", rotation=0, ha="right", va="center")
    axes.tick_params(colors=QUIET, length=3, color=FAINT)
    axes.set_xlabel(trace.x_label, labelpad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _along_axis(x: Samples, heat: Samples, edges: Samples) -> Samples:
    """(k,) the warmest between each two of k + 1 edges; a separation goes back where a bond breaks."""
    place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, edges.shape[0] - 2)
    warmest = np.full(edges.shape[0] - 1, -1.0)
    np.maximum.at(warmest, place, heat)
    seen = np.flatnonzero(warmest >= 0.0)
    return np.asarray(np.interp(np.arange(warmest.shape[0]), seen, warmest[seen]))


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
    at = trace.x[np.round(attention.place.sample_of(np.arange(profile.columns))).astype(np.int64)]
    onward = np.maximum.accumulate(at)  # a separation goes back where a bond breaks
    round_ones = [tick for tick in MaxNLocator(6).tick_values(onward[0], onward[-1]) if onward[0] <= tick <= onward[-1]]
    columns = np.interp(round_ones, onward, np.arange(profile.columns))
    axes.set_xticks([float(column) + 0.5 for column in columns], [f"{tick:g}" for tick in round_ones], size=8)
    axes.set_title("what the network saw, and where it looked", size=10, loc="left", color=QUIET)
    axes.set_title(_why_bent(trace, explanation.prepared), size=8, loc="right", color=QUIET, style="italic")
    axes.set_xlabel("place on the retract" + (f" ({trace.x_unit})" if trace.x_unit else ""), size=9, labelpad=2)


def _why_bent(trace: Trace, prepared: Prepared) -> str:
    """Why a flat baseline is not flat there."""
    if trace.baseline is None or not prepared.tilt:
        return "log scale: noise looks large"
    tilt = abs(float(trace.baseline[0] - trace.baseline[-1]))
    return f"log scale less a tilt of {_amount(tilt, trace.y_unit, 2)}: flat looks bent"


def _told_ruptures(explanation: Explanation) -> str:
    """The highest in words, and how many there are."""
    ruptures = explanation.ruptures
    if not ruptures:
        return "no fall is steep and high enough to be measured as a rupture"
    one = max(ruptures, key=lambda one: one.force)
    where = "" if math.isnan(one.position_nm) else f" at {one.position_nm:.3g} nm"
    what = f"{_amount(one.force, one.unit)} (± {_amount(one.error, one.unit, 2)}){where}"
    if explanation.decision.verdict == "discard":
        return f"falls that are marked: {len(ruptures)}; the network takes none for an event"
    return f"one rupture: {what}" if len(ruptures) == 1 else f"{len(ruptures)} ruptures, the highest {what}"


def _amount(value: float, unit: str, digits: int = 3) -> str:
    """``335 pN``, ``48.9 nN``: never as a power of ten where it can be helped."""
    if unit == "pN" and abs(value) >= 1e4:
        value, unit = value / 1e3, "nN"
    return f"{float(f'{value:.{digits}g}'):,g} {unit}".rstrip()


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
    said += [] if attention is None else [_told_ruptures(explanation)]
    lines = [*((f"•  {text}", INK) for text in said)]
    if (before := explanation.judged) is not None:
        score = "no score" if before.score is None else f"score {share(before.score)}"
        by = "it" if before.model == decision.judge.model else before.model
        lines.append((f"judged {day_and_minute(before.time)} by {by}: {before.verdict}, {score}", QUIET))
    lines.append((f"model {decision.judge.model}  ·  {decision.judge.engine}", QUIET))
    lines.append((f"certificate: {certificate.sentence() if certificate else 'none'}", QUIET))
    step = min(0.033, 0.125 / len(lines))
    for place, (text, colour) in enumerate(lines):
        figure.text(x, y - step * place, text, color=colour, size=9.5, va="top")
