"""The review page: a small web server beside the service, or without one.

One process: asyncio for connections, threads for what waits on the disk. It writes labels, what was shown, sheets,
sessions and a token, and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from daemon.common import ending
from daemon.common.errors import UNREACHABLE, USAGE, UserError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

#: From the signal on requests in hand are finished; those that take longer are left.
_GRACE_S = 1.0
_LAST_S = 2.0  # and this is the end, whatever hangs
#: Connections at once; when another comes, the one goes that has waited longest without asking anything.
MOST_CONNECTIONS = 200
#: For the head of a request to come, once its connection stands.
_HEAD_S = 10.0
_IDLE_S = 30.0  # that a connection is held open between two requests
_ANSWER_S = 60.0  # for an answer to be made and taken


def open_door(bind: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError 69 where the port is taken, 64 for an address that is none of ours."""
    try:
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        return socket.create_server((bind, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            taken = f"port {port} is taken, by another program or another review page: choose another with --port"
            raise UserError(UNREACHABLE, taken) from None
        if error.errno == errno.EACCES:
            raise UserError(UNREACHABLE, f"port {port} is not for this user: choose one above 1023") from None
        why = error.strerror or str(error)
        raise UserError(USAGE, f"--bind {bind}: {why}; give an address of this machine, or leave it out") from None


def address_of(listening: socket.socket) -> str:
    """``http://127.0.0.1:8795/``; of a socket that listens everywhere the name of this machine."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(app: ASGIApp, listening: socket.socket) -> bool:
    """Until SIGTERM or Ctrl-C; whether all that was begun has ended. What has not waits on a disk, and is left."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http=_connection_class(),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(_IDLE_S),
        timeout_graceful_shutdown=1,
        backlog=128,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what a stranger sends is no news
    server = uvicorn.Server(config)
    # Beside the main thread, which listens to signals (daemon.common.ending); uvicorn sets no handlers there.
    thread = threading.Thread(target=server.run, args=([listening],), name="web", daemon=True)
    ending.allow(_LAST_S)
    thread.start()
    while thread.is_alive() and not ending.wait(0.1):
        pass
    server.should_exit = True
    thread.join(_GRACE_S)
    server.force_exit = True
    thread.join(0.2)
    return not thread.is_alive()


def _connection_class() -> Any:
    """A connection of uvicorn that does not wait for ever for what a client does not send."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Connection(H11Protocol):
        """Closed when no whole request has come in time, and when too many are open."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
            super().connection_made(transport)
            self._waits_since_s = time.monotonic()
            self._limit = self.loop.call_later(_HEAD_S, self._end_if_idle)
            if len(self.connections) > MOST_CONNECTIONS:  # those that were just ended may still be among them
                held = [one for one in self.connections if isinstance(one, Connection)]
                held = [one for one in held if not one.transport.is_closing()]
                if len(held) > MOST_CONNECTIONS:
                    idle = [one for one in held if not one.is_busy]
                    min(idle, key=lambda one: one._waits_since_s, default=self).transport.abort()

        @property
        def is_busy(self) -> bool:
            """Whether a request is being answered."""
            return self.cycle is not None and not self.cycle.response_complete

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.is_busy:  # a whole head has come; a byte of one buys no time
                self._waits_since_s = time.monotonic()

        def connection_lost(self, exc: Exception | None) -> None:
            self._limit.cancel()
            super().connection_lost(exc)

        def _end_if_idle(self) -> None:
            idle_s = time.monotonic() - self._waits_since_s
            if idle_s > _ANSWER_S or (not self.is_busy and (self.cycle is None or idle_s > _IDLE_S)):
                self.transport.abort()
            else:
                self._limit = self.loop.call_later(_HEAD_S, self._end_if_idle)

    return Connection
