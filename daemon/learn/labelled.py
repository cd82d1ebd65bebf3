"""Labelled folders: ``labels.csv`` beside real files, read by the same readers as in service.

Every row is checked before anything is done with any of them; what is wrong is told row by row, all at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, UserError, grouped
from daemon.common.progress import progress
from daemon.common.text import clean
from daemon.formats import open_file
from daemon.formats.base import Unfinished, Unreadable
from daemon.labels import WORDS, Word, read_word, unanimous
from daemon.labels.table import CsvTable, Selection, check_names, plain_path, read_csv, read_index
from daemon.sources import Arrival
from daemon.sources.existing import find
from models.curve import Curve
from models.frontend import prepare
from models.raster import RasterProfile, envelope
from models.train import Examples


@dataclass(frozen=True, slots=True)
class Row:
    """One line of labels.csv that names a curve."""

    number: int  # line of the file, the header is 1
    path: str
    index: int
    label: Word
    system: str
    arrival: Arrival
    rater: str = ""
    experiment: str = ""  # column ``experiment``; where nothing is said, the system


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
    """The curves of one folder whose rows make sense, and a line of text for each row that does not."""

    folder: Path
    rows: tuple[Row, ...]  # one a curve
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
                there = "one curve, number 0" if len(curves) == 1 else f"curves 0 to {len(curves) - 1}"
                text = f"{row.path} has {there}; curve_index {row.index} is none of them"
                problems.append(_line(self.folder, row.number, text))


def read_labels(folders: Sequence[Path], system_column: str = "system") -> list[LabelledFolder]:
    """Every folder's table; UserError (65) with one line a problem when any row of any makes no sense."""
    found = [read_folder(folder, system_column) for folder in folders]
    problems = [problem for folder in found for problem in folder.problems]
    if problems:  # then all of it at once: what only an opened file can tell as well
        for _ in curves_of(found, problems):
            pass
    refuse(problems)
    return found


def curves_of(folders: Sequence[LabelledFolder], problems: list[str]) -> Iterator[LabelledCurve]:
    """The curves of several folders, one after the other; what cannot be read is added to ``problems``."""
    for folder in folders:
        yield from folder.curves(problems)


def refuse(problems: Sequence[str]) -> None:
    """UserError (65) with a line for every kind of problem, where there is one."""
    if problems:
        raise UserError(BAD_DATA, "\n".join(grouped(problems)))


def count_classes(folders: Iterable[LabelledFolder]) -> dict[Word, int]:
    """Curves of each label: {"keep": n, "discard": n, "unsure": n}."""
    labels = [row.label for folder in folders for row in folder.rows]
    return {word: labels.count(word) for word in WORDS}


def narrow(folders: Sequence[LabelledFolder], selection: Selection) -> list[LabelledFolder]:
    """Only the picked curves; UserError (65) with one line for each pick that has no label."""

    def is_picked(row: Row) -> bool:
        return selection.has(row.path, row.arrival.file, row.index)

    narrowed = [replace(folder, rows=tuple(filter(is_picked, folder.rows))) for folder in folders]
    refuse(selection.missing())
    return narrowed


def read_folder(folder: Path, system_column: str = "system") -> LabelledFolder:
    """Check ``labels.csv`` against the files beside it; nothing is opened yet."""
    table = folder / "labels.csv"
    try:
        sheet = _sheet(table)
    except ValueError as error:
        return LabelledFolder(folder, (), (f"{table}: {error}",))
    arrivals = {arrival.path: arrival for arrival in find([folder])}
    rows: dict[tuple[str, int], list[Row]] = {}
    problems: list[str] = []
    for number, cells in sheet.rows:
        try:
            row = _row(number, cells, arrivals, folder, system_column)
            earlier = rows.setdefault((row.path, row.index), [])
            _check_once(row, earlier)
            earlier.append(row)
        except ValueError as error:
            problems.append(_line(folder, number, str(error)))
    if not sheet.rows:
        problems.append(f"{table}: has no row below its header; label curves first")
    united = (replace(group[0], label=unanimous(row.label for row in group)) for group in rows.values() if group)
    return LabelledFolder(folder, tuple(united), tuple(problems))


def _sheet(table: Path) -> CsvTable:
    if not table.is_file():
        raise ValueError("no such file; a labelled folder has a labels.csv")
    sheet = read_csv(table.read_bytes())
    check_names(sheet.columns, once=sheet.columns)
    return sheet


def _row(
    number: int, cells: Mapping[str, str], arrivals: Mapping[str, Arrival], folder: Path, system_column: str
) -> Row:
    path, index, label = plain_path(cells["path"]), read_index(cells.get("curve_index", "")), read_word(cells["label"])
    arrival = arrivals.get(path)
    if arrival is None:
        raise ValueError(f"{path or 'empty path'}: {_absence(path, folder)}; correct the path or remove the row")
    system = cells.get(system_column, "") or Path(path).parent.as_posix()
    system = system if system != "." else folder.resolve().name
    experiment = cells.get("experiment", "") or system
    return Row(number, path, index, label, system, arrival, cells.get("rater", ""), experiment)


def _absence(path: str, folder: Path) -> str:
    """Why the folder's listing does not have it."""
    if not path or not (folder / path).is_file():
        return "no such file"
    is_within = (folder / path).resolve().is_relative_to(folder.resolve()) and ".." not in path.split("/")
    return "no reader opens this kind of file" if is_within else f"lies outside {folder}, which it is relative to"


def _check_once(row: Row, earlier: Sequence[Row]) -> None:
    """ValueError where the same person, or nobody by name, has spoken of the curve before."""
    for other in earlier:
        if other.rater == row.rater and other.label == row.label:
            raise ValueError(f"{row.path} curve {row.index} stands in row {other.number} already; remove one of them")
        if other.rater == row.rater:
            was = f"labelled {other.label} in row {other.number} and {row.label} here"
            raise ValueError(f"{row.path} curve {row.index} is labelled twice, differently: {was}; decide for one")


def _line(folder: Path, number: int, text: str) -> str:
    return clean(f"{folder / 'labels.csv'} row {number}: {text}")


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """N labelled curves that can be scored, in memory and prepared once, for whoever looks at them many times."""

    rows: tuple[Row, ...]
    curves: tuple[Curve, ...]
    edges: NDArray[np.float32]  # (N, 2, W) in signal units
    reasons: tuple[tuple[str, ...], ...]  # what the front-end says of each
    systems: NDArray[np.str_]  # (N,)
    labels: NDArray[np.str_]  # (N,): keep, discard, unsure
    left_out: int  # curves that can get no score, and so stand nowhere here

    def __len__(self) -> int:
        return len(self.curves)

    @property
    def events(self) -> NDArray[np.bool_]:
        """(N,)."""
        return np.asarray(self.labels == "keep", np.bool_)

    @property
    def digest(self) -> str:
        """What the curves and labels are, in a few digits."""
        parts = (self.edges.tobytes(), "\n".join(self.labels).encode(), "\n".join(self.systems).encode())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    @property
    def sure(self) -> NDArray[np.bool_]:
        """(N,): not `unsure`."""
        return np.asarray(self.labels != "unsure", np.bool_)

    def examples(self, chosen: NDArray[np.bool_]) -> Examples:
        """The sure ones among ``chosen``, (N,), to learn from."""
        chosen = chosen & self.sure
        return Examples(self.edges[chosen], self.events[chosen].astype(np.float32))


def collect(folders: Sequence[Path], profile: RasterProfile, system_column: str = "system") -> Collection:
    """Open every labelled curve. UserError (65) for rows that make no sense, one line each, and when there is none."""
    found = read_labels(folders, system_column)
    problems: list[str] = []
    rows = sum(len(folder.rows) for folder in found)
    items = list(progress(curves_of(found, problems), "reading labelled curves", rows))
    refuse(problems)
    prepared = prepare([item.curve for item in items], profile)
    able = [place for place, one in enumerate(prepared) if one.signal is not None]
    if not able:
        raise UserError(BAD_DATA, "the labelled folders hold no curve that can be scored")

    def named(of: Callable[[LabelledCurve], str]) -> NDArray[np.str_]:
        return np.array([of(items[place]) for place in able])

    return Collection(
        rows=tuple(items[place].row for place in able),
        curves=tuple(items[place].curve for place in able),
        edges=envelope([signal for one in prepared if (signal := one.signal) is not None], profile),
        reasons=tuple(prepared[place].reasons for place in able),
        systems=named(lambda item: item.row.system),
        labels=named(lambda item: item.row.label),
        left_out=len(items) - len(able),
    )
