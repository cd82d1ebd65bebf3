"""A branch: the retract of a text table, found by what its numbers do where nobody says it.

* *Where it begins.* A distance that goes and returns is cut at its turn. One that only goes has its surface at one end:
  where the force stands out (contact), where the distance is near zero, where the file begins. These three vote.
* *Sign.* The part in contact is repulsive. All curves of a file share one sign. It stays open all the same: both
  are judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daemon.formats import limits, shape
from models.curve import DistanceKind, Samples

_GAPS = 0.05
_NEAR_ZERO = 0.25
_CLEAR = 5.0  # times the noise
_STANDS_OUT = 3.0  # times as far as the other end
_CONTACT, _ZERO, _ORDER, _SAID = 2.0, 1.5, 0.5, 2.0  # weights of the votes; the last is a file's own word, "retract"


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One retract as stored, surface first, sign not settled."""

    force: Samples  # (n,)
    distance: Samples | None = None  # (n,)
    approach: Samples | None = None  # (m,) far to surface
    contact: Samples | None = None  # samples certainly at the surface, where they are known
    kind: DistanceKind = "piezo"
    is_sure: bool = True  # which end is the surface is seen or said, not guessed


def oriented(force: Samples, distance: Samples | None, *, is_said: bool = False) -> Branch:
    """Cut at the turn, or turned round when stored from far to near; ``is_said``: the file calls it the retract."""
    turn = None if distance is None else shape.turnaround(distance)
    if turn is not None and distance is not None and not is_said:
        stop, start = turn
        contact = force[min(stop - 1, start) : max(stop - 1, start) + 1]
        level, noise = np.median(contact), np.median(np.abs(np.diff(force)))
        still = np.flatnonzero(np.abs(contact - level) <= _CLEAR * noise)
        if still.size:  # a separation stands still while the force falls
            start = min(stop - 1, start) + int(still[-1])
        return Branch(force[start:], distance[start:], force[:stop], contact)
    if force.shape[0] < 4:
        return Branch(force, distance)
    is_first, is_sure = surface_is_first(force, distance, is_said=is_said)
    if is_first:
        return Branch(force, distance, is_sure=is_sure)
    return Branch(force[::-1], None if distance is None else distance[::-1], is_sure=is_sure)


def surface_is_first(force: Samples, distance: Samples | None, *, is_said: bool = False) -> tuple[bool, bool]:
    """Whether the surface is at the first sample, and whether the witnesses agree."""
    contact, zero = _contact_vote(force), 0 if distance is None else _zero_vote(distance)
    total = _CONTACT * contact + _ZERO * zero + (_SAID if is_said else _ORDER)
    is_contradicted = contact * zero < 0 and not is_said
    is_unseen = contact == zero == 0 and distance is not None and not is_said
    return total >= 0, not (is_contradicted or is_unseen)


def _contact_vote(force: Samples) -> int:
    """1: the force stands out at the first sample, -1: at the last, 0: at neither or both."""
    known = force[np.isfinite(force)]
    if known.shape[0] < 16:
        return 0
    middle, width = np.median(known), max(known.shape[0] // 100, 2)
    first, last = (float(abs(np.median(end) - middle)) for end in (known[:width], known[-width:]))
    noise = float(np.median(np.abs(np.diff(known))))
    if max(first, last) <= 2 * _CLEAR * noise:
        return 0
    return 1 if first > _STANDS_OUT * last else -1 if last > _STANDS_OUT * first else 0


def _zero_vote(distance: Samples) -> int:
    known = distance[np.isfinite(distance)]
    if known.shape[0] < 2:
        return 0
    first, last = abs(float(known[0])), abs(float(known[-1]))
    if min(first, last) >= _NEAR_ZERO * max(first, last):
        return 0
    return 1 if first < last else -1


def pulling_sign(branches: Sequence[Branch]) -> float:
    """What makes pulling positive, as the contact parts say; where there are none, repulsion is positive.

    Contact is compared with the far half, and with what follows it: a baseline may not have been reached.
    """
    votes = 0.0
    for branch in branches:
        force, points = branch.force, branch.force.shape[0]
        if points < limits.ZERO_SAMPLES:
            continue
        noise = float(np.median(np.abs(np.diff(force[points // 2 :])))) or 1e-300
        contact = np.median(force[: max(points // 100, 2)] if branch.contact is None else branch.contact)
        for later in (force[points // 10 : points // 3], force[points // 2 :]):
            difference = float(contact - np.median(later))
            votes += np.sign(difference) if abs(difference) > _CLEAR * noise else 0.0
    return 1.0 if votes < 0 else -1.0


def opposite(first: Samples, second: Samples) -> bool:
    """Whether two distances run in opposite directions over much the same range: there, and back."""
    spans = [one[np.isfinite(one)] for one in (first, second)]
    if any(one.shape[0] < 16 or np.ptp(one) == 0 for one in spans):
        return False
    if any(shape.turnaround(one) for one in spans):
        return False
    there, back = (float(np.median(one[-one.shape[0] // 8 :]) - np.median(one[: one.shape[0] // 8])) for one in spans)
    low, high = max(one.min() for one in spans), min(one.max() for one in spans)
    return there * back < 0 and high - low > 0.3 * max(np.ptp(one) for one in spans)


def trimmed(force: Samples, distance: Samples | None) -> tuple[Samples, Samples | None]:
    """Without the missing ends, and the rows of zeros, that fill a shorter side up to the longest."""
    kept = shape.finite_range(force) if distance is None else shape.finite_range(force, distance)
    force, distance = force[kept], None if distance is None else distance[kept]
    if distance is not None and force.shape[0]:
        used = np.flatnonzero((force != 0) | (distance != 0))
        if used.size and force.shape[0] - used[-1] > 2:
            force, distance = force[: int(used[-1]) + 1], distance[: int(used[-1]) + 1]
    return without_gaps(force, distance)


def without_gaps(force: Samples, distance: Samples | None) -> tuple[Samples, Samples | None]:
    """Without the few rows in which a number is missing; as they are, where these are many."""
    known = np.isfinite(force) if distance is None else np.isfinite(force) & np.isfinite(distance)
    if known.all() or known.sum() < (1.0 - _GAPS) * known.size:
        return force, distance
    return force[known], None if distance is None else distance[known]


def follows_rows(samples: Samples) -> float:
    """How closely a column follows the row number, there or there and back, 0 to 1."""
    good = np.isfinite(samples)
    if good.sum() < 4 or np.ptp(samples[good]) == 0:
        return 0.0
    rows = np.arange(samples.shape[0], dtype=np.float64)
    turn = shape.turnaround(samples)
    if turn:
        rows = np.abs(rows - (turn[0] + turn[1]) / 2)
    return float(abs(np.corrcoef(samples[good], rows[good])[0, 1]))
