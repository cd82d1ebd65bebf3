"""Frames between the service and its reader processes: one JSON header and the raw samples it lists.

A frame is two little-endian uint32 (length of header, length of payload), the header, the payload. Nothing in it is
ever executed; a frame that announces more than the limits allow ends the connection.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from models.curve import Curve, Samples

_LENGTHS = struct.Struct("<II")
_MOST_HEADER_BYTES = 16 << 20
_MOST_PAYLOAD_BYTES = 1 << 30
_ARRAYS = ("force", "distance", "approach_force")
_SCALARS = ("force_unit", "distance_kind", "spring_constant_n_per_m", "sensitivity_m_per_v", "duration_s")

Header = dict[str, Any]


def send(connection: socket.socket, header: Header, arrays: Iterable[Samples] = ()) -> None:
    """Send one frame; blocks until the other side has taken it."""
    line = json.dumps(header).encode()
    parts = [np.ascontiguousarray(array, dtype="<f8") for array in arrays]
    size = sum(part.nbytes for part in parts)
    connection.sendall(_LENGTHS.pack(len(line), size) + line)
    for part in parts:
        connection.sendall(part.data)


def receive(connection: socket.socket) -> tuple[Header, bytearray]:
    """Take one frame; raises ``EOFError`` at the end of the connection or of its credibility."""
    header_bytes, payload_bytes = _LENGTHS.unpack(_take(connection, _LENGTHS.size))
    if header_bytes > _MOST_HEADER_BYTES or payload_bytes > _MOST_PAYLOAD_BYTES:
        raise EOFError("a frame too large to be one")
    try:
        header = json.loads(_take(connection, header_bytes))
    except ValueError as error:
        raise EOFError("a frame that is none") from error
    return header, _take(connection, payload_bytes)


def describe(curve: Curve) -> tuple[Header, list[Samples]]:
    """A curve as the part of a header and the arrays that follow it, in that order."""
    arrays = [(name, value) for name in _ARRAYS if (value := getattr(curve, name)) is not None]
    header: Header = {name: getattr(curve, name) for name in _SCALARS}
    header["notes"] = list(curve.notes)
    header["points"] = {name: int(value.shape[0]) for name, value in arrays}
    return header, [value for _, value in arrays]


def restore(header: Header, payload: bytearray, at: int) -> tuple[Curve, int]:
    """The curve that ``describe`` described, its samples from byte ``at`` on, and where the next one's begin."""
    arrays: dict[str, Samples] = {}
    for name, points in header["points"].items():
        arrays[name] = np.frombuffer(payload, "<f8", points, at)
        at += 8 * points
    fields: dict[str, Any] = {name: header[name] for name in _SCALARS} | arrays
    return Curve(**fields, notes=tuple(header["notes"])), at


def _take(connection: socket.socket, count: int) -> bytearray:
    content = bytearray(count)
    view = memoryview(content)
    while view:
        got = connection.recv_into(view)
        if not got:
            raise EOFError("the other side is gone")
        view = view[got:]
    return content
