"""The raster: from signals to the picture that the network sees (inference.md sections 4.2 and 4.5).

Each column holds the smallest and the largest value of its samples and of the last sample before it, which joins
the polyline; each pixel then gets the length of that interval inside it. So the picture is connected and
antialiased, a spike of one sample survives, and because only gathers, minima, maxima and single elementwise
steps are used it has the same bits alone, in a batch, in training and in service.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.profile import RasterProfile

Floats = NDArray[np.float32]


def envelope(signals: Sequence[Floats], profile: RasterProfile) -> Floats:
    """B signals of at least W samples each -> (B, 2, W), lower and upper edge of each column, in signal units."""
    width = profile.columns
    if not signals:
        return np.zeros((0, 2, width), np.float32)
    sizes = np.array([signal.shape[0] for signal in signals], np.int64)
    if int(sizes.min()) < width:
        raise ValueError(f"a signal of {int(sizes.min())} samples has fewer than the {width} columns")
    samples = np.concatenate(signals).astype(np.float32, copy=False)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    column = np.arange(width, dtype=np.int64)
    first = (starts[:, None] + (column[None] * sizes[:, None] + width - 1) // width).reshape(-1)
    before = samples[np.maximum(first - 1, np.repeat(starts, width))]
    lower = np.minimum(np.minimum.reduceat(samples, first), before)
    upper = np.maximum(np.maximum.reduceat(samples, first), before)
    return np.stack((lower.reshape(-1, width), upper.reshape(-1, width)), axis=1)


def to_rows(edges: Floats, profile: RasterProfile) -> Floats:
    """Signal units -> rows, 0 at the bottom edge, H at the top: asinh, then clipped to the picture."""
    soft = np.float32(profile.softness)
    bottom = np.arcsinh(np.float32(profile.lowest) / soft)
    top = np.arcsinh(np.float32(profile.highest) / soft)
    rows = (np.arcsinh(edges / soft) - bottom) * (np.float32(profile.rows) / (top - bottom))
    clipped: Floats = np.clip(rows, np.float32(0), np.float32(profile.rows)).astype(np.float32, copy=False)
    return clipped


def coverage(edges: Floats, profile: RasterProfile) -> Floats:
    """(B, 2, W) in signal units -> (B, 1, H, W) in [0, 1]; row 0 is the strongest push."""
    rows = to_rows(np.ascontiguousarray(edges, np.float32), profile)
    half = np.float32(profile.thickness / 2)
    lower, upper = rows[:, 0] - half, rows[:, 1] + half  # (B, W)
    edge = np.arange(profile.rows, dtype=np.float32)[:, None]  # (H, 1)
    images = np.empty((len(rows), 1, profile.rows, profile.columns), np.float32)
    above = np.empty_like(images[0, 0]) if len(rows) else None
    for place in range(len(rows)):  # one by one: 128 KB at a time stays in the caches, whatever the batch
        picture = images[place, 0]
        np.minimum(upper[place], edge + 1, out=picture)
        picture -= np.maximum(lower[place], edge, out=above)
        np.clip(picture, np.float32(0), np.float32(1), out=picture)
    return images


def preview(edges: Floats, profile: RasterProfile) -> str:
    """(2, W) in signal units -> base64 of uint8 (2, W): what an event carries, 255 at the top edge."""
    return previews(edges[None], profile)[0]


def previews(edges: Floats, profile: RasterProfile) -> list[str]:
    """(B, 2, W) -> the same for each of a batch."""
    scaled = to_rows(np.ascontiguousarray(edges, np.float32), profile) * np.float32(255 / profile.rows)
    return [base64.b64encode(one.tobytes()).decode("ascii") for one in np.rint(scaled).astype(np.uint8)]
