"""The frames between the service and its engine process: one JSON header, and the raw arrays that it describes.

As ``daemon.formats.wire``, but with arrays of any plain type and with a time by which the whole frame must have come:
a wedged device says nothing for ever. Nothing in a frame is ever executed.
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

Header = dict[str, Any]

_LENGTHS = struct.Struct("<IQ")
_MOST_HEADER_BYTES = 16 << 20
_MOST_PAYLOAD_BYTES = 4 << 30
_TYPES = ("<f4", "<f8")


def send(connection: socket.socket, header: Header, arrays: Iterable[NDArray[Any]] = (), until_s: float = 0.0) -> None:
    """Send one frame; TimeoutError when the other side has not taken it by ``until_s`` (0: however long it takes)."""
    parts = [np.ascontiguousarray(array) for array in arrays]
    described = [{"type": part.dtype.str, "shape": part.shape} for part in parts]
    line = json.dumps({**header, "arrays": described}).encode()
    size_bytes = sum(part.nbytes for part in parts)
    pieces: list[bytes | memoryview] = [_LENGTHS.pack(len(line), size_bytes) + line]
    pieces += [part.reshape(-1).view(np.uint8).data for part in parts]
    for piece in pieces:
        _set_limit(connection, until_s)
        connection.sendall(piece)


def receive(connection: socket.socket, until_s: float = 0.0) -> tuple[Header, list[NDArray[Any]]]:
    """Take one frame. Raises TimeoutError, and EOFError at the end of the connection or of its credibility."""
    header_bytes, payload_bytes = _LENGTHS.unpack(_take(connection, _LENGTHS.size, until_s))
    if header_bytes > _MOST_HEADER_BYTES or payload_bytes > _MOST_PAYLOAD_BYTES:
        raise EOFError("a frame too large to be one")
    try:
        header: Header = json.loads(_take(connection, header_bytes, until_s))
        return header, _arrays(header.pop("arrays"), _take(connection, payload_bytes, until_s))
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


def _take(connection: socket.socket, count: int, until_s: float) -> bytearray:
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
