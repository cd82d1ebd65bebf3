"""The reader process: parses files for the service, so that no file can hurt the service.

``python -m daemon.reading.worker FD NOTE`` talks over the inherited socket FD (frames: ``daemon.processes.frames``) and
leaves in NOTE what it is reading. It may use 2 GiB of memory and one core, loads no more than numpy, the formats and
the front-end, and dies with its parent. Whatever a file makes a parser do ends as an answer with a reason; where it
cannot (a crash, a loop), the pool ends the process.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from daemon import formats
from daemon.formats import limits, text_rule
from daemon.formats.base import AWAY, Blob, CurveFile, NotACurve, Unfinished, Unreached, Unreadable
from daemon.processes import frames
from daemon.processes.child import Note, give_back_freed, has_come, serving
from models.curve import Curve, Prepared
from models.raster import RasterProfile
from models.reasons import UNREADABLE
from models.ruptures import prepare_to_tell
from models.tip import tip_state

_FRESH_S = 2.0  # a file changed less long ago may still be in the writing, whatever it looks like
_KEPT = 2  # maps that are open
_REST_S = 3.0
_NO_SAMPLES = np.zeros(0)
_MAY_MEND = frozenset({"unreadable", "no_retract", "no_force_channel"})


class Request(Struct, frozen=True):
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
    size_bytes: int = 0  # when its source found it at rest, of both halves where it watches; 0 where nobody knows
    waits: bool = False  # whoever asks has time until what it lies on answers again
    careful: bool = False  # a process was lost to it: its identity first, for whoever has to answer for the next one


@dataclass(frozen=True)
class _Opened:
    file: CurveFile
    format: str
    sha256: str
    text_rule: dict[str, Any] | None  # by which it was read


class RequestHandler:
    """Answers requests one after the other; keeps the maps of the last two open (their bytes, never a handle).

    Two, as the next portion of one is read while the last portion of another is judged.
    """

    def __init__(self, on_read: Callable[[], None] = lambda: None) -> None:
        self._kept: OrderedDict[str, _Opened] = OrderedDict()  # by SHA-256
        self._on_read = on_read

    def rest(self) -> None:
        """Nothing has come for a while: what is kept for the next request goes back to the system."""
        self._kept.clear()
        gc.collect()
        give_back_freed()

    def answer(self, request: Request, on_bytes: Callable[[str], None] = lambda _: None) -> frames.Answer:
        """Never raises for what is in a file.

        ``on_bytes(sha256)`` is called before the first byte is interpreted, if it takes no time or is asked for.
        """
        started_s, started_wall_s = time.perf_counter(), time.time()
        identity: list[str] = []

        def note(sha256: str) -> None:
            identity.append(sha256)
            on_bytes(sha256)

        def is_over() -> bool:
            """Whether what is wrong stays so: nobody waits, or the file was not changed just before."""
            return request.final or not _is_fresh(request.file, started_wall_s)

        arrays: list[frames.Array] = []
        try:
            header, arrays = self._read(request, note)
        except NotACurve as error:
            # A file that a source has counted as a curve by its name is answered as one.
            is_counted = formats.NAMES.claim(request.name) is True
            header = _refusal(request, "unreadable", is_over=True) if is_counted else _passed_over(error.reason)
        except Unfinished as error:
            is_awaited = request.waits and error.reason == AWAY
            header = _refusal(request, error.reason, is_over=request.final and not is_awaited)
        except Unreadable as error:
            header = _refusal(request, error.reason, is_over=error.reason not in _MAY_MEND or is_over())
        except (KeyboardInterrupt, SystemExit):
            raise
        except MemoryError:
            self._kept.clear()
            header = _refusal(request, "too_large", is_over=True)
        except BaseException:  # some parsers' errors are no Exception
            header = _refusal(request, "unreadable", is_over=is_over())
        header["sha256"] = request.sha256 or (identity[-1] if identity else header.get("sha256"))
        header |= {"id": request.id, "read_s": time.perf_counter() - started_s}
        return header, arrays

    def _read(self, request: Request, note: Callable[[str], None]) -> tuple[frames.Header, list[frames.Array]]:
        opened = self._kept.pop(request.sha256 or "", None)
        if opened is None or opened.text_rule != request.text_rule:
            while len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)
            opened = self._open(request, note)
        if opened is None and request.first:  # its curves have been counted: each gets its answer
            return _refusal(request, "changed", is_over=True), []
        if opened is None:
            return _passed_over(None), []
        total = len(opened.file)
        is_another = request.sha256 not in (None, opened.sha256)
        if is_another or (request.first and total != request.total):  # of as many curves by another rule for text
            return _refusal(request, "changed", is_over=True), []
        if total > 1:
            self._kept[opened.sha256] = opened
            if request.first == 0 and not request.final:
                _check_last(opened.file)
        header: frames.Header = {"outcome": "curves", "format": opened.format, "total": total, "sha256": opened.sha256}
        header["curves"], arrays = _portion(request, opened.file)
        return header, arrays

    def _open(self, request: Request, note: Callable[[str], None]) -> _Opened | None:
        try:
            return _open(request, note, self._on_read)
        except MemoryError:
            if not self._kept:
                raise
        self._kept.clear()  # it may have been the others that left too little
        return _open(request, note, self._on_read)


def _open(request: Request, note: Callable[[str], None], on_read: Callable[[], None]) -> _Opened | None:
    def blob_of(path: str) -> Blob:
        return Blob(Path(path), is_final=request.final, on_read=on_read)

    blob = blob_of(request.file)
    companion = blob_of(request.companion) if request.companion else None
    both_bytes = blob.size_bytes + (companion.size_bytes if companion else 0)
    if request.size_bytes not in (0, blob.size_bytes, both_bytes) and not request.first and not request.final:
        raise Unfinished("changed")  # it has grown while it waited for its turn, and is not at rest any more
    rule = None if request.text_rule is None else text_rule.from_mapping(request.text_rule)
    try:
        reader = formats.find_reader(request.name, blob, rule)
    except Unfinished:
        note(blob.sha256)
        raise
    if reader is None:
        return None
    # A large file that is not whole yet is asked for again and again: its bytes are not read through each time.
    identity_first = request.final or request.careful or blob.size_bytes <= limits.SNAPSHOT_BYTES
    identity = _identity(blob, companion, note) if identity_first else None
    try:
        file = reader.open(blob, request.name, companion)
    except Unfinished:
        raise
    except Exception:
        if identity is None:
            _identity(blob, companion, note)  # it is answered, also if only with a reason
        raise
    identity = identity or _identity(blob, companion, note)
    return _Opened(file, reader.format.name, identity, request.text_rule)


def _identity(blob: Blob, companion: Blob | None, note: Callable[[str], None]) -> str:
    sha256 = blob.sha256 if companion is None else blob.sha256_with(companion)
    note(sha256)
    return sha256


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
        except (MemoryError, Unreached):  # that is no fault of this curve
            raise
        except Exception as error:  # one bad curve of a map must not take the others with it
            if total == 1:
                raise
            reason = error.reason if isinstance(error, Unfinished | Unreadable) else "unreadable"
            curves.append({"index": index, "reason": reason})
            continue
        prepared = _prepared(curve, profile) if profile else None
        tip = _tip(curve, prepared)
        if request.bare and prepared is not None:
            curve = replace(curve, force=_NO_SAMPLES, distance=None, approach_force=None, original=None)
        described, own = frames.describe(curve, prepared)
        samples += sum(array.shape[0] for array in own)
        if samples > 2 * limits.POINTS and curves:
            break
        curves.append({"index": index, "tip": tip, **described})
        arrays += own
    return curves, arrays


@lru_cache(maxsize=2)
def _profile(text: str) -> RasterProfile:
    return RasterProfile.from_mapping(json.loads(text))


def _prepared(curve: Curve, profile: RasterProfile) -> Prepared | None:
    """None where the front-end fails: the service then tries for itself, and says so in its log."""
    try:
        return prepare_to_tell([curve], profile)[0]
    except Exception:
        return None


def _tip(curve: Curve, prepared: Prepared | None) -> tuple[float | None, ...] | None:
    """What the curve tells of the tip, as JSON takes it; None where it tells nothing."""
    try:
        state = None if prepared is None else tip_state(curve, prepared)
    except Exception:  # an advice less, and no curve
        return None
    if state is None:
        return None
    return state.noise, state.tilt, state.wave, state.slope, state.adhesion, state.samples


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
    if reason not in UNREADABLE:  # one that is only a reason to wait
        reason = "unreadable" if reason == AWAY else "truncated"
    stop = min(request.first + request.count, request.total)
    curves = [{"index": index, "reason": reason} for index in range(request.first, stop)]
    return {"outcome": "curves", "total": request.total, "curves": curves}


def _is_fresh(file: str, wall_s: float) -> bool:
    """Whether it was changed shortly before ``wall_s``, or since."""
    try:
        return wall_s - _FRESH_S < os.stat(file).st_mtime < time.time() + _FRESH_S
    except OSError:
        return False


def main(descriptor: int, note: int) -> None:
    """Serve until the service hangs up."""
    with serving(descriptor) as connection:
        _serve(connection, Note(note))


def _serve(connection: socket.socket, note: Note) -> None:
    pieces = itertools.count(1)

    def come_further() -> None:
        note.progress(next(pieces))

    handler = RequestHandler(on_read=come_further)
    frames.send(connection, {"ready": True})
    _warm_up(connection)
    gc.freeze()  # what is loaded stays to the end
    while True:
        if not has_come(connection, _REST_S):
            handler.rest()  # once: nothing more can be given back until something comes
        header, _ = frames.receive(connection)
        if "files" in header:
            answer = _answer_all(handler, header, come_further)
        else:
            answer = handler.answer(Request(**header), partial(note.write, header["id"]))
        frames.send(connection, *answer)


def _answer_all(handler: RequestHandler, asked: frames.Header, come_further: Callable[[], None]) -> frames.Answer:
    """Several small files in one frame, in the order in which they were asked for."""
    headers: list[frames.Header] = []
    arrays: list[frames.Array] = []
    for one in asked["files"]:
        header, own = handler.answer(Request(id=asked["id"], **one))
        headers.append(header)
        arrays += own
        come_further()
    return {"id": asked["id"], "files": headers}, arrays


def _warm_up(connection: socket.socket) -> None:
    """Load what is loaded late anyway, as long as nobody waits."""
    if not has_come(connection):
        with contextlib.suppress(Exception):
            __import__("h5py")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
