"""A seed's endless row of curves: number i is the same whatever came before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.curve import Curve, DistanceKind, ForceUnit, Samples
from models.simulate import nuisance
from models.simulate.draw import Rng, chance, log_uniform
from models.simulate.ruptures import Rupture
from models.simulate.scene import Scene, compose


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
    sigma, level = instrument.noise_pn, nuisance.offset(rng)
    step = sigma * log_uniform(rng, 0.1, 1.5) if chance(rng, 0.25) else 0.0
    part = rng.random()
    unit: ForceUnit = "N" if part < 0.8 else "m" if part < 0.92 else "V"
    sensitivity = log_uniform(rng, 1e-8, 3e-7)  # m/V: 10 to 300 nm/V
    stiffness = instrument.spring * 1e-3  # N/m
    scale = {"N": 1e-12, "m": 1e-12 / stiffness, "V": 1e-12 / stiffness / sensitivity}[unit]

    def reported(force: Samples) -> Samples:
        return (nuisance.quantise(force + level, step) if step else force + level) * scale

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
