"""`console`: a live view of a running service."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from daemon.client.feed import PATIENCE, patience_of
from daemon.client.folders import refuse_watched
from daemon.common.errors import UNREACHABLE, USAGE, UserError, need_folder
from daemon.common.options import Option
from daemon.config import Flags, Keys, load
from daemon.screens import console
from daemon.screens.console import rater_of


def _size(text: str) -> tuple[int, int]:
    columns, _, rows = text.partition("x")
    if columns.isdecimal() and rows.isdecimal() and 40 <= int(columns) <= 500 and 12 <= int(rows) <= 200:
        return int(columns), int(rows)
    raise argparse.ArgumentTypeError(f"{text!r}: give columns x rows, 40x12 to 500x200, like 120x36")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument", "publish", "replay", "key")]
    patience: Annotated[float | None, PATIENCE] = None
    rater: Annotated[
        str | None, Option("whose labels the keys k, d and u give", "NAME", unless="whoever is logged in")
    ] = None
    plain: Annotated[bool, Option("one line a decision, as without a terminal")] = False
    snapshot: Annotated[Path | None, Option("one picture of it, then leave", "FILE.svg")] = None
    size: Annotated[tuple[int, int], Option("of the picture", "COLUMNSxROWS", parse=_size, unless="120x36")] = (120, 36)


def run(options: Options) -> int:
    """Until q or Ctrl-C. Exit 69 without a service: at once for a picture, else once its patience is at its end."""
    config = load(options.service)
    if options.rater is not None and not options.rater.strip():
        raise UserError(USAGE, "--rater must name somebody")
    if options.snapshot is not None:
        need_folder("--snapshot", options.snapshot)
        refuse_watched({"--snapshot": options.snapshot}, config)
        if not console.snapshot(config, options.snapshot, *options.size):
            raise UserError(UNREACHABLE, "no service answered; start one, or name it with --state or --config")
    elif options.plain or not console.has_terminal() or os.environ.get("TERM", "") in ("", "dumb"):
        if not options.plain and console.has_terminal():
            print(
                "afm-triage: TERM names no terminal to draw on: one line a decision, q or Ctrl-C leaves",
                file=sys.stderr,
            )
        console.plain(config, patience_of(options.patience))
    else:
        console.live(config, patience_of(options.patience), rater_of(options.rater))
    return 0
