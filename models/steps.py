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
#: t from which a fall is marked on a curve: of 1,000 simulated curves without an event XXX have such a mark.
MARKED = 9.0
_PROFILE = RasterProfile()


@dataclass(frozen=True, slots=True)
class Fall:
    """A step down: where on the retract as it was recorded, over how many of its samples, and how sure."""

    sample: int
    width: int
    t: float


def detect(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """B finite curves -> (B,) t of the steepest step down beyond the surface; 0 where there is none."""
    return np.array([_steepest(curve.force) for curve in curves], np.float64)


def falls(force: Samples, least: float = MARKED) -> list[Fall]:
    """Every step down of a finite retract beyond the surface with t >= ``least``, in order."""
    steps, first, count = _steps_of(force)
    n = force.shape[0]
    found: list[Fall] = []
    for at in np.flatnonzero(steps >= least):
        around = steps[max(at - WINDOW + 1, 0) : at + WINDOW]
        if steps[at] == around.max():  # the steepest of its neighbourhood; of several alike the first
            if found and int((first + at + WINDOW) * n / count) - found[-1].sample < found[-1].width:
                continue
            width = max(round(WINDOW * n / count), 1)
            found.append(Fall(int((first + at + WINDOW) * n / count), width, float(steps[at])))
    return found


def _steepest(force: Samples) -> float:
    steps, _, _ = _steps_of(force)
    return max(float(steps.max()), 0.0) if steps.size else 0.0


def _steps_of(force: Samples) -> tuple[Samples, int, int]:
    """The t of the fall at each averaged sample beyond the surface, the first such sample, and how many there are."""
    signal = resample(force - float(np.median(force[-max(len(force) // 10, 1) :])), _PROFILE)
    noise = max(noise_of(signal), 1e-5 * float(np.ptp(signal)))
    first = int(((find_contact(signal, noise) or 0.0) + SURFACE) * signal.shape[0])
    return step_down(signal, noise)[first:], first, signal.shape[0]


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
