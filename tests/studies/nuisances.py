"""The stress: one nuisance at a graded strength, laid on a finished curve, whether simulated or measured.

The simulator mixes all nuisances at random; here one at a time is turned up, so that a table can say from which
strength on it would cost an event. Whatever the nuisance, the ruptures stay in the curve, except in the two that cut
them off and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.curve import Curve, Prepared, Samples
from models.frontend import MIN_POINTS, newton_per_unit
from models.simulate import recording
from models.simulate.background import END_DOTS, RESOLUTION, visible
from models.simulate.mechanics import Rng, Rupture, log_uniform, sign

# The subject: a finished curve, simulated or measured, with what a nuisance must know of it.


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


# Forces that a nuisance adds to a curve, all along it or in one place.

SHORTEST_NM, LONGEST_NM = 100.0, 700.0  # periods of interference (models.simulate.recording)


def add(subject: Subject, force_pn: Samples) -> Curve:
    """The curve with (n,) piconewton more."""
    return replace(subject.curve, force=subject.curve.force + force_pn / subject.pn)


def wave(rng: Rng, subject: Subject, amplitude_pn: float, period_nm: float) -> Samples:
    """(n,) a wave that grows or fades along the ramp, ``amplitude_pn`` at its largest."""
    travel = subject.travel_nm
    envelope = 1.0 + rng.uniform(-0.7, 0.7) * travel / subject.ramp_nm
    angle = 2.0 * np.pi * travel / period_nm + rng.uniform(0.0, 2.0 * np.pi)
    grown: Samples = amplitude_pn * envelope / envelope.max() * np.sin(angle)
    return grown


def interfere(rng: Rng, subject: Subject, strength: float) -> Curve:
    """A wave with any of the usual periods; amplitude in pN."""
    return add(subject, wave(rng, subject, strength, log_uniform(rng, SHORTEST_NM, LONGEST_NM)))


def interfere_shortly(rng: Rng, subject: Subject, strength: float) -> Curve:
    """The worst of them: the shortest period; amplitude in pN."""
    return add(subject, wave(rng, subject, strength, SHORTEST_NM))


def interfere_in_sigma(rng: Rng, subject: Subject, strength: float) -> Curve:
    """Amplitude in the curve's own noise."""
    return interfere(rng, subject, strength * subject.noise_pn)


def tilt(rng: Rng, subject: Subject, strength: float) -> Curve:
    """A straight line, up or down; pN per 100 nm."""
    return add(subject, sign(rng) * strength / 100.0 * subject.travel_nm)


def drift(rng: Rng, subject: Subject, strength: float) -> Curve:
    """A lever that relaxes, as after a change of temperature: an exponential that falls by ``strength`` pN."""
    t = subject.travel_nm / subject.ramp_nm
    decay = np.exp(-t / log_uniform(rng, 0.15, 1.5))
    return add(subject, sign(rng) * strength * (decay - decay[-1]) / (decay[0] - decay[-1]))


def roughen(rng: Rng, subject: Subject, strength: float) -> Curve:
    """Coloured noise of ``strength`` sigma."""
    return add(subject, strength * subject.noise_pn * recording.noise(rng, len(subject.curve)))


def spike(rng: Rng, subject: Subject, strength: float) -> Curve:
    """``strength`` electronic spikes of one to three samples and 5 to 60 sigma, up or down."""
    force, n = np.zeros(len(subject.curve)), len(subject.curve)
    for at in rng.integers(0, n, int(strength)):
        force[at : at + int(rng.integers(1, 4))] = sign(rng) * subject.noise_pn * log_uniform(rng, 5.0, 60.0)
    return add(subject, force)


def adhere(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """One more snap-off of ``strength`` pN: within 15 nm of the contact and half of the way to the first rupture."""
    travel, start = subject.travel_nm, subject.contact * subject.ramp_nm
    room = min(15.0, 0.05 * subject.ramp_nm)
    if subject.event:
        if not subject.ruptures:
            return None
        room = min(room, 0.5 * (float(travel[subject.ruptures[0].index - 1]) - start))
    if room < 2.0:
        return None
    along = (travel - start) / room
    return add(subject, strength * np.where((along > 0.0) & (along < 1.0), along, 0.0))


def snap_in(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """The tip jumps onto the surface at the end of the approach, ``strength`` pN deep."""
    approach = subject.curve.approach_force
    if approach is None:
        return None
    gap = np.linspace(subject.ramp_nm, 0.0, approach.shape[0])
    pull = strength * np.exp(-gap / log_uniform(rng, 1.0, 20.0))
    return replace(subject.curve, approach_force=approach + pull / subject.pn)


# A nuisance: what may be wrong with a curve, at strengths that are written in a unit.

#: The curve with the nuisance laid on, at a strength; None where it cannot be laid on this one.
Apply = Callable[[Rng, Subject, float], Curve | None]


@dataclass(frozen=True, slots=True)
class Nuisance:
    """Each draw depends on the generator alone, so that one seed turned up is one curve getting worse."""

    unit: str
    strengths: tuple[float, ...]
    apply: Apply
    adds: bool = False  # a force all along, under which a small rupture may be buried from every eye


# Faults of the record: it ends early, its end holds what was never measured, or it begins deep in contact.

CLEAR = (END_DOTS + 0.5) / RESOLUTION  # of the record: nearer to its end a step shows no level after it


def cut(curve: Curve, stop: int) -> Curve:
    """The first ``stop`` samples."""
    distance = None if curve.distance is None else curve.distance[:stop]
    return replace(curve, force=curve.force[:stop], distance=distance)


def cut_share(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """The last ``strength`` % of the retract were never recorded, though every rupture was."""
    n = len(subject.curve)
    stop, last = round(n * (1.0 - strength / 100.0)), subject.last
    return None if last is None or stop < max(last + CLEAR * n, MIN_POINTS) else cut(subject.curve, stop)


def cut_close(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """The record ends ``strength`` % of the ramp after the last rupture, or after the contact where none is."""
    n, last = len(subject.curve), subject.last
    stop = None if last is None else round(last + strength / 100.0 * n)
    return None if stop is None or not MIN_POINTS <= stop <= n else cut(subject.curve, stop)


def cut_before_last(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """The record ends ``strength`` % of the ramp before the last of several ruptures: the others are in it."""
    found, n = subject.ruptures or (), len(subject.curve)
    if len(found) < 2:
        return None
    stop = round(found[-1].index - strength / 100.0 * n)
    return None if stop < max(found[-2].index + CLEAR * n, MIN_POINTS) else cut(subject.curve, stop)


def cut_before_only(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """The record ends ``strength`` % of the ramp before the only rupture: a molecule is pulled, nothing breaks."""
    found, n = subject.ruptures or (), len(subject.curve)
    if len(found) != 1:
        return None
    stop = round(found[0].index - strength / 100.0 * n)
    return None if stop < max((subject.contact + CLEAR) * n, MIN_POINTS) else cut(subject.curve, stop)


def _end_in(subject: Subject, strength: float, tail: Callable[[int], Samples]) -> Curve | None:
    """The last ``strength`` % replaced, where nothing had broken after."""
    n, last = len(subject.curve), subject.last
    stop = round(n * (1.0 - strength / 100.0))
    if last is None or stop < last + CLEAR * n:
        return None
    return replace(subject.curve, force=np.concatenate((subject.curve.force[:stop], tail(n - stop))))


def hold_tail(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """One value over and over."""
    value = subject.curve.force[round(len(subject.curve) * (1.0 - strength / 100.0)) - 1]
    return _end_in(subject, strength, lambda count: np.full(count, value))


def zero_tail(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """Zeros: space that was reserved and never written."""
    return _end_in(subject, strength, np.zeros)


def garbage_tail(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """Random numbers within 1 nN."""
    return _end_in(subject, strength, lambda count: rng.uniform(-1000.0, 1000.0, count) / subject.pn)


def push_longer(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """A push before the curve, so that contact ends at ``strength`` % of the ramp."""
    curve, n = subject.curve, len(subject.curve)
    more = round((strength / 100.0 - subject.contact) * n / (1.0 - strength / 100.0))
    if more < 1 or subject.contact == 0.0:
        return None
    depth_nm = subject.ramp_nm / (n - 1) * np.arange(more, 0, -1)
    stiffness = 1e3 * (curve.spring_constant_n_per_m or 0.02)  # pN/nm
    push = float(curve.force[0]) + (rng.normal(0.0, subject.noise_pn, more) - stiffness * depth_nm) / subject.pn
    distance = curve.distance
    if distance is not None:
        distance = np.concatenate((distance[0] - 1e-9 * depth_nm, distance))
    return replace(curve, force=np.concatenate((push, curve.force)), distance=distance)


def lay_everything(rng: Rng, subject: Subject, strength: float) -> Curve | None:
    """Wave, tilt, drift and spikes at ``strength`` % of 60 pN, 60 pN/100 nm, 100 pN and 20; then the end is cut."""
    share = strength / 100.0
    period_nm = float(rng.uniform(SHORTEST_NM, LONGEST_NM))
    worse = replace(subject, curve=add(subject, wave(rng, subject, 60.0 * share, period_nm)))
    worse = replace(worse, curve=add(worse, sign(rng) * 0.6 * share * subject.travel_nm))
    worse = replace(worse, curve=drift(rng, worse, 100.0 * share))
    worse = replace(worse, curve=spike(rng, worse, 20.0 * share))
    return cut_close(rng, worse, 100.0 - 90.0 * share) or worse.curve


__all__ = ["NUISANCES", "Nuisance", "Subject", "is_visible", "subject_of"]

_PERCENT = (5.0, 10.0, 20.0, 40.0, 60.0)

#: Strengths as real files have them (models.simulate.recording), and beyond.
NUISANCES: dict[str, Nuisance] = {
    "interference": Nuisance("pN", (5.0, 10.0, 20.0, 40.0, 60.0), interfere, adds=True),
    "interference of 100 nm": Nuisance("pN", (5.0, 10.0, 20.0, 40.0, 60.0), interfere_shortly, adds=True),
    "interference in noise": Nuisance("sigma", (1.0, 3.0, 10.0, 30.0), interfere_in_sigma, adds=True),
    "tilt": Nuisance("pN/100 nm", (3.0, 10.0, 20.0, 40.0, 60.0), tilt, adds=True),
    "drift": Nuisance("pN", (10.0, 30.0, 100.0, 300.0), drift, adds=True),
    "coloured noise": Nuisance("sigma", (0.5, 1.0, 2.0, 4.0), roughen, adds=True),
    "spikes": Nuisance("spikes", (1.0, 5.0, 20.0, 100.0), spike),
    "snap-off": Nuisance("pN", (100.0, 300.0, 1000.0, 3000.0), adhere),
    "snap-in": Nuisance("pN", (100.0, 1000.0), snap_in),
    "retract cut": Nuisance("% gone", _PERCENT, cut_share),
    "baseline missing": Nuisance("% left", (20.0, 10.0, 5.0, 2.0), cut_close),
    "cut before the last": Nuisance("% of ramp", (1.0, 5.0, 20.0), cut_before_last),
    "cut before the only": Nuisance("% of ramp", (1.0, 5.0, 20.0), cut_before_only),
    "held tail": Nuisance("%", _PERCENT, hold_tail),
    "zero tail": Nuisance("%", _PERCENT, zero_tail),
    "garbage tail": Nuisance("%", _PERCENT, garbage_tail),
    "contact": Nuisance("% of ramp", (20.0, 40.0, 60.0, 80.0), push_longer),
    "all together": Nuisance("%", (25.0, 50.0, 100.0), lay_everything, adds=True),
}
