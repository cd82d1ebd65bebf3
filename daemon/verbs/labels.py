"""`labels`: add one, import a table, export them all."""

from __future__ import annotations

import io
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from daemon.client.status import watched_folders
from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, USAGE, UserError
from daemon.common.options import Action, Actions, Option
from daemon.common.progress import progress
from daemon.common.stdio import write_bytes
from daemon.common.text import clean
from daemon.config import Config, Flags, Keys, load
from daemon.formats import limits
from daemon.labels import Label, Labels, read_word
from daemon.labels import table as labeltable
from daemon.labels.subject import complete, locate, write_folder
from daemon.ledger.file import LedgerView
from models.clock import utc_now
from models.files import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    file: Annotated[str, Option("the file, or NAME or NAME#I as events and status name it", "FILE", is_positional=True)]
    label: Annotated[str, Option("keep, discard or unsure", "LABEL", is_positional=True)]
    curve: Annotated[int, Option("which curve of a file with several", "I")] = 0
    rater: Annotated[str, Option("who says so", "R")]
    reason: Annotated[str, Option("why", "TEXT")] = ""
    service: Annotated[Flags, Keys("state", "instrument")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    file: Annotated[Path, Option("", "FILE.csv", is_positional=True)]
    rater: Annotated[str | None, Option("for rows that name none", "R")] = None
    service: Annotated[Flags, Keys("state", "instrument")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    out: Annotated[Path | None, Option("where to", "FILE.csv", unless="standard output")] = None
    curves: Annotated[Path | None, Option("the labelled curves too, as a folder to train on", "DIR")] = None
    service: Annotated[Flags, Keys("state", "instrument")]


_ACTIONS = {
    "add": Action(Add, "say what a curve is"),
    "import": Action(Import, "take labels from a CSV file"),
    "export": Action(Export, "write labels as CSV"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    action: Annotated[Add | Import | Export, Actions(_ACTIONS)]


def run(options: Options) -> int:
    action = options.action
    config = load(action.service)
    with ExitStack() as closing:
        labels = closing.enter_context(Labels(config.state / "labels.sqlite"))
        file = config.state / "ledger.sqlite"
        ledger = closing.enter_context(LedgerView(file)) if file.exists() else None
        if isinstance(action, Add):
            return _add(action, config, labels, ledger)
        if isinstance(action, Import):
            return _import(action, labels, ledger)
        return _export(action, config, labels, ledger)


def _add(asked: Add, config: Config, labels: Labels, ledger: LedgerView | None) -> int:
    if not 0 <= asked.curve < limits.CURVES or not asked.rater.strip():
        raise UserError(USAGE, "--curve counts from 0, and --rater must name somebody")
    try:
        word = read_word(asked.label)
    except ValueError as error:
        raise UserError(USAGE, str(error)) from None
    path, curve = _subject(asked)
    said = Label(path, curve, word, asked.rater.strip(), utc_now(), asked.reason)
    watched = watched_folders(config)
    places = [Path(said.path), *(folder / said.path for folder in watched)]  # events name paths below these folders
    label = locate(said, next((place for place in places if place.is_file()), places[0]), ledger, watched)
    labels.add([label])
    print(clean(f"{label.path}#{label.curve}: {label.label} ({label.rater})"))
    return 0


def _subject(asked: Add) -> tuple[str, int]:
    """``FILE --curve I``, or ``FILE#I`` as events and status write it."""
    path, mark, number = asked.file.rpartition("#")
    if mark and number.isdecimal() and not asked.curve and not Path(asked.file).exists():
        return path, int(number)
    return asked.file, asked.curve


def _import(asked: Import, labels: Labels, ledger: LedgerView | None) -> int:
    rows = labeltable.read(asked.file, now_s=time.time(), rater=asked.rater)
    found = [complete(row, asked.file.parent, ledger) for row in progress(rows, "looking up", len(rows))]
    added = labels.add(found)
    print(f"{added} labels imported, {len(found) - added} were known")
    return 0


def _export(asked: Export, config: Config, labels: Labels, ledger: LedgerView | None) -> int:
    current = list(labels.current())
    if asked.curves is not None:
        if ledger is None:
            raise UserError(UNREACHABLE, "no ledger in the state folder, and so no curves: give --state or --config")
        watched = watched_folders(config)
        if inside := next((one for one in watched if asked.curves.resolve().is_relative_to(one)), None):
            raise UserError(
                USAGE, f"{asked.curves} lies in the watched folder {inside}: the copies would be judged as new"
            )
        written, missing = write_folder(progress(current, "copying", len(current)), ledger, asked.curves, watched)
        without = f"; no copy of {missing}: never flagged, and the file is gone or changed" if missing else ""
        print(f"{written} curves and labels.csv in {asked.curves}{without}", file=sys.stderr)
        if asked.out is None:
            return 0
    table = io.StringIO()
    labeltable.write(current, table)
    if asked.out is None:
        write_bytes(table.getvalue().encode())
        return 0
    try:
        write_whole(asked.out, table.getvalue().encode())
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{asked.out}: {error.strerror}; choose another --out") from None
    print(f"{len(current)} labels in {asked.out}", file=sys.stderr)
    return 0
