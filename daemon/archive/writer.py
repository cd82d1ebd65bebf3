"""Writing an archive: curves of files or of a seed, part after part, in a file that gets its name when it is whole."""

from __future__ import annotations

import errno
import io
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from daemon import __version__
from daemon.archive import (
    ATTRIBUTE,
    COLUMNS,
    MAGIC,
    MOST_APPROACH,
    MOST_TEXT_BYTES,
    PART_CURVES,
    PART_SAMPLES,
    PARTS,
    USER_BLOCK_BYTES,
    VERSION,
    Origin,
    start_workers,
)
from daemon.common.ending import Closing
from daemon.common.locks import lock_where_possible
from daemon.processes import frames
from daemon.reading.ahead import Job, Piece, Stamp, read_ahead
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival, Ignored
from deploy.classifier import usable_cores
from models.curve import Curve, DistanceKind, ForceUnit, Samples

ABOUT = """\
AFM force curves as afm-triage reads them, for judging them again quickly. Each group of "parts" holds up to 4096 \
curves, one entry a curve in every column but force, distance and approach: those hold the samples of one curve after \
the other. Curve k (from 0) of a part has the samples from force_end[k - 1] (0 for k = 0) to force_end[k]. Every \
column says what it is in its attribute "about". Datasets are contiguous and uncompressed: they can be memory-mapped.\
"""
_TASK = 64  # simulated curves a worker makes at a time
_GREETING = b" HDF5 follows at byte 512: any HDF5 program reads it.\n"


class _Disk(io.FileIO):
    """The file as HDF5 is given it, which crashes the process where a write fails: it hears of none.

    ``trouble`` is the first that did; nothing is written after it, and the file is thrown away.
    """

    trouble: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        try:
            while self.trouble is None and left:
                left = left[super().write(left) or 0 :]
        except OSError as error:
            self.trouble = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.trouble = self.trouble or error
            return self.tell() if size is None else size

    def check(self) -> None:
        """Raises OSError where not all of it is there."""
        if self.trouble is not None:
            raise self.trouble


class ArchiveWriter(Closing):
    """Curves in, one archive out; memory for one part. Without :meth:`finish` nothing has been written.

    ``is_added_to``: there is an archive of that name already, whose curves come first.
    """

    def __init__(self, path: Path, *, with_distance: bool = False, is_added_to: bool = False) -> None:
        import h5py

        self._path = path
        # hidden: nobody who watches the folder takes it for a curve; and the next run takes the place of a killed one's
        self._fresh = path.with_name(f".{path.name}.part")
        self.with_distance = with_distance
        self._rows: list[tuple[Origin, Curve | None]] = []
        self._samples = 0
        self.curves = 0
        self._lock = _lock(self._fresh)  # ours, for HDF5 empties a file before it looks whether another has locked it
        try:
            if is_added_to:
                shutil.copyfile(path, self._fresh)
            self._disk = _Disk(self._fresh, "r+" if is_added_to else "w+")
            if is_added_to:
                self._file: Any = h5py.File(self._disk, "r+", libver="earliest")
            else:
                self._file = h5py.File(self._disk, "w", libver="earliest", userblock_size=USER_BLOCK_BYTES)
        except OSError:
            self._fresh.unlink(missing_ok=True)  # a disk without room leaves it empty
            os.close(self._lock)
            raise
        if is_added_to:
            self.curves, self._parts = int(self._file.attrs["curves"]), self._file[PARTS]
            return
        self._file.attrs[ATTRIBUTE] = VERSION
        self._file.attrs["curves"] = np.int64(0)
        self._file.attrs["about"] = ABOUT
        self._file.attrs["written_by"] = f"afm-triage {__version__}"
        self._parts = self._file.create_group(PARTS)

    def add(self, origin: Origin, curve: Curve | None) -> None:
        """One more row; ``curve`` is None exactly where ``origin.reason`` says why."""
        self._rows.append((origin, curve))
        self._samples += 0 if curve is None else len(curve)
        if len(self._rows) == PART_CURVES or self._samples >= PART_SAMPLES:
            self._flush()

    @property
    def has_curves(self) -> bool:
        """Whether anything has been added."""
        return bool(self.curves or self._rows)

    def finish(self) -> None:
        """Give the file its name; what bore it before is replaced."""
        if self._rows:
            self._flush()
        self._file.attrs["curves"] = np.int64(self.curves)
        self._file.close()
        self._disk.check()
        self._disk.close()
        with self._fresh.open("r+b") as file:
            file.write((MAGIC + _GREETING).ljust(USER_BLOCK_BYTES, b"\0"))
            file.flush()
            os.fsync(file.fileno())
        self._fresh.replace(self._path)

    def close(self) -> None:
        """Take away what has not been finished."""
        try:
            with suppress(Exception):  # what is wrong has been told already
                if self._file:
                    self._file.close()
                self._disk.close()
        finally:
            if _is_named(self._lock, self._fresh):
                self._fresh.unlink()
            os.close(self._lock)

    def _flush(self) -> None:
        group = self._parts.create_group(f"{len(self._parts):06d}")
        group.attrs["curves"] = np.int64(len(self._rows))
        for name, values in _columns(self._rows, with_distance=self.with_distance).items():
            dataset = group.create_dataset(name, data=values, track_times=False)
            dataset.attrs["about"] = COLUMNS[name].about
        self._disk.check()
        self.curves += len(self._rows)
        self._rows, self._samples = [], 0


def _lock(path: Path) -> int:
    """A descriptor of the file, created if need be, that no other run has while it is open. BlockingIOError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        lock_where_possible(descriptor)
        if not _is_named(descriptor, path):  # the other run has finished meanwhile
            raise BlockingIOError(errno.EWOULDBLOCK, "another run was writing it")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _is_named(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _columns(rows: list[tuple[Origin, Curve | None]], *, with_distance: bool) -> dict[str, NDArray[Any]]:
    """Every column of a part; h5py gives each a contiguous place."""
    from_where = [origin for origin, _ in rows]
    curves = [curve for _, curve in rows]
    forces = [_nothing() if curve is None else curve.force for curve in curves]
    approaches = [None if curve is None else curve.approach_force for curve in curves]
    tenths = [_nothing() if samples is None else samples[: samples.shape[0] // 10] for samples in approaches]
    columns: dict[str, NDArray[Any]] = {
        "force": np.concatenate(forces),
        "approach": np.concatenate(tenths),
        "force_end": np.cumsum([samples.shape[0] for samples in forces], dtype=np.int64),
        "approach_end": np.cumsum([samples.shape[0] for samples in tenths], dtype=np.int64),
        "approach_points": _whole_numbers(-1 if samples is None else samples.shape[0] for samples in approaches),
        "force_unit": _words(getattr(curve, "force_unit", None) for curve in curves),
        "distance_kind": _words(getattr(curve, "distance_kind", None) for curve in curves),
        "spring_constant_n_per_m": _numbers(getattr(curve, "spring_constant_n_per_m", None) for curve in curves),
        "sensitivity_m_per_v": _numbers(getattr(curve, "sensitivity_m_per_v", None) for curve in curves),
        "duration_s": _numbers(getattr(curve, "duration_s", None) for curve in curves),
        "notes": _words(" ".join(getattr(curve, "notes", ())) for curve in curves),
        "path": _words(origin.path for origin in from_where),
        "curve": _whole_numbers(origin.index for origin in from_where),
        "curves": _whole_numbers(origin.curves for origin in from_where),
        "sha256": _words(origin.sha256 for origin in from_where),
        "size_bytes": _whole_numbers(origin.size_bytes for origin in from_where),
        "mtime_ns": _whole_numbers(origin.mtime_ns for origin in from_where),
        "acquired_s": _numbers(origin.acquired_s for origin in from_where),
        "reason": _words(origin.reason for origin in from_where),
        "format": _words(origin.format for origin in from_where),
    }
    if with_distance:
        columns["distance"] = np.concatenate([_distance_of(curve) for curve in curves])
    return columns


def _nothing() -> Samples:
    return np.zeros(0)


def _distance_of(curve: Curve | None) -> Samples:
    if curve is None:
        return _nothing()
    if curve.distance is None or curve.distance.shape != curve.force.shape:
        return np.full(len(curve), np.nan)
    return curve.distance


def _words(values: Iterable[str | None]) -> NDArray[np.bytes_]:
    import h5py

    words = [os.fsencode(value or "")[:MOST_TEXT_BYTES] for value in values]
    return np.array(words, h5py.string_dtype("utf-8", max(1, *map(len, words))))


def _numbers(values: Iterable[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _whole_numbers(values: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(values, np.int64)


def holds_too_much(curve: Curve) -> bool:
    """Whether the approach is longer than an archive takes; no instrument's is."""
    return curve.approach_force is not None and curve.approach_force.shape[0] > MOST_APPROACH


def pack_files(found: Iterable[Arrival], writer: ArchiveWriter, ignored: Ignored | None = None) -> Iterator[Origin]:
    """Add every curve of the files, in order, and what could not be read with its reason. Raises ReaderBroken.

    Files that turn out to be no curves are counted in ``ignored``.
    """
    for _, origin, curve in read_rows((Job(arrival, Stamp.of(arrival)) for arrival in found), ignored):
        writer.add(origin, curve)
        yield origin


def read_rows(
    jobs: Iterable[Job], ignored: Ignored | None = None, pool: ReaderPool | None = None
) -> Iterator[tuple[Arrival, Origin, Curve | None]]:
    """What a writer takes of every curve of the jobs, in order, and the file that it is of; as :func:`read_ahead`."""
    for item in read_ahead(jobs, workers=max(2, usable_cores()), ignored=ignored, pool=pool):
        if not isinstance(item, Piece):
            continue
        curve, reason = item.reading.curve, item.reading.reason
        if curve is None:
            reason = reason or "unreadable"
        elif holds_too_much(curve):
            curve, reason = None, "too_long"
        yield item.reading.arrival, _origin(item, curve, reason), curve


def pack_simulated(count: int, seed: int, prevalence: float, writer: ArchiveWriter) -> Iterator[Origin]:
    """Add ``count`` simulated curves; the same seed gives the same bytes. Raises WorkersBroken."""
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
    with start_workers() as workers:
        number = 0
        for header, arrays in workers.map(requests):
            samples = iter(arrays)
            for described, digest in zip(header["curves"], header["sha256"], strict=True):
                curve, _ = frames.restore(described, samples)
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
        acquired_s=reading.acquired_s,
    )


# Rows that were read on another computer.


class _Samples(Struct, frozen=True, array_like=True):
    """What an archive holds of a curve; samples are <f8, one after the other."""

    force: bytes
    distance: bytes | None
    approach: bytes | None  # the first tenth
    approach_points: int
    force_unit: ForceUnit | None
    distance_kind: DistanceKind | None
    spring_constant_n_per_m: float | None
    sensitivity_m_per_v: float | None
    duration_s: float | None
    notes: tuple[str, ...]


class _Row(Struct, frozen=True, array_like=True):
    path: bytes  # which need not be UTF-8
    origin: Origin  # without it
    samples: _Samples | None


_PACK = msgspec.msgpack.Encoder()
_ROW = msgspec.msgpack.Decoder(_Row)
_LENGTH = struct.Struct("<Q")


def pack_row(origin: Origin, curve: Curve | None, *, with_distance: bool) -> bytes:
    """One row as it travels: what :meth:`ArchiveWriter.add` takes, but for samples that no archive holds."""
    samples = None
    if curve is not None:
        approach = curve.approach_force
        points = 0 if approach is None else approach.shape[0]
        samples = _Samples(
            _bytes_of(curve.force),
            _bytes_of(curve.distance) if with_distance and curve.distance is not None else None,
            None if approach is None else _bytes_of(approach[: points // 10]),
            points,
            curve.force_unit,
            curve.distance_kind,
            curve.spring_constant_n_per_m,
            curve.sensitivity_m_per_v,
            curve.duration_s,
            curve.notes,
        )
    return _PACK.encode(_Row(os.fsencode(origin.path), replace(origin, path=""), samples))


def unpack_row(content: bytes) -> tuple[Origin, Curve | None]:
    """The inverse of :func:`pack_row`; behind its first tenth an approach is nothing but zeros. ValueError."""
    row = _ROW.decode(content)
    origin, samples = replace(row.origin, path=os.fsdecode(row.path)), row.samples
    if (samples is None) is (origin.reason is None):
        raise ValueError("a row with a curve and a reason why there is none, or with neither")
    if samples is None:
        return origin, None
    approach = None
    if samples.approach is not None:
        tenth = np.frombuffer(samples.approach, "<f8")
        if not 0 <= samples.approach_points <= MOST_APPROACH or tenth.shape[0] != samples.approach_points // 10:
            raise ValueError("an approach that is none")
        approach = np.zeros(samples.approach_points)
        approach[: tenth.shape[0]] = tenth
    return origin, Curve(
        np.frombuffer(samples.force, "<f8"),
        samples.force_unit,
        None if samples.distance is None else np.frombuffer(samples.distance, "<f8"),
        samples.distance_kind,
        approach,
        samples.spring_constant_n_per_m,
        samples.sensitivity_m_per_v,
        samples.duration_s,
        notes=samples.notes,
    )


def _bytes_of(samples: Samples) -> bytes:
    return np.asarray(samples, "<f8").tobytes()


class RowsInOrder(Closing):
    """Rows of blocks that are numbered from 0, in the order of the blocks, whichever is read first.

    What comes before its turn waits in files of ``folder`` that have no name: nothing is left of them, however the
    process ends. Memory for one row. OSError where the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._turn = folder, 0
        self._waiting: dict[int, IO[bytes]] = {}
        self._whole: set[int] = set()  # of the blocks that wait

    def add(self, number: int, rows: Sequence[bytes], *, is_last: bool) -> Iterator[bytes]:
        """More rows of a block, with its last one or not; all whose turn it is now. To be iterated to its end."""
        if number != self._turn:
            self._keep(number, rows)
            if is_last:
                self._whole.add(number)
            return
        yield from rows
        while is_last:
            self._turn += 1
            if (file := self._waiting.pop(self._turn, None)) is not None:
                with file:
                    file.seek(0)
                    while length := file.read(_LENGTH.size):
                        yield file.read(*_LENGTH.unpack(length))
            is_last = self._turn in self._whole
            self._whole.discard(self._turn)

    def close(self) -> None:
        """What waits is forgotten."""
        for file in self._waiting.values():
            with suppress(OSError):  # it has no room for what it had not written yet
                file.close()
        self._waiting = {}

    def _keep(self, number: int, rows: Sequence[bytes]) -> None:
        if number not in self._waiting:
            self._waiting[number] = tempfile.TemporaryFile(dir=self._folder, prefix=".")  # noqa: SIM115 - close does
        for row in rows:
            self._waiting[number].write(_LENGTH.pack(len(row)) + row)
