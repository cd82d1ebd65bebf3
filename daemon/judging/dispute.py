"""The dispute: which discards the second opinion disputes, and whether that has suddenly become more.

The second opinion (models.steps) sees a step, up or down, in every curve; what counts is how far the strongest stands
out. It changes no verdict: a disputed discard is put before people, and drawn for audit as a stratum of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from daemon.judging import Judged

#: A discard is disputed where its steps exceed what this many in a hundred curves exceed, and no more than so many are.
SHARE_PERCENT = 2
#: Of models.steps.second_opinion: what 2 % of the curves of a simulated stream exceed as discards
#: (deploy/measurements/2026-11-28-steps.md). The level that a service begins with, and the lowest.
LEVEL = 1.26
RECENT = 1000  # curves that the level is taken from
FIRST = 200  # curves before it is
BLOCK = 100  # curves of one level
MOST_AT_ONCE = 10  # disputes, after a long time without
#: Of a block; were the share 2 %, so many or more would come once in 200,000 blocks.
RISE = 12
QUIET = 5  # blocks without, after which a rise is over


class Dispute:
    """Which discards the second opinion disputes: those in which it sees a step as few curves have one.

    The level is known before the curves of a block are judged: what 2 % of the last curves exceed, as discards. It is
    never below what such steps are in a simulated stream, so that a quiet night disputes few. And however many exceed
    it, no more than 2 % of all curves are disputed. Like the sentinel it begins anew at a restart.
    """

    def __init__(self) -> None:
        self.level = LEVEL
        self._recent: deque[float] = deque(maxlen=RECENT)  # steps of a discard, 0 of any other curve
        self._credit = 0  # hundredths of a dispute
        self._block: list[bool] = []  # whether each discard of this block exceeds the level, False of other curves
        self._told = ""
        self._quiet = 0  # blocks since

    def look_at(self, judged: Sequence[Judged]) -> list[Judged]:
        """The same curves, the disputed ones marked; each is counted."""
        return [self._looked_at(one) for one in judged]

    def _looked_at(self, one: Judged) -> Judged:
        decision = one.decision
        if self.observe(decision.steps or 0.0, is_discard=decision.verdict == "discard"):
            return replace(one, decision=replace(decision, is_disputed=True))
        return one

    def observe(self, steps: float, *, is_discard: bool) -> bool:
        """Count a curve whose strongest step stands out so far; whether it is disputed."""
        seen = steps if is_discard else 0.0
        exceeds = seen > self.level
        self._credit = min(self._credit + SHARE_PERCENT, MOST_AT_ONCE * 100)
        is_disputed = exceeds and self._credit >= 100
        if is_disputed:
            self._credit -= 100
        self._recent.append(seen)
        self._block.append(exceeds)
        if len(self._block) >= BLOCK:
            self._end_block()
        return is_disputed

    def finding(self) -> str:
        """What to tell where far more curves exceed the level than did before; empty while there is nothing."""
        return self._told

    def _end_block(self) -> None:
        many, known = sum(self._block), len(self._recent) > FIRST + BLOCK
        self._quiet += 1
        if known and many >= RISE:
            self._told, self._quiet = _rise(many, len(self._block)), 0
        if self._quiet > QUIET:
            self._told = ""
        self._block.clear()
        if len(self._recent) >= FIRST:
            among = sorted(self._recent, reverse=True)
            self.level = max(among[len(among) * SHARE_PERCENT // 100], LEVEL)


def _rise(many: int, curves: int) -> str:
    return (
        f"{many} of the last {curves} curves were discarded though the second opinion sees a rupture in them "
        f"({SHARE_PERCENT} in 100 are usual): look at the queue of disagreements, where some of them wait, never more "
        f"than {SHARE_PERCENT} in 100 curves"
    )
