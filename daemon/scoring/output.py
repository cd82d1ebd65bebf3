"""What a run of `score` says: a line a curve, into a sheet, or only how many there were."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import chain

from daemon.clean import clean
from daemon.judging import Decision
from daemon.ledger import events
from daemon.progress import progress
from daemon.scoring import Judged
from daemon.scoring.job import Kept
from daemon.scoring.line import write_line
from daemon.scoring.sheet import Sheet
from daemon.scoring.tally import Tally
from daemon.stdio import write_bytes

_LINES = 64  # between two flushes of the sheet


def tell(batches: Iterable[Iterable[Kept | Judged]], tally: Tally, *, json: bool, quiet: bool) -> None:
    """Print a line a curve as they come, or none where ``quiet``."""
    for item in progress(chain.from_iterable(batches), "scoring"):
        if isinstance(item, Kept):
            continue
        tally.count(item)
        if json and not quiet:
            write_bytes(_json(item.decision) + b"\n")
        elif not quiet:
            print(_line(item.decision))


def note(batches: Iterable[Iterable[Kept | Judged]], tally: Tally, sheet: Sheet) -> None:
    """Write a line a curve into the sheet, which is finished then."""
    waiting = 0
    for item in progress(chain.from_iterable(batches), "scoring"):
        if isinstance(item, Kept):
            sheet.keep(item)
            continue
        tally.count(item)
        sheet.write(write_line(item.decision, item.file))
        waiting += 1
        if waiting % _LINES == 0:
            sheet.flush()
    sheet.finish()


def _json(decision: Decision) -> bytes:
    return events.encode(events.decision_data(decision, time.monotonic() - decision.noticed_s))


def _line(decision: Decision) -> str:
    score = "     -" if decision.score is None else f"{decision.score:6.4f}"
    why = ", ".join(reason for reason in decision.reasons if reason != "score")
    return f"{decision.verdict:<8} {score}  {clean(decision.path)}#{decision.curve}" + (f"  ({why})" if why else "")
