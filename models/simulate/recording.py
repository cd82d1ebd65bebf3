"""The recording of one curve: the instrument that takes it, and what every instrument adds to the force.

The instrument is a ramp, a cantilever, a speed, a noise level, and where on the ramp the surface lies.

| quantity | range | source |
|---|---|---|
| samples of a retract | 200 to 20 000, log-uniform | 256 to 16 000 in real files |
| ramp | 50 nm to 3 um, mostly 200 nm to 1 um | 245 to 920 nm in public data; 2.9 um in force volumes |
| spring constant | 6 to 100 pN/nm, some to 400 | Biolever 6 and 30, MLCT 10 to 100, stiffer ones on cells and in air |
| noise | 0.12 to 1 of sqrt(kT k), 1 to 20 pN | equipartition, cut by bandwidth; 3 to 13 pN in public data |
| speed | 0.1 to 20 um/s | usual SMFS speeds |
| error of the sensitivity | 0.65 to 1.35 | contact slopes of public I27 and MFP-3D data |
| contact part | 0 to 60 % of the ramp | real files |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models.curve import Samples
from models.simulate.mechanics import KT_PN_NM, Rng, chance, log_uniform, sign


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


# What every instrument adds: noise of all colours, tilt, bend, interference, spikes, few bits.
#
# | quantity | range | source |
# |---|---|---|
# | tilt | 0.3 to 60 pN per 100 nm | 3 to 24 in public data, at most 42 |
# | interference | 1 to 60 pN; period 100 to 700 nm | 17 pN in the I27 run; half a wavelength |
# | drift | 10 to 400 pN, relaxing over 15 to 150 % of the ramp | thermal drift of levers, piezo creep |
# | offset | up to -10 000 pN | public data |
# | correlated noise | correlation 1 to 200 samples, 1/f^0.5..1.8 | electronics, low-pass filters, acoustic coupling |
# | quantisation | 0.1 to 1.5 sigma a step | 16-bit (and older 12-bit) converters at coarse ranges |


def noise(rng: Rng, count: int) -> Samples:
    """(count,) stationary noise of unit rms: white, low-passed, 1/f and resonant parts in random shares."""
    length = _fast_length(count)
    half = length // 2 + 1
    f = np.arange(1, half + 1) / length
    power = np.full(half, rng.uniform(0.3, 1.0) / half)
    if chance(rng, 0.5):
        power += _share(1.0 / (1.0 + (f * log_uniform(rng, 3.0, 600.0)) ** 2), log_uniform(rng, 0.02, 3.0))
    if chance(rng, 0.5):
        power += _share(f ** -rng.uniform(0.5, 1.8), log_uniform(rng, 0.01, 0.6))
    if chance(rng, 0.15):  # the lever's resonance, or a hum line
        centre, width = rng.uniform(0.05, 0.45), log_uniform(rng, 2e-3, 0.1)
        power += _share(1.0 / (1.0 + ((f - centre) / width) ** 2), log_uniform(rng, 0.02, 0.5))
    waves = rng.standard_normal(2 * half).view(np.complex128) * np.sqrt(power)
    waves[0] = 0.0
    series: Samples = np.fft.irfft(waves, length)[:count]
    return series * float(length / np.sqrt(4.0 * power[1:].sum()))


def _share(shape: Samples, share: float) -> Samples:
    return shape * float(share / shape.sum())


def _fast_length(count: int) -> int:
    """The next even length with no prime factor above 5 is at most a few per cent away."""
    for length in range(count + count % 2, 2 * count + 2, 2):
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
    return count


def baseline(rng: Rng, travel_nm: Samples, sigma: float, *, strong: bool = False) -> Samples:
    """Tilt, slow bend, drift."""
    t = travel_nm / travel_nm[-1]
    tilt = log_uniform(rng, 0.3, 60.0) * travel_nm[-1] / 100.0 * (1.0 if strong else rng.random() ** 2)
    wander: Samples = min(tilt, 40.0 * sigma) * sign(rng) * t
    if strong or chance(rng, 0.4):
        size = sigma * log_uniform(rng, 0.3, 30.0 if strong else 5.0)
        for order in range(1, 5):
            wander += size * rng.normal() / order**1.5 * np.cos(np.pi * order * (t + rng.uniform(0, 0.3)))
    if chance(rng, 0.1):  # creep and thermal drift relax
        wander += log_uniform(rng, 10.0, 400.0) * sign(rng) * np.exp(-t / log_uniform(rng, 0.15, 1.5))
    return wander


def interference(rng: Rng, travel_nm: Samples, sigma: float, *, strong: bool = False) -> Samples:
    """Light reflected by the sample beats with that of the lever: a slow wave, growing or fading along the ramp."""
    size = log_uniform(rng, 3.0, 60.0) if strong else min(log_uniform(rng, 1.0, 60.0), 15.0 * sigma)
    period = log_uniform(rng, 100.0, 700.0)
    t = travel_nm / travel_nm[-1]
    envelope = 1.0 + rng.uniform(-0.7, 0.7) * t
    wave: Samples = size * envelope * np.sin(2.0 * np.pi * travel_nm / period + rng.uniform(0.0, 6.3))
    return wave


def spikes(rng: Rng, count: int, sigma: float, *, many: bool = False) -> Samples:
    """Electronic spikes, one to three samples wide."""
    out = np.zeros(count)
    for _ in range(round(log_uniform(rng, 1.0, 100.0 if many else 3.0))):
        at, width = int(rng.integers(0, count)), int(rng.integers(1, 4 if count > 600 else 2))
        out[at : at + width] += sigma * log_uniform(rng, 5.0, 60.0) * sign(rng)
    return out


def offset(rng: Rng) -> float:
    return -(10 ** rng.uniform(2.0, 4.1)) if chance(rng, 0.3) else float(rng.normal(0.0, 100.0))


def quantise(force: Samples, step: float) -> Samples:
    return np.round(force / step) * step


def lag(force: Samples, samples: float) -> Samples:
    """Cantilever and detector follow with a time constant, so that no snap is vertical for longer than they allow."""
    if samples < 0.25:
        return force
    taps = np.exp(-np.arange(int(5.0 * samples) + 2) / samples)
    padded = np.concatenate([np.full(len(taps) - 1, force[0]), force])
    return np.convolve(padded, taps / taps.sum(), mode="valid")
