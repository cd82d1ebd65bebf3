"""The ZeroMQ sockets of this process: one context, one way to bind, and sockets that never make anybody wait.

A context that is ended waits until its last socket is closed and has sent everything. So it is not ended where a socket
is closed, but once, with the process, and then for a limited time.

ZeroMQ itself is imported with the first socket: it takes 30 ms, and whoever only checks an address needs none.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from daemon.common import ending
from daemon.common.errors import BAD_CONFIG, UNREACHABLE, UserError

if TYPE_CHECKING:
    import zmq

#: Puts CURVE keys onto a socket before it is bound.
Secure = Callable[["zmq.Socket[bytes]"], None]

#: Connections that have come and are not accepted yet, for each address.
WAITING_CONNECTIONS = 32

_FLOOD_BYTES = 16 << 20

_lock = threading.Lock()
_contexts: list[zmq.Context[zmq.Socket[bytes]]] = []  # one, once a socket was wanted


def open_socket(kind: int, linger_ms: int = 0) -> zmq.Socket[bytes]:
    """A new socket; once closed, what it has not sent yet is tried for ``linger_ms`` more. Raises zmq.ZMQError."""
    import zmq

    with _lock:
        if not _contexts:
            _contexts.append(zmq.Context())
        socket = _contexts[0].socket(kind)
    socket.linger = linger_ms
    return socket


def bind(socket: zmq.Socket[bytes], endpoint: str, key: str, largest_bytes: int, secure: Secure | None = None) -> str:
    """Bind, and return the address in fact. ``key``: what the configuration calls it.

    Who sends a frame above ``largest_bytes`` is disconnected. Raises UserError 78 when other machines could reach the
    address and ``secure`` is None, 69 when it is taken.
    """
    import zmq

    try:
        place = Endpoint.parse(endpoint)
    except ValueError as error:
        raise UserError(BAD_CONFIG, f"--{key}: {error}") from None
    if secure is not None:
        secure(socket)
    elif not place.is_local:
        raise UserError(
            BAD_CONFIG,
            f"--{key} {endpoint} could be reached from other machines and no CURVE keys protect it: "
            f"bind tcp://127.0.0.1:{place.port} instead (or ipc://)",
        )
    socket.setsockopt(zmq.MAXMSGSIZE, largest_bytes)
    socket.setsockopt(zmq.IPV6, ":" in place.host)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 1000)
    socket.setsockopt(zmq.BACKLOG, WAITING_CONNECTIONS)
    try:
        socket.bind(f"tcp://{place.host}:*" if place.port == 0 else endpoint)
    except zmq.ZMQError as error:
        taken = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error})"
        raise UserError(UNREACHABLE, f"--{key} {endpoint} {taken}: choose another with --{key} or {key} = …") from None
    bound: bytes = socket.getsockopt(zmq.LAST_ENDPOINT)  # type: ignore[assignment]  # the stub says int or bytes
    return bound.rstrip(b"\0").decode()


def receive(socket: zmq.Socket[bytes], most_frames: int) -> list[bytes]:
    """The message that has come, of which no more frames are kept: ZeroMQ bounds a frame, and not their number.

    Raises zmq.Again when none has.
    """
    import zmq

    frames, left_out_bytes = [socket.recv(zmq.DONTWAIT)], 0
    while socket.getsockopt(zmq.RCVMORE):
        frame = socket.recv(zmq.DONTWAIT)
        if len(frames) < most_frames:
            frames.append(frame)
        else:
            left_out_bytes += len(frame)
    if left_out_bytes > _FLOOD_BYTES:
        give_memory_back()
    return frames


def give_memory_back() -> None:
    """After a flood: what malloc keeps for the next one goes to the system."""
    with contextlib.suppress(OSError, AttributeError):  # another libc than glibc has its own ways
        ctypes.CDLL(None).malloc_trim(0)


def open_envelope(frames: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """(what an answer must begin with, the message) of what a ROUTER received.

    REQ puts an empty frame between them, DEALER may.
    """
    cut = 2 if frames[1:2] == [b""] else 1
    return frames[:cut], frames[cut:]


def await_input(socket: zmq.Socket[bytes], timeout_s: float) -> bool:
    """Whether something came in time. Raises KeyboardInterrupt when the process is asked to end meanwhile."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        ending.check()
        left_s = deadline_s - time.monotonic()
        if socket.poll(int(1000 * max(min(left_s, ending.LOOK_S), 0.0))):
            return True
        if left_s <= 0:
            return False


def close(limit_s: float = 1.0) -> None:
    """With the process: what closed sockets have still to send goes out, for ``limit_s`` at most."""
    with _lock:
        contexts = _contexts.copy()
        _contexts.clear()
    for context in contexts:
        term = threading.Thread(target=context.term, name="zmq-term", daemon=True)
        term.start()
        term.join(limit_s)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``tcp://host:port`` or ``ipc://path``; ``port`` is None for ipc, 0 for "any free port"."""

    transport: str
    host: str  # of ipc: the path of the socket
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with one sentence that says what to write instead."""
        transport, mark, rest = text.partition("://")
        if mark and transport == "ipc" and rest.startswith("/"):
            return cls("ipc", rest)
        host, colon, port = rest.rpartition(":")
        if not mark or transport != "tcp" or not colon or not host:
            raise ValueError(f'"{text}" is not an endpoint: write tcp://127.0.0.1:5795 or ipc:///run/afm-triage.sock')
        if port == "*":
            return cls("tcp", host, 0)
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError(f'"{text}" has no port between 1 and 65535: write tcp://{host}:5795')
        return cls("tcp", host, int(port))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it (a name other than localhost could resolve to anything)."""
        if self.transport == "ipc" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False
