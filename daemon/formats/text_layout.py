"""From bytes to rows of cells: how a text is encoded, which of its lines are rows, and how these are written.

The text: byte order marks, UTF-16 of Windows, and the older code pages of Europe, China and Japan. Digits are the same
in all of them but UTF-16, so a wrong guess can only spoil names; the encoding under which most names are words that
force curves use is taken. The lines: rows that lie on their side stand up, units leave the cells.

The cells: nobody says which marks separate, and which belong to a number, so the rows themselves do: the first way of
reading them under which they all have the same cells is taken. Decimal points and commas, thousands, Fortran's ``D``,
quotes, blank cells, words and time stamps among numbers.
"""

from __future__ import annotations

import codecs
import csv
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np

from daemon.formats import limits
from daemon.formats.base import Unfinished, Unreadable
from daemon.formats.columns import count_known_words, unit_of

_GZIP_MAGIC = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CODE_PAGES = ("cp1252", "gb18030", "shift_jis", "mac_roman")
_LOOKED_AT_BYTES = 4096
_SIGNS = {"\u2212": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\uff0c": ",", "\uff1b": ";"}
_SIGNAL, _MOST_CELLS = 64, 100_000  # numbers of a channel that is written in one line
_MOST_CHANNELS = 16
_NUMBER = re.compile(r"[-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eEdD][-+]?\d{1,4})?|[nN][aA][nN]")
_WITH_UNIT = re.compile(
    r"(?<![\w.])([-+]?(?:\d[\d.,]*|[.,]\d+)(?:[eE][-+]?\d{1,4})?)[ \u00a0]?"
    r"([A-Za-zµμÅ°%][A-Za-z/]{0,5})(?=[ \"]*(?:[;\t|]|,|$))"
)
_OTHER_NUMBERS = re.compile(r"(?<![^\s,;|\t\"])[-+]?[\d.,]*\d[\d.,]*(?:[eE][-+]?\d+)?(?![^\s,;|\t\"])")
_MAY_BE_A_UNIT = re.compile(r"\d[ \u00a0]?[^\W\d_eEdD]")
_COMMAS_ONLY = re.compile(r"\s*[-+]?\d+,\d+(?:,[-+]?\d+,\d+)+\s*")
_DECIMALS = re.compile(r"([-+]?\d+),(\d+)")
_LONGEST_ROW, _LOOKED_AT = 2000, 40
_OPENS = re.compile(r"\s*(?:\{.*\}|<[^<>]*>|</[^<>]*>)\s*")


def decode(content: bytes) -> str:
    """Never fails. Minus signs and blanks of typesetters become those of a keyboard."""
    return _plain(_decoded(content))


def _plain(text: str) -> str:
    for sign, usual in () if text.isascii() else _SIGNS.items():
        text = text.replace(sign, usual)  # ten times as fast as one translation
    return text


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    start = content[:_LOOKED_AT_BYTES]
    if (wide := _wide(start)) is not None:
        return content.decode(wide, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(content) - 3 and error.reason == "unexpected end of data":  # cut inside a character
            return content[: error.start].decode("utf-8")
    best = max(_CODE_PAGES, key=lambda page: count_known_words(_plain(start.decode(page, "replace"))))
    return content.decode(best, "replace")


def _wide(start: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of plain text is zero."""
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if len(start) < 8 or max(even, odd) < 0.4 * len(start) // 2 or min(even, odd) > 0.02 * len(start):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def is_gzip(head: bytes) -> bool:
    return head.startswith(_GZIP_MAGIC)


def unzip_head(head: bytes) -> bytes:
    """The first bytes of what a gzip file holds; empty where nothing can be made of it."""
    try:
        return zlib.decompressobj(wbits=31).decompress(head, limits.HEAD_BYTES)
    except zlib.error:
        return b""


def unzip(content: bytes, most_bytes: int) -> bytes:
    """All of it. Raises ``Unfinished("truncated")`` without its end, ``Unreadable("bomb")`` above ``most_bytes``."""
    parts, left = [], most_bytes
    while content:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(content, left + 1)
        except zlib.error as error:
            raise Unreadable("unreadable") from error
        left -= len(part)
        if left < 0:
            raise Unreadable("bomb")
        if not member.eof:
            raise Unfinished("truncated")
        parts.append(part)
        content = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def lines_of(text: str) -> list[str]:
    """As they are; or standing up, where each is a channel; or without the unit behind each number."""
    lines = without_wrapping(text.splitlines())
    return standing(lines) or _with_points(_without_units(lines))


def without_wrapping(lines: list[str]) -> list[str]:
    """Without lines that wrap a table in another notation: ``{"k": 0.05}``, ``<curve>``, ``</curve>``."""
    first, last = 0, len(lines)
    while first < min(last, _LOOKED_AT) and len(lines[first]) < _LONGEST_ROW and _OPENS.fullmatch(lines[first]):
        first += 1
    while first and last > first and len(lines[last - 1]) < _LONGEST_ROW and _OPENS.fullmatch(lines[last - 1]):
        last -= 1
    return lines[first:last]


def standing(lines: Sequence[str]) -> list[str] | None:
    """The same table with a column for each line; None where it does not lie on its side."""
    long = [line for line in lines if len(line) >= 2 * _SIGNAL]
    if not 1 < len(long) <= _MOST_CHANNELS or any(line.strip() for line in lines[_MOST_CHANNELS * 4 :]):
        return None
    rows = [cut for line in long if (cut := _channel(line)) is not None]
    if not 1 < len(rows) == len(long):
        return None
    above = [line for line in lines if line.strip() and len(line) < 2 * _SIGNAL]
    return [*above, *("\t".join(cells) for cells in zip_longest(*rows, fillvalue=""))]


def is_channel(line: str) -> bool:
    """Whether a line is a channel of its own, as far as it goes."""
    return len(line) >= 2 * _SIGNAL and _channel(line) is not None


def _channel(line: str) -> list[str] | None:
    """The cells of a line of numbers, its name first where it has one."""
    for delimiter in ("\t", ";", ",", None):
        cells = [cell.strip(' "') for cell in line.strip().strip(";,").split(delimiter)]
        if not _SIGNAL <= len(cells) <= _MOST_CELLS:
            continue
        if all(not cell or _NUMBER.fullmatch(cell) for cell in cells[2:]):
            return cells
    return None


def _without_units(lines: list[str]) -> list[str]:
    """``12.1 nm;-3.4 pN`` as ``12.1;-3.4`` under a line of units, where all rows are written so."""
    later = lines[len(lines) // 2 :]
    sample = [line for line in later[:: max(len(later) // _LOOKED_AT, 1)] if line.strip()][:_LOOKED_AT]
    if not sample or any(len(line) > _LONGEST_ROW for line in sample):
        return lines
    if not any(_MAY_BE_A_UNIT.search(line) for line in sample):
        return lines
    seen = [tuple(unit for _, unit in _WITH_UNIT.findall(line)) for line in sample]
    units = max(seen, key=seen.count)
    if not units or seen.count(units) < 0.9 * len(seen) or not all(map(_is_measure, units)):
        return lines
    example = sample[seen.index(units)]
    names = _OTHER_NUMBERS.sub("", _WITH_UNIT.sub(r"\2", example))
    first = next(at for at, line in enumerate(lines) if len(_WITH_UNIT.findall(line[:_LONGEST_ROW])) == len(units))
    rows = [_WITH_UNIT.sub(r"\1", line) if len(line) <= _LONGEST_ROW else line for line in lines[first:]]
    return [*lines[:first], names, *rows]


def _with_points(lines: list[str]) -> list[str]:
    """``0,245,1014,921`` as ``0.245,1014.921``, where half as many names say that each second comma is decimal."""
    later = lines[len(lines) // 2 :]
    sample = [line for line in later[:: max(len(later) // _LOOKED_AT, 1)] if line.strip()][:_LOOKED_AT]
    if not sample or not all(len(line) < _LONGEST_ROW and _COMMAS_ONLY.fullmatch(line) for line in sample):
        return lines
    first = next(at for at, line in enumerate(lines) if len(line) < _LONGEST_ROW and _COMMAS_ONLY.fullmatch(line))
    counts = {line.count(",") + 1 for line in sample}
    names = lines[first - 1].count(",") + 1 if first else 0
    if len(counts) > 1 or 2 * names not in counts:
        return lines
    return [*lines[:first], *(_DECIMALS.sub(r"\1.\2", line) for line in lines[first:])]


def _is_measure(unit: str) -> bool:
    found = unit_of(unit)
    return found is not None and found.dimension in ("N", "m", "V", "s")


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
