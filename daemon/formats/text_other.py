"""Tables that are nobody's curve: a line a file, a line a setting, pictures as numbers, spectra, histograms."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from daemon.formats.columns import Column
from daemon.formats.table import Block, Table
from daemon.reading import NotACurve, Unreadable
from models.curve import Samples
from models.frontend import MIN_POINTS

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
_RAMP, _STRAIGHT = 0.9, 0.99
SHORTEST = MIN_POINTS  # rows of a curve that can be judged


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


def _follows(rows: Table) -> Samples:
    """How closely each column follows the row number, there or there and back, 0 to 1."""
    count = np.arange(rows.shape[0], dtype=np.float64)
    best = np.zeros(rows.shape[1])
    filled = np.where(np.isfinite(rows), rows, 0.0)
    spread = filled.std(axis=0)
    for ramp in (count, np.abs(count - count.mean())):
        against = ramp - ramp.mean()
        width = spread * against.std()
        shared = (filled - filled.mean(axis=0)).T @ against / max(rows.shape[0], 1)
        best = np.maximum(best, np.abs(np.divide(shared, width, out=np.zeros_like(width), where=width > 0)))
    return best


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
