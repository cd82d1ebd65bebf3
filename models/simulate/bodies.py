"""Events of soft bodies: membrane tethers, vesicles, fibres and whole cells, which load slowly and let go in steps.

| quantity | range | source |
|---|---|---|
| tether plateau | 6 to 150 pN, 1.2 sigma at least | membrane tethers (Hochmuth et al. 1996; Sun et al. 2005) |
| stiffness of cells and vesicles | given by the travel to rupture, 20 nm to 60 % of the ramp | EV and cell data |
"""

from __future__ import annotations

import numpy as np

from models.curve import Samples
from models.simulate.draw import Rng, chance, log_uniform
from models.simulate.instrument import Instrument
from models.simulate.molecules import likely_strength
from models.simulate.ruptures import Pulled, Rupture, join


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
