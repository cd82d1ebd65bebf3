"""The sketch: a curve in a few characters, from the column envelope that its event carries.

Braille characters have 2 x 4 dots, so a drawing of 24 x 3 characters shows 48 columns of 12 dots: enough to see a
sawtooth. Each dot column spans its lower to its upper edge, so a spike of one sample stays visible.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: Bit of each dot of a braille character, by row and column (Unicode block U+2800).
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
#: A curve that rises less above its baseline (of 255) is drawn flat instead of as magnified noise.
_LEAST_RISE = 56
_BARS = " ▁▂▃▄▅▆▇█"


@lru_cache(maxsize=512)
def sketch(preview: str | None, width: int, height: int) -> tuple[str, ...]:
    """``height`` rows of ``width`` characters, the surface at the left, pulling up; blank when there is no curve.

    ``preview``: base64 of uint8 (2, W), lower and upper edge of each column, 255 at the top.
    """
    edges = _edges(preview)
    if edges is None or width < 1 or height < 1:
        return (" " * width,) * height
    lower, upper = _resample(edges, 2 * width)
    floor, ceiling = _range(lower, upper)
    dots = 4 * height
    scale = (dots - 1) / (ceiling - floor)
    bottom = np.rint((lower - floor) * scale).astype(int)
    top = np.rint((upper - floor) * scale).astype(int)
    row = np.arange(dots)[::-1, None]  # (dots, 1), the highest first
    inked = (row >= bottom) & (row <= top)  # (dots, 2 * width)
    cells = inked.reshape(height, 4, width, 2).transpose(0, 2, 1, 3)  # (height, width, 4, 2)
    codes = 0x2800 + (cells * _DOTS).sum(axis=(2, 3))
    return tuple("".join(map(chr, line)) for line in codes)


def bars(values: list[float], width: int) -> str:
    """The last ``width`` values as a row of bars, the tallest of them full; nothing is drawn for zero."""
    shown = values[-width:]
    tallest = max(shown, default=0.0)
    if tallest <= 0:
        return " " * width
    steps = [0 if value <= 0 else max(1, round(value / tallest * 8)) for value in shown]
    return "".join(_BARS[step] for step in steps).rjust(width)


def _range(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> tuple[float, float]:
    """What the drawing shows: all of the pull, and of the push at the surface only as much as leaves it room."""
    far = slice(2 * lower.size // 3, None)
    baseline = float(np.median((lower[far] + upper[far]) / 2))
    ceiling = max(float(upper.max()), baseline + _LEAST_RISE)
    return max(float(lower.min()), baseline - 0.5 * (ceiling - baseline)), ceiling


def _edges(preview: str | None) -> NDArray[np.float64] | None:
    try:
        raw = base64.b64decode(preview or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) < 4 or len(raw) % 2:
        return None
    return np.frombuffer(raw, np.uint8).reshape(2, -1).astype(float)


def _resample(edges: NDArray[np.float64], columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2, W) -> lower and upper edge of ``columns`` columns; joined columns keep the outermost of their edges."""
    width = edges.shape[1]
    if width < columns:
        place = np.arange(columns) * width // columns
        return edges[0, place], edges[1, place]
    starts = np.arange(columns) * width // columns
    return np.minimum.reduceat(edges[0], starts), np.maximum.reduceat(edges[1], starts)
