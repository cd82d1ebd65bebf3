"""The place: which samples of a retract the columns of its picture show.

The front-end leaves out most of the push, then averages what is left (or draws it out) to the samples of the signal,
which the raster deals out to columns. This is the way back, so that what is found in a picture can be shown on the
curve it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from models.curve import Curve, Samples
from models.frontend import Prepared, first_shown
from models.profile import RasterProfile


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture lies on its retract."""

    first: int  # first sample of the retract that is shown; all from there on are
    shown: int  # samples shown
    signal: int  # samples of the signal they became
    columns: int

    def sample_of(self, columns: ArrayLike) -> Samples:
        """Columns -> the sample of the retract that their middle shows, a fraction where it lies between two."""
        column = np.asarray(columns, np.float64)
        start = np.ceil(column * self.signal / self.columns)
        stop = np.ceil((column + 1) * self.signal / self.columns)
        middle = (start + stop - 1) / 2  # as models.raster.envelope deals samples out
        if self.signal > self.shown:  # drawn out between the two ends
            return np.asarray(self.first + middle * (self.shown - 1) / (self.signal - 1))
        return np.asarray(self.first + (middle + 0.5) * self.shown / self.signal - 0.5)

    def spread(self, values: ArrayLike) -> Samples:
        """(W,) one value a column -> (n,) one a sample of the retract; NaN where the picture does not show it."""
        samples = np.arange(self.first + self.shown, dtype=np.float64)
        along = np.interp(samples, self.sample_of(np.arange(self.columns)), np.asarray(values, np.float64))
        along[: self.first] = np.nan
        return np.asarray(along)


def place_of(curve: Curve, prepared: Prepared, profile: RasterProfile) -> Place:
    """Where the picture of ``prepared``, made of ``curve``, lies; ValueError for a curve that has none."""
    if prepared.signal is None:
        raise ValueError(f"this curve has no picture: {', '.join(prepared.reasons)}")
    first = first_shown(len(curve), prepared.contact or 0.0, profile)
    return Place(first, len(curve) - first, int(prepared.signal.shape[0]), profile.columns)
