"""`replay`: plays an instrument, so that a set-up can be rehearsed without one."""

from __future__ import annotations

import argparse
from pathlib import Path

from daemon.common.errors import USAGE, UserError
from daemon.common.progress import check_rate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``replay``."""
    parser.add_argument("sources", metavar="SRC", nargs="+", type=Path, help="real files, or folders of them")
    parser.add_argument("--into", metavar="DIR", type=Path, required=True, help="the folder that is watched")
    parser.add_argument("--rate", metavar="R", type=float, default=2.0, help="files a second (2)")
    parser.add_argument(
        "--writer",
        choices=("rename", "grow", "burst"),
        default="grow",
        help="temporary name then rename; in pieces under the final name (default); several files back to back",
    )
    parser.add_argument(
        "--count",
        metavar="N",
        type=int,
        help="go round the files until N are written, under fresh names and identities",
    )


def run(args: argparse.Namespace) -> int:
    """Exit 0 when every file lies in the folder; 65 when there is nothing to play."""
    _check(args)
    from daemon.common.progress import progress
    from daemon.instrument import play, recordings

    found = recordings(args.sources)
    args.into.mkdir(parents=True, exist_ok=True)
    total = len(found) if args.count is None else args.count
    played = play(found, args.into, rate=args.rate, writer=args.writer, count=args.count)
    written = sum(1 for _ in progress(played, "playing", total))
    print(f"{written} recordings played into {args.into}")
    return 0


def _check(args: argparse.Namespace) -> None:
    check_rate(args.rate)
    if args.count is not None and args.count < 1:
        raise UserError(USAGE, f"--count {args.count}: give 1 or more")
    if args.into.exists() and not args.into.is_dir():
        raise UserError(USAGE, f"--into {args.into}: this is a file; name a folder")
    for source in args.sources:
        if source.is_dir() and args.into.resolve().is_relative_to(source.resolve()):
            raise UserError(USAGE, f"--into {args.into}: lies in {source}, which is played; name a folder elsewhere")
