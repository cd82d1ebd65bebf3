"""Packing: curves of files, or of a seed, into an archive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from daemon.archive.crew import Crew
from daemon.archive.rows import Origin
from daemon.archive.writer import ArchiveWriter, holds_too_much
from daemon.arrival import Arrival
from daemon.formats import wire
from daemon.ignored import Ignored
from daemon.scoring.ahead import read_ahead
from daemon.scoring.job import Job, Piece, Stamp
from deploy.cores import usable_cores
from models.curve import Curve

_TASK = 64  # simulated curves a worker makes at a time


def pack_files(found: Iterable[Arrival], writer: ArchiveWriter, ignored: Ignored | None = None) -> Iterator[Origin]:
    """Add every curve of the files, in order, and what could not be read with its reason. Raises ReaderBroken.

    Files that turn out to be no curves are counted in ``ignored``.
    """
    jobs = (Job(arrival, Stamp.of(arrival)) for arrival in found)
    for item in read_ahead(jobs, workers=max(2, usable_cores()), ignored=ignored):
        if not isinstance(item, Piece):
            continue
        curve, reason = item.reading.curve, item.reading.reason
        if curve is None:
            reason = reason or "unreadable"
        elif holds_too_much(curve):
            curve, reason = None, "too_long"
        origin = _origin(item, curve, reason)
        writer.add(origin, curve)
        yield origin


def pack_simulated(count: int, seed: int, prevalence: float, writer: ArchiveWriter) -> Iterator[Origin]:
    """Add ``count`` simulated curves; the same seed gives the same bytes. Raises CrewBroken."""
    requests = (
        {
            "do": "simulate",
            "seed": seed,
            "prevalence": prevalence,
            "first": first,
            "count": min(_TASK, count - first),
            "distance": writer.with_distance,
        }
        for first in range(0, count, _TASK)
    )
    with Crew(usable_cores()) as crew:
        number = 0
        for header, payload in crew.map(requests):
            at = 0
            for described, digest in zip(header["curves"], header["sha256"], strict=True):
                curve, _, at = wire.restore(described, payload, at)
                origin = Origin(f"sim-{seed}-{number:07d}", 0, 1, digest, 0, 0, curve.force_unit)
                writer.add(origin, curve)
                number += 1
                yield origin


def _origin(piece: Piece, curve: Curve | None, reason: str | None) -> Origin:
    reading, stamp = piece.reading, piece.stamp or Stamp.of(piece.reading.arrival)
    return Origin(
        path=reading.arrival.path,
        index=reading.index,
        curves=piece.curves,
        sha256=reading.sha256,
        size_bytes=stamp.size_bytes,
        mtime_ns=stamp.mtime_ns,
        force_unit=None if curve is None else curve.force_unit,
        reason=reason,
        format=reading.format,
    )
