"""The note: what a reader process has in its hands, for the service to read when that process can no longer say so.

A few bytes of memory that both sides see. Told as a frame it would wake the service once more for every file.
"""

from __future__ import annotations

import os
import struct

_ENTRY = struct.Struct("<Q64s")  # the request, and the SHA-256 of its file in hex


class Note:
    """``descriptor`` is handed down to the child, which makes a Note of it in turn."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("afm-triage-note") if descriptor is None else descriptor

    def write(self, request: int, sha256: str) -> None:
        """The bytes of this request's file have been read, and not yet been interpreted."""
        os.pwrite(self.descriptor, _ENTRY.pack(request, sha256.encode()), 0)

    def read(self, request: int) -> str | None:
        """What was written of this request; None where it never came so far."""
        content = os.pread(self.descriptor, _ENTRY.size, 0)
        if len(content) < _ENTRY.size:
            return None
        noted, sha256 = _ENTRY.unpack(content)
        return str(sha256, "ascii") if noted == request else None

    def close(self) -> None:
        os.close(self.descriptor)
