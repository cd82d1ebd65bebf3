"""Curves from tables whose columns have names: the names say quantity, unit and side, and beat any order.

Where names contradict each other, their units or the numbers, or leave open which of several columns it is, the note
``columns_assumed`` keeps the curve from being discarded. Spare columns never become curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from daemon.formats import columns, limits, samples, text_bare, text_rows
from daemon.formats.base import NotACurve, Unreadable
from daemon.formats.columns import Column, Side
from daemon.formats.table import Block
from daemon.formats.text_bare import SI_FORCE, SI_LENGTH
from daemon.formats.text_rows import Branch, Part, Sheet
from daemon.formats.text_rule import Facts
from models.curve import Curve, DistanceKind, ForceUnit, Samples

_LONGEST_M, _SHORTEST_M = 1e-3, 1e-11  # of a ramp
_STRONGEST_N = 1e-3
_RAMP = 0.5  # a distance follows its rows at least so closely
_STRAIGHT = 0.98  # and what follows them so closely instead of it is no force
_SAME = 0.999  # correlation of two columns that show one signal,
_COPY = 1.0 - 1e-7  # and of a column and its copy
_SAME_RANK = 0.25
_HEADING_LINES = 12
_FORCES = ("force", "deflection")


def read(blocks: Sequence[Block], names: Sequence[list[Column] | None], facts: Facts) -> list[Curve] | None:
    """The curves of named tables, in the order of their rows and columns; None where no name says what is a force.

    ``names``: what the lines above each block say of its columns.

    Raises ``NotACurve("table")`` for a table of something else, ``Unreadable`` where there is no retract or no force.
    """
    sheets = _sheets(blocks, names, facts)
    if not sheets:
        return None
    parts: list[Part] = []
    for sheet in sheets:
        found = _parts(sheet)
        if found is None:
            return None
        parts += found
    retracts = text_rows.retracts(parts)
    if not retracts:
        raise Unreadable("no_retract")
    if len(retracts) > limits.TEXT_CURVES:
        raise Unreadable("bomb")
    return curves([(part, _branch(part)) for part in retracts], facts)


def _sheets(blocks: Sequence[Block], names: Sequence[list[Column] | None], facts: Facts) -> list[Sheet]:
    named = [facts.names_for(block.rows.shape[1], said) for block, said in zip(blocks, names, strict=True)]
    if not any(named):
        return []
    sheets: list[Sheet] = []
    of_width = {len(found): found for found in reversed(named) if found}  # of blocks without names: as the first one's
    for at, block in enumerate(blocks):
        found = named[at] or of_width.get(block.rows.shape[1])
        if found is not None:
            of_width[len(found)] = found
        if found is None:
            continue  # a table of something else beside the curve
        is_misfit = bool(facts.columns) and len(facts.columns) != len(found)
        is_assumed = (
            block.is_ragged
            or text_bare.hides_numbers(block)
            or block.layout.is_ambiguous
            or is_misfit
            or len(sheets) < at
        )
        sheets.append(Sheet(found, block.rows, block.words, _heading_side(block), is_assumed))
    longest = max((sheet.rows.shape[0] for sheet in sheets), default=0)
    return [sheet for sheet in sheets if sheet.rows.shape[0] >= min(longest, text_bare.SHORTEST)]


def _heading_side(block: Block) -> Side | None:
    """The side that a short line above the table gives to all of it."""
    for line in reversed(block.above[-_HEADING_LINES:]):
        if len(line) < 80 and (side := columns.side_of(line)) and not block.layout.words:
            return side
    return None


def _parts(sheet: Sheet) -> list[Part] | None:
    text_bare.check_meaning(sheet.columns, sheet.rows)
    forces = _without_weak(sheet, sheet.of(*_FORCES))
    distances = _without_weak(sheet, sheet.of("distance"))
    is_assumed = sheet.is_assumed
    if not forces:
        left_over, is_assumed = _force_by_elimination(sheet, distances), True
        if left_over is None:
            return None
        forces = left_over
        distances = [at for at in distances if at not in forces]
    sides = {sheet.columns[at].side for at in forces}
    if "retract" in sides:
        return [_sided(sheet, *one, is_assumed) for one in _abreast(sheet, forces, distances)]
    if sides == {"approach"}:
        raise Unreadable("no_retract")
    pairs, is_guess = _pairs(sheet, forces, distances)
    parts = []
    for force, distance in pairs:
        part = Part(
            *_signals(sheet, force, distance),
            side=sheet.side,
            is_assumed=is_assumed or is_guess,
        )
        parts += text_rows.by_rows(sheet, part)
    return parts


def _signals(sheet: Sheet, force: int, distance: int | None) -> tuple[Samples, Column, Samples | None, Column | None]:
    rows = sheet.rows
    return (
        rows[:, force],
        sheet.columns[force],
        None if distance is None else rows[:, distance],
        None if distance is None else sheet.columns[distance],
    )


def _without_weak(sheet: Sheet, found: list[int]) -> list[int]:
    """Without the columns that only a letter names, where others have a real name, and those without a number."""
    found = [at for at in found if np.isfinite(sheet.rows[:, at]).any()]
    strong = [at for at in found if not sheet.columns[at].is_weak]
    return strong or found


def _force_by_elimination(sheet: Sheet, distances: list[int]) -> list[int] | None:
    """The columns left over when everything else has a name; None where the numbers must tell.

    Raises for a table that holds no force, by its own words.
    """
    if sheet.rows.shape[0] < text_bare.SHORTEST and not distances:
        raise NotACurve("table")
    unknown = [at for at in sheet.unknown() if np.isfinite(sheet.rows[:, at]).sum() > 1]
    in_volts = [at for at in unknown if (unit := sheet.columns[at].unit) and unit.dimension == "V"]
    sided = [at for at in unknown if sheet.columns[at].side]
    for choice in (in_volts, sided, unknown):
        if len(choice) == 1 or (choice is sided and choice):
            return choice
    if unknown:
        return None
    if len(distances) > 1:  # two lengths: the one that is no ramp is the deflection
        follows = {at: text_rows.follows_rows(sheet.rows[:, at]) for at in distances}
        return [min(distances, key=lambda at: follows[at])]
    if sheet.of("other", "file"):
        raise NotACurve("table")
    raise Unreadable("no_force_channel")


def _best(sheet: Sheet, among: list[int], side: Side | None) -> int | None:
    of_side = [at for at in among if sheet.columns[at].side == side]
    return min(of_side, key=lambda at: (sheet.columns[at].rank, at), default=None)


def _last_best(sheet: Sheet, among: list[int], side: Side | None) -> int | None:
    """Of equals the last: programs that write a calculated and a measured position write the measured one last."""
    of_side = [at for at in among if sheet.columns[at].side == side]
    return min(of_side, key=lambda at: (sheet.columns[at].rank, -at), default=None)


def _is_doubtful(sheet: Sheet, chosen: int, among: list[int]) -> bool:
    """Whether another column has as good a name and is another signal."""
    mine = sheet.columns[chosen]
    for at in among:
        other = sheet.columns[at]
        if at == chosen or other.side != mine.side or abs(other.rank - mine.rank) >= _SAME_RANK:
            continue
        if not _is_one_signal(sheet.rows[:, chosen], sheet.rows[:, at], _SAME):
            return True
    return False


def _is_one_signal(one: Samples, other: Samples, likeness: float) -> bool:
    """Whether two columns are alike but for sign and scale; two pulls differ by their noise at least."""
    good = np.isfinite(one) & np.isfinite(other)
    if good.sum() < 4 or np.ptp(one[good]) == 0 or np.ptp(other[good]) == 0:
        return True
    return float(abs(np.corrcoef(one[good], other[good])[0, 1])) > likeness


def _abreast(sheet: Sheet, forces: list[int], distances: list[int]) -> list[tuple[list[int], list[int]]]:
    """(forces, distances) of each curve, where several stand beside each other with their sides."""
    retracts = [at for at in forces if sheet.columns[at].side == "retract"]
    if len(retracts) < 2 or not _are_alike(sheet, retracts):
        return [(forces, distances)]

    def nth(among: list[int], curve: int) -> list[int]:
        by_side = [[at for at in among if sheet.columns[at].side == side] for side in ("approach", "retract", None)]
        return [at for of in by_side for at in (of[curve : curve + 1] if len(of) == len(retracts) else of)]

    return [(nth(forces, curve), nth(distances, curve)) for curve in range(len(retracts))]


def _sided(sheet: Sheet, forces: list[int], distances: list[int], is_assumed: bool) -> Part:
    force = _best(sheet, forces, "retract")
    assert force is not None
    own = _last_best(sheet, distances, "retract")
    distance = own if own is not None else _last_best(sheet, distances, None)
    dimension = _dimension(sheet.columns[force])
    comparable = [at for at in forces if _dimension(sheet.columns[at]) == dimension]
    before = _best(sheet, comparable, "approach")
    approach = None if before is None else text_rows.trimmed(sheet.rows[:, before], None)[0]
    return Part(
        *_signals(sheet, force, distance),
        side="retract",
        approach=approach,
        is_shared=own is None and distance is not None,
        is_assumed=is_assumed or _is_doubtful(sheet, force, forces),
    )


def _dimension(column: Column) -> str:
    return column.unit.dimension if column.unit else ""


def _pairs(sheet: Sheet, forces: list[int], distances: list[int]) -> tuple[list[tuple[int, int | None]], bool]:
    """(force, distance) of each curve, and whether that is a guess."""
    if len(forces) > 1 and _are_alike(sheet, forces):
        if len(distances) == len(forces) and _are_alike(sheet, distances):
            return list(zip(forces, distances, strict=True)), False
        first, *others = (sheet.rows[:, at] for at in forces)
        if len(distances) <= 1 and not all(_is_one_signal(first, other, _COPY) for other in others):
            return [(at, distances[0] if distances else None) for at in forces], True
    force = min(forces, key=lambda at: (sheet.columns[at].rank, at))
    side = sheet.columns[force].side
    distance = _last_best(sheet, distances, side)
    if distance is None:
        distance = _last_best(sheet, distances, None)
    return [(force, distance)], _is_doubtful(sheet, force, forces)


def _are_alike(sheet: Sheet, among: list[int]) -> bool:
    """Whether names differ by a number at most: curves beside each other."""
    stems = {"".join(c for c in sheet.columns[at].name if not c.isdigit()).strip(" ._-#").lower() for at in among}
    units = {sheet.columns[at].unit for at in among}
    return len(stems) == 1 and len(units) == 1


def _branch(part: Part) -> Branch:
    force, distance = text_rows.trimmed(part.force, part.distance)
    if distance is not None and (distance.size < 2 or not np.ptp(distance) > 0):
        distance = None
    if part.side == "retract":
        branch = text_rows.oriented(force, distance, is_said=not part.is_shared)
        if part.is_shared and distance is not None and samples.turnaround(distance):
            branch = Branch(force, distance, is_sure=False)
        approach = part.approach
        if part.is_shared and approach is not None and branch.force is force:
            approach = approach[::-1]  # in the order of the distance, which the retract follows and the approach not
        return replace(branch, approach=approach if branch.approach is None else branch.approach)
    if distance is None:
        return _by_force_alone(force)
    return text_rows.oriented(force, distance)


def _by_force_alone(force: Samples) -> Branch:
    """Without a distance: from the first sample if that is in contact, else from where the force turns; a guess."""
    turn = (
        None if text_rows.surface_is_first(force, None)[0] and not _rises_inside(force) else samples.turnaround(force)
    )
    if turn is None:
        return Branch(force, None, is_sure=not _rises_inside(force))
    return Branch(force[turn[1] :], None, force[: turn[0]], is_sure=False)


def _rises_inside(force: Samples) -> bool:
    """Whether the force stands out inside and at neither end, as when the approach is in the same column."""
    known = force[np.isfinite(force)]
    if known.shape[0] < 64:
        return False
    ends = [float(np.median(known[: known.shape[0] // 50])), float(np.median(known[-(known.shape[0] // 50) :]))]
    span = float(np.ptp(known))
    return all(abs(end - float(np.median(known))) < 0.15 * span for end in ends)


def curves(found: Sequence[tuple[Part, Branch]], facts: Facts) -> list[Curve]:
    is_open = facts.pulling is None
    seen = text_rows.pulling_sign([branch for _, branch in found])
    sign = seen if facts.pulling is None else facts.pulling
    return [_curve(part, branch, sign, is_open, facts) for part, branch in found]


def _curve(part: Part, branch: Branch, sign: float, is_open: bool, facts: Facts) -> Curve:
    unit, factor, is_unit_assumed = _force_unit(part.force_column, branch.force)
    if unit is not None:
        unit, factor = samples.calibrated(unit, factor, facts.sensitivity_m_per_v, facts.spring_constant_n_per_m)
    distance, is_length_assumed = _in_metres(part.distance_column, branch.distance)
    samples.check_points(branch.force.shape[0])
    is_assumed = (
        part.is_assumed
        or not branch.is_sure
        or part.force_column.is_contradictory
        or (part.distance_column is not None and part.distance_column.is_contradictory)
        or _contradicts(branch, distance, branch.force * factor if unit == "N" else None)
    )
    notes = {
        "sign_assumed": is_open,
        "unit_assumed": is_unit_assumed or is_length_assumed,
        "columns_assumed": is_assumed,
    }
    return Curve(
        force=branch.force * (sign * factor),
        force_unit=unit,
        distance=None if distance is None else samples.outward(distance),
        distance_kind=None if distance is None else _kind(part.distance_column),
        approach_force=None if branch.approach is None else branch.approach * (sign * factor),
        spring_constant_n_per_m=facts.spring_constant_n_per_m,
        sensitivity_m_per_v=facts.sensitivity_m_per_v,
        notes=tuple(note for note, holds in notes.items() if holds) + facts.note,
    )


def _kind(column: Column | None) -> DistanceKind:
    return "separation" if column is not None and column.is_separation else "piezo"


def _contradicts(branch: Branch, distance_m: Samples | None, force_n: Samples | None) -> bool:
    """Whether the numbers cannot be what the names say: a ramp of a kilometre, a force that is the ramp."""
    if force_n is not None and _span_of(force_n) > _STRONGEST_N:
        return True
    if distance_m is not None and not _SHORTEST_M < _span_of(distance_m) < _LONGEST_M:
        return True
    if branch.distance is None:
        return False
    ramp, force = (text_rows.follows_rows(one) for one in (branch.distance, branch.force))
    return ramp < _RAMP or (force > _STRAIGHT and ramp < _STRAIGHT)


def _force_unit(column: Column, force: Samples) -> tuple[ForceUnit | None, float, bool]:
    """Unit, factor to it, and whether the size of the numbers had to tell."""
    if column.unit is not None:
        return column.unit.force, column.unit.factor if column.unit.force else 1.0, False
    if float(np.nanmax(np.abs(force), initial=0.0)) < SI_FORCE:
        return ("m" if column.quantity == "deflection" else "N"), 1.0, True
    return None, 1.0, True


def _in_metres(column: Column | None, distance: Samples | None) -> tuple[Samples | None, bool]:
    """The distance in metres, where it is a length, and whether the size of the numbers had to tell."""
    if distance is None or column is None:
        return None, False
    if column.unit is not None:
        return (distance * column.unit.factor if column.unit.dimension == "m" else None), False
    is_si = float(np.nanmax(np.abs(distance), initial=0.0)) < SI_LENGTH
    return distance * (1.0 if is_si else 1e-9), True


def _span_of(samples: Samples) -> float:
    """Between the smallest and the largest of the numbers there are."""
    known = samples[np.isfinite(samples)]
    return float(np.ptp(known)) if known.size else 0.0
