"""The inquiry: one question to a running service, one answer or none in time."""

from __future__ import annotations

import zmq

from daemon.exchange import await_input, open_socket
from daemon.ledger import events


def ask(endpoint: str, *request: bytes, timeout_s: float = 1.0) -> list[bytes] | None:
    """The frames of the answer; None when nobody answered in time (or nobody could at such an address).

    Raises KeyboardInterrupt when the process is asked to end meanwhile.
    """
    with open_socket(zmq.DEALER) as socket:
        try:
            socket.setsockopt(zmq.IPV6, 1)
            socket.connect(endpoint)
            socket.send_multipart(list(request), zmq.DONTWAIT)
            return socket.recv_multipart(zmq.DONTWAIT) if await_input(socket, timeout_s) else None
        except zmq.ZMQError:
            return None


def ask_status(endpoint: str, timeout_s: float = 1.0) -> events.Event | None:
    """The status event of the service whose replay socket is at ``endpoint``."""
    answer = ask(endpoint, b"status", timeout_s=timeout_s)
    try:
        event = events.decode(answer[0]) if answer else {}
    except ValueError:
        return None
    return event if events.kind_of(event) == "status" and isinstance(event.get("data"), dict) else None
