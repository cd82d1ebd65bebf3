"""The sockets of this process: one ZeroMQ context, one way to bind, none that makes anybody wait, and never too many.

A context that is ended waits until its last socket is closed and has sent everything. So it is not ended where a socket
is closed, but once, with the process, and then for a limited time. ZeroMQ itself is imported with the first socket: it
takes 30 ms, and whoever only checks an address needs none.

Each connection is an open file, and a process may have so many: 1,024 by default. Whoever opens too many waits at the
door, and never takes the files that judging needs. The limit is raised at the start. Where it cannot be, some are kept
back: as soon as the others are used up, no more connections are let in, and then the rest is given free for readers,
folders and the ledger. ZeroMQ accepts whoever comes; so it is the kernel that is told to pass over their first packets
(a filter on the listening sockets), and they try again by themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import os
import resource
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from daemon.common import ending
from daemon.common.errors import BAD_CONFIG, UNREACHABLE, UserError
from daemon.common.keys import Key

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


def connect(socket: zmq.Socket[bytes], endpoint: str, key: Key | None = None) -> None:
    """Towards a service, which is shown ``key``; one that was not given, only where it asks. Raises zmq.ZMQError."""
    import zmq

    socket.setsockopt(zmq.IPV6, 1)
    if key is not None and (key.is_given or not Endpoint.parse(endpoint).is_local):
        key.apply(socket)
    socket.connect(endpoint)


def bind(
    socket: zmq.Socket[bytes],
    endpoint: str,
    key: str,
    largest_bytes: int,
    secure: Secure | None = None,
    patience_s: float = 0.0,
) -> str:
    """Bind, and return the address in fact. ``key``: what the configuration calls it.

    What other machines can reach is bound with ``secure``. Who sends a frame above ``largest_bytes`` is disconnected.
    A socket that was just closed may hold the address for ``patience_s`` more. Raises UserError 78 when other machines
    could reach the address and ``secure`` is None, 69 when it is taken.
    """
    import zmq

    try:
        place = Endpoint.parse(endpoint)
    except ValueError as error:
        raise UserError(BAD_CONFIG, f"--{key}: {error}") from None
    if not place.is_local:
        if secure is None:
            raise UserError(BAD_CONFIG, f"--{key}: {unprotected(endpoint, place)}")
        secure(socket)
    socket.setsockopt(zmq.MAXMSGSIZE, largest_bytes)
    socket.setsockopt(zmq.IPV6, ":" in place.host)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 1000)
    socket.setsockopt(zmq.BACKLOG, WAITING_CONNECTIONS)
    deadline_s = time.monotonic() + patience_s
    try:
        while True:
            try:
                socket.bind(f"tcp://{place.host}:*" if place.port == 0 else endpoint)
                break
            except zmq.ZMQError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline_s:
                    raise
                ending.wait(0.01)
    except zmq.ZMQError as error:
        taken = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error})"
        raise UserError(UNREACHABLE, f"--{key} {endpoint} {taken}: choose another with --{key} or {key} = …") from None
    bound: bytes = socket.getsockopt(zmq.LAST_ENDPOINT)  # type: ignore[assignment]  # the stub says int or bytes
    return bound.rstrip(b"\0").decode()


def unprotected(endpoint: str, place: Endpoint) -> str:
    """What to do about an address that other machines can reach, where there are no keys."""
    return (
        f"{endpoint} could be reached from other machines, and no CURVE keys protect it; make some with"
        f" `afm-triage keys new`, or use tcp://127.0.0.1:{place.port or 'PORT'} with an SSH tunnel from elsewhere"
    )


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
        """Whether only this machine can reach it."""
        return self.transport == "ipc" or is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it (a name other than localhost could resolve to anything)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_free(place: Endpoint) -> bool:
    """Whether nobody listens there now. What cannot be told (a name that nobody knows) passes: to bind it says more."""
    if place.transport == "ipc":  # a file that a process left which is no more is free: nobody answers behind it
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(place.host)
            except OSError:
                return True
            return False
    host = "" if place.host == "*" else place.host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ does: a closed one may linger
        try:
            probe.bind((host, place.port or 0))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


#: Open files, connections nearly all of them, that are enough: each costs some ten kilobytes.
MOST_OPEN = 4_096
#: More than any part of the service is asked to hold.
LARGEST_LIMIT = 65_536
#: Kept for ourselves where the limit is low; connections that wait in the sockets' queues still come in first.
RESERVE = 192
_FILES_A_SOCKET = 3  # itself, its connection, and one that is just being made anew
_MARGIN = 64  # must be free again before the door opens

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # of Linux' socket(7); Python has no names for them
_DROP = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0 bytes of the packet


class Connections:
    """Looked at in every turn of the loop. ``apart``: a port whose server sees to its connections by itself."""

    def __init__(self, apart: int) -> None:
        self._apart = apart
        self.is_shut = False
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        hard = LARGEST_LIMIT if hard == resource.RLIM_INFINITY else hard
        self._limit = min(hard, LARGEST_LIMIT)
        self._most = min(MOST_OPEN, max(self._limit - RESERVE, self._limit // 2))
        # Far below the limit a look is early enough; close to it the kernel must keep the last ones back.
        self._while_open = self._limit if self._limit >= 2 * MOST_OPEN else self._most
        _set_limit(self._while_open)

    def look(self) -> str:
        """Shut or open the door; what a human should know while it is shut, else "". Some microseconds."""
        if not self.is_shut and _lowest_free(self._limit) >= self._most:
            _set_limit(self._limit)
            self.is_shut = True
            _shut(self._limit, self._apart)
        elif self.is_shut and _open_files(self._limit) < self._most - _MARGIN:
            _open(self._limit)
            self.is_shut = False
            _set_limit(self._while_open)
        if not self.is_shut:
            return ""
        return f"{self._most:,} files and connections are open: new ones wait until some leave, judging goes on"


def allow_many(sockets: int) -> None:
    """So many sockets towards services, each of which is several open files, as far as this process may have them."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = LARGEST_LIMIT if hard == resource.RLIM_INFINITY else min(hard, LARGEST_LIMIT)
    _set_limit(max(min(_FILES_A_SOCKET * sockets + RESERVE, most), resource.getrlimit(resource.RLIMIT_NOFILE)[0]))


def _lowest_free(limit: int) -> int:
    """The number that the next open file would get, ``limit`` where it gets none: close to how many there are."""
    try:
        probe = os.dup(2)
    except OSError:
        return limit
    os.close(probe)
    return probe


def _open_files(limit: int) -> int:
    """Counted, which takes longer: there may be gaps among the numbers."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return limit


def _set_limit(files: int) -> None:
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def _shut(limit: int, apart: int) -> None:
    instruction = ctypes.create_string_buffer(_DROP)
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    for listener in _listeners(limit):
        if listener.getsockname()[1] != apart:
            with suppress(OSError):  # where filters are forbidden they come in, and the files run out
                listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _open(limit: int) -> None:
    for listener in _listeners(limit):
        with suppress(OSError):  # it has none
            listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def _listeners(limit: int) -> Iterator[socket.socket]:
    """Every TCP socket of this process that listens, also those of libraries."""
    for descriptor in range(3, limit):
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            with _borrowed(descriptor) as found:
                is_tcp = found.family in (socket.AF_INET, socket.AF_INET6)
                if is_tcp and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    yield found


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    found = socket.socket(fileno=descriptor)
    try:
        yield found
    finally:
        found.detach()
