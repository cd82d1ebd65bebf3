"""Numbers without a header that says what they are: one column, two, three, or column pairs.

Everything a vendor's header would tell is inferred here, always by the same rules, and what was assumed stands in the
notes:

* *Which column.* One: force. Pairs: the column that follows the row number more closely is the distance. Three: height,
  approach and retract where the last two span alike (NT-MDT); otherwise time, separation, force.
* *Unit.* From a header line of units (``nm  nN``); else SI where the numbers are too small for anything else; else
  the distance is in nm and the force has no unit.
* *Direction.* A distance that comes and goes back is cut at its turn. One that only goes has its surface at the end
  near zero; when neither end is, where the force stands out most. Stored from far to near, it is turned round.
* *Sign.* The part in contact is repulsive. Where there is none, repulsion is positive, as with all vendors
  ("sign_assumed"). All curves of a file share one sign.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from daemon.formats import limits, shape
from daemon.formats.numbers import Table, is_numeric, table
from daemon.reading import Unreadable
from models.curve import Curve, DistanceKind, ForceUnit, Samples

_LENGTHS = {"m": 1.0, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "nm": 1e-9, "pm": 1e-12}
_FORCES: dict[str, tuple[ForceUnit, float]] = {"N": ("N", 1.0), "nN": ("N", 1e-9), "pN": ("N", 1e-12), "V": ("V", 1.0)}
_UNIT_WORDS = re.compile(r"[^\s\t,;()\[\]]+")
_SI_FORCE, _SI_LENGTH = 1e-6, 1e-3  # no force curve reaches a micronewton or a millimetre
_NEAR_ZERO = 0.25
_CLEAR = 5.0  # times the noise


class Dialect(Protocol):
    """A module that turns text into curves."""

    def read(self, text: str) -> list[Curve]: ...


@dataclass(frozen=True)
class _Branch:
    """One retract as stored, surface first, sign not settled."""

    force: Samples
    distance: Samples | None
    approach: Samples | None = None
    contact: Samples | None = None  # samples certainly at the surface, where they are known
    kind: DistanceKind = "piezo"


@dataclass(frozen=True)
class _Units:
    force: ForceUnit | None
    force_factor: float
    length_factor: float
    assumed: bool


def read(text: str) -> list[Curve]:
    """All curves of the file, in the order of their columns."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    first = next((i for i, line in enumerate(lines) if is_numeric(line)), len(lines))
    rows = table([line for line in lines[first:] if line.strip("\t ,;")])
    shape.check_points(rows.shape[0])
    branches = _branches(rows)
    if len(branches) > limits.TEXT_CURVES:
        raise Unreadable("bomb")
    units = _units(lines[first - 1] if first else "", branches)
    sign, sign_assumed = _pulling_sign(branches)
    notes = tuple(note for note, wanted in (("sign_assumed", sign_assumed), ("unit_assumed", units.assumed)) if wanted)
    return [_curve(branch, units, sign, notes) for branch in branches]


def _curve(branch: _Branch, units: _Units, sign: float, notes: tuple[str, ...]) -> Curve:
    factor = sign * units.force_factor
    return Curve(
        force=branch.force * factor,
        force_unit=units.force,
        distance=None if branch.distance is None else shape.outward(branch.distance * units.length_factor),
        distance_kind=None if branch.distance is None else branch.kind,
        approach_force=None if branch.approach is None else branch.approach * factor,
        notes=notes,
    )


def _branches(rows: Table) -> list[_Branch]:
    """The retracts, in the order of their columns."""
    columns = rows.shape[1]
    if columns == 1:
        return [_Branch(rows[:, 0], None)]
    if columns == 3:
        return _three(rows)
    if columns % 2:
        raise Unreadable("no_force_channel")
    pairs = [rows[:, at : at + 2] for at in range(0, columns, 2)]
    if len(pairs) > 1:  # a lone one has nothing to be filled up to: what is missing there is missing
        pairs = [_unpadded(pair) for pair in pairs]
    leans = sum(_follows_rows(pair[:, 0]) - _follows_rows(pair[:, 1]) for pair in pairs)
    return [_oriented(pair[:, 1], pair[:, 0]) if leans >= 0 else _oriented(pair[:, 0], pair[:, 1]) for pair in pairs]


def _three(rows: Table) -> list[_Branch]:
    """Time, distance and force; or height, approach and retract, where the height runs away from the surface."""
    spans = np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)
    if spans[2] > 0 and not 0.01 < spans[1] / spans[2] < 100.0:
        return [replace(_oriented(rows[:, 2], rows[:, 1]), kind="separation")]
    start = [_padding(rows[:, column]) for column in (1, 2)]
    retract = rows[start[1] :, :]
    return [_Branch(retract[:, 2], retract[:, 0], rows[start[0] :, 1][::-1])]


def _padding(samples: Samples) -> int:
    """How many samples at the start repeat the first: the export fills a saturated start that way."""
    other = np.flatnonzero(samples != samples[0])
    return max(int(other[0]) - 1, 0) if other.size else 0


def _unpadded(pair: Table) -> Table:
    """Without the rows of zeros that fill a shorter trace up to the longest."""
    used = np.flatnonzero(np.any(pair != 0, axis=1) & np.isfinite(pair).all(axis=1))
    return pair[: int(used[-1]) + 1] if used.size else pair[:0]


def _follows_rows(samples: Samples) -> float:
    """How closely a column follows the row number, there or there and back, 0 to 1."""
    good = np.isfinite(samples)
    if good.sum() < 4 or np.ptp(samples[good]) == 0:
        return 0.0
    rows = np.arange(samples.shape[0], dtype=np.float64)
    turn = shape.turnaround(samples)
    if turn:
        rows = np.abs(rows - (turn[0] + turn[1]) / 2)
    return float(abs(np.corrcoef(samples[good], rows[good])[0, 1]))


def _oriented(force: Samples, distance: Samples) -> _Branch:
    """Surface first: cut at the turn, or turned round when stored from far to near."""
    turn = shape.turnaround(distance)
    if turn:
        stop, start = turn
        contact = force[stop - 1 : start + 1]
        level, noise = np.median(contact), np.median(np.abs(np.diff(force)))
        still = np.flatnonzero(np.abs(contact - level) <= _CLEAR * noise)
        start = stop - 1 + int(still[-1]) if still.size else start  # a separation stands still while the force falls
        return _Branch(force[start:], distance[start:], force[:stop], contact)
    if force.shape[0] < 4:
        return _Branch(force, distance)
    first, last = abs(distance[0]), abs(distance[-1])
    if min(first, last) < _NEAR_ZERO * max(first, last):
        is_backward = last < first
    else:
        middle, width = np.median(force), max(force.shape[0] // 100, 2)
        is_backward = abs(np.median(force[-width:]) - middle) > abs(np.median(force[:width]) - middle)
    return _Branch(force[::-1], distance[::-1]) if is_backward else _Branch(force, distance)


def _pulling_sign(branches: list[_Branch]) -> tuple[float, bool]:
    """What makes pulling positive, and whether that is the convention rather than seen in the contact parts.

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
    return (1.0, False) if votes < 0 else (-1.0, votes == 0)


def _units(header: str, branches: list[_Branch]) -> _Units:
    """From the words of the header line, else from how large the numbers are."""
    words = _UNIT_WORDS.findall(header)
    force_word = next((word for word in words if word in _FORCES), None)
    length_word = next((word for word in words if word in _LENGTHS), None)
    if force_word and (length_word or branches[0].distance is None):
        unit, factor = _FORCES[force_word]
        return _Units(unit, factor, _LENGTHS[length_word or "m"], assumed=False)
    force_most = max((float(np.nanmax(np.abs(b.force), initial=0.0)) for b in branches), default=0.0)
    lengths = [float(np.nanmax(np.abs(b.distance), initial=0.0)) for b in branches if b.distance is not None]
    is_si_length = bool(lengths) and max(lengths) < _SI_LENGTH
    unit_seen: ForceUnit | None = "N" if force_most < _SI_FORCE and (is_si_length or not lengths) else None
    return _Units(unit_seen, 1.0, 1.0 if is_si_length else 1e-9, assumed=bool(lengths) or unit_seen is not None)
