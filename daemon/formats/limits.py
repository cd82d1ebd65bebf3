"""What a file may cost. Every figure has a reason in what instruments really write."""

from __future__ import annotations

import math

KIB, MIB = 1024, 1024 * 1024

SNAPSHOT_BYTES = 64 * MIB  # up to here a file is read in one go; above, in pieces of this size
WHOLE_BYTES = 256 * MIB  # formats that must be held in memory whole (ibw, text, HDF5, packed)
HEADER_BYTES = 2 * MIB  # one header member of a zip (largest seen: 0.13 MiB)
MEMBER_BYTES = 64 * MIB  # one data member of a zip (largest seen: 0.36 MiB)
MEMBERS = 1_100_000  # a 256 x 256 quantitative image has about 0.9 million
POINTS = 4_000_000  # of one curve; real ones have 10^2 to 10^5
CURVES = 4_000_000  # of one file
TEXT_CURVES = 10_000  # column pairs of one text file
HEAD_BYTES = 64 * KIB  # what a reader may look at before it says whether a file is its own
ZERO_SAMPLES = 64  # this many samples in a row exactly zero: they were never written
PORTION_CURVES = 32  # of a map, per request


def plausible_spring_constant(value: float | None) -> float | None:
    """``value`` in N/m when it can be a cantilever's, else None (NaN, infinite, negative, another unit)."""
    return value if value is not None and math.isfinite(value) and 1e-4 < value < 100.0 else None


def plausible_sensitivity(value: float | None) -> float | None:
    """``value`` in m/V when a detector can have it, else None; its sign is the instrument's business."""
    return value if value is not None and math.isfinite(value) and 1e-11 < abs(value) < 1e-3 else None
