"""Enough looked at: when a person may leave a pile, with a promise about the events that are still in it.

Two orders share the places of a pile. *Ranked* curves come because an event is likely there; what is found on them says
nothing of the rest. *Drawn* curves come by chance: each curve has a secret place from 0 to 1, drawn uniformly and
independently of everything else, and a *front* moves over these places from 0 on; the next drawn curve is the one that
it meets next. Begin with the first drawn look, and let r events be unlooked at then. However the ranking goes on, the
number of those r whose place lies below the front is binomial, and it is known, because every curve below the front has
been looked at, by either order. That the r stand still while the ranking looks at some of them is all the proof needs.

*Enough.* With s events seen before the first drawn look and h events below the front, a promise of at most 5 % unseen
must refute r >= q + h, q = s // 19 + 1. So there is a front for each h, where r >= q + h is refuted if at most h events
lie below it. The fronts are the smallest that keep the chance of ever refuting what is true at 4.5 % for every
r, exactly, by the recursion of a group-sequential test (Armitage, McPherson & Rowe 1969, JRSS A 132, 235). Without an
event below it the first is 1 - 0.045^(1/q): 0.40 for 100 events seen, 0.25 for 200.

*On the way*, and where more turned up than was planned for, a bet bounds r (as :func:`models.anytime.lost_bound`): the
stake is multiplied by b (1 - u)^(b-1) for each of the r events that the front met at u, and by (1 - front)^(b-1) for
each that it has not met; its mean stays 1. It is looked at with the 0.5 % that are left.

A curve that may be an event (unsure, raters differ) counts as one wherever that makes the promise harder to give, and
not among the events seen. One below the front that nobody has answered, because it was passed over or came later,
counts as an event that was met and is still unseen. So nothing is gained by choosing what to answer.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: At most this share of the events of a pile is unseen, where it is said to be enough.
UNSEEN = 0.05
CONFIDENCE = 0.95
#: Piles in which fewer events were seen are looked at whole: a promise would need nearly all of it anyway.
FEWEST = 20
_WRONG_STOP, _WRONG_SHOWN = 0.045, 0.005  # together what the confidence leaves
#: The whole bet on each event (0) dies when one is met; the others live on.
_BETS = np.array([0.0, 0.03, 0.1, 0.2, 0.35, 0.55, 0.75])
_STAKES = np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
#: The ranking is dry when its last looks, a tenth of what is left and twenty at least, brought few events beside what
#: each unseen one costs in drawn looks. Tuned on simulated piles only.
_WINDOW, _FEWEST_WINDOW, _DRY = 0.1, 20, 0.25
#: Where the promise lies behind this front, ranked and drawn curves alternate: finding comes before proving.
_FAR = 0.8
_MOST_FRONTS = 80


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """A looks at a pile, in the order in which each of its curves was first looked at."""

    places: Floats  # (A,), secret, 0 to 1
    is_drawn: NDArray[np.bool_]  # (A,), whether its turn came by its place
    is_event: NDArray[np.bool_]  # (A,), certain or possible
    is_sure: NDArray[np.bool_]  # (A,), certain


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a pile stands."""

    looked: int
    left: int
    seen: int  # certain events
    unseen_bound: int | None  # at most so many events are left, 95 % sure; None while nothing is known
    likely: int | None  # events of the pile, about
    more: int | None  # looks until it is enough, about; None where that is not before the end
    is_begun: bool  # whether curves have been drawn
    is_enough: bool
    drawn_share: float  # of the next places: 0, 0.5 or 1

    @property
    def text(self) -> str:
        """In words, without a capital."""
        said = f"looked at {self.looked:,} of {self.looked + self.left:,}"
        if not self.left:
            return f"{said}: all, with {_events(self.seen)}" if self.looked else "nothing to look at yet"
        if self.is_enough:
            bound = "no event" if not self.unseen_bound else f"at most {_events(self.unseen_bound)}"
            return f"enough: {said}, and {bound} of about {self.likely:,} unseen (95 % sure)"
        if not self.is_begun and self.seen < FEWEST:
            return f"{said}, {_events(self.seen)} seen; with fewer than {FEWEST} events look at all"
        more = "look at all for 5 %" if self.more is None else f"about {self.more:,} more for 5 %"
        if self.unseen_bound is None or self.likely is None:
            return f"{said}, {_events(self.seen)} seen; {more}"
        return f"{said}: at most {self.unseen_bound:,} of about {self.likely:,} events unseen (95 % sure); {more}"


def secret_places(key: str, numbers: ArrayLike) -> Floats:
    """The secret place of each curve by its number: uniform from 0 to 1, and nobody's choice. (N,) -> (N,)."""
    seed = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=16).digest(), np.uint64)
    mixed = np.asarray(numbers, np.uint64) * np.uint64(0x9E3779B97F4A7C15) + seed[0]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # SplitMix64 (Steele et al. 2014)
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed = (mixed ^ (mixed >> np.uint64(31))) ^ seed[1]
    return np.asarray((mixed >> np.uint64(11)) / 2.0**53, np.float64)


def stand(looks: Looks, left: ArrayLike) -> Standing:
    """What may be said of a pile, and how the next places are taken. ``left`` (n,): places of what nobody looked at.

    Some milliseconds for 5,000 curves. May be asked at any moment: of a pile to which nothing is added all that it ever
    says is right together, 95 % sure; of one that grows, what it says of each size.
    """
    unlooked = np.sort(np.asarray(left, np.float64))
    seen, drawn = int(looks.is_sure.sum()), np.flatnonzero(looks.is_drawn)
    if not drawn.size:
        return _before(looks, unlooked, seen)
    begin, front = int(drawn[0]), float(looks.places[drawn].max())
    since = looks.is_event[begin:]
    found, met_at = int(since.sum()), looks.places[begin:][since]
    open_at = unlooked[unlooked <= front]
    met_at = np.sort(np.concatenate((met_at[met_at <= front], open_at)))
    level = int(looks.is_sure[:begin].sum()) // 19 + 1
    most = min(_refuted_from(level, met_at, front), _bet_bound(met_at, front, found + unlooked.size)) - found
    if most < open_at.size:
        most = unlooked.size  # more turned up than had been left: the one case in twenty
    most = min(most, unlooked.size)
    is_enough = not unlooked.size or 19 * most <= seen
    rest = max((met_at.size + 0.5) / (front + 0.25) - found, 0.0)
    more, is_far = None, True
    if not is_enough:
        more, is_far = _forecast(level, met_at.size, front, unlooked)
    return Standing(
        looks.places.size,
        unlooked.size,
        seen,
        most,
        seen + min(round(rest), most),
        more,
        True,
        is_enough,
        0.0 if is_enough else 0.5 if is_far else 1.0,
    )


def _before(looks: Looks, unlooked: Floats, seen: int) -> Standing:
    """While all curves come by their rank."""
    window = max(_FEWEST_WINDOW, int(_WINDOW * unlooked.size))
    level = seen // 19 + 1
    is_dry = looks.places.size >= window and looks.is_event[-window:].sum() + 0.3 < _DRY * level
    is_due = is_dry and seen >= FEWEST and unlooked.size > 0
    more = None
    if seen >= FEWEST:
        wait = 0 if is_dry else min(window, unlooked.size)
        more = wait + math.ceil(_fronts(level, 1)[0] * (unlooked.size - wait))
    is_all = not unlooked.size
    return Standing(
        looks.places.size,
        unlooked.size,
        seen,
        0 if is_all else None,
        seen if is_all else None,
        more,
        False,
        is_all,
        float(is_due),
    )


def _refuted_from(level: int, met_at: Floats, front: float) -> int:
    """The most events that can have been left at the first drawn look, by the fronts that were passed."""
    for number in range(_MOST_FRONTS):
        limit = _fronts(level, number + 1)[number]
        if limit > front:
            break
        if int(np.searchsorted(met_at, limit, side="right")) <= number:
            return level + number - 1
    return 1 << 40


def _fronts(level: int, count: int) -> list[float]:
    """The first ``count`` fronts: r >= level + h is refuted where at most h of them lie below front h."""
    known = _KNOWN.setdefault(level, [])
    while len(known) < count:
        known.append(_next_front(level, tuple(known)))
    return known


_KNOWN: dict[int, list[float]] = {}
_LOG_FACTORIALS = np.array([math.lgamma(n + 1) for n in range(10_000)])


def _next_front(level: int, fronts: tuple[float, ...]) -> float:
    """So that as many events as are to be refuted from it on are refuted, when true, in 4.5 % at the most."""
    number = len(fronts)
    events = level + number
    chance = np.zeros(events + 1)  # of so many met, and nothing refuted yet
    chance[0] = 1.0
    spent, before = 0.0, 0.0
    for passed, front in enumerate(fronts):
        chance = chance @ _moves(events, (front - before) / (1 - before))
        spent += float(chance[: passed + 1].sum())
        chance[: passed + 1] = 0.0
        before = front
    # Refuted anew is only who has met exactly so many, and meets none until the front.
    stays = min((_WRONG_STOP - spent) / chance[number], 1.0) if chance[number] > 0 else 1.0
    return float(1.0 - (1.0 - before) * max(stays, 0.0) ** (1.0 / level))


def _moves(events: int, share: float) -> Floats:
    """(events + 1, events + 1): chances from so many met to so many, each of the others with the chance ``share``."""
    start, stop = np.meshgrid(np.arange(events + 1), np.arange(events + 1), indexing="ij")
    new, rest = np.maximum(stop - start, 0), np.maximum(events - stop, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log = _LOG_FACTORIALS[events - start] - _LOG_FACTORIALS[new] - _LOG_FACTORIALS[rest]
        log = log + np.where(new > 0, new * np.log(share), 0.0) + rest * np.log1p(-share)
    return np.where(stop >= start, np.exp(log), 0.0)


def _bet_bound(met_at: Floats, front: float, most: int) -> int:
    """The most events that can have been left at the first drawn look, by the bet; ``most``: there are not more."""
    against, met = -math.log(_WRONG_SHOWN), met_at.size
    with np.errstate(divide="ignore"):
        logs = np.log(_STAKES) + (met * np.log(_BETS) if met else 0.0)
    logs = logs - (1 - _BETS) * float(np.log1p(-np.minimum(met_at, 1 - 1e-12)).sum())
    rise = -(1 - _BETS) * math.log1p(-min(front, 1 - 1e-12))
    low, high = 0, most - met + 1  # so many not met yet are not refuted; so many are, or there are not so many
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if np.logaddexp.reduce(logs + middle * rise) >= against else (middle, high)
    return met + low


def _forecast(level: int, met: int, front: float, unlooked: Floats) -> tuple[int | None, bool]:
    """About how many more looks until it is enough, None for all; whether that is far."""
    rest = (met + 0.5) / (front + 0.25) * (1 - front)
    for number in range(met, _MOST_FRONTS):
        limit = _fronts(level, number + 1)[number]
        if limit > 0.98:
            break
        if limit > front and met + rest * (limit - front) / (1 - front) <= number + 0.5:
            return max(int(np.searchsorted(unlooked, limit, side="right")), 1), limit > _FAR
    return None, True


def _events(count: int) -> str:
    return f"{count:,} event" if count == 1 else f"{count:,} events"
