"""Where curves come from, and what is passed over. A source says which files are finished; it never reads or decides.

The ignored are files that are no curves, counted by why, so that nobody has to wonder what became of them. A *reason*
is one of few words, the label of a metric. A *kind* is what a person is told: the reason, and for what nobody reads its
suffix too (``unclaimed .pfc``).
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Protocol

#: Why a file is passed over. A companion is read after all, with the first half of its pair.
REASONS = ("unclaimed", "image", "table", "link", "not_regular", "temporary", "sentinel", "companion")
COMPANION, UNCLAIMED = "companion", "unclaimed"
#: Names come from anybody: beyond so many suffixes the others are told together.
MOST_SUFFIXES = 20
_OTHER = f"{UNCLAIMED} other"
_SHOWN = 8  # kinds in one line of words


class Ignored:
    """Counts by reason and by kind; ``files``, if given, gets the kind of each by its name or path. Not locked."""

    def __init__(self, reasons: Iterable[str] = (), files: dict[str, str] | None = None) -> None:
        self.reasons: Counter[str] = Counter(dict.fromkeys(reasons, 0))
        self.kinds: Counter[str] = Counter()
        self._suffixes: set[str] = set()
        self._files = files

    def note(self, reason: str, name: str = "", files: int = 1) -> None:
        """``files`` files were passed over; ``name`` is the name or path of one of them."""
        kind = self._kind(reason, name)
        self.reasons[reason] += files
        self.kinds[kind] += files
        if self._files is not None:
            self._files[name] = kind

    def note_kind(self, kind: str, files: int) -> None:
        """So many files of a kind, as another count has told it."""
        self.reasons[kind.partition(" ")[0]] += files
        self.kinds[kind] += files

    def add(self, others: Ignored) -> None:
        """Those of another count too."""
        self.reasons += others.reasons
        self.kinds += others.kinds

    @property
    def total(self) -> int:
        """Files that are not read: a companion is."""
        return self.reasons.total() - self.reasons[COMPANION]

    def _kind(self, reason: str, name: str) -> str:
        if reason != UNCLAIMED or not name:
            return reason
        kind = f"{reason} {suffix_of(name)}"
        if kind not in self._suffixes and len(self._suffixes) >= MOST_SUFFIXES:
            return _OTHER
        self._suffixes.add(kind)
        return kind


def suffix_of(name: str) -> str:
    """``.pfc``; ``.NNN`` for a running number; ``without suffix`` where a name has none to tell by."""
    suffix = PurePath(name).suffix.lower()
    if re.fullmatch(r"\.\d+", suffix):
        return ".NNN"
    return suffix if re.fullmatch(r"\.[\w-]{1,16}", suffix) else "without suffix"


def heard(said: Any) -> dict[str, int]:
    """The kinds that a status event tells of, as far as they make sense: it comes from a socket."""
    pairs = said.items() if isinstance(said, Mapping) else ()
    return {str(kind): files for kind, files in pairs if isinstance(files, int) and files > 0}


def words(kinds: Mapping[str, int]) -> str:
    """``12 unclaimed .pfc, 3 image; 40 companion, read with their first half``; "" where there are none."""
    ordered = sorted(kinds.items(), key=lambda one: (not one[0].startswith(UNCLAIMED), -one[1], one[0]))
    told = [(kind, files) for kind, files in ordered if files and kind != COMPANION]
    said = [f"{files:,} {kind}" for kind, files in told[:_SHOWN]]
    if rest := sum(files for _, files in told[_SHOWN:]):
        said.append(f"{rest:,} of other kinds")
    pairs = f"{kinds[COMPANION]:,} {COMPANION}, read with their first half" if kinds.get(COMPANION) else ""
    return "; ".join(filter(None, [", ".join(said), pairs]))


#: Beside curves people save images and logs in the same folder; that these come is no sign by itself.
_BESIDE_CURVES = frozenset({"image", "table"})


@dataclass(frozen=True, slots=True)
class Unread:
    """What has come into a folder and is no kind that is read, since the last curve came; ``kinds`` as told above.

    It tells a folder that the instrument saves its curves into from one where it saves something else. So only what
    *comes* counts: a folder of last year's photographs that lies still is nobody's mistake.
    """

    folder: str
    kinds: Mapping[str, int] = field(default_factory=dict)
    since_s: float | None = None  # time.monotonic() when the first of them came
    is_reading: bool = False  # a file that may be a curve is on its way: too early to say

    @property
    def files(self) -> int:
        return sum(self.kinds.values())


class UnreadCount:
    """Keeps the count of one folder. Told by the folder's thread, read by any."""

    def __init__(self, folder: str, now_s: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._now_s = folder, now_s
        self._lock = threading.Lock()
        self._count = Ignored()
        self._since_s: float | None = None
        self._has_curves = False  # one has been seen here, by this service or before its start
        self.is_reading = False

    def passed_over(self, reason: str, name: str) -> None:
        """A file came and is not read."""
        with self._lock:
            if reason != UNCLAIMED and (self._has_curves or reason not in _BESIDE_CURVES):
                return
            self._count.note(reason, name)
            if self._since_s is None:
                self._since_s = self._now_s()

    def curve(self) -> None:
        """A file of a kind that is read came, or is known from before."""
        with self._lock:
            self._has_curves = True
            self._count, self._since_s = Ignored(), None

    def unread(self) -> Unread:
        """How it stands."""
        with self._lock:
            return Unread(self._folder, dict(self._count.kinds), self._since_s, self.is_reading)


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
        """Its decisions are on disk, or no reader wants it, for one of REASONS."""
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
