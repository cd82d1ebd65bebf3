"""The background of a curve: where the surface lies, what it does to the tip, and every smooth force and fault.

It is drawn from the same distributions whatever the label, so that nothing but the event tells the labels apart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.curve import Samples
from models.simulate import nuisance, surface
from models.simulate.draw import Rng, chance, log_uniform, pick, sign
from models.simulate.instrument import Instrument
from models.simulate.surface import Surface

#: What event-free curves look like; curves with an event have the same behind it, as far as they touch the surface.
BACKGROUNDS = {
    "contact": 10.0,
    "snap_off": 20.0,
    "snap_off_wide": 10.0,
    "double_snap_off": 12.0,
    "viscous_fade": 16.0,
    "soft_indentation": 12.0,
    "drag": 4.0,
    "long_range": 5.0,
    "interference": 10.0,
    "baseline_bend": 6.0,
    "spikes": 2.5,
}
UNTOUCHED = {"noise": 4.0, "no_surface": 6.0}  # these never touch the surface
_ADHESIONS = {"snap_off": 5.0, "snap_off_wide": 2.0, "double_snap_off": 2.0, "viscous_fade": 3.0}


def place(rng: Rng, instrument: Instrument, kind: str) -> Instrument:
    """Where the surface lies, as the background wants it, with a sane setpoint."""
    contact = instrument.contact_nm
    if kind in UNTOUCHED:
        contact = 0.0
    elif kind == "soft_indentation":
        if chance(rng, 0.6):
            contact = instrument.ramp_nm * (rng.uniform(0.1, 0.6) if chance(rng, 0.85) else rng.uniform(0.6, 0.9))
    else:
        contact = min(contact, log_uniform(rng, 200.0, 30000.0) / instrument.spring)
    return replace(instrument, contact_nm=contact)


def touch_surface(rng: Rng, instrument: Instrument, past: Samples, kind: str) -> Surface:
    if kind in UNTOUCHED:
        return Surface(np.zeros_like(past), 0.0)
    repulsion = surface.contact(rng, instrument, soft=kind == "soft_indentation" or chance(rng, 0.2))
    if kind == "contact" or (kind not in _ADHESIONS and chance(rng, 0.3)):
        return Surface(repulsion, 0.0)
    adhesion = kind if kind in _ADHESIONS else pick(rng, _ADHESIONS)
    if kind == "soft_indentation":
        adhesion = "viscous_fade"
    if adhesion == "double_snap_off":
        pulled = surface.ragged(rng, instrument, past)
    elif adhesion == "viscous_fade":
        pulled = surface.fade(rng, instrument, past)
    else:
        pulled = surface.snap_off(rng, instrument, past, 60.0 if adhesion == "snap_off_wide" else 25.0)
    return replace(pulled, force=repulsion + pulled.force)


def smooth_forces(rng: Rng, instrument: Instrument, past: Samples, kind: str) -> Samples:
    """Every smooth force and every fault of the baseline."""
    sigma, travel = instrument.noise_pn, instrument.travel_nm
    out = nuisance.baseline(rng, travel, sigma, strong=kind == "baseline_bend")
    if kind == "interference" or chance(rng, 0.4):
        out += nuisance.interference(rng, travel, sigma, strong=kind == "interference")
    if kind in {"long_range", "no_surface"} or chance(rng, 0.08):
        out += surface.long_range(rng, instrument, past)
    if kind == "drag" or chance(rng, 0.08):
        out += surface.drag(rng, instrument, past)
    return out


def approach_force(
    rng: Rng, instrument: Instrument, touch: Surface, smooth: Samples, noise: Samples, past: Samples
) -> Samples:
    """The way in: the same contact and baseline, no adhesion, drag of the other sign, sometimes a snap-in."""
    push = np.where(past < 0.0, np.minimum(touch.force, 0.0), 0.0)
    if chance(rng, 0.3):
        reach = log_uniform(rng, 0.5, 10.0)
        push += instrument.noise_pn * log_uniform(rng, 1.0, 20.0) * np.exp(-np.maximum(past, 0.0) / reach) * (past >= 0)
    gap = instrument.noise_pn * log_uniform(rng, 0.1, 4.0) * sign(rng)
    return instrument.gain * (push + smooth)[::-1] + noise - gap
