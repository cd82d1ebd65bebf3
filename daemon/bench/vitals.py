"""Vitals: CPU time and memory of a process with all that it started, from /proc."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from daemon.bench.machine import TICK_S
from daemon.common.ending import Closing

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_GONE = (FileNotFoundError, ProcessLookupError)
#: Word of a command line -> what the process is.
_ROLES = {"daemon.reading.worker": "reader", "daemon.engine": "engine"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One look."""

    at_s: float  # time.monotonic()
    cpu_s: dict[str, float]  # "service" -> of all such processes since they began
    rss_bytes: dict[str, int]  # "service 123" -> resident memory

    @property
    def total_s(self) -> float:
        return sum(self.cpu_s.values())

    @property
    def total_bytes(self) -> int:
        """What they share is counted for each: an upper bound."""
        return sum(self.rss_bytes.values())


def look(pid: int) -> Sample:
    """The process and its descendants, now."""
    cpu_s, rss_bytes = dict[str, float](), dict[str, int]()
    for one in tree(pid):
        with contextlib.suppress(*_GONE):
            role = _role(one)
            cpu_s[role] = cpu_s.get(role, 0.0) + _cpu_s(one)
            rss_bytes[f"{role} {one}"] = _rss_bytes(one)
    return Sample(time.monotonic(), cpu_s, rss_bytes)


def tree(pid: int) -> Iterator[int]:
    """The process itself first."""
    yield pid
    with contextlib.suppress(*_GONE):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(*_GONE):
                for child in (thread / "children").read_text().split():
                    yield from tree(int(child))


class Vitals(threading.Thread, Closing):
    """Looks again and again: ``with Vitals(pid) as vitals: …; vitals.cpu_between(begun_s, ended_s)``."""

    def __init__(self, pid: int, every_s: float = 0.05) -> None:
        super().__init__(daemon=True)
        self._pid, self._every_s, self._ending = pid, every_s, threading.Event()
        self.samples: list[Sample] = [look(pid)]

    def run(self) -> None:
        while not self._ending.wait(self._every_s):
            sample = look(self._pid)
            if sample.rss_bytes:
                self.samples.append(sample)

    def cpu_between(self, begun_s: float, ended_s: float) -> dict[str, float]:
        """Core seconds from one moment of time.monotonic() to another, kind by kind of process."""
        at_s = [sample.at_s for sample in self.samples]
        spent_s = {}
        for role in sorted({role for sample in self.samples for role in sample.cpu_s}):
            used_s = [sample.cpu_s.get(role, 0.0) for sample in self.samples]
            spent_s[role] = float(np.interp(ended_s, at_s, used_s) - np.interp(begun_s, at_s, used_s))
        return spent_s

    @property
    def largest(self) -> Sample:
        """The sample with the most memory."""
        return max(self.samples, key=lambda sample: sample.total_bytes)

    def __enter__(self) -> Self:
        self.start()
        return self

    def close(self) -> None:
        self._ending.set()
        self.join(10 * self._every_s + 1.0)


def _cpu_s(pid: int) -> float:
    """User and system time, with that of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return TICK_S * sum(int(ticks) for ticks in fields[11:15])


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def _role(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return next((role for word, role in _ROLES.items() if word in words), "service")
