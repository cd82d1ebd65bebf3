"""Where curves come from. A source says which files are finished; it never reads a curve and never decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

#: A file of more bytes is large: reading it may take seconds, and a small one shall not wait for it.
LARGE_BYTES = 32 << 20
#: ``Arrival.source`` of a curve that the service sends down its own line: judged like any other, and never counted.
CANARY = "canary"


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a source hands to the pipeline; a path and what was known of it, never its content.

    Whoever takes one ends with ``done()`` or ``later(reason)``. ``final`` says that waiting longer is pointless: an
    unfinished file is then answered with a reason instead of being handed back.
    """

    source: str  # "watch", "ingest", "score": the label of afm_triage_curves_seen_total; CANARY is none
    path: str  # relative to the watched folder, '/' between parts; what events call data.path
    file: Path  # where it lies
    companion: Path | None = None  # the ZSnsr half of an Asylum pair
    size_bytes: int = 0
    mtime_ns: int = 0
    looked_ns: int = 0  # time.time_ns() when it was so; 0: not known
    noticed_s: float = 0.0  # time.monotonic() when the finished file was noticed
    claimed: bool = True  # its name belongs to a format; False: a reader must look inside to know
    final: bool = False
    first: int = 0  # first curve wanted; > 0 for the later portions of a map
    sha256: str | None = None  # known for later portions: the file must still be the same one
    total: int = 1  # and how many curves it had when it was opened
    folder: str | None = None  # the watched or scored folder; None for a file named directly and for ingest
    known_curve: str | None = None  # ZeroMQ ingest, canaries: the sender's id, which is its identity
    #: Who wants to know what became of it: (arrival, whether it is done, the reason). Called from any thread.
    answer: Callable[[Arrival, bool, str | None], None] | None = field(default=None, repr=False, compare=False)

    @property
    def is_large(self) -> bool:
        """Whether reading it may take long: many bytes, or a later portion of a map."""
        return self.first > 0 or self.size_bytes > LARGE_BYTES

    @property
    def is_canary(self) -> bool:
        """Whether it is one of our own, which no ledger, account or subscriber may ever see."""
        return self.source == CANARY

    def done(self, ignored: str | None = None) -> None:
        """Its decisions are on disk, or no reader wants it, for a reason of ignored.py."""
        if self.answer is not None:
            self.answer(self, True, ignored)

    def later(self, reason: str) -> None:
        """A reader found it unfinished: it is offered again, with ``final=True`` when patience ends."""
        if self.answer is not None:
            self.answer(self, False, reason)

    def portion(self, first: int, sha256: str | None, total: int) -> Arrival:
        """The same file, of ``total`` curves, from curve ``first`` on."""
        return replace(self, first=first, sha256=sha256, total=total)


#: A watched folder that has not answered for longer is not well, whatever else is known of it.
SEEN_S = 30.0


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

    def is_up(self, now_s: float) -> bool:
        """Whether all is well with it, and a folder was seen lately; ``now_s`` is time.time()."""
        if self.folder is None:
            return self.ok
        return self.ok and self.last_seen_s is not None and now_s - self.last_seen_s <= SEEN_S


class Source(Protocol):
    """A place curves come from; all methods are called from the pipeline's thread."""

    name: str  # label of afm_triage_curves_seen_total: "watch" or "ingest"

    def start(self) -> None:
        """Begin; ``wake()`` (given to the constructor) is called whenever ``take`` has something."""

    def take(self, limit: int, large: int) -> list[Arrival]:
        """At most ``limit`` finished files, of which at most ``large`` are large; never blocks.

        Live ones before those that a start has found, small before large, the oldest first.
        """

    def ready(self) -> int:
        """How many finished files wait to be taken."""

    def oldest_pending_s(self) -> float | None:
        """Age of the oldest finished file that is not decided yet; None when there is none."""

    def health(self) -> list[SourceHealth]:
        """One entry a folder or socket."""

    def stop(self) -> None:
        """End threads; returns within a second."""


def oldest_pending_s(sources: Iterable[Source]) -> float | None:
    """Age of the oldest finished file of all of them that is not decided yet; None when there is none."""
    ages_s = (source.oldest_pending_s() for source in sources)
    return max((age_s for age_s in ages_s if age_s is not None), default=None)
