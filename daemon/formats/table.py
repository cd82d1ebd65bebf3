"""Tables out of text: which marks separate and which belong to a number, where rows begin and end, what stands above.

Nobody says how a table is written, so the rows themselves do: the first way of reading them under which they all have
the same cells is taken. Decimal points and commas, thousands, Fortran's ``D``, quotes, blank cells, words and time
stamps among the numbers, lines of words above, between and below.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from daemon.formats import columns, limits
from daemon.reading import Unreadable

Table = NDArray[np.float64]

MOST_COLUMNS = 2 * limits.TEXT_CURVES
_SAMPLE_LINES = 40
_LONGEST_CELL = 40
_LONGEST_NAMES = 4096  # characters of a line of names
_FEWEST_ROWS = 8  # a shorter run of numbers is a remark, where there is a longer one
_NAME_LINES = 4  # so far above the numbers their names are looked for
_BLANKS = frozenset({"", "-", "--", "---", "n/a", "#n/a", "na", "null", "none", "nil", "*"})
_BEGINS_WITH_A_NUMBER = re.compile(r"[\s\"']*[-+]?[.,]?\d")
_BEGINS_WITH_A_CELL = re.compile(r"\s*[-+\"'.,\d;|nNiI*#]|\t")  # a number, or one that is missing
_LIKE_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_DIGIT = re.compile(r"\d")
_COMMENT = re.compile(r"^\s*(?:(?:#(?!n/a)|%|//|!)+|\"\\)\s?", re.IGNORECASE)
_EXPONENT = r"(?:[eEdD][-+]?\d{1,4})?"
_NOT_A_NUMBER = r"[-+]?(?:[nN][aA][nN]|[iI][nN][fF])"
_GROUPED = re.compile(r"(?<=\d)['’ ](?=\d{3}(?!\d))")
_FORTRAN = str.maketrans("dD", "ee")
_DELIMITERS = ("\t", ";", "|", ", ", ",", " ")  # a blank stands for any run of blanks
_BRACKETED = re.compile(r"[^()\[\]]*[(\[][^)\]]*[)\]]")
_WORD_AND_UNIT = re.compile(r"[^\s()\[\]]+(?:\s*[(\[][^)\]]*[)\]])?")
_NOT_A_NAME = frozenset(
    {"waves", "waves/d", "waves/s", "waves/o", "columns", "columns:", "fields:", "channels:", "data:"}
)


@dataclass(frozen=True, slots=True)
class Style:
    """How a number is written; ``thousands`` is empty where they are not set apart."""

    decimal: str
    thousands: str
    pattern: re.Pattern[str]

    def is_number(self, cell: str) -> bool:
        return len(cell) < _LONGEST_CELL and self.pattern.fullmatch(cell) is not None

    def plain(self, text: str) -> str:
        """Numbers as Python reads them."""
        if self.thousands:
            text = text.replace(self.thousands, "")
        if self.decimal != ".":
            text = text.replace(self.decimal, ".")
        return text.translate(_FORTRAN)


def _style(decimal: str, thousands: str) -> Style:
    point, between = re.escape(decimal), re.escape(thousands)
    whole = rf"\d{{1,3}}(?:{between}\d{{3}})+|\d+" if thousands else r"\d+"
    number = rf"[-+]?(?:(?:{whole})(?:{point}\d*)?|{point}\d+){_EXPONENT}|{_NOT_A_NUMBER}"
    return Style(decimal, thousands, re.compile(number))


_STYLES = (_style(".", ""), _style(",", ""), _style(".", ","), _style(",", "."))
_PLAIN, _COMMA, _GROUPED_BY_COMMA = _STYLES[:3]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a text are written."""

    delimiter: str
    style: Style
    has_quotes: bool
    words: frozenset[int] = frozenset()  # columns that hold words
    columns: int = 0
    is_ambiguous: bool = False  # a comma may be decimal or set thousands apart

    def cells(self, line: str, *, is_names: bool = False) -> list[str]:
        """Without blanks and quotes; blank cells at the end of a row, but not of names, are as good as missing."""
        if self.delimiter == " ":
            cells = line.split()
        elif self.delimiter == ", ":
            cells = re.split(r",\s+", line.rstrip(" \t\r" if is_names else " ,\t\r"))
        else:
            line = line.rstrip("\r\n" if is_names else " \r\n" + self.delimiter)
            if self.has_quotes and '"' in line:
                cells = next(csv.reader([line], delimiter=self.delimiter, skipinitialspace=True), [])
            else:
                cells = line.split(self.delimiter)
        cells = [cell.strip(" \t\"'") for cell in cells]
        if self.delimiter in "\t;|":
            cells = [_GROUPED.sub("", cell) if "'" in cell or "’" in cell or " " in cell else cell for cell in cells]
        return cells

    def is_row(self, cells: Sequence[str]) -> bool:
        """At least one number, and words only where this table has them."""
        numbers = 0
        for at, cell in enumerate(cells):
            if self.style.is_number(cell):
                numbers += 1
            elif cell.casefold() not in _BLANKS and at not in self.words:
                return False
        return numbers > 0 and len(cells) - len(self.words) > 0

    def number(self, cell: str) -> float:
        return float(self.style.plain(cell)) if self.style.is_number(cell) else np.nan


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
            _cut(layout, line, is_names=True),
            *(_cut(Layout(delimiter, _PLAIN, True), line, is_names=True) for delimiter in "\t;,|"),
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
    return cells if is_fitting and not any(map(_PLAIN.is_number, cells)) else None


def _cut(layout: Layout, line: str, *, is_names: bool = False) -> list[str]:
    try:
        return layout.cells(line, is_names=is_names)
    except csv.Error:
        return []


def _counts(samples: Table) -> bool:
    """Whether a column is the number of its row."""
    return bool(samples.shape[0] > 1 and np.all(np.diff(samples) == 1.0))


# ---- how the rows are written


def layout_of(lines: Sequence[str]) -> Layout | None:
    """The first way of reading a sample of the lines under which all rows agree, else the one under which most do.

    None where there are no rows of numbers.
    """
    sample = _sample(lines)
    best, most = None, (0, 0)
    for layout in _ways(sample):
        found, fit = _fit(layout, sample)
        if fit > most and found is not None:
            best, most = found, fit
        if best is not None and most[0] >= len(sample) and not best.words:
            break
    if best is None:
        return None
    return _with_thousands(_sure_of_commas(best, sample, lines), lines)


def _ways(sample: Sequence[str]) -> Iterator[Layout]:
    """Every way of reading that the marks in a sample allow, the likeliest first."""
    has_quotes = any('"' in line for line in sample)
    has_points = any(re.search(r"\d\.\d", line) for line in sample)
    for delimiter in _DELIMITERS:
        if delimiter != " " and not any(delimiter in line for line in sample):
            continue
        for style in _STYLES:
            if delimiter == ", ":  # only needed where commas are decimal as well
                is_possible = style is _COMMA and not has_points
            else:
                is_possible = has_quotes or style.decimal != delimiter
            if is_possible:
                yield Layout(delimiter, style, has_quotes)


def _with_thousands(layout: Layout, lines: Sequence[str]) -> Layout:
    """The layout, with thousands set apart where some line can only be read so."""
    style = next((one for one in _STYLES[2:] if one.decimal == layout.style.decimal), None)
    if layout.style.thousands or style is None or (style.thousands == layout.delimiter and not layout.has_quotes):
        return layout
    grouped = replace(layout, style=style)
    for line in lines:
        if style.thousands in line and not is_row(layout, line) and is_row(grouped, line):
            return grouped
    return layout


def _sample(lines: Sequence[str]) -> list[str]:
    """Lines with digits, evenly from the later part of a text: names and remarks stand at its beginning."""
    later = lines[len(lines) * 2 // 5 :]
    candidates = [line for line in later if _BEGINS_WITH_A_NUMBER.match(line)]
    if 2 * len(candidates) < len(later):  # words come first in each row, or there is more text than rows
        with_digits = [line for line in later if _DIGIT.search(line, 0, 2000)]
        candidates = candidates if 2 * len(candidates) >= len(with_digits) else with_digits
    if len(candidates) < _FEWEST_ROWS:
        candidates = [line for line in lines if _DIGIT.search(line, 0, 2000)]
    step = max(len(candidates) // _SAMPLE_LINES, 1)
    return candidates[::step][: _SAMPLE_LINES + 1]


def _fit(layout: Layout, sample: Sequence[str]) -> tuple[Layout | None, tuple[int, int]]:
    """The layout with its columns of words; under how many lines of the sample it holds, and columns of numbers."""
    seen: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for line in sample:
        cells = _cut(layout, line)
        if len(cells) > MOST_COLUMNS:
            raise Unreadable("bomb")
        numbers = [at for at, cell in enumerate(cells) if layout.style.is_number(cell)]
        words = [
            at for at, cell in enumerate(cells) if cell.casefold() not in _BLANKS and not layout.style.is_number(cell)
        ]
        if numbers and len(words) <= max(len(numbers), 2):
            seen[len(cells), tuple(words)] += 1
    if not seen:
        return None, (0, 0)
    wordy: Counter[tuple[int, ...]] = Counter()
    for (_, words_at), count in seen.items():
        wordy[words_at] += count
    words_at = wordy.most_common(1)[0][0]
    counts = {count: times for (count, where), times in seen.items() if where == words_at}
    most = max(counts, key=lambda count: (counts[count], count))
    if layout.delimiter != " " and most == 1 and layout.delimiter not in (";",):
        return None, (0, 0)
    fitting = sum(counts.values()) if layout.delimiter != " " else counts[most]
    return replace(layout, words=frozenset(words_at), columns=most), (fitting, most - len(words_at))


def _sure_of_commas(layout: Layout, sample: Sequence[str], lines: Sequence[str]) -> Layout:
    """Settle what a comma is where every reading fits: ``1,063`` is one number or a thousand of them."""
    if layout.delimiter == "," and layout.style is _PLAIN and layout.columns == 2:
        pairs = [cells for line in sample if len(cells := layout.cells(line)) == 2]
        tails = [tail for _, tail in pairs if tail.isdigit()]
        heads = [head for head, _ in pairs if re.fullmatch(r"[-+]?\d+", head)]
        if len(tails) == len(heads) == len(pairs) and (
            any(len(tail) > 1 and tail[0] == "0" for tail in tails) and len({*map(len, tails)}) <= 2
        ):
            return Layout(" ", _COMMA, layout.has_quotes, frozenset(), 1)
    if layout.style is not _COMMA:
        return layout
    numbers = with_comma = 0
    for cells in map(layout.cells, lines):
        if not layout.is_row(cells):
            continue
        for cell in cells:
            numbers += layout.style.is_number(cell)
            with_comma += "," in cell
            if "," in cell and not _LIKE_THOUSANDS.fullmatch(cell):
                return layout
    style = _GROUPED_BY_COMMA if with_comma < numbers else _COMMA
    return replace(layout, style=style, is_ambiguous=with_comma > 0)


# ---- where they begin and end


def blocks(text: str) -> list[Block]:
    """The tables of a text, in order. Raises ``Unreadable`` where rows disagree, or are more than any curve has."""
    lines = text.splitlines()
    layout = layout_of(lines)
    if layout is None:
        raise Unreadable("unreadable")
    first = next((at for at, line in enumerate(lines) if is_row(layout, line)), len(lines))
    body = lines[first:]
    while body and not body[-1].strip():
        body.pop()
    rows = _uniform(layout, body)
    if rows is not None:
        return [_block(rows, lines[:first], layout)]
    return _runs(layout, lines)


def is_row(layout: Layout, line: str) -> bool:
    """Whether a line is a row of numbers, and no comment."""
    if 0 not in layout.words and not _BEGINS_WITH_A_CELL.match(line):
        return False
    return bool(line.strip()) and _COMMENT.match(line) is None and layout.is_row(_cut(layout, line))


def _block(rows: Table, above: Sequence[str], layout: Layout, words: dict[int, list[str]] | None = None) -> Block:
    kept = [line for line in above if line.strip(" \t,;")]
    return Block(
        rows,
        tuple(_COMMENT.sub("", line).rstrip() for line in kept),
        layout,
        words or {},
        is_commented=bool(kept) and _COMMENT.match(kept[-1]) is not None,
    )


def _uniform(layout: Layout, body: list[str]) -> Table | None:
    """(n, columns) of lines that are all rows without blanks and words: the usual file, read fast."""
    if not body or layout.words or layout.has_quotes or layout.style.thousands == layout.delimiter:
        return None
    if layout.delimiter == " ":
        cut = [line.split() for line in body]
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
        numbers = list(map(float, cells if layout.style is _PLAIN else map(layout.style.plain, cells)))
    except ValueError:
        return None
    return np.array(numbers).reshape(len(cut), count)


@dataclass(slots=True)
class _Run:
    """Rows without a line of words between them."""

    above: list[str]
    cells: list[list[str]] = field(default_factory=list)


def _runs(layout: Layout, lines: Sequence[str]) -> list[Block]:
    runs = [_Run([])]
    total = 0
    is_spaced = _is_spaced(lines)
    for line in lines:
        if not line.strip():
            if not is_spaced and runs[-1].cells:
                runs.append(_Run([]))
            continue
        cells = [] if _COMMENT.match(line) else _cut(layout, line)
        if cells and layout.is_row(cells):
            runs[-1].cells.append(cells)
            total += len(cells)
            if total > 16 * limits.POINTS:
                raise Unreadable("too_long")
        else:
            if runs[-1].cells:
                runs.append(_Run([]))
            runs[-1].above.append(line)
    long = _longest(runs)
    found, above = [], list[str]()
    for run in runs:
        above += run.above
        if len(run.cells) >= long:
            found.append(_table(run.cells, above, layout))
            above = []
        else:
            above += [" ".join(cells) for cells in run.cells]
    if not found:
        raise Unreadable("unreadable")
    _check_damage(runs, found, long)
    return found


def _is_spaced(lines: Sequence[str]) -> bool:
    """Whether every other line is blank, so that a blank one separates nothing."""
    inner = "\n".join(lines).strip().splitlines()
    return 5 * sum(not line.strip() for line in inner) > len(inner)


def _longest(runs: Sequence[_Run]) -> int:
    """The fewest rows of a block."""
    return min(_FEWEST_ROWS, max((len(run.cells) for run in runs), default=1)) or 1


def _check_damage(runs: Sequence[_Run], found: Sequence[Block], long: int) -> None:
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
    enough = max(_FEWEST_ROWS, len(rows) // 100) if len(rows) > _FEWEST_ROWS else 1
    count = max((size for size, times in counts.items() if times >= enough), default=max(counts))
    full = next((at for at, cells in enumerate(rows) if len(cells) == count), 0)
    if full < _FEWEST_ROWS and (layout.delimiter == " " or all(len(cells) == 1 for cells in rows[:full])):
        above, rows = [*above, *map(" ".join, rows[:full])], rows[full:]  # remarks, as of a stiffness
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
    layout = layout_of(lines)
    rows = None if layout is None else _uniform(layout, [line for line in lines if line.strip()])
    if rows is None:
        raise Unreadable("unreadable")
    return rows
