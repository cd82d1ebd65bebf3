"""Labelled folders: ``labels.csv`` beside real files, read by the same readers as in service.

Every row is checked before anything is done with any of them; what is wrong is told row by row, all at once.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.arrival import Arrival
from daemon.errors import BAD_DATA, UserError
from daemon.formats import open_file
from daemon.formats.walk import find
from daemon.reading import Unfinished, Unreadable
from models.curve import Curve

LABELS = {"keep": "keep", "discard": "discard", "unsure": "unsure", "ambiguous": "unsure"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of labels.csv that names a curve."""

    number: int  # line of the file, the header is 1
    path: str
    index: int
    label: str  # keep, discard, unsure
    system: str
    arrival: Arrival


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCurve:
    """A real curve and what people say of it."""

    row: Row
    curve: Curve

    @property
    def event(self) -> bool:
        return self.row.label == "keep"


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """The rows of one folder that make sense, and a line of text for each that does not."""

    folder: Path
    rows: tuple[Row, ...]
    problems: tuple[str, ...]

    def curves(self, problems: list[str]) -> Iterator[LabelledCurve]:
        """Open each file once, in the order of the rows; what cannot be read is added to ``problems``."""
        by_file: dict[str, list[Row]] = {}
        for row in self.rows:
            by_file.setdefault(row.path, []).append(row)
        for rows in by_file.values():
            yield from self._open(rows, problems)

    def _open(self, rows: Sequence[Row], problems: list[str]) -> Iterator[LabelledCurve]:
        arrival = rows[0].arrival
        try:
            curves = open_file(arrival.file, arrival.companion)
        except (Unreadable, Unfinished, OSError) as error:
            reason = getattr(error, "reason", None) or str(error)
            problems += [_line(self.folder, row.number, f"{row.path}: {reason}; remove the row") for row in rows]
            return
        for row in rows:
            if row.index < len(curves):
                yield LabelledCurve(row, curves[row.index])
            else:
                count = f"has {len(curves)} curves, curve_index {row.index} is none of them"
                problems.append(_line(self.folder, row.number, f"{row.path} {count}"))


def read_labels(folders: Sequence[Path]) -> list[LabelledFolder]:
    """Every folder's table; UserError (65) with one line a problem when any row of any makes no sense."""
    found = [read_folder(folder) for folder in folders]
    if problems := [problem for folder in found for problem in folder.problems]:
        raise UserError(BAD_DATA, "\n".join(problems))
    return found


def curves_of(folders: Sequence[LabelledFolder], problems: list[str]) -> Iterator[LabelledCurve]:
    """The curves of several folders, one after the other; what cannot be read is added to ``problems``."""
    for folder in folders:
        yield from folder.curves(problems)


def read_folder(folder: Path) -> LabelledFolder:
    """Check ``labels.csv`` against the files beside it; nothing is opened yet."""
    table = folder / "labels.csv"
    if not table.is_file():
        return LabelledFolder(folder, (), (f"{table}: no such file; a labelled folder has a labels.csv",))
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lines = [(reader.line_num, line) for line in reader]
            names = set(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as error:
        return LabelledFolder(folder, (), (f"{table}: is no CSV in UTF-8 ({error})",))
    if missing := sorted({"path", "label"} - names):
        return LabelledFolder(
            folder, (), (f"{table}: column {' and '.join(missing)} missing; the header is the first row",)
        )
    arrivals = {arrival.path: arrival for arrival in find([folder])}
    rows: list[Row] = []
    problems: list[str] = []
    seen: dict[tuple[str, int], str] = {}
    for number, line in lines:
        try:
            row = _row(number, line, arrivals, folder)
            if seen.setdefault((row.path, row.index), row.label) != row.label:
                raise ValueError(f"{row.path} curve {row.index} is labelled twice, differently; decide for one")
            rows.append(row)
        except ValueError as error:
            problems.append(_line(folder, number, str(error)))
    return LabelledFolder(folder, tuple(rows), tuple(problems))


def _row(number: int, line: Mapping[str, str | None], arrivals: Mapping[str, Arrival], folder: Path) -> Row:
    path = (line.get("path") or "").strip().replace("\\", "/")
    label = LABELS.get((line.get("label") or "").strip().lower())
    index = (line.get("curve_index") or "0").strip()
    if label is None:
        raise ValueError(f"label {line.get('label')!r}; say keep, discard or unsure")
    if not index.isdigit():
        raise ValueError(f"curve_index {index!r}; count from 0")
    arrival = arrivals.get(path)
    if arrival is None:
        there = "no reader opens this kind of file" if path and (folder / path).is_file() else "no such file"
        raise ValueError(f"{path or 'empty path'}: {there}; correct the path or remove the row")
    system = (line.get("system") or "").strip() or Path(path).parent.as_posix()
    return Row(number, path, int(index), label, system if system != "." else folder.name, arrival)


def _line(folder: Path, number: int, text: str) -> str:
    return f"{folder / 'labels.csv'} row {number}: {text}"
