"""Would an expert see this rupture? What nobody could see must not be called an event."""

from __future__ import annotations

import numpy as np

from models.curve import Samples
from models.simulate.molecules import Rupture

_WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)
CONTRAST = 6.0  # step between neighbouring averages, in the scatter such steps have in the noise alone
DROP_SIGMA = 3.3


def visible(ruptures: tuple[Rupture, ...], force: Samples, noise: Samples) -> tuple[Rupture, ...]:
    """The ruptures whose step stands clear of the noise on some time scale, and is at least 3.3 sigma high.

    ``force`` (n,) is the clean force of the tethers as the detector shows it, ``noise`` (n,) what is added to it.
    """
    if not ruptures:
        return ()
    scatter = _scatter(noise)
    sums = np.concatenate([[0.0], np.cumsum(force)])
    sigma = max(float(noise.std()), 1e-9)
    return tuple(r for r in ruptures if _stands_out(r.index, sums, scatter, sigma))


def _scatter(noise: Samples) -> dict[int, float]:
    """For each width the rms difference between neighbouring block averages."""
    sums = np.concatenate([[0.0], np.cumsum(noise)])
    scatter = {}
    for width in _WIDTHS:
        if len(noise) < 8 * width:
            break
        steps = np.diff(np.diff(sums[::width])) / width
        scatter[width] = max(float(np.sqrt(np.mean(steps * steps))), 1e-9)
    return scatter


def _stands_out(index: int, sums: Samples, scatter: dict[int, float], sigma: float) -> bool:
    clear, high = False, False
    for width, rms in scatter.items():
        guard = 1 + width // 4
        left, right = index - width, index + guard + width
        if left < 0 or right >= len(sums):
            break
        step = (sums[index] - sums[left] - sums[right] + sums[right - width]) / width
        clear |= bool(step > CONTRAST * rms)
        high |= bool(step > DROP_SIGMA * sigma)
    return clear and high
