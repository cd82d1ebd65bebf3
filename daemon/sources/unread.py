"""The unread: what has come into a folder and is no kind that is read, since the last curve came.

It tells a folder that the instrument saves its curves into from one where it saves something else. So only what *comes*
counts: a folder of last year's photographs that lies still is nobody's mistake.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from daemon.sources.ignored import UNCLAIMED, Ignored

#: Beside curves people save images and logs in the same folder; that these come is no sign by itself.
_BESIDE_CURVES = frozenset({"image", "table"})


@dataclass(frozen=True, slots=True)
class Unread:
    """Of one folder; ``kinds`` as ``daemon.sources.ignored`` tells them."""

    folder: str
    kinds: Mapping[str, int] = field(default_factory=dict)
    since_s: float | None = None  # time.monotonic() when the first of them came
    is_reading: bool = False  # a file that may be a curve is on its way: too early to say

    @property
    def files(self) -> int:
        return sum(self.kinds.values())


class Arrivals:
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
