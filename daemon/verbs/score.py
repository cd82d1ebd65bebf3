"""`score`: the same stages on files, folders or an archive, once, without service or ledger."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.common.errors import BAD_DATA, INPUT_OUTPUT, USAGE, UserError
from daemon.common.files import need_folder
from daemon.common.text import clean
from daemon.config import INSTRUMENT, Asked
from daemon.formats.text_rule import TextRule
from daemon.labels.table import HELP, Selection, read_selection
from daemon.sources.ignored import words
from deploy.classifier import EngineRequest
from deploy.engines import DEVICES, NAMES, PRECISIONS

if TYPE_CHECKING:
    from daemon.batch import VerdictCounts
    from daemon.batch.output import ResumableOutput
    from daemon.judging import Judge
    from daemon.sources.existing import Found
    from deploy.serving import Model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``score``."""
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="files and folders, or archives of `pack`")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line, the fields of an event's data")
    form.add_argument("--summary", action="store_true", help="only how many curves got which verdict")
    form.add_argument(
        "--out", metavar="FILE", type=Path, help="JSON lines into FILE; the same command goes on where it was ended"
    )
    parser.add_argument("--fresh", action="store_true", help="with --out: forget what FILE holds")
    parser.add_argument("--config", metavar="TOML", help="judge as the service of this configuration does")
    parser.add_argument("--model", metavar="NAME-or-DIR", help="model that judges (shipped, or the configuration's)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where it runs (auto)")
    parser.add_argument("--engine", choices=NAMES, default="auto", help="what runs it (auto: the best there is)")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="it computes in (auto)")
    parser.add_argument("--only", metavar="LIST", help=HELP)
    parser.add_argument(
        "--require-certificate",
        action="store_true",
        help="as the service with this switch: without a certificate a would-be discard is review",
    )


def run(args: argparse.Namespace) -> int:
    """Exit 0 when every file was answered, 74 when a folder could not be listed.

    65 when there was nothing to score or a curve of ``--only`` was not found; the others are scored all the same.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    is_packed = _check(args)
    from daemon.batch import VerdictCounts
    from daemon.batch.output import ResumableOutput
    from daemon.judging.judge import judge_of, load_model, release

    selection = None if args.only is None else read_selection(args.only)
    asked = Asked.of(args)
    model = load_model(
        asked.model, EngineRequest(args.device, args.engine, args.precision, cache=_built()), asked.models
    )
    judge = judge_of(model, asked.thresholds, require_certificate=asked.require_certificate, text=asked.text)
    with ExitStack() as stack:
        stack.callback(release, model)
        sheet = stack.enter_context(ResumableOutput(args.out, fresh=args.fresh)) if args.out else None
        tally = VerdictCounts()
        if is_packed:
            _score_archives(args, model, judge, sheet, tally)
        else:
            _score_files(args, model, judge, selection, sheet, tally, asked.text)
    if args.summary:
        print(tally.summary())
    sys.stdout.flush()
    if args.out or args.summary or sys.stderr.isatty():
        print(tally.report(model.engine), file=sys.stderr)
    for line in tally.sentinel.summary():
        print(f"afm-triage: {line}", file=sys.stderr)
    if tally.ignored.total and selection is None:
        print(f"ignored: {words(tally.ignored.kinds)}", file=sys.stderr)
    return 0


def _built() -> Path | None:
    """Where engines that were compiled for this machine lie."""
    from daemon.config.origin import Homeless, default_state

    try:
        return default_state(INSTRUMENT, serves=False) / "engines"
    except Homeless:
        return None


def _check(args: argparse.Namespace) -> bool:
    """Whether archives are to be scored."""
    from daemon.archive.layout import is_archive

    for path in args.paths:
        if not path.exists():
            raise UserError(BAD_DATA, f"{path}: no such file or folder")
    packed = [path for path in args.paths if is_archive(path)]
    if packed and len(packed) < len(args.paths):
        raise UserError(USAGE, f"{packed[0]}: an archive; score archives and files in two runs")
    if packed and args.only is not None:
        raise UserError(USAGE, f"--only: is for files, and {packed[0]} is an archive")
    if args.out and args.only is not None:
        raise UserError(USAGE, "--out and --only do not go together; use --json > FILE")
    if args.fresh and not args.out:
        raise UserError(USAGE, "--fresh goes with --out FILE")
    if args.out:
        need_folder("--out", args.out)
    return bool(packed)


def _score_files(
    args: argparse.Namespace,
    model: Model,
    judge: Judge,
    selection: Selection | None,
    sheet: ResumableOutput | None,
    tally: VerdictCounts,
    rules: Sequence[TextRule],
) -> None:
    from daemon.batch import score_jobs
    from daemon.batch.output import Earlier, note, tell
    from daemon.reading.ahead import Job
    from daemon.sources.existing import find

    found = find(args.paths)
    wanted = (arrival for arrival in found if selection is None or selection.has_file(arrival.path, arrival.file))
    if sheet is None:
        batches = score_jobs(map(Job, wanted), model, judge, selection, tally.ignored, rules)
        tell(batches, tally, json=args.json, quiet=args.summary)
    else:
        earlier = Earlier(sheet.lines(judge))
        if strangers := earlier.strangers(found):
            _say_missing(found, selection)  # what is missed may lie in a folder that could not be listed
            sheet.refuse_strangers(strangers)
        others = (arrival for arrival in wanted if arrival.file.absolute() != args.out.absolute())
        note(score_jobs(map(earlier.job, others), model, judge, None, tally.ignored, rules), tally, sheet)
        tally.kept = earlier.kept
    tally.ignored.add(found.ignored)
    if found.link is not None:
        print(f"links to folders are not followed, the first is {clean(str(found.link))}", file=sys.stderr)
    _say_missing(found, selection)
    if not tally.curves + tally.kept:
        among = f" ({told})" if (told := words(tally.ignored.kinds)) else ""
        raise UserError(BAD_DATA, f"no force curve found{among}; see README for the formats that are read")


def _score_archives(
    args: argparse.Namespace, model: Model, judge: Judge, sheet: ResumableOutput | None, tally: VerdictCounts
) -> None:
    from daemon.archive import Archive, blocks, count_blocks, pass_over, portions, score_blocks
    from daemon.batch.output import note, tell
    from daemon.processes.worker_pool import WorkerPool
    from deploy.cpu import usable_cores

    with _plain_errors(args.paths), WorkerPool(usable_cores()) as crew:
        archives = [Archive.open(path, crew) for path in args.paths]
        tally.kept = pass_over(sheet.lines(judge), archives, sheet) if sheet else 0
        prepared = blocks(portions(archives, tally.kept), model.bundle.profile, crew)
        if args.summary:
            for counts in count_blocks(prepared, model, judge):
                tally.verdicts += counts
        elif sheet:
            note(score_blocks(prepared, model, judge), tally, sheet)
        else:
            tell(score_blocks(prepared, model, judge), tally, json=args.json, quiet=False)


@contextmanager
def _plain_errors(paths: list[Path]) -> Iterator[None]:
    from daemon.archive import BadArchive
    from daemon.processes.worker_pool import WorkersBroken

    names = ", ".join(clean(str(path)) for path in paths)
    try:
        yield
    except BadArchive as error:
        raise UserError(BAD_DATA, f"{names}: {clean(str(error))}") from error
    except WorkersBroken as error:
        raise UserError(INPUT_OUTPUT, f"{names}: {error}; the file was cut off, or its disk is damaged") from error


def _say_missing(found: Found, selection: Selection | None) -> None:
    """UserError for what was not scored though it was asked for."""
    if found.unlisted:
        names = ", ".join(clean(str(folder)) for folder in found.unlisted)
        raise UserError(INPUT_OUTPUT, f"not everything was scored, these folders could not be listed: {names}")
    if selection is not None and (missing := selection.missing()):
        raise UserError(BAD_DATA, "\n".join(missing))
