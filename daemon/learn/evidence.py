"""The evidence: folders of labelled curves, and the record of what a network was trained on, which is no evidence.

A folder is ``labels.csv`` beside real files, read by the same readers as in service. Every row is checked before
anything is done with any of them; what is wrong is told row by row, all at once.

The curves that a network was trained on are known by their samples: a copy under another name, in another folder, or as
the ledger keeps and exports it, is the same curve. The names of folders and the SHA-256 of their labels.csv speak for
models that were trained before the curves themselves were noted.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.common.errors import BAD_DATA, UserError, grouped
from daemon.common.stdio import progress
from daemon.common.text import clean
from daemon.formats import open_file
from daemon.formats.afmcurve import compact
from daemon.formats.base import Unfinished, Unreadable
from daemon.labels import WORDS, Word, read_word, unanimous
from daemon.labels.table import CsvTable, Selection, check_names, plain_path, read_csv, read_index
from daemon.reading.ahead import find, read_curves
from daemon.sources import Arrival
from models.curve import Curve
from models.frontend import prepare
from models.raster import RasterProfile, envelope
from models.train import Examples, gather


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


_DIGITS = 12  # 48 bits: ten thousand curves on either side meet by chance once in three million


def fingerprint_of(curve: Curve) -> str:
    """Twelve hexadecimal digits of the retract's samples, in the resolution of a compact copy."""
    with np.errstate(over="ignore", invalid="ignore"):  # tails may hold anything
        samples = compact(curve.force).astype("<f4")
    return hashlib.sha256(samples.tobytes()).hexdigest()[:_DIGITS]


def tell_apart(name: str, taken: Container[str]) -> str:
    """The name, or, where something else is called so already, the name with the first free number."""
    names = (name, *(f"{name} ({number})" for number in range(2, 1 << 20)))
    return next(one for one in names if one not in taken)


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What a model and those it came from were trained on."""

    tables: Mapping[str, str]  # folder -> SHA-256 of its labels.csv
    curves: frozenset[str]
    unlabelled: frozenset[str] = frozenset()  # whose look alone has shaped features, and so the ranking

    @classmethod
    def of(cls, training: Mapping[str, Any]) -> TrainingRecord:
        """What ``training`` of a manifest notes."""
        curves, unlabelled = (str(training.get(name) or "").split() for name in ("curves", "unlabelled_curves"))
        return cls(dict(training.get("labelled") or {}), frozenset(curves), frozenset(unlabelled))

    def with_more(
        self, tables: Mapping[str, str], curves: Iterable[str], unlabelled: Iterable[str] = ()
    ) -> TrainingRecord:
        """This and what a child of the model was trained on."""
        all_tables = dict(tables)
        for name, digest in self.tables.items():
            all_tables[name if tables.get(name) == digest else tell_apart(name, all_tables)] = digest
        return TrainingRecord(all_tables, self.curves.union(curves), self.unlabelled.union(unlabelled))

    def for_manifest(self) -> dict[str, Any]:
        """The entries of ``training``; :meth:`of` reads them again."""
        noted = {"labelled": dict(self.tables), "curves": " ".join(sorted(self.curves))}
        return noted | ({"unlabelled_curves": " ".join(sorted(self.unlabelled))} if self.unlabelled else {})

    def holds(self, curve: Curve, table_sha256: str) -> bool:
        """Whether the network was trained on this curve, or on this table."""
        return table_sha256 in self.tables.values() or fingerprint_of(curve) in self.curves | self.unlabelled


# Whether a model knows these labels already: an evaluation on curves that it learned from flatters it.

_LEARNT = "its figures here say nothing about new curves"
_CUT = "calibrated on these labels: thresholds and probabilities look better here than on new curves"
#: Parts of a manifest, and what it means that the digest of a labels.csv stands in them.
_PARTS = {
    "training": f"trained on these labels: {_LEARNT}",
    "calibration": _CUT,
    "thresholds": _CUT,
    "certificate": _CUT,
}


@dataclass(slots=True)
class KnownCurves:
    """What a manifest gives away about the curves that pass."""

    manifest: Mapping[str, Any]  # as it is stored: digests are looked for wherever they stand
    curves: int = 0
    known: int = 0  # of these, by their samples

    def watch(self, curves: Iterable[LabelledCurve]) -> Iterator[LabelledCurve]:
        """Pass curves through, and count those that the model was trained on under whatever name."""
        record = TrainingRecord.of(self.manifest["training"])
        for item in curves:
            self.curves += 1
            self.known += fingerprint_of(item.curve) in record.curves
            yield item

    def warnings(self, folders: Sequence[Path]) -> list[str]:
        """One line for each folder whose labels.csv, by its SHA-256, the manifest names, and one for known curves."""
        lines = []
        for folder in folders:
            digest = hashlib.sha256((folder / "labels.csv").read_bytes()).hexdigest()
            found = next((text for part, text in _PARTS.items() if digest in json.dumps(self.manifest.get(part))), None)
            lines += [f"{folder}: the model was {found}"] if found else []
        if self.known:
            lines.append(f"the model was trained on {self.known} of these {self.curves} curves: {_LEARNT}")
        return lines


# Unlabelled folders: thousands of curves that nobody has looked at, read by the same readers as in service.

_WORDS = "reading unlabelled curves"


def read_unlabelled(folders: Sequence[Path], profile: RasterProfile, identities: set[str]) -> NDArray[np.float32]:
    """(N, 2, W) envelopes of every curve that can get a score; what cannot be read is counted on standard error.

    The curves' names for :class:`daemon.learn.evidence.TrainingRecord` go to ``identities``.
    UserError (65) for a folder that is not there, and when none of them holds a curve.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(BAD_DATA, f"--unlabelled {folder}: no such folder")
    skipped: list[str] = []
    curves = ((curve, False) for curve in _note(progress(_curves(folders, skipped), _WORDS), identities))
    edges = gather(curves, profile).edges
    if not len(edges):
        raise UserError(BAD_DATA, f"--unlabelled {folders[0]}: holds no curve that can be scored")
    if skipped:
        print(f"left out, because they cannot be read: {len(skipped)}, the first {skipped[0]}", file=sys.stderr)
    return edges


def _note(curves: Iterable[Curve], identities: set[str]) -> Iterator[Curve]:
    for curve in curves:
        identities.add(fingerprint_of(curve))
        yield curve


def _curves(folders: Sequence[Path], skipped: list[str]) -> Iterator[Curve]:
    for reading in read_curves(find(folders)):
        if reading.curve is None:
            skipped.append(f"{reading.arrival.path} ({reading.reason})")
        else:
            yield reading.curve
