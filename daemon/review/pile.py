"""The pile: the curves that were sent to review, the likest event first, and what may be said of those unseen."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np

from daemon.judging import Verdict
from daemon.labels import Labels, unanimous
from daemon.labels.sessions import Stretches
from daemon.learn.order import Ranking
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Look
from models.enough import Looks, Standing, secret_places, stand

ALWAYS: Stretches = ((1, None),)
ALL = 1 << 40
_PAGE = 500  # looks that are fetched at once
_ORDERED = 20_000  # flagged curves that a head orders, those of the highest scores


def pile(view: LedgerView, within: Stretches, ranking: Ranking | None) -> Iterator[Look]:
    """The flagged curves, the likest to be an event first."""
    parts = [pages(view, "review", first, last, "score") for first, last in within]
    looks = parts[0] if len(parts) == 1 else heapq.merge(*parts, key=_by_score)
    if ranking is not None:
        yield from ranking.order(list(islice(looks, _ORDERED)))
    yield from looks


@dataclass(frozen=True, slots=True)
class Portion:
    """The part of a pile that a promise is about: what lay there when the first curve of it was drawn.

    What comes later is not added: it is the next portion, once enough of this one was looked at.
    """

    standing: Standing
    drawn: Sequence[Look]  # what nobody has looked at, in the order of their secret places
    later: int  # curves that have come since
    before: Standing | None  # of the portion before this one

    def plain(self) -> dict[str, Any]:
        """For JSON, with ``text`` in words."""
        said = self.standing.text if self.before is None else f"{self.before.text}; since then {self.standing.text}"
        return asdict(self.standing) | {"text": f"{said}; {self.later:,} came later" if self.later else said}


def portion(view: LedgerView, labels: Labels, within: Stretches | None = None) -> Portion:
    """Where the pile stands, whoever has looked at it. Raises what the ledger and the labels raise."""
    looks = [
        look
        for first, last in within or ALWAYS
        for look in view.looks("review", after=first - 1, until=last, order="seq", limit=ALL)
    ]
    numbers, words = np.array([look.seq for look in looks], np.int64), labels.words()
    place = dict(zip(numbers.tolist(), secret_places(view.stream, numbers).tolist(), strict=True))
    firsts: dict[int, tuple[str, str]] = {}
    query = "select seq, queue, time from labels where stream = ? and removed_by is null order by number"
    for seq, queue, time in labels.select(query, view.stream):
        firsts.setdefault(seq, (queue, time))
    drawn = {seq for seq, (queue, _) in firsts.items() if queue == "drawn"}
    looked, begin, before = [seq for seq in words if seq in place], 0, None
    while True:
        first = next((seq for seq in looked if seq > begin and seq in drawn), None)
        end = view.last_seq if first is None else max(_decided_by(view, firsts[first][1]), first)
        its = [seq for seq in looked if begin < seq <= end]
        said = np.array([unanimous(words[seq].values()) for seq in its], object)
        places = np.array([place[seq] for seq in its], np.float64)
        left = [look for look in looks if begin < look.seq <= end and look.seq not in words]
        left.sort(key=lambda look: place[look.seq])
        told = Looks(places, np.isin(its, list(drawn)), said != "discard", said == "keep")
        standing = stand(told, [place[look.seq] for look in left])
        later = int((numbers > end).sum())
        if first is None or not standing.is_enough or not later:
            return Portion(standing, left, later, before)
        begin, before = end, standing


def _decided_by(view: LedgerView, time: str) -> int:
    """The last decision before a moment; decisions are in the order of time."""
    low, high = 0, view.last_seq + 1
    while high - low > 1:
        middle = (low + high) // 2
        found = view.decisions([middle]).get(middle)
        low, high = (middle, high) if found is not None and found["time"] <= time else (low, middle)
    return low


def pages(
    view: LedgerView,
    verdict: Verdict,
    first: int,
    last: int | None,
    order: Literal["score", "newest"],
    between: tuple[float, float] | None = None,
) -> Iterator[Look]:
    """Page by page, each larger than the one before: most of what comes first may be done."""
    offset, size, after = 0, _PAGE, first - 1
    while page := view.looks(verdict, after=after, until=last, order=order, between=between, limit=size, offset=offset):
        yield from page
        offset, size = offset + len(page), 4 * size


def _by_score(look: Look) -> tuple[float, int]:
    return (math.inf if look.score is None else -look.score, look.seq)
