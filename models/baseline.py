"""The baseline: what the far end of a retract says about level and noise, and where the push at its start ends.

Noise is taken inside short windows, each with its own straight line removed, so that a late step, a tether or a slow
optical wave does not inflate it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from models.curve import Samples
from models.profile import RasterProfile
from models.quantile import median, quantile

FAR_END = 0.4  # share of the retract in which the noise is looked for
LEVEL_END = 0.1  # share of the retract whose median is the baseline level
BLOCKS = 48  # in which the push is looked for
WINDOW = 16  # samples of a noise window
STRETCHES = 16  # in which the tilt is looked for, in the far half of them
TILT_SIGMA = 12.0  # per whole signal; about three standard errors
HEAD = 0.02  # share of the retract that is the turnaround
CONTACT_SIGMA = 5.0  # pushing harder than this is contact

_ACROSS = np.arange(WINDOW) - (WINDOW - 1) / 2  # a window's samples, counted from its middle
_SQUARES = _ACROSS @ _ACROSS
_BEFORE = np.arange(1, BLOCKS - 1)  # blocks before each


def resample(force: Samples, profile: RasterProfile) -> Samples:
    """(n,) -> (m,): box averages down to ``profile.samples``, straight lines up to two samples a column.

    White noise has an envelope that grows with the number of points in a column; averaging to a bounded number
    first makes the picture of a curve the same whether it was stored with 2,000 points or 20,000.
    """
    n, most, least = force.shape[0], profile.samples, 2 * profile.columns
    if n < least:
        return np.interp(np.linspace(0.0, n - 1.0, least), np.arange(n), force)
    if n <= most:
        return force
    total = np.empty(n + 1)
    total[0] = 0.0
    np.cumsum(force, out=total[1:])
    below, above, beyond, is_between = _cuts(n, most)
    summed = total[below]
    if above is not None:  # numpy.interp, without looking for the neighbours anew
        np.add(summed, (total[above] - summed) * beyond, out=summed, where=is_between)
    averaged: Samples = (summed[1:] - summed[:-1]) * (most / n)
    return averaged


@lru_cache(maxsize=64)
def _cuts(n: int, most: int) -> tuple[NDArray[np.intp], NDArray[np.intp] | None, Samples, NDArray[np.bool_]]:
    """Where ``n`` samples are cut into ``most``: the sample at or below each cut, the next one, and how far beyond.

    None for the next where every cut falls on a sample.
    """
    cuts = np.linspace(0.0, float(n), most + 1)
    below = cuts.astype(np.intp)
    beyond = cuts - below
    is_between = beyond > 0.0
    return below, np.minimum(below + 1, n) if is_between.any() else None, beyond, is_between


def noise_of(signal: Samples) -> float:
    """Baseline noise: rms about a straight line in the windows of the far end, the middle one of them."""
    return median(_window_noise(signal[-max(int(FAR_END * signal.shape[0]), 2 * WINDOW) :]))


def quiet_of(signal: Samples) -> float:
    """Noise of the quieter third of the part before the far end; 0 where nothing moves there."""
    return quantile(_window_noise(signal[: -max(int(FAR_END * signal.shape[0]), 2 * WINDOW)]), 1 / 3)


def _window_noise(signal: Samples) -> Samples:
    """(n,) -> (n // WINDOW,) rms about a straight line in each window, counted from the end."""
    count = signal.shape[0] // WINDOW
    windows = signal[signal.shape[0] - count * WINDOW :].reshape(count, WINDOW)
    centred = windows - np.add.reduce(windows, axis=1, keepdims=True) / WINDOW
    slopes = centred @ _ACROSS / _SQUARES
    rest = centred - slopes[:, None] * _ACROSS
    rms: Samples = np.sqrt(np.add.reduce(rest * rest, axis=1) / (WINDOW - 2))
    return rms


def tilt_of(signal: Samples, noise: float) -> float:
    """Tilt of the baseline per whole signal: the middle one of the slopes of short stretches in the far half.

    Steps, plateaus and short rises leave the middle slope alone. 0 where it is no more than chance or drift.
    """
    length = signal.shape[0] // STRETCHES
    far = signal[-length * (STRETCHES // 2) :].reshape(-1, length)
    x = np.arange(length) - (length - 1) / 2
    tilt = median(far @ x) / float(x @ x) * signal.shape[0]
    return tilt if abs(tilt) > TILT_SIGMA * noise else 0.0


def level_of(signal: Samples) -> float:
    """The baseline: the median of the far end."""
    return median(signal[-max(int(LEVEL_END * signal.shape[0]), WINDOW) :])


def find_contact(signal: Samples, noise: float) -> float | None:
    """Where the push ends, as a share of the signal; None when it does not begin with one.

    The push ends where the force comes back to the baseline, or before, where it stops rising steeply: in a block that
    rises by less than a fifth of the mean rise so far. A tilted baseline lies long below its end and would otherwise
    be taken for contact. In doubt this ends too early, and more is shown.
    """
    n = signal.shape[0]
    level = level_of(signal) - CONTACT_SIGMA * noise
    if median(signal[: max(int(HEAD * n), 4)]) >= level:
        return None
    is_back = signal > level
    back = int(is_back.argmax())
    size = n // BLOCKS
    blocks = np.add.reduce(signal[: size * BLOCKS].reshape(BLOCKS, size), axis=1) / size
    rises = blocks[1:] - blocks[:-1]
    mean = (blocks[1:-1] - blocks[0]) / _BEFORE
    is_slow = rises[1:] < 0.2 * mean
    slow = int(is_slow.argmax())
    steep = float(slow + 1) / BLOCKS if is_slow[slow] and rises[0] > 0 else 0.0
    return min(steep, back / n if is_back[back] else 1.0)
