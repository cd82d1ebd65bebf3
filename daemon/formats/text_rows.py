"""Which rows of a table belong to which side of which curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np

from daemon.formats import columns, limits, samples
from daemon.formats.table import Part, Sheet
from models.curve import DistanceKind, Samples

# ---- A branch: the retract of a text table, found by what its numbers do.
#
# * *Where it begins.* A distance that goes and returns is cut at its turn. One that only goes has its surface at one
#   end: where the force stands out (contact), where the distance is near zero, where the file begins. They vote.
# * *Sign.* The part in contact is repulsive. All curves of a file share one sign. It stays open all the same: both
# are judged.

_GAPS = 0.05
_NEAR_ZERO = 0.25
_CLEAR = 5.0  # times the noise
_STANDS_OUT = 3.0  # times as far as the other end
_CONTACT, _ZERO, _ORDER, _SAID = 2.0, 1.5, 0.5, 2.0  # weights of the votes; the last is a file's own word, "retract"


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One retract as stored, surface first, sign still open."""

    force: Samples  # (n,)
    distance: Samples | None = None  # (n,)
    approach: Samples | None = None  # (m,) far to surface
    contact: Samples | None = None  # samples certainly at the surface, where they are known
    kind: DistanceKind = "piezo"
    is_sure: bool = True  # which end is the surface is seen or said, not guessed


def oriented(force: Samples, distance: Samples | None, *, is_said: bool = False) -> Branch:
    """Cut at the turn, or turned round when stored from far to near; ``is_said``: the file calls it the retract."""
    turn = None if distance is None else samples.turnaround(distance)
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
    if any(samples.turnaround(one) for one in spans):
        return False
    there, back = (float(np.median(one[-one.shape[0] // 8 :]) - np.median(one[: one.shape[0] // 8])) for one in spans)
    low, high = max(one.min() for one in spans), min(one.max() for one in spans)
    return there * back < 0 and high - low > 0.3 * max(np.ptp(one) for one in spans)


def trimmed(force: Samples, distance: Samples | None) -> tuple[Samples, Samples | None]:
    """Without the missing ends, and the rows of zeros, that fill a shorter side up to the longest."""
    kept = samples.finite_range(force) if distance is None else samples.finite_range(force, distance)
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


def follows_rows(values: Samples) -> float:
    """How closely a column follows the row number, there or there and back, 0 to 1."""
    good = np.isfinite(values)
    if good.sum() < 4 or np.ptp(values[good]) == 0:
        return 0.0
    rows = np.arange(values.shape[0], dtype=np.float64)
    turn = samples.turnaround(values)
    if turn:
        rows = np.abs(rows - (turn[0] + turn[1]) / 2)
    return float(abs(np.corrcoef(values[good], rows[good])[0, 1]))


# ---- Pulls after each other in one column: a distance that goes and returns more than once.

_SWING = 0.5  # of the whole span, a turn is followed by at least so much
_LOOKED_AT = 8192  # values, however long the column
_TEXT_CYCLES_SHORTEST = 32  # values of a stroke
_RAMP = 0.8  # a stroke follows its rows at least so closely
_TEXT_CYCLES_STANDS_OUT = 3.0


def cycles(force: Samples, distance: Samples | None) -> tuple[list[slice], bool]:
    """The rows of each pull with the approach before it, and whether it is plain which turns are at the surface.

    Empty where the distance goes once, or once there and back.
    """
    if distance is None or distance.shape[0] < 4 * _TEXT_CYCLES_SHORTEST or not np.isfinite(distance).all():
        return [], True
    turns = _turns(distance)
    edges = [0, *turns, distance.shape[0] - 1]
    if not turns:
        return [], True
    strokes = [distance[before:after] for before, after in pairwise(edges)]
    if min(stroke.shape[0] for stroke in strokes) < _TEXT_CYCLES_SHORTEST or min(map(_straightness, strokes)) < _RAMP:
        return [], True
    ends = [_push(force, edges[place::2]) for place in (0, 1)]
    surface = int(ends[1] > ends[0])
    is_sure = max(ends) > _TEXT_CYCLES_STANDS_OUT * min(ends)
    if len(turns) == 1 and (surface or not is_sure):
        return [], True
    far = edges[1 - surface :: 2]
    if far[0] > 0:
        far = [0, *far]  # the first pull comes without its approach
    return [slice(one, other + 1) for one, other in pairwise(far)], is_sure


def _turns(distance: Samples) -> list[int]:
    """Where the distance turns, as sample numbers."""
    step = max(distance.shape[0] // _LOOKED_AT, 1)
    thin = distance[::step]
    swing = _SWING * float(np.ptp(thin))
    turns: list[int] = []
    low = high = heading = 0  # heading: 1 upwards, -1 downwards, 0 not known yet
    for at, value in enumerate(thin.tolist()):
        if heading >= 0 and value > thin[high]:
            high = at
        if heading <= 0 and value < thin[low]:
            low = at
        if heading >= 0 and thin[high] - value > swing:
            turns += [high] if heading else []
            heading, low = -1, at
        elif heading <= 0 and value - thin[low] > swing:
            turns += [low] if heading else []
            heading, high = 1, at
    return [turn * step for turn in turns]


def _straightness(stroke: Samples) -> float:
    rows = np.arange(stroke.shape[0], dtype=np.float64)
    return float(abs(np.corrcoef(stroke, rows)[0, 1])) if np.ptp(stroke) > 0 else 0.0


def _push(force: Samples, turns: list[int]) -> float:
    """How far the force stands out at these turns."""
    level = float(np.nanmedian(force))
    width = max(force.shape[0] // (100 * max(len(turns), 1)), 2)
    return float(np.median([abs(np.nanmedian(force[max(at - width, 0) : at + width]) - level) for at in turns]))


# ---- Which rows of a table belong to which side of which curve.

_MOST_SEGMENTS = 64
_SHORTEST = 32  # rows of a curve, on average


def by_rows(sheet: Sheet, part: Part) -> list[Part]:
    """The part cut by columns that tell its rows apart, else by the distance that goes and returns again and again."""
    return _by_labels(sheet, part) or by_cycle(part)


def _by_labels(sheet: Sheet, part: Part) -> list[Part]:
    """Cut by a column of segments (words that name sides, or numbers that change) and by one that counts the curves.

    Empty without such columns.
    """
    segments, curves = _segment_labels(sheet), _curve_labels(sheet)
    if segments is None and curves is None:
        return []
    plain = [""] * sheet.rows.shape[0]
    runs, at = [], 0
    for label, same in groupby(zip(curves or plain, segments or plain, strict=True)):
        count = len(list(same))
        runs.append((label[1], slice(at, at + count)))
        at += count
    if len(runs) > 2 * limits.TEXT_CURVES:
        return []
    if segments is None and part.distance is not None and _run_on([part.distance[rows] for _, rows in runs]):
        return []  # a label within one curve: of a peak, of a speed
    sides = {label: columns.side_of(label) for label, _ in runs}
    is_said = "retract" in sides.values()
    parts = [
        replace(
            part,
            force=part.force[rows],
            distance=None if part.distance is None else part.distance[rows],
            side=sides[label] if is_said else None,
        )
        for label, rows in runs
    ]
    if is_said or curves is not None:
        return parts
    return parts if 1 < len(parts) <= _MOST_SEGMENTS and part.distance is not None else []


def _run_on(stretches: list[Samples]) -> bool:
    """Whether the distance goes on over most borders as if there were none."""
    borders = [samples.runs_on(before, after) for before, after in pairwise(stretches)]
    return 2 * sum(borders) > len(borders)


def by_cycle(part: Part) -> list[Part]:
    """Cut where the distance goes and returns again and again; the part alone where it does not."""
    if part.side is not None:
        return [part]
    rows, is_sure = cycles(part.force, part.distance)
    return [
        replace(
            part,
            force=part.force[one],
            distance=None if part.distance is None else part.distance[one],
            is_assumed=part.is_assumed or not is_sure,
        )
        for one in rows
    ] or [part]


def _segment_labels(sheet: Sheet) -> list[str] | None:
    for at in sheet.of("segment"):
        if at in sheet.words:
            return sheet.words[at]
        column = sheet.rows[:, at]
        if np.isfinite(column).all() and np.unique(column).size <= _MOST_SEGMENTS:
            return [f"{value:g}" for value in column]
    for words in sheet.words.values():
        if len(distinct := set(words)) <= 16 and "retract" in map(columns.side_of, distinct):
            return words
    return None


def _curve_labels(sheet: Sheet) -> list[str] | None:
    """A column that has the same number or word in all rows of a curve, and another one in the next curve's."""
    for at in (*sheet.of("curve", "file", "index", "other"), *sheet.unknown(), *sheet.words):
        words = sheet.words.get(at)
        if words is None:
            column = sheet.rows[:, at]
            if not np.isfinite(column).all() or np.any(column != np.rint(column)):
                continue
            words = [f"{value:g}" for value in column]
        runs = 1 + sum(before != after for before, after in pairwise(words))
        if 1 < runs <= len(words) // _SHORTEST and len(set(words)) == runs:
            return words
    return None


def retracts(parts: list[Part]) -> list[Part]:
    """The parts that are retracts, or hold one, each with the approach before it."""
    if any(part.side for part in parts):
        found: list[Part] = []
        approach = None
        for part in parts:
            if part.side == "approach":
                approach = part.force
            elif part.side == "retract" and approach is None and found and _continues(found[-1], part):
                found[-1] = _together(found[-1], part)
            elif part.side == "retract":
                before = part.approach if part.approach is not None else approach
                found.append(replace(part, approach=before))
                approach = None
            elif part.side is None:
                found.append(part)
        return found
    moving = _moving(parts)
    found, at = [], 0
    while at < len(moving):
        here = moving[at]
        after = moving[at + 1] if at + 1 < len(moving) else None
        if (
            after is not None
            and here.distance is not None
            and after.distance is not None
            and opposite(here.distance, after.distance)
        ):
            found.append(replace(after, side="retract", approach=here.force))
            at += 2
        else:
            found.append(replace(here, is_assumed=here.is_assumed or len(moving) == 2))
            at += 1
    return found


def _continues(before: Part, part: Part) -> bool:
    """Whether a retract was written in two segments, as with two speeds."""
    if before.side != "retract" or before.distance is None or part.distance is None or part.approach is not None:
        return False
    return before.distance.size > 1 < part.distance.size and samples.runs_on(before.distance, part.distance)


def _together(before: Part, part: Part) -> Part:
    assert before.distance is not None
    assert part.distance is not None
    distance = np.concatenate([before.distance, part.distance])
    return replace(before, force=np.concatenate([before.force, part.force]), distance=distance)


def _moving(parts: list[Part]) -> list[Part]:
    """Without the pauses, in which the distance hardly changes."""
    if len(parts) < 2 or any(part.distance is None for part in parts):
        return parts
    spans = [0.0 if part.distance is None or not part.distance.size else float(np.ptp(part.distance)) for part in parts]
    return [part for part, span in zip(parts, spans, strict=True) if span > 0.1 * max(spans)]
