"""The ear: listens to a service's events and notes when each file's verdict was heard."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from typing import Self

import zmq

from daemon import ending
from daemon.closing import Closing
from daemon.exchange import open_socket
from daemon.ledger import events

_JOIN_S = 10.0


class Ear(threading.Thread, Closing):
    """``with Ear(endpoint) as ear: …; ear.wait(paths, 60)``. The block begins once the service has greeted it."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self._endpoint = endpoint
        self._joined, self._ending = threading.Event(), threading.Event()
        self.heard_s: dict[str, float] = {}  # path of an event -> time.monotonic() of the last one
        self.curves_s: list[float] = []  # of every decision, in order
        self.engines: set[str] = set()  # that scored

    def run(self) -> None:
        with open_socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.subscribe(b"")
            socket.connect(self._endpoint)
            while not self._ending.is_set():
                if socket.poll(100):
                    self._note(socket.recv_multipart(zmq.DONTWAIT)[-1])

    def _note(self, body: bytes) -> None:
        now_s, event = time.monotonic(), events.decode(body)
        self._joined.set()
        if events.kind_of(event) != "decision":
            return
        self.curves_s.append(now_s)
        self.heard_s[event["data"]["path"]] = now_s
        self.engines.add(event["data"]["engine"])

    def wait(self, paths: Collection[str], timeout_s: float) -> bool:
        """Until every one of ``paths`` was heard of; False when the time is up before."""
        deadline_s, missing = time.monotonic() + timeout_s, set(paths)
        while missing and time.monotonic() < deadline_s:
            ending.pause(0.01)
            missing = {path for path in missing if path not in self.heard_s}
        return not missing

    def forget(self) -> None:
        """For the next measurement."""
        self.heard_s, self.curves_s = {}, []

    def __enter__(self) -> Self:
        self.start()
        self._joined.wait(_JOIN_S)
        return self

    def close(self) -> None:
        self._ending.set()
        self.join(_JOIN_S)
