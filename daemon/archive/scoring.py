"""Scoring from an archive: the same verdicts as from the files, without opening one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from daemon.archive import Archive, Block, portions
from daemon.archive.rows import Origin
from daemon.arrival import Arrival
from daemon.classify import FAILED, shielded
from daemon.clean import clean
from daemon.decide import decide, settle
from daemon.decision import Judge
from daemon.errors import BAD_DATA, UserError
from daemon.reading import Reading
from daemon.scoring import Judged
from daemon.scoring.job import Kept, Stamp
from daemon.scoring.line import Line
from daemon.scoring.overlap import overlap
from daemon.scoring.sheet import Sheet
from deploy.serving import Model, Scored
from models.curve import Curve
from models.frontend import Prepared

_NO_SAMPLES = np.zeros(0)


def score_blocks(blocks: Iterable[Block], model: Model, judge: Judge) -> Iterator[list[Judged]]:
    """A verdict on every curve, in order, block by block."""

    def scored(block: Block) -> list[Scored]:
        there = [item for item in block.prepared if item is not None]
        return shielded(there, lambda some: model.judge_prepared(some, judge.thresholds.both), FAILED)

    for block, answers in overlap(blocks, scored):
        noticed_s = time.monotonic() - block.read_s - block.front_s
        by_row = iter(answers)
        readings: list[Reading] = []
        rows: list[Scored | None] = []
        for origin, prepared in zip(block.portion.origins(), block.prepared, strict=True):
            readings.append(_reading(origin, noticed_s, block.read_s))
            rows.append(None if prepared is None else _with_front(next(by_row), block.front_s))
        decisions = decide(readings, rows, judge)
        yield [
            Judged(decision, reading.arrival.total, _stamp(reading.arrival), reading.format)
            for decision, reading in zip(decisions, readings, strict=True)
        ]


def count_blocks(blocks: Iterable[Block], model: Model, judge: Judge) -> Iterator[Counter[str]]:
    """How many curves get which verdict, block by block: no event is made, no picture drawn."""

    def verdicts(some: Sequence[Prepared]) -> list[str]:
        scored = model.judge_prepared(some, judge.thresholds.both, drawn=False)
        return [settle(one.score, one.reasons, judge)[0] for one in scored]

    def counted(block: Block) -> Counter[str]:
        there = [item for item in block.prepared if item is not None]
        unread = len(block.prepared) - len(there)
        return Counter(shielded(there, verdicts, "review")) + Counter(review=unread)

    for _, counts in overlap(blocks, counted):
        yield counts


def pass_over(lines: Iterable[tuple[Line, Kept]], archives: Sequence[Archive], sheet: Sheet) -> int:
    """Keep the lines of an earlier run; how many there are. UserError when they are on other curves than these."""
    rows = (origin for portion in portions(archives) for origin in portion.origins())
    answered = 0
    for line, kept in lines:
        origin = next(rows, None)
        if origin is None or (line.path, line.curve, line.sha256) != (origin.path, origin.index, origin.sha256):
            where = clean(f"line {answered + 1} is on {line.path}#{line.curve}, the archive has another curve there")
            raise UserError(BAD_DATA, f"{sheet.path}: {where}; name another file, --fresh begins anew")
        sheet.keep(kept)
        answered += 1
    return answered


def _reading(origin: Origin, noticed_s: float, read_s: float) -> Reading:
    arrival = Arrival(
        source="score",
        path=origin.path,
        file=Path(origin.path),
        size_bytes=origin.size_bytes,
        mtime_ns=origin.mtime_ns,
        noticed_s=noticed_s,
        total=origin.curves,
    )
    curve = None if origin.reason else Curve(_NO_SAMPLES, origin.force_unit)
    return Reading(arrival, origin.index, origin.sha256, curve, origin.reason, read_s, format=origin.format)


def _stamp(arrival: Arrival) -> Stamp:
    return Stamp(arrival.size_bytes, arrival.mtime_ns)


def _with_front(scored: Scored, front_s: float) -> Scored:
    return replace(scored, raster_s=scored.raster_s + front_s)
