"""The machine: what the figures were taken on, and whether it was left alone meanwhile."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from daemon.common import ending
from daemon.common.ending import Closing
from daemon.formats import find_reader, open_file
from daemon.formats.base import Blob, Unfinished, Unreadable
from daemon.reading.ahead import find
from daemon.sources import Arrival
from deploy.classifier import usable_cores
from models.curve import Curve

TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
#: Cores that others may use, and load of the last minute, before a figure is worth a warning.
QUIET_CORES, QUIET_LOAD = 0.15, 1.0
_IDLE = (3, 4)  # columns of /proc/stat: idle, waiting for a disk


@dataclass(frozen=True, slots=True)
class Machine:
    """Before the run."""

    cores: int
    processor: str
    architecture: str
    python: str
    load: float  # average over the last minute
    others_cores: float  # in use by anybody, over the last second

    @property
    def warning(self) -> str | None:
        """What makes the figures doubtful."""
        if self.others_cores < QUIET_CORES and self.load < QUIET_LOAD:
            return None
        return (
            f"the machine is busy (load {self.load:.2f}, {self.others_cores:.2f} of {self.cores} cores in use): "
            "figures taken now are disturbed"
        )


def look(seconds: float = 1.0) -> Machine:
    """Takes ``seconds``."""
    begun_s, before_s = time.monotonic(), _busy_s()
    ending.pause(seconds)
    others = (_busy_s() - before_s) / (time.monotonic() - begun_s)
    return Machine(
        cores=usable_cores(),
        processor=_processor(),
        architecture=platform.machine(),
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
        others_cores=round(others, 2),
    )


class Others:
    """The rest of the machine while this process and its children were at work."""

    def __init__(self) -> None:
        self._begun_s, self._busy_s, self._own_s = time.monotonic(), _busy_s(), _own_s()

    def cores(self) -> float:
        """In use by others since the beginning, on average; children count as others until they have ended."""
        theirs_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        return max(theirs_s, 0.0) / max(time.monotonic() - self._begun_s, 1e-9)


def _busy_s() -> float:
    """Core seconds since the machine started in which somebody computed."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return TICK_S * sum(int(ticks) for place, ticks in enumerate(fields) if place not in _IDLE)


def _own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, "processor unknown")
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return name + "".join(f", {flag}" for flag in ("avx512_bf16", "amx_bf16") if flag in flags)


# Busy neighbours: processes that do nothing but compute, as an acquisition program may.

#: Ends with whoever started it, even if that one is killed before this begins.
_SPIN = """
import os, sys
parent = int(sys.argv[1])
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def neighbours(count: int) -> Iterator[list[int]]:
    """``count`` processes that spin, as long as the block lasts; their ids."""
    command = [sys.executable, "-c", _SPIN, str(os.getpid())]
    quiet = subprocess.DEVNULL
    spinning = [subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) for _ in range(count)]
    try:
        yield [process.pid for process in spinning]
    finally:
        for process in spinning:
            process.kill()
        for process in spinning:
            process.wait(10.0)


# The families of file formats: what reading costs depends on them more than on anything else.

POINTS = 4096  # of a retract: what the bars speak of
OTHERS = "others"
_NAMES = {"jpk": "JPK", "nanoscope": "NanoScope", "": OTHERS}  # by the format that a reader declares
_MOST = 8  # files


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Files of one curve each. Of JPK and NanoScope those whose retracts come closest to POINTS."""

    name: str
    arrivals: tuple[Arrival, ...]
    curves: tuple[Curve, ...]

    @property
    def points(self) -> int:
        """Of the shortest retract."""
        return min(map(len, self.curves))


def families(folders: Iterable[Path]) -> list[Family]:
    """The families of which ``folders`` hold a file that can be read."""
    found: dict[str, list[tuple[Arrival, Curve]]] = {name: [] for name in _NAMES.values()}
    for arrival in find(folders):
        try:
            curves = open_file(arrival.file, arrival.companion)
        except (Unfinished, Unreadable, OSError):
            continue
        if len(curves) == 1:
            found[_name_of(arrival.file)].append((arrival, curves[0]))
    return [_family(name, pairs) for name, pairs in found.items() if pairs]


def _family(name: str, pairs: Sequence[tuple[Arrival, Curve]]) -> Family:
    if name != OTHERS:
        nearest = min(_distance(curve) for _, curve in pairs)
        pairs = [(arrival, curve) for arrival, curve in pairs if _distance(curve) <= nearest][:_MOST]
    return Family(name, tuple(arrival for arrival, _ in pairs), tuple(curve for _, curve in pairs))


def _distance(curve: Curve) -> float:
    """From POINTS, in octaves, to a tenth: 4000 points are as good as 4096."""
    return round(abs(math.log2(len(curve) / POINTS)), 1)


def _name_of(file: Path) -> str:
    reader = find_reader(file.name, Blob(file, is_final=True))
    return OTHERS if reader is None else _NAMES.get(reader.format.name, OTHERS)


# CPU time and memory of a process with all that it started, from /proc.

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


def usage(pid: int) -> Sample:
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


class ProcessMonitor(threading.Thread, Closing):
    """Looks again and again: ``with ProcessMonitor(pid) as monitor: …; monitor.cpu_between(begun_s, ended_s)``."""

    def __init__(self, pid: int, every_s: float = 0.05) -> None:
        super().__init__(daemon=True)
        self._pid, self._every_s, self._ending = pid, every_s, threading.Event()
        self.samples: list[Sample] = [usage(pid)]

    def run(self) -> None:
        while not self._ending.wait(self._every_s):
            sample = usage(self._pid)
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
