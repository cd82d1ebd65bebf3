"""`review`: a local web page on which judged curves are looked at and labelled, beside the service or without one.

One process: asyncio for connections, threads for what waits on the disk. It writes labels, what was shown, sheets,
sessions and a token, and nothing else.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from daemon.common import ending
from daemon.common.errors import ALREADY_RUNNING, BAD_DATA, INTERNAL, UNREACHABLE, USAGE, UserError
from daemon.common.options import Option
from daemon.common.sockets import is_loopback
from daemon.common.stdio import as_json
from daemon.common.text import many
from daemon.config import Config, Flags, Keys, load
from daemon.config.origin import usual_port

if TYPE_CHECKING:
    import asyncio

    from starlette.types import ASGIApp

    from daemon.review.api import Review

#: From the signal on requests in hand are finished; those that take longer are left.
_GRACE_S = 1.0
_LAST_S = 2.0  # and this is the end, whatever hangs
#: Connections at once; when another comes, the one goes that has waited longest without asking anything.
MOST_CONNECTIONS = 200
#: For the head of a request to come, once its connection stands.
_HEAD_S = 10.0
_IDLE_S = 30.0  # that a connection is held open between two requests
_ANSWER_S = 60.0  # for an answer to be made and taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument")]
    port: Annotated[
        int | None,
        Option("of the page; 0: any that is free", "N", unless=f"{usual_port('review')}, by the instrument's number"),
    ] = None
    bind: Annotated[
        str | None,
        Option(
            "address to listen at; other machines than this one need the token",
            "ADDRESS",
            unless="127.0.0.1, or as configured",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        Option("asked for, also on this computer, behind a proxy; its first line", "FILE", unless="as configured"),
    ] = None
    sheet: Annotated[
        Literal["uniform", "weighted"] | None,
        Option(
            "a certificate sheet: curves drawn blind from all that was decided; uniform if no KIND",
            "KIND",
            alone="uniform",
        ),
    ] = None
    found: Annotated[Path | None, Option("the curves of this list, as `find --csv` writes it", "FILE")] = None
    json: Annotated[bool, Option("the address as one JSON line")] = False


def run(options: Options) -> int:
    """Until SIGTERM or Ctrl-C: exit 0. 73 where the page is there already.

    69 where the port is another's or there is no state, 78 where the token file cannot be used.
    """
    if options.port is not None and not 0 <= options.port <= 65535:
        raise UserError(USAGE, "--port is a number from 0 to 65535")
    config = load(options.service)
    port = usual_port("review", config.number) if options.port is None else options.port
    if not config.state.is_dir():
        raise UserError(
            UNREACHABLE, f"no state folder {config.state}: start the service once, or give --state or --config"
        )
    if options.found is not None and options.sheet is not None:
        raise UserError(USAGE, "--found is a list of yours and --sheet a draw by chance: give one of them")
    found = None if options.found is None else _found(config, options.found)
    from daemon.client.service_file import find_page, forget_page, leave_page
    from daemon.review.api import Review, application
    from daemon.review.desk import Desk
    from daemon.review.request import TOKEN, Door, page_token, token_of

    bind = options.bind or config.review.bind
    try:
        listening = open_door(bind, port)
    except UserError:
        if (page := find_page(config.state)) is None or urlsplit(page).port != port:
            raise
        there = f"the page is there already: {page}{'' if options.sheet is None else '#sheet'}"
        there += "" if found is None else "; --port 0 opens one beside it, with the list"
        raise UserError(ALREADY_RUNNING, there) from None
    with closing(listening), Desk(config, found) as desk, Review(desk) as review:
        file = options.token_file or config.review.token_file
        if file is not None:
            token: str | None = page_token(file, "review.token_file" if options.token_file is None else "--token-file")
        else:
            token = None if is_loopback(bind) else token_of(config.state)
        # Once, to the person who started it or the script that asked for it: no log shall hold it.
        is_shown = file is None and (options.json or sys.stdout.isatty())
        address = address_of(listening) + (f"?token={token}" if token and is_shown else "")
        leave_page(config.state, address_of(listening))
        if not config.ledger_file.is_file():
            print(f"afm-triage: no ledger in {config.state} yet: the page waits for one", file=sys.stderr)
        sheet = None if options.sheet is None else _sheet(review, options.sheet)
        if options.json:
            print(as_json({"address": address, **({} if sheet is None else {"sheet": sheet})}), flush=True)
        else:
            asks = "" if token is None or is_shown else f"  asks for the token in {file or config.state / TOKEN}"
            place = "#found" if found is not None else "" if sheet is None else "#sheet"
            print(f"{address}{place}{asks}  (Ctrl-C ends the page)", flush=True)
        try:
            is_over = serve(application(review, Door(token)), listening)
        finally:
            forget_page(config.state)
        if not is_over or review.is_held_up:
            sys.stderr.flush()
            os._exit(0)  # its threads would hold us for seconds; a label is whole or not there
    return 0 if ending.is_asked() else INTERNAL


def _found(config: Config, file: Path) -> list[int]:
    """The decisions of a list. Raises UserError 65 for no list, or where none of it is of this ledger."""
    from daemon.labels.curve_name import listed
    from daemon.ledger.view import LedgerView

    with LedgerView(config.ledger_file) as view:
        seqs, others = listed(view, file)
    if not seqs:
        raise UserError(
            BAD_DATA, f"{file} names no curve of the ledger in {config.state}: give --state or --config of its own"
        )
    if others:
        told = f"{many(len(others), 'curve')} of {file} left out: of another instrument or ledger"
        print(f"afm-triage: {told}", file=sys.stderr)
    return seqs


def _sheet(review: Review, kind: str) -> dict[str, Any]:
    """The open sheet, or else a new one of this kind; what it takes and earns is said before.

    Raises UserError 69 where nothing can be drawn, 74 where ledger or labels cannot be read.
    """
    from daemon.review.request import Refused

    try:
        said = review.certifying.state(None)
        found: dict[str, Any] | None = said["sheet"]
        if found is not None and not found["done"]:
            print(f"sheet {found['number']} ({found['kind']}) is open: {found['sentence']}", file=sys.stderr)
            return found
        if found is not None:
            print(f"sheet {found['number']} ({found['kind']}): {found['sentence']}", file=sys.stderr)
        print(next(one["sentence"] for one in said["offers"] if one["kind"] == kind), file=sys.stderr)
        return review.certifying.draw(kind)
    except Refused as error:
        cause = error.__cause__
        raise UserError(cause.exit_code if isinstance(cause, UserError) else UNREACHABLE, str(error)) from None


# The server: its door, its connections and its end.


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
