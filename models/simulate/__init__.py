"""Force curves from physics, with the truth about them: what the shipped model was trained on.

``simulate`` draws the curves of a seed: number i is the same whatever came before it. The modules beside it hold one
subject each, with the source of every range: ``mechanics`` (elasticity of chains, Bell-Evans), ``events`` (molecules
and soft bodies), ``recording`` (the instrument, and the noise and baseline that it adds), ``background`` (contact and
adhesion, which of all these come together, and what may be called an event).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.curve import Curve, DistanceKind, ForceUnit, Samples
from models.simulate import events, recording
from models.simulate.background import (
    BACKGROUNDS,
    UNTOUCHED,
    Surface,
    approach_force,
    place,
    smooth_forces,
    touch_surface,
    visible,
)
from models.simulate.mechanics import Pulled, Rng, Rupture, chance, log_uniform, pick
from models.simulate.recording import Instrument, draw_instrument

__all__ = ["Rupture", "Simulated", "simulate"]


# One curve from its parts: a background common to both labels, an event or none, then what the instrument records.
# Backgrounds and nuisances are drawn from the same distributions whatever the label, so that nothing but the
# event tells the labels apart.

Event = Callable[[Rng, Instrument, Samples, float], Pulled]

EVENTS: dict[str, tuple[float, Event]] = {
    "polymer": (14.0, events.polymer),
    "polymers": (14.0, events.polymers),
    "sawtooth": (18.0, events.sawtooth),
    "dna": (6.0, events.dna),
    "plateaus": (16.0, events.plateaus),
    "cell": (10.0, events.cell),
    "soft_bonds": (8.0, events.soft_bonds),
    "after_adhesion": (10.0, events.after_adhesion),
    "far_out": (6.0, events.far_out),
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
        faults = recording.spikes(rng, len(past), instrument.noise_pn, many=kind == "spikes")
    clean = recording.lag(touch.force + pulled.force, instrument.response)
    seen: tuple[Rupture, ...] = ()
    if event:
        tethers = recording.lag(pulled.force, instrument.response)
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
    noise = instrument.noise_pn * recording.noise(rng, 2 * count if with_approach else count)
    if chance(rng, 0.15):  # thermal motion is damped or driven near the surface
        near = 1.0 + rng.uniform(-0.5, 2.0) * np.exp(-np.maximum(past, 0.0) / log_uniform(rng, 10.0, 300.0))
        noise[-count:] *= near
    return noise


@dataclass(frozen=True, slots=True, eq=False)
class Simulated:
    """A curve and the truth about it."""

    curve: Curve
    label: Literal["keep", "discard"]
    family: str  # keep: the kind of event; discard: the kind of background
    ruptures: tuple[Rupture, ...]  # the visible ones, in time order; empty exactly when label is "discard"


def simulate(count: int, seed: int, prevalence: float = 0.5, start: int = 0) -> Iterator[Simulated]:
    """Yield curves ``start`` to ``start + count - 1`` of a seed.

    Curve i depends on (seed, i, prevalence) alone. A share ``prevalence`` of them, drawn one by one, holds an event.
    Curves have 200 to 20 000 samples, in N (most), m or V, with or without distance, some with their approach.
    """
    for number in range(start, start + count):
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(number,))))
        scene = compose(rng, chance(rng, prevalence))
        yield Simulated(
            curve=_curve(rng, scene),
            label="keep" if scene.ruptures else "discard",
            family=scene.family,
            ruptures=scene.ruptures,
        )


def _curve(rng: Rng, scene: Scene) -> Curve:
    """The file's view: unit, offset, resolution, distance axis."""
    instrument = scene.instrument
    sigma, level = instrument.noise_pn, recording.offset(rng)
    step = sigma * log_uniform(rng, 0.1, 1.5) if chance(rng, 0.25) else 0.0
    part = rng.random()
    unit: ForceUnit = "N" if part < 0.8 else "m" if part < 0.92 else "V"
    sensitivity = log_uniform(rng, 1e-8, 3e-7)  # m/V: 10 to 300 nm/V
    stiffness = instrument.spring * 1e-3  # N/m
    scale = {"N": 1e-12, "m": 1e-12 / stiffness, "V": 1e-12 / stiffness / sensitivity}[unit]

    def reported(force: Samples) -> Samples:
        return (recording.quantise(force + level, step) if step else force + level) * scale

    known = unit == "N" or chance(rng, 0.3)
    distance, kind = _distance(rng, scene)
    return Curve(
        force=reported(scene.force_pn),
        force_unit=unit,
        distance=distance,
        distance_kind=kind,
        approach_force=None if scene.approach_pn is None else reported(scene.approach_pn),
        spring_constant_n_per_m=stiffness if known else None,
        sensitivity_m_per_v=sensitivity if known and unit != "m" else None,
        duration_s=instrument.ramp_nm / instrument.speed,
    )


def _distance(rng: Rng, scene: Scene) -> tuple[Samples | None, DistanceKind | None]:
    part = rng.random()
    if part < 0.08:
        return None, None
    instrument = scene.instrument
    travel = instrument.travel_nm + log_uniform(rng, 1.0, 1e4)
    if chance(rng, 0.3):  # a position sensor has noise of its own
        travel = travel + rng.standard_normal(len(travel)) * log_uniform(rng, 0.02, 0.5)
    if part < 0.75:
        return travel * 1e-9, "piezo"
    return (travel - scene.force_pn / instrument.spring) * 1e-9, "separation"
