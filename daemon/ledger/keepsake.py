"""The keepsake: a compact copy of a flagged curve, kept in the ledger, because the instrument's file may go away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from daemon.formats.packed import pack
from models.curve import Curve, Samples

#: Enough to look at and to train on: the raster averages to far fewer. 32 KB with its distance axis.
MOST_POINTS = 4096


def keepsake_of(curve: Curve) -> bytes:
    """The bytes of an ``.afmcurve`` file: the retract in single precision, averaged down to ``MOST_POINTS``."""
    force, distance = compact(curve.force), curve.distance
    notes = (*curve.notes, "averaged") if force.shape != curve.force.shape else curve.notes
    small = replace(
        curve,
        force=force,
        distance=None if distance is None else compact(distance),
        approach_force=None,
        notes=notes,
    )
    return pack(small)


def compact(samples: Samples) -> Samples:
    """(n,) -> (m,), m <= MOST_POINTS: means of neighbours; NaN stays where it was."""
    n = samples.shape[0]
    if n <= MOST_POINTS:
        return samples
    edges = np.arange(MOST_POINTS) * n // MOST_POINTS
    means: Samples = np.add.reduceat(samples, edges) / np.diff(edges, append=n)
    return means
