"""Bell-Evans: at which force a bond under a rising load breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from models.simulate.chains import KT_PN_NM


@dataclass(frozen=True, slots=True)
class Bond:
    """A bond with one barrier (Bell 1978; Evans & Ritchie 1997).

    Barrier distance: 0.1 to 1 nm over unfolding and unbinding (Evans 2001; Rief et al. 1997: 0.25 nm for titin).
    """

    barrier_nm: float
    off_rate_per_s: float  # without load

    def rupture_pn(self, rng: np.random.Generator, loading_pn_per_s: float) -> float:
        """A rupture force at a constant loading rate, drawn from the exact distribution.

        Its mode is (kT/x) ln(r x / (k0 kT)); its width is about kT/x.
        """
        scale = KT_PN_NM / self.barrier_nm
        ratio = loading_pn_per_s / (self.off_rate_per_s * scale)
        return scale * math.log1p(ratio * rng.standard_exponential())


def bond_with_mode(mode_pn: float, barrier_nm: float, loading_pn_per_s: float) -> Bond:
    """The bond whose most probable rupture force at this loading rate is ``mode_pn``."""
    scale = KT_PN_NM / barrier_nm
    return Bond(barrier_nm, loading_pn_per_s / scale * math.exp(-min(mode_pn / scale, 600.0)))
