"""The axes of an explanation: a retract in units that a biophysicist reads, thinned to what a screen can show."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from daemon.explanation import Explanation
from models.curve import Curve, Samples
from models.frontend import LARGEST, Prepared, newton_per_unit

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
    sight = explanation.sight
    heat = np.full(len(curve), np.nan) if sight is None else sight.place.spread(sight.along)
    baseline = None if sight is None else factor * _baseline(prepared, sight.place.first, len(curve))
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
