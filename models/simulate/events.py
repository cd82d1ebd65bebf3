"""Events: what hangs between tip and surface, how it stretches, unfolds and lets go.

Every function takes the travel past contact and returns a ``Pulled``: the force and each rupture in it. Chains are
in series with the cantilever, so after a rupture the tip jumps back along the cantilever's line by itself.

| quantity | range | source |
|---|---|---|
| rupture force | 2 to 150 sigma, 8 pN to 1.5 nN | unbinding and unfolding 20 to 500 pN, cohesin-dockerin to 600 pN |
| linker contour | 15 nm to the ramp | PEG, polyprotein, dextran, DNA |
| unfolding step | 8 to 80 nm, equal within 3 % | titin I27 28 nm, GB1 18 nm, larger domains (Rief 1997; Fodis) |
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.curve import Samples
from models.simulate.mechanics import (
    Bond,
    Chain,
    Pulled,
    Rng,
    Rupture,
    bond_with_mode,
    chance,
    freely_jointed,
    join,
    log_uniform,
    overstretching,
    worm_like,
)
from models.simulate.recording import Instrument

HELD = float("inf")  # rupture force of what does not let go within the ramp


def _stretch(past: Samples, spring: float, chain: Chain, stages: Sequence[tuple[float, float]]) -> Pulled:
    """A chain through ``stages`` of (contour length nm, rupture force pN), then detached."""
    force = np.zeros_like(past)
    ruptures = []
    start = int(np.searchsorted(past, 0.0))
    for contour, strength in stages:
        held = strength == HELD
        at = np.inf if held else chain.extension_nm(strength, contour) + strength / spring
        stop = int(np.searchsorted(past, at))
        if stop <= start:
            continue
        force[start:stop] = chain.pull(past[start:stop], contour, spring)
        start = stop
        if stop >= len(past):
            break
        ruptures.append(Rupture(stop, float(force[stop - 1]), contour))
    return Pulled(force, tuple(ruptures))


def _polymer(rng: Rng) -> Chain:
    if chance(rng, 0.6):
        return worm_like(log_uniform(rng, 0.2, 1.5), log_uniform(rng, 3e3, 5e4))
    return freely_jointed(log_uniform(rng, 0.3, 2.0), log_uniform(rng, 3e3, 5e4))


def likely_strength(rng: Rng, instrument: Instrument) -> float:
    """A most probable rupture force, from barely above the noise to far above."""
    multiple = log_uniform(rng, 2.0, 30.0) if chance(rng, 0.7) else log_uniform(rng, 20.0, 150.0)
    return min(max(multiple * instrument.noise_pn, 8.0), 1500.0)


def _bond(rng: Rng, instrument: Instrument, chain: Chain, contour: float, mode: float) -> Bond:
    rate = _loading(instrument, chain, contour, mode)
    return bond_with_mode(mode, max(log_uniform(rng, 0.1, 1.0), 8.0 / mode), rate)


def _loading(instrument: Instrument, chain: Chain, contour: float, force: float) -> float:
    """Loading rate at a force, pN/s: stiffness of cantilever and chain in series, times the speed."""
    stiffness = chain.stiffness(force, contour)
    return instrument.speed * stiffness * instrument.spring / (stiffness + instrument.spring)


def _tether(rng: Rng, instrument: Instrument, past: Samples, at_nm: float) -> Pulled:
    """One linker that ruptures about ``at_nm`` of travel after contact."""
    chain, mode = _polymer(rng), likely_strength(rng, instrument)
    mode = min(mode, 0.6 * at_nm * instrument.spring)
    contour = chain.contour_nm(mode, max(at_nm - mode / instrument.spring, 2.0))
    bond = _bond(rng, instrument, chain, contour, mode)
    strength = bond.rupture_pn(rng, _loading(instrument, chain, contour, mode))
    return _stretch(past, instrument.spring, chain, [(contour, strength)])


def polymer(rng: Rng, instrument: Instrument, past: Samples, first_nm: float) -> Pulled:
    """A single linker."""
    return _tether(rng, instrument, past, log_uniform(rng, first_nm, 0.85 * instrument.room_nm))


def polymers(rng: Rng, instrument: Instrument, past: Samples, first_nm: float) -> Pulled:
    """Two to six linkers in parallel, each with its own length."""
    places = np.exp(rng.uniform(np.log(first_nm), np.log(0.9 * instrument.room_nm), int(rng.integers(2, 7))))
    return join([_tether(rng, instrument, past, float(place)) for place in places])


def far_out(rng: Rng, instrument: Instrument, past: Samples, first_nm: float) -> Pulled:
    """A rupture in the last third of the ramp."""
    low = max(first_nm, 0.65 * instrument.room_nm)
    return _tether(rng, instrument, past, rng.uniform(low, 0.985 * instrument.room_nm))


def after_adhesion(rng: Rng, instrument: Instrument, past: Samples, first_nm: float) -> Pulled:
    """One to three ruptures shortly after the adhesion has let go."""
    reach = min(first_nm + log_uniform(rng, 5.0, 80.0), 0.9 * instrument.room_nm)
    places = rng.uniform(first_nm, max(reach, first_nm + 1.0), int(rng.integers(1, 4)))
    return join([_tether(rng, instrument, past, float(place)) for place in places])


def sawtooth(rng: Rng, instrument: Instrument, past: Samples, first_nm: float) -> Pulled:
    """A polyprotein: equally spaced unfolding peaks, then detachment; sometimes still attached at the end."""
    chain = worm_like(log_uniform(rng, 0.25, 0.8))
    step, modules = log_uniform(rng, 8.0, 80.0), int(rng.integers(2, 13))
    contour = first_nm * rng.uniform(0.6, 1.5) + rng.uniform(0.0, 0.3) * instrument.room_nm
    mode = min(likely_strength(rng, instrument), 500.0)
    bond = _bond(rng, instrument, chain, contour + step, mode)
    uneven = 0.03 if chance(rng, 0.6) else 0.5  # polyprotein, or the domains of one large protein
    stages = []
    for _ in range(modules):
        stages.append((contour, bond.rupture_pn(rng, _loading(instrument, chain, contour, mode))))
        contour += step * max(rng.normal(1.0, uneven), 0.15)
    if chance(rng, 0.5):  # in one molecule the weaker domains tend to go first
        forces = np.sort([strength for _, strength in stages])
        stages = [(length, float(strength)) for (length, _), strength in zip(stages, forces, strict=True)]
    if chance(rng, 0.15):  # still attached at the end, under a load it may well carry
        load = mode * log_uniform(rng, 0.2, 1.5)
        held = chain.contour_nm(load, max(instrument.room_nm - load / instrument.spring, 1.0))
        if held > stages[-1][0]:
            return _stretch(past, instrument.spring, chain, [*stages, (held, HELD)])
    return _stretch(past, instrument.spring, chain, [*stages, (contour, mode * log_uniform(rng, 0.7, 2.5))])


def dna(rng: Rng, instrument: Instrument, past: Samples, first_nm: float) -> Pulled:
    """DNA: entropic rise, often the overstretch plateau, then rupture."""
    chain = overstretching(rng.uniform(55.0, 75.0), log_uniform(rng, 0.8, 4.0))
    strength = max(log_uniform(rng, 10.0, 250.0), 2.0 * instrument.noise_pn)
    at = log_uniform(rng, first_nm, 0.95 * instrument.room_nm)
    contour = chain.contour_nm(strength, max(at - strength / instrument.spring, 2.0))
    return _stretch(past, instrument.spring, chain, [(contour, strength)])


# Events of soft bodies: membrane tethers, vesicles, fibres and whole cells, which load slowly and let go in
# steps.
#
# | quantity | range | source |
# |---|---|---|
# | tether plateau | 6 to 150 pN, 1.2 sigma at least | membrane tethers (Hochmuth et al. 1996; Sun et al. 2005) |
# | stiffness of cells and vesicles | given by the travel to rupture, 20 nm to 60 % of the ramp | EV and cell data |


def plateaus(rng: Rng, instrument: Instrument, past: Samples, first_nm: float) -> Pulled:
    """Membrane tethers, peeled chains: constant force that ends in a step; one to five in parallel."""
    one = min(max(instrument.noise_pn * log_uniform(rng, 1.2, 20.0), 6.0), 150.0)
    drops = np.exp(rng.uniform(np.log(first_nm), np.log(0.97 * instrument.room_nm), int(rng.integers(1, 6))))
    rise = log_uniform(rng, 1.0, 60.0)
    slope = rng.normal(0.0, 0.15)  # relative change along the plateau
    parts = []
    for drop in drops:
        height = one * max(rng.normal(1.0, 0.12), 0.4)
        start = 0.0 if chance(rng, 0.8) else drop * rng.uniform(0.0, 0.6)
        force = np.zeros_like(past)
        first, stop = (int(np.searchsorted(past, edge)) for edge in (start, drop))
        run = past[first:stop] - start
        force[first:stop] = height * (1.0 - np.exp(-run / rise)) * (1.0 + slope * run / max(drop, 1.0))
        broken = first < stop < len(past)
        parts.append(Pulled(force, (Rupture(stop, float(force[stop - 1]), None),) if broken else ()))
    return join(parts)


def soft_bonds(rng: Rng, instrument: Instrument, past: Samples, first_nm: float, most: int = 3) -> Pulled:
    """Bonds held by a soft body (vesicle, cell, fibre): they load slowly from the contact line on, then let go."""
    count = int(rng.integers(1, most + 1))
    first_nm = max(first_nm, 25.0, 0.05 * instrument.ramp_nm)  # nearer, it would be the snap-off itself
    reach = min(max(log_uniform(rng, 0.08, 1.05) * instrument.room_nm, 1.5 * first_nm), 2000.0)
    places = rng.uniform(first_nm, reach, count)
    total, bend = likely_strength(rng, instrument), log_uniform(rng, 0.5, 1.6)
    parts = []
    for place in places:
        strength = min(total * log_uniform(rng, 0.3, 1.5), 0.35 * instrument.spring * float(place))
        start = 0.0 if chance(rng, 0.7) else place * rng.uniform(0.0, 0.7)
        first, stop = (int(np.searchsorted(past, edge)) for edge in (start, place))
        force = np.zeros_like(past)
        force[first:stop] = strength * ((past[first:stop] - start) / (place - start)) ** bend
        broken = first < stop < len(past)
        parts.append(Pulled(force, (Rupture(stop, float(force[stop - 1]), None),) if broken else ()))
    return join(parts)


def cell(rng: Rng, instrument: Instrument, past: Samples, first_nm: float) -> Pulled:
    """Cell adhesion: many small bonds on a slow load, tethers last, often no flat baseline before the end."""
    pulled = [soft_bonds(rng, instrument, past, first_nm, most=15)]
    if chance(rng, 0.6):
        pulled.append(plateaus(rng, instrument, past, first_nm))
    return join(pulled)
