"""The subject: a finished curve, simulated or measured, with what a nuisance must know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.curve import Curve, Samples
from models.frontend import Prepared, newton_per_unit
from models.simulate.draw import Rng
from models.simulate.ruptures import Rupture
from models.simulate.visible import visible


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A curve whose forces are known in piconewton and whose ramp is known in nanometres."""

    curve: Curve
    event: bool
    ruptures: tuple[Rupture, ...] | None  # in time order; None where nobody knows them
    system: str  # family of a simulated curve, experiment of a real one
    pn: float  # piconewton in one force_unit
    ramp_nm: float
    noise_pn: float  # rms of its averaged baseline
    contact: float  # share of the retract at which the push ends, as the front-end finds it

    @property
    def travel_nm(self) -> Samples:
        """(n,) since the turnaround, taken as even."""
        return np.linspace(0.0, self.ramp_nm, len(self.curve))

    @property
    def last(self) -> int | None:
        """The sample after which nothing breaks any more; None where nobody knows."""
        if self.ruptures:
            return self.ruptures[-1].index
        return None if self.event else int(self.contact * len(self.curve))


def subject_of(
    curve: Curve, prepared: Prepared, event: bool, ruptures: Sequence[Rupture] | None, system: str
) -> Subject | None:
    """None for a curve without a score, a calibration or a distance: what is to be added has units."""
    newton = newton_per_unit(curve)
    if prepared.noise is None or prepared.blocking or newton is None or curve.distance is None:
        return None
    known = None if ruptures is None else tuple(ruptures)
    pn, ramp_nm = newton * 1e12, float(np.ptp(curve.distance)) * 1e9
    if not (np.isfinite(ramp_nm) and ramp_nm > 0):
        return None
    return Subject(curve, event, known, system, pn, ramp_nm, prepared.noise * pn, prepared.contact or 0.0)


def is_visible(rng: Rng, subject: Subject, stressed: Curve) -> bool:
    """Whether an expert would still see a rupture, by the simulator's own rule with the added force in the unrest."""
    if not subject.ruptures:
        return False
    shown = subject.curve.force * subject.pn
    added = stressed.force[: len(shown)] * subject.pn - shown[: len(stressed)]
    own = rng.standard_normal(len(added)) * float(np.diff(shown).std()) / np.sqrt(2.0)
    return bool(visible(subject.ruptures, shown[: len(stressed)], shown[: len(stressed)], added + own))
