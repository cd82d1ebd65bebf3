"""The picture of a message: the last twelve hours, and the last curve that was kept; for a telephone.

Drawn in the process that sends the message, as matplotlib takes a second and a hundred megabytes.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.config.origin import LEDGER_FILE
from daemon.formats.afmcurve import unpack
from daemon.formats.base import Unfinished, Unreadable
from daemon.ledger import wire
from daemon.ledger.view import LedgerView
from models.clock import since_1970, time_of_day
from models.curve import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOURS = 12
_BLOCK_S = 600.0
_MOST_CURVES = 50_000
_UNITS = {"N": (1e12, "force in pN"), "m": (1e9, "deflection in nm"), "V": (1.0, "deflection in V")}


def png_of(state: Path, now_s: float | None = None) -> bytes | None:
    """About 40 kB; None where nothing was judged yet. Raises UserError where the ledger cannot be read."""
    if not (state / LEDGER_FILE).is_file():
        return None
    now_s = time.time() if now_s is None else now_s
    with LedgerView(state / LEDGER_FILE) as view:
        seen = _last(view, now_s - HOURS * 3_600.0)
        last = view.looks("keep", order="newest", limit=1)
        event = view.decisions([last[0].seq]).get(last[0].seq) if last else None
        copy = view.compact_copy(last[0].seq) if last else None
    if not seen and event is None:
        return None
    return _draw(seen, event, copy, now_s)


def _last(view: LedgerView, since_s: float) -> list[tuple[float, str]]:
    """When each of the last curves was decided, and as what."""
    found: list[tuple[float, str]] = []
    seq = max(view.last_seq - _MOST_CURVES, 0)
    while rows := view.since(seq):
        times = (since_1970(wire.decode(row.body)["time"]) for row in rows)
        found += [(at, row.verdict) for at, row in zip(times, rows, strict=True) if at >= since_s]
        seq = rows[-1].seq
    return found


def _draw(seen: Sequence[tuple[float, str]], event: wire.Event | None, copy: bytes | None, now_s: float) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 6.4), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    hours, curve = figure.subplots(2, 1, height_ratios=(1, 1.3))
    _draw_hours(hours, seen, now_s)
    _draw_curve(curve, event, copy)
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def _draw_hours(axes: Axes, seen: Sequence[tuple[float, str]], now_s: float) -> None:
    """Curves in ten minutes as bars; kept ones as dots at their moment."""
    ends = now_s - _BLOCK_S * np.arange(HOURS * 6, -1, -1)
    counts, _ = np.histogram([at for at, _ in seen], ends)
    hours = (ends[:-1] - now_s + _BLOCK_S / 2) / 3_600.0
    axes.bar(hours, counts, _BLOCK_S / 3_600.0, color="#b8c4d0", label="curves in 10 min")
    kept = [(at - now_s) / 3_600.0 for at, verdict in seen if verdict == "keep"]
    top = max(float(counts.max(initial=0)), 1.0)
    axes.plot(kept, np.full(len(kept), 1.08 * top), "o", color="#b3261e", markersize=5, label="kept", clip_on=False)
    ticks = list(range(-HOURS, 1, 3))
    axes.set_xticks(ticks, [time_of_day(now_s + 3_600 * tick)[:5] for tick in ticks])
    axes.set(xlim=(-HOURS, 0), ylim=(0, 1.18 * top), ylabel="curves in 10 min")
    axes.set_title(f"The last {HOURS} hours: {len(seen):,} curves, {len(kept):,} kept (dots)", loc="left", fontsize=11)
    _plain(axes)


def _draw_curve(axes: Axes, event: wire.Event | None, copy: bytes | None) -> None:
    """The retract of the last kept curve, pulling up, the surface at the left."""
    found = _curve(copy)
    _plain(axes)
    if event is None or found is None:
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "no curve was kept yet" if event is None else "the last kept curve has no copy", ha="center"
        )
        return
    scale, label = _UNITS.get(found.force_unit or "", (1.0, "force as stored"))
    force = np.asarray(found.force, np.float64) * scale
    force = force - np.median(force[2 * force.size // 3 :])
    if found.distance is None:
        along, named = np.linspace(0.0, 100.0, force.size), "share of the retract in %"
    else:
        away = np.asarray(found.distance, np.float64)
        along, named = np.abs(away - away[0]) * 1e9, "distance in nm, as the file has it"
    axes.plot(along, force, color="#1f4e79", linewidth=0.8)
    axes.axhline(0.0, color="#888888", linewidth=0.6)
    rise = float(np.nanmax(force))
    axes.set(
        xlabel=named, ylabel=label, xlim=(0.0, float(along[-1])), ylim=(max(float(force.min()), -0.6 * rise), None)
    )
    data: dict[str, Any] = event["data"]
    name = f"{data['path']}#{data['curve']}"
    short = name if len(name) <= 52 else f"…{name[-51:]}"
    score = "" if data["score"] is None else f", score {data['score']:.2g}"
    axes.set_title(f"Last kept: {short}{score}", loc="left", fontsize=11)


def _curve(copy: bytes | None) -> Curve | None:
    try:
        found = unpack(copy or b"")[0]
    except (Unfinished, Unreadable):
        return None
    return found if len(found) > 1 and np.isfinite(found.force).all() else None


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
