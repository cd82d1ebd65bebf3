"""From bytes to the lines of a table.

The text: byte order marks, UTF-16 of Windows, and the older code pages of Europe, China and Japan. Digits are the same
in all of them but UTF-16, so a wrong guess can only spoil names; the encoding under which most names are words that
force curves use is taken. The lines: rows that lie on their side stand up, units leave the cells.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Sequence
from itertools import zip_longest

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
