"""How the rows of a text are written: which marks separate, and which belong to a number.

Nobody says it, so the rows themselves do: the first way of reading them under which they all have the same cells is
taken. Decimal points and commas, thousands, Fortran's ``D``, quotes, blank cells, words and time stamps among numbers.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from daemon.formats import limits
from daemon.formats.base import Unreadable

MOST_COLUMNS = 2 * limits.TEXT_CURVES
FEWEST_ROWS = 8  # a shorter run of numbers is a remark, where there is a longer one
_SAMPLE_LINES = 40
_LONGEST_CELL = 40
_BLANKS = frozenset(
    {
        *(
            "",
            "-",
            "--",
            "---",
            "*",
            "?",
            ".",
            "n/a",
            "#n/a",
            "na",
            "n.a.",
            "nd",
            "n.d.",
            "null",
            "none",
            "nil",
            "missing",
        ),
        *("#div/0!", "#value!", "#num!", "#ref!", "#null!", "#name?", "ovl", "overrange", "nan(ind)", "-nan(ind)"),
        *("1.#inf", "-1.#inf", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "1,#inf", "-1,#inf", "1,#ind", "-1,#ind"),
    }
)
_BEGINS_WITH_A_NUMBER = re.compile(r"[\s\"']*[-+]?[.,]?\d")
_BEGINS_WITH_A_CELL = re.compile(r"\s*[-+\"'.,\d;|nNiI*#]|\t")  # a number, or one that is missing
_LIKE_THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
_DIGIT = re.compile(r"\d")
COMMENT = re.compile(r"^\s*(?:(?:#(?!n/a)|%|//|!)+|\"\\)\s?", re.IGNORECASE)
_EXPONENT = r"(?:[eEdD][-+]?\d{1,4})?"
_NOT_A_NUMBER = r"[-+]?(?:[nN][aA][nN]|[iI][nN][fF])"
_GROUPED = re.compile(r"(?<=\d)['’ ](?=\d{3}(?!\d))")
_FORTRAN = str.maketrans("dD", "ee")
_DELIMITERS = ("\t", ";", "|", ", ", ",", " ")  # a blank stands for any run of blanks


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
PLAIN, _COMMA, _GROUPED_BY_COMMA = _STYLES[:3]


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
            cells = line.rstrip(" \t\r;").split()  # MATLAB ends its rows so
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

    def cut(self, line: str, *, is_names: bool = False) -> list[str]:
        """As ``cells``; nothing where quotes are damaged."""
        try:
            return self.cells(line, is_names=is_names)
        except csv.Error:
            return []

    def reads(self, line: str) -> bool:
        """Whether a line is a row of numbers, and no comment."""
        if 0 not in self.words and not _BEGINS_WITH_A_CELL.match(line):
            return False
        return bool(line.strip()) and COMMENT.match(line) is None and self.is_row(self.cut(line))

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


def layout_of(lines: Sequence[str]) -> Layout | None:
    """The first way of reading a sample of the lines under which all rows agree, else the one under which most do.

    None where there are no rows of numbers.
    """
    sample = _sample(lines)
    best, most = None, (0, -MOST_COLUMNS)
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
    if layout.style.thousands:
        return layout
    for style in _STYLES[2:]:
        if style.thousands == layout.delimiter and not layout.has_quotes:
            continue
        grouped = replace(layout, style=style)
        if style.decimal == layout.style.decimal or _are_groups(layout, style, lines):
            for line in lines:
                if style.thousands in line and not layout.reads(line) and grouped.reads(line):
                    return grouped
    return layout


def _are_groups(layout: Layout, style: Style, lines: Sequence[str]) -> bool:
    """Whether what looks like decimals can be thousands throughout: ``486.145`` beside ``1.063.380``."""
    cells = [cell for line in lines[:: max(len(lines) // 200, 1)] for cell in layout.cut(line)]
    numbers = [cell for cell in cells if layout.style.is_number(cell) and layout.style.decimal in cell]
    return bool(numbers) and layout.style.decimal == style.thousands and all(map(style.is_number, numbers))


def _sample(lines: Sequence[str]) -> list[str]:
    """Lines with digits, evenly from the later part of a text: names and remarks stand at its beginning."""
    later = lines[len(lines) * 2 // 5 :]
    candidates = [line for line in later if _BEGINS_WITH_A_NUMBER.match(line)]
    if 2 * len(candidates) < len(later):  # words come first in each row, or there is more text than rows
        with_digits = [line for line in later if _DIGIT.search(line, 0, 2000)]
        candidates = candidates if 2 * len(candidates) >= len(with_digits) else with_digits
    if len(candidates) < FEWEST_ROWS:
        candidates = [line for line in lines if _DIGIT.search(line, 0, 2000)]
    step = max(len(candidates) // _SAMPLE_LINES, 1)
    return candidates[::step][: _SAMPLE_LINES + 1]


def _fit(layout: Layout, sample: Sequence[str]) -> tuple[Layout | None, tuple[int, int]]:
    """The layout with its columns of words; how many lines of the sample it fits, and columns of numbers less words."""
    seen: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for line in sample:
        cells = layout.cut(line)
        if len(cells) > MOST_COLUMNS:
            raise Unreadable("bomb")
        numbers = [at for at, cell in enumerate(cells) if layout.style.is_number(cell)]
        words = [
            at for at, cell in enumerate(cells) if cell.casefold() not in _BLANKS and not layout.style.is_number(cell)
        ]
        if numbers and len(words) <= max(len(numbers), 2):
            seen[len(cells), tuple(words)] += 1
    if not seen:
        return None, (0, -MOST_COLUMNS)
    wordy: Counter[tuple[int, ...]] = Counter()
    for (_, words_at), count in seen.items():
        wordy[words_at] += count
    words_at = wordy.most_common(1)[0][0]
    counts = {count: times for (count, where), times in seen.items() if where == words_at}
    most = max(counts, key=lambda count: (counts[count], count))
    if layout.delimiter != " " and most == 1 and layout.delimiter not in (";",):
        return None, (0, -MOST_COLUMNS)
    fitting = sum(counts.values()) if layout.delimiter != " " else counts[most]
    return replace(layout, words=frozenset(words_at), columns=most), (fitting, most - 2 * len(words_at))


def _sure_of_commas(layout: Layout, sample: Sequence[str], lines: Sequence[str]) -> Layout:
    """Decide what a comma is where every reading fits: ``1,063`` is one number or a thousand of them."""
    if layout.delimiter == "," and layout.style is PLAIN and layout.columns == 2:
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
