"""Would an expert see this rupture? What nobody could see must not be called an event."""

from __future__ import annotations

import math

import numpy as np

from models.curve import Samples
from models.simulate.ruptures import Rupture

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
