"""A nuisance: what may be wrong with a curve, at strengths that are written in a unit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.curve import Curve
from models.simulate.draw import Rng
from models.stress.subject import Subject

#: The curve with the nuisance laid on, at a strength; None where it cannot be laid on this one.
Apply = Callable[[Rng, Subject, float], Curve | None]


@dataclass(frozen=True, slots=True)
class Nuisance:
    """Each draw depends on the generator alone, so that one seed turned up is one curve getting worse."""

    unit: str
    strengths: tuple[float, ...]
    apply: Apply
    adds: bool = False  # a force all along, under which a small rupture may be buried from every eye
