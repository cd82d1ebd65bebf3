"""What a soak must show: nothing lost or doubled, equal contents judged alike, memory flat; and its page."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sqlite3
import subprocess
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from tests.faults.soak.feed import Oracle
from tests.faults.soak.sampling import ROLES, Sample, slope_mb_per_h
from tests.faults.soak.trouble import Fall

_MOST_WAL_MB = 64.0
#: All processes, in the last life of the service, between its first quiet minutes and its last.
_MOST_GROWTH_MB = 32.0
_A_LIFE_H = 0.25  # what lives shorter is still on its way to its size
_WARM_S = 180.0  # of a life, until every path was gone once


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision, as far as it is judged here."""

    seq: int
    key: tuple[str, int]
    at_s: float
    total_s: float
    score: float | None
    verdict: str
    reasons: tuple[str, ...]
    model: str


@dataclass(slots=True)
class Findings:
    """Of everything that must be empty: what is in it."""

    lost: list[tuple[str, int]] = field(default_factory=list)
    doubled: list[tuple[str, int]] = field(default_factory=list)
    strange: list[tuple[str, int]] = field(default_factory=list)  # decided, and never written
    gaps: list[int] = field(default_factory=list)
    unheard: list[int] = field(default_factory=list)  # seqs that `events --follow` missed, or told otherwise
    unlike: list[str] = field(default_factory=list)  # contents that were judged with more scores than one
    said: list[str] = field(default_factory=list)

    def words(self) -> list[str]:
        """What is wrong, one line each."""
        named = {
            "lost": self.lost,
            "decided twice": self.doubled,
            "decided and never written": self.strange,
            "gaps in seq": self.gaps,
            "missed by events --follow": self.unheard,
            "equal contents with different scores": self.unlike,
        }
        return [f"{what}: {len(found)}, as {found[:3]}" for what, found in named.items() if found] + self.said


def read_ledger(file: Path) -> list[Decided]:
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as database:
        return [_decided(json.loads(body)) for (body,) in database.execute("select body from decisions order by seq")]


def _decided(event: dict[str, Any]) -> Decided:
    data = event["data"]
    return Decided(
        seq=event["seq"],
        key=(data["path"], data["curve"]),
        at_s=datetime.fromisoformat(event["time"]).timestamp(),
        total_s=data["latency_s"]["total"],
        score=data["score"],
        verdict=data["verdict"],
        reasons=tuple(data["reasons"]),
        model=data["model"],
    )


def compare(oracle: Oracle, decided: Sequence[Decided], followed: Path) -> Findings:
    """The ledger with what was written, with itself, and with what a client heard through all the kills."""
    times = Counter(one.key for one in decided)
    heard = {event["seq"]: (event["data"]["path"], event["data"]["curve"]) for event in _lines(followed)}
    told = Counter(event["seq"] for event in _lines(followed))
    scores: dict[tuple[str, int], set[float]] = defaultdict(set)
    for one in decided:
        if one.score is not None and not oracle.get(one.key, "waite").startswith("waite"):  # each its own last value
            scores[oracle[one.key], one.key[1]].add(one.score)
    return Findings(
        lost=sorted(oracle.keys() - times.keys()),
        doubled=sorted(key for key, count in times.items() if count > 1),
        strange=sorted(times.keys() - oracle.keys()),
        gaps=[
            one.seq for one, expected in zip(decided, range(1, len(decided) + 1), strict=True) if one.seq != expected
        ],
        unheard=[one.seq for one in decided if heard.get(one.seq) != one.key or told[one.seq] != 1],
        unlike=[f"{content}#{curve}: {len(them)} scores" for (content, curve), them in scores.items() if len(them) > 1],
    )


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


def quiet_minutes(begun_s: float, ended_s: float, falls: Sequence[Fall]) -> set[int]:
    """Whole minutes (of time.time()) that nothing touched."""
    minutes = range(int(begun_s // 60) + 1, int(ended_s // 60))
    return {minute for minute in minutes if not any(fall.touches(minute * 60, minute * 60 + 60) for fall in falls)}


def latency_rows(decided: Sequence[Decided], quiet: set[int], oracle: Oracle) -> list[str]:
    """p50, p99 and the longest, in seconds from the finished file to the commit, of quiet minutes and the others."""
    rows = [f"{'':<36}{'curves':>9}{'p50 s':>9}{'p99 s':>9}{'most s':>9}"]
    for is_map, what in ((False, "a curve a file, or sent"), (True, "curves of maps of 100")):
        for is_quiet, when in ((True, "quiet"), (False, "disturbed")):
            found = [
                one.total_s
                for one in decided
                if ((int(one.at_s // 60) in quiet) is is_quiet) and oracle.get(one.key, "").startswith("map") is is_map
            ]
            if found:
                p50, p99 = np.percentile(found, (50, 99))
                rows.append(f"{what + ', ' + when:<36}{len(found):>9,}{p50:>9.3f}{p99:>9.3f}{max(found):>9.2f}")
    return rows


@dataclass(frozen=True, slots=True)
class Flat:
    """The last life of the service: it went through everything but the kills."""

    samples: tuple[Sample, ...]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Self:
        """From when the last process was warm, where it lived so long."""
        last = [one for one in samples if one.pid == samples[-1].pid]
        return cls(tuple(one for one in last if one.at_s - last[0].at_s > _WARM_S) or tuple(last))

    @property
    def hours(self) -> float:
        return (self.samples[-1].at_s - self.samples[0].at_s) / 3600 if self.samples else 0.0

    def rows(self) -> list[str]:
        """Memory of each role at the begin and at the end (medians of a tenth each), and the slope between."""
        rows = [f"{'':<10}{'begin MB':>10}{'end MB':>10}{'most MB':>10}{'slope MB/h':>12}"]
        tenth = max(len(self.samples) // 10, 1)
        for role in (*ROLES, None):
            memory = [one.total_mb if role is None else one.memory_mb[role] for one in self.samples]
            begin, end = np.median(memory[:tenth]), np.median(memory[-tenth:])
            slope = slope_mb_per_h(self.samples, role)
            rows.append(f"{role or 'all':<10}{begin:>10.1f}{end:>10.1f}{max(memory):>10.1f}{slope:>12.1f}")
        return rows

    def tenths(self) -> str:
        """The median memory of each tenth."""
        parts = np.array_split([one.total_mb for one in self.samples], min(10, len(self.samples)))
        return " ".join(f"{np.median(part):.0f}" for part in parts)

    def growth(self, of: str) -> float:
        """Between the first tenth and the last, of "total_mb", "threads" or "descriptors"."""
        tenth = max(len(self.samples) // 10, 1)
        values = [float(getattr(one, of)) for one in self.samples]
        return float(np.median(values[-tenth:]) - np.median(values[:tenth]))

    def words(self) -> list[str]:
        """What is not flat."""
        if self.hours < _A_LIFE_H:
            return []
        said = []
        if (grown := self.growth("total_mb")) > _MOST_GROWTH_MB:
            said.append(f"memory grew by {grown:.0f} MB in {self.hours:.2f} h")
        said += [f"{of} grew by {self.growth(of):g}" for of in ("threads", "descriptors") if self.growth(of) > 2]
        if (wal := max(one.wal_mb for one in self.samples)) > _MOST_WAL_MB:
            said.append(f"the WAL grew to {wal:.0f} MB")
        return said


def machine() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(": ")[2] if names else platform.machine()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return f"{os.cpu_count()} cores ({name}), Python {platform.python_version()}, commit {commit.stdout.strip()}"


def today() -> str:
    return datetime.now(UTC).date().isoformat()
