"""A watched folder as the pipeline sees it: what the tests of the sources share."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemon.formats import Names
from daemon.formats.base import Format, Pair
from daemon.sources import Arrival
from daemon.sources.file_state import Timing
from daemon.sources.watch import FolderNeeds, WatchSource

#: A tenth of the real waiting times, so that the tests take seconds.
QUICK = Timing(
    look_s=0.05,
    scan_s=3.0,
    scan_often_s=0.2,
    check_s=0.1,
    sweep_s=0.3,
    retry_s=(0.02, 0.05, 0.1),
    patience_s=0.8,
    patience_map_s=1.5,
    patience_zero_tail_s=0.3,
    patience_unended_s=0.6,
    suspicion_s=1.0,
)
TEXT_QUIET_S = 0.3


_MAP = ".jpk-force-map"
BINARY = Format(
    "binary",
    suffixes=(".jpk-force", _MAP, ".ibw"),
    unread_suffixes=(".pfc",),
    map_suffixes=(_MAP,),
    pair=Pair("Defl.ibw", "ZSnsr.ibw"),
)
TEXT = Format("text", suffixes=(".txt",), quiet_s=2.0)
NAMES = Names((BINARY, TEXT), text_quiet_s=TEXT_QUIET_S)


class Watched:
    """A running WatchSource that settles whatever it is given."""

    def __init__(self, *roots: Path, **changes: Any) -> None:
        self.wake = threading.Event()
        self.seen = 0
        self.ignored: Counter[str] = Counter()
        watches = {name: changes.pop(name) for name in ("mounts", "timing") if name in changes}
        needs = FolderNeeds(
            wake=self.wake.set,
            seen=self._saw,
            ignored=lambda reason, name: self.ignored.update([reason]),
            **{"names": NAMES, **changes},
        )
        self.source = WatchSource(roots, needs, **{"timing": QUICK, **watches})
        self.source.start()

    def _saw(self, count: int) -> None:
        self.seen += count

    def take(self, count: int = 1, timeout_s: float = 5.0) -> list[Arrival]:
        """``count`` arrivals (fewer when they do not come in time), left with the taker."""
        taken: list[Arrival] = []
        deadline_s = time.monotonic() + timeout_s
        while len(taken) < count and time.monotonic() < deadline_s:
            self.wake.wait(0.02)
            self.wake.clear()
            taken += self.source.take(count - len(taken), count)
        return taken

    def decide(self, count: int = 1, timeout_s: float = 5.0) -> list[str]:
        """Take and settle; the paths."""
        arrivals = self.take(count, timeout_s)
        for arrival in arrivals:
            arrival.done()
        return [arrival.path for arrival in arrivals]

    def one(self, timeout_s: float = 5.0) -> Arrival:
        (arrival,) = self.take(1, timeout_s)
        return arrival

    def quiet(self, for_s: float = 0.3) -> bool:
        """Nothing is offered for a while."""
        return self.take(1, for_s) == []

    def health(self) -> str:
        (health,) = self.source.health()
        return ("ok: " if health.ok else "not ok: ") + health.detail


@contextmanager
def watching(*roots: Path, **changes: Any) -> Iterator[Watched]:
    watched = Watched(*roots, **changes)
    try:
        for _ in range(200):
            if all(health.detail != "starting" for health in watched.source.health()):
                break
            time.sleep(0.01)
        time.sleep(0.05)
        yield watched
    finally:
        watched.source.stop()


def until(true: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.01)
    return True
