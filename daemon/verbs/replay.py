"""`replay`: plays an instrument, so that a set-up can be rehearsed without one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from daemon.common.errors import USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import check_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    sources: Annotated[tuple[Path, ...], Option("real files, or folders of them", "SRC", is_positional=True)]
    into: Annotated[Path, Option("the folder that is watched", "DIR")]
    rate: Annotated[float, Option("files a second", "R")] = 2.0
    writer: Annotated[
        Literal["rename", "grow", "burst"],
        Option("temporary name then rename; in pieces under the final name; several files back to back"),
    ] = "grow"
    count: Annotated[
        int | None, Option("go round the files until N are written, under fresh names and identities", "N")
    ] = None


def run(options: Options) -> int:
    """Exit 0 when every file lies in the folder; 65 when there is nothing to play."""
    _check(options)
    from daemon.common.stdio import progress
    from daemon.instrument import play, recordings

    found = recordings(options.sources)
    options.into.mkdir(parents=True, exist_ok=True)
    total = len(found) if options.count is None else options.count
    played = play(found, options.into, rate=options.rate, writer=options.writer, count=options.count)
    written = sum(1 for _ in progress(played, "playing", total))
    print(f"{written} recordings played into {options.into}")
    return 0


def _check(options: Options) -> None:
    check_rate(options.rate)
    if options.count is not None and options.count < 1:
        raise UserError(USAGE, f"--count {options.count}: give 1 or more")
    if options.into.exists() and not options.into.is_dir():
        raise UserError(USAGE, f"--into {options.into}: this is a file; name a folder")
    for source in options.sources:
        if source.is_dir() and options.into.resolve().is_relative_to(source.resolve()):
            raise UserError(USAGE, f"--into {options.into}: lies in {source}, which is played; name a folder elsewhere")
