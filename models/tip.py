"""The tip: what one retract tells of the tip and of what it hangs on, whether or not it holds an event.

Five numbers that a worn, dirty or broken tip moves: the noise, the tilt and the slow wave of the baseline, how steep
the contact is, and how deep the snap-off. They say little of one curve and much of fifty in a row (daemon.guard.tip).
Nothing here changes what the network sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.curve import Curve, Prepared, Samples
from models.frontend import median

FAR = 0.5  # share of the retract, at its far end, in which tilt and wave are looked for
PIECES = 16  # whose means stand for that part: white noise is averaged out, a step in one or two changes no median
SNAP = 0.1  # share of the retract after the push in which the snap-off lies
STEEP = (0.1, 0.3, 0.5, 0.7)  # of the push: its slope is from the mean between the first two to that between the last
LEAST_PUSH = 10  # samples; of a shorter one no slope is told


@dataclass(frozen=True, slots=True)
class TipState:
    """Of one retract, in its force unit."""

    noise: float  # rms of the averaged baseline
    tilt: float  # of the baseline per whole retract
    wave: float  # how far the baseline swings slowly about its straight line, as an rms
    slope: float | None  # of the contact, per metre of distance; None without a push, or where no distance is stored
    adhesion: float | None  # how deep the snap-off at the surface; None without a push


def tip_state(curve: Curve, prepared: Prepared) -> TipState | None:
    """What ``curve`` tells, given what the front-end found in it; None where that found no baseline."""
    noise, level = prepared.noise, prepared.level
    if noise is None or level is None:
        return None
    n = len(curve)
    size = max(int(FAR * n) // PIECES, 1)
    count = min(n // size, PIECES)
    pieces = np.add.reduce((curve.force[n - count * size :] - level).reshape(count, size), axis=1) / size
    tilt, wave = _line(pieces, n / size)
    contact = prepared.contact
    if contact is None:
        return TipState(noise, tilt, wave, None, None)
    end = int(contact * n)
    base = level - tilt * (1.0 - contact)
    snap = curve.force[end : end + max(int(SNAP * n), 8)]
    adhesion = max(float(snap.max()) - base, 0.0) if snap.shape[0] else 0.0
    return TipState(noise, tilt, wave, _steepness(curve, end), adhesion)


def _line(pieces: Samples, pieces_of_whole: float) -> tuple[float, float]:
    """The tilt per whole retract, and the rms of what is left about the line; a step moves neither much."""
    half = pieces.shape[0] // 2
    across = float(pieces.shape[0] - half)
    rise = median(pieces[-half:] - pieces[:half]) / across  # a piece
    rest = pieces - rise * np.arange(pieces.shape[0])
    return rise * pieces_of_whole, 1.4826 * median(np.abs(rest - median(rest)))


def _steepness(curve: Curve, end: int) -> float | None:
    """How much the force rises a metre in the middle of the push, as the tip is drawn back."""
    distance = curve.distance
    if distance is None or end < LEAST_PUSH:
        return None
    a, b, c, d = (int(share * end) for share in STEEP)
    run = float(distance[c:d].mean() - distance[a:b].mean())
    rise = float(curve.force[c:d].mean() - curve.force[a:b].mean())
    return rise / run if run > 0.0 and rise > 0.0 and np.isfinite(run) else None
