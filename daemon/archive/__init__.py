"""Archives of curves: decoded once, memory-mapped ever after (deploy/decisions/0007).

``layout`` says what lies where, ``writer`` writes, ``worker`` reads: what opens or maps a file does so in processes of
its own. Here are the archive as the main process knows it, its curves, prepared, and their verdicts: the same as from
the files, without opening one.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.archive.layout import BadArchive, Origin, Part, is_archive, open_unchanged, origins, state_of
from daemon.batch import Judged
from daemon.batch.output import Line, ResumableOutput
from daemon.common.errors import BAD_DATA, UserError
from daemon.common.text import clean
from daemon.judging import FAILED, Judge, decide, final_verdict, overlap, shielded
from daemon.processes.worker_pool import WorkerPool
from daemon.reading import Reading
from daemon.reading.ahead import Kept, Stamp
from daemon.sources import Arrival
from deploy.cpu import usable_cores
from deploy.serving import Model, Scored
from models.curve import Curve, Prepared
from models.raster import RasterProfile

__all__ = [
    "Archive",
    "BadArchive",
    "Block",
    "Portion",
    "blocks",
    "count_blocks",
    "is_archive",
    "pass_over",
    "portions",
    "score_blocks",
    "start_workers",
]

_NO_SAMPLES = np.zeros(0)
BLOCK = 512  # curves that go to a worker and to the classifier at a time


def start_workers(count: int | None = None) -> WorkerPool:
    """Processes that look into archives, or simulate what goes into one: ``count``, else as many as there are cores."""
    return WorkerPool("daemon.archive.worker", count or usable_cores())


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose layout has been checked."""

    path: Path
    curves: int
    parts: tuple[Part, ...]
    state: tuple[int, ...]  # of the file when it was looked at: the parts lie where they lay only as long as it holds

    @classmethod
    def open(cls, path: Path, workers: WorkerPool) -> Archive:
        """Raises BadArchive for what is none or is damaged, WorkersBroken where looking at it ends a process."""
        state = state_of(path.stat())
        found, _ = workers.ask({"do": "survey", "file": str(path)})
        if "error" in found:
            raise BadArchive(found["error"])
        size_bytes = path.stat().st_size
        parts = tuple(Part.checked(part, size_bytes) for part in found["parts"])
        if sum(part.curves for part in parts) != found["curves"]:
            raise BadArchive("not all of its parts are there")
        return cls(path, found["curves"], parts, state)


@dataclass(frozen=True, slots=True)
class Portion:
    """``count`` rows of a part from row ``first`` on."""

    archive: Archive
    part: Part
    first: int
    count: int

    def origins(self) -> list[Origin]:
        """Where its curves come from. Raises BadArchive, OSError."""
        descriptor = open_unchanged(self.archive.path, self.archive.state)
        try:
            return origins(descriptor, self.part, self.first, self.count)
        finally:
            os.close(descriptor)


def portions(archives: Sequence[Archive], first: int = 0) -> Iterator[Portion]:
    """All curves of the archives, in order, from the one of that number on."""
    before = 0
    for archive in archives:
        for part in archive.parts:
            for start in range(max(first - before, 0), part.curves, BLOCK):
                yield Portion(archive, part, start, min(BLOCK, part.curves - start))
            before += part.curves


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A portion whose curves have been through the front-end."""

    portion: Portion
    prepared: list[Prepared | None]  # a row; None where the archive holds no curve
    read_s: float  # a curve
    front_s: float


def blocks(wanted: Iterator[Portion], profile: RasterProfile, workers: WorkerPool) -> Iterator[Block]:
    """Portions -> blocks, in order, prepared ahead of their turn. Raises BadArchive, WorkersBroken."""
    plain = json.loads(profile.to_json())
    asked: list[Portion] = []

    def requests() -> Iterator[dict[str, Any]]:
        for portion in wanted:
            asked.append(portion)
            yield {
                "do": "prepare",
                "file": str(portion.archive.path),
                "state": portion.archive.state,
                "part": portion.part.to_header(),
                "first": portion.first,
                "count": portion.count,
                "profile": plain,
            }

    for header, arrays in workers.map(requests()):
        if "error" in header:
            raise BadArchive(header["error"])
        yield _block(asked.pop(0), header, arrays[0])


def _block(portion: Portion, header: dict[str, Any], samples: NDArray[Any]) -> Block:
    prepared: list[Prepared | None] = [None] * portion.count
    ends = np.cumsum(header["sizes"], dtype=np.int64)
    coming = (
        Prepared(samples[end - size : end] if size else None, tuple(reasons))
        for size, end, reasons in zip(header["sizes"], ends, header["reasons"], strict=True)
    )
    for row, ways in zip(header["rows"], header["ways"], strict=True):
        one = next(coming)
        prepared[row - portion.first] = one if ways == 1 else replace(one, flipped=next(coming))
    share = 1 / max(len(header["rows"]), 1)
    return Block(portion, prepared, header["read_s"] * share, header["front_s"] * share)


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
            Judged(decision, reading.arrival.total, Stamp.of(reading.arrival), reading.format)
            for decision, reading in zip(decisions, readings, strict=True)
        ]


def count_blocks(blocks: Iterable[Block], model: Model, judge: Judge) -> Iterator[Counter[str]]:
    """How many curves get which verdict, block by block: no event is made, no picture drawn."""

    def verdicts(some: Sequence[Prepared]) -> list[str]:
        scored = model.judge_prepared(some, judge.thresholds.both, drawn=False)
        return [final_verdict(one.score, one.reasons, judge)[0] for one in scored]

    def counted(block: Block) -> Counter[str]:
        there = [item for item in block.prepared if item is not None]
        unread = len(block.prepared) - len(there)
        return Counter(shielded(there, verdicts, "review")) + Counter(review=unread)

    for _, counts in overlap(blocks, counted):
        yield counts


def pass_over(lines: Iterable[tuple[Line, Kept]], archives: Sequence[Archive], output: ResumableOutput) -> int:
    """Keep the lines of an earlier run; how many there are. UserError when they are on other curves than these."""
    rows = (origin for portion in portions(archives) for origin in portion.origins())
    answered = 0
    for line, kept in lines:
        origin = next(rows, None)
        if origin is None or (line.path, line.curve, line.sha256) != (origin.path, origin.index, origin.sha256):
            where = clean(f"line {answered + 1} is on {line.path}#{line.curve}, the archive has another curve there")
            raise UserError(BAD_DATA, f"{output.path}: {where}; name another file, --fresh begins anew")
        output.keep(kept)
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
    return Reading(
        arrival, origin.index, origin.sha256, curve, origin.reason, read_s, None, None, origin.format, origin.acquired_s
    )


def _with_front(scored: Scored, front_s: float) -> Scored:
    return replace(scored, raster_s=scored.raster_s + front_s)
