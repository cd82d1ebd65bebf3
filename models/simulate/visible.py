"""Would an expert see this rupture? What nobody could see must not be called an event."""

from __future__ import annotations

import numpy as np

from models.curve import Samples
from models.simulate.molecules import Rupture

RESOLUTION = 512  # dots across a plot, columns of a screen: what is finer cannot be seen
_WIDTHS = (1, 2, 4, 8, 16, 32)  # in such dots
CONTRAST = 8.0  # step between neighbouring averages, in the scatter that such steps have anyway
DROP_SIGMA = 4.0  # step, in the noise of one sample
SHARE = 0.1  # step, in the level it starts from: a crack in a mountain is not an event


def visible(ruptures: tuple[Rupture, ...], tethers: Samples, clean: Samples, unrest: Samples) -> tuple[Rupture, ...]:
    """The ruptures whose step stands clear on some scale of length.

    All (n,), in pN: ``tethers`` is the force that molecules add as the detector shows it, ``clean`` the whole curve
    without noise, ``unrest`` all that moves without an event: noise, interference, bend.
    """
    if not ruptures:
        return ()
    dot = max(len(tethers) // RESOLUTION, 1)
    scatter = _scatter(unrest, dot)
    sums = np.concatenate([[0.0], np.cumsum(tethers)])
    least = DROP_SIGMA * scatter[0][2]
    floor = float(clean[-max(len(clean) // 10, 1) :].mean())
    return tuple(
        r
        for r in ruptures
        if _stands_out(r.index, sums, scatter, max(least, SHARE * abs(float(clean[r.index - 1]) - floor)))
    )


def _scatter(unrest: Samples, dot: int) -> list[tuple[int, float, float]]:
    """For each width in samples: the scatter of steps between neighbouring averages, and the noise of one sample."""
    sums = np.concatenate([[0.0], np.cumsum(unrest)])
    sigma = max(float(np.diff(unrest).std()) / np.sqrt(2.0), 1e-9)
    scatter = []
    for width in (dot * factor for factor in _WIDTHS):
        if len(unrest) < 8 * width:
            break
        scatter.append((width, max(float(np.diff(sums[::width], 2).std()) / width, 1e-9), sigma))
    return scatter


def _stands_out(index: int, sums: Samples, scatter: list[tuple[int, float, float]], least: float) -> bool:
    clear, high = False, False
    for width, rms, _ in scatter:
        left, right = index - width, index + 1 + width + width // 4
        if left < 0 or right >= len(sums):
            break
        step = (sums[index] - sums[left] - sums[right] + sums[right - width]) / width
        clear |= bool(step > CONTRAST * rms)
        high |= bool(step > least)
    return clear and high
