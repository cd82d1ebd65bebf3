"""The front-end: from a retract in SI units to a signal in units of its own noise (formats.md section 5).

Baseline level and noise come from the far end, where nothing should be attached any more (``models.baseline``).
Nothing is ever scaled by the largest force: one strong adhesion would hide every event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.baseline import HEAD, find_contact, level_of, noise_of, quiet_of, resample, tilt_of
from models.curve import Curve, Samples
from models.profile import RasterProfile
from models.quantile import median

MIN_POINTS = 64  # fewer cannot show a rupture; formats.md section 5.2, step 9
WRONG_END_SIGMA = 30.0  # pushing harder than this at the far end is a curve stored the wrong way round
RISE_SIGMA = 10.0  # over the last tenth, and bending upwards: a molecule being stretched
RESTLESS = 8.0  # times the noise before it: a far end that is no baseline but garbage
GAP_SIGMA = 30.0  # drag and drift leave less than this between approach and retract
LARGEST = 1e100  # in any unit; beyond it sums overflow
RAIL_SHARE = 0.01  # of samples that share the very largest pull: the detector was at its end

#: Reasons that make a score impossible: the curve goes to review without one.
BLOCKING = frozenset({"too_short", "nonfinite", "constant", "no_calibration", "orientation"})

#: Reasons that only inform, and those among them that lift a would-be discard to review.
#:
#: ===================  =====  ==================================================================
#: reason               floor  why
#: ===================  =====  ==================================================================
#: no_contact           no     the simulator makes such curves; a run of them raises an alarm
#: still_attached       yes    the molecule had not let go at the far end: its rupture is not in the file
#: noise_out_of_range   yes    wrong units or a broken detector; the model has not seen the like
#: saturated            yes    the pull is cut off at the detector's rail: peaks are missing
#: sign_assumed         no     the file does not say which way is pulling: both are judged (models.sign)
#: sign_turned          no     it was the way that the reader did not believe that scored higher (deploy.serving)
#: text_rule            no     the configuration said what the file does not: sign, columns or units
#: columns_assumed      yes    which column is force, which distance, is a guess
#: ends_missing         yes    part of the retract was never recorded: nor would an event be
#: flipped              yes    upside down it would be kept: the file's sign may be wrong (deploy.serving)
#: ===================  =====  ==================================================================
FLOOR = frozenset({"still_attached", "noise_out_of_range", "saturated", "columns_assumed", "ends_missing", "flipped"})

#: Notes of a reader that are reasons as they stand.
_NOTED = ("text_rule", "sign_assumed", "columns_assumed", "ends_missing")


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """One retract, ready for the raster."""

    signal: NDArray[np.float32] | None  # (n,), 2 W <= n <= samples of the profile, in profile units, baseline 0
    reasons: tuple[str, ...] = ()
    noise: float | None = None  # rms of the averaged baseline, in force_unit
    level: float | None = None  # of the baseline, in force_unit
    tilt: float | None = None  # of the baseline, in force_unit per whole signal; already taken away
    contact: float | None = None  # where along the retract contact ends, 0 to 1
    flipped: Prepared | None = None  # the same of the curve upside down, where that is to be judged too (models.sign)

    @property
    def blocking(self) -> bool:
        """No score can be made."""
        return self.signal is None


def prepare(curves: Sequence[Curve], profile: RasterProfile) -> list[Prepared]:
    """Each curve by itself: what stands beside it in the batch changes nothing."""
    return [_prepare(curve, profile) for curve in curves]


def _prepare(curve: Curve, profile: RasterProfile) -> Prepared:
    n = len(curve)
    if n < MIN_POINTS:
        return Prepared(None, ("too_short",))
    lowest, highest = float(curve.force.min()), float(curve.force.max())
    if not (abs(lowest) < LARGEST and abs(highest) < LARGEST):  # NaN compares false too
        return Prepared(None, ("nonfinite",))
    middle = float(curve.force[-(n // 10) :].mean())  # only so that sums of numbers far from zero keep their digits
    span = highest - lowest
    if span <= 1e-9 * abs(middle) or 1e-5 * span == 0.0:  # nothing above the smallest number there is
        return Prepared(None, ("constant",))
    newton = newton_per_unit(curve)
    if profile.scale == "pn" and newton is None:
        return Prepared(None, ("no_calibration",))
    force = curve.force - middle
    whole = resample(force, profile)
    noise = noise_of(whole)
    contact = find_contact(whole, max(noise, 1e-5 * span))
    first = first_shown(n, contact or 0.0, profile)
    averaged = resample(force[first:], profile) if first else whole
    noise = noise_of(averaged) if first else noise
    tilt = tilt_of(averaged, noise)
    if tilt:
        averaged = averaged - np.linspace(-tilt, 0.0, averaged.shape[0])
    level = level_of(averaged)
    before = quiet_of(averaged)
    quiet = noise < 1e-5 * span  # straight lines, or a tail of one value: simulated or broken
    garbage = before > 1e-5 * span and noise > RESTLESS * before
    noise = max(noise, 1e-5 * span)
    sigmas = (averaged - level) / noise
    reasons = [] if contact is not None else ["no_contact"]
    seen = (whole - level) / noise
    reasons += _look(seen)
    if _holds_on(curve, seen, middle + level, noise):
        reasons.append("still_attached")
    usual = newton is None or profile.noise_low_pn <= noise * newton * 1e12 <= profile.noise_high_pn
    if quiet or garbage or not usual:
        reasons.append("noise_out_of_range")
    if _at_rail(curve.force, middle, 20 * noise):
        reasons.append("saturated")
    reasons += [note for note in curve.notes if note in _NOTED]
    signal = sigmas if profile.scale == "sigma" else (averaged - level) * (newton or 1.0) * 1e12
    return Prepared(
        signal=None if BLOCKING.intersection(reasons) else signal.astype(np.float32),
        reasons=tuple(reasons),
        noise=noise,
        level=level + middle,
        tilt=tilt,
        contact=contact,
    )


def newton_per_unit(curve: Curve) -> float | None:
    """What turns the curve's force unit into newton; None where the file does not say enough."""
    if curve.force_unit == "N":
        return 1.0
    if curve.force_unit == "m" and curve.spring_constant_n_per_m:
        return curve.spring_constant_n_per_m
    if curve.force_unit == "V" and curve.spring_constant_n_per_m and curve.sensitivity_m_per_v:
        return curve.spring_constant_n_per_m * curve.sensitivity_m_per_v
    return None


def first_shown(n: int, push: float, profile: RasterProfile) -> int:
    """The first sample to show: a long indentation must not drive the events into a corner of the picture."""
    free = (1.0 - push) * n
    return max(0, min(int(push * n - free * profile.lead / (1.0 - profile.lead)), n - MIN_POINTS))


def _look(sigmas: Samples) -> list[str]:
    """Reasons that the shape of the whole retract gives."""
    head = max(int(HEAD * sigmas.shape[0]), 4)
    start, end = median(sigmas[:head]), float(sigmas[-head:].min())
    flat = float(np.ptp(sigmas[: 4 * head])) < 2 * WRONG_END_SIGMA and abs(start) < WRONG_END_SIGMA
    return ["orientation"] if flat and end < -WRONG_END_SIGMA else []


def _holds_on(curve: Curve, sigmas: Samples, level: float, noise: float) -> bool:
    """Whether something still pulls at the far end: ever more, or far above where the approach began.

    The rise over the last tenth must be twice that of the three before it, or every slow wave would be a molecule.
    """
    tenth = sigmas.shape[0] // 10
    levels = [median(sigmas[sigmas.shape[0] - back :][:8]) for back in (4 * tenth, 3 * tenth, 2 * tenth, tenth, 8)]
    *before, last = (later - earlier for earlier, later in pairwise(levels))
    if last > RISE_SIGMA and last > 2 * max(map(abs, before)):
        return True
    approach = curve.approach_force
    if approach is None or approach.shape[0] < MIN_POINTS or not np.isfinite(approach[: approach.shape[0] // 10]).all():
        return False
    return (level - median(approach[: approach.shape[0] // 10])) / noise > GAP_SIGMA


def _at_rail(force: Samples, middle: float, clear: float) -> bool:
    """At least 1 % of the samples sit at exactly the largest pull, clear of the noise."""
    highest = float(force.max())
    return highest - middle > clear and np.count_nonzero(force == highest) >= max(RAIL_SHARE * force.shape[0], 8)
