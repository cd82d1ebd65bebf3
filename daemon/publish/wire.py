"""The socket: options all our ZeroMQ sockets share, and the one way to bind them."""

from __future__ import annotations

import errno
from collections.abc import Callable

import zmq

from daemon.config.endpoint import Endpoint
from daemon.errors import BAD_CONFIG, UNREACHABLE, UserError

#: Puts CURVE keys onto a socket before it is bound.
Secure = Callable[[zmq.Socket[bytes]], None]

#: The largest frame anybody may send us.
_LARGEST_BYTES = 1 << 20


def bind(socket: zmq.Socket[bytes], endpoint: str, key: str, secure: Secure | None = None) -> str:
    """Bind, and return the address in fact. ``key``: what the configuration calls it.

    Raises UserError 78 when other machines could reach the address and ``secure`` is None, 69 when it is taken.
    """
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
    socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST_BYTES)
    socket.setsockopt(zmq.IPV6, ":" in place.host)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 1000)
    address = f"tcp://{place.host}:*" if place.port == 0 else endpoint
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        taken = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error})"
        raise UserError(UNREACHABLE, f"--{key} {endpoint} {taken}: choose another with --{key} or {key} = …") from None
    bound: bytes = socket.getsockopt(zmq.LAST_ENDPOINT)  # type: ignore[assignment]
    return bound.rstrip(b"\0").decode()
