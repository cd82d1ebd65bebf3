"""Simulated laboratories: one instrument, one sample, one chemistry each, for whatever learns from labels.

The simulator mixes everything at random; a laboratory keeps to its own. Its event-free curves carry what resembles a
weak event (hops of the laser, bumps and peels of a soft layer, short interference), always in the same manner, so
that the shipped network doubts them and labels could tell it that they are nothing. Some of it lies beyond what the
network was trained on. They show harm and whether a recipe can learn at all; what it gains is shown by real curves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from daemon.cli import Parser, execute
from daemon.common.options import Option, add_options, take_options
from daemon.common.stdio import progress
from daemon.instrument import pack
from models.curve import Curve, Samples
from models.files import write_whole
from models.simulate import EVENTS, Rupture, recording
from models.simulate.background import BACKGROUNDS, Surface, place, smooth_forces, touch_surface, visible
from models.simulate.mechanics import Pulled, Rng, chance, log_uniform, pick, sign
from models.simulate.recording import Instrument, draw_instrument

#: Seeds of the ten that tables are made of.
TEN = tuple(range(10))

WEAK_SIGMA = 8.0  # an event whose largest rupture stays below this, in the noise, is a weak one
_STREAM = 13  # sets these draws apart from those of other simulators


class Sample(NamedTuple):
    """A curve with the truth about it."""

    curve: Curve
    is_event: bool
    is_weak: bool  # an event that barely stands out, or a curve without one that resembles it
    kind: str  # family of the event, or what the curve has that resembles one, or its background


# What resembles an event and is none. Each draws (n,) piconewton on an instrument's ramp, at a strength in piconewton.

Mimic = Callable[[Rng, Instrument, Samples, float], Samples]


def hops(rng: Rng, instrument: Instrument, past: Samples, strength: float) -> Samples:
    """The laser hops to another mode and back: a pulse with two upright sides, where a molecule has a slow one."""
    force = np.zeros_like(past)
    for _ in range(int(rng.integers(1, 4))):
        start = rng.uniform(40.0, max(0.9 * past[-1], 60.0))
        stop = start + log_uniform(rng, 0.02, 0.2) * past[-1]
        force += strength * rng.uniform(0.6, 1.2) * ((past > start) & (past < stop))
    return force


def peels(rng: Rng, instrument: Instrument, past: Samples, strength: float) -> Samples:
    """Patches come off one after the other: each falls faster than it rises, and still has no step."""
    force = np.zeros_like(past)
    for _ in range(int(rng.integers(1, 5))):
        at, rise = rng.uniform(0.08, 0.85) * past[-1], log_uniform(rng, 0.02, 0.1) * past[-1]
        apart = (past - at) / np.where(past < at, rise, 0.014 * past[-1])
        force += strength * rng.uniform(0.5, 1.3) * np.exp(-apart * apart) * (past > 0.0)
    return force


def bumps(rng: Rng, instrument: Instrument, past: Samples, strength: float) -> Samples:
    """A soft layer is pulled and lets go smoothly."""
    force = np.zeros_like(past)
    for _ in range(int(rng.integers(1, 4))):
        at, width = rng.uniform(0.1, 0.8) * past[-1], log_uniform(rng, 0.015, 0.06) * past[-1]
        apart = (past - at) / np.where(past < at, 1.5 * width, width)
        force += strength * rng.uniform(0.5, 1.3) * np.exp(-apart * apart)
    return force


def ripple(rng: Rng, instrument: Instrument, past: Samples, strength: float) -> Samples:
    """Interference of a period that no other instrument has, strongest near the surface."""
    angle = 2.0 * np.pi * past / (0.09 * past[-1] * rng.uniform(0.95, 1.05)) + rng.uniform(0.0, 2.0 * np.pi)
    return np.asarray(strength * np.sin(angle) * np.exp(-np.maximum(past, 0.0) / (0.5 * past[-1])))


def bursts(rng: Rng, instrument: Instrument, past: Samples, strength: float) -> Samples:
    """Somebody walks by: a slow tremble for a part of the ramp."""
    at, width = rng.uniform(0.2, 0.9) * past[-1], log_uniform(rng, 0.04, 0.15) * past[-1]
    knots = np.convolve(rng.standard_normal(162), (0.5, 1.0, 0.5), mode="same")
    tremble = np.interp(past, np.linspace(past[0], past[-1], len(knots)), knots)
    apart = (past - at) / width
    return np.asarray(strength * tremble * np.exp(-apart * apart))


def shoulder(rng: Rng, instrument: Instrument, past: Samples, strength: float) -> Samples:
    """The adhesion ends in a shoulder that bends down to the baseline, without a step."""
    end, fall = 0.25 * past[-1] * rng.uniform(0.6, 1.5), 0.02 * past[-1] * rng.uniform(0.7, 1.4)
    return np.where(past > 0.0, strength / (1.0 + np.exp(np.clip((past - end) / fall, -50.0, 50.0))), 0.0)


#: Name -> how it is drawn, and its usual strength in the noise, at which the shipped network doubts.
MIMICS: Mapping[str, tuple[Mimic, float]] = {
    "hops": (hops, 2.2),
    "peels": (peels, 3.0),
    "bumps": (bumps, 8.0),
    "ripple": (ripple, 10.0),
    "bursts": (bursts, 8.0),
    "shoulder": (shoulder, 15.0),
}


# A laboratory.


@dataclass(frozen=True, slots=True, eq=False)
class Habits:
    """What stays the same from curve to curve."""

    instrument: Instrument
    backgrounds: Mapping[str, float]  # kind -> weight
    families: Mapping[str, float]  # of events -> weight
    mimics: Mapping[str, float]  # -> strength in the noise
    mimicked: float  # chance of each on a curve, whether it holds an event or not
    colour: tuple[float, float]  # share and correlation length, in samples, of the slow part of the noise
    tilt_pn: float
    wave: tuple[float, float]  # amplitude in pN, period in nm
    step_pn: float  # of the converter; 0: too fine to be seen
    level_pn: float


def _habits(rng: Rng) -> Habits:
    drawn = draw_instrument(rng)
    while not 250.0 <= drawn.ramp_nm <= 1200.0:
        drawn = draw_instrument(rng)
    samples = round(log_uniform(rng, 500.0, 3000.0))
    instrument = replace(
        drawn,
        travel_nm=np.linspace(0.0, drawn.ramp_nm, samples),
        contact_nm=drawn.ramp_nm * float(rng.uniform(0.02, 0.3)),
        response=min(drawn.response, samples / 200.0),
    )
    kinds = rng.choice(sorted(BACKGROUNDS), 3, replace=False)
    families = rng.choice(sorted(EVENTS), 2, replace=False)
    mimics = rng.choice(sorted(MIMICS), 2, replace=False)
    return Habits(
        instrument=instrument,
        backgrounds={str(kind): float(rng.uniform(0.2, 1.0)) for kind in kinds},
        families={str(family): float(rng.uniform(0.3, 1.0)) for family in families},
        mimics={str(mimic): MIMICS[mimic][1] * log_uniform(rng, 0.6, 1.7) for mimic in mimics},
        mimicked=float(rng.uniform(0.5, 0.9)),
        colour=(float(rng.uniform(0.0, 0.5)), log_uniform(rng, 3.0, 60.0)),
        tilt_pn=log_uniform(rng, 1.0, 8.0) * instrument.noise_pn * sign(rng),
        wave=(log_uniform(rng, 0.3, 3.0) * instrument.noise_pn, log_uniform(rng, 80.0, 700.0)),
        step_pn=instrument.noise_pn * log_uniform(rng, 0.3, 2.5) if chance(rng, 0.3) else 0.0,
        level_pn=float(rng.normal(0.0, 200.0)),
    )


class Laboratory:
    """Curve ``number`` of ``seed`` is the same whatever was drawn before it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.name = f"laboratory {seed}"
        self.habits = _habits(_generator(_STREAM, seed))

    def curves(self, count: int, prevalence: float = 0.02, seed: int = 0) -> list[Sample]:
        """Each holds an event with the chance ``prevalence``; 1.0 and 0.0 give curves of one kind."""
        return [self.curve(number, prevalence, seed) for number in range(count)]

    def curve(self, number: int, prevalence: float, seed: int = 0) -> Sample:
        rng = _generator(_STREAM, self.seed, seed, number)
        event = chance(rng, prevalence)
        for _ in range(200):
            sample = self._attempt(rng, event)
            if sample is not None:
                return sample
        raise RuntimeError(f"{self.name}: no visible event in 200 attempts")

    def _attempt(self, rng: Rng, event: bool) -> Sample | None:
        habits = self.habits
        kind = pick(rng, habits.backgrounds)
        instrument = _as_today(rng, place(rng, habits.instrument, kind))
        past = instrument.travel_nm - instrument.contact_nm
        touch = touch_surface(rng, instrument, past, kind)
        pulled, family = Pulled(np.zeros_like(past), ()), kind
        if event:
            family = pick(rng, habits.families)
            first = _first_nm(touch, instrument)
            if first > 0.7 * instrument.room_nm:
                return None
            pulled = EVENTS[family][1](rng, instrument, past, first)
            pulled = replace(pulled, ruptures=tuple(r for r in pulled.ruptures if past[r.index] >= first))
        mimics = [name for name in habits.mimics if chance(rng, habits.mimicked)]
        smooth = 0.3 * smooth_forces(rng, instrument, past, "contact") + self._own_wave(rng, instrument)
        for mimic in mimics:
            strength = habits.mimics[mimic] * instrument.noise_pn * float(rng.lognormal(0.0, 0.4))
            smooth = smooth + MIMICS[mimic][0](rng, instrument, past, strength)
        noise = instrument.noise_pn * self._noise(rng, len(past))
        clean = recording.lag(touch.force + pulled.force, instrument.response)
        seen: tuple[Rupture, ...] = ()
        if event:
            tethers = recording.lag(pulled.force, instrument.response)
            seen = visible(pulled.ruptures, tethers, clean + smooth, smooth + noise)
            if not seen or chance(rng, _refused(seen, instrument)):
                return None
        force = instrument.gain * (clean + smooth) + noise
        largest = max((rupture.force_pn for rupture in seen), default=0.0)
        is_weak = largest < WEAK_SIGMA * instrument.noise_pn if event else bool(mimics)
        return Sample(self._recorded(instrument, force), event, is_weak, family if event else "+".join(mimics) or kind)

    def _own_wave(self, rng: Rng, instrument: Instrument) -> Samples:
        amplitude, period_nm = self.habits.wave
        travel = instrument.travel_nm
        phase = 2.0 * np.pi * travel / period_nm + float(rng.normal(0.0, 0.7))
        wave = amplitude * float(rng.lognormal(0.0, 0.2)) * np.sin(phase)
        return np.asarray(wave + self.habits.tilt_pn * float(rng.normal(1.0, 0.3)) * travel / instrument.ramp_nm)

    def _noise(self, rng: Rng, count: int) -> Samples:
        """(count,) of unit rms."""
        share, length = self.habits.colour
        white = rng.standard_normal(count)
        slow = np.fft.rfft(rng.standard_normal(count)) / (1.0 + np.fft.rfftfreq(count) * 2 * np.pi * length)
        coloured = np.fft.irfft(slow, count)
        return np.asarray(np.sqrt(1.0 - share) * white + np.sqrt(share) * coloured / max(float(coloured.std()), 1e-9))

    def _recorded(self, instrument: Instrument, force: Samples) -> Curve:
        """As its file tells it, in newton."""
        step, reported = self.habits.step_pn, force + self.habits.level_pn
        return Curve(
            force=1e-12 * (recording.quantise(reported, step) if step else reported),
            force_unit="N",
            distance=instrument.travel_nm * 1e-9,
            distance_kind="piezo",
            spring_constant_n_per_m=instrument.spring * 1e-3,
            sensitivity_m_per_v=5e-8,
            duration_s=instrument.ramp_nm / instrument.speed,
        )


def _as_today(rng: Rng, instrument: Instrument) -> Instrument:
    """From curve to curve the noise and the place of the surface differ a little."""
    contact = min(instrument.contact_nm * float(rng.lognormal(0.0, 0.15)), 0.6 * instrument.ramp_nm)
    return replace(instrument, contact_nm=contact, noise_pn=instrument.noise_pn * float(rng.lognormal(0.0, 0.1)))


def _first_nm(touch: Surface, instrument: Instrument) -> float:
    """From where on a rupture is no part of the adhesion."""
    return max(touch.end_nm + 8.0, 35.0, 0.04 * instrument.ramp_nm)


def _refused(seen: tuple[Rupture, ...], instrument: Instrument) -> float:
    """The chance with which an event that stands out far is left out: this sample's molecules are weak ones."""
    return 0.0 if max(rupture.force_pn for rupture in seen) < 2.0 * WEAK_SIGMA * instrument.noise_pn else 0.7


def _generator(*key: int) -> Rng:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))


# As an instrument: a night of a laboratory in files, and the truth about it, for a script that has no microscope.


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    into: Annotated[Path, Option("folder that the files are put into", "DIR")]
    truth: Annotated[Path, Option("CSV of path, curve_index, label; never in DIR", "FILE")]
    laboratory: Annotated[int, Option("which", "N")] = 2
    night: Annotated[int, Option("another one brings other curves", "N")] = 1
    curves: Annotated[int, Option("how many", "N")] = 3000
    prevalence: Annotated[float, Option("share with an event", "P")] = 0.05


def run(options: Options) -> int:
    """Exit 0; each file is put in place whole, and all of the truth when they are all there."""
    laboratory, rows = Laboratory(options.laboratory), ["path,curve_index,label"]
    options.into.mkdir(parents=True, exist_ok=True)
    for number in progress(range(options.curves), "measuring", options.curves):
        curve, is_event, *_ = laboratory.curve(number, options.prevalence, options.night)
        name = f"night-{options.night}-{number:06d}.jpk-force"
        write_whole(options.into / name, pack(curve))
        rows.append(f"{name},0,{'keep' if is_event else 'discard'}")
    write_whole(options.truth, ("\n".join(rows) + "\n").encode())
    return 0


if __name__ == "__main__":

    def _asked(words: list[str]) -> Callable[[], int]:
        parser = Parser(prog="python -m tests.studies.laboratories", description="A night of a simulated laboratory.")
        add_options(parser, Options)
        return partial(run, take_options(Options, parser.parse_args(words)))

    sys.exit(execute(sys.argv[1:], _asked))
