"""The label table: labels as CSV, for spreadsheets, other programs and labelled folders.

Columns ``path,curve_index,label,rater,reason,time,sha256``; more are kept. A table is read whole or not at all, with
everything that is wrong told at once.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TextIO

from daemon.clock import rfc3339
from daemon.errors import BAD_DATA, UserError
from daemon.labels import Label, read_word

COLUMNS = ("path", "curve_index", "label", "rater", "reason", "time", "sha256")
_MOST_DIGITS = 9  # of a curve_index: a file holds 4 million curves at the most
_SHA256 = re.compile(r"[0-9a-f]{64}")


def write(labels: Sequence[Label], file: TextIO) -> None:
    """One row a label; columns that any of them brought along stand behind ours."""
    extra = list(dict.fromkeys(name for label in labels for name in label.extra))
    table = csv.writer(file, lineterminator="\n")
    table.writerow([*COLUMNS, *extra])
    for one in labels:
        row = [one.path, one.curve, one.label, one.rater, one.reason, one.time, one.sha256 or ""]
        table.writerow([*row, *(one.extra.get(name, "") for name in extra)])


def read(file: Path, *, now_s: float, rater: str | None = None) -> list[Label]:
    """The labels of a table. ``rater`` and ``now_s`` stand in where a row names no rater or time.

    Raises UserError 65 with one line for each row that is wrong.
    """
    labels: list[Label] = []
    problems: list[str] = []
    for number, row in _rows(file):
        found = _label(row, rfc3339(now_s), rater)
        if isinstance(found, Label):
            labels.append(found)
        else:
            problems += [f"{file} row {number}: {problem}" for problem in found]
    if problems:
        raise UserError(BAD_DATA, "\n".join([*problems, f"{file}: nothing was imported; correct the rows above"]))
    return labels


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows with their line numbers; commas, or what spreadsheets of other languages put in their place."""
    try:
        content = file.read_bytes().decode("utf-8-sig")
        head = content.partition("\n")[0]
        separator, lines = max(",;\t", key=head.count), io.StringIO(content, newline="")
        table = csv.DictReader(lines, delimiter=separator, restkey="", restval="", strict=True)
        rows = [(table.line_num, row) for row in table]
    except OSError as error:
        raise UserError(BAD_DATA, f"{file}: {error.strerror}; give an existing CSV file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(BAD_DATA, f"{file}: is no CSV in UTF-8 ({error}); save it as CSV UTF-8") from None
    names = list(table.fieldnames or ())
    if twice := sorted({name for name in names if name in COLUMNS and names.count(name) > 1}):
        raise UserError(BAD_DATA, f"{file}: column {' and '.join(twice)} stands twice; leave one of each")
    if missing := sorted({"path", "label"} - set(names)):
        raise UserError(
            BAD_DATA, f"{file}: column {' and '.join(missing)} missing; the first row must name the columns"
        )
    return rows


def _label(row: Mapping[str, str], now: str, rater: str | None) -> Label | list[str]:
    """The label of one row, or everything that is wrong with it."""
    problems: list[str] = []
    if "" in row:
        problems.append("has more cells than the first row; quote text that contains the separator")
    cell = {name: row.get(name, "").strip() for name in COLUMNS}
    path, rater, sha256 = cell["path"].replace("\\", "/"), cell["rater"] or rater, cell["sha256"].lower()
    index, word, time = cell["curve_index"] or "0", cell["label"], cell["time"] or now
    if not path:
        problems.append("names no path")
    if not (index.isascii() and index.isdigit() and len(index) <= _MOST_DIGITS):
        problems.append(f'curve_index "{index}" is no number; curves count from 0')
    if not rater:
        problems.append("names no rater; fill the column, or give --rater NAME for all such rows")
    if sha256 and not _SHA256.fullmatch(sha256):
        problems.append("sha256 must have 64 hexadecimal digits, or be empty")
    try:
        label = read_word(word)
    except ValueError as error:
        problems.append(str(error))
    try:
        time = rfc3339(datetime.fromisoformat(time).timestamp())
    except (ValueError, OverflowError, OSError):
        problems.append(f'time "{time}" cannot be read; write 2026-11-20T12:00:00Z, or leave it empty')
    if problems:
        return problems
    extra = {name: value for name, value in row.items() if name not in COLUMNS and value}
    return Label(path, int(index), label, str(rater), time, cell["reason"], sha256 or None, extra)


def by_curve(labels: Iterable[Label]) -> dict[tuple[str, int], list[Label]]:
    """Labels of one curve together, in their order."""
    grouped: dict[tuple[str, int], list[Label]] = {}
    for label in labels:
        grouped.setdefault(label.identity, []).append(label)
    return grouped
