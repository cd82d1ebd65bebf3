"""One curve from its parts: a background common to both labels, an event or none, then the instrument's view of it.

Backgrounds and nuisances are drawn from the same distributions whatever the label, so that nothing but the event
tells the labels apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.curve import Samples
from models.simulate import bodies, molecules, nuisance
from models.simulate.background import BACKGROUNDS, UNTOUCHED, approach_force, place, smooth_forces, touch_surface
from models.simulate.draw import Rng, chance, log_uniform, pick
from models.simulate.instrument import Instrument, draw_instrument
from models.simulate.ruptures import Pulled, Rupture
from models.simulate.surface import Surface
from models.simulate.visible import visible

Event = Callable[[Rng, Instrument, Samples, float], Pulled]

EVENTS: dict[str, tuple[float, Event]] = {
    "polymer": (14.0, molecules.polymer),
    "polymers": (14.0, molecules.polymers),
    "sawtooth": (18.0, molecules.sawtooth),
    "dna": (6.0, molecules.dna),
    "plateaus": (16.0, bodies.plateaus),
    "cell": (10.0, bodies.cell),
    "soft_bonds": (8.0, bodies.soft_bonds),
    "after_adhesion": (10.0, molecules.after_adhesion),
    "far_out": (6.0, molecules.far_out),
}
_EVENT_WEIGHTS = {name: weight for name, (weight, _) in EVENTS.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """All that makes one curve, before units."""

    instrument: Instrument
    family: str
    ruptures: tuple[Rupture, ...]
    force_pn: Samples  # (n,) retract
    approach_pn: Samples | None  # (n,) in time order


def compose(rng: Rng, event: bool) -> Scene:
    """Draw curves until one is what was asked for: an event that an expert could see, or none at all."""
    for _ in range(60):
        scene = _attempt(rng, event)
        if scene is not None:
            return scene
    raise RuntimeError("no visible event in 60 attempts")  # four in five succeed


def _attempt(rng: Rng, event: bool) -> Scene | None:
    kind = pick(rng, BACKGROUNDS if event else BACKGROUNDS | UNTOUCHED)
    instrument = place(rng, draw_instrument(rng), kind)
    past = instrument.travel_nm - instrument.contact_nm
    touch = touch_surface(rng, instrument, past, kind)
    family, pulled = kind, Pulled(np.zeros_like(past), ())
    if event:
        family = pick(rng, _EVENT_WEIGHTS)
        first = _first_nm(touch, instrument)
        if first > 0.8 * instrument.room_nm:
            return None
        pulled = EVENTS[family][1](rng, instrument, past, first)
    with_approach = chance(rng, 0.3)
    noise = _noise(rng, instrument, past, with_approach)
    smooth = smooth_forces(rng, instrument, past, kind)
    faults = np.zeros_like(past)
    if kind == "spikes" or chance(rng, 0.02):
        faults = nuisance.spikes(rng, len(past), instrument.noise_pn, many=kind == "spikes")
    clean = nuisance.lag(touch.force + pulled.force, instrument.response)
    seen: tuple[Rupture, ...] = ()
    if event:
        tethers = nuisance.lag(pulled.force, instrument.response)
        candidates = _beyond(pulled.ruptures, past, touch, instrument)
        seen = visible(candidates, tethers, clean + smooth, smooth + noise[-len(past) :] + faults)
        if not seen:
            return None
    force = instrument.gain * (clean + smooth) + noise[-len(past) :] + faults
    approach = approach_force(rng, instrument, touch, smooth, noise[: len(past)], past) if with_approach else None
    return Scene(instrument, family, seen, force, approach)


def _first_nm(touch: Surface, instrument: Instrument) -> float:
    """From where on a rupture counts: clear of the adhesion, or, where there is none, too late to be one itself."""
    ramp = instrument.ramp_nm
    if touch.peak_pn < 3.0 * instrument.noise_pn:
        return max(min(30.0, 0.25 * ramp), 0.035 * ramp)
    return max(touch.end_nm + max(8.0, 0.03 * ramp), 17.0)


def _beyond(
    ruptures: tuple[Rupture, ...], past: Samples, touch: Surface, instrument: Instrument
) -> tuple[Rupture, ...]:
    """Ruptures an expert would not count to the adhesion: weak ones must lie farther out (35 nm) than strong ones."""
    first = _first_nm(touch, instrument)
    weak = max(first, 35.0, 0.04 * instrument.ramp_nm) if touch.peak_pn >= 3.0 * instrument.noise_pn else first
    strong = 8.0 * instrument.noise_pn
    return tuple(r for r in ruptures if past[r.index] >= (first if r.force_pn >= strong else weak))


def _noise(rng: Rng, instrument: Instrument, past: Samples, with_approach: bool) -> Samples:
    """(n,) or, with an approach before it, (2n,): one stretch of time."""
    count = len(past)
    noise = instrument.noise_pn * nuisance.noise(rng, 2 * count if with_approach else count)
    if chance(rng, 0.15):  # thermal motion is damped or driven near the surface
        near = 1.0 + rng.uniform(-0.5, 2.0) * np.exp(-np.maximum(past, 0.0) / log_uniform(rng, 10.0, 300.0))
        noise[-count:] *= near
    return noise
