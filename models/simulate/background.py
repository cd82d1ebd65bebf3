"""The background of a curve: where the surface lies, what it does to the tip, and every smooth force and fault.

It is drawn from the same distributions whatever the label, so that nothing but the event tells the labels apart.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from models.curve import Samples
from models.simulate import recording, surface
from models.simulate.mechanics import Rng, Rupture, chance, log_uniform, pick, sign
from models.simulate.recording import Instrument
from models.simulate.surface import Surface

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


def smooth_forces(rng: Rng, instrument: Instrument, past: Samples, kind: str) -> Samples:
    """Every smooth force and every fault of the baseline."""
    sigma, travel = instrument.noise_pn, instrument.travel_nm
    out = recording.baseline(rng, travel, sigma, strong=kind == "baseline_bend")
    if kind == "interference" or chance(rng, 0.4):
        out += recording.interference(rng, travel, sigma, strong=kind == "interference")
    if kind in {"long_range", "no_surface"} or chance(rng, 0.08):
        out += surface.long_range(rng, instrument, past)
    if kind == "drag" or chance(rng, 0.08):
        out += surface.drag(rng, instrument, past)
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
