"""`make study TOPIC=goal`: does the interval for the time to the goal hold, over nights whose yield changes?

A night is a row of curves, each kept or not, until the goal is reached or a week is over: all that models.goal is shown
of a night. Its rate of curves, its yield, how that changes and how long it pauses are drawn anew for each, by none of
the ways in which models.goal thinks of them. *steady*: it stays. *wearing*: it falls, to a half in one to six hours.
*tips*: after two to five hours another tip is put in, which takes a while, and yields more or less; each wears.
*spots*: every 15 to 60 minutes another spot of the sample, one in eight of them empty. *drift*: it swings about its
mean, to and fro in some hours. Every night has short pauses, and one in three a long one.

The question is asked at the moment of the fifth kept, of the 10th, 20th and 35th, and at moments that have nothing to
do with the curves. *holds*: the truth, pauses and all, lies in the interval; where the goal is not reached within the
week, the interval must have no end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from daemon.common.options import Option
from daemon.common.stdio import progress
from daemon.common.text import align
from models.files import write_whole
from models.goal import FEWEST, HORIZON_S, WANTED, outlook
from tests.studies.workplace import percent, share

Floats = NDArray[np.float64]

KINDS = ("steady", "wearing", "tips", "spots", "drift")
ASKED = (FEWEST, 10, 20, 35)
_HOUR_S = 3_600.0
_MOMENTS = 4  # of a night, at which somebody looks
_STEP_S = 60.0  # for so long the yield stays the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults take two minutes of one core."""

    nights: Annotated[int, Option("that are replayed, the kinds in turn", "N")] = 1000
    seed: Annotated[int, Option("of all draws; models/goal.py was set on 1", "N")] = 2
    out: Annotated[Path | None, Option("the table as JSON", "FILE.json")] = None


@dataclass(frozen=True, slots=True, eq=False)
class Night:
    """Its curves until the goal is reached, or a week is over."""

    kind: str
    times_s: Floats  # (N,)
    is_kept: NDArray[np.bool_]  # (N,)

    @property
    def end_s(self) -> float:
        """When the goal was reached; inf: not within a week."""
        return float(self.times_s[-1]) if self.is_kept.sum() >= WANTED else np.inf


def night(kind: str, rng: np.random.Generator) -> Night:
    """One night. Its yields are between 0.2 and 6 % of the curves, a curve comes every 0.7 to 4 s."""
    every_s, base = rng.uniform(0.7, 4.0), np.clip(0.013 * np.exp(0.8 * rng.standard_normal()), 0.002, 0.06)
    false = 0.001 * rng.random()
    changes = _CHANGES[kind](rng)
    pause = _pause(rng)
    times, kept, at_s, count = [], [], 0.0, 0
    while count < WANTED and at_s < HORIZON_S:
        factor, rest_s = next(changes)
        number = max(int(_STEP_S / every_s), 1)
        some = at_s + np.cumsum(every_s * rng.uniform(0.8, 1.2, number))
        marks = rng.random(number) < min(base * factor + false, 0.5)
        times.append(some)
        kept.append(marks)
        count += int(marks.sum())
        at_s = float(some[-1]) + rest_s + next(pause)
    every_time, every_mark = np.concatenate(times), np.concatenate(kept)
    last = int(np.searchsorted(np.cumsum(every_mark), WANTED)) + 1
    return Night(kind, every_time[:last], every_mark[:last])


def _pause(rng: np.random.Generator) -> Iterator[float]:
    """Seconds of rest after each minute of curves."""
    often = rng.uniform(0.0, 0.8) / 60  # a minute
    long_at = int(rng.uniform(30, 400)) if rng.random() < 1 / 3 else -1
    minute = 0
    while True:
        minute += 1
        rest_s = float(rng.gamma(2.0, 240.0)) if rng.random() < often else 0.0
        yield rest_s + (rng.uniform(1800, 7200) if minute == long_at else 0.0)


def _steady(rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    while True:
        yield 1.0, 0.0


def _wearing(rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    half, minute = rng.uniform(60, 360), 0
    floor = rng.uniform(0.05, 0.3)
    while True:
        yield max(2.0 ** (-minute / half), floor), 0.0
        minute += 1


def _tips(rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    while True:
        good, half = np.exp(0.7 * rng.standard_normal()), rng.uniform(120, 600)
        for minute in range(int(rng.uniform(120, 300))):
            yield good * 2.0 ** (-minute / half), 0.0
        yield good, rng.uniform(600, 2400)


def _spots(rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    while True:
        good = 0.0 if rng.random() < 1 / 8 else np.exp(0.6 * rng.standard_normal())
        for _ in range(int(rng.uniform(15, 60))):
            yield good, 0.0


def _drift(rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    memory, at = np.exp(-1.0 / rng.uniform(60, 240)), 0.6 * rng.standard_normal()
    while True:
        yield float(np.exp(at)), 0.0
        at = memory * at + 0.6 * np.sqrt(1 - memory**2) * rng.standard_normal()


_CHANGES = {"steady": _steady, "wearing": _wearing, "tips": _tips, "spots": _spots, "drift": _drift}


@dataclass(frozen=True, slots=True)
class Asked:
    """One interval beside the truth."""

    kind: str
    when: str
    low_s: float
    high_s: float
    truth_s: float

    @property
    def holds(self) -> bool:
        return self.low_s <= self.truth_s <= self.high_s or (np.isinf(self.truth_s) and np.isinf(self.high_s))


def asked_of(one: Night, rng: np.random.Generator) -> Iterator[Asked]:
    """The intervals of a night, each as it was told at its moment."""
    number = np.cumsum(one.is_kept)
    begin = int(np.searchsorted(number, FEWEST))
    if number[-1] < FEWEST:
        return
    moments = {
        f"kept {count}": float(one.times_s[np.searchsorted(number, count)]) for count in ASKED if number[-1] > count
    }
    latest = min(float(one.times_s[-1]), float(one.times_s[begin]) + 12 * _HOUR_S)
    drawn = rng.uniform(float(one.times_s[begin]), latest, _MOMENTS)
    for name, now_s in [*moments.items(), *(("any moment", float(at)) for at in drawn)]:
        seen = int(np.searchsorted(one.times_s, now_s, side="right"))
        goal = outlook(one.times_s[:seen], one.is_kept[:seen], now_s)
        if goal.low_s is not None:
            high_s = np.inf if goal.high_s is None else goal.high_s
            yield Asked(one.kind, name, goal.low_s, high_s, one.end_s - now_s)


def run(options: Options) -> int:
    """Exit 0 with the table."""
    rng = np.random.default_rng(options.seed)
    every: list[Asked] = []
    for number in progress(range(options.nights), "nights", options.nights):
        every += asked_of(night(KINDS[number % len(KINDS)], rng), rng)
    print(write_text(every))
    if options.out is not None:
        write_whole(options.out, json.dumps([asdict(one) for one in every]).encode())
    return 0


def write_text(every: Sequence[Asked]) -> str:
    """How often the interval held, and how wide it was: its ends over the middle of both."""
    rows = [("night", "asked at", "asked", "holds", "too short", "too long", "high over low, median")]
    whens = list(dict.fromkeys(one.when for one in every))
    for kind in ("all", *KINDS):
        for when in whens if kind == "all" else (whens[0], whens[-1]):
            some = [one for one in every if kind in ("all", one.kind) and one.when == when]
            if not some:
                continue
            held = sum(one.holds for one in some)
            late = sum(one.truth_s > one.high_s for one in some)
            wide = float(np.median([one.high_s / max(one.low_s, 1.0) for one in some]))
            rows.append(
                (
                    kind,
                    when,
                    f"{len(some):,}",
                    percent(share(held, len(some))),
                    f"{late / len(some):.1%}",
                    f"{sum(one.truth_s < one.low_s for one in some) / len(some):.1%}",
                    f"{wide:.1f}",
                )
            )
    return "\n".join(align(rows, left=(0, 1)))
