"""The gauge: a score between its two thresholds, on a scale on which one chance in a thousand still has a width."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from daemon.decision import Judge
from daemon.explanation.style import INK, PAPER, QUIET, VERDICT
from daemon.explanation.wording import share

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
