"""What may be said of a night at any moment of it: alarms and bounds that hold however often they are looked at.

The alarm of the canaries, their gauge and the bound of the audit are bets. A stake of 1 is bet, curve by curve, against
what is to be refuted; as long as that is true the stake has a mean of at most 1, so it seldom grows large, at whatever
moment one looks (Ville 1939; Ramdas, Gruenwald, Vovk & Shafer 2023, Statistical Science 38, 576). The yield is watched
by exact tests that share out their error over a long run, and two detectors are compared by an exact test at one look.
Nothing here knows a curve: counts go in, alarms and bounds come out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from models.certificate import miss_bound
from models.metrics import at_least, at_most

#: Share of simulated events that the shipped cut misses, and the shares for which the detector looks at that.
_USUAL_MISS = 0.02
_LOOKED_FOR = (0.05, 0.08, 0.12, 0.20, 0.35)
#: The evidence that rings. A line that is as good as it should be rings once in so many canaries at the most.
ALARM_AT = 5_000.0
#: A burst of a line that is as good as it should be rings with this chance at the most.
_FALSE_BURST = 0.0035
#: Beta(1, 20) mixes the shares that a watched count is tested against.
_MIXED = 20
#: A bound that is watched is wrong at any moment of its whole life with this chance at the most.
_WRONG = 0.05
#: Bets against lost events: how much of the largest one, and the part of the stake on each; see :func:`lost_bound`.
_BETS = ((1.0, 0.8), (0.95, 0.05), (0.85, 0.05), (0.65, 0.05), (0.35, 0.05))
#: Two detectors are thought to hinder each other by this odds ratio at the most, and a network that misses more than
#: this part of what the other finds is blind to something; see :func:`least_events`.
_LEAST_ODDS, _MOST_BLIND = 1 / 3, 0.15
#: The chance of a false word on the yield, and the curves that it is spent on.
_YIELD_WRONG, _YIELD_CURVES = 0.01, 20_000
#: Curves that are compared with all before them, and after how many that is done again.
YIELD_WINDOW, _EVERY = 300, 50


class EDetector:
    """Rings when canaries are missed more often than they should be, whenever that begins.

    A mixture of Shiryaev-Roberts e-detectors (Shin, Ramdas & Rinaldo 2022, arXiv 2203.03532), each betting on another
    share of missed canaries. While each is missed with a chance of at most ``null``, whatever the ones before it did,
    there are at least 5,000 canaries between two alarms on average.
    """

    def __init__(self, null: float) -> None:
        """``null``: the share that a sound line misses at the most (:func:`null_of`). ValueError outside of 0 to 1."""
        if not 0.0 < null < 1.0:
            raise ValueError(f"a share of missed canaries lies between 0 and 1, not {null}")
        # The shares that are looked for go with the null, or a cut that misses more would ring by itself.
        looked_for = [min(share * null / _USUAL_MISS, (1 + null) / 2) for share in _LOOKED_FOR]
        self.null = null
        self._if_missed = [share / null for share in looked_for]
        self._if_found = [(1 - share) / (1 - null) for share in looked_for]
        self._evidence = [0.0] * len(looked_for)

    def observe(self, missed: bool) -> bool:
        """Whether this canary rings; then everything begins anew."""
        factors = self._if_missed if missed else self._if_found
        self._evidence = [(so_far + 1) * factor for so_far, factor in zip(self._evidence, factors, strict=True)]
        if self.evidence < ALARM_AT:
            return False
        self._evidence = [0.0] * len(self._evidence)
        return True

    @property
    def evidence(self) -> float:
        """From 0; it rings at :data:`ALARM_AT`."""
        return sum(self._evidence) / len(self._evidence)

    @property
    def state(self) -> tuple[float, ...]:
        """What :meth:`restore` goes on from after a restart."""
        return tuple(self._evidence)

    def restore(self, state: Sequence[float]) -> None:
        """Go on from ``state`` of a detector with the same null. ValueError for what no detector can have said."""
        if len(state) != len(self._evidence) or not all(0.0 <= part < math.inf for part in state):
            raise ValueError(f"{len(state)} numbers that are no state of a detector")
        self._evidence = [float(part) for part in state]


class Alarm:
    """An :class:`EDetector` that says when it is over: once ``after`` canaries in turn came out as they should.

    ``null`` None: what may not happen even once. ``since_s``: when it rang; None while all is well.
    """

    def __init__(self, null: float | None, after: int) -> None:
        self._detector = None if null is None else EDetector(null)
        self._limit, self._after = 1 if null is None else burst_limit(null, after), after
        self.recent: deque[bool] = deque(maxlen=150)
        self.since_s: float | None = None
        self._seen = self._bad = 0  # since it rang, or was last found to last

    def observe(self, is_bad: bool, now_s: float, is_told: bool = False) -> bool:
        """Whether it has just rung, or is just over; ``is_told``: another rule says that it must ring."""
        self.recent.append(is_bad)
        rings = is_bad if self._detector is None else self._detector.observe(is_bad) or is_told
        if self.since_s is None:
            self.since_s, self._seen, self._bad = now_s if rings else None, 0, 0
            return rings
        self._seen, self._bad = self._seen + 1, self._bad + is_bad
        if self._seen < self._after:
            return False
        is_over, self._seen, self._bad = self._bad < self._limit, 0, 0
        self.since_s = None if is_over else self.since_s
        return is_over

    @property
    def state(self) -> tuple[float, ...]:
        """What :meth:`restore` goes on from after a restart, the null first."""
        return () if self._detector is None else (self._detector.null, *self._detector.state)

    def restore(self, state: Sequence[float]) -> None:
        """Go on from the evidence of one with the same null; of another nothing is taken. ValueError as a detector."""
        if self._detector is not None and state and state[0] == self._detector.null:
            self._detector.restore(state[1:])


def burst_limit(null: float, size: int = 150) -> int:
    """The fewest missed canaries of a burst that ring: 9 of 150 where 2 % may be missed.

    A sound line, which misses ``null`` at the most, rings in 0.35 % of bursts at the most (exact binomial tail).
    """
    limit = int(size * null) + 1
    while limit <= size and at_least(limit, size, null) > _FALSE_BURST:
        limit += 1
    return limit


def null_of(events: int, missed: int) -> float:
    """The share of canaries that a sound line may miss: 95 % sure that no larger one belongs to its cut.

    ``missed`` of so many simulated ``events`` lie at or below the cut (Clopper & Pearson 1934, one-sided). ValueError
    where all are missed, or none was counted: then no canary could tell anything.
    """
    if not 0 <= missed < events:
        raise ValueError(f"{missed} of {events} simulated events missed say nothing of a line")
    return miss_bound(events, missed, 1 - _WRONG)


def evidence_against(share: float, events: int, missed: int) -> float:
    """How strongly ``missed`` of ``events`` speak against a miss of ``share`` or more; above 20 by chance in 5 %.

    Valid however often and whenever it is looked at, and when the share changes on the way. Only for a miss below
    ``share``.
    """
    return math.exp(min(_log_evidence(share, events, missed), 700.0))


def _log_evidence(share: float, events: int, missed: int) -> float:
    """The chance of the counts, mixed over all smaller shares, over that of ``share``; the integral is a beta's."""
    kept = events - missed
    whole = math.lgamma(missed + 1) + math.lgamma(kept + _MIXED) - math.lgamma(events + _MIXED + 1)
    # Beta(missed + 1, kept + 20) up to share, told as a binomial tail.
    inside = 1 - at_most(missed, events + _MIXED, share)
    if inside < 0.5:
        inside = at_least(missed + 1, events + _MIXED, share)  # small tails keep their digits
    mixed = math.log(_MIXED) + whole + math.log(inside) - math.log(-math.expm1(_MIXED * math.log1p(-share)))
    return mixed - missed * math.log(share) - kept * math.log1p(-share)


def recall_lower_bound(canaries: int, missed: int) -> float:
    """The share of canaries that the line finds at the least, 95 % sure at every moment of its whole life together.

    1 - u, u the largest share of misses that the counts do not speak against (:func:`evidence_against` below 20). 0
    where there are none yet. ValueError for counts that cannot be.
    """
    if not 0 <= missed <= canaries:
        raise ValueError(f"{missed} of {canaries} canaries")
    if missed == canaries:
        return 0.0
    against = -math.log(_WRONG)
    # Above this share the evidence only rises with the share, and at it the evidence is weak.
    low = (missed + 1) / (canaries + 1)
    low_value = _log_evidence(low, canaries, missed) - against
    step = 3 * math.sqrt(missed + 1) / (canaries + 1)
    high = min(low + step, (1 + low) / 2)
    while (high_value := _log_evidence(high, canaries, missed) - against) < 0:
        low, low_value = high, high_value
        high = min(high + step, (1 + high) / 2)
        if high >= 1 - 1e-12:
            return 0.0
    while high - low > 1e-9:
        # False position; half of it where one side stays (Illinois: Dowell & Jarratt 1971, BIT 11, 168).
        middle = high - high_value * (high - low) / (high_value - low_value)
        value = _log_evidence(middle, canaries, missed) - against
        if value < 0:
            low, low_value, high_value = middle, value, high_value / 2
        else:
            high, high_value, low_value = middle, value, low_value / 2
        if abs(value) < 1e-10:
            break
    return 1 - high


def lost_bound(
    discards: int,
    probabilities: ArrayLike,
    found: ArrayLike,
    confidence: float = 0.95,
    rest: float | Mapping[float, int] | None = None,
) -> int:
    """How many of ``discards`` hold an event at the most, as sure as ``confidence`` at all moments together.

    ``probabilities`` (n,): the chance with which each curve that was looked at came to be looked at, set before
    anybody saw it: of a draw that is looked at in random order, the chance of the draw times the share of the drawn
    ones that were looked at, night by night where that share differs. ``found`` (n,): whether it holds an event.
    ``rest``: that chance of the discards that were not looked at: the least that any of them had, or chance -> how
    many; None where all chances are equal.

    A bet against every set of events that is not refuted yet (as in models.certificate, after Waudby-Smith & Ramdas
    2024): each event of the set that was found leaves 1 - b*least/chance of the stake, each that was not brings
    1 + b*least/(1 - chance); so its mean stays 1, because least <= chance. Several b are mixed. Discards that were
    looked at are known, so a census is exact; of the others so many are taken for events as do not win the bet, those
    with the smallest chance first. What was found where the chance is large hardly costs anything. The least chance
    decides: with equal ones, 100 of 2,184 without an event say 66; with one fifth of these chances 337.

    ValueError for chances outside of 0 to 1, for more curves than there are, and for unequal chances without ``rest``.
    """
    chances, events = np.asarray(probabilities, np.float64), np.asarray(found, np.bool_)
    unseen = discards - chances.size
    if chances.shape != events.shape or chances.ndim != 1 or unseen < 0 or not 0.5 <= confidence < 1:
        raise ValueError(f"{chances.shape} chances and {events.shape} answers of {discards} discards")
    if rest is None:
        if unseen and chances.size and chances.min() < chances.max():
            raise ValueError("chances differ: say the least that a discard had which was not looked at")
        rest = float(chances[0]) if chances.size else 0.0
    groups = sorted((rest if isinstance(rest, Mapping) else {rest: unseen}).items())
    if sum(count for _, count in groups) != unseen or any(count < 0 for _, count in groups):
        raise ValueError(f"the rest are {unseen} discards")
    groups = [(chance, count) for chance, count in groups if count]
    every = [*(chance for chance, _ in groups), *(chances if chances.size else ())]
    if not all(0 <= chance <= 1 for chance in every) or (chances.size and not chances.min() > 0):
        raise ValueError("a chance lies between 0 and 1, and what was looked at had one")
    if any(chance == 1 for chance, _ in groups):
        raise ValueError("a discard that was sure to be looked at was not")
    least = min((chance for chance in every if chance > 0), default=1.0)
    lost, against = int(events.sum()), -math.log(1 - confidence)
    bets, stakes = np.array(_BETS).T
    with np.errstate(divide="ignore"):  # the whole stake may have been on no event of the least chance
        logs = np.log(stakes) + np.log1p(-np.outer(bets, least / chances[events])).sum(axis=1)
    for chance, count in groups:
        rise = np.log1p(bets * least / (1 - chance)) if chance > 0 else np.zeros(bets.size)
        low, high = 0, count + 1  # so many more are not refuted; so many are, or there are not so many
        while high - low > 1:
            middle = (low + high) // 2
            is_refuted = np.logaddexp.reduce(logs + middle * rise) >= against
            low, high = (low, middle) if is_refuted else (middle, high)
        lost, logs = lost + low, logs + low * rise
        if low < count:
            break
    return lost


def least_events(both: int, only_network: int, only_steps: int, confidence: float = 0.90) -> int:
    """How many events there are at the least: those that one of two detectors found, and of those that both missed.

    Counts of confirmed events. Given how many each detector found, the number that both found is hypergeometric where
    they are independent (Chapman 1951), and larger in tendency where they find the same ones; so few in common refute a
    small whole. Exact, as sure as ``confidence``, as long as the odds of the one to find an event fall to no less than
    a third where the other has found it (network and step detector help each other: odds ratio 10 to 18 on simulated
    events). A kind of event that only the second sees breaks this. So where the network misses more than 15 % of what
    the other finds, that is the news, and no more events are told of than were seen. ValueError for counts below 0.
    """
    if min(both, only_network, only_steps) < 0 or not 0.5 <= confidence < 1:
        raise ValueError("counts of events start at 0, a confidence lies from 0.5 to below 1")
    seen, one, other = both + only_network + only_steps, both + only_network, both + only_steps
    if not one or only_steps > _MOST_BLIND * other:
        return seen

    def is_refuted(total: int) -> bool:
        return _common_at_most(both, total, one, other, _LEAST_ODDS) <= 1 - confidence

    low, high = seen - 1, seen  # refuted, or fewer than were seen
    while is_refuted(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_refuted(middle) else (low, middle)
    return high


def _common_at_most(common: int, total: int, one: int, other: int, odds: float = 1.0) -> float:
    """P(X <= common), X what two choices of ``one`` and of ``other`` out of ``total`` have in common.

    Fisher's hypergeometric distribution, noncentral where the odds ratio of the choices is not 1.
    """
    first, last = max(0, one + other - total), min(one, other)
    if not first <= common < last:
        return float(common >= last)
    x = np.arange(first, last, dtype=np.float64)
    rises = np.log((one - x) * (other - x) / ((x + 1) * (total - one - other + x + 1)) * odds)
    weights = np.concatenate(([0.0], np.cumsum(rises)))
    weights = np.exp(weights - weights.max())
    return float(weights[: common - first + 1].sum() / weights.sum())


def yield_fell(before_n: int, before_k: int, now_n: int, now_k: int) -> float:
    """The chance of ``now_k`` of ``now_n`` kept or fewer, after ``before_k`` of ``before_n``, if nothing has changed.

    Exact (Fisher's test, one-sided); of a rise: the same with the counts of those not kept. Looked at again and again
    it is to be below :func:`yield_level`. ValueError for more kept than there are.
    """
    if not (0 <= before_k <= before_n and 0 <= now_k <= now_n):
        raise ValueError(f"{before_k} of {before_n}, then {now_k} of {now_n}")
    return _common_at_most(now_k, before_n + now_n, before_k + now_k, now_n)


def yield_level(every: int) -> float:
    """Below this the yield fell, or rose, where both are asked every so many curves.

    Then 20,000 curves of unchanged running say nothing false in 99 % of runs, whatever the tests have in common.
    """
    return _YIELD_WRONG / 2 * every / _YIELD_CURVES


class YieldWatch:
    """Whether fewer curves are kept than before, or more: the last 300 beside all that came before them.

    For curves that do not depend on each other, unchanged running of 20,000 says nothing false in 99 % of runs. Real
    yields also drift from place to place, so that what is told has at least halved or doubled too.
    """

    def __init__(self) -> None:
        self._before = [0, 0]  # curves, of them kept
        self._now: deque[bool] = deque()
        self._seen = 0
        self.told: Literal["fell", "rose"] | None = None

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Curves before, of them kept, curves now, of them kept."""
        before_n, before_k = self._before
        return before_n, before_k, len(self._now), sum(self._now)

    def observe(self, kept: bool) -> None:
        """A curve, in the order in which they came; looked at after each fiftieth."""
        self._seen += 1
        self._now.append(kept)
        if len(self._now) > YIELD_WINDOW:
            self._before[0] += 1
            self._before[1] += self._now.popleft()
        if self._seen % _EVERY == 0 and self._before[0] >= YIELD_WINDOW:
            self.told = self._tell(*self.counts)

    def _tell(self, before_n: int, before_k: int, now_n: int, now_k: int) -> Literal["fell", "rose"] | None:
        level, usual = yield_level(_EVERY), before_k * now_n
        if 2 * now_k * before_n <= usual and yield_fell(before_n, before_k, now_n, now_k) <= level:
            return "fell"
        if now_k * before_n >= 2 * usual and yield_fell(before_n, before_n - before_k, now_n, now_n - now_k) <= level:
            return "rose"
        return None
