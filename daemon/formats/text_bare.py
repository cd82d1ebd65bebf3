"""Numbers without names: one column, two, three, or column pairs.

Everything a vendor's header would tell is inferred here, always by the same rules, and what was assumed stands in the
notes:

* *Which column.* One: force. Pairs: the column that follows the row number more closely is the distance. Three: height,
  approach and retract where the last two span alike (NT-MDT); otherwise time, separation, force. More than two columns,
  or two of which none is clearly the ramp: ``columns_assumed``.
* *Unit.* From a line of units above (``nm  nN``); else SI where the numbers are too small for anything else; else
  the distance is in nm and the force has no unit.
* *Direction and sign.* ``daemon.formats.text_rows``; the sign stays open.

Nobody's curve are tables of a line a file or a setting, pictures as numbers, spectra and histograms: the checks of
them stand at the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from daemon.formats import columns, limits, samples, text_rows
from daemon.formats.base import NotACurve, Unreadable
from daemon.formats.columns import Column, Side, side_of, unit_of
from daemon.formats.table import Block, Table
from daemon.formats.text_rows import Branch, Part, follow, follows_rows
from daemon.formats.text_rule import Facts, TextRule
from models.curve import Curve, ForceUnit, Samples
from models.frontend import MIN_POINTS

_UNIT_WORDS = re.compile(r"[^\s,;()\[\]]+")
_LONGEST_HEADING = 80
_RAMP = 0.9  # a distance follows its rows at least so closely
_LEANS = 0.002  # two columns that follow the rows so alike leave open which is the ramp
_STAMP = re.compile(
    r"(?:[\d\s:./,+\-_]|(?<=\d)[TZ](?=\d|$)|[ap]\.?m\.?|UTC|GMT|CES?T|Mon|Tue|Wed|Thu|Fri|Sat|Sun|"
    r"Jan|Feb|Mar|M.r|Apr|Ma[iy]|Jun|Jul|Aug|Sep|O[ck]t|Nov|De[cz]|[年月日时時分秒])+",
    re.IGNORECASE,
)
_FREQUENCY = re.compile(
    r"\b(?:freq|frequenz|fréquence|frecuencia|wave(?: ?length| ?number)?\b|energy\b)|频率|周波数|\b[kM]?Hz\b",
    re.IGNORECASE,
)
_ONE_EACH = 0.9  # of the words of a column are different: each line is a thing of its own
_FEWEST_COLUMNS = 6  # that cannot be one curve
_NARROWEST = 16  # columns of a picture
_SMALL_PICTURE = 64
_FEW_NUMBERS = 16  # as many different whole numbers as labels have
_STRAIGHT = 0.99  # what follows them so closely is no force
SHORTEST = MIN_POINTS  # rows of a curve that can be judged
SI_FORCE, SI_LENGTH = 1e-6, 1e-3  # no force curve reaches a micronewton or a millimetre


@dataclass(frozen=True)
class _Units:
    force: ForceUnit | None
    force_factor: float
    length_factor: float
    assumed: bool


def read(blocks: Sequence[Block], facts: Facts, *, has_names: bool) -> list[Curve]:
    """All curves, in the order of their columns; ``has_names``: there are names, and they say nothing known."""
    tables, sides = _tables(blocks)
    branches, is_clear = _stacked(tables, sides) if len(tables) > 1 else _branches(tables[0])
    if len(branches) > limits.TEXT_CURVES:
        raise Unreadable("bomb")
    block = max(blocks, key=lambda block: block.rows.size)
    units = _units(block.heading, branches, facts.rule)
    sign = text_rows.pulling_sign(branches) if facts.pulling is None else facts.pulling
    is_misfit = bool(facts.columns)  # else the table would have been read by their names
    is_unclear = not is_clear or len(blocks) > 1 or block.is_ragged or block.layout.is_ambiguous
    is_assumed = has_names or is_misfit or is_unclear or hides_numbers(block)
    notes = {"sign_assumed": facts.pulling is None, "unit_assumed": units.assumed}
    said = tuple(note for note, holds in notes.items() if holds) + facts.note
    return [
        _curve(branch, units, sign, (*said, "columns_assumed") if is_assumed or not branch.is_sure else said)
        for branch in branches
    ]


def _tables(blocks: Sequence[Block]) -> tuple[list[Table], list[Side | None]]:
    """The tables that may be curves, and the sides that the lines above them name."""
    found = [(_without_words(block), block) for block in blocks]
    longest, widest = max(found, key=lambda pair: pair[0].size)[0].shape
    found = [
        (rows, block) for rows, block in found if rows.shape[1] == widest and rows.shape[0] >= min(longest, SHORTEST)
    ]
    for rows, _ in found:
        samples.check_points(rows.shape[0])
        check_numbers(rows)
    return [rows for rows, _ in found], [_side(block) for _, block in found]


def _side(block: Block) -> Side | None:
    return next(
        (side for line in reversed(block.above) if len(line) < _LONGEST_HEADING and (side := side_of(line))), None
    )


def _stacked(tables: Sequence[Table], sides: Sequence[Side | None]) -> tuple[list[Branch], bool]:
    """The retracts of tables below each other, each with the approach before it."""
    is_said = "retract" in sides
    if tables[0].shape[1] != 2:
        kept = [rows for rows, side in zip(tables, sides, strict=True) if not is_said or side != "approach"]
        return [branch for rows in kept for branch in _branches(rows)[0]], False
    leans = sum(follows_rows(rows[:, 0]) - follows_rows(rows[:, 1]) for rows in tables)
    force, distance = (1, 0) if leans >= 0 else (0, 1)
    nameless = columns.column("")
    parts: list[Part] = []
    for rows, side in zip(tables, sides, strict=True):
        part = Part(rows[:, force], nameless, rows[:, distance], nameless, side if is_said else None)
        parts += text_rows.by_cycle(part)
    found = []
    for part in text_rows.retracts(parts):
        branch = text_rows.oriented(part.force, part.distance, is_said=part.side == "retract")
        found.append(branch if part.approach is None else replace(branch, approach=part.approach))
    return found, False


def _without_words(block: Block) -> Table:
    kept = [at for at in range(block.rows.shape[1]) if at not in block.words]
    rows = block.rows[:, kept]
    rows = rows[:, np.isfinite(rows).any(axis=0)] if rows.shape[1] > 1 else rows  # a column may be blank all along
    known = np.isfinite(rows).all(axis=1)
    return rows[known] if rows.shape[1] <= 3 and known.sum() >= 0.95 * known.size else rows


def _curve(branch: Branch, units: _Units, sign: float, notes: tuple[str, ...]) -> Curve:
    factor = sign * units.force_factor
    return Curve(
        force=branch.force * factor,
        force_unit=units.force,
        distance=None if branch.distance is None else samples.outward(branch.distance * units.length_factor),
        distance_kind=None if branch.distance is None else branch.kind,
        approach_force=None if branch.approach is None else branch.approach * factor,
        notes=notes,
    )


def _branches(rows: Table) -> tuple[list[Branch], bool]:
    """The retracts, in the order of their columns, and whether it is clear which column is what."""
    count = rows.shape[1]
    if count == 1:
        return [Branch(rows[:, 0])], True
    if count == 3:
        return _three(rows), False
    if shares_distance(rows):
        return [text_rows.oriented(rows[:, at], rows[:, 0]) for at in range(1, count)], False
    if count % 2:
        raise Unreadable("no_force_channel")
    pairs = [rows[:, at : at + 2] for at in range(0, count, 2)]
    if len(pairs) > 1:  # a lone one has nothing to be filled up to: what is missing there is missing
        pairs = [_unpadded(pair) for pair in pairs]
    leans = sum(follows_rows(pair[:, 0]) - follows_rows(pair[:, 1]) for pair in pairs)
    order = (1, 0) if leans >= 0 else (0, 1)
    is_ramp = all(follows_rows(pair[:, order[1]]) > _RAMP for pair in pairs)
    signals = [(pair[:, order[0]], pair[:, order[1]]) for pair in pairs]
    if len(signals) == 2 and text_rows.opposite(signals[0][1], signals[1][1]):
        branch = text_rows.oriented(*signals[1], is_said=True)
        return [replace(branch, approach=signals[0][0])], False
    if len(signals) == 1:
        cycles, is_sure = text_rows.cycles(*signals[0])
        if cycles:
            return [text_rows.oriented(signals[0][0][one], signals[0][1][one]) for one in cycles], is_sure
    return [text_rows.oriented(*signal) for signal in signals], len(pairs) == 1 and is_ramp and abs(leans) > _LEANS


def _three(rows: Table) -> list[Branch]:
    """Time, distance and force; or height, approach and retract, where the height runs away from the surface."""
    spans = np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)
    if spans[2] > 0 and not 0.01 < spans[1] / spans[2] < 100.0:
        return [replace(text_rows.oriented(rows[:, 2], rows[:, 1]), kind="separation")]
    start = [_padding(rows[:, column]) for column in (1, 2)]
    retract = rows[start[1] :, :]
    return [Branch(retract[:, 2], retract[:, 0], rows[start[0] :, 1][::-1])]


def _padding(samples: Samples) -> int:
    """How many samples at the start repeat the first: the export fills a saturated start that way."""
    other = np.flatnonzero(samples != samples[0])
    return max(int(other[0]) - 1, 0) if other.size else 0


def _unpadded(pair: Table) -> Table:
    """Without the rows of zeros that fill a shorter trace up to the longest."""
    used = np.flatnonzero(np.any(pair != 0, axis=1) & np.isfinite(pair).all(axis=1))
    return pair[: int(used[-1]) + 1] if used.size else pair[:0]


def _units(heading: str, branches: Sequence[Branch], rule: TextRule | None) -> _Units:
    """From the laboratory's word or those of the line above, else from how large the numbers are."""
    found = [unit for word in _UNIT_WORDS.findall(heading) if (unit := unit_of(word)) is not None]
    force = next((unit for unit in found if unit.dimension in ("N", "V")), None)
    length = next((unit for unit in found if unit.dimension == "m"), None)
    said = (unit_of(rule.force_unit), unit_of(rule.distance_unit)) if rule is not None else (None, None)
    force, length = said[0] or force, said[1] or length
    if force and (length or branches[0].distance is None):
        return _Units(force.force, force.factor, length.factor if length else 1.0, assumed=False)
    force_most = max((float(np.nanmax(np.abs(b.force), initial=0.0)) for b in branches), default=0.0)
    lengths = [float(np.nanmax(np.abs(b.distance), initial=0.0)) for b in branches if b.distance is not None]
    is_si_length = bool(lengths) and max(lengths) < SI_LENGTH
    unit_seen: ForceUnit | None = "N" if force_most < SI_FORCE and (is_si_length or not lengths) else None
    length_factor = said[1].factor if said[1] else 1.0 if is_si_length else 1e-9
    if said[0] is not None:
        return _Units(said[0].force, said[0].factor, length_factor, assumed=said[1] is None and bool(lengths))
    return _Units(unit_seen, 1.0, length_factor, assumed=bool(lengths) or unit_seen is not None)


def check_lines(block: Block) -> None:
    """Raise ``NotACurve`` for a table in which each line is about a thing of its own: its name stands in it."""
    for words in block.words.values():
        named = [word for word in words if word and not _STAMP.fullmatch(word)]
        if len(named) >= _ONE_EACH * len(words) and len(set(named)) >= _ONE_EACH * len(words) > 1:
            raise NotACurve("table")


def hides_numbers(block: Block) -> bool:
    """Whether numbers stand in columns that could only be read as words, so that others may be taken for them."""
    return any(
        2 * sum(word[:1] in "+-.0123456789" and not _STAMP.fullmatch(word) for word in words if word) > len(words)
        for words in block.words.values()
    )


def check_numbers(rows: Table) -> None:
    """Raise for numbers without names that are a picture (or another field), or a list of labels.

    ``NotACurve`` where the numbers leave no doubt, ``Unreadable`` for many columns of which none is a distance.
    """
    if rows.shape[1] == 1:
        known = rows[np.isfinite(rows)]
        if known.size >= SHORTEST and np.unique(known[: 4 * SHORTEST]).size <= _FEW_NUMBERS and _are_labels(known):
            raise NotACurve("table")
    elif rows.shape[1] >= _FEWEST_COLUMNS and not _alternates(rows):
        if rows.shape[1] >= _NARROWEST and _is_picture(rows):
            raise NotACurve("image")
        if not shares_distance(rows) and (rows.shape[1] >= _NARROWEST or float(_follows(rows).max()) < _RAMP):
            raise Unreadable("no_force_channel")


def _are_labels(numbers: Samples) -> bool:
    return bool(np.all(numbers == np.rint(numbers)) and np.unique(numbers).size <= _FEW_NUMBERS)


def shares_distance(rows: Table) -> bool:
    """Whether the first column is a ramp and none of the others: forces over one distance."""
    if rows.shape[1] <= 3 or not np.isfinite(rows).all():
        return False
    follows = _follows(rows)
    return bool(follows[0] > _STRAIGHT and np.all(follows[1:] < _STRAIGHT))


def _alternates(rows: Table) -> bool:
    """Whether every other column is a ramp, and those between are other signals."""
    follows = _follows(rows)
    at = int(follows[1::2].mean() > follows[::2].mean())
    ramps, between = follows[at::2], follows[1 - at :: 2]
    return bool(np.median(ramps) > _RAMP and np.median(ramps) > np.median(between) + 0.001)


def _follows(rows: Table) -> NDArray[np.float64]:
    """How closely each column follows the row number, there or there and back in equal parts, 0 to 1."""
    count = np.arange(rows.shape[0], dtype=np.float64)
    filled = np.where(np.isfinite(rows), rows, 0.0)
    return np.maximum(follow(filled, count), follow(filled, np.abs(count - count.mean())))


def _is_picture(rows: Table) -> bool:
    """As many lines as columns, or as programs divide a picture. Curves beside each other are longer."""
    few, many = min(rows.shape), max(rows.shape)
    return bool(
        few == many or (few >= _SMALL_PICTURE and many <= 2 * few and few & (few - 1) == many & (many - 1) == 0)
    )


def check_meaning(columns: Sequence[Column], rows: Table) -> None:
    """Raise ``NotACurve`` for a named table of something else: over frequency, or over a force in equal steps."""
    of = {column.quantity for column in columns}
    mechanical = [at for at, column in enumerate(columns) if column.quantity in ("force", "deflection")]
    if "distance" in of or "time" in of:
        if all(columns[at].is_weak for at in mechanical) and _is_grid(columns, rows):
            raise NotACurve("image")
        return
    if _is_spectrum(columns, rows):
        raise NotACurve("table")
    if len(mechanical) == 1 and of & {"other", "spread", None} and _is_axis(rows[:, mechanical[0]]):
        raise NotACurve("table")


def _is_spectrum(columns: Sequence[Column], rows: Table) -> bool:
    return any(
        column.quantity in ("other", None) and _FREQUENCY.search(column.name) and _is_axis(rows[:, at])
        for at, column in enumerate(columns)
    )


def _is_axis(samples: Samples) -> bool:
    """Whether numbers only grow, or only fall: what is measured is noisy, what it is drawn over is not."""
    steps = np.diff(samples[np.isfinite(samples)])
    return bool(steps.size > 1 and (np.all(steps > 0) or np.all(steps < 0)))


def _is_grid(columns: Sequence[Column], rows: Table) -> bool:
    """Three lengths X, Y and Z, of which one begins anew with each step of another."""
    letters = {column.name.strip()[:1].casefold(): at for at, column in enumerate(columns)}
    if not {"x", "y", "z"} <= letters.keys():
        return False
    x, y = rows[:, letters["x"]], rows[:, letters["y"]]
    counts = [np.unique(one[np.isfinite(one)]).size for one in (x, y)]
    return min(counts) > 1 and counts[0] * counts[1] <= 1.1 * rows.shape[0]
