"""The background of a curve: where the surface lies, what it does to the tip, and every smooth force and fault.

It is drawn from the same distributions whatever the label, so that nothing but the event tells the labels apart. No
event is made here.

| quantity | range | source |
|---|---|---|
| adhesion | 2 sigma to 3 nN | snap-offs of 20 pN to 1 nN in public data, stronger on cells and in air |
| a snap-off ends | within 30 nm of tip-sample distance | definition of the labels: later ruptures count |
| viscous fade | 5 nm to 30 % of the ramp | soft vesicles, chromosomes, polymer cushions |
| Hertz prefactor | 0.008 to 10 pN/nm^1.5 | E = 0.5 to 100 kPa, R = 20 nm to 2.5 um (Hertz 1881; Radmacher 1997) |
| electrostatic decay | 5 to 400 nm | Debye length up to far fields of charged holders (Butt, Cappella & Kappl 2005) |
| drag near a wall | height scale 50 to 2000 nm | lubrication of the lever (Alcaraz et al. 2002) |
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from models.curve import Samples
from models.simulate import recording
from models.simulate.mechanics import Rng, Rupture, chance, log_uniform, pick, sign
from models.simulate.recording import Instrument

_PUSH_PN = np.concatenate([[0.0], np.geomspace(0.05, 3e5, 120)])


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """What the surface does to the tip."""

    force: Samples  # (n,) pN, pulling positive
    end_nm: float  # travel past contact at which its last sharp feature ends
    peak_pn: float = 0.0  # of its sharp or ragged adhesion


def contact(rng: Rng, instrument: Instrument, *, soft: bool) -> Samples:
    """The repulsive part, ``-k`` times the depth, or Hertz indentation in series with the spring."""
    depth = np.maximum(instrument.contact_nm - instrument.travel_nm, 0.0)
    if not soft:
        return -instrument.spring * depth
    prefactor = log_uniform(rng, 0.008, 10.0)
    exponent = rng.uniform(1.0, 2.0)  # cone 2, paraboloid 1.5, flat punch 1
    depths = _PUSH_PN / instrument.spring + (_PUSH_PN / prefactor) ** (1.0 / exponent)
    force: Samples = -np.interp(depth, depths, _PUSH_PN)
    return force


def _snap(past: Samples, start: float, end: float, peak: float, roundness: float) -> Samples:
    """A rise from ``start`` that ends in a vertical drop at ``end`` (travel past contact)."""
    t = (past - start) / (end - start)
    inside = (t > 0.0) & (t < 1.0)
    rise = np.zeros_like(past)
    rise[inside] = peak * (1.0 - (1.0 - t[inside]) ** roundness)
    return rise


def _reach(rng: Rng, instrument: Instrument, peak: float, limit: float) -> tuple[float, float]:
    """(peak, travel) of a snap-off: the cantilever's own line, or that of a softer sample."""
    stiffness = instrument.spring * (1.0 if chance(rng, 0.6) else log_uniform(rng, 0.3, 1.0))
    width = min(peak / stiffness, limit, 0.1 * instrument.ramp_nm, 0.5 * instrument.room_nm)
    return min(peak, width * stiffness * 1.2), max(width, 0.5)


def _peak(rng: Rng, instrument: Instrument) -> float:
    low = 2.0 * instrument.noise_pn
    return log_uniform(rng, low, max(3000.0, 2.0 * low)) if chance(rng, 0.5) else low * log_uniform(rng, 1.0, 20.0)


def snap_off(rng: Rng, instrument: Instrument, past: Samples, limit_nm: float) -> Surface:
    """One adhesion peak with a vertical end; often with a smooth tail after it."""
    peak, end = _reach(rng, instrument, _peak(rng, instrument), limit_nm)
    force = _snap(past, 0.0, end, peak, rng.uniform(1.0, 2.5))
    if chance(rng, 0.4):
        after = past >= end
        tail = peak * rng.uniform(0.02, 0.35)
        force[after] += tail * np.exp(-(past[after] - end) / log_uniform(rng, 3.0, max(60.0, 0.4 * instrument.ramp_nm)))
    return Surface(force, end, peak)


def ragged(rng: Rng, instrument: Instrument, past: Samples) -> Surface:
    """Adhesion that lets go in two to five merged drops within the first 28 nm."""
    limit = min(28.0, 0.07 * instrument.ramp_nm, 0.4 * instrument.room_nm)
    ends = np.sort(rng.uniform(0.15, 1.0, int(rng.integers(2, 6)))) * limit
    peak, _ = _reach(rng, instrument, _peak(rng, instrument), limit)
    force = np.zeros_like(past)
    for end in ends:
        start = end * rng.uniform(0.0, 0.7)
        force += _snap(past, start, end, peak * rng.uniform(0.25, 1.0), rng.uniform(1.0, 2.5))
    return Surface(force, float(ends[-1]), peak)


def _wander(rng: Rng, past: Samples, grain_nm: float) -> Samples:
    """A smooth random curve of about unit size that changes over ``grain_nm``."""
    count = min(int(past[-1] / grain_nm) + 2, 400)
    knots = np.convolve(rng.standard_normal(count + 2), (0.35, 0.7, 0.35), mode="same")
    smooth: Samples = np.interp(past, np.arange(count + 2) * grain_nm, knots)
    return smooth


def _patches(rng: Rng, past: Samples, width: float, shortest_nm: float) -> Samples:
    """Patches that peel after the hump, relative to its height: rounded, falling faster than they rise, no step."""
    total = np.zeros_like(past)
    for _ in range(int(rng.integers(1, 4))):
        place, rise = width * log_uniform(rng, 1.5, 8.0), width * log_uniform(rng, 0.3, 2.0)
        fall = max(rise * rng.uniform(0.3, 1.0), shortest_nm)
        t = (past - place) / np.where(past < place, rise, fall)
        total += log_uniform(rng, 0.02, 0.3) * np.exp(-t * t) * (past > 0.0)
    return total


def _crumble(rng: Rng, past: Samples, hump: Samples, width: float, shortest_nm: float) -> Samples:
    """A soft body tears off its last hold in drops that are small beside its peak, one close behind the other."""
    peak = float(hump.max())
    kept = np.ones_like(past)
    for place in width * (1.0 + np.sort(rng.random(int(rng.integers(2, 9)))) * log_uniform(rng, 1.0, 6.0)):
        at = min(int(np.searchsorted(past, place)), len(past) - 1)
        level = float(hump[at] * kept[at])
        drop = min(rng.uniform(0.2, 1.0) * level, log_uniform(rng, 0.02, 0.15) * peak)
        fall = shortest_nm * log_uniform(rng, 0.1, 2.0)
        kept *= 1.0 - drop / max(level, 1e-9) * np.clip((past - place) / fall, 0.0, 1.0)
    return hump * kept


def fade(rng: Rng, instrument: Instrument, past: Samples) -> Surface:
    """A viscous hump that rises and fades with no rupture of its own; smooth, restless, rippled or crumbling."""
    peak = _peak(rng, instrument)
    width = log_uniform(rng, 5.0, max(0.15 * instrument.room_nm, 8.0))
    t = np.maximum(past, 0.0) / width
    hump = peak * (t * np.exp(1.0 - t)) ** log_uniform(rng, 0.5, 3.0)
    if chance(rng, 0.35):  # a slow shoulder under the hump
        hump += 0.3 * rng.random() * peak * np.minimum(t, 1.0) * np.exp(-np.maximum(t - 1.0, 0.0) / rng.uniform(2, 8))
    if chance(rng, 0.4):  # peeling: restless, without a sharp step
        hump *= 1.0 + log_uniform(rng, 0.02, 0.2) * _wander(rng, past, width * rng.uniform(0.1, 0.6))
    elif chance(rng, 0.1):  # regular stick-slip
        ripple = np.sin(2.0 * np.pi * past / (width * rng.uniform(0.05, 0.5)) + rng.uniform(0, 6))
        hump *= 1.0 + rng.uniform(0.05, 0.5) * ripple
    if chance(rng, 0.4):
        hump += peak * _patches(rng, past, width, 0.01 * instrument.ramp_nm)
    if chance(rng, 0.5):
        hump = _crumble(rng, past, hump, width, 0.01 * instrument.ramp_nm)
    return Surface(hump, 0.0)


def long_range(rng: Rng, instrument: Instrument, past: Samples) -> Samples:
    """Electrostatic or other smooth attraction (rarely repulsion) that decays away from the surface."""
    strength = instrument.noise_pn * log_uniform(rng, 1.0, 40.0) * (1.0 if chance(rng, 0.75) else -1.0)
    reach = log_uniform(rng, 5.0, 400.0)
    gap = np.maximum(past, 0.0)
    return strength * (np.exp(-gap / reach) if chance(rng, 0.5) else (1.0 + gap / reach) ** -2)


def drag(rng: Rng, instrument: Instrument, past: Samples) -> Samples:
    """Hydrodynamic drag on the lever, larger near the wall."""
    strength = instrument.noise_pn * log_uniform(rng, 0.5, 15.0)
    return strength / (1.0 + np.maximum(past, 0.0) / log_uniform(rng, 50.0, 2000.0)) * sign(rng)


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
    repulsion = contact(rng, instrument, soft=kind == "soft_indentation" or chance(rng, 0.2))
    if kind == "contact" or (kind not in _ADHESIONS and chance(rng, 0.3)):
        return Surface(repulsion, 0.0)
    adhesion = kind if kind in _ADHESIONS else pick(rng, _ADHESIONS)
    if kind == "soft_indentation":
        adhesion = "viscous_fade"
    if adhesion == "double_snap_off":
        pulled = ragged(rng, instrument, past)
    elif adhesion == "viscous_fade":
        pulled = fade(rng, instrument, past)
    else:
        pulled = snap_off(rng, instrument, past, 60.0 if adhesion == "snap_off_wide" else 25.0)
    return replace(pulled, force=repulsion + pulled.force)


def smooth_forces(rng: Rng, instrument: Instrument, past: Samples, kind: str) -> Samples:
    """Every smooth force and every fault of the baseline."""
    sigma, travel = instrument.noise_pn, instrument.travel_nm
    out = recording.baseline(rng, travel, sigma, strong=kind == "baseline_bend")
    if kind == "interference" or chance(rng, 0.4):
        out += recording.interference(rng, travel, sigma, strong=kind == "interference")
    if kind in {"long_range", "no_surface"} or chance(rng, 0.08):
        out += long_range(rng, instrument, past)
    if kind == "drag" or chance(rng, 0.08):
        out += drag(rng, instrument, past)
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


# Would an expert see this rupture? What nobody could see must not be called an event.

RESOLUTION = 512  # dots across a plot, columns of a screen: what is finer cannot be seen
_WIDTHS = (1, 2, 4, 8, 16, 32)  # in such dots
END_DOTS = 6  # what is nearer to the end of the ramp shows no level after it
CONTRAST = 8.0  # step between neighbouring averages, in the scatter that such steps have anyway
DROP_SIGMA = 4.0  # step, in the noise of one dot
SHARE = 0.1  # step, in the level it starts from: a crack in a mountain is not an event
WAVE = 0.3  # step, in the rms of all unrest about its own line: nor is a notch in the swell


def visible(ruptures: tuple[Rupture, ...], tethers: Samples, clean: Samples, unrest: Samples) -> tuple[Rupture, ...]:
    """The ruptures whose step stands clear on some scale of length.

    All (n,), in pN: ``tethers`` is the force that molecules add as the detector shows it, ``clean`` the whole curve
    without noise, ``unrest`` all that moves without an event: noise, spikes, interference, bend.
    """
    if not ruptures:
        return ()
    dot = max(len(tethers) // RESOLUTION, 1)
    scatter = _scatter(unrest, dot)
    sums = np.concatenate([[0.0], np.cumsum(tethers)])
    least = max(DROP_SIGMA * scatter[0][1] / math.sqrt(2.0), WAVE * _swell(unrest))
    floor = float(clean[-max(len(clean) // 10, 1) :].mean())
    return tuple(
        r
        for r in ruptures
        if r.index < len(tethers) - END_DOTS * dot
        and _stands_out(r.index, sums, scatter, max(least, SHARE * abs(float(clean[r.index - 1]) - floor)))
    )


def _swell(unrest: Samples) -> float:
    """The rms about a straight line; a tilt alone is no swell."""
    count = len(unrest)
    x = np.arange(count) - (count - 1) / 2
    rest = unrest - unrest.mean()
    return float((rest - x * (float(rest @ x) / float(x @ x))).std())


def _scatter(unrest: Samples, dot: int) -> list[tuple[int, float]]:
    """Widths in samples, each with the scatter of steps between neighbouring averages of that width."""
    sums = np.concatenate([[0.0], np.cumsum(unrest)])
    scatter: list[tuple[int, float]] = []
    for width in (dot * factor for factor in _WIDTHS):
        if scatter and len(unrest) < 8 * width:
            break
        scatter.append((width, max(float(np.diff(sums[::width], 2).std()) / width, 1e-9)))
    return scatter


def _stands_out(index: int, sums: Samples, scatter: list[tuple[int, float]], least: float) -> bool:
    high = False
    for width, rms in scatter:
        left, right = index - width, index + 1 + width + width // 4
        if left < 0 or right >= len(sums):
            break
        step = (sums[index] - sums[left] - sums[right] + sums[right - width]) / width
        high |= step > least
        if high and step > max(CONTRAST * rms, 0.5 * least):
            return True
    return False
