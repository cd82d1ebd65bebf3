"""The machine: what the figures were taken on, and whether it was left alone meanwhile."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

from daemon.common import ending
from deploy.cpu import usable_cores

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
