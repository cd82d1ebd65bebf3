"""The connections: whoever opens too many waits at the door, and never takes the files that judging needs.

Each connection is an open file, and a process may have so many: 1,024 by default. The limit is raised at the start.
Where it cannot be, some are kept back: as soon as the others are used up, no more connections are let in, and then the
rest is given free for readers, folders and the ledger. ZeroMQ accepts whoever comes; so it is the kernel that is told
to pass over their first packets (a filter on the listening sockets), and they try again by themselves.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

#: Open files, connections nearly all of them, that are enough: each costs some ten kilobytes.
MOST_OPEN = 4_096
#: More than any part of the service is asked to hold.
LARGEST_LIMIT = 65_536
#: Kept for ourselves where the limit is low; connections that wait in the sockets' queues still come in first.
RESERVE = 192
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
