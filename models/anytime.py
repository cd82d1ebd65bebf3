"""What may be said of a night at any moment of it: alarms and bounds that hold however often they are looked at.

Each is a bet. A stake of 1 is bet, curve by curve, against what is to be refuted; as long as that is true the stake
has a mean of at most 1, so it seldom grows large, at whatever moment one looks (Ville 1939; Ramdas, Gruenwald, Vovk &
Shafer 2023, Statistical Science 38, 576). Nothing here knows a curve: counts go in, alarms and bounds come out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def burst_limit(null: float, size: int = 150) -> int:
    """The fewest missed canaries of a burst that ring: 9 of 150 where 2 % may be missed.

    A sound line, which misses ``null`` at the most, rings in 0.35 % of bursts at the most (exact binomial tail).
    """
    limit = int(size * null) + 1
    while at_least(limit, size, null) > _FALSE_BURST:
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
