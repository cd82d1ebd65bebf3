"""Tables out of text: where rows begin and end, what stands above them, and the names of their columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from daemon.formats import columns, limits, text_layout
from daemon.formats.base import Unreadable
from daemon.formats.samples import is_steady, runs_on
from daemon.formats.text_layout import COMMENT, FEWEST_ROWS, PLAIN, Layout, layout_of

Table = NDArray[np.float64]

_USUAL = Layout(" ", PLAIN, False)  # tried first where a program is known that writes so
_LONGEST_NAMES = 4096  # characters of a line of names
_MOST_BLOCKS = 4096  # of one text
_NAME_LINES = 4  # so far above the numbers their names are looked for
_BRACKETED = re.compile(r"[^()\[\]]*[(\[][^)\]]*[)\]]")
_WORD_AND_UNIT = re.compile(r"[^\s()\[\]]+(?:\s*[(\[][^)\]]*[)\]])?")
_NOT_A_NAME = frozenset(
    {"waves", "waves/d", "waves/s", "waves/o", "columns", "columns:", "fields:", "channels:", "data:"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Rows that belong together, and the lines of words above them."""

    rows: Table  # (n, columns); NaN where a cell is blank, a word, or missing
    above: tuple[str, ...]  # without comment marks
    layout: Layout
    words: dict[int, list[str]] = field(default_factory=dict)  # columns that hold words
    is_ragged: bool = False  # cells are missing, and blanks between numbers do not tell which
    is_commented: bool = False  # the last line above is a comment

    @property
    def heading(self) -> str:
        """The line next above the numbers."""
        return self.above[-1] if self.above else ""

    def named(self) -> list[columns.Column] | None:
        """What the names above say of each column; None where there are no names."""
        count = self.rows.shape[1]
        lines = [line for line in self.above[-_NAME_LINES:] if len(line) < _LONGEST_NAMES + 64 * count]
        fitting = [cells for line in reversed(lines) if (cells := _names(line, self, is_group=False))]
        for place, cells in enumerate(fitting):
            are_units = all(not cell or columns.unit_of(cell) for cell in cells) and any(cells)
            if are_units and place + 1 < len(fitting) and _says_what_is_measured(fitting[place + 1]):
                return self._sided(columns.columns(fitting[place + 1], cells))
            if _says_something(cells):
                return self._sided(columns.columns(cells))
        if fitting and not (self.is_commented or (self.layout.delimiter == " " and count < 3)):
            return columns.columns(fitting[0])
        return None

    def _sided(self, found: list[columns.Column]) -> list[columns.Column]:
        """With the sides that a line above the names gives to groups of columns: ``Approach,,Retract,``."""
        if any(column.side for column in found):
            return found
        for line in reversed(self.above[-_NAME_LINES:]):
            cells = _names(line, self, is_group=True) or []
            sides = [columns.side_of(cell) for cell in cells]
            if "retract" in sides and (len(cells) == len(found) or 2 * len(cells) == len(found)):
                repeat = len(found) // len(cells)
                spread: list[columns.Side | None] = [side for side in sides for _ in range(repeat)]
                for at in range(1, len(spread)):
                    spread[at] = spread[at] or (spread[at - 1] if repeat == 1 and not cells[at] else None)
                return [columns.with_side(column, side) for column, side in zip(found, spread, strict=True)]
        return found


def _says_something(cells: Sequence[str]) -> bool:
    return any(column.quantity is not None or column.side is not None for column in columns.columns(cells))


def _says_what_is_measured(cells: Sequence[str]) -> bool:
    return any(column.quantity in ("force", "deflection", "distance") for column in columns.columns(cells))


def _names(line: str, block: Block, *, is_group: bool) -> list[str] | None:
    """The line as names of this many columns; None where it cannot be cut so, or holds numbers."""
    count, layout = block.rows.shape[1], block.layout
    if count == 1:
        quantity = columns.columns([line])[0].quantity if len(line) < 60 and ":" not in line else None
        is_name = quantity in ("force", "deflection") or (quantity is not None and not any(map(str.isdigit, line)))
        ways = [[line.strip(" \t\"',;:")]] if is_name else []
    else:
        ways = [
            layout.cut(line, is_names=True),
            *(Layout(delimiter, PLAIN, True).cut(line, is_names=True) for delimiter in "\t;,|"),
            [cell.strip(" \"'") for cell in re.split(r"\s{2,}|\t", line.strip())],
            [cell.strip(" ,;\t\"'") for cell in _BRACKETED.findall(line)],
            [cell.strip(" ,;\t\"'") for cell in _WORD_AND_UNIT.findall(line)],
        ]
    fitted = (_fitted(cells, block, is_group=is_group) for cells in ways)
    return next((cells for cells in fitted if cells is not None), None)


def _fitted(cells: list[str], block: Block, *, is_group: bool) -> list[str] | None:
    """The cells as one name a column; None where they are too many or too few, or numbers."""
    count = block.rows.shape[1]
    if len(cells) > count and cells[0].casefold() in _NOT_A_NAME:
        cells = cells[1:]
    while len(cells) > count and not cells[-1]:
        cells = cells[:-1]
    if len(cells) == count - 1 and count > 2 and _counts(block.rows[:, 0]):
        cells = ["index", *cells]
    is_short_group = is_group and count > len(cells) > 1
    if is_short_group and 2 * len(cells) != count:
        cells = [*cells, *[""] * (count - len(cells))]
    is_fitting = (len(cells) == count or is_short_group) and any(cells)
    return cells if is_fitting and not any(map(PLAIN.is_number, cells)) else None


def _counts(samples: Table) -> bool:
    """Whether a column is the number of its row."""
    return bool(samples.shape[0] > 1 and np.all(np.diff(samples) == 1.0))


def blocks(text: str) -> list[Block]:
    """The tables of a text, in order. Raises ``Unreadable`` where rows disagree, or are more than any curve has."""
    lines = text_layout.lines_of(text)
    layout = layout_of(lines)
    if layout is None:
        raise Unreadable("unreadable")
    first = next((at for at, line in enumerate(lines) if layout.reads(line)), len(lines))
    body = lines[first:]
    while body and not body[-1].strip():
        body.pop()
    rows = _uniform(layout, body)
    if rows is not None:
        return [_block(rows, lines[:first], layout)]
    return _runs(layout, lines)


def _block(rows: Table, above: Sequence[str], layout: Layout, words: dict[int, list[str]] | None = None) -> Block:
    kept = [line for line in above if line.strip(" \t,;")]
    return Block(
        rows,
        tuple(COMMENT.sub("", line).rstrip() for line in kept),
        layout,
        words or {},
        is_commented=bool(kept) and COMMENT.match(kept[-1]) is not None,
    )


def _uniform(layout: Layout, body: list[str]) -> Table | None:
    """(n, columns) of lines that are all rows without blanks and words: the usual file, read fast."""
    if len(body) > limits.POINTS:
        raise Unreadable("too_long")
    if not body or layout.words or layout.has_quotes or layout.style.thousands == layout.delimiter:
        return None
    if layout.delimiter == " ":
        cut = [line.rstrip(" \t\r;").split() for line in body]
    elif layout.delimiter == ", ":
        return None
    else:
        ends = " \r" + layout.delimiter
        cut = [line.rstrip(ends).split(layout.delimiter) for line in body]
    count = len(cut[0])
    if count * len(cut) > 16 * limits.POINTS or any(len(cells) != count for cells in cut):
        return None
    cells = chain.from_iterable(cut)
    try:
        numbers = list(map(float, cells if layout.style is PLAIN else map(layout.style.plain, cells)))
    except ValueError:
        return None
    return np.array(numbers).reshape(len(cut), count)


@dataclass(slots=True)
class _Run:
    """Rows without a line of words between them."""

    above: list[str]
    cells: list[list[str]] = field(default_factory=list)
    number: int = 0  # of those before it that are long enough for a block


def _runs(layout: Layout, lines: Sequence[str]) -> list[Block]:
    runs = [_Run([])]
    total = 0
    is_spaced = _is_spaced(lines)
    for line in lines:
        if not line.strip():
            if not is_spaced and runs[-1].cells:
                _begin(runs)
            continue
        cells = [] if COMMENT.match(line) else layout.cut(line)
        if len(cells) > layout.columns and layout.delimiter != " " and not layout.is_row(cells):
            cells = cells[: layout.columns]  # a remark behind its row
        if cells and layout.is_row(cells):
            runs[-1].cells.append(cells)
            total += len(cells)
            if total > 16 * limits.POINTS:
                raise Unreadable("too_long")
        else:
            if runs[-1].cells:
                _begin(runs)
            runs[-1].above.append(line)
    long = _fewest(runs)
    found, above = list[Block](), list[str]()
    for run in runs:
        above += run.above
        if len(run.cells) >= long:
            table = _table(run.cells, above, layout)
            joined = _joined(found[-1], table) if found else None
            found[-1:] = [joined] if joined is not None else [*found[-1:], table]
            above = []
        else:
            above += [" ".join(cells) for cells in run.cells]
    if not found:
        raise Unreadable("unreadable")
    _check_damage(runs, long)
    return _abreast(found)


def _abreast(found: list[Block]) -> list[Block]:
    """Channels that stand below each other, a column each, as one table; all else as it is."""
    if len(found) < 2:
        return found
    channels: list[Table] = []
    columns_of: list[columns.Column] = []
    for block in found:
        filled = np.flatnonzero(np.isfinite(block.rows).any(axis=0))
        names = block.named() if filled.size == 1 else None
        if names is None:
            return found
        channels.append(block.rows[:, filled[0]])
        columns_of.append(names[filled[0]])
    if len({(column.quantity, column.side) for column in columns_of}) < len(found):
        return found
    above = (*found[0].above[:-1], "\t".join(column.name for column in columns_of))
    rows = np.full((max(map(len, channels)), len(channels)), np.nan)
    for at, channel in enumerate(channels):
        rows[: channel.shape[0], at] = channel
    return [Block(rows, above, found[0].layout)]


def _begin(runs: list[_Run]) -> None:
    """Another run; refused at once where there are too many, for each costs time."""
    runs.append(_Run([], number=runs[-1].number + (len(runs[-1].cells) >= FEWEST_ROWS)))
    if runs[-1].number > _MOST_BLOCKS:
        raise Unreadable("bomb")


def _joined(before: Block, after: Block) -> Block | None:
    """Two blocks as one, where only a remark or a blank line stands between rows that run on."""
    if before.rows.shape[1] != after.rows.shape[1] or columns.side_of(" ".join(after.above)):
        return None
    steady = [
        runs_on(one, other)
        for one, other in zip(before.rows.T, after.rows.T, strict=True)
        if is_steady(one) and is_steady(other)
    ]
    if not steady or not all(steady):
        return None
    words = {at: [*column, *after.words[at]] for at, column in before.words.items()}
    rows = np.concatenate([before.rows, after.rows])
    return replace(before, rows=rows, words=words, is_ragged=before.is_ragged or after.is_ragged)


def _is_spaced(lines: Sequence[str]) -> bool:
    """Whether every other line is blank, so that a blank one separates nothing."""
    inner = "\n".join(lines).strip().splitlines()
    return 5 * sum(not line.strip() for line in inner) > len(inner)


def _fewest(runs: Sequence[_Run]) -> int:
    """The fewest rows of a block. Raises ``Unreadable`` for more blocks than anybody writes."""
    fewest = min(FEWEST_ROWS, max((len(run.cells) for run in runs), default=1)) or 1
    if sum(len(run.cells) >= fewest for run in runs) > _MOST_BLOCKS:
        raise Unreadable("bomb")
    return fewest


def _check_damage(runs: Sequence[_Run], long: int) -> None:
    """Refuse a table that breaks off and goes on without a word about it: its rows are damaged, not another block."""
    with_rows = [run for run in runs if run.cells]
    for before, after in pairwise(with_rows):
        if len(before.cells) >= long and len(after.cells) >= long and after.above:
            text = " ".join(after.above)
            letters = sum(map(str.isalpha, text))
            if 2 * letters < len(text.replace(" ", "")) and not columns.count_known_words(text):
                raise Unreadable("unreadable")


def _table(rows: list[list[str]], above: Sequence[str], layout: Layout) -> Block:
    counts = Counter(map(len, rows))
    enough = max(FEWEST_ROWS, len(rows) // 100) if len(rows) > FEWEST_ROWS else 1
    count = max((size for size, times in counts.items() if times >= enough), default=max(counts))
    full = next((at for at, cells in enumerate(rows) if len(cells) == count), 0)
    is_remark = layout.delimiter == " " or all(len(cells) == 1 or len(cells) > count for cells in rows[:full])
    if full < FEWEST_ROWS and is_remark:
        above, rows = [*above, *map(" ".join, rows[:full])], rows[full:]  # remarks, as of a stiffness
    if len(rows) > 1 and len(rows[-1]) < count <= len(rows[-2]):
        rows = rows[:-1]  # a remark, or a row that was never finished
    if any(len(cells) > count for cells in rows) or not rows:
        raise Unreadable("unreadable")
    short = [len(cells) < count for cells in rows]
    first_short = short.index(True) if any(short) else len(rows)
    is_ragged = layout.delimiter == " " and (any(not one for one in short[first_short:]) or len(rows) - first_short > 1)
    table = np.full((len(rows), count), np.nan)
    words: dict[int, list[str]] = {at: [] for at in layout.words if at < count}
    for at, cells in enumerate(rows):
        table[at, : len(cells)] = [layout.number(cell) for cell in cells]
        for place, column in words.items():
            column.append(cells[place] if place < len(cells) else "")
    block = _block(table, above, layout, words)
    return Block(table, block.above, layout, words, is_ragged, block.is_commented)


def rows_of(lines: Sequence[str]) -> Table:
    """(rows, columns) of lines that are known to be rows, all alike. Raises ``Unreadable`` where they are not."""
    written = [line for line in lines if line.strip()]
    rows = _uniform(_USUAL, written)
    if rows is None and (layout := layout_of(lines)) is not None:
        rows = _uniform(layout, written)
    if rows is None:
        raise Unreadable("unreadable")
    return rows
