"""The step detector: what a laboratory can do without learning, as the baseline that a network has to beat.

A moving two-sample t-test for a step down, after Opfer & Gottschalk 2012 (PLoS ONE 7:e45896, "Identifying discrete
states of a biological system using a novel step detection algorithm"), with noise scaled as elsewhere in this program
and the surface passed over, as FEATHER does (Heenan & Perkins 2018, Biophys. J. 115:757). An own implementation of
those ideas, not of their code.

Window and start were chosen on simulated curves (AUC 0.91 on 1,500 of them; 0.80 when the snap-off at the surface is
looked at too), never on real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.curve import Curve, Samples
from models.frontend import find_contact, noise_of, resample
from models.raster import RasterProfile

WINDOW = 8  # samples on each side of a step, of the 512 to which a retract is averaged
SURFACE = 0.05  # share of the retract after the push in which the snap-off is passed over
#: A fall is marked on a curve from this t of two lines on, and from this many times the noise: then nine in ten
#: simulated curves with an event have a mark, and one in ten of those without (tests/test_models_steps.py).
MARKED, MARKED_NOISE = 6.0, 8.0
LINE = 6  # samples of each of the two lines
_PROFILE = RasterProfile()
CONTACT_SIGMA = 5.0  # a prepared signal that begins further from the baseline begins in contact

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fall:
    """A step down of a retract as it was recorded."""

    sample: int  # where, give or take half the width
    width: int  # samples
    t: float


@dataclass(frozen=True, slots=True)
class Step:
    """The strongest step of a prepared signal, up or down."""

    share: float  # where, as a share of the retract, 0 to 1
    width: float  # of the windows that it was seen between, as such a share
    rise: float  # by how much the signal rises, in its own units; negative: it falls
    t: float


def detect(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """B finite curves -> (B,) t of the steepest step down beyond the surface; 0 where there is none."""
    return np.array([_steepest(curve.force) for curve in curves], np.float64)


def _steepest(force: Samples) -> float:
    signal, noise, first = _beyond_surface(force)
    steps = step_down(signal, noise)[first:]
    return max(float(steps.max()), 0.0) if steps.size else 0.0


def falls(force: Samples) -> list[Fall]:
    """Every fall of a finite retract beyond the surface that is worth a mark, in order.

    A molecule is stretched before it breaks, and a mean over the rise says nothing of its end. So a line is laid
    through the samples on each side, and the fall is from the end of one to the beginning of the other.
    """
    signal, noise, first = _beyond_surface(force)
    t, jump = line_down(signal, noise)
    factor = force.shape[0] / signal.shape[0]
    found: list[Fall] = []
    for at in np.flatnonzero((t >= MARKED) & (jump >= MARKED_NOISE * noise)):
        if at >= first and t[at] == t[max(at - LINE, 0) : at + LINE + 1].max():
            found.append(Fall(int((at + LINE + 0.5) * factor), max(round(LINE * factor), 1), float(t[at])))
    return found


def second_opinion(signals: Sequence[Floats]) -> Floats:
    """B prepared signals -> (B,) t of the strongest step beyond the surface, up or down; 0 where there is none.

    Turned upside down a signal has the same t, and so has one in other company.
    """
    found = np.zeros(len(signals), np.float32)
    sizes = np.array([signal.shape[0] for signal in signals], np.int64)
    for size in np.unique(sizes):
        places = np.flatnonzero(sizes == size)
        found[places] = _strongest(np.stack([signals[int(place)] for place in places]))
    return found


def strongest_step(signal: Floats) -> Step | None:
    """What the second opinion saw in one prepared signal; None where there is nothing."""
    count = signal.shape[0]
    if count < 2 * WINDOW:
        return None
    t, rise = _steps(signal[None])
    at = int(t[0].argmax())
    if t[0, at] <= 0:
        return None
    return Step((at + WINDOW) / count, WINDOW / count, float(rise[0, at]), float(t[0, at]))


def _strongest(signals: Floats) -> Floats:
    if signals.shape[1] < 2 * WINDOW:
        return np.zeros(signals.shape[0], np.float32)
    strongest: Floats = _steps(signals)[0].max(axis=1)
    return strongest


def _steps(signals: Floats) -> tuple[Floats, Floats]:
    """(B, n) -> (B, n - 2 WINDOW + 1) each: t from the window at each sample to the next one, and the rise."""
    count = signals.shape[1]
    first = _surface(signals) + int(SURFACE * count)
    window = np.float32(WINDOW)
    mean, square = _sums(signals) / window, _sums(signals * signals) / window
    variance = np.maximum(square - mean * mean, 0) * (window / (window - 1))
    left, right = slice(None, -WINDOW), slice(WINDOW, None)
    spread = np.sqrt((variance[:, left] + variance[:, right]) / window + 1 / (2 * window))
    rise = mean[:, right] - mean[:, left]
    t = np.abs(rise) / spread
    t[np.arange(t.shape[1]) < first[:, None]] = 0
    return t, rise


def _surface(signals: Floats) -> NDArray[np.intp]:
    """(B, n) -> (B,): the first sample that is back at the baseline, whichever way the signal leaves it."""
    head = np.median(signals[:, : max(signals.shape[1] // 50, 4)], axis=1)
    is_back = np.where(head < 0, -1, 1).astype(np.float32)[:, None] * signals < CONTACT_SIGMA
    first: NDArray[np.intp] = is_back.argmax(axis=1)
    return first


def _sums(values: Floats) -> Floats:
    """(B, n) -> (B, n - WINDOW + 1): the sum of each window, by pairs, pairs of pairs, and so on."""
    width = 1
    while width < WINDOW:
        values, width = values[:, :-width] + values[:, width:], 2 * width
    return values


def _beyond_surface(force: Samples) -> tuple[Samples, float, int]:
    """The averaged signal, its noise, and the first sample of it beyond the surface."""
    signal = resample(force - float(np.median(force[-max(len(force) // 10, 1) :])), _PROFILE)
    noise = max(noise_of(signal), 1e-5 * float(np.ptp(signal)))
    return signal, noise, int(((find_contact(signal, noise) or 0.0) + SURFACE) * signal.shape[0])


def line_down(signal: Samples, noise: float, size: int = LINE) -> tuple[Samples, Samples]:
    """(n,) -> t and height, (n - 2 size,) each, of the fall across the one sample between two lines of ``size``.

    Held up by the noise as in :func:`step_down`.
    """
    x = np.arange(size) - (size - 1) / 2
    squares, reach = float(x @ x), (size + 1) / 2  # from the middle of a line to the sample between
    windows = np.lib.stride_tricks.sliding_window_view(signal, size)
    mean = windows.mean(1)
    slope = windows @ x / squares
    rest = np.maximum((windows * windows).mean(1) * size - mean * mean * size - slope * slope * squares, 0) / (size - 2)
    left, right = slice(None, -size - 1), slice(size + 1, None)
    jump: Samples = (mean[left] + reach * slope[left]) - (mean[right] - reach * slope[right])
    spread = np.sqrt((rest[left] + rest[right] + noise * noise) * (1 / size + reach * reach / squares))
    t: Samples = jump / np.maximum(spread, 1e-150)
    return t, jump


def step_down(signal: Samples, noise: float, window: int = WINDOW) -> Samples:
    """(n,) -> (n - 2 window + 1,): t of the fall from the window at each sample to the next one.

    The spread is that of both windows, held up by half the noise so that a chance lull makes no step.
    """
    mean, square = _moving_mean(signal, window), _moving_mean(signal * signal, window)
    variance = np.maximum(square - mean * mean, 0.0) * window / (window - 1)
    spread = np.sqrt((variance[:-window] + variance[window:]) / window + noise * noise / (2 * window))
    fall: Samples = (mean[:-window] - mean[window:]) / np.maximum(spread, 1e-150)  # a line without any noise at all
    return fall


def _moving_mean(values: Samples, window: int) -> Samples:
    total = np.concatenate(([0.0], np.cumsum(values)))
    return (total[window:] - total[:-window]) / window
