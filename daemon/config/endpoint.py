"""The endpoint: a ZeroMQ address as a value, so that it is taken apart in one place only."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``tcp://host:port`` or ``ipc://path``; ``port`` is None for ipc, 0 for "any free port"."""

    transport: str
    host: str  # of ipc: the path of the socket
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError with one sentence that says what to write instead."""
        transport, mark, rest = text.partition("://")
        if mark and transport == "ipc" and rest.startswith("/"):
            return cls("ipc", rest)
        host, colon, port = rest.rpartition(":")
        if not mark or transport != "tcp" or not colon or not host:
            raise ValueError(f'"{text}" is not an endpoint: write tcp://127.0.0.1:5795 or ipc:///run/afm-triage.sock')
        if port == "*":
            return cls("tcp", host, 0)
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError(f'"{text}" has no port between 1 and 65535: write tcp://{host}:5795')
        return cls("tcp", host, int(port))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it (a name other than localhost could resolve to anything)."""
        if self.transport == "ipc" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False
