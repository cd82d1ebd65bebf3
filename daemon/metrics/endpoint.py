"""Where the metrics are asked for: a small HTTP server, which nobody who scrapes it can hold up."""

from __future__ import annotations

import errno
import socket
import threading
import time
from contextlib import suppress
from socketserver import BaseServer, TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from daemon.common.errors import UNREACHABLE, UserError

_MOST_CONNECTIONS = 16  # at once
_REQUEST_S = 5.0  # from a connection to its answer


def serve(registry: CollectorRegistry, port: int) -> BaseServer | None:
    """Answer on 127.0.0.1:``port`` from threads of its own; 0 = off. Raises UserError 69 when it is taken."""
    if port == 0:
        return None
    try:
        server = _Server(("127.0.0.1", port), _Handler)
    except OSError as error:
        taken = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error})"
        hint = "choose another with --metrics-port or metrics_port = …, 0 is off"
        raise UserError(UNREACHABLE, f"--metrics-port {port} {taken}: {hint}") from None
    server.set_app(make_wsgi_app(registry))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_S

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a scrape every few seconds is no news."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a connection, for few connections and a short time: who is slow goes when others come."""

    daemon_threads, request_queue_size = True, 64

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self._lock = threading.Lock()
        self._since_s: dict[socket.socket, float] = {}  # of each connection, the oldest first
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without asking the network for the name of this computer, as the class above does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:  # no file left for it: it stays where it is, and is not asked for at once
            time.sleep(0.1)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._since_s) >= _MOST_CONNECTIONS:
                oldest = next(iter(self._since_s))
                self._since_s.pop(oldest)
                _hang_up(oldest)
            self._since_s[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Twice a second: a client that sends a byte now and then is hung up on all the same."""
        with self._lock:
            for request, since_s in self._since_s.items():
                if time.monotonic() - since_s > _REQUEST_S:
                    _hang_up(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since_s.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone, or was sent away, is no news either."""


def _hang_up(connection: socket.socket) -> None:
    """Its thread finds out, and closes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
