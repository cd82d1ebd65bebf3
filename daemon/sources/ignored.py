"""The ignored: files that are no curves, counted by why, so that nobody has to wonder what became of them.

A *reason* is one of few words, the label of a metric. A *kind* is what a person is told: the reason, and for what
nobody reads its suffix too (``unclaimed .pfc``).
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

#: Why a file is passed over. A companion is read after all, with the first half of its pair.
REASONS = ("unclaimed", "image", "table", "link", "not_regular", "temporary", "sentinel", "companion")
COMPANION, UNCLAIMED = "companion", "unclaimed"
#: Names come from anybody: beyond so many suffixes the others are told together.
MOST_SUFFIXES = 20
_OTHER = f"{UNCLAIMED} other"
_SHOWN = 8  # kinds in one line of words


class Ignored:
    """Counts by reason and by kind. Not locked."""

    def __init__(self, reasons: Iterable[str] = ()) -> None:
        self.reasons: Counter[str] = Counter(dict.fromkeys(reasons, 0))
        self.kinds: Counter[str] = Counter()
        self._suffixes: set[str] = set()

    def note(self, reason: str, name: str = "", files: int = 1) -> None:
        """``files`` files were passed over; ``name`` is the name or path of one of them."""
        self.reasons[reason] += files
        self.kinds[self._kind(reason, name)] += files

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
