"""The exchange: the one ZeroMQ context of this process, whose sockets never make anybody wait.

A context that is ended waits until its last socket is closed and has sent everything. So it is not ended where a socket
is closed, but once, with the process, and then for a limited time.
"""

from __future__ import annotations

import threading
import time

import zmq

from daemon.common import ending

_lock = threading.Lock()
_contexts: list[zmq.Context[zmq.Socket[bytes]]] = []  # one, once a socket was wanted


def open_socket(kind: int, linger_ms: int = 0) -> zmq.Socket[bytes]:
    """A new socket; once closed, what it has not sent yet is tried for ``linger_ms`` more. Raises zmq.ZMQError."""
    with _lock:
        if not _contexts:
            _contexts.append(zmq.Context())
        socket = _contexts[0].socket(kind)
    socket.linger = linger_ms
    return socket


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
