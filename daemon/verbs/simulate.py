"""`simulate`: physics-simulated curves as an instrument's files, with the truth about them kept elsewhere."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import check_rate, paced
from models.files import write_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    into: Annotated[Path, Option("folder for the .jpk-force files", "DIR")]
    curves: Annotated[int, Option("how many", "N")] = 100
    prevalence: Annotated[float, Option("share with an event", "P")] = 0.05
    seed: Annotated[int, Option("the same seed gives the same bytes", "S")] = 1
    rate: Annotated[float | None, Option("curves per second", "R", unless="as fast as possible")] = None
    truth: Annotated[Path | None, Option("CSV of path, curve_index, label; never in DIR", "FILE")] = None


def run(options: Options) -> int:
    """Exit 0 when all files lie in the folder."""
    _check(options)
    from daemon.common.stdio import progress
    from daemon.instrument import pack
    from models.simulate import simulate

    options.into.mkdir(parents=True, exist_ok=True)
    curves = zip(count(), simulate(options.curves, options.seed, options.prevalence), strict=False)
    events = 0
    with ExitStack() as stack:
        note = _truth(options.truth, stack)
        for number, simulated in progress(paced(curves, options.rate), "simulating", options.curves):
            path = options.into / f"sim-{options.seed}-{number:06d}.jpk-force"
            write_whole(path, pack(simulated.curve))
            note((path.name, 0, simulated.label))
            events += simulated.label == "keep"
    print(f"{options.curves} curves in {options.into}, {events} with an event")
    return 0


def _check(options: Options) -> None:
    if options.curves < 1:
        raise UserError(USAGE, f"--curves {options.curves}: give 1 or more")
    if not 0.0 <= options.prevalence <= 1.0:
        raise UserError(USAGE, f"--prevalence {options.prevalence}: give a share between 0 and 1")
    if options.seed < 0:
        raise UserError(USAGE, f"--seed {options.seed}: give 0 or more")
    check_rate(options.rate)
    if options.into.exists() and not options.into.is_dir():
        raise UserError(USAGE, f"--into {options.into}: this is a file; name a folder")
    if options.truth is not None and options.truth.resolve().is_relative_to(options.into.resolve()):
        raise UserError(
            USAGE, f"--truth {options.truth}: lies in {options.into}, where it would be seen; put it elsewhere"
        )
    from daemon.client.folders import refuse_watched

    refuse_watched({"--truth": options.truth})


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
