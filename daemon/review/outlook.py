"""The outlook: what more events cost in curves and minutes, what a certificate sheet can earn, and what the last says.

Everything is counted from what is there: the decisions of a session group, what people have confirmed of each verdict,
the hour's yield, and how fast this rater answered lately.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from statistics import median
from typing import Any

from daemon.common.text import duration, many
from daemon.judging import Verdict, audit
from daemon.labels import Labels
from daemon.labels.sessions import Sessions, Stretches, is_within
from daemon.labels.sheets import ABOVE, GOAL, MOST_CURVES, Progress, SheetKind, Sheets, costs_of
from daemon.ledger.view import LedgerView
from daemon.review.desk import Desk, Held, told
from daemon.review.request import Refused
from models.certificate import CONFIDENCE, MAX_MISS, labels_needed, miss_bound, percent_up, weighted_bound
from models.clock import since_1970

#: What is thought of a verdict before anybody has labelled a curve of it: the share of events, worth two labels.
_BEFORE: Mapping[Verdict, float] = {"keep": 0.8, "review": 0.05, "discard": 0.0}
_WORTH = 2.0
_LABELLED = 2_000  # the last curves that anybody has labelled, of which shares are counted
_WAITING = 5_000  # the last kept curves, of which those without a label are counted
#: A rater of whom nothing is known yet.
USUAL_S = 4.0
_QUICKEST_S = 1.0  # whoever answers faster has not looked, or sends a list
_WHY = "neither score nor verdict is shown, for the kept queue speaks only of events above the cut"
_ANSWERS = 200  # of a rater, of which the pace is taken
_FEWEST, _PAUSE_S = 5, 60.0  # answers that lie further apart are a pause


@dataclass(frozen=True, slots=True)
class Outlook:
    """One session group, by verdict; ``waiting``: those of the last kept curves that nobody has labelled."""

    decided: Mapping[Verdict, int]
    confirmed: Mapping[Verdict, tuple[int, int]]  # events, of so many labelled
    waiting: int
    audited: int  # of the discards, drawn when they were decided

    @property
    def total(self) -> int:
        return sum(self.decided.values())

    def share(self, verdict: Verdict) -> float:
        """Of the curves of a verdict how many a person confirms as events."""
        events, labelled = self.confirmed[verdict]
        return (events + _WORTH * _BEFORE[verdict]) / (labelled + _WORTH)

    @property
    def events(self) -> float:
        """How many there are, as far as can be told."""
        return sum(count * self.share(verdict) for verdict, count in self.decided.items())

    def cost(self, missing: int, per_hour: float, seconds: float) -> str:
        """What so many more confirmed events cost: curves of the kept queue, time, and whether they are there.

        ``per_hour``: kept curves that the instrument brings; ``seconds`` a curve for this rater. One sentence without
        its full stop; "" where none is missing.
        """
        if missing <= 0:
            return ""
        curves = labels_needed(missing, self.share("keep"))
        told = f"{many(missing, 'more event')} {'are' if missing > 1 else 'is'} about {many(curves, 'kept curve')}"
        told += f", {_time(curves, seconds)}"
        if self.waiting >= curves:
            return f"{told}; {self.waiting:,} wait"
        if per_hour > 0:
            rest_s = 3600 * (curves - self.waiting) / per_hour
            return f"{told}; {self.waiting:,} wait now, the others come in {duration(rest_s)} at {per_hour:.3g} an hour"
        waits = (
            f"only {self.waiting:,} {'waits' if self.waiting == 1 else 'wait'}"
            if self.waiting
            else "none of those kept waits for an answer"
        )
        return f"{told}; {waits}, and no curve was kept lately"

    def offer(self, kind: SheetKind, seconds: float) -> Offer:
        """What a sheet can earn, and what it takes. ``seconds`` a curve for this rater."""
        return self._uniform(seconds) if kind == "uniform" else self._weighted(seconds)

    def _uniform(self, seconds: float) -> Offer:
        share = self.events / self.total if self.total else 0.0
        if share <= 0:
            nothing = "nothing was decided in this session group yet: there is nothing to draw a sheet from"
            return Offer("uniform", 0, 0, None, nothing)
        needed = labels_needed(GOAL, share)
        drawn = min(self.total, MOST_CURVES)
        events = min(GOAL, math.floor(drawn * share))
        bound = miss_bound(events, 0, CONFIDENCE)
        curves = min(needed, drawn)
        takes = f"about {_about(curves)} labels at the present {100 * share:.2g} % of events, {_time(curves, seconds)}"
        if events >= GOAL:
            promise = f"“at most {100 * MAX_MISS:g} % missed, {100 * CONFIDENCE:g} % sure”"
            earns = f"{GOAL} confirmed events, none of them discarded, earn {promise}"
            ends = f"the sheet is {many(drawn, 'curve')} long and ends as soon as {GOAL} events are confirmed"
            return Offer("uniform", curves, events, bound, f"{earns}: {takes}; {ends}; {costs_of(1)}; {_WHY}")
        few = f"these {self.total:,} decisions hold about {events} events, and {GOAL} would be needed"
        earns = f"without a miss they say “at most {percent_up(bound)} missed”" if events else "they earn nothing yet"
        ends = f"the sheet is {many(drawn, 'curve')} long"
        return Offer("uniform", curves, events, bound if events else None, f"{few}; {ends}; {earns}, with {takes}")

    def _weighted(self, seconds: float) -> Offer:
        audited = self.audited
        above: list[float] = []
        curves = audited
        for verdict in ("keep", "review"):
            count = self.decided[verdict]
            drawn = min(count, ABOVE)
            curves += drawn
            above += [max(1.0, count / ABOVE)] * math.floor(drawn * self.share(verdict))
        bound = weighted_bound(above, [], 1 / audit.LEAST, CONFIDENCE)
        takes = f"about {_about(curves)} labels, {_time(curves, seconds)}, no file of the instrument needed"
        if bound >= 1.0:
            return Offer("weighted", curves, len(above), None, f"too few curves are audited for any promise; {takes}")
        earns = f"without a miss it says “at most {percent_up(bound)} missed, {100 * CONFIDENCE:g} % sure”"
        verb = "stands" if audited == 1 else "stand"
        why = f"{many(audited, 'discard')} drawn by chance {verb} for all {self.decided['discard']:,}"
        return Offer("weighted", curves, len(above), bound, f"{earns}, for {why}: {takes}")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a sheet takes and earns, before it is drawn. ``bound`` is without a miss; None: it earns nothing."""

    kind: SheetKind
    labels: int
    events: int
    bound: float | None
    sentence: str


def outlook(view: LedgerView, labels: Labels, within: Stretches) -> Outlook:
    """Count a session group. Raises what the ledger and the labels raise."""
    last = view.last_seq
    above: tuple[Verdict, ...] = ("keep", "review")
    decided: dict[Verdict, int] = {
        one: sum(view.count_looks(one, first - 1, end) for first, end in within) for one in above
    }
    total = sum(max(min(last if end is None else end, last) - first + 1, 0) for first, end in within)
    decided["discard"] = max(total - sum(decided.values()), 0)
    words = labels.words()
    inside = [seq for seq in words if is_within(seq, within)]
    events, labelled = Counter[str](), Counter[str]()
    for seq, said in labels.labelled(inside[-_LABELLED:]).items():
        if verdict := next((one.verdict for one in said if one.verdict), None):
            labelled[verdict] += 1
            events[verdict] += set(words[seq].values()) == {"keep"}
    confirmed = {one: (events[one], labelled[one]) for one in decided}
    kept = chain.from_iterable(
        view.looks("keep", after=first - 1, until=end, order="newest", limit=_WAITING)
        for first, end in reversed(within)
    )
    waiting = sum(look.seq not in words for look in islice(kept, _WAITING))
    audited = sum(view.count_looks("discard", first - 1, end) for first, end in within)
    return Outlook(decided, confirmed, waiting, audited)


def seconds_a_curve(labels: Labels, rater: str | None) -> float:
    """The middle of the times between a rater's last answers; :data:`USUAL_S` while there are too few."""
    query = "select time from labels where rater = ? order by number desc limit ?"
    rows = labels.select(query, rater or "", _ANSWERS) if rater else []
    times_s = sorted(since_1970(row[0]) for row in rows)
    gaps_s = [later - earlier for earlier, later in pairwise(times_s) if 0 < later - earlier <= _PAUSE_S]
    return max(median(gaps_s), _QUICKEST_S) if len(gaps_s) >= _FEWEST else USUAL_S


def _about(count: int) -> str:
    """Two digits, rounded up: the rest would be false."""
    unit = 10 ** max(len(str(count)) - 2, 0)
    return f"{-(-count // unit) * unit:,}"


def _time(curves: int, seconds: float) -> str:
    """In whole minutes: no estimate is better than that."""
    pace = f"at {USUAL_S:g} s each" if seconds == USUAL_S else "at your pace"
    return f"{duration(60 * max(1, round(curves * seconds / 60)))} {pace}"


_HOLDS_S = 3.0  # what is counted for the line beside the curve
KINDS: tuple[SheetKind, ...] = ("uniform", "weighted")


class Certifying:
    """Certificate sheets as the page sees them. Methods may be called from any thread; raise what the desk raises."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._prospects = Held(lambda: outlook(desk.ledger, desk.labels, self._group()[1]), _HOLDS_S)

    def state(self, rater: str | None) -> dict[str, Any]:
        """The sheet that was drawn last, and what another one would take and earn, ready for JSON."""
        view, labels = self._desk.ledger, self._desk.labels
        with told():
            group, within = self._group()
            prospects, seconds = outlook(view, labels, within), seconds_a_curve(labels, rater)
            progress = self._progress(view)
        return {
            "sheet": None if progress is None else _plain(progress),
            "group": group,
            "offers": [_offer(prospects, kind, seconds) for kind in KINDS],
            "seconds_a_curve": seconds,
        }

    def draw(self, kind: str) -> dict[str, Any]:
        """Draw a sheet of the present session group. Raises Refused 400, or 409 while one is open or nothing is there.

        Who could draw again until the curves are kind would earn any promise.
        """
        wanted = next((one for one in KINDS if one == kind), None)
        if wanted is None:
            raise Refused(400, "kind must be uniform or weighted")
        view, labels = self._desk.ledger, self._desk.labels
        with told(), labels.together():  # of two who draw at once the second finds the first one's
            progress = self._progress(view)
            if progress is not None and not progress.is_done:
                raise Refused(409, f"{progress.sheet.name} is open: label it to its end, then another may be drawn")
            group, within = self._group()
            try:
                sheet = Sheets(labels).draw(view, wanted, within, group)
            except ValueError as error:
                raise Refused(409, str(error)) from None
            return _plain(Sheets(labels).progress(sheet, view))

    def beside(self, state: Mapping[str, Any], needed: int, rater: str | None) -> dict[str, Any]:
        """What the state of a night says besides: what the next rung costs, and what is left of an open sheet."""
        view, labels = self._desk.ledger, self._desk.labels
        with told():
            per_hour = state["yield"]["per_hour"] or 0.0  # not known yet
            cost = self._prospects.value().cost(needed, per_hour, seconds_a_curve(labels, rater))
            progress = self._progress(view)
        plain = None if progress is None else _plain(progress)
        return {
            "effect": [*state["effect"], *([cost] if cost else [])],
            "sheet": plain,
            "queues": {**state["queues"], **({"sheet": plain["left"]} if plain and not plain["done"] else {})},
        }

    def _group(self) -> tuple[str, Stretches]:
        return Sessions(self._desk.labels).here()

    def _progress(self, view: LedgerView) -> Progress | None:
        sheets = Sheets(self._desk.labels)
        sheet = sheets.current()
        return None if sheet is None else sheets.progress(sheet, view)


def _plain(progress: Progress) -> dict[str, Any]:
    sheet = progress.sheet
    return {
        "number": sheet.number,
        "kind": sheet.kind,
        "group": sheet.sample,
        "made": sheet.made,
        "goal": sheet.goal,
        "decided": sheet.decided,
        "drawn": progress.drawn,
        "answered": progress.answered,
        "left": 0 if progress.is_done else max(progress.drawn - progress.answered - progress.gone, 0),
        "events": progress.events,
        "missed": len(progress.missed),
        "done": progress.is_done,
        "bound": progress.bound,
        "sentence": progress.sentence(),
    }


def _offer(prospects: Outlook, kind: SheetKind, seconds: float) -> dict[str, Any]:
    offer = prospects.offer(kind, seconds)
    return {
        "kind": kind,
        "labels": offer.labels,
        "events": offer.events,
        "bound": offer.bound,
        "seconds": offer.labels * seconds,
        "sentence": offer.sentence,
    }
