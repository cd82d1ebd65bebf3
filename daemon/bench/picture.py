"""The picture of latency against load, with and without busy neighbours, as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from daemon.bench.bars import BUSY_MS, QUIET_MS, RATE_PER_S
from daemon.explanation.style import FAINT, INK, PAPER, QUIET, VERDICT

_STYLE: dict[Any, Any] = {
    "font.size": 11.0,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture everywhere
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": QUIET,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "svg.fonttype": "path",
    "svg.hashsalt": "afm-triage",
}
_COLOURS = {"quiet": VERDICT["keep"], "busy": VERDICT["review"]}
_LIMITS = {"quiet": QUIET_MS, "busy": BUSY_MS}


def draw(found: Mapping[str, Any]) -> bytes:
    """The load of a run as a picture of 760 x 400 dots: p50 as a line, up to p99 as a band."""
    load, busy = found["load"], found["settings"]["busy"]
    words = {"quiet": "alone", "busy": f"beside {busy} busy programs"}
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 4.0), dpi=100, facecolor=PAPER)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.09, 0.13, 0.72, 0.72))
        for name, label in words.items():
            _course(axes, load[name], _COLOURS[name], label, _LIMITS[name])
        _dress(axes, [row["rate_per_s"] for row in load["quiet"]])
        figure.text(0.09, 0.93, "From closed file to received event", size=14, weight="bold")
        figure.text(0.09, 0.885, _foot(found), size=9, color=QUIET)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _course(axes: Axes, rows: Sequence[Mapping[str, Any]], colour: str, label: str, limit_ms: float) -> None:
    known = [row for row in rows if row["latency_ms"]["count"]]
    if not known:
        return
    rates = [row["rate_per_s"] for row in known]
    middle, tail = ([row["latency_ms"][name] for row in known] for name in ("p50", "p99"))
    axes.fill_between(rates, middle, tail, color=colour, alpha=0.12, linewidth=0)
    axes.plot(rates, middle, color=colour, marker="o", linewidth=2)
    axes.plot(rates, tail, color=colour, marker="o", markersize=4, linewidth=1, linestyle=(0, (4, 2)))
    axes.annotate(f"p99 {label}", (rates[-1], tail[-1]), (8, 0), textcoords="offset points", color=colour, va="center")
    axes.annotate("median", (rates[-1], middle[-1]), (8, 0), textcoords="offset points", color=colour, va="center")
    axes.plot([RATE_PER_S], [limit_ms], marker="_", markersize=26, color=colour, markeredgewidth=2)


def _dress(axes: Axes, rates: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_yticks([1, 2, 5, 10, 20, 50, 100, 200], ["1", "2", "5", "10", "20", "50", "100", "200 ms"])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 2.0), max(high, 1.3 * BUSY_MS))
    axes.set_xlabel("curves a second")
    axes.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _foot(found: Mapping[str, Any]) -> str:
    cores, engine = found["machine"]["cores"], found["load"]["engine"]
    return f"{engine} on {cores} cores; real files; short strokes: what is promised for p99 at {RATE_PER_S:g} a second"
