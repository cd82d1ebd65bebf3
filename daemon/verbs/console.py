"""`console`: a live view of a running service."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from daemon.client.feed import add_patience_option, patience_of
from daemon.common.errors import UNREACHABLE, UserError
from daemon.common.files import need_folder
from daemon.config import add_endpoint_options, add_service_options, load
from daemon.screens import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``console``."""
    add_service_options(parser)
    add_endpoint_options(parser)
    add_patience_option(parser)
    parser.add_argument("--plain", action="store_true", help="one line a decision, as without a terminal")
    parser.add_argument("--snapshot", metavar="FILE.svg", type=Path, help="one picture of it, then leave")
    parser.add_argument("--size", metavar="COLUMNSxROWS", type=_size, default=(120, 36), help="of the picture (120x36)")


def _size(text: str) -> tuple[int, int]:
    columns, _, rows = text.partition("x")
    if columns.isdecimal() and rows.isdecimal() and 40 <= int(columns) <= 500 and 12 <= int(rows) <= 200:
        return int(columns), int(rows)
    raise argparse.ArgumentTypeError(f"{text!r}: give columns x rows, 40x12 to 500x200, like 120x36")


def run(args: argparse.Namespace) -> int:
    """Until q or Ctrl-C. Exit 69 without a service: at once for a picture, else once its patience is at its end."""
    config = load(args)
    if args.snapshot is not None:
        need_folder("--snapshot", args.snapshot)
        if not console.snapshot(config, args.snapshot, *args.size):
            raise UserError(UNREACHABLE, "no service answered; start one, or name it with --state or --config")
    elif args.plain or not console.has_terminal() or os.environ.get("TERM", "") in ("", "dumb"):
        console.plain(config, patience_of(args))
    else:
        console.live(config, patience_of(args))
    return 0
