"""Frames between the service and its child processes: one header of plain values, and the raw arrays that it describes.

A frame is the length of the header (uint32) and of the payload (uint64), the header, the payload; all little-endian.
The header is MessagePack, which is told apart from JSON, a header whose text is not UTF-8, by its first byte. Payload
and arrays begin at a multiple of eight bytes. Nothing in a frame is ever executed, and one that announces more than the
limits allow ends the connection. Whoever waits for a frame may say until when the whole of it must have come: what
hangs says nothing for ever.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models import curve as values
from models.curve import Curve, Original, Prepared

Header = dict[str, Any]
Array = NDArray[np.float64] | NDArray[np.float32]
Answer = tuple[Header, Sequence[Array]]

_LENGTHS = struct.Struct("<IQ")
_MOST_HEADER_BYTES = 16 << 20
_MOST_PAYLOAD_BYTES = 1 << 30
_TYPES = ("<f4", "<f8")


def send(connection: socket.socket, header: Header, arrays: Iterable[Array] = (), until_s: float | None = None) -> None:
    """Send one frame. TimeoutError when the other side has not taken it by ``until_s`` of the monotonic clock."""
    parts = [np.ascontiguousarray(one, one.dtype if one.dtype.str in _TYPES else _little(one)) for one in arrays]
    described = [(part.dtype.str, part.shape) for part in parts]
    line = _encoded({**header, "arrays": described})
    payload_bytes = sum(_padded(part.nbytes) for part in parts)
    pieces: list[bytes | memoryview] = [_LENGTHS.pack(len(line), payload_bytes), line, bytes(-len(line) % 8)]
    for part in parts:
        pieces += [part.data, bytes(-part.nbytes % 8)]
    _set_limit(connection, until_s)
    connection.sendall(b"".join(pieces))  # in one piece: each send wakes the other side


def receive(
    connection: socket.socket, until_s: float | None = None, most_bytes: int = _MOST_PAYLOAD_BYTES
) -> tuple[Header, list[Array]]:
    """Take one frame. Raises TimeoutError, and EOFError at the end of the connection or of its credibility."""
    header_bytes, payload_bytes = _LENGTHS.unpack(_take(connection, _LENGTHS.size, until_s))
    if header_bytes > _MOST_HEADER_BYTES or payload_bytes > most_bytes:
        raise EOFError("a frame too large to be one")
    at = _padded(header_bytes)
    content = _take(connection, at + payload_bytes, until_s)
    try:
        header = _decoded(memoryview(content)[:header_bytes])
        return header, _arrays(header.pop("arrays"), content, at)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise EOFError("a frame that is none") from error


def _little(array: Array) -> np.dtype[np.floating[Any]]:
    return array.dtype.newbyteorder("<")


def _encoded(header: Header) -> bytes:
    try:
        return _PACKED.encode(header)
    except UnicodeEncodeError:  # a file name of other bytes: JSON spells them out
        return json.dumps(header).encode()


def _decoded(line: memoryview) -> Header:
    header: Header = json.loads(bytes(line)) if line[:1].tobytes() == b"{" else msgspec.msgpack.decode(line)
    return header


def _plain(value: object) -> float:
    """A number of numpy's that passes for one of Python's."""
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"{type(value).__name__} has no place in a frame")


_PACKED = msgspec.msgpack.Encoder(enc_hook=_plain)


def _arrays(described: list[tuple[str, list[int]]], content: bytearray, at: int) -> list[Array]:
    """The arrays from byte ``at`` on; they share the memory of ``content``."""
    arrays: list[Array] = []
    for kind, shape in described:
        if kind not in _TYPES:
            raise ValueError(f"an array of type {kind!r}")
        count = shape[0] if len(shape) == 1 else int(np.prod(shape, dtype=np.int64))
        if count < 0:
            raise ValueError(f"an array of shape {shape}")  # which numpy takes for all that is there
        array = np.frombuffer(content, kind, count, at)
        arrays.append(array if len(shape) == 1 else array.reshape(shape))
        at += _padded(array.nbytes)
    return arrays


def _padded(size_bytes: int) -> int:
    return size_bytes + -size_bytes % 8


def _take(connection: socket.socket, count: int, until_s: float | None) -> bytearray:
    content = bytearray(count)
    view = memoryview(content)
    while view:
        _set_limit(connection, until_s)
        got = connection.recv_into(view)
        if not got:
            raise EOFError("the other side is gone")
        view = view[got:]
    return content


def _set_limit(connection: socket.socket, until_s: float | None) -> None:
    """Each change is a call of the system, so a limit that is as good as the one that holds is left."""
    limit_s = None if until_s is None else max(until_s - time.monotonic(), 0.001)
    held_s = connection.gettimeout()
    if limit_s is None or held_s is None:
        if limit_s is not held_s:
            connection.settimeout(limit_s)
    elif not 0.95 * limit_s <= held_s <= limit_s:
        connection.settimeout(limit_s)


# How a curve, and what the front-end made of it, stands in a frame.

_SAMPLES = ("force", "distance", "approach_force")
_SCALARS = ("force_unit", "distance_kind", "spring_constant_n_per_m", "sensitivity_m_per_v", "duration_s", "acquired_s")
_OF_ORIGINAL = "original_"  # begins the name of a signal


def describe(curve: Curve, prepared: Prepared | None = None) -> tuple[Header, list[Array]]:
    """A curve, and what the front-end made of it, as a part of a header and the arrays that belong to it, in order."""
    arrays: dict[str, Array] = {name: value for name in _SAMPLES if (value := getattr(curve, name)) is not None}
    header: Header = {name: getattr(curve, name) for name in _SCALARS}
    header["notes"] = list(curve.notes)
    found, signals = values.describe(prepared)
    header |= found
    arrays |= signals
    if curve.original is not None:
        found, signals = values.describe(curve.original.prepared)
        header["original"] = {"profile": curve.original.profile, **found}
        arrays |= {_OF_ORIGINAL + way: signal for way, signal in signals.items()}
    header["samples"] = list(arrays)
    return header, list(arrays.values())


def restore(header: Header, arrays: Iterator[Array]) -> tuple[Curve, Prepared | None]:
    """What ``describe`` described; its arrays are the next ones of ``arrays``."""
    there: dict[str, Any] = {name: next(arrays) for name in header["samples"]}
    fields: dict[str, Any] = {name: header[name] for name in _SCALARS}
    fields |= {name: there[name] for name in _SAMPLES if name in there}
    if (said := header.get("original")) is not None:
        of_original = {name.removeprefix(_OF_ORIGINAL): one for name, one in there.items() if _OF_ORIGINAL in name}
        known = values.restore(said, of_original)
        fields["original"] = None if known is None else Original(said["profile"], known, fields["force"])
    return Curve(**fields, notes=tuple(header["notes"])), values.restore(header, there)
