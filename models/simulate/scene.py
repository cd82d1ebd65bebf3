"""One curve from its parts: a background common to both labels, an event or none, then the instrument's view of it.

Backgrounds and nuisances are drawn from the same distributions whatever the label, so that nothing but the event
tells the labels apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from models.curve import Samples
from models.simulate import molecules, nuisance, surface
from models.simulate.draw import Rng, chance, log_uniform, pick, sign
from models.simulate.instrument import Instrument, draw_instrument
from models.simulate.molecules import Pulled, Rupture
from models.simulate.surface import Surface
from models.simulate.visible import visible

Event = Callable[[Rng, Instrument, Samples, float], Pulled]

#: What event-free curves look like; curves with an event have the same behind it, as far as they touch the surface.
BACKGROUNDS = {
    "contact": 10.0,
    "snap_off": 20.0,
    "snap_off_wide": 10.0,
    "double_snap_off": 12.0,
    "viscous_fade": 12.0,
    "soft_indentation": 12.0,
    "drag": 4.0,
    "long_range": 5.0,
    "interference": 6.0,
    "baseline_bend": 6.0,
    "spikes": 4.0,
}
UNTOUCHED = {"noise": 4.0, "no_surface": 6.0}  # these never touch the surface

EVENTS: dict[str, tuple[float, Event]] = {
    "polymer": (14.0, molecules.polymer),
    "polymers": (14.0, molecules.polymers),
    "sawtooth": (18.0, molecules.sawtooth),
    "dna": (6.0, molecules.dna),
    "plateaus": (16.0, molecules.plateaus),
    "cell": (10.0, molecules.cell),
    "soft_bonds": (8.0, molecules.soft_bonds),
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
    raise RuntimeError("no visible event in 60 attempts")  # about 1 in 10**20


def _attempt(rng: Rng, event: bool) -> Scene | None:
    kind = pick(rng, BACKGROUNDS if event else BACKGROUNDS | UNTOUCHED)
    instrument = _place(rng, draw_instrument(rng), kind)
    past = instrument.travel_nm - instrument.contact_nm
    touch = _surface(rng, instrument, past, kind)
    family, pulled = kind, Pulled(np.zeros_like(past), ())
    if event:
        family = pick(rng, _EVENT_WEIGHTS)
        first = _first_nm(touch, instrument)
        if first > 0.8 * instrument.room_nm:
            return None
        pulled = EVENTS[family][1](rng, instrument, past, first)
    with_approach = chance(rng, 0.3)
    noise = _noise(rng, instrument, past, with_approach)
    smooth = _smooth(rng, instrument, past, kind)
    clean = nuisance.lag(touch.force + pulled.force, instrument.response)
    seen: tuple[Rupture, ...] = ()
    if event:
        tethers = nuisance.lag(pulled.force, instrument.response)
        candidates = _beyond(pulled.ruptures, past, touch, instrument)
        seen = visible(candidates, tethers, clean + smooth, smooth + noise[-len(past) :])
        if not seen:
            return None
    force = instrument.gain * (clean + smooth) + noise[-len(past) :]
    if kind == "spikes" or chance(rng, 0.03):
        force += nuisance.spikes(rng, len(past), instrument.noise_pn, many=kind == "spikes")
    approach = _approach(rng, instrument, touch, smooth, noise[: len(past)], past) if with_approach else None
    return Scene(instrument, family, seen, force, approach)


def _place(rng: Rng, instrument: Instrument, kind: str) -> Instrument:
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


def _surface(rng: Rng, instrument: Instrument, past: Samples, kind: str) -> Surface:
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


_ADHESIONS = {"snap_off": 5.0, "snap_off_wide": 2.0, "double_snap_off": 2.0, "viscous_fade": 3.0}


def _first_nm(touch: Surface, instrument: Instrument) -> float:
    """From where on a rupture counts as an event: clear of the adhesion."""
    if touch.peak_pn < 3.0 * instrument.noise_pn:
        return max(touch.end_nm + 3.0, 8.0, 0.01 * instrument.ramp_nm)
    return max(touch.end_nm + 8.0, 17.0, touch.end_nm + 0.015 * instrument.ramp_nm)


def _beyond(
    ruptures: tuple[Rupture, ...], past: Samples, touch: Surface, instrument: Instrument
) -> tuple[Rupture, ...]:
    """Ruptures an expert would not count to the adhesion: weak ones must lie farther out (35 nm) than strong ones."""
    first = _first_nm(touch, instrument)
    weak = max(first, 35.0) if touch.peak_pn >= 3.0 * instrument.noise_pn else first
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


def _smooth(rng: Rng, instrument: Instrument, past: Samples, kind: str) -> Samples:
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


def _approach(
    rng: Rng, instrument: Instrument, touch: Surface, smooth: Samples, noise: Samples, past: Samples
) -> Samples:
    """The way in: the same contact and baseline, no adhesion, drag of the other sign, sometimes a snap-in."""
    push = np.where(past < 0.0, np.minimum(touch.force, 0.0), 0.0)
    if chance(rng, 0.3):
        reach = log_uniform(rng, 0.5, 10.0)
        push += instrument.noise_pn * log_uniform(rng, 1.0, 20.0) * np.exp(-np.maximum(past, 0.0) / reach) * (past >= 0)
    gap = instrument.noise_pn * log_uniform(rng, 0.1, 4.0) * sign(rng)
    return instrument.gain * (push + smooth)[::-1] + noise - gap
