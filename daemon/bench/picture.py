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
from daemon.explain.sheet import FAINT, INK, PAPER, QUIET, VERDICT

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
_TICKS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def draw(found: Mapping[str, Any]) -> bytes:
    """The load of a run as a picture of 760 x 360 dots: p50 and p99, alone and beside busy neighbours."""
    load, busy = found["load"], found["settings"]["busy"]
    panels = [("quiet", "alone", VERDICT["keep"], QUIET_MS)]
    panels += [("busy", f"beside {busy} busy programs", VERDICT["review"], BUSY_MS)] if load["busy"] else []
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 3.6), dpi=100, facecolor=PAPER)
        FigureCanvasSVG(figure)
        figure.text(0.075, 0.925, "From closed file to received event", size=14, weight="bold")
        figure.text(0.075, 0.865, _foot(found), size=9, color=QUIET)
        for place, (name, words, colour, limit_ms) in enumerate(panels):
            axes = figure.add_axes((0.075 + 0.475 * place, 0.15, 0.38, 0.59))
            axes.set_title(words, size=11, color=colour, loc="left", weight="bold")
            _course(axes, load[name], colour)
            _promise(axes, colour, limit_ms)
            _dress(axes, [row["rate_per_s"] for row in load[name]], _highest_ms(load))
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _course(axes: Axes, rows: Sequence[Mapping[str, Any]], colour: str) -> None:
    known = [row for row in rows if row["latency_ms"]["count"]]
    if not known:
        return
    rates = [row["rate_per_s"] for row in known]
    middle, tail = ([row["latency_ms"][name] for row in known] for name in ("p50", "p99"))
    axes.fill_between(rates, middle, tail, color=colour, alpha=0.12, linewidth=0)
    axes.plot(rates, middle, color=colour, marker="o", linewidth=2)
    axes.plot(rates, tail, color=colour, marker="o", markersize=4, linewidth=1, linestyle=(0, (4, 2)))
    for words, at_ms, side in (("p99", tail[-1], "bottom"), ("median", middle[-1], "top")):
        axes.annotate(words, (rates[-1], at_ms), (7, 0), textcoords="offset points", color=colour, va=side, size=10)


def _promise(axes: Axes, colour: str, limit_ms: float) -> None:
    axes.plot([RATE_PER_S], [limit_ms], marker="_", markersize=30, color=colour, markeredgewidth=2)
    where: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
    axes.annotate(f"p99 promised: {limit_ms:g} ms", (RATE_PER_S, limit_ms), (0, 4), color=QUIET, size=9, **where)


def _dress(axes: Axes, rates: Sequence[float], highest_ms: float) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_yticks(_TICKS_MS, [f"{tick:g}" for tick in _TICKS_MS])
    axes.minorticks_off()
    axes.set_ylim(1.0, highest_ms)
    axes.set_xlabel("curves a second")
    axes.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _highest_ms(load: Mapping[str, Any]) -> float:
    """The same for both panels, with room for what is promised."""
    tails = [row["latency_ms"].get("p99", 0.0) for name in ("quiet", "busy") for row in load[name]]
    return 1.3 * max([float(tail) for tail in tails] + [1.6 * BUSY_MS])


def _foot(found: Mapping[str, Any]) -> str:
    cores, engine = found["machine"]["cores"], found["load"]["engine"]
    return f"milliseconds; real files, {cores} cores, {engine}, {found['time'][:10]}"
