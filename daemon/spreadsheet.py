"""The spreadsheet: rows of a CSV as people's programs save it.

Excel puts a byte-order mark in front, semicolons or tabs where the language of the machine wants them, ends lines with
CRLF, and leaves rows of empty cells behind. All of that reads the same here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass

SEPARATORS = ",;\t"


@dataclass(frozen=True, slots=True)
class Sheet:
    """Column names in small letters, and the rows that hold anything, each with its line number (the header is 1)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_sheet(content: bytes) -> Sheet:
    """The first line names the columns. ValueError, in words, for what is no CSV in UTF-8, down to an open quote."""
    try:
        text = content.decode("utf-8-sig")
        head = text.partition("\n")[0]
        # strict: a quote that is opened and never closed would swallow every row below it
        table = csv.reader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=head.count), strict=True)
        columns = tuple(name.strip().lower() for name in next(table, []))
        rows = tuple((table.line_num, _named(columns, cells)) for cells in table if _is_filled(cells))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"is no CSV in UTF-8 ({error}); save it as CSV UTF-8") from None
    return Sheet(columns, rows)


def _named(columns: Iterable[str], cells: list[str]) -> dict[str, str]:
    """Cells that are missing are empty; cells beyond the header are nobody's."""
    return {name: cells[place].strip() if place < len(cells) else "" for place, name in enumerate(columns)}


def _is_filled(cells: list[str]) -> bool:
    return any(cell.strip() for cell in cells)


def plain_path(text: str) -> str:
    r"""A path as a folder's own listing has it: ``.\day1\a.txt`` and ``day1/./a.txt`` are ``day1/a.txt``."""
    parts = [part for part in text.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    return ("/" if text.strip().startswith("/") else "") + "/".join(parts)


def read_index(text: str) -> int:
    """Which curve of a file; empty is the first. ValueError, in words, for what counts nothing."""
    text = text.strip() or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 9):  # a file holds 4 million curves at the most
        raise ValueError(f"curve_index {text!r} is no number; curves count from 0")
    return int(text)
