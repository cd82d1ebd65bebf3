"""The instrument of one curve: ramp, cantilever, speed, noise level, and where on the ramp the surface lies.

| quantity | range | source |
|---|---|---|
| samples of a retract | 200 to 20 000, log-uniform | formats.md 1.2 (256 to 16 000 in real files) |
| ramp | 50 nm to 3 um, mostly 200 nm to 1 um | formats.md 5.1: 245 to 920 nm; 2.9 um in force volumes |
| spring constant | 6 to 100 pN/nm, some to 400 | Biolever 6 and 30, MLCT 10 to 100, stiffer ones on cells and in air |
| noise | 0.12 to 1 of sqrt(kT k), 1 to 20 pN | equipartition, cut by bandwidth; measured 3 to 13 pN (formats.md 5.1) |
| speed | 0.1 to 20 um/s | usual SMFS speeds |
| error of the sensitivity | 0.65 to 1.35 | contact slopes of the I27 and MFP-3D sets (formats.md 5.1) |
| contact part | 0 to 60 % of the ramp | real files |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models.curve import Samples
from models.simulate.mechanics import KT_PN_NM, Rng, chance, log_uniform


@dataclass(frozen=True, slots=True, eq=False)
class Instrument:
    travel_nm: Samples  # (n,) piezo travel since the turnaround
    contact_nm: float  # travel at which the tip leaves the surface at zero force
    spring: float  # pN/nm
    gain: float  # reported force / true force: the error of the sensitivity
    speed: float  # nm/s
    noise_pn: float  # rms of the whole noise
    response: float  # time constant of cantilever and detector, samples

    @property
    def ramp_nm(self) -> float:
        return float(self.travel_nm[-1])

    @property
    def room_nm(self) -> float:
        """Travel left after the contact point."""
        return self.ramp_nm - self.contact_nm


def _ramp_nm(rng: Rng) -> float:
    part = rng.random()
    if part < 0.70:
        return log_uniform(rng, 200.0, 1000.0)
    return log_uniform(rng, 50.0, 200.0) if part < 0.80 else log_uniform(rng, 1000.0, 3000.0)


def _contact_share(rng: Rng) -> float:
    part = rng.random()
    if part < 0.15:
        return 0.0  # exported traces begin at the contact point
    return log_uniform(rng, 0.005, 0.2) if part < 0.65 else float(rng.uniform(0.1, 0.6))


def draw_instrument(rng: Rng) -> Instrument:
    """An instrument at random, independent of whether the curve will hold an event."""
    samples = round(log_uniform(rng, 200.0, 20000.0))
    ramp = _ramp_nm(rng)
    spring = log_uniform(rng, 6.0, 100.0) if chance(rng, 0.9) else log_uniform(rng, 100.0, 400.0)
    noise = math.sqrt(KT_PN_NM * spring) * log_uniform(rng, 0.12, 1.0)
    return Instrument(
        travel_nm=np.linspace(0.0, ramp, samples),
        contact_nm=ramp * _contact_share(rng),
        spring=spring,
        gain=float(rng.uniform(0.65, 1.35)) if chance(rng, 0.4) else float(rng.normal(1.0, 0.04)),
        speed=log_uniform(rng, 100.0, 20000.0),
        noise_pn=min(max(noise, 1.0), 20.0),
        response=min(log_uniform(rng, 0.1, 4.0), samples / 200.0),
    )
