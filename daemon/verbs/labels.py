"""`labels`: add one, import a table, export them all."""

from __future__ import annotations

import argparse
import io
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from daemon.client.status import watched_folders
from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, USAGE, UserError
from daemon.common.progress import progress
from daemon.common.stdio import write_bytes
from daemon.common.text import clean
from daemon.config import Config, add_service_options, load
from daemon.formats import limits
from daemon.labels import Label, Labels, read_word
from daemon.labels import table as labeltable
from daemon.labels.subject import complete, locate, write_folder
from daemon.ledger.view import LedgerView
from models.clock import utc_now
from models.files import write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="add|import|export", required=True)
    adding = actions.add_parser("add", help="say what a curve is")
    adding.add_argument("file", metavar="FILE", help="the file, or NAME or NAME#I as events and status name it")
    adding.add_argument("label", metavar="LABEL", help="keep, discard or unsure")
    adding.add_argument("--curve", metavar="I", type=int, default=0, help="which curve of a file with several (0)")
    adding.add_argument("--rater", metavar="R", required=True, help="who says so")
    adding.add_argument("--reason", metavar="TEXT", default="", help="why")
    importing = actions.add_parser("import", help="take labels from a CSV file")
    importing.add_argument("file", metavar="FILE.csv", type=Path)
    importing.add_argument("--rater", metavar="R", help="for rows that name none")
    exporting = actions.add_parser("export", help="write labels as CSV")
    exporting.add_argument("--out", metavar="FILE.csv", type=Path, help="where to (standard output)")
    exporting.add_argument(
        "--curves", metavar="DIR", type=Path, help="the labelled curves too, as a folder to train on"
    )
    for action in (adding, importing, exporting):
        add_service_options(action)


def run(args: argparse.Namespace) -> int:
    config = load(args)
    with ExitStack() as closing:
        labels = closing.enter_context(Labels(config.state / "labels.sqlite"))
        file = config.state / "ledger.sqlite"
        ledger = closing.enter_context(LedgerView(file)) if file.exists() else None
        if args.action == "add":
            return _add(args, config, labels, ledger)
        if args.action == "import":
            return _import(args, labels, ledger)
        return _export(args, config, labels, ledger)


def _add(args: argparse.Namespace, config: Config, labels: Labels, ledger: LedgerView | None) -> int:
    if not 0 <= args.curve < limits.CURVES or not args.rater.strip():
        raise UserError(USAGE, "--curve counts from 0, and --rater must name somebody")
    try:
        word = read_word(args.label)
    except ValueError as error:
        raise UserError(USAGE, str(error)) from None
    path, curve = _subject(args)
    said = Label(path, curve, word, args.rater.strip(), utc_now(), args.reason)
    watched = watched_folders(config)
    places = [Path(said.path), *(folder / said.path for folder in watched)]  # events name paths below these folders
    label = locate(said, next((place for place in places if place.is_file()), places[0]), ledger, watched)
    labels.add([label])
    print(clean(f"{label.path}#{label.curve}: {label.label} ({label.rater})"))
    return 0


def _subject(args: argparse.Namespace) -> tuple[str, int]:
    """``FILE --curve I``, or ``FILE#I`` as events and status write it."""
    path, mark, number = args.file.rpartition("#")
    if mark and number.isdecimal() and not args.curve and not Path(args.file).exists():
        return path, int(number)
    return args.file, args.curve


def _import(args: argparse.Namespace, labels: Labels, ledger: LedgerView | None) -> int:
    rows = labeltable.read(args.file, now_s=time.time(), rater=args.rater)
    found = [complete(row, args.file.parent, ledger) for row in progress(rows, "looking up", len(rows))]
    added = labels.add(found)
    print(f"{added} labels imported, {len(found) - added} were known")
    return 0


def _export(args: argparse.Namespace, config: Config, labels: Labels, ledger: LedgerView | None) -> int:
    current = list(labels.current())
    if args.curves is not None:
        if ledger is None:
            raise UserError(UNREACHABLE, "no ledger in the state folder, and so no curves: give --state or --config")
        watched = watched_folders(config)
        if inside := next((one for one in watched if args.curves.resolve().is_relative_to(one)), None):
            raise UserError(
                USAGE, f"{args.curves} lies in the watched folder {inside}: the copies would be judged as new"
            )
        written, missing = write_folder(progress(current, "copying", len(current)), ledger, args.curves, watched)
        without = f"; no copy of {missing}: never flagged, and the file is gone or changed" if missing else ""
        print(f"{written} curves and labels.csv in {args.curves}{without}", file=sys.stderr)
        if args.out is None:
            return 0
    table = io.StringIO()
    labeltable.write(current, table)
    if args.out is None:
        write_bytes(table.getvalue().encode())
        return 0
    try:
        write_whole(args.out, table.getvalue().encode())
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{args.out}: {error.strerror}; choose another --out") from None
    print(f"{len(current)} labels in {args.out}", file=sys.stderr)
    return 0
