"""The front-end: from a retract in SI units to a signal in units of its own noise.

Baseline level and noise come from the far end, where nothing should be attached any more.
Nothing is ever scaled by the largest force: one strong adhesion would hide every event.

A curve whose sign is open is prepared both ways, and the judge takes the larger score. Of all others a fixed share is
prepared upside down as well, so that a format whose sign is read wrong, or whose writer has changed it, does not lose
events in silence (deploy/decisions/0011).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.curve import Curve, Original, Prepared, Samples
from models.raster import ForceLabel, PreviewAxes, RasterProfile
from models.reasons import BLOCKING, LIFTING, NOTED

MIN_POINTS = 64  # fewer cannot show a rupture
WRONG_END_SIGMA = 30.0  # pushing harder than this at the far end is a curve stored the wrong way round
RISE_SIGMA = 10.0  # over the last tenth, and bending upwards: a molecule being stretched
OPEN = "sign_assumed"
SPOT = 50  # one curve in so many is checked, though nothing speaks against its sign
_LOOKED_AT = 256  # samples, at least, that choose whether it is this one
RESTLESS = 8.0  # times the noise before it: a far end that is no baseline but garbage
GAP_SIGMA = 30.0  # drag and drift leave less than this between approach and retract
LARGEST = 1e100  # in any unit; beyond it sums overflow
RAIL_SHARE = 0.01  # of samples that share the very largest pull: the detector was at its end

FAR_END = 0.4  # share of the retract in which the noise is looked for
LEVEL_END = 0.1  # share of the retract whose median is the baseline level
BLOCKS = 48  # in which the push is looked for
WINDOW = 16  # samples of a noise window
STRETCHES = 16  # in which the tilt is looked for, in the far half of them
TILT_SIGMA = 12.0  # per whole signal; about three standard errors
HEAD = 0.02  # share of the retract that is the turnaround
CONTACT_SIGMA = 5.0  # pushing harder than this is contact

_FEW = 16  # values
_ACROSS = np.arange(WINDOW) - (WINDOW - 1) / 2  # a window's samples, counted from its middle
_SQUARES = _ACROSS @ _ACROSS
_BEFORE = np.arange(1, BLOCKS - 1)  # blocks before each


def prepare(curves: Sequence[Curve], profile: RasterProfile) -> list[Prepared]:
    """Each curve by itself: what stands beside it in the batch changes nothing. Of a copy, what its original gave."""
    return [
        _prepare(curve, profile) if (known := _known(curve, profile)) is None else replace(known, flipped=None)
        for curve in curves
    ]


def _known(curve: Curve, profile: RasterProfile) -> Prepared | None:
    """What was made of the curve that this is a compact copy of, if it holds here."""
    original = curve.original
    if original is None or original.samples is not curve.force or original.profile != profile.id:
        return None
    ways = (original.prepared, original.prepared.flipped)
    sizes = [way.signal.shape[0] for way in ways if way is not None and way.signal is not None]
    return original.prepared if all(2 * profile.columns <= n <= profile.samples for n in sizes) else None


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
    reasons += _reasons_of_shape(seen)
    if _holds_on(curve, seen, middle + level, noise):
        reasons.append("still_attached")
    usual = newton is None or profile.noise_low_pn <= noise * newton * 1e12 <= profile.noise_high_pn
    if quiet or garbage or not usual:
        reasons.append("noise_out_of_range")
    if highest - middle > 20 * noise and _at_rail(curve.force, highest):
        reasons.append("saturated")
    reasons += [note for note in curve.notes if note in NOTED]
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


def force_scale(curve: Curve) -> tuple[float, ForceLabel]:
    """What turns the curve's force unit into the one that people are shown, and that unit."""
    newton = newton_per_unit(curve)
    if newton is not None:
        return newton * 1e12, "pN"
    if curve.force_unit == "m":
        return 1e9, "nm"
    if curve.force_unit == "V":
        return (curve.sensitivity_m_per_v * 1e9, "nm") if curve.sensitivity_m_per_v else (1e3, "mV")
    return 1.0, ""


def axes_of(curve: Curve, prepared: Prepared, profile: RasterProfile) -> PreviewAxes | None:
    """Of the preview of ``prepared``, to four digits; None where it has no picture."""
    if prepared.signal is None or prepared.noise is None:
        return None
    factor, unit = force_scale(curve)
    scale = factor * prepared.noise if profile.scale == "sigma" else 1.0
    contact = prepared.contact or 0.0
    from_nm = to_nm = None
    if curve.distance is not None and len(curve):
        last = len(curve) - 1
        places = (min(round(contact * len(curve)), last), first_shown(len(curve), contact, profile), last)
        at, *ends = (1e9 * float(curve.distance[place]) for place in places)
        if math.isfinite(at + sum(ends)):
            way = 1.0 if ends[1] >= ends[0] else -1.0
            from_nm, to_nm = (_four_digits(way * (end - at)) for end in ends)
    low, high, softness = (_four_digits(scale * one) for one in (profile.lowest, profile.highest, profile.softness))
    return PreviewAxes(unit, softness, low, high, from_nm, to_nm) if 0 < softness < math.inf else None


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")


def first_shown(n: int, push: float, profile: RasterProfile) -> int:
    """The first sample to show: a long indentation must not drive the events into a corner of the picture."""
    free = (1.0 - push) * n
    return max(0, min(int(push * n - free * profile.lead / (1.0 - profile.lead)), n - MIN_POINTS))


def _reasons_of_shape(sigmas: Samples) -> list[str]:
    """Reasons that the shape of the whole retract gives."""
    head = max(int(HEAD * sigmas.shape[0]), 4)
    start, end = median(sigmas[:head]), float(sigmas[-head:].min())
    begun = sigmas[: 4 * head]
    flat = float(begun.max() - begun.min()) < 2 * WRONG_END_SIGMA and abs(start) < WRONG_END_SIGMA
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


def _at_rail(force: Samples, highest: float) -> bool:
    """At least 1 % of the samples sit at exactly the largest pull."""
    return bool(np.count_nonzero(force == highest) >= max(RAIL_SHARE * force.shape[0], 8))


def resample(force: Samples, profile: RasterProfile) -> Samples:
    """(n,) -> (m,): box averages down to ``profile.samples``, straight lines up to two samples a column.

    White noise has an envelope that grows with the number of points in a column; averaging to a bounded number
    first makes the picture of a curve the same whether it was stored with 2,000 points or 20,000.
    """
    n, most, least = force.shape[0], profile.samples, 2 * profile.columns
    if n < least:
        return np.interp(np.linspace(0.0, n - 1.0, least), np.arange(n), force)
    if n <= most:
        return force
    total = np.empty(n + 1)
    total[0] = 0.0
    np.cumsum(force, out=total[1:])
    below, above, beyond, is_between = _cuts(n, most)
    summed = total[below]
    if above is not None:  # numpy.interp, without looking for the neighbours anew
        np.add(summed, (total[above] - summed) * beyond, out=summed, where=is_between)
    averaged: Samples = (summed[1:] - summed[:-1]) * (most / n)
    return averaged


@lru_cache(maxsize=64)
def _cuts(n: int, most: int) -> tuple[NDArray[np.intp], NDArray[np.intp] | None, Samples, NDArray[np.bool_]]:
    """Where ``n`` samples are cut into ``most``: the sample at or below each cut, the next one, and how far beyond.

    None for the next where every cut falls on a sample.
    """
    cuts = np.linspace(0.0, float(n), most + 1)
    below = cuts.astype(np.intp)
    beyond = cuts - below
    is_between = beyond > 0.0
    return below, np.minimum(below + 1, n) if is_between.any() else None, beyond, is_between


def noise_of(signal: Samples) -> float:
    """Baseline noise: rms about a straight line in the windows of the far end, the middle one of them."""
    return median(_window_noise(signal[-max(int(FAR_END * signal.shape[0]), 2 * WINDOW) :]))


def quiet_of(signal: Samples) -> float:
    """Noise of the quieter third of the part before the far end; 0 where nothing moves there."""
    return quantile(_window_noise(signal[: -max(int(FAR_END * signal.shape[0]), 2 * WINDOW)]), 1 / 3)


def _window_noise(signal: Samples) -> Samples:
    """(n,) -> (n // WINDOW,) rms about a straight line in each window, counted from the end.

    So a late step, a tether or a slow optical wave does not inflate it.
    """
    count = signal.shape[0] // WINDOW
    windows = signal[signal.shape[0] - count * WINDOW :].reshape(count, WINDOW)
    centred = windows - np.add.reduce(windows, axis=1, keepdims=True) / WINDOW
    slopes = centred @ _ACROSS / _SQUARES
    rest = centred - slopes[:, None] * _ACROSS
    rms: Samples = np.sqrt(np.add.reduce(rest * rest, axis=1) / (WINDOW - 2))
    return rms


def tilt_of(signal: Samples, noise: float) -> float:
    """Tilt of the baseline per whole signal: the middle one of the slopes of short stretches in the far half.

    Steps, plateaus and short rises leave the middle slope alone. 0 where it is no more than chance or drift.
    """
    length = signal.shape[0] // STRETCHES
    far = signal[-length * (STRETCHES // 2) :].reshape(-1, length)
    x, squares = _across(length)
    tilt = median(far @ x) / squares * signal.shape[0]
    return tilt if abs(tilt) > TILT_SIGMA * noise else 0.0


@lru_cache(maxsize=64)
def _across(length: int) -> tuple[Samples, float]:
    """The samples of a stretch, counted from its middle, and the sum of their squares."""
    x: Samples = np.arange(length, dtype=np.float64) - (length - 1) / 2
    return x, float(x @ x)


def level_of(signal: Samples) -> float:
    """The baseline: the median of the far end."""
    return median(signal[-max(int(LEVEL_END * signal.shape[0]), WINDOW) :])


def find_contact(signal: Samples, noise: float) -> float | None:
    """Where the push ends, as a share of the signal; None when it does not begin with one.

    The push ends where the force comes back to the baseline, or before, where it stops rising steeply: in a block that
    rises by less than a fifth of the mean rise so far. A tilted baseline lies long below its end and would otherwise
    be taken for contact. In doubt this ends too early, and more is shown.
    """
    n = signal.shape[0]
    level = level_of(signal) - CONTACT_SIGMA * noise
    if median(signal[: max(int(HEAD * n), 4)]) >= level:
        return None
    is_back = signal > level
    back = int(is_back.argmax())
    size = n // BLOCKS
    blocks = np.add.reduce(signal[: size * BLOCKS].reshape(BLOCKS, size), axis=1) / size
    rises = blocks[1:] - blocks[:-1]
    mean = (blocks[1:-1] - blocks[0]) / _BEFORE
    is_slow = rises[1:] < 0.2 * mean
    slow = int(is_slow.argmax())
    steep = float(slow + 1) / BLOCKS if is_slow[slow] and rises[0] > 0 else 0.0
    return min(steep, back / n if is_back[back] else 1.0)


def median(values: Samples) -> float:
    """(n,) -> what ``numpy.median`` gives, bit for bit; NaN where there is nothing, or where a NaN is among them.

    ``numpy.median`` spends 7 µs around a selection that takes one, and the front-end asks for a dozen a curve. Half of
    them are of a handful, which Python has sorted before numpy begins.
    """
    count = values.shape[0]
    if not count:
        return math.nan
    half = count // 2
    if count <= _FEW and values.dtype == np.float64:
        few = sorted(values.tolist())
        if not math.isnan(sum(few)):
            of_few: float = few[half] if count % 2 else (few[half - 1] + few[half]) / 2
            return of_few + 0.0
    ordered = values.copy()
    ordered.partition((half, -1) if count % 2 else (half - 1, half, -1))  # NaN is sorted to the end
    if math.isnan(ordered[-1]):
        return math.nan
    middle = ordered[half] if count % 2 else (ordered[half - 1] + ordered[half]) / 2
    return float(middle) + 0.0  # numpy's sum begins at zero: never -0.0


def quantile(values: Samples, share: float) -> float:
    """(n,) -> what ``numpy.quantile`` gives, between two neighbours by a straight line; NaN as in :func:`median`."""
    count = values.shape[0]
    if not count:
        return math.nan
    place = (count - 1) * share
    below = int(place)
    above = min(below + 1, count - 1)
    ordered = values.copy()
    ordered.partition((below, above, -1))
    if math.isnan(ordered[-1]):
        return math.nan
    low, high = float(ordered[below]), float(ordered[above])
    along, step = float(place - below), high - low
    return high - step * (1 - along) if along >= 0.5 else low + step * along  # each end is met exactly


def turned(curve: Curve) -> Curve:
    """The same curve if pulling is the other way."""
    approach, original, force = curve.approach_force, curve.original, -curve.force
    if original is not None and original.samples is curve.force and original.prepared.flipped is not None:
        original = Original(original.profile, original.prepared.flipped, force)
    approach = None if approach is None else -approach
    return replace(curve, force=force, approach_force=approach, original=original)


def prepare_to_judge(curves: Sequence[Curve], profile: RasterProfile) -> list[Prepared]:
    """As ``prepare``, with ``flipped`` where the judge wants it; what it costs the others is a few microseconds."""
    return [_prepare_to_judge(curve, profile) for curve in curves]


def _prepare_to_judge(curve: Curve, profile: RasterProfile) -> Prepared:
    if (known := _known(curve, profile)) is not None:
        return known
    prepared = _prepare(curve, profile)
    return with_flipped(prepared, curve, profile) if _wants_flipped(curve, prepared) else prepared


def with_flipped(prepared: Prepared, curve: Curve, profile: RasterProfile) -> Prepared:
    """The same, with what the front-end makes of the curve upside down."""
    return replace(prepared, flipped=prepare([turned(curve)], profile)[0])


def _wants_flipped(curve: Curve, prepared: Prepared) -> bool:
    """An open sign always; else what could be discarded, if no push confirms its sign or the lot falls on it."""
    if OPEN in curve.notes:
        return True
    if prepared.blocking or LIFTING.intersection(prepared.reasons):
        return False
    return "no_contact" in prepared.reasons or is_spot(curve)


def is_spot(curve: Curve) -> bool:
    """Whether the lot falls on this curve: from its samples alone, so that whoever judges it again agrees."""
    some = np.ascontiguousarray(curve.force[:: max(len(curve) // _LOOKED_AT, 1)])
    return zlib.crc32(some.tobytes()) % SPOT == 0
