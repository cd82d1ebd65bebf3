"""The baseline: what the far end of a retract says about level and noise, and where the push at its start ends.

Noise is taken inside short windows, each with its own straight line removed, so that a late step, a tether or a slow
optical wave does not inflate it.
"""

from __future__ import annotations

import numpy as np

from models.curve import Samples
from models.profile import RasterProfile

FAR_END = 0.4  # share of the retract in which the noise is looked for
LEVEL_END = 0.1  # share of the retract whose median is the baseline level
BLOCKS = 48  # in which the push is looked for
WINDOW = 16  # samples of a noise window
STRETCHES = 16  # in which the tilt is looked for, in the far half of them
TILT_SIGMA = 12.0  # per whole signal; about three standard errors
HEAD = 0.02  # share of the retract that is the turnaround
CONTACT_SIGMA = 5.0  # pushing harder than this is contact


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
    total = np.concatenate(([0.0], np.cumsum(force)))
    edges = np.linspace(0.0, float(n), most + 1)
    averaged: Samples = np.diff(np.interp(edges, np.arange(n + 1), total)) * (most / n)
    return averaged


def noise_of(signal: Samples) -> float:
    """Baseline noise: rms about a straight line in the windows of the far end, the middle one of them."""
    return float(np.median(_window_noise(signal[-max(int(FAR_END * signal.shape[0]), 2 * WINDOW) :])))


def quiet_of(signal: Samples) -> float:
    """Noise of the quieter third of the part before the far end; 0 where nothing moves there."""
    return float(np.quantile(_window_noise(signal[: -max(int(FAR_END * signal.shape[0]), 2 * WINDOW)]), 1 / 3))


def _window_noise(signal: Samples) -> Samples:
    """(n,) -> (n // WINDOW,) rms about a straight line in each window, counted from the end."""
    count = signal.shape[0] // WINDOW
    windows = signal[signal.shape[0] - count * WINDOW :].reshape(count, WINDOW)
    x = np.arange(WINDOW) - (WINDOW - 1) / 2
    centred = windows - windows.mean(axis=1, keepdims=True)
    slopes = centred @ x / (x @ x)
    rest = centred - slopes[:, None] * x
    rms: Samples = np.sqrt((rest * rest).sum(axis=1) / (WINDOW - 2))
    return rms


def tilt_of(signal: Samples, noise: float) -> float:
    """Tilt of the baseline per whole signal: the middle one of the slopes of short stretches in the far half.

    Steps, plateaus and short rises leave the middle slope alone. 0 where it is no more than chance or drift.
    """
    length = signal.shape[0] // STRETCHES
    far = signal[-length * (STRETCHES // 2) :].reshape(-1, length)
    x = np.arange(length) - (length - 1) / 2
    tilt = float(np.median(far @ x)) / float(x @ x) * signal.shape[0]
    return tilt if abs(tilt) > TILT_SIGMA * noise else 0.0


def level_of(signal: Samples) -> float:
    """The baseline: the median of the far end."""
    return float(np.median(signal[-max(int(LEVEL_END * signal.shape[0]), WINDOW) :]))


def find_contact(signal: Samples, noise: float) -> float | None:
    """Where the push ends, as a share of the signal; None when it does not begin with one.

    The push ends where the force comes back to the baseline, or before, where it stops rising steeply: in a block that
    rises by less than a fifth of the mean rise so far. A tilted baseline lies long below its end and would otherwise
    be taken for contact. In doubt this ends too early, and more is shown.
    """
    n = signal.shape[0]
    level = level_of(signal) - CONTACT_SIGMA * noise
    if float(np.median(signal[: max(int(HEAD * n), 4)])) >= level:
        return None
    back = np.flatnonzero(signal > level)
    size = n // BLOCKS
    blocks = signal[: size * BLOCKS].reshape(BLOCKS, size).mean(axis=1)
    rises = np.diff(blocks)
    mean = (blocks[1:-1] - blocks[0]) / np.arange(1, BLOCKS - 1)
    slow = np.flatnonzero(rises[1:] < 0.2 * mean)
    steep = float(slow[0] + 1) / BLOCKS if slow.size and rises[0] > 0 else 0.0
    return min(steep, float(back[0]) / n if back.size else 1.0)
