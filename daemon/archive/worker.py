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

import numpy as np

from daemon.archive.layout import BadArchive, MappedPart, Part, open_unchanged, survey
from daemon.common.text import first_line
from daemon.processes import frames
from daemon.processes.child import serving
from models.raster import RasterProfile
from models.sign import prepare_to_judge


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
        """Rows of a part -> their signals, one after the other, and their reasons; of some both ways (models.sign)."""
        begun_s = time.perf_counter()
        part = self._part(request["file"], request["state"], request["part"])
        rows = range(request["first"], request["first"] + request["count"])
        there = [(row, curve) for row in rows if (curve := part.curve(row)) is not None]
        read_s = time.perf_counter() - begun_s
        profile = RasterProfile.from_mapping(request["profile"])
        prepared = prepare_to_judge([curve for _, curve in there], profile)
        ways = [(item,) if item.flipped is None else (item, item.flipped) for item in prepared]
        signals = [np.zeros(0, np.float32) if way.signal is None else way.signal for both in ways for way in both]
        header = {
            "rows": [row for row, _ in there],
            "ways": [len(both) for both in ways],
            "sizes": [signal.shape[0] for signal in signals],
            "reasons": [way.reasons for both in ways for way in both],
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
