"""Where the metrics are asked for: a small HTTP server, which nobody who scrapes it can hold up.

Other machines show a token, as Prometheus sends it (`authorization: credentials_file`), and TLS keeps it unread.
"""

from __future__ import annotations

import errno
import hmac
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from socketserver import BaseServer, TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from daemon.common.errors import BAD_CONFIG, UNREACHABLE, UserError
from daemon.common.keys import secret_line
from daemon.config import MetricsConfig

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_MOST_CONNECTIONS = 16  # at once
_REQUEST_S = 5.0  # from a connection to its answer
#: Who is not told otherwise: this computer alone.
ALONE = MetricsConfig()


def serve(registry: CollectorRegistry, port: int, access: MetricsConfig = ALONE) -> BaseServer | None:
    """Answer on ``port`` from threads of its own; 0 = off.

    Raises UserError 69 when it is taken, 78 for a token or a certificate that cannot be used.
    """
    if port == 0:
        return None
    app: WSGIApplication = make_wsgi_app(registry)
    if access.token_file is not None:
        app = _asking(app, access.token_file)
    tls = _tls_of(access)
    try:
        server = _Server((access.bind, port), _Handler, tls)
    except OSError as error:
        taken = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error})"
        hint = "choose another with --metrics-port or metrics_port = …, 0 is off"
        raise UserError(UNREACHABLE, f"--metrics-port {port} {taken}: {hint}") from None
    server.set_app(app)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


def _asking(app: WSGIApplication, file: Path) -> WSGIApplication:
    """``app`` for whoever shows the token in ``file`` as it is then: one that became known is changed in flight.

    A file that cannot be used any more lets nobody in. Raises UserError 78 where it cannot be used now.
    """
    called = "metrics.token_file"
    secret_line(file, called)

    def is_right(shown: str) -> bool:
        with suppress(UserError):
            return hmac.compare_digest(shown.strip().encode("latin-1", "replace"), secret_line(file, called).encode())
        return False

    def guarded(environment: WSGIEnvironment, start: StartResponse) -> Any:
        scheme, _, shown = str(environment.get("HTTP_AUTHORIZATION", "")).partition(" ")
        if scheme.lower() == "bearer" and is_right(shown):
            return app(environment, start)
        start("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain")])
        return [b"show the token of the metrics: Authorization: Bearer TOKEN\n"]

    return guarded


def _tls_of(access: MetricsConfig) -> ssl.SSLContext | None:
    if access.certificate_file is None:
        return None
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        tls.load_cert_chain(access.certificate_file, access.certificate_key_file)
    except (OSError, ssl.SSLError) as error:
        why = f"{access.certificate_file} and its key cannot be used ({error})"
        raise UserError(
            BAD_CONFIG, f"metrics.certificate_file: {why}; both are PEM, and the service reads them"
        ) from None
    return tls


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_S

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a scrape every few seconds is no news."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a connection, for few connections and a short time: who is slow goes when others come."""

    daemon_threads, request_queue_size = True, 64

    def __init__(
        self, address: tuple[str, int], handler: type[WSGIRequestHandler], tls: ssl.SSLContext | None = None
    ) -> None:
        self._lock, self._tls = threading.Lock(), tls
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._since_s: dict[socket.socket, float] = {}  # of each connection, the oldest first
        super().__init__(address, handler)

    def server_bind(self) -> None:
        """Without asking the network for the name of this computer, as the class above does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            request, address = super().get_request()
            if self._tls is not None:  # what the two agree on is read in the thread of the connection
                request = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            return request, address
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
