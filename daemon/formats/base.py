"""What a format is to the rest: a reader that knows its files, and an opened file of curves."""

from __future__ import annotations

from typing import Protocol

from daemon.formats.blob import Blob
from models.curve import Curve


class CurveFile(Protocol):
    """An opened file: curves by number, in stored order, each parsed only when asked for."""

    def __len__(self) -> int:
        """How many retracts the file holds."""

    def curve(self, index: int) -> Curve:
        """One retract; raises ``Unreadable`` or ``Unfinished`` for this curve alone."""


class Reader(Protocol):
    """One format."""

    name: str
    quiet_s: float  # how long a file must rest before it is worth opening; 0 where the format shows its own end

    def claims(self, name: str, head: bytes) -> bool:
        """Whether a file of this name that begins with ``head`` is this format's, whole or not."""

    def open(self, blob: Blob, name: str, companion: Blob | None) -> CurveFile:
        """Raises ``Unfinished`` (not whole yet), ``Unreadable`` (never will be) or ``NotACurve`` (nobody's curve)."""
