"""Where curves come from. A source says which files are finished; it never reads a curve and never decides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

#: A file larger than this may take long: it is read beside what is small, never before it.
LARGE_BYTES = 32 << 20
#: Why a file comes back unread, for as long as it takes: where it lies does not answer. No patience runs out over it.
AWAY = "away"


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a source hands to the pipeline; a path and what was known of it, never its content.

    ``final`` says that waiting longer is pointless: an unfinished file is then answered with a
    reason instead of being handed back.
    """

    source: str  # "watch", "ingest", "score": the label of afm_triage_curves_seen_total
    path: str  # relative to the watched folder, '/' between parts; what events call data.path
    file: Path  # where it lies
    companion: Path | None = None  # the ZSnsr half of an Asylum pair
    size_bytes: int = 0
    mtime_ns: int = 0
    noticed_s: float = 0.0  # time.monotonic() when the finished file was noticed
    claimed: bool = True  # its name belongs to a format; False: a reader must look inside to know
    final: bool = False
    first: int = 0  # first curve wanted; > 0 for the later portions of a map
    sha256: str | None = None  # known for later portions: the file must still be the same one
    total: int = 1  # and how many curves it had when it was opened
    folder: str | None = None  # the watched or scored folder; None for a file named directly and for ingest
    known_curve: str | None = None  # ZeroMQ ingest: the sender's id, which is its identity

    @property
    def is_large(self) -> bool:
        """Whether it may take long: a large file, or the rest of a map."""
        return self.first > 0 or self.size_bytes > LARGE_BYTES

    def portion(self, first: int, sha256: str | None, total: int) -> Arrival:
        """The same file, of ``total`` curves, from curve ``first`` on."""
        return replace(self, first=first, sha256=sha256, total=total)


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """One watched folder (or socket) as status, console and doctor show it."""

    name: str  # the folder or endpoint
    ok: bool
    detail: str  # "inotify + scan every 30 s", "folder is gone since 03:12", …
    waiting: int  # files seen that are not finished yet
    folder: int | None = None  # its number in the configuration, from 0; None for a socket
    last_seen_s: float | None = None  # time.time() when the folder last answered
    last_curve_s: float | None = None  # time.time() when the last file that may be a curve came


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
        """No reader wants it, for a ``reason`` of ignored.py: not to be offered again unless it changes."""

    def ready(self) -> int:
        """How many finished files wait to be taken."""

    def health(self) -> list[SourceHealth]:
        """One entry a folder or socket."""

    def stop(self) -> None:
        """End threads; returns within a second."""
