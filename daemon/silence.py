"""The silence: how long no service has answered, and when whoever follows one has waited long enough."""

from __future__ import annotations

import argparse
import math
import sys
import time

from daemon.errors import UNREACHABLE, UserError
from daemon.wording import duration

#: A script that nobody looks at gives up after so long; a service is back from a restart by then.
PATIENCE_S = 60.0
#: Heartbeats come at most 5 s apart (contract section 5).
SILENCE_S = 7.0
_STEP_S = 3.0  # between two looks; a process that was stopped for an hour has not waited for it


def add_patience_option(parser: argparse.ArgumentParser) -> None:
    what = "give up (exit 69) once no service has answered for so long, from the start or later"
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=_seconds,
        help=f"{what} ({PATIENCE_S:g}; never where standard output is a terminal; inf: never)",
    )


def patience_of(args: argparse.Namespace) -> float:
    """Seconds; as long as somebody sees a screen, for ever."""
    if args.patience is not None:
        return float(args.patience)
    return math.inf if sys.stdout.isatty() else PATIENCE_S


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:  # NaN compares false
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds, 0 or more, or inf")
    return seconds


class Silence:
    """Of a service at ``place``, towards one that has ``patience_s``."""

    def __init__(self, patience_s: float, place: str) -> None:
        self._patience_s, self._place = patience_s, place
        self._silent_s, self._noted_s = 0.0, time.monotonic()

    def note(self, *, heard: bool) -> None:
        """Called after each look. Raises UserError 69 once the patience is at its end."""
        now_s = time.monotonic()
        self._silent_s = 0.0 if heard else self._silent_s + min(now_s - self._noted_s, _STEP_S)
        self._noted_s = now_s
        if heard:  # from now on it may be silent between two heartbeats
            self._patience_s = max(self._patience_s, SILENCE_S)
        elif self._silent_s >= self._patience_s:
            start = "start one with: afm-triage run --watch DIR, or wait longer with --patience"
            raise UserError(
                UNREACHABLE, f"no service has answered at {self._place} for {duration(self._silent_s)}; {start}"
            )
