"""Numbers out of lines of text: decimal points and commas, tabs, blanks, commas and semicolons between them."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from daemon.formats import limits
from daemon.reading import Unreadable

Table = NDArray[np.float64]

_WORD = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf)", re.IGNORECASE)
_BETWEEN = re.compile(r"[\s;,]+")
_LONGEST_WORD = 40


def decode(content: bytes) -> str:
    """UTF-8 where it is, else Latin-1, which always works."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def is_numeric(line: str) -> bool:
    """Whether a line is numbers and nothing else (a decimal comma makes two words, both numbers)."""
    words = [word for word in _BETWEEN.split(line) if word]
    return bool(words) and all(len(word) < _LONGEST_WORD and _WORD.fullmatch(word) for word in words)


def table(lines: list[str]) -> Table:
    """(rows, columns) of the lines, all of which must have as many numbers as the first.

    A comma is a decimal comma where no point occurs and something else separates the numbers; else it separates.
    """
    if not lines:
        raise Unreadable("unreadable")
    sample = lines[0]
    if "," in sample and "." not in sample and (";" in sample or len(sample.split()) > 1) and ", " not in sample:
        rows = [line.replace(",", ".").replace(";", " ").split() for line in lines]
    else:
        rows = [line.replace(",", " ").replace(";", " ").split() for line in lines]
    columns = len(rows[0])
    if len(rows) * columns > 16 * limits.POINTS or any(len(row) != columns for row in rows):
        raise Unreadable("unreadable")
    try:
        return np.array([float(word) for row in rows for word in row]).reshape(len(rows), columns)
    except ValueError:
        raise Unreadable("unreadable") from None
