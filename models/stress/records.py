"""Faults of the record: it ends early, its end holds what was never measured, or it begins deep in contact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from models.curve import Curve, Samples
from models.frontend import MIN_POINTS
from models.simulate.draw import Rng, sign
from models.simulate.visible import END_DOTS, RESOLUTION
from models.stress import forces
from models.stress.subject import Subject

CLEAR = (END_DOTS + 0.5) / RESOLUTION  # of the record: nearer to its end a step shows no level after it


def cut(curve: Curve, stop: int) -> Curve:
    """The first ``stop`` samples."""
    distance = None if curve.distance is None else curve.distance[:stop]
    return replace(curve, force=curve.force[:stop], distance=distance)


def cut_share(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """The last ``strength`` % of the retract were never recorded, though every rupture was."""
    n = len(subject.curve)
    stop, last = round(n * (1.0 - strength / 100.0)), subject.last
    return None if last is None or stop < max(last + CLEAR * n, MIN_POINTS) else cut(subject.curve, stop)


def cut_close(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """The record ends ``strength`` % of the ramp after the last rupture, or after the contact where none is."""
    n, last = len(subject.curve), subject.last
    stop = None if last is None else round(last + strength / 100.0 * n)
    return None if stop is None or not MIN_POINTS <= stop <= n else cut(subject.curve, stop)


def cut_before_last(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """The record ends ``strength`` % of the ramp before the last of several ruptures: the others are in it."""
    found, n = subject.ruptures or (), len(subject.curve)
    if len(found) < 2:
        return None
    stop = round(found[-1].index - strength / 100.0 * n)
    return None if stop < max(found[-2].index + CLEAR * n, MIN_POINTS) else cut(subject.curve, stop)


def cut_before_only(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """The record ends ``strength`` % of the ramp before the only rupture: a molecule is pulled, nothing breaks."""
    found, n = subject.ruptures or (), len(subject.curve)
    if len(found) != 1:
        return None
    stop = round(found[0].index - strength / 100.0 * n)
    return None if stop < max((subject.contact + CLEAR) * n, MIN_POINTS) else cut(subject.curve, stop)


def _end_in(subject: Subject, strength: float, tail: Callable[[int], Samples]) -> Curve | None:
    """The last ``strength`` % replaced, where nothing had broken after."""
    n, last = len(subject.curve), subject.last
    stop = round(n * (1.0 - strength / 100.0))
    if last is None or stop < last + CLEAR * n:
        return None
    return replace(subject.curve, force=np.concatenate((subject.curve.force[:stop], tail(n - stop))))


def hold_tail(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """One value over and over."""
    value = subject.curve.force[round(len(subject.curve) * (1.0 - strength / 100.0)) - 1]
    return _end_in(subject, strength, lambda count: np.full(count, value))


def zero_tail(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """Zeros: space that was reserved and never written."""
    return _end_in(subject, strength, np.zeros)


def garbage_tail(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """Random numbers within 1 nN."""
    return _end_in(subject, strength, lambda count: rng.uniform(-1000.0, 1000.0, count) / subject.pn)


def push_longer(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """A push before the curve, so that contact ends at ``strength`` % of the ramp."""
    curve, n = subject.curve, len(subject.curve)
    more = round((strength / 100.0 - subject.contact) * n / (1.0 - strength / 100.0))
    if more < 1 or subject.contact == 0.0:
        return None
    depth_nm = subject.ramp_nm / (n - 1) * np.arange(more, 0, -1)
    stiffness = 1e3 * (curve.spring_constant_n_per_m or 0.02)  # pN/nm
    push = float(curve.force[0]) + (rng.normal(0.0, subject.noise_pn, more) - stiffness * depth_nm) / subject.pn
    distance = curve.distance
    if distance is not None:
        distance = np.concatenate((distance[0] - 1e-9 * depth_nm, distance))
    return replace(curve, force=np.concatenate((push, curve.force)), distance=distance)


def lay_everything(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """Wave, tilt, drift and spikes at ``strength`` % of 60 pN, 60 pN/100 nm, 100 pN and 20; then the end is cut."""
    share = strength / 100.0
    period_nm = float(rng.uniform(forces.SHORTEST_NM, forces.LONGEST_NM))
    worse = replace(subject, curve=forces.add(subject, forces.wave(rng, subject, 60.0 * share, period_nm)))
    worse = replace(worse, curve=forces.add(worse, sign(rng) * 0.6 * share * subject.travel_nm))
    worse = replace(worse, curve=forces.drift(rng, worse, 100.0 * share))
    worse = replace(worse, curve=forces.spike(rng, worse, 20.0 * share))
    return cut_close(rng, worse, 100.0 - 90.0 * share) or worse.curve
