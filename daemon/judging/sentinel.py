"""The sentinel and the dispute: two watches over would-be discards, and what they tell.

The sentinel: whether the sign of a format has gone wrong, told by would-be discards that are events upside down. The
judge looks at a share of them (models.frontend). One whose sign no push against the surface confirms makes the
sentinel wary: for a while every would-be discard of its format is looked at. Three within 200 curves are told. One that
does push is reviewed like the others, but is no hint: as many are found where the sign is right as where it is wrong
(deploy/decisions/0011).

The dispute: which discards the second opinion (models.steps) disputes, and whether that has suddenly become more. It
sees a step, up or down, in every curve; what counts is how far the strongest stands out. It changes no verdict: a
disputed discard is put before people, and drawn for audit as a stratum of its own.

Both begin anew at a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from daemon.judging import Judged

WINDOW = 200  # curves of a format that are looked back on
MOST = 3  # hints among them; then it is told
WARY = 1000  # curves after a hint of which every would-be discard is looked at
LAST = 20  # curves that tell what comes now
_HINT = frozenset({"flipped", "no_contact"})

_REMEDIES = {
    "text": "say so, or correct it, with `pulling` in a [[text]] table of the configuration that fits these files",
    "ingest": "correct `pulling` in the headers that are sent",
}
_REMEDY = "look whether the sign of its sensitivity or of a channel was changed in the instrument's software"


@dataclass(slots=True)
class _Watch:
    """One format."""

    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))  # hint or none, curve by curve
    wary: int = 0  # curves to come
    most: int = 0  # hints within any WINDOW so far
    most_of: int = 0  # and of how many curves: in the beginning of fewer

    @property
    def hints(self) -> int:
        return sum(self.recent)


class Sentinel:
    """What has been decided, format by format. It lives as long as its service: a restart begins anew."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self._last: deque[str] = deque(maxlen=LAST)  # formats of the last curves

    def observe(self, format: str | None, reasons: tuple[str, ...]) -> None:
        """Note a curve that was judged; one of no format is passed over."""
        if format is None:
            return
        watch = self._watches.setdefault(format, _Watch())
        self._last.append(format)
        is_hint = _HINT.issubset(reasons)
        watch.recent.append(is_hint)
        watch.wary = WARY if is_hint else max(watch.wary - 1, 0)
        if is_hint and watch.hints > watch.most:
            watch.most, watch.most_of = watch.hints, len(watch.recent)

    @property
    def wary_of(self) -> frozenset[str]:
        """The formats of which every would-be discard is to be looked at."""
        return frozenset(name for name, watch in self._watches.items() if watch.wary)

    @property
    def turned(self) -> str:
        """The format of most of what comes, where its sign seems to be wrong; else ""."""
        found = (name for name, watch in self._watches.items() if watch.hints >= MOST)
        return next((name for name in found if 2 * self._last.count(name) > len(self._last)), "")

    def findings(self) -> Iterator[tuple[str, bool, str]]:
        """(format, whether it is well again, what to tell) of every format that there was ever anything to tell of."""
        for name, watch in self._watches.items():
            if watch.most >= MOST:
                is_well = watch.hints < MOST
                what = _what(name, watch.hints, len(watch.recent))
                yield name, is_well, what if is_well else f"{what}: {_advice(name)}"

    def summary(self) -> list[str]:
        """After a run: every format of which there were too many at any time."""
        return [
            f"{_what(name, watch.most, watch.most_of)}: {_advice(name)}"
            for name, watch in self._watches.items()
            if watch.most >= MOST
        ]


def _what(name: str, hints: int, curves: int) -> str:
    return f"{hints} of {curves} {name} curves in a row look like events when turned upside down"


def _advice(name: str) -> str:
    return f"the sign of the deflection may be wrong; `explain` shows one; {_REMEDIES.get(name, _REMEDY)}"


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
