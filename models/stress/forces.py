"""Forces that a nuisance adds to a curve, all along it or in one place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.curve import Curve, Samples
from models.simulate import nuisance
from models.simulate.draw import Rng, log_uniform, sign
from models.stress.subject import Subject

SHORTEST_NM, LONGEST_NM = 100.0, 700.0  # periods of interference (models.simulate.nuisance)


def add(subject: Subject, force_pn: Samples) -> Curve:
    """The curve with (n,) piconewton more."""
    return replace(subject.curve, force=subject.curve.force + force_pn / subject.pn)


def wave(rng: Rng, subject: Subject, amplitude_pn: float, period_nm: float) -> Samples:
    """(n,) a wave that grows or fades along the ramp, ``amplitude_pn`` at its largest."""
    travel = subject.travel_nm
    envelope = 1.0 + rng.uniform(-0.7, 0.7) * travel / subject.ramp_nm
    angle = 2.0 * np.pi * travel / period_nm + rng.uniform(0.0, 2.0 * np.pi)
    grown: Samples = amplitude_pn * envelope / envelope.max() * np.sin(angle)
    return grown


def interfere(rng: Rng, subject: Subject, strength: float) -> Curve:
    """A wave with any of the usual periods; amplitude in pN."""
    return add(subject, wave(rng, subject, strength, log_uniform(rng, SHORTEST_NM, LONGEST_NM)))


def interfere_shortly(rng: Rng, subject: Subject, strength: float) -> Curve:
    """The worst of them: the shortest period; amplitude in pN."""
    return add(subject, wave(rng, subject, strength, SHORTEST_NM))


def interfere_in_sigma(rng: Rng, subject: Subject, strength: float) -> Curve:
    """Amplitude in the curve's own noise."""
    return interfere(rng, subject, strength * subject.noise_pn)


def tilt(rng: Rng, subject: Subject, strength: float) -> Curve:
    """A straight line, up or down; pN per 100 nm."""
    return add(subject, sign(rng) * strength / 100.0 * subject.travel_nm)


def drift(rng: Rng, subject: Subject, strength: float) -> Curve:
    """A lever that relaxes, as after a change of temperature: an exponential that falls by ``strength`` pN."""
    t = subject.travel_nm / subject.ramp_nm
    decay = np.exp(-t / log_uniform(rng, 0.15, 1.5))
    return add(subject, sign(rng) * strength * (decay - decay[-1]) / (decay[0] - decay[-1]))


def roughen(rng: Rng, subject: Subject, strength: float) -> Curve:
    """Coloured noise of ``strength`` sigma."""
    return add(subject, strength * subject.noise_pn * nuisance.noise(rng, len(subject.curve)))


def spike(rng: Rng, subject: Subject, strength: float) -> Curve:
    """``strength`` electronic spikes of one to three samples and 5 to 60 sigma, up or down."""
    force, n = np.zeros(len(subject.curve)), len(subject.curve)
    for at in rng.integers(0, n, int(strength)):
        force[at : at + int(rng.integers(1, 4))] = sign(rng) * subject.noise_pn * log_uniform(rng, 5.0, 60.0)
    return add(subject, force)


def adhere(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """One more snap-off of ``strength`` pN: within 15 nm of the contact and half of the way to the first rupture."""
    travel, start = subject.travel_nm, subject.contact * subject.ramp_nm
    room = min(15.0, 0.05 * subject.ramp_nm)
    if subject.event:
        if not subject.ruptures:
            return None
        room = min(room, 0.5 * (float(travel[subject.ruptures[0].index - 1]) - start))
    if room < 2.0:
        return None
    along = (travel - start) / room
    return add(subject, strength * np.where((along > 0.0) & (along < 1.0), along, 0.0))


def snap_in(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """The tip jumps onto the surface at the end of the approach, ``strength`` pN deep."""
    approach = subject.curve.approach_force
    if approach is None:
        return None
    gap = np.linspace(subject.ramp_nm, 0.0, approach.shape[0])
    pull = strength * np.exp(-gap / log_uniform(rng, 1.0, 20.0))
    return replace(subject.curve, approach_force=approach + pull / subject.pn)
