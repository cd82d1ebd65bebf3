"""Elasticity of what is pulled: extension per contour length as a function of force.

Each model is a table ``relative extension(force)``, strictly growing, so that a chain in series with the
cantilever spring (piezo travel = extension + force / k) is inverted by one linear interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.curve import Samples

KT_PN_NM = 4.11  # thermal energy at 298 K

#: Force grid of every table, pN: fine where tethers live, up to where covalent bonds break (~2 nN).
FORCE_PN = np.concatenate([[0.0], np.geomspace(0.02, 4000.0, 191)])


def _marko_siggia() -> tuple[Samples, Samples]:
    """(reduced force F p / kT, relative extension) of the worm-like chain."""
    u = 1.0 - np.geomspace(1.0, 2e-3, 400)
    return 0.25 / (1.0 - u) ** 2 - 0.25 + u, u


_WLC_FORCE, _WLC_EXTENSION = _marko_siggia()


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """``relative[i]`` is extension / contour length at ``FORCE_PN[i]``."""

    name: str
    relative: Samples

    def extension_nm(self, force_pn: float, contour_nm: float) -> float:
        return contour_nm * float(np.interp(force_pn, FORCE_PN, self.relative))

    def contour_nm(self, force_pn: float, extension_nm: float) -> float:
        """The contour length that carries ``force_pn`` at ``extension_nm``."""
        return extension_nm / max(float(np.interp(force_pn, FORCE_PN, self.relative)), 1e-3)

    def stiffness(self, force_pn: float, contour_nm: float) -> float:
        """dF/dx at a force, pN/nm."""
        step = 0.02 * force_pn + 0.1
        rise = self.extension_nm(force_pn + step, contour_nm) - self.extension_nm(force_pn, contour_nm)
        return step / max(rise, 1e-9)

    def pull(self, travel_nm: Samples, contour_nm: float, spring: float) -> Samples:
        """Force at each piezo travel past the anchor; ``spring`` in pN/nm."""
        force: Samples = np.interp(travel_nm, self.relative * contour_nm + FORCE_PN / spring, FORCE_PN)
        return force


def worm_like(persistence_nm: float, modulus_pn: float = 1e4) -> Chain:
    """Extensible worm-like chain (Marko & Siggia 1995; stretch modulus: Odijk 1995).

    Proteins p = 0.3 to 0.5 nm; DNA p = 45 to 50 nm, modulus about 1000 pN (Smith, Cui & Bustamante 1996).
    """
    bent = np.interp(FORCE_PN * persistence_nm / KT_PN_NM, _WLC_FORCE, _WLC_EXTENSION)
    return Chain("wlc", bent + FORCE_PN / modulus_pn)


def freely_jointed(kuhn_nm: float, modulus_pn: float = 2e4) -> Chain:
    """Extensible freely jointed chain (Smith, Cui & Bustamante 1996); PEG: Kuhn length 0.7 nm (Oesterhelt 1999)."""
    a = FORCE_PN * kuhn_nm / KT_PN_NM
    langevin = np.divide(1.0, np.tanh(np.maximum(a, 1e-6))) - 1.0 / np.maximum(a, 1e-6)
    langevin = np.where(a < 1e-2, a / 3.0, langevin)
    return Chain("fjc", langevin * (1.0 + FORCE_PN / modulus_pn))


def overstretching(force_pn: float, width_pn: float) -> Chain:
    """Double-stranded DNA with its overstretch plateau: 65 pN, 1.7 times the contour (Smith et al. 1996; Rief 1999)."""
    dna = worm_like(47.0, 1000.0)
    gain = 0.7 / (1.0 + np.exp(-(FORCE_PN - force_pn) / width_pn).clip(1e-12, 1e12))
    return Chain("dna", dna.relative + gain)


# Bell-Evans: at which force a bond under a rising load breaks.


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


# Small draws shared by all parts of the simulator.

Rng = np.random.Generator


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """Every factor equally likely: for quantities known only to within decades."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def chance(rng: Rng, probability: float) -> bool:
    return bool(rng.random() < probability)


def sign(rng: Rng) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def pick(rng: Rng, weights: Mapping[str, float]) -> str:
    """One key, with a probability proportional to its weight."""
    mark = rng.random() * sum(weights.values())
    for name, weight in weights.items():
        mark -= weight
        if mark < 0.0:
            return name
    return next(reversed(list(weights)))


# A rupture, and the force of whatever holds tip and surface together until it happens.


@dataclass(frozen=True, slots=True)
class Rupture:
    """One discrete drop of the force."""

    index: int  # first sample after it
    force_pn: float  # true force on what broke, just before
    contour_length_nm: float | None  # of the chain that carried it


@dataclass(frozen=True, slots=True, eq=False)
class Pulled:
    force: Samples  # (n,) pN
    ruptures: tuple[Rupture, ...]


def join(parts: Sequence[Pulled]) -> Pulled:
    force = np.sum([part.force for part in parts], axis=0)
    return Pulled(force, tuple(sorted((r for part in parts for r in part.ruptures), key=lambda r: r.index)))
