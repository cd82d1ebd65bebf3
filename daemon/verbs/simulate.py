"""`simulate`: physics-simulated curves as an instrument's files, with the truth about them kept elsewhere."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from daemon.common.errors import USAGE, UserError
from daemon.common.files import write_whole
from daemon.common.progress import check_rate, paced


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``simulate``."""
    parser.add_argument("--into", metavar="DIR", type=Path, required=True, help="folder for the .jpk-force files")
    parser.add_argument("--curves", metavar="N", type=int, default=100, help="how many (100)")
    parser.add_argument("--prevalence", metavar="P", type=float, default=0.05, help="share with an event (0.05)")
    parser.add_argument("--seed", metavar="S", type=int, default=1, help="the same seed gives the same bytes (1)")
    parser.add_argument("--rate", metavar="R", type=float, help="curves per second (as fast as possible)")
    parser.add_argument("--truth", metavar="FILE", type=Path, help="CSV of path, curve_index, label; never in DIR")


def run(args: argparse.Namespace) -> int:
    """Exit 0 when all files lie in the folder."""
    _check(args)
    from daemon.common.progress import progress
    from daemon.instrument.jpk_writer import pack
    from models.simulate import simulate

    args.into.mkdir(parents=True, exist_ok=True)
    curves = zip(count(), simulate(args.curves, args.seed, args.prevalence), strict=False)
    events = 0
    with ExitStack() as stack:
        note = _truth(args.truth, stack)
        for number, simulated in progress(paced(curves, args.rate), "simulating", args.curves):
            path = args.into / f"sim-{args.seed}-{number:06d}.jpk-force"
            write_whole(path, pack(simulated.curve))
            note((path.name, 0, simulated.label))
            events += simulated.label == "keep"
    print(f"{args.curves} curves in {args.into}, {events} with an event")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.curves < 1:
        raise UserError(USAGE, f"--curves {args.curves}: give 1 or more")
    if not 0.0 <= args.prevalence <= 1.0:
        raise UserError(USAGE, f"--prevalence {args.prevalence}: give a share between 0 and 1")
    if args.seed < 0:
        raise UserError(USAGE, f"--seed {args.seed}: give 0 or more")
    check_rate(args.rate)
    if args.into.exists() and not args.into.is_dir():
        raise UserError(USAGE, f"--into {args.into}: this is a file; name a folder")
    if args.truth is not None and args.truth.resolve().is_relative_to(args.into.resolve()):
        raise UserError(USAGE, f"--truth {args.truth}: lies in {args.into}, where it would be seen; put it elsewhere")


def _truth(path: Path | None, stack: ExitStack) -> Callable[[tuple[str, int, str]], None]:
    """What adds one row to the truth, on disk at once: a run that is cut off has the truth of what it wrote."""
    if path is None:
        return lambda row: None
    path.parent.mkdir(parents=True, exist_ok=True)
    file = stack.enter_context(path.open("w", newline="", encoding="utf-8"))
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("path", "curve_index", "label"))

    def note(row: tuple[str, int, str]) -> None:
        writer.writerow(row)
        file.flush()

    return note
