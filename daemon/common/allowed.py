"""Who is let in: the answers to ZeroMQ when a client of another machine shows its key (ZAP, rfc.zeromq.org/spec/27).

Without them ZeroMQ lets in everybody who knows the service's public key. A list of public keys lies in a folder, a file
each, and is looked at once a second: who is added is let in, who is taken away is not. A connection that stands has
been let in already, and ZeroMQ has no word for ending one: so whoever owns a socket closes it when somebody was
revoked, and opens it again. All the others come back by themselves, and the ledger has what they missed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import zmq
from zmq.utils import z85

from daemon.common.ending import Closing
from daemon.common.keys import Key, allowed_in, changed_ns
from daemon.common.sockets import open_envelope, open_socket, receive

log = logging.getLogger(__name__)

_PLACE = "inproc://zeromq.zap.01"  # where ZeroMQ asks; one for each context, and so for each process
_DOMAIN = b"afm-triage"
_LOOK_S = 1.0  # between two looks at the folder
_TOLD_S = 60.0  # between two lines on clients that were refused
_MOST_FRAMES = 16
_JOIN_S = 2.0


class Allowed(threading.Thread, Closing):
    """The list, the service's own ``key`` and the thread that answers; from ``start`` on clients can come.

    ``local`` is a key for the verbs of this computer, another one at each start. ``refused`` is called for every client
    that was not let in.
    """

    def __init__(self, key: Key, folder: Path, refused: Callable[[], None] = lambda: None) -> None:
        super().__init__(name="keys", daemon=True)
        self._key, self._folder, self._refused = key, folder, refused
        self.local = Key.new("this computer", server=key.public)
        #: Times that somebody was taken off the list: a socket that was opened before has to be opened anew.
        self.revocations = 0
        self._names: dict[str, str] = {}
        self._seen_ns: object = None
        self._trouble, self._spoilt = "", list[str]()
        self._told_s, self._untold = -_TOLD_S, 0
        self._ending = threading.Event()
        self._socket = open_socket(zmq.ROUTER)
        self._socket.bind(_PLACE)
        self._look()

    @property
    def public(self) -> str:
        """The service's public key."""
        return self._key.public

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Have ``socket`` let in nobody but these. Were this thread dead, that would be nobody."""
        socket.curve_server = True
        socket.curve_secretkey = (self._key.secret or "").encode()
        socket.zap_domain = _DOMAIN
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def close(self) -> None:
        self._ending.set()
        if self.is_alive():
            self.join(_JOIN_S)
        else:
            self._socket.close()

    def run(self) -> None:
        looked_s = time.monotonic()
        try:
            while not self._ending.is_set():
                try:
                    if self._socket.poll(int(1000 * _LOOK_S)):
                        self._answer(receive(self._socket, _MOST_FRAMES))
                    if time.monotonic() - looked_s >= _LOOK_S:
                        self._look()
                        looked_s = time.monotonic()
                except Exception as error:  # nobody new would be let in any more
                    log.error("keys: %s: %s; going on", type(error).__name__, error)
                    self._ending.wait(0.1)
        finally:
            self._socket.close()

    def _look(self) -> None:
        """At the folder; one that cannot be listed changes nothing."""
        try:
            seen_ns = changed_ns(self._folder)
            if seen_ns == self._seen_ns:
                return
            spoilt: list[str] = []
            names = allowed_in(self._folder, spoilt.append)
        except OSError as error:
            trouble = f"{self._folder} cannot be read: {error.strerror}"
            if trouble != self._trouble:
                log.error("keys: %s; whoever was on the list stays on it", trouble)
            self._trouble = trouble
            return
        for why in spoilt:
            if why not in self._spoilt:
                log.warning("keys: %s; it lets nobody in", why)
        gone, new = self._names.keys() - names.keys(), names.keys() - self._names.keys()
        before, self._names, self._spoilt, self._trouble = self._names, names, spoilt, ""
        self._seen_ns = None if spoilt else seen_ns  # what cannot be read now may be readable in a second
        if gone:
            self.revocations += 1
            log.info("keys: %s may listen no more", ", ".join(sorted(before[key] for key in gone)))
        if new:
            log.info("keys: %s may listen", ", ".join(sorted(names[key] for key in new)))

    def _answer(self, frames: list[bytes]) -> None:
        envelope, asked = open_envelope(frames)
        if len(asked) != 7:  # another mechanism than CURVE; ZeroMQ itself has refused it already
            code, name = b"400", ""
        else:
            public = z85.encode(asked[6]).decode()
            name = self.local.name if public == self.local.public else self._names.get(public, "")
            code = b"200" if name else b"400"
            if not name:
                self._note_refused(asked[3].decode(errors="replace"), public)
        version, number = (*asked, b"", b"")[:2]
        answer = [version, number, code, b"" if name else b"not on the list", name.encode(), b""]
        self._socket.send_multipart([*envelope, *answer], zmq.DONTWAIT)

    def _note_refused(self, address: str, public: str) -> None:
        """One line in a minute: whoever knocks a thousand times fills no log."""
        self._refused()
        self._untold += 1
        if time.monotonic() - self._told_s < _TOLD_S:
            return
        more = f" (and {self._untold - 1} more since the last line)" if self._untold > 1 else ""
        self._told_s, self._untold = time.monotonic(), 0
        advice = f"if it may listen: afm-triage keys allow NAME '{public}'"
        log.warning("keys: a client at %s is not on the list, and hears nothing%s; %s", address, more, advice)
