"""A rupture, and the force of whatever holds tip and surface together until it happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.curve import Samples


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
