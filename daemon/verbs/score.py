"""`score`: the same stages on files or folders, once, without service or ledger."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from daemon.clean import clean
from daemon.config import ThresholdsConfig
from daemon.decision import Decision
from daemon.errors import BAD_DATA, INPUT_OUTPUT, UserError
from daemon.selection import HELP, read_selection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Contract section 3."""
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, the fields of an event's data")
    parser.add_argument("--model", metavar="NAME-or-DIR", default="shipped", help="model that judges (shipped)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where it runs (auto)")
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
    for path in args.paths:
        if not path.exists():
            raise UserError(BAD_DATA, f"{path}: no such file or folder")
    from daemon import events
    from daemon.formats.walk import find
    from daemon.judging import judge_of, load_model
    from daemon.progress import progress
    from daemon.scoring import score
    from deploy.engines import Wish

    selection = None if args.only is None else read_selection(args.only)
    model = load_model(args.model, Wish(args.device))
    judge = judge_of(model, ThresholdsConfig(), require_certificate=args.require_certificate)
    found, counted = find(args.paths), 0
    for decision in progress(score(found, model, judge, selection), "scoring"):
        total_s = time.monotonic() - decision.noticed_s
        print(events.encode(events.decision_data(decision, total_s)).decode() if args.json else _line(decision))
        counted += 1
    sys.stdout.flush()
    if found.unlisted:
        names = ", ".join(clean(str(folder)) for folder in found.unlisted)
        raise UserError(INPUT_OUTPUT, f"not everything was scored, these folders could not be listed: {names}")
    if selection is not None and (missing := selection.missing()):
        raise UserError(BAD_DATA, "\n".join(missing))
    if not counted:
        raise UserError(BAD_DATA, "no force curve found; see README for the formats that are read")
    return 0


def _line(decision: Decision) -> str:
    score = "     -" if decision.score is None else f"{decision.score:6.4f}"
    why = ", ".join(reason for reason in decision.reasons if reason != "score")
    return f"{decision.verdict:<8} {score}  {clean(decision.path)}#{decision.curve}" + (f"  ({why})" if why else "")
