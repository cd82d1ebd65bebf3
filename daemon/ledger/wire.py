"""The wire: how an event becomes one line of JSON, in the ledger as over ZeroMQ, and how it is read again; its rows."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import DecodeError, Struct
from msgspec.json import Decoder
from numpy.typing import NDArray

from daemon.judging import Verdict
from daemon.judging.audit import Stratum
from models.clock import since_1970

#: An event as it comes from the wire or the ledger: another version of the program may have written it.
Event = dict[str, Any]


class Row(NamedTuple):
    """One decision as it lies in the ledger."""

    seq: int
    verdict: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Flagged:
    """One entry of the review queue; its compact copy is fetched by ``seq``."""

    seq: int
    path: str
    curve: int
    sha256: str | None
    score: float | None
    reasons: tuple[str, ...]
    time: str


@dataclass(frozen=True, slots=True)
class Named:
    """One decision on a curve of some name; ``folder`` is "" where none was noted."""

    seq: int
    folder: str
    path: str
    curve: int
    sha256: str | None
    verdict: str


class Look(NamedTuple):
    """A curve that a person may be asked to look at, and the probability with which it was drawn to be."""

    seq: int
    verdict: Verdict
    score: float | None
    probability: float


class Audited(NamedTuple):
    """What one pipeline decided in one night; of the ``discards`` each is in the band, disputed or neither."""

    number: int
    night: str  # local date at its noon, from which it lasts to the next; "" for a band from before version 4
    steps: int  # decisions of any verdict on which there is a second opinion
    discards: int
    in_band: int
    disputed: int


class Draw(NamedTuple):
    """A discard that was drawn to be looked at: in which audit, why, and with which probability."""

    audit: int
    stratum: Stratum
    seq: int
    place: int  # among the discards of its audit and stratum, from 1
    probability: float


class StreamScores(NamedTuple):
    """Decisions in order, an array a field; ``scores`` is NaN where none could be made."""

    seqs: NDArray[np.int64]
    scores: NDArray[np.float64]
    verdicts: NDArray[np.object_]
    pipelines: NDArray[np.object_]


def encode(value: Struct | Mapping[str, Any]) -> bytes:
    """UTF-8 JSON in one line; what is not a finite number becomes null, because JSON has no NaN."""
    try:
        return _LINE.encode(value)
    except UnicodeEncodeError:  # a file name that is not UTF-8: escaped, so that it comes back unchanged
        return _ASCII.encode(_finite(as_plain(value))).encode()


def decode(body: bytes) -> Event:
    """One event from the wire. Raises ValueError for anything that is not a JSON object."""
    event = json.loads(body)
    if not isinstance(event, dict):
        raise ValueError("an event is a JSON object")
    return event


def as_plain(value: Struct | Mapping[str, Any]) -> dict[str, Any]:
    """Dictionaries, lists, texts and numbers, in the order of the fields; fields that are UNSET are left out."""
    plain: dict[str, Any] = msgspec.to_builtins(value, enc_hook=_finite)
    return plain


def _finite(value: Any) -> Any:
    """Only what JSON knows; numbers of numpy become numbers of Python."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"{type(value).__name__} has no place in an event")


_LINE = msgspec.json.Encoder(enc_hook=_finite)
_ASCII = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def checksum(seq: int, verdict: str, body: bytes) -> int:
    """Of a decision as it lies in the ledger: a flipped bit is found."""
    return zlib.crc32(body, zlib.crc32(f"{seq} {verdict} ".encode()))


def text(value: str) -> str:
    """A file name as SQLite can hold it: bytes that are not UTF-8 are spelt out."""
    return value.encode("utf-8", "backslashreplace").decode()


class _Told(Struct):
    score: float | None
    pipeline: str


class _Body(Struct):
    data: _Told


_BODY = Decoder(_Body)


class _Opinion(Struct):
    verdict: Verdict
    steps: float | None = None


class _OpinionBody(Struct):
    data: _Opinion


_OPINION = Decoder(_OpinionBody)


class Timed(NamedTuple):
    """When a curve was measured, in s since 1970; where nobody knows it, when it was decided."""

    acquired_s: float
    verdict: Verdict
    score: float | None


class _Times(Struct):
    verdict: Verdict
    score: float | None
    acquired: str | None = None


class _TimesBody(Struct):
    time: str
    data: _Times


_TIMES = Decoder(_TimesBody)


def timed(body: bytes) -> Timed:
    """Of a decision event; some microseconds. Raises ValueError and KeyError for what is none."""
    try:
        event = _TIMES.decode(body)
        time, verdict, score = event.data.acquired or event.time, event.data.verdict, event.data.score
    except DecodeError:  # as below
        said = decode(body)
        data = said["data"]
        time, verdict, score = data.get("acquired") or said["time"], data["verdict"], data["score"]
    return Timed(since_1970(time), verdict, score)


def score_of(body: bytes) -> tuple[float | None, str]:
    """Score and pipeline of a decision event; five times as fast as to decode all of it."""
    try:
        data = _BODY.decode(body).data
    except DecodeError:  # a file name that is not UTF-8 is escaped as only Python reads it
        said = decode(body)["data"]
        return said["score"], said["pipeline"]
    return data.score, data.pipeline


def steps_of(body: bytes) -> tuple[Verdict, float | None]:
    """Verdict and second opinion of a decision event, None where there is none."""
    try:
        data = _OPINION.decode(body).data
    except DecodeError:  # as above
        said = decode(body)["data"]
        return said["verdict"], said.get("steps")
    return data.verdict, data.steps
