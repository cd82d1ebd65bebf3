"""Archives of curves: decoded once, memory-mapped ever after (deploy/decisions/0007).

Here are the layout (which columns the parts have, where in the file they lie, where their curves come from), and the
archive as the main process knows it: its curves, prepared, and their verdicts, the same as from the files without
opening one. ``writer`` writes and ``worker`` reads: what maps a file or hands it to HDF5 does so in processes of its
own, and what they say of a file is believed only after :func:`Part.checked`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from daemon.batch import Judged
from daemon.batch.output import Line, ResumableOutput
from daemon.common.errors import BAD_DATA, UserError
from daemon.common.text import clean
from daemon.formats import limits
from daemon.judging import FAILED, Judge, decide, final_verdict, overlap, shielded
from daemon.processes.worker_pool import WorkerPool
from daemon.reading import Reading
from daemon.reading.ahead import Kept, Stamp
from daemon.sources import Arrival
from deploy.classifier import usable_cores
from deploy.serving import Model, Scored
from models.curve import Curve, ForceUnit, Prepared, told_of
from models.raster import RasterProfile

VERSION = 1
USER_BLOCK_BYTES = 512
MAGIC = b"<afm-triage archive>"  # the first bytes of the file; HDF5 begins behind the user block
ATTRIBUTE = "afm_triage_archive"  # of the root group: the version
PARTS = "parts"

PART_CURVES = 4096
PART_SAMPLES = 8 * limits.MIB  # 64 MiB of force; a part ends with the curve that reaches it
MOST_SAMPLES = PART_SAMPLES + limits.POINTS  # in one part
MOST_APPROACH = 10 * limits.POINTS  # samples of one approach, of which a tenth is kept
MOST_PARTS = 1_000_000
MOST_TEXT_BYTES = 4096  # of a path; all other words are shorter

Length = Literal["curves", "samples", "approach"]


class BadArchive(Exception):
    """This file is no archive, or not a whole one; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Column:
    """One dataset of a part. ``kind`` is a numpy dtype, "S" a fixed width that each part chooses for itself."""

    kind: Literal["<f8", "<i8", "S"]
    length: Length
    about: str
    optional: bool = False


COLUMNS: Mapping[str, Column] = {
    "force": Column("<f8", "samples", "retract, pulling positive, in force_unit; curve after curve, as read"),
    "distance": Column("<f8", "samples", "m, growing away from the surface; NaN where a curve has none", optional=True),
    "approach": Column("<f8", "approach", "first tenth of the approach, far end first; curve after curve"),
    "force_end": Column("<i8", "curves", "where in force (and distance) the curve ends; it begins where the last ends"),
    "approach_end": Column("<i8", "curves", "where in approach the curve ends"),
    "approach_points": Column("<i8", "curves", "samples of the whole approach; -1: the file has none"),
    "force_unit": Column("S", "curves", "N, m (deflection), V (deflection), or nothing: the file does not say"),
    "distance_kind": Column("S", "curves", "piezo, separation or nothing"),
    "spring_constant_n_per_m": Column("<f8", "curves", "N/m; NaN: unknown"),
    "sensitivity_m_per_v": Column("<f8", "curves", "m/V; NaN: unknown"),
    "duration_s": Column("<f8", "curves", "of the retract, in s; NaN: unknown"),
    "notes": Column("S", "curves", "what the reader had to assume, words with blanks between"),
    "path": Column("S", "curves", "of the file, relative to the folder that was packed"),
    "curve": Column("<i8", "curves", "index in the file, from 0"),
    "curves": Column("<i8", "curves", "how many curves the file has"),
    "sha256": Column("S", "curves", "of the file's bytes, hex; nothing: not a byte could be read"),
    "size_bytes": Column("<i8", "curves", "of the file"),
    "mtime_ns": Column("<i8", "curves", "of the file, since 1970"),
    "acquired_s": Column("<f8", "curves", "when it was measured, since 1970; NaN: not said", optional=True),
    "reason": Column("S", "curves", "why there is no curve; nothing where there is one"),
    "format": Column("S", "curves", "the reader that opened the file: jpk, nanoscope, text, ...", optional=True),
}


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a column lies: ``count`` items of ``dtype`` from byte ``offset`` of the file on."""

    offset: int
    count: int
    dtype: str

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Part:
    """Up to PART_CURVES curves, column by column."""

    curves: int
    columns: Mapping[str, Extent]

    @classmethod
    def checked(cls, header: Mapping[str, Any], size_bytes: int) -> Part:
        """From ``{"curves": n, "columns": {name: [offset, count, dtype]}}``; BadArchive for what cannot be true."""
        curves = header.get("curves")
        found: Mapping[str, Any] = header.get("columns", {})
        if not isinstance(curves, int) or not 0 < curves <= PART_CURVES:
            raise BadArchive(f"a part of {curves} curves")
        columns = {}
        for name, column in COLUMNS.items():
            if name not in found:
                if column.optional:
                    continue
                raise BadArchive(f"the column {name} is missing")
            columns[name] = _checked_extent(name, found[name], curves, size_bytes)
        counts = {name: extent.count for name, extent in columns.items()}
        if counts.get("distance", counts["force"]) != counts["force"]:
            raise BadArchive("the columns force and distance differ in length")
        return cls(curves, columns)

    def to_header(self) -> dict[str, Any]:
        """The inverse of :meth:`checked`."""
        columns = {name: [extent.offset, extent.count, extent.dtype] for name, extent in self.columns.items()}
        return {"curves": self.curves, "columns": columns}


def _checked_extent(name: str, found: Any, curves: int, size_bytes: int) -> Extent:
    column = COLUMNS[name]
    try:
        offset, count, dtype = found
        kind = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise BadArchive(f"the column {name} is not described") from error
    if not (isinstance(offset, int) and isinstance(count, int)):
        raise BadArchive(f"the column {name} lies nowhere")
    fits = 0 < kind.itemsize <= MOST_TEXT_BYTES and kind.kind == "S" if column.kind == "S" else kind.str == column.kind
    if not fits:
        raise BadArchive(f"the column {name} holds {kind.str}")
    if (count != curves) if column.length == "curves" else not 0 <= count <= MOST_SAMPLES:
        raise BadArchive(f"the column {name} has {count} entries")
    if count and not USER_BLOCK_BYTES <= offset <= size_bytes - count * kind.itemsize:
        raise BadArchive(f"the column {name} ends beyond the file, which may be cut off")
    return Extent(offset, count, kind.str)


def is_archive(path: Path) -> bool:
    """Whether the file begins as an archive does; False for what cannot be opened."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def state_of(found: os.stat_result) -> tuple[int, ...]:
    """What changes when the file is written, or another takes its place."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def open_unchanged(path: Path | str, state: Sequence[int]) -> int:
    """A descriptor of the file. Raises BadArchive when it is not as it was: rows would be taken for other curves'."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if state_of(os.fstat(descriptor)) != tuple(state):
        os.close(descriptor)
        raise BadArchive("has changed while it was scored; score it again")
    return descriptor


_OF_ORIGINS = (
    "path",
    "curve",
    "curves",
    "sha256",
    "size_bytes",
    "mtime_ns",
    "force_unit",
    "reason",
    "format",
    "acquired_s",
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a curve comes from, and why it is none if it is none."""

    path: str
    index: int
    curves: int  # of the file
    sha256: str | None
    size_bytes: int
    mtime_ns: int
    force_unit: ForceUnit | None = None
    reason: str | None = None
    format: str | None = None  # None also in archives of before there was such a column
    acquired_s: float | None = None  # as the file itself says it


def origins(descriptor: int, part: Part, first: int, count: int) -> list[Origin]:
    """Where rows ``first`` to ``first + count - 1`` come from."""

    def column(name: str) -> list[Any]:
        if name not in part.columns:
            return [b""] * count
        return cast(list[Any], read_column(descriptor, part.columns[name], first, count).tolist())

    return [
        Origin(
            path=os.fsdecode(path),
            index=index,
            curves=curves,
            sha256=word(sha256),
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            force_unit=cast(ForceUnit | None, word(unit)),
            reason=word(reason),
            format=word(format),
            acquired_s=acquired_s if isinstance(acquired_s, float) and math.isfinite(acquired_s) else None,
        )
        for path, index, curves, sha256, size_bytes, mtime_ns, unit, reason, format, acquired_s in zip(
            *map(column, _OF_ORIGINS), strict=True
        )
    ]


def read_column(descriptor: int, extent: Extent, first: int, count: int) -> NDArray[Any]:
    """(count,) of a column. BadArchive where the file ends before; never maps, for a file can shrink."""
    wanted = count * extent.itemsize
    content = os.pread(descriptor, wanted, extent.offset + first * extent.itemsize)
    if len(content) != wanted:
        raise BadArchive("cut off")
    return np.frombuffer(content, extent.dtype)


def word(value: bytes) -> str | None:
    """A cell of a column of words; None for nothing."""
    return value.decode("ascii", "replace") or None


__all__ = [
    "Archive",
    "BadArchive",
    "Portion",
    "PreparedPortion",
    "count_portions",
    "is_archive",
    "pass_over",
    "portions",
    "prepare_portions",
    "score_portions",
    "start_workers",
]

_NO_SAMPLES = np.zeros(0)
PORTION_ROWS = 512  # curves that go to a worker and to the classifier at a time


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
            for start in range(max(first - before, 0), part.curves, PORTION_ROWS):
                yield Portion(archive, part, start, min(PORTION_ROWS, part.curves - start))
            before += part.curves


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPortion:
    """A portion whose curves have been through the front-end."""

    portion: Portion
    prepared: list[Prepared | None]  # a row; None where the archive holds no curve
    read_s: float  # a curve
    front_s: float


def prepare_portions(
    wanted: Iterator[Portion], profile: RasterProfile, workers: WorkerPool
) -> Iterator[PreparedPortion]:
    """Portions, in order, each prepared ahead of its turn. Raises BadArchive, WorkersBroken."""
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
        yield _prepared(asked.pop(0), header, arrays[0])


def _prepared(portion: Portion, header: dict[str, Any], samples: NDArray[Any]) -> PreparedPortion:
    prepared: list[Prepared | None] = [None] * portion.count
    ends = np.cumsum(header["sizes"], dtype=np.int64)
    coming = (
        Prepared(samples[end - size : end] if size else None, tuple(reasons), ruptures=told_of(ruptures))
        for size, end, reasons, ruptures in zip(
            header["sizes"], ends, header["reasons"], header["ruptures"], strict=True
        )
    )
    for row, ways in zip(header["rows"], header["ways"], strict=True):
        one = next(coming)
        prepared[row - portion.first] = one if ways == 1 else replace(one, flipped=next(coming))
    share = 1 / max(len(header["rows"]), 1)
    return PreparedPortion(portion, prepared, header["read_s"] * share, header["front_s"] * share)


def score_portions(prepared: Iterable[PreparedPortion], model: Model, judge: Judge) -> Iterator[list[Judged]]:
    """A verdict on every curve, in order, portion by portion."""

    def scored(portion: PreparedPortion) -> list[Scored]:
        there = [item for item in portion.prepared if item is not None]
        return shielded(there, lambda some: model.judge_prepared(some, judge.thresholds.both), FAILED)

    for portion, answers in overlap(prepared, scored):
        noticed_s = time.monotonic() - portion.read_s - portion.front_s
        by_row = iter(answers)
        readings: list[Reading] = []
        rows: list[Scored | None] = []
        for origin, item in zip(portion.portion.origins(), portion.prepared, strict=True):
            readings.append(_reading(origin, noticed_s, portion.read_s))
            rows.append(None if item is None else _with_front(next(by_row), portion.front_s))
        decisions = decide(readings, rows, judge)
        yield [
            Judged(decision, reading.arrival.total, Stamp.of(reading.arrival), reading.format)
            for decision, reading in zip(decisions, readings, strict=True)
        ]


def count_portions(prepared: Iterable[PreparedPortion], model: Model, judge: Judge) -> Iterator[Counter[str]]:
    """How many curves get which verdict, portion by portion: no event is made, no picture drawn."""

    def verdicts(some: Sequence[Prepared]) -> list[str]:
        scored = model.judge_prepared(some, judge.thresholds.both, drawn=False)
        return [final_verdict(one.score, one.reasons, judge)[0] for one in scored]

    def counted(portion: PreparedPortion) -> Counter[str]:
        there = [item for item in portion.prepared if item is not None]
        unread = len(portion.prepared) - len(there)
        return Counter(shielded(there, verdicts, "review")) + Counter(review=unread)

    for _, counts in overlap(prepared, counted):
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
