"""Certificate sheets: curves drawn blind from all that was decided, whose labels say what share of events is missed.

A *uniform* sheet draws among all decisions alike, and ends when its goal of confirmed events is reached: then it earns
what the rule of 59 earns. A *weighted* sheet draws only among curves that the ledger has copies of: some of the kept
and flagged ones, and the discards that were drawn for audit, each with a chance that is stored; it states a number of
its own (models.certificate). A sheet belongs to everybody: each curve of it is answered once, by whoever comes first,
and that rater's last word counts; where it is taken back the curve is open again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from daemon.common.text import many
from daemon.judging import VERDICTS, Verdict, audit
from daemon.labels import Labels, Word
from daemon.labels.sessions import Stretches
from daemon.ledger.view import LedgerView
from models.certificate import (
    CONFIDENCE,
    MAX_MISS,
    events_needed,
    labels_needed,
    miss_bound,
    percent_up,
    weighted_bound,
)
from models.clock import utc_now

SheetKind = Literal["uniform", "weighted"]
#: Confirmed events, none of them missed, that earn it on a uniform sheet: 59.
GOAL = events_needed(MAX_MISS, CONFIDENCE)
#: More curves are never drawn: nobody labels them.
MOST_CURVES = 20_000
#: Curves of each verdict above the cut that a weighted sheet draws, on average.
ABOVE = 150
_FEWEST = 5  # events of which the yield of a sheet is told


@dataclass(frozen=True, slots=True)
class Sheet:
    """One draw. ``made`` is UTC, RFC 3339; ``heaviest`` is 1 / the least chance that a discard had."""

    number: int
    kind: SheetKind
    stream: str
    sample: str
    made: str
    decided: int
    goal: int
    heaviest: float

    @property
    def name(self) -> str:
        """As messages call it."""
        return f"sheet {self.number}"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A curve of a sheet, and the chance with which it was drawn."""

    seq: int
    chance: float


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sheet has come. ``above`` and ``missed``: weights of the confirmed events on either side of the cut."""

    sheet: Sheet
    drawn: int
    answered: int
    gone: int  # nobody can look at them any more
    unsure: int  # of those discarded
    above: tuple[float, ...]
    missed: tuple[float, ...]
    confirmed: tuple[int, ...]  # seq of those events

    @property
    def events(self) -> int:
        return len(self.above) + len(self.missed)

    @property
    def is_done(self) -> bool:
        """A uniform sheet at its goal; any other when all of it is answered."""
        is_there = self.sheet.kind == "uniform" and self.events >= self.sheet.goal
        return is_there or self.answered + self.gone >= self.drawn

    @property
    def bound(self) -> float | None:
        """The share of events that is missed at the most, 95 % sure; None before the sheet is done.

        Earlier it would be a promise that one can wait for: whoever looks often enough sees any.
        """
        if not self.is_done:
            return None
        if self.sheet.kind == "uniform":
            return miss_bound(self.events, len(self.missed), CONFIDENCE)
        return weighted_bound(self.above, self.missed, self.sheet.heaviest, CONFIDENCE)

    def sentence(self) -> str:
        """What it says now, in words, without its full stop."""
        events = many(self.events, "confirmed event")
        lost = f"{len(self.missed)} of them discarded" if self.missed else "none of them discarded"
        gone = f"{self.gone} gone" if self.gone else ""
        unsure = many(self.unsure, "discard") + " called unsure" if self.unsure else ""
        rest = " and ".join(one for one in (unsure, gone) if one)
        left_out = f" ({rest}; they are left out)" if rest else ""
        if self.bound is None:
            looked = f"{many(self.answered, 'curve')} looked at"
            if not self.events:
                ends = (
                    f" of {self.drawn:,}; it ends at {self.sheet.goal} events" if self.sheet.kind == "uniform" else ""
                )
                return f"no event confirmed yet, {looked}{ends}{left_out}"
            if self.sheet.kind == "weighted":
                return f"{events}, {lost}{left_out}; {looked}, {self.drawn - self.answered:,} more"
            more = labels_needed(self.sheet.goal - self.events, self.events / self.answered)
            to_come = f", about {more:,} more" if self.events >= _FEWEST else ""
            ends = f"; the sheet is {many(self.drawn, 'curve')} long and ends at {many(self.sheet.goal, 'event')}"
            costs = f"; {costs_of(len(self.missed), self.sheet.goal)}" if self.missed else ""
            so_far = f"{self.events} of {self.sheet.goal} confirmed events, {lost}{left_out}; {looked}{to_come}"
            return f"{so_far}{ends}{costs}"
        told = f"{events}, {lost}{left_out}"
        if self.bound >= 1.0:
            return f"{told}: too few for any promise"
        whose = f"a {self.sheet.kind} blind draw from {self.sheet.decided:,} decisions"
        then = "; `adapt` puts that into the model" if self.sheet.kind == "uniform" and self.bound <= MAX_MISS else ""
        return f"{told} → at most {percent_up(self.bound)} missed, {100 * CONFIDENCE:g} % sure ({whose}){then}"


def costs_of(missed: int, goal: int = GOAL) -> str:
    """What so many confirmed events that were discarded cost a uniform sheet, in words."""
    bound = percent_up(miss_bound(goal, missed, CONFIDENCE))
    more = events_needed(MAX_MISS, CONFIDENCE, missed) - goal
    misses = "1 miss" if missed == 1 else f"{missed} misses"
    earns = f"with {misses} it says “at most {bound} missed” at its end"
    return f"{earns}; {100 * MAX_MISS:g} % would need {many(more, 'more event')}" if more > 0 else earns


class Sheets:
    """The sheets of one state, for the ledger that lies beside the labels. Raises UserError 74 as the labels do."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels

    def draw(
        self,
        view: LedgerView,
        kind: SheetKind,
        within: Stretches,
        sample: str = "",
        *,
        goal: int = GOAL,
        chance: random.Random | None = None,
    ) -> Sheet:
        """A new sheet from the decisions of these stretches so far. ValueError where nothing can be drawn.

        ``chance``: where chance comes from; the system's, which nobody can foresee, unless a test says otherwise.
        """
        dice = chance or random.SystemRandom()
        last = view.last_seq
        ranges = [range(first, min(until or last, last) + 1) for first, until in within]
        if kind == "uniform":
            decided = list(chain.from_iterable(ranges))
            drawn = [
                Drawn(seq, min(1.0, MOST_CURVES / len(decided)))
                for seq in dice.sample(decided, min(len(decided), MOST_CURVES))
            ]
        else:
            drawn = _poisson(view, ranges, dice)
            dice.shuffle(drawn)
        if not drawn:
            raise ValueError("there is nothing to draw a sheet from: no curve was decided")
        insert = (
            """insert into sheets (kind, stream, sample, made, decided, goal, heaviest) values (?, ?, ?, ?, ?, ?, ?)"""
        )
        heaviest = 1 / audit.LEAST if kind == "weighted" else 1 / drawn[0].chance
        row = (kind, view.stream, sample, utc_now(), sum(map(len, ranges)), goal, heaviest)
        with self._labels.together():
            number = self._labels.change(insert, *row)
            rows = ((number, place, one.seq, one.chance) for place, one in enumerate(drawn))
            for curve in rows:
                self._labels.change("insert into sheet_curves (sheet, place, seq, chance) values (?, ?, ?, ?)", *curve)
        return next(one for one in self.all() if one.number == number)

    def all(self) -> list[Sheet]:
        """Those of this ledger, oldest first."""
        rows = self._labels.select("select * from sheets where stream = ? order by number", self._labels.stream or "")
        return [Sheet(*row) for row in rows]

    def current(self) -> Sheet | None:
        """The last that was drawn."""
        return next(reversed(self.all()), None)

    def note(self, sheet: Sheet, seq: int, rater: str) -> None:
        """This rater has answered a curve of it, blind; the label itself is stored as any other.

        Whoever answered first stays, unless their word was taken back. ``rater`` "": nobody can look at it any more.
        """
        if self.is_open(sheet, seq):
            change = "update sheet_curves set rater = ? where sheet = ? and seq = ?"
            self._labels.change(change, rater, sheet.number, seq)

    def is_open(self, sheet: Sheet, seq: int) -> bool:
        """Whether this curve of it is still to be answered, or to be answered again."""
        rows = self._labels.select("select rater from sheet_curves where sheet = ? and seq = ?", sheet.number, seq)
        return bool(rows) and not (rows[0][0] and rows[0][0] in self._labels.words().get(seq, ()))

    def left(self, sheet: Sheet, limit: int = MOST_CURVES, rater: str | None = None) -> list[Drawn]:
        """The next curves to be looked at; those whose answer was taken back come first.

        In the order of the draw for the rater who began the sheet, from its end for others: two share the work, and
        either way what they have answered is as fair a sample.
        """
        words = self._labels.words()
        answered = "select seq, chance, rater from sheet_curves where sheet = ? and rater > '' order by place"
        rows = self._labels.select(answered, sheet.number)
        back = [Drawn(seq, chance) for seq, chance, by in rows if by not in words.get(seq, ())]
        order = "desc" if rows and rater not in (None, rows[0][2]) else "asc"
        fresh = f"select seq, chance from sheet_curves where sheet = ? and rater is null order by place {order} limit ?"
        return [*back, *(Drawn(*row) for row in self._labels.select(fresh, sheet.number, limit))][:limit]

    def progress(self, sheet: Sheet, view: LedgerView) -> Progress:
        """How far it has come. Raises UserError 74 where a decision is damaged."""
        words = self._labels.words()
        (drawn,) = self._labels.select("select count(*) from sheet_curves where sheet = ?", sheet.number)[0]
        noted = "select seq, chance, rater from sheet_curves where sheet = ? and rater is not null"
        rows = self._labels.select(noted, sheet.number)
        said: dict[int, tuple[Word, float]] = {}
        for seq, chance, rater in rows:
            if rater and (word := words.get(seq, {}).get(rater)):
                said[seq] = word, 1 / chance
        events = view.decisions([seq for seq, (word, _) in said.items() if word != "discard"])
        verdicts: dict[int, Verdict] = {seq: event["data"]["verdict"] for seq, event in events.items()}
        found = [seq for seq, (word, _) in said.items() if word == "keep" and seq in verdicts]
        return Progress(
            sheet,
            drawn=drawn,
            answered=len(said),
            gone=sum(rater == "" for _, _, rater in rows),
            unsure=sum(word == "unsure" and verdicts.get(seq) == "discard" for seq, (word, _) in said.items()),
            above=tuple(said[seq][1] for seq in found if verdicts[seq] != "discard"),
            missed=tuple(said[seq][1] for seq in found if verdicts[seq] == "discard"),
            confirmed=tuple(sorted(found)),
        )


def _poisson(view: LedgerView, ranges: Sequence[range], dice: random.Random) -> list[Drawn]:
    """Each curve that may be looked at with a chance of its own, independently of all others."""
    found = []
    for verdict in VERDICTS:
        looks = [
            look
            for one in ranges
            for look in view.looks(verdict, after=one.start - 1, until=one.stop - 1, order="seq", limit=1 << 40)
        ]
        share = min(1.0, ABOVE / len(looks)) if looks and verdict != "discard" else 1.0
        found += [Drawn(look.seq, share * look.probability) for look in looks if dice.random() < share]
    return found
