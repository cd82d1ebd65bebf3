"""The reader process: parses files for the service, so that no file can hurt the service.

``python -m daemon.reading.worker FD NOTE`` talks over the inherited socket FD (frames: ``daemon.processes.frames``) and
leaves in NOTE what it is reading. It may use 2 GiB of memory and one core, loads no more than numpy, the formats and
the front-end, and dies with its parent. Whatever a file makes a parser do ends as an answer with a reason; where it
cannot (a crash, a loop), the pool ends the process.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from daemon import formats
from daemon.formats import limits, text_rule
from daemon.formats.base import CurveFile
from daemon.formats.blob import Blob
from daemon.formats.errors import NotACurve, Unfinished, Unreadable
from daemon.processes import frames
from daemon.processes.child import Note, serving
from models.curve import Curve, Prepared
from models.frontend import prepare_to_judge
from models.raster import RasterProfile
from models.reasons import UNREADABLE

_FRESH_S = 2.0  # a file changed less long ago may still be in the writing, whatever it looks like
_NO_SAMPLES = np.zeros(0)
_MAY_MEND = frozenset({"unreadable", "no_retract", "no_force_channel"})


@dataclass(frozen=True)
class Request:
    """One arrival as the worker needs it."""

    id: int
    file: str
    companion: str | None
    name: str
    first: int
    count: int
    final: bool
    sha256: str | None  # later portions: the content they belong to
    total: int  # and how many curves it has; 1 where nobody has opened it yet
    profile: str | None = None  # the raster profile, as JSON, that the curves are to be prepared for
    bare: bool = False  # and then come without their samples, which nobody wants any more
    text_rule: dict[str, Any] | None = None  # what the configuration says of it, should it be text


@dataclass(frozen=True)
class _Opened:
    file: CurveFile
    format: str
    sha256: str
    text_rule: dict[str, Any] | None  # by which it was read


class RequestHandler:
    """Answers requests one after the other; keeps the map of the last one open (its bytes, never its handle)."""

    def __init__(self) -> None:
        self._kept: _Opened | None = None

    def answer(self, request: Request, on_bytes: Callable[[str], None] = lambda _: None) -> frames.Answer:
        """Never raises for what is in a file. ``on_bytes(sha256)`` is called before the first byte is interpreted."""
        started_s = time.perf_counter()
        identity: list[str] = []

        def note(sha256: str) -> None:
            identity.append(sha256)
            on_bytes(sha256)

        fresh = _is_fresh(request.file)
        arrays: list[frames.Array] = []
        try:
            header, arrays = self._read(request, note)
        except NotACurve as error:
            # A file that a source has counted as a curve by its name is answered as one.
            is_counted = formats.NAMES.claim(request.name) is True
            header = _refusal(request, "unreadable", is_over=True) if is_counted else _passed_over(error.reason)
        except Unfinished as error:
            header = _refusal(request, error.reason, is_over=request.final)
        except Unreadable as error:
            is_over = request.final or not fresh or error.reason not in _MAY_MEND
            header = _refusal(request, error.reason, is_over=is_over)
        except (KeyboardInterrupt, SystemExit):
            raise
        except MemoryError:
            self._kept = None
            header = _refusal(request, "too_large", is_over=True)
        except BaseException:  # some parsers' errors are no Exception
            header = _refusal(request, "unreadable", is_over=request.final or not fresh)
        header["sha256"] = request.sha256 or (identity[-1] if identity else header.get("sha256"))
        header |= {"id": request.id, "read_s": time.perf_counter() - started_s}
        return header, arrays

    def _read(self, request: Request, note: Callable[[str], None]) -> tuple[frames.Header, list[frames.Array]]:
        opened = self._kept
        if opened is None or (opened.sha256, opened.text_rule) != (request.sha256, request.text_rule):
            self._kept = None
            opened = _open(request, note)
        if opened is None and request.first:  # its curves have been counted: each gets its answer
            return _refusal(request, "changed", is_over=True), []
        if opened is None:
            return _passed_over(None), []
        total = len(opened.file)
        is_another = request.sha256 not in (None, opened.sha256)
        if is_another or (request.first and total != request.total):  # of as many curves by another rule for text
            return _refusal(request, "changed", is_over=True), []
        if total > 1:
            self._kept = opened
            if request.first == 0 and not request.final:
                _check_last(opened.file)
        header: frames.Header = {"outcome": "curves", "format": opened.format, "total": total, "sha256": opened.sha256}
        header["curves"], arrays = _portion(request, opened.file)
        return header, arrays


def _open(request: Request, note: Callable[[str], None]) -> _Opened | None:
    blob = Blob(Path(request.file), is_final=request.final)
    companion = Blob(Path(request.companion), is_final=request.final) if request.companion else None
    rule = None if request.text_rule is None else text_rule.from_mapping(request.text_rule)
    try:
        reader = formats.find_reader(request.name, blob, rule)
    except Unfinished:
        note(blob.sha256)
        raise
    if reader is None:
        return None
    sha256 = blob.sha256 if companion is None else blob.sha256_with(companion)
    note(sha256)
    return _Opened(reader.open(blob, request.name, companion), reader.format.name, sha256, request.text_rule)


def _check_last(file: CurveFile) -> None:
    """A map in the writing ends in curves that are not there yet; its last one tells."""
    try:
        file.curve(len(file) - 1)
    except (Unfinished, MemoryError):
        raise
    except Exception:
        return  # what is wrong with it is told when its turn comes


def _portion(request: Request, file: CurveFile) -> tuple[list[frames.Header], list[frames.Array]]:
    """Curves from ``first`` on: at most ``count``, and not more samples than fit one answer (always at least one)."""
    total = len(file)
    curves: list[frames.Header] = []
    arrays: list[frames.Array] = []
    profile = _profile(request.profile) if request.profile else None
    samples = 0
    for index in range(request.first, min(request.first + request.count, total)):
        try:
            curve = _checked(file.curve(index))
        except MemoryError:
            raise
        except Exception as error:  # one bad curve of a map must not take the others with it
            if total == 1:
                raise
            reason = error.reason if isinstance(error, Unfinished | Unreadable) else "unreadable"
            curves.append({"index": index, "reason": reason})
            continue
        prepared = _prepared(curve, profile) if profile else None
        if request.bare and prepared is not None:
            curve = replace(curve, force=_NO_SAMPLES, distance=None, approach_force=None, original=None)
        described, own = frames.describe(curve, prepared)
        samples += sum(array.shape[0] for array in own)
        if samples > 2 * limits.POINTS and curves:
            break
        curves.append({"index": index, **described})
        arrays += own
    return curves, arrays


@lru_cache(maxsize=2)
def _profile(text: str) -> RasterProfile:
    return RasterProfile.from_mapping(json.loads(text))


def _prepared(curve: Curve, profile: RasterProfile) -> Prepared | None:
    """None where the front-end fails: the service then tries for itself, and says so in its log."""
    try:
        return prepare_to_judge([curve], profile)[0]
    except Exception:
        return None


def _checked(curve: Curve) -> Curve:
    if len(curve) > limits.POINTS:
        raise Unreadable("too_long")
    return curve


def _passed_over(reason: str | None) -> frames.Header:
    """No reader wants it; ``reason`` says what it is, where one knows."""
    return {"outcome": "unclaimed", "reason": reason}


def _refusal(request: Request, reason: str, *, is_over: bool) -> frames.Header:
    """No curves: ask again later, or (``is_over``) one reason for each curve that was asked for."""
    if not is_over:
        return {"outcome": "unfinished", "reason": reason}
    reason = reason if reason in UNREADABLE else "truncated"  # not one that is only a reason to wait
    stop = min(request.first + request.count, request.total)
    curves = [{"index": index, "reason": reason} for index in range(request.first, stop)]
    return {"outcome": "curves", "total": request.total, "curves": curves}


def _is_fresh(file: str) -> bool:
    try:
        return abs(time.time() - os.stat(file).st_mtime) < _FRESH_S
    except OSError:
        return False


def main(descriptor: int, note: int) -> None:
    """Serve until the service hangs up."""
    with serving(descriptor) as connection:
        _serve(connection, Note(note))


def _serve(connection: socket.socket, note: Note) -> None:
    handler = RequestHandler()
    frames.send(connection, {"ready": True})
    _warm_up(connection)
    gc.freeze()  # what is loaded stays to the end
    while True:
        header, _ = frames.receive(connection)
        request = Request(**header)
        frames.send(connection, *handler.answer(request, partial(note.write, request.id)))


def _warm_up(connection: socket.socket) -> None:
    """Load what is loaded late anyway, as long as nobody waits."""
    if not select.select([connection], [], [], 0)[0]:
        with contextlib.suppress(Exception):
            __import__("h5py")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
