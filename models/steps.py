"""The step detector: what a laboratory can do without learning, as the baseline that a network has to beat.

A moving two-sample t-test for a step down, after Opfer & Gottschalk 2012 (PLoS ONE 7:e45896, "Identifying discrete
states of a biological system using a novel step detection algorithm"), with noise scaled as elsewhere in this program
and the surface passed over, as FEATHER does (Heenan & Perkins 2018, Biophys. J. 115:757). An own implementation of
those ideas, not of their code.

Window and start were chosen on simulated curves (AUC 0.91 on 1,500 of them; 0.80 when the snap-off at the surface is
looked at too), never on real ones.

The second opinion is another detector, for what the network may be blind to: of both signs, on the signal that the
network sees, and measured against the curve's own other steps, so that waves and drift do not win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.curve import Curve, Samples
from models.frontend import CONTACT_SIGMA, find_contact, median, noise_of, resample
from models.raster import RasterProfile

WINDOW = 8  # samples on each side of a step, of the 512 to which a retract is averaged
SURFACE = 0.05  # share of the retract after the push in which the snap-off is passed over
#: A fall is marked on a curve from this t of two lines on, and from this many times the noise: then nine in ten
#: simulated curves with an event have a mark, and one in ten of those without (tests/test_models_steps.py).
MARKED, MARKED_NOISE = 6.0, 8.0
#: Times the noise that a prepared signal falls from sample to sample at least, where there is one: of 1,763 simulated
#: and real curves with a rupture 7 have less, of simulated ones without an event three in four.
NEAR_MARK = 7.0
LINE = 6  # samples of each of the two lines
_PROFILE = RasterProfile()
_FINER = {finer: RasterProfile(samples_per_column=2 * finer) for finer in (1, 2, 4, 8)}

# The second opinion. Chosen on simulated curves and one half of the folders of labelled real ones
# (deploy/measurements/2026-11-28-steps.md).
LINES = (8, 20)  # samples of each of two lines; the step that stands out more counts
RISE = 0.7  # what a step up counts, of one down
OTHERS = 0.9  # a step is compared with the one that this share of the curve's own do not reach,
STEADY = 3.0  # and this t: in the quietest of curves chance makes a step of t = 3
CLEAR = 0.08  # share of the signal after the push in which no step counts, snap-off or not
PUSH = 3  # samples whose middle one says which way the push is
BLOCKS = 48  # in which the end of the push is looked for
SNAP = 4  # samples on each side of the snap-off
HIGH = 20.0  # times the noise: what is lower is no adhesion to be passed over
SHORTEST = 4 * max(LINES)  # samples of a signal in which anything is looked for
_AT_ONCE = 32  # signals, of which each takes a hundred times its samples in bytes while it is looked at
_FAR = 1e5  # times the noise: enough for every step, and little enough for sums of squares

Floats = NDArray[np.float32]
Rows = NDArray[np.float64]
Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Fall:
    """A step down of a retract as it was recorded."""

    sample: int  # where, give or take half the width
    width: int  # samples
    t: float


@dataclass(frozen=True, slots=True)
class Step:
    """The step of a prepared signal that stands out most, up or down."""

    share: float  # where, as a share of the signal, 0 to 1
    width: float  # of the lines that it was seen between, as such a share
    rise: float  # by how much the signal rises, in its own units; negative: it falls
    t: float  # how far it stands out, as second_opinion has it


def detect(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """B finite curves -> (B,) t of the steepest step down beyond the surface; 0 where there is none."""
    return np.array([_steepest(curve.force) for curve in curves], np.float64)


def _steepest(force: Samples) -> float:
    signal, noise, first = _beyond_surface(force)
    steps = step_down(signal, noise)[first:]
    return max(float(steps.max()), 0.0) if steps.size else 0.0


def falls(force: Samples, finer: int = 1, contact: float | None = None) -> list[Fall]:
    """Every fall of a finite retract beyond the surface that is worth a mark, in order.

    It is looked at in 512 averages, or ``finer`` times as many: few have less noise, many tell apart what lies close.
    ``contact``: where along the retract the push ends, where the caller knows.

    A molecule is stretched before it breaks, and a mean over the rise says nothing of its end. So a line is laid
    through the samples on each side, and the fall is from the end of one to the beginning of the other.
    """
    signal, noise, first = _beyond_surface(force, _FINER[finer], contact)
    t, jump = line_down(signal, noise)
    factor = force.shape[0] / signal.shape[0]
    found: list[Fall] = []
    is_high = (t >= MARKED) & (jump >= MARKED_NOISE * noise)
    is_high[1:] &= t[1:] >= t[:-1]
    is_high[:-1] &= t[:-1] >= t[1:]
    for at in np.flatnonzero(is_high):
        if at >= first and t[at] == t[max(at - LINE, 0) : at + LINE + 1].max():
            found.append(Fall(int((at + LINE + 0.5) * factor), max(round(LINE * factor), 1), float(t[at])))
    return found


def may_fall(signal: Floats, first: int) -> bool:
    """Whether anything in a prepared signal, in units of its noise, comes near a mark from sample ``first`` on.

    A look of five microseconds, before :func:`falls`: two samples against the two behind the next one.
    """
    pairs = signal[max(first, 0) :]
    pairs = pairs[:-1] + pairs[1:]
    return bool(((pairs[:-3] - pairs[3:]) >= 2 * NEAR_MARK).any())


def second_opinion(signals: Sequence[Floats]) -> Floats:
    """B prepared signals, in units of their noise -> (B,): how far the strongest step beyond the surface stands out.

    It is the t of two lines over that of the curve's other steps; 0 where there is none. A step up counts too, though
    less than one that is a fall by the push against the surface. So a signal upside down has the same figure; and it
    has the same in other company.
    """
    found = np.zeros(len(signals), np.float32)
    sizes = np.array([signal.shape[0] for signal in signals], np.int64)
    for size in np.unique(sizes[sizes >= SHORTEST]):
        those = np.flatnonzero(sizes == size)
        for start in range(0, len(those), _AT_ONCE):
            places = those[start : start + _AT_ONCE]
            found[places] = _strongest(np.stack([signals[int(place)] for place in places])).t
    return found


def strongest_step(signal: Floats) -> Step | None:
    """What the second opinion saw in one prepared signal; None where there is nothing."""
    count = signal.shape[0]
    if count < SHORTEST:
        return None
    found = _strongest(signal[None])
    if found.t[0] <= 0:
        return None
    at, size = float(found.sample[0]), float(found.size[0])
    return Step((at + 0.5) / count, size / count, float(found.rise[0]), float(found.t[0]))


def snap_off(signal: Floats) -> float:
    """Where in a prepared signal the fall from the adhesion has ended, as a share of it; 0 where there is none."""
    if signal.shape[0] < SHORTEST:
        return 0.0
    oriented = np.clip(signal[None], -_FAR, _FAR).astype(np.float64)
    sums = _Sums(oriented)
    return float(_snap_off(oriented, sums, _push(oriented, sums))[0]) / len(signal)


@dataclass(slots=True, eq=False)
class _Strongest:
    """(B,) each: how far the step stands out, its sample, the samples of each of its lines, the rise."""

    t: Rows
    sample: Places
    size: Places
    rise: Rows


def _strongest(signals: Floats) -> _Strongest:
    """(B, n) -> of each its strongest step."""
    rows = np.arange(len(signals))
    oriented = np.fmax(np.fmin(signals, _FAR), -_FAR).astype(np.float64)
    sign = np.where(np.median(oriented[:, :PUSH], axis=1) < 0, 1.0, -1.0)
    oriented *= sign[:, None]  # pushing is below the baseline
    sums = _Sums(oriented)
    first = _first(oriented, sums)
    best = _Strongest(np.zeros(len(rows)), np.zeros_like(rows), np.zeros_like(rows), np.zeros(len(rows)))
    for size in LINES:
        t, fall = _two_lines(sums, size)
        passed = np.maximum(first - size // 2, 0)  # the lines before a step may begin in what is passed over
        t *= np.arange(t.shape[1]) >= passed[:, None]
        others = np.sort(np.abs(t), axis=1)
        above = ((t.shape[1] - passed) * (1.0 - OTHERS)).astype(np.intp)
        usual = others[rows, t.shape[1] - 1 - above]
        weighed = np.maximum(t, -RISE * t)
        place = weighed.argmax(axis=1)
        stands_out = weighed[rows, place].astype(np.float64) / (STEADY + usual)
        better = stands_out > best.t
        best.t[better], best.size[better] = stands_out[better], size
        best.sample[better] = place[better] + size
        best.rise[better] = (-sign * fall[rows, place])[better]
    return best


class _Sums:
    """Of (B, n) values: sums over any stretch, of them, of their squares, and of them times their sample."""

    def __init__(self, values: Rows) -> None:
        self.count = values.shape[1]
        self._plain = self._running(values)
        self._square = self._running(values * values)
        self._moment = self._running(values * np.arange(self.count))

    @staticmethod
    def _running(values: Rows) -> Rows:
        total = np.empty((values.shape[0], values.shape[1] + 1))
        total[:, 0] = 0.0
        np.cumsum(values, axis=1, out=total[:, 1:])
        return total

    def blocks(self, size: int, blocks: int) -> Rows:
        """(B, blocks): the sum of each of the first ``blocks`` of ``size`` samples."""
        ends = self._plain[:, : size * blocks + 1 : size]
        return ends[:, 1:] - ends[:, :-1]

    def means(self, size: int, until: int) -> Rows:
        """(B, until - size + 1), of each window in the first ``until`` samples."""
        return (self._plain[:, size : until + 1] - self._plain[:, : until + 1 - size]) / size

    def lines(self, size: int) -> tuple[Floats, Floats, Floats]:
        """Mean, slope, and squares about the line, (B, n - size + 1) each, of each window."""
        plain = self._plain[:, size:] - self._plain[:, :-size]
        slope = self._moment[:, size:] - self._moment[:, :-size]
        slope -= plain * (np.arange(plain.shape[1]) + (size - 1) / 2)  # about the middle of the window
        slope /= _squares(size)
        rest = self._square[:, size:] - self._square[:, :-size]
        plain /= size
        rest -= plain * plain * size
        rest -= slope * slope * _squares(size)
        return plain.astype(np.float32), slope.astype(np.float32), np.maximum(rest, 0.0).astype(np.float32)


def _squares(size: int) -> float:
    """Of the samples of a window, counted from its middle."""
    return size * (size * size - 1) / 12


def _two_lines(sums: _Sums, size: int) -> tuple[Floats, Floats]:
    """(B, n - 2 size) each: t and height of the fall across the sample between two lines of ``size``; noise is 1."""
    mean, slope, rest = sums.lines(size)
    reach = (size + 1) / 2  # from the middle of a line to the sample between
    slope *= np.float32(reach)
    fall = (mean + slope)[:, : -size - 1]
    fall -= (mean - slope)[:, size + 1 :]
    spread = rest[:, : -size - 1] + rest[:, size + 1 :]
    spread += np.float32(size - 2)
    spread *= np.float32((1 / size + reach * reach / _squares(size)) / (size - 2))
    np.sqrt(spread, out=spread)
    return fall / spread, fall


def _first(oriented: Rows, sums: _Sums) -> Places:
    """(B, n) -> (B,): the first sample that counts, beyond the push and the snap-off that follows it."""
    push = _push(oriented, sums)
    return np.maximum(push + int(CLEAR * sums.count), _snap_off(oriented, sums, push))


def _push(oriented: Rows, sums: _Sums) -> Places:
    """(B, n) -> (B,): where the push ends, as models.frontend.find_contact has it; at most a quarter of the signal."""
    quarter = sums.count // 4
    is_back = oriented[:, :quarter] > -CONTACT_SIGMA
    blocks = sums.blocks(sums.count // BLOCKS, BLOCKS)
    rises = blocks[:, 1:] - blocks[:, :-1]
    is_slow = rises[:, 1:] < 0.2 * (blocks[:, 1:-1] - blocks[:, :1]) / np.arange(1, BLOCKS - 1)
    steep = (is_slow.argmax(axis=1) + 1) * sums.count // BLOCKS
    steep[~is_slow.any(axis=1) | (rises[:, 0] <= 0)] = quarter
    back = np.where(is_back.any(axis=1), is_back.argmax(axis=1), quarter)
    ends: Places = np.minimum(np.minimum(back, steep), quarter)
    return ends


def _snap_off(oriented: Rows, sums: _Sums, push: Places) -> Places:
    """(B, n) -> (B,): where the fall from the adhesion has ended; 0 where there is none.

    The largest fall near the push is one where the force came up with the push: it was half as high early on. A
    molecule is stretched slowly first, and its force comes up late.
    """
    rows, quarter = np.arange(len(oriented)), sums.count // 4
    means = sums.means(SNAP, 2 * quarter + 2 * SNAP)  # a push ends in the first quarter
    falls = means[:, :-SNAP] - means[:, SNAP:]
    place = np.arange(SNAP, SNAP + falls.shape[1])
    is_near = (place >= push[:, None]) & (place < push[:, None] + quarter)
    start = np.where(is_near, falls, -np.inf).argmax(axis=1)
    end = start + SNAP
    after = means[rows, np.minimum(end + 2, means.shape[1] - 1)]
    half = (means[rows, start] + after) / 2
    seen = oriented[:, : 2 * quarter]
    is_before = np.arange(seen.shape[1]) < (end - 1)[:, None]
    risen = _last(is_before & (seen <= half[:, None]))
    begun = np.maximum(_last(is_before & (seen < after[:, None] - 4.0)), push - sums.count // 50)
    is_adhesion = (falls[rows, start] > HIGH) & (risen - begun <= np.maximum(2 * SNAP, (end - begun) / 2))
    return np.where(is_adhesion, end + sums.count // 100, 0)


def _last(those: NDArray[np.bool_]) -> Places:
    """(B, n) -> (B,): the last one that is true; -1 where none is."""
    place = those.shape[1] - 1 - those[:, ::-1].argmax(axis=1)
    last: Places = np.where(those[np.arange(len(those)), place], place, -1)
    return last


def _beyond_surface(
    force: Samples, profile: RasterProfile = _PROFILE, contact: float | None = None
) -> tuple[Samples, float, int]:
    """The averaged signal, its noise, and the first sample of it beyond the surface."""
    signal = resample(force - median(force[-max(len(force) // 10, 1) :]), profile)
    noise = max(noise_of(signal), 1e-5 * float(np.ptp(signal)))
    if contact is None:
        contact = find_contact(signal, noise) or 0.0
    return signal, noise, int((contact + SURFACE) * signal.shape[0])


def line_down(signal: Samples, noise: float, size: int = LINE) -> tuple[Samples, Samples]:
    """(n,) -> t and height, (n - 2 size,) each, of the fall across the one sample between two lines of ``size``.

    Held up by the noise as in :func:`step_down`.
    """
    x = np.arange(size) - (size - 1) / 2
    squares, reach = float(x @ x), (size + 1) / 2  # from the middle of a line to the sample between
    ones = np.ones(size)
    mean = np.correlate(signal, ones) / size
    slope = np.correlate(signal, x) / squares
    square = np.correlate(signal * signal, ones)
    rest = np.maximum(square - mean * mean * size - slope * slope * squares, 0) / (size - 2)
    left, right = slice(None, -size - 1), slice(size + 1, None)
    jump: Samples = (mean[left] + reach * slope[left]) - (mean[right] - reach * slope[right])
    spread = np.sqrt((rest[left] + rest[right] + noise * noise) * (1 / size + reach * reach / squares))
    t: Samples = jump / np.maximum(spread, 1e-150)
    return t, jump


def step_down(signal: Samples, noise: float, window: int = WINDOW) -> Samples:
    """(n,) -> (n - 2 window + 1,): t of the fall from the window at each sample to the next one.

    The spread is that of both windows, held up by half the noise so that a chance lull makes no step.
    """
    mean, square = _moving_mean(signal, window), _moving_mean(signal * signal, window)
    variance = np.maximum(square - mean * mean, 0.0) * window / (window - 1)
    spread = np.sqrt((variance[:-window] + variance[window:]) / window + noise * noise / (2 * window))
    fall: Samples = (mean[:-window] - mean[window:]) / np.maximum(spread, 1e-150)  # a line without any noise at all
    return fall


def _moving_mean(values: Samples, window: int) -> Samples:
    total = np.concatenate(([0.0], np.cumsum(values)))
    return (total[window:] - total[:-window]) / window
