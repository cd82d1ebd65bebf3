"""The tip: what one retract tells of the tip and of what it hangs on, whether or not it holds an event.

Five numbers that a worn, dirty or broken tip moves: the noise, the tilt and the slow wave of the baseline, how steep
the contact is, and how deep the snap-off. They say little of one curve and much of fifty in a row (daemon.guard.tip).
Nothing here changes what the network sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models.curve import Curve, Prepared, Samples
from models.frontend import median, tilt_of

FAR = 0.5  # share of the retract, at its far end, in which the wave is looked for
PIECES = 16  # whose means stand for that part, so that white noise is averaged out
SNAP = 0.1  # share of the retract after the push in which the snap-off lies
STEEP = (0.1, 0.3, 0.5, 0.7)  # of the push: its slope is from the mean between the first two to that between the last
LEAD = 0.1  # of what the front-end shows, at most, is the push: its tilt is over what it shows
LEAST_PUSH = 10  # samples; of a shorter one no slope is told

_STEPS = np.arange(PIECES)


@dataclass(frozen=True, slots=True)
class TipState:
    """Of one retract, in its force unit."""

    noise: float  # rms of the averaged baseline
    tilt: float  # of the baseline per whole retract
    wave: float  # how far the baseline swings slowly about its straight line, as an rms
    slope: float | None  # of the contact, per metre of distance; None without a push, or where no distance is stored
    adhesion: float | None  # how deep the snap-off at the surface; None without a push
    samples: int  # of the retract, as it is stored


def tip_state(curve: Curve, prepared: Prepared) -> TipState | None:
    """What ``curve`` tells, given what the front-end found in it; None where that found no baseline."""
    noise, level = prepared.noise, prepared.level
    if noise is None or level is None:
        return None
    n, force = len(curve), curve.force
    tilt = tilt_of(force, 0.0)
    size = max(int(FAR * n) // PIECES, 1)
    pieces = np.add.reduce(force[n - PIECES * size :].reshape(PIECES, size), axis=1) / size
    wave = _swing(pieces - level - _STEPS * (tilt * size / n))
    contact = prepared.contact
    if contact is None:
        return TipState(noise, tilt, wave, None, None, n)
    end = min(int(contact * n), n - 1)
    base = level - (prepared.tilt or 0.0) * (1.0 - min(contact, LEAD))
    snap = float(force[end : end + max(int(SNAP * n), LEAST_PUSH)].max()) - base
    return TipState(noise, tilt, wave, _steepness(curve, end), max(snap, 0.0), n)


def _swing(rest: Samples) -> float:
    """The rms of what is left about the line, told by the middle one of its distances, so that no step is a swing."""
    return 1.4826 * median(np.abs(rest - median(rest)))


def _steepness(curve: Curve, end: int) -> float | None:
    """How much the force rises a metre in the middle of the push, as the tip is drawn back."""
    distance = curve.distance
    if distance is None or end < LEAST_PUSH:
        return None
    a, b, c, d = (int(share * end) for share in STEEP)
    run: float = _mean(distance[c:d]) - _mean(distance[a:b])
    rise: float = _mean(curve.force[c:d]) - _mean(curve.force[a:b])
    return rise / run if 0.0 < run < math.inf and rise > 0.0 else None


def _mean(some: Samples) -> float:
    return float(np.add.reduce(some) / some.shape[0])
