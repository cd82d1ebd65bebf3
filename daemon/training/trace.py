"""The trace: a force curve as it was measured, small enough to be drawn in a page of thumbnails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.curve import Curve

COLUMNS = 150


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Lower and upper edge of the force in each column, pulling up."""

    edges: NDArray[np.float32]  # (2, W), in force_unit
    unit: str | None
    travel_nm: float | None  # along the whole curve, where the file says


def trace(curve: Curve, columns: int = COLUMNS) -> Trace | None:
    """At most ``columns`` columns; None for a curve that cannot be drawn."""
    force = curve.force
    if len(curve) < 2 or not np.isfinite(force).all():
        return None
    columns = min(columns, len(curve) // 2) or 1
    starts = np.arange(columns) * len(curve) // columns
    edges = np.stack((np.minimum.reduceat(force, starts), np.maximum.reduceat(force, starts)))
    travel = None if curve.distance is None else float(np.ptp(curve.distance)) * 1e9
    return Trace(edges.astype(np.float32), curve.force_unit, travel if travel and np.isfinite(travel) else None)
