"""The archive's worker process: surveys, prepares and simulates for the main process, which so has no HDF5 in it.

``python -m daemon.archive.worker FD NOTE`` is a process of a ``daemon.processes.worker_pool``; it leaves no notes. What
is wrong with an archive ends as an answer with ``error``; a file that is cut off while it is mapped ends the process.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from daemon.archive import (
    ATTRIBUTE,
    COLUMNS,
    MOST_APPROACH,
    MOST_PARTS,
    PARTS,
    VERSION,
    BadArchive,
    Extent,
    Part,
    open_unchanged,
    read_column,
    word,
)
from daemon.common.text import first_line
from daemon.processes import frames
from daemon.processes.child import serving
from models.curve import Curve, DistanceKind, ForceUnit, Samples, plain
from models.raster import RasterProfile
from models.ruptures import prepare_to_tell


class RequestHandler:
    """Does one request after the other; keeps the part of the last one mapped."""

    def __init__(self) -> None:
        self._mapped: tuple[object, MappedPart] | None = None
        self._tasks: dict[str, Callable[[frames.Header], frames.Answer]] = {
            "survey": lambda request: (survey(Path(request["file"])), []),
            "prepare": self._prepare,
            "simulate": _simulate,
        }

    def answer(self, request: frames.Header) -> frames.Answer:
        """Never raises for what is in a file."""
        try:
            return self._tasks[request["do"]](request)
        except (BadArchive, OSError) as error:
            return {"error": str(error)}, []
        except Exception as error:  # words that are none, samples that nothing can be made of
            return {"error": f"damaged: {first_line(error)}"}, []

    def _prepare(self, request: frames.Header) -> frames.Answer:
        """Rows of a part -> their signals, one after the other, and their reasons; of some both ways up."""
        begun_s = time.perf_counter()
        part = self._part(request["file"], request["state"], request["part"])
        rows = range(request["first"], request["first"] + request["count"])
        there = [(row, curve) for row in rows if (curve := part.curve(row)) is not None]
        read_s = time.perf_counter() - begun_s
        profile = RasterProfile.from_mapping(request["profile"])
        prepared = prepare_to_tell([curve for _, curve in there], profile)
        ways = [(item,) if item.flipped is None else (item, item.flipped) for item in prepared]
        signals = [np.zeros(0, np.float32) if way.signal is None else way.signal for both in ways for way in both]
        header = {
            "rows": [row for row, _ in there],
            "ways": [len(both) for both in ways],
            "sizes": [signal.shape[0] for signal in signals],
            "reasons": [way.reasons for both in ways for way in both],
            "ruptures": [way.ruptures and plain(way.ruptures) for both in ways for way in both],
            "read_s": read_s,
            "front_s": time.perf_counter() - begun_s - read_s,
        }
        return header, [np.concatenate([np.zeros(0, np.float32), *signals])]

    def _part(self, file: str, state: list[int], header: frames.Header) -> MappedPart:
        key = (file, state, header)
        if self._mapped is None or self._mapped[0] != key:
            self._mapped = None
            descriptor = open_unchanged(file, state)
            try:
                part = Part.checked(header, os.fstat(descriptor).st_size)
                self._mapped = key, MappedPart(descriptor, part)
            finally:
                os.close(descriptor)
        return self._mapped[1]


def _simulate(request: frames.Header) -> frames.Answer:
    """Curves ``first`` to ``first + count - 1`` of a seed, and a digest of each; distance only where it is wanted."""
    from models.simulate import simulate

    drawn = simulate(request["count"], request["seed"], request["prevalence"], start=request["first"])
    curves = [one.curve if request["distance"] else replace(one.curve, distance=None) for one in drawn]
    digests = [hashlib.sha256(curve.force.tobytes()).hexdigest() for curve in curves]
    described = [frames.describe(curve) for curve in curves]
    header = {"curves": [header for header, _ in described], "sha256": digests}
    return header, [array for _, arrays in described for array in arrays]


def survey(path: Path) -> dict[str, Any]:
    """``{"curves": n, "parts": [header of a Part]}``, unchecked as to sizes and places. Raises BadArchive, OSError."""
    import h5py

    with path.open("rb"):  # says in its own words what the system has against it
        pass
    try:
        with h5py.File(path, "r", locking=False) as file:
            version = int(file.attrs.get(ATTRIBUTE, 0))
            if version != VERSION:
                raise BadArchive(
                    f"an archive of version {version}, this program reads {VERSION}"
                    if version
                    else f"HDF5, but no archive (the root has no attribute {ATTRIBUTE})"
                )
            parts = file[PARTS]
            names = [f"{number:06d}" for number in range(len(parts))]
            if not len(names) <= MOST_PARTS:
                raise BadArchive(f"{len(names)} parts")
            return {"curves": int(file.attrs["curves"]), "parts": [_part(parts, name) for name in names]}
    except BadArchive:
        raise
    except Exception as error:  # h5py passes on whatever the damaged file makes HDF5 say
        raise BadArchive("damaged: " + str(error).split("(")[0].strip(" '\"")) from error


def _part(parts: Any, name: str) -> dict[str, Any]:
    import h5py

    if not isinstance(parts.get(name, getlink=True), h5py.HardLink):
        raise BadArchive(f"part {name} is missing")
    group = parts[name]
    columns = {}
    for column in COLUMNS:
        if isinstance(group.get(column, getlink=True), h5py.HardLink):
            columns[column] = _extent(group[column], column)
    return {"curves": int(group.attrs["curves"]), "columns": columns}


def _extent(dataset: Any, name: str) -> list[Any]:
    """Place, length and type of a dataset that lies in this file in one piece."""
    import h5py

    plain = (
        isinstance(dataset, h5py.Dataset)
        and dataset.ndim == 1
        and dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        and not dataset.external
        and dataset.dtype.kind in "fiS"
    )
    if not plain:
        raise BadArchive(f"the column {name} is not one contiguous piece")
    return [dataset.id.get_offset() or 0, int(dataset.shape[0]), dataset.dtype.str]


_OF_CURVES = (
    "force_end",
    "approach_end",
    "approach_points",
    "force_unit",
    "distance_kind",
    "spring_constant_n_per_m",
    "sensitivity_m_per_v",
    "duration_s",
    "notes",
    "reason",
)


class MappedPart:
    """The curves of a part, their samples mapped read-only: a page is read from disk when it is looked at."""

    def __init__(self, descriptor: int, part: Part) -> None:
        self._columns = {name: read_column(descriptor, part.columns[name], 0, part.curves) for name in _OF_CURVES}
        self._force = _mapped(descriptor, part.columns["force"])
        self._approach = _mapped(descriptor, part.columns["approach"])
        distance = part.columns.get("distance")
        self._distance = None if distance is None else _mapped(descriptor, distance)
        self._starts = {
            name: _starts(self._columns[f"{name}_end"], samples.shape[0])
            for name, samples in (("force", self._force), ("approach", self._approach))
        }
        if int(self._columns["approach_points"].max(initial=0)) > MOST_APPROACH:
            raise BadArchive("an approach of more samples than there can be")

    def curve(self, row: int) -> Curve | None:
        """One curve as it was read, of its approach the first tenth (the rest is NaN); None where there was none."""
        columns = self._columns
        if columns["reason"][row]:
            return None
        here = slice(int(self._starts["force"][row]), int(columns["force_end"][row]))
        distance = None if self._distance is None else self._distance[here]
        return Curve(
            force=self._force[here],
            force_unit=cast(ForceUnit | None, word(columns["force_unit"][row])),
            distance=None if distance is None or np.isnan(distance).all() else distance,
            distance_kind=cast(DistanceKind | None, word(columns["distance_kind"][row])),
            approach_force=self._approach_of(row),
            spring_constant_n_per_m=_known(columns["spring_constant_n_per_m"][row]),
            sensitivity_m_per_v=_known(columns["sensitivity_m_per_v"][row]),
            duration_s=_known(columns["duration_s"][row]),
            notes=tuple(columns["notes"][row].decode().split()),
        )

    def _approach_of(self, row: int) -> Samples | None:
        points = int(self._columns["approach_points"][row])
        if points < 0:
            return None
        kept = self._approach[int(self._starts["approach"][row]) : int(self._columns["approach_end"][row])]
        if kept.shape[0] != points // 10:
            raise BadArchive("an approach that is not the tenth of its length")
        whole = np.full(points, np.nan)
        whole[: kept.shape[0]] = kept
        return whole


def _mapped(descriptor: int, extent: Extent) -> Samples:
    if not extent.count:
        return np.zeros(0)
    with os.fdopen(os.dup(descriptor), "rb") as file:
        mapped = np.memmap(file, extent.dtype, "r", extent.offset, (extent.count,))
    return mapped.view(np.ndarray)  # the slices of a memmap cost ten times as much


def _starts(ends: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    if (ends < starts).any() or int(ends[-1]) != count:
        raise BadArchive("curves that lie outside their samples")
    return starts


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def main(descriptor: int) -> None:
    """Serve until the parent hangs up."""
    handler = RequestHandler()
    with serving(descriptor) as connection:
        frames.send(connection, {"ready": True})
        while True:
            request, _ = frames.receive(connection)
            header, arrays = handler.answer(request)
            frames.send(connection, {**header, "id": request["id"]}, arrays)


if __name__ == "__main__":
    main(int(sys.argv[1]))
