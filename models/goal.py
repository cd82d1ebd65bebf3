"""The goal: how long until so many curves are kept, as an interval that is right nine times in ten.

A run alternates between stretches in which curves come, and pauses. While curves come, events are kept at random
moments at some rate (a Poisson process), and the rate changes: its logarithm wanders, as a tip wears, and jumps now
and then, as where a tip is changed or another spot of the sample is taken. What the rate is now follows from the
moments at which curves were kept, by a forward filter on a grid (Rabiner 1989, Proc. IEEE 77, 257); of a rate that
stays, asked at the moment of the k-th, that is the gamma distribution of k events in the time that passed, and the time
to m more over it follows the exact F distribution. From there futures are drawn, with pauses as long and as often as
there were, and as a night usually has: between their 5 % and 95 % quantiles lies the interval. The draws are always the
same ones, so that the same run gives the same words.

How fast rates change and how often a night pauses was set on simulated nights of several kinds; whether the interval
holds was then asked of others (`make study TOPIC=goal`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Curves to be kept, where a session names no number.
WANTED = 50
#: With fewer kept nothing is foretold.
FEWEST = 5
#: The chance that the time comes to lie in the interval.
CONFIDENCE = 0.9
#: Nothing is foretold beyond.
HORIZON_S = 7 * 86_400.0
#: Between two curves: so long, and so many times the usual, is a pause.
_PAUSE_S, _PAUSE_TIMES = 60.0, 20.0
_HOUR_S = 3_600.0
#: The logarithm of the rate wanders by so much in an hour (rms), and jumps by so much (rms) so often in an hour.
_WANDER, _JUMP, _JUMPS_PER_H = 0.15, 1.0, 0.18
#: Pauses of a night of which nothing is known: as many as were seen in so many hours; their median, and its spread.
_PAUSES, _PAUSES_H, _LENGTH_S, _SPREAD = 0.3, 1.0, 600.0, 1.0
_LEVELS = np.linspace(math.log(0.02 / _HOUR_S), math.log(5_000 / _HOUR_S), 96)
_STEPS_PER_H, _MOST_STEPS, _FEWEST_STEPS = 12, 96, 8
_FUTURES = 512


@dataclass(frozen=True, slots=True)
class Goal:
    """Times are seconds from now, all None while it is too early to say; ``high_s`` alone None: no end in sight."""

    kept: Annotated[int, Meta(ge=0, description="kept so far, less those that a person said no to")]
    wanted: Annotated[int, Meta(ge=1, description="the number in the session's goal, else 50")]
    low_s: Annotated[float | None, Meta(description="seconds from now, at least; 90 % between low_s and high_s")]
    likely_s: Annotated[float | None, Meta(description="seconds from now, as likely longer as shorter")]
    high_s: Annotated[float | None, Meta(description="seconds from now, at most; null with low_s: no end in sight")]
    text: Annotated[str, Meta(description="the same in words, for people")]


def outlook(
    times_s: ArrayLike, is_kept: ArrayLike, now_s: float, wanted: int = WANTED, before: int = 0, said: str = ""
) -> Goal:
    """The goal of a run. ``times_s`` (N,): when each of its curves was measured, in any order; ``is_kept`` (N,).

    ``now_s`` by the same clock; one that lies before the last curve counts as that. ``before``: kept earlier in the
    run, by curves that are not among these. ``said``: for the words, why not as many count as the network has kept.
    Some milliseconds.
    """
    times, marks = np.asarray(times_s, np.float64), np.asarray(is_kept, np.bool_)
    kept = before + int(marks.sum())
    if kept >= wanted or kept < FEWEST or not times.size:
        return told(kept, wanted, said=said)
    run = _run(times, marks, now_s)
    if run.seconds <= 0.0:
        return told(kept, wanted, said=said)  # all of one moment, as the curves of a map
    futures = _futures(run, wanted - kept)
    low, likely, high = (float(one) for one in np.quantile(futures, (0.05, 0.5, 0.95), method="higher"))
    times_told = low, likely if likely < HORIZON_S else None, high if high < HORIZON_S else None
    return told(kept, wanted, times_told, said, run.open_s)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    seconds: float  # in which curves came
    kept_s: Floats  # of these, when one was kept
    pauses_s: Floats  # how long each pause was
    open_s: float  # for how long no curve has come, where that is a pause; else 0


def _run(times: Floats, marks: NDArray[np.bool_], now_s: float) -> _Run:
    order = np.argsort(times, kind="stable")
    times, marks = times[order], marks[order]
    gaps = np.diff(times)
    usual = float(np.median(gaps[gaps > 0])) if np.any(gaps > 0) else 0.0
    limit = max(_PAUSE_S, _PAUSE_TIMES * usual)
    is_pause = gaps > limit
    running = np.concatenate(([0.0], np.cumsum(np.where(is_pause, usual, gaps))))
    silent = max(now_s - float(times[-1]), 0.0)
    open_s = silent if silent > limit else 0.0
    seconds = float(running[-1]) + (usual if open_s else silent)
    return _Run(seconds, running[marks], gaps[is_pause], open_s)


def _rate_now(run: _Run) -> Floats:
    """(96,): how likely each level of the rate is now."""
    steps = int(np.clip(math.ceil(run.seconds / _HOUR_S * _STEPS_PER_H), _FEWEST_STEPS, _MOST_STEPS))
    step_s = run.seconds / steps
    counts, _ = np.histogram(run.kept_s, steps, (0.0, run.seconds))
    change, chance = _changes(round(step_s, 3)), np.full(_LEVELS.size, 1.0 / _LEVELS.size)
    for number, count in enumerate(counts):
        if number:
            chance = chance @ change
        with np.errstate(under="ignore"):
            log = count * _LEVELS - np.exp(_LEVELS) * step_s
            chance = chance * np.exp(log - log.max())
        chance = chance / chance.sum()
    return chance


@lru_cache(8)
def _changes(step_s: float) -> Floats:
    """(96, 96): the chances from one level to another within a step."""
    hours = step_s / _HOUR_S
    apart = _LEVELS[:, None] - _LEVELS[None, :]
    space = _LEVELS[1] - _LEVELS[0]
    jump = -math.expm1(-_JUMPS_PER_H * hours)

    def normal(variance: float) -> Floats:
        with np.errstate(under="ignore"):
            found = np.exp(-0.5 * apart**2 / (variance + space**2 / 12))
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    wander = _WANDER**2 * hours
    if wander < space**2:  # less than a level, which would be lost between two: it moves to the next one now and then
        near = np.eye(_LEVELS.size) * (1 - wander / space**2)
        for side in (-1, 1):
            near += np.eye(_LEVELS.size, k=side) * 0.5 * wander / space**2
        small = near / near.sum(axis=1, keepdims=True)
    else:
        small = normal(wander)
    return np.asarray((1 - jump) * small + jump * normal(_JUMP**2))


def _futures(run: _Run, missing: int) -> Floats:
    """(512,): seconds from now until so many more are kept, each as likely as any other; inf: beyond the horizon."""
    rng = np.random.default_rng(0)
    chance = _rate_now(run)
    space = _LEVELS[1] - _LEVELS[0]
    places = (np.arange(_FUTURES) + 0.5) / _FUTURES
    level = np.interp(places, np.cumsum(chance), _LEVELS + 0.5 * space)
    rng.shuffle(level)
    wanted = rng.standard_gamma(missing, _FUTURES)
    usual_s = missing / math.exp(float(np.median(level)))
    edges = np.minimum(usual_s / 40 * np.cumsum(1.05 ** np.arange(220)), HORIZON_S)
    edges = edges[: int(np.searchsorted(edges, HORIZON_S)) + 1]
    found, gathered, before = np.full(_FUTURES, np.inf), np.zeros(_FUTURES), 0.0
    for edge in edges:
        step_s = edge - before
        hours = step_s / _HOUR_S
        level = level + _WANDER * math.sqrt(hours) * rng.standard_normal(_FUTURES)
        jumps = rng.random(_FUTURES) < -math.expm1(-_JUMPS_PER_H * hours)
        level = level + np.where(jumps, _JUMP * rng.standard_normal(_FUTURES), 0.0)
        level = np.clip(level, _LEVELS[0], _LEVELS[-1])
        more = np.exp(level) * step_s
        is_there = np.isinf(found) & (gathered + more >= wanted)
        found[is_there] = before + step_s * (wanted - gathered)[is_there] / more[is_there]
        gathered, before = gathered + more, float(edge)
        if not np.any(np.isinf(found)):
            break
    return found + _pauses(run, found, rng)


def _pauses(run: _Run, running_s: Floats, rng: np.random.Generator) -> Floats:
    """(512,): how long no curve comes until then."""
    often = rng.standard_gamma(_PAUSES + run.pauses_s.size, _FUTURES) / (_PAUSES_H * _HOUR_S + run.seconds)
    counts = rng.poisson(often * np.minimum(running_s, HORIZON_S))
    counts = np.minimum(counts, 500)
    owner = np.repeat(np.arange(_FUTURES), counts)
    lengths = _lengths(run, owner.size, rng)
    total = np.bincount(owner, lengths, _FUTURES)
    if run.open_s:
        whole = _lengths(run, 16 * _FUTURES, rng).reshape(16, _FUTURES)
        is_longer = whole > run.open_s  # the first of such: the least of them would end every pause too soon
        longer = np.where(is_longer.any(axis=0), whole[is_longer.argmax(axis=0), np.arange(_FUTURES)], np.inf)
        rest = np.where(np.isfinite(longer), longer - run.open_s, run.open_s * rng.pareto(1.5, _FUTURES))
        total = total + rest
    return np.asarray(total)


def _lengths(run: _Run, count: int, rng: np.random.Generator) -> Floats:
    """As the pauses of this run were, and as two usual ones."""
    usual = _LENGTH_S * np.exp(_SPREAD * rng.standard_normal(count))
    if not run.pauses_s.size:
        return np.asarray(usual)
    own = rng.choice(run.pauses_s, count) * np.exp(0.5 * rng.standard_normal(count))
    return np.asarray(np.where(rng.random(count) < 2 / (2 + run.pauses_s.size), usual, own))


def told(
    kept: int,
    wanted: int,
    times_s: tuple[float, float | None, float | None] | None = None,
    said: str = "",
    silent_s: float = 0.0,
) -> Goal:
    """The goal with its words. ``times_s``: low, likely and high; None: too early to say, or there.

    ``said`` as for :func:`outlook`; ``silent_s``: for so long no curve has come, where that is a pause, else 0.
    """
    so_far = f"{kept:,} of {wanted:,} kept{said and f' ({said})'}"
    if kept >= wanted:
        return Goal(kept, wanted, 0.0, 0.0, 0.0, f"{so_far}: the goal is reached")
    if times_s is None:
        why = f": from {FEWEST} on the time to {wanted:,} is foretold" if kept < FEWEST else ""
        return Goal(kept, wanted, None, None, None, f"{so_far}, too early to say how long{why}")
    low_s, likely_s, high_s = times_s
    until = f"{_words(low_s)} or more, no end in sight" if high_s is None else f"{_words(low_s)} to {_words(high_s)}"
    likely = "" if likely_s is None else f", likely {_words(likely_s)}"
    if silent_s:  # when it goes on is the first question, and what is likeliest then nobody knows
        so_far, likely = f"{so_far}; stands still for {_words(silent_s)}", ""
    return Goal(kept, wanted, low_s, likely_s, high_s, f"{so_far}; {wanted:,} in {until} (90 %){likely}")


def of_old_files(kept: int, wanted: int, said: str = "") -> Goal:
    """Where the curves that come were measured days ago: their times say nothing of when there will be enough."""
    goal = told(kept, wanted, said=said)
    if kept >= wanted:
        return goal
    words = goal.text.partition(", too early")[0]
    return replace(goal, text=f"{words}; of files of other days no time is foretold")


def _words(seconds: float) -> str:
    """``12 min``, ``1 h 40 min``, ``2 d 3 h``: no finer than it is known."""
    minutes = max(round(seconds / 60), 1)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(round(minutes / 5) * 5, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
