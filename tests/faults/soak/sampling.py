"""What a soaked service takes while it works: memory, threads and descriptors of each process, WAL, the books."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.faults.harness import identity_holds, scrape
from tests.faults.lab import Lab

ROLES = ("service", "readers", "others")


@dataclass(frozen=True, slots=True)
class Sample:
    """At ``at_s`` (time.time()); memory in MB (PSS, so that what is shared counts once) by role."""

    at_s: float
    pid: int
    memory_mb: dict[str, float]
    threads: int
    descriptors: int
    wal_mb: float
    ledger_mb: float
    cpu_s: float

    @property
    def total_mb(self) -> float:
        return sum(self.memory_mb.values())


class Sampler(threading.Thread):
    """Looks every ``pause_s``; between a kill and the next start there is nothing to see."""

    def __init__(self, lab: Lab, pause_s: float, file: Path) -> None:
        super().__init__(name="sampler", daemon=True)
        self._lab, self._pause_s, self._done = lab, pause_s, threading.Event()
        self._file = file  # as they come, for whoever looks while it works
        self.samples: list[Sample] = []
        self.scrapes = self.unbalanced = 0
        self.pruned: Counter[str] = Counter()  # by the process that lives
        self._lives: dict[int, dict[str, float]] = {}

    def run(self) -> None:
        while not self._done.wait(self._pause_s):
            with suppress(OSError, ValueError, IndexError, AttributeError):  # it has just been killed, or just starts
                self._look()

    def stop(self) -> None:
        self._done.set()
        self.join(30)

    def _look(self) -> None:
        process = self._lab.process
        if process is None or process.poll() is not None:
            return
        memory = dict.fromkeys(ROLES, 0.0)
        threads = descriptors = 0
        for pid in self._lab.processes():
            with suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                memory[role_of(pid, process.pid)] += int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0]) / 1024
                threads += len(os.listdir(f"/proc/{pid}/task"))
                descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        numbers = scrape(self._lab)
        self.scrapes += 1
        self.unbalanced += not identity_holds(numbers)
        self._lives[process.pid] = {key: value for key, value in numbers.items() if "_canary_total" in key}
        self.pruned = Counter(
            {re.findall(r'"(\w+)"', key)[0]: int(value) for key, value in numbers.items() if "_pruned_total" in key}
        )
        ledger = self._lab.state / "ledger.sqlite"
        sample = Sample(
            at_s=time.time(),
            pid=process.pid,
            memory_mb=memory,
            threads=threads,
            descriptors=descriptors,
            wal_mb=(self._lab.state / "ledger.sqlite-wal").stat().st_size / 1e6,
            ledger_mb=ledger.stat().st_size / 1e6,
            cpu_s=self._lab.cpu_s(),
        )
        self.samples.append(sample)
        words = [f"{sample.at_s:.0f}", sample.pid, *(f"{memory[role]:.1f}" for role in ROLES), threads, descriptors]
        with self._file.open("a") as file:
            print(*words, f"{sample.wal_mb:.1f}", f"{sample.ledger_mb:.0f}", sep=",", file=file)

    def canaries_told(self) -> dict[str, int]:
        """Result -> how many, over all lives of the service, as far as a scrape saw them."""
        told: dict[str, int] = {}
        for life in self._lives.values():
            for key, value in life.items():
                word = re.findall(r'result="(\w+)"', key)[0]
                told[word] = told.get(word, 0) + int(value)
        return told


def role_of(pid: int, service: int) -> str:
    if pid == service:
        return "service"
    return "readers" if b"daemon.reading.worker" in Path(f"/proc/{pid}/cmdline").read_bytes() else "others"


def slope_mb_per_h(samples: Sequence[Sample], role: str | None = None) -> float:
    """Least squares over the samples; of all processes without a ``role``."""
    if len(samples) < 3:
        return 0.0
    hours = np.array([(one.at_s - samples[0].at_s) / 3600 for one in samples])
    memory = np.array([one.total_mb if role is None else one.memory_mb[role] for one in samples])
    return float(np.polyfit(hours, memory, 1)[0])
