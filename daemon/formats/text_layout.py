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

from daemon.formats import columns, limits, nanoscope
from daemon.formats.columns import Column
from daemon.formats.errors import Unreadable
from daemon.formats.nanoscope import Section, sensitivity_m_per_v
from daemon.formats.text_rule import TextRule
from models.curve import ForceUnit, Samples

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


# ---- What the lines above a table say besides the names of its columns: who wrote it, which way is pulling,
# calibration.
#
# Programs whose sign is known: NanoScope exports and AFM Workshop (repulsion positive). WSxM names its columns by
# two units and a number of lines. A spring constant with its unit is taken from whoever states one.

_NANOSCOPE = re.compile(r'^"\\[?*]Force file list')
_NANOSCOPE_INSIDE = '"\\*Ciao force image list"'
_WORKSHOP = "Force-Distance Curve"
_WSXM = "WSxM file"
_NUMBER = r"([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)"
_STIFFNESS = {"n/m": 1.0, "nn/nm": 1.0, "pn/nm": 1e-3, "mn/m": 1e-3}
_UNIT = r"(N/m|nN/nm|pN/nm|mN/m)"
_SPRING = re.compile(
    rf"\b(?:spring[ _]?constant|federkonstante|k)\s*(?:[(\[]\s*{_UNIT}\s*[)\]])?\s*[:=\t,;]\s*{_NUMBER}\s*{_UNIT}?",
    re.IGNORECASE,
)
_WSXM_LINES = re.compile(r"^\s*Number of lines:\s*(\d+)", re.MULTILINE)
_WSXM_UNIT = r"^\s*{} axis unit:\s*(\S+)"
_LOOKED_AT = 64 * limits.KIB
_LONGEST_LINE = 400  # of a line that states a stiffness


@dataclass(frozen=True, slots=True)
class Facts:
    """``pulling``: what makes pulling positive, None where the file does not say."""

    pulling: float | None = None
    spring_constant_n_per_m: float | None = None
    sensitivity_m_per_v: float | None = None
    rows: int = 0  # promised by the header
    columns: tuple[Column, ...] = ()  # where the names do not stand above the numbers
    rule: TextRule | None = None  # what the laboratory says of this file

    def under(self, rule: TextRule | None) -> Facts:
        """The same, with what the laboratory says instead."""
        if rule is None:
            return self
        pulling = self.pulling if rule.sign is None else rule.sign
        return replace(self, pulling=pulling, columns=rule.meaning or self.columns, rule=rule)

    def names_for(self, count: int, written: list[Column] | None) -> list[Column] | None:
        """The columns of a table of ``count``: as known here, else as ``written`` above the numbers.

        A unit that is not known here is the written one.
        """
        found = written
        if len(self.columns) == count:
            beside: Sequence[Column | None] = written if written and len(written) == count else [None] * count
            found = [_with_written_unit(*both) for both in zip(self.columns, beside, strict=True)]
        return found if found is None or self.rule is None else self.rule.with_units(found)

    @property
    def note(self) -> tuple[str, ...]:
        """What a curve carries that was read so."""
        return () if self.rule is None else ("text_rule",)


def _with_written_unit(known: Column, written: Column | None) -> Column:
    if known.unit is not None or written is None or written.unit is None or written.unit.dimension == "?":
        return known
    return columns.in_unit(known, written.unit)


def is_known(text: str) -> bool:
    """Whether a text begins as one of these programs begins it, so that it is a curve whatever follows."""
    start = text[:4096].lstrip("\ufeff \r\n")
    known = _NANOSCOPE.match(start) is not None or start.startswith((_WORKSHOP, _WSXM))
    return known or _NANOSCOPE_INSIDE in text[:_LOOKED_AT]


def facts_of(text: str, above: Sequence[str]) -> Facts:
    """Nothing where nothing is known; ``above``: the lines of words above the first table."""
    start = text[:4096].lstrip("\ufeff \r\n")
    if _NANOSCOPE.match(start) or _NANOSCOPE_INSIDE in text[:_LOOKED_AT]:
        return _nanoscope(text)
    if start.startswith(_WORKSHOP):
        return Facts(pulling=-1.0)
    return Facts(
        spring_constant_n_per_m=_spring_constant(above),
        columns=_wsxm(text[:_LOOKED_AT]) if start.startswith(_WSXM) else (),
    )


def _nanoscope(text: str) -> Facts:
    """The header that such an export repeats, each line in quotes; rows are as many as its shorter side has."""
    header = [line.strip().strip('"') for line in text.splitlines() if line.startswith('"\\')]
    if header and header[0].startswith("\\?"):
        header[0] = "\\*" + header[0][2:]
    joined = "\n".join([*header, "\\*File list end"]).encode("latin-1", "replace")
    sections = nanoscope.parse(joined, len(joined)) if header else []
    images = [section for section in sections if "force image" in section.title]
    k = (limits.plausible_spring_constant(section.number("Spring Constant")) for section in images)
    return Facts(
        pulling=-1.0,
        spring_constant_n_per_m=next(k, None),
        sensitivity_m_per_v=limits.plausible_sensitivity(sensitivity_m_per_v(sections, "Sens. DeflSens")),
        rows=max((_shorter(section) for section in images), default=0),
    )


def _shorter(section: Section) -> int:
    sides = [rows for rows in section.integers("Samps/line") if rows > 0]
    return min(sides, default=0)


def _spring_constant(above: Sequence[str]) -> float | None:
    for before, number, after in _SPRING.findall("\n".join(line for line in above if len(line) < _LONGEST_LINE)):
        factor = _STIFFNESS.get((before or after).lower())
        if factor is not None:
            return limits.plausible_spring_constant(float(number) * factor)
    return None


def _wsxm(text: str) -> tuple[Column, ...]:
    """Lines of X and Y beside each other; of two the first is the approach."""
    units = [re.search(_WSXM_UNIT.format(axis), text, re.MULTILINE) for axis in "XY"]
    count = _WSXM_LINES.search(text)
    if not all(units) or count is None or not 1 <= int(count[1]) <= limits.TEXT_CURVES:
        return ()
    words = [unit[1] for unit in units if unit]
    sides = ["approach ", "retract "] if int(count[1]) == 2 else [""] * int(count[1])
    names = [f"{side}{name} ({word})" for side in sides for name, word in zip(("Z", "force"), words, strict=True)]
    return tuple(columns.columns(names))


# ---- Units of text columns: as a name states them, else as the size of the numbers allows; raised by a calibration.

SI_FORCE, SI_LENGTH = 1e-6, 1e-3  # no force curve reaches a micronewton or a millimetre


def force_unit(column: Column, force: Samples) -> tuple[ForceUnit | None, float, bool]:
    """Unit, factor to it, and whether the size of the numbers had to tell."""
    if column.unit is not None:
        return column.unit.force, column.unit.factor if column.unit.force else 1.0, False
    if float(np.nanmax(np.abs(force), initial=0.0)) < SI_FORCE:
        return ("m" if column.quantity == "deflection" else "N"), 1.0, True
    return None, 1.0, True


def in_metres(column: Column | None, distance: Samples | None) -> tuple[Samples | None, bool]:
    """The distance in metres, where it is a length, and whether the size of the numbers had to tell."""
    if distance is None or column is None:
        return None, False
    if column.unit is not None:
        return (distance * column.unit.factor if column.unit.dimension == "m" else None), False
    is_si = float(np.nanmax(np.abs(distance), initial=0.0)) < SI_LENGTH
    return distance * (1.0 if is_si else 1e-9), True


def span_of(samples: Samples) -> float:
    """Between the smallest and the largest of the numbers there are."""
    known = samples[np.isfinite(samples)]
    return float(np.ptp(known)) if known.size else 0.0


def raised(unit: ForceUnit | None, factor: float, facts: Facts) -> tuple[ForceUnit | None, float]:
    """The best unit the calibration allows, and what to multiply with."""
    if unit == "V" and facts.sensitivity_m_per_v is not None:
        unit, factor = "m", factor * facts.sensitivity_m_per_v
    if unit == "m" and facts.spring_constant_n_per_m is not None:
        return "N", factor * facts.spring_constant_n_per_m
    return unit, factor
