"""Frames between the service and its reader processes: one JSON header and the raw samples it lists.

A frame is two little-endian uint32 (length of header, length of payload), the header, the payload. Samples begin at
multiples of eight bytes. Nothing in it is ever executed; a frame that announces more than the limits allow ends the
connection.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.curve import Curve
from models.frontend import Prepared

_LENGTHS = struct.Struct("<II")
_MOST_HEADER_BYTES = 16 << 20
_MOST_PAYLOAD_BYTES = 1 << 30
_ARRAYS = ("force", "distance", "approach_force")
_FOUND = ("noise", "level", "tilt", "contact")
_WAYS = ("prepared", "flipped")  # the parts of a header that hold a front-end's findings, and its signals' names
_SCALARS = ("force_unit", "distance_kind", "spring_constant_n_per_m", "sensitivity_m_per_v", "duration_s")

Header = dict[str, Any]
Array = NDArray[np.float64] | NDArray[np.float32]


def send(connection: socket.socket, header: Header, arrays: Iterable[Array] = ()) -> None:
    """Send one frame; blocks until the other side has taken it."""
    line = json.dumps(header).encode()
    line += b" " * (-len(line) % 8)
    parts = [np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes() for array in arrays]
    parts = [part + bytes(-len(part) % 8) for part in parts]
    # in one piece: each send wakes the other side
    connection.sendall(b"".join([_LENGTHS.pack(len(line), sum(map(len, parts))), line, *parts]))


def receive(connection: socket.socket) -> tuple[Header, memoryview]:
    """Take one frame; raises ``EOFError`` at the end of the connection or of its credibility."""
    header_bytes, payload_bytes = _LENGTHS.unpack(_take(connection, _LENGTHS.size))
    if header_bytes > _MOST_HEADER_BYTES or payload_bytes > _MOST_PAYLOAD_BYTES:
        raise EOFError("a frame too large to be one")
    content = _take(connection, header_bytes + payload_bytes)
    try:
        header = json.loads(content[:header_bytes])
    except ValueError as error:
        raise EOFError("a frame that is none") from error
    return header, memoryview(content)[header_bytes:]


def describe(curve: Curve, prepared: Prepared | None = None) -> tuple[Header, list[Array]]:
    """A curve, and what the front-end made of it, as a part of a header and the arrays that follow it in that order."""
    arrays: list[tuple[str, Array]] = [(name, value) for name in _ARRAYS if (value := getattr(curve, name)) is not None]
    header: Header = {name: getattr(curve, name) for name in _SCALARS}
    header["notes"] = list(curve.notes)
    header["points"] = {name: int(value.shape[0]) for name, value in arrays}
    for way, item in zip(_WAYS, (prepared, prepared and prepared.flipped), strict=True):
        if item is not None:
            header[way] = {name: getattr(item, name) for name in _FOUND} | {"reasons": item.reasons}
            if item.signal is not None:
                header["points"][way] = int(item.signal.shape[0])
                arrays.append((way, item.signal))
    return header, [value for _, value in arrays]


def restore(header: Header, payload: memoryview, at: int) -> tuple[Curve, Prepared | None, int]:
    """What ``describe`` described, its samples from byte ``at`` on, and where the next one's begin."""
    arrays: dict[str, Any] = {}
    for name, points in header["points"].items():
        dtype = np.dtype("<f4" if name in _WAYS else "<f8")
        arrays[name] = np.frombuffer(payload, dtype, points, at)
        at += -(-points * dtype.itemsize // 8) * 8
    prepared: Prepared | None = None
    for way in reversed(_WAYS):
        signal, found = arrays.pop(way, None), header.get(way)
        if found is not None:
            findings = {name: found[name] for name in _FOUND}
            prepared = Prepared(signal, tuple(found["reasons"]), **findings, flipped=prepared)
    fields: dict[str, Any] = {name: header[name] for name in _SCALARS} | arrays
    return Curve(**fields, notes=tuple(header["notes"])), prepared, at


def _take(connection: socket.socket, count: int) -> bytearray:
    content = bytearray(count)
    view = memoryview(content)
    while view:
        got = connection.recv_into(view)
        if not got:
            raise EOFError("the other side is gone")
        view = view[got:]
    return content


# ---- The frames between the service and its engine process: one JSON header, and the raw arrays that it describes.
#
# As ``daemon.processes.frames``, but with arrays of any plain type and with a time by which the whole frame must have
# come: a wedged device says nothing for ever. Nothing in a frame is ever executed.

_FRAME_LENGTHS = struct.Struct("<IQ")
_FRAME_MOST_PAYLOAD_BYTES = 4 << 30
_TYPES = ("<f4", "<f8")


def send_batch(
    connection: socket.socket, header: Header, arrays: Iterable[NDArray[Any]] = (), until_s: float = 0.0
) -> None:
    """Send one frame; TimeoutError when the other side has not taken it by ``until_s`` (0: however long it takes)."""
    parts = [np.ascontiguousarray(array) for array in arrays]
    described = [{"type": part.dtype.str, "shape": part.shape} for part in parts]
    line = json.dumps({**header, "arrays": described}).encode()
    size_bytes = sum(part.nbytes for part in parts)
    pieces: list[bytes | memoryview] = [_FRAME_LENGTHS.pack(len(line), size_bytes) + line]
    pieces += [part.reshape(-1).view(np.uint8).data for part in parts]
    for piece in pieces:
        _set_limit(connection, until_s)
        connection.sendall(piece)


def receive_batch(connection: socket.socket, until_s: float = 0.0) -> tuple[Header, list[NDArray[Any]]]:
    """Take one frame. Raises TimeoutError, and EOFError at the end of the connection or of its credibility."""
    header_bytes, payload_bytes = _FRAME_LENGTHS.unpack(_frame_take(connection, _FRAME_LENGTHS.size, until_s))
    if header_bytes > _MOST_HEADER_BYTES or payload_bytes > _FRAME_MOST_PAYLOAD_BYTES:
        raise EOFError("a frame too large to be one")
    try:
        header: Header = json.loads(_frame_take(connection, header_bytes, until_s))
        return header, _arrays(header.pop("arrays"), _frame_take(connection, payload_bytes, until_s))
    except (ValueError, KeyError, TypeError) as error:
        raise EOFError("a frame that is none") from error


def _arrays(described: list[Header], payload: bytearray) -> list[NDArray[Any]]:
    arrays, at = [], 0
    for one in described:
        if one["type"] not in _TYPES:
            raise ValueError(f"an array of type {one['type']!r}")
        shape = tuple(int(length) for length in one["shape"])
        count = int(np.prod(shape))
        arrays.append(np.frombuffer(payload, one["type"], count, at).reshape(shape))
        at += arrays[-1].nbytes
    return arrays


def _frame_take(connection: socket.socket, count: int, until_s: float) -> bytearray:
    content = bytearray(count)
    view = memoryview(content)
    while view:
        _set_limit(connection, until_s)
        got = connection.recv_into(view)
        if not got:
            raise EOFError("the other side is gone")
        view = view[got:]
    return content


def _set_limit(connection: socket.socket, until_s: float) -> None:
    connection.settimeout(max(until_s - time.monotonic(), 0.001) if until_s else None)
