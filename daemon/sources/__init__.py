"""Where curves come from. A source says which files are finished; it never reads a curve and never decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from daemon.arrival import Arrival


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """One watched folder (or socket) as status, console and doctor show it."""

    name: str  # the folder or endpoint
    ok: bool
    detail: str  # "inotify + scan every 30 s", "folder is gone since 03:12", …
    waiting: int  # files seen that are not finished yet


class Source(Protocol):
    """A place curves come from; all methods are called from the pipeline's thread."""

    name: str  # label of afm_triage_curves_seen_total: "watch" or "ingest"

    def start(self) -> None:
        """Begin; ``wake()`` (given to the constructor) is called whenever ``take`` has something."""

    def take(self, limit: int) -> list[Arrival]:
        """At most ``limit`` finished files, oldest first; never blocks."""

    def defer(self, arrival: Arrival, reason: str) -> None:
        """The reader found it unfinished: offer it again later, with ``final=True`` when patience ends."""

    def settle(self, arrival: Arrival) -> None:
        """Its decisions are in the ledger: not to be offered again unless it changes."""

    def ignore(self, arrival: Arrival, reason: str) -> None:
        """No reader wants it, for a ``reason`` of ``daemon.ignored``: not to be offered again unless it changes."""

    def ready(self) -> int:
        """How many finished files wait to be taken."""

    def health(self) -> list[SourceHealth]:
        """One entry a folder or socket."""

    def stop(self) -> None:
        """End threads; returns within a second."""
