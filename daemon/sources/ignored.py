"""The ignored: files that are no curves, counted by why, so that nobody has to wonder what became of them.

A *reason* is one of few words, the label of a metric. A *kind* is what a person is told: the reason, and for what
nobody reads its suffix too (``unclaimed .pfc``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
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
