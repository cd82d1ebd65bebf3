"""What nobody sees: of real ledgers and real labels, how many events lie among the discards at most."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pace import allowed

from daemon.guard.unseen import second, unseen
from daemon.judging import audit
from daemon.judging.sentinel import LEVEL
from daemon.labels import Labels, Word
from daemon.labels.sessions import Sessions
from daemon.ledger import Ledger, LedgerView, wire
from daemon.review.queues import queue, stretches
from models.anytime import least_events, lost_bound
from models.clock import Clock, rfc3339
from tests.ledgerhelp import JUDGE, decision

PIPELINE = JUDGE.pipeline
EVENING_S = 1.8e9  # 2027-01-15T08:00Z, hours from any noon that matters
#: Of computing; 50 ms where it was measured, of 300,000 decisions.
LIMIT_S = 0.1


@dataclass
class State:
    """A ledger with its labels, and a clock that is turned by hand."""

    folder: Path
    wall_s: float = EVENING_S

    def __post_init__(self) -> None:
        clock = Clock(wall_s=lambda: self.wall_s)
        self.ledger = Ledger(self.folder / "ledger.sqlite", "afm1", clock=clock)
        self.view, self.labels = LedgerView(self.ledger.path), Labels(self.folder / "labels.sqlite")

    def discard(self, count: int, **changes: Any) -> range:
        """So many discards of one score; their ``seq``."""
        first = self.ledger.last_seq + 1
        made = {"verdict": "discard", "score": 0.01, "compact_copy": b"a curve"} | changes
        self.ledger.record([decision(first + n, **made) for n in range(count)])
        return range(first, first + count)

    def look(self, word: Word, *seqs: int, way: str | None = "discards", rater: str = "anna") -> None:
        """As the page stores what a rater says, now."""
        events, now = self.view.decisions(seqs), rfc3339(self.wall_s)
        self.labels.say(Labels.of_event(events[seq], word, rater, queue=way, time=now) for seq in seqs)

    def draws(self) -> list[wire.Draw]:
        return self.view.draws(one.number for one in self.view.audits(PIPELINE))

    def unseen(self) -> Any:
        return unseen(self.view, self.labels, PIPELINE)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path)
    yield state
    state.labels.close()
    state.view.close()
    state.ledger.close()


def test_nothing_is_claimed_before_anybody_looked(state: State) -> None:
    said = state.unseen()
    assert (said.discards, said.drawn, said.looked_at, said.estimate, said.at_most, said.nights) == (0,) * 3 + (
        None,
        None,
        0,
    )
    assert said.text == "no discard of this model and cut is counted yet"
    state.discard(2_184)
    said = state.unseen()
    drawn = len(state.draws())
    assert 25 <= drawn <= 65
    assert (said.discards, said.drawn, said.looked_at, said.estimate, said.at_most, said.nights) == (
        2_184,
        drawn,
        0,
        None,
        None,
        1,
    )
    assert said.text == (
        "nobody has looked blind at any of 2,184 discards, so no bound on what is lost; "
        f"{drawn} of them were drawn for the queue of discards"
    )
    assert unseen(state.view, state.labels, "another").discards == 0


def test_who_stops_at_the_first_event_of_a_night_does_not_make_the_others_better(state: State) -> None:
    """What was found in a night that counts whole counts in the bound of the others as if it had been found there."""
    state.discard(2_000)
    first = [one.seq for one in state.draws()]
    state.wall_s += 86_400
    state.discard(2_000)
    later = [one.seq for one in state.draws()][len(first) :]
    state.wall_s += 86_400
    state.look("discard", *first)
    before = state.unseen()
    state.look("keep", later[0])
    stopped = state.unseen()
    assert (stopped.discards, stopped.looked_at, stopped.found) == (4_000, len(first) + 1, 1)
    chances, found = [0.02] * (len(first) + 1), [False] * len(first) + [True]
    assert stopped.at_most == lost_bound(2_001, chances, found, rest=audit.LEAST) - 1 + 2_000
    assert "hardly anybody has looked into 2,000 of them, which count whole" in stopped.text
    assert stopped.at_most > before.at_most


def test_a_curve_that_was_passed_over_is_in_doubt_until_somebody_answers(state: State) -> None:
    """Who labels only what looks easy would leave the events behind."""
    state.discard(4_000)
    drawn = [one.seq for one in state.draws()]
    state.wall_s += 86_400
    state.look("discard", *drawn[10:])
    for seq in drawn[:10]:
        state.labels.note_shown("anna", seq, "discards", "skip", time=rfc3339(state.wall_s))
    passed = state.unseen()
    assert (passed.looked_at, passed.found) == (len(drawn), 0)
    chances, found = [0.02] * len(drawn), [True] * 10 + [False] * (len(drawn) - 10)
    assert passed.at_most == lost_bound(4_000, chances, found, rest=audit.LEAST)
    assert "10 curves in doubt are counted as lost" in passed.text
    state.look("discard", *drawn[:10], rater="ben")
    assert state.unseen().at_most == lost_bound(4_000, chances, [False] * len(drawn), rest=audit.LEAST)


def test_what_was_looked_at_bounds_what_is_lost_over_all_nights(state: State) -> None:
    """The chance of a draw times the share of the drawn ones that were looked at, night by night."""
    state.discard(2_000)
    first = [one.seq for one in state.draws()]
    state.wall_s += 86_400
    state.discard(1_000)
    second_night = [one.seq for one in state.draws()][len(first) :]
    state.wall_s += 86_400
    state.discard(500)
    state.wall_s += 86_400
    state.look("discard", *first)
    of_one = state.unseen()
    drawn = len(state.draws())
    assert (of_one.discards, of_one.drawn, of_one.looked_at, of_one.nights) == (3_500, drawn, len(first), 3)
    of_first = lost_bound(2_000, [0.02] * len(first), [False] * len(first), rest=audit.LEAST)
    assert (of_one.at_most, of_one.estimate) == (of_first + 1_500, 0)
    assert of_one.text == (
        f"of 3,500 discards of this model and cut at most {of_first + 1_500:,} events were lost "
        f"({len(first)} of {drawn} drawn looked at, 95 %); nobody has looked into 1,500 of them, which count whole"
    )
    half = -(-len(second_night) // 2)
    state.look("discard", *second_night[1:half])
    state.look("keep", second_night[0])
    state.look("unsure", second_night[1], rater="ben")
    of_two = state.unseen()
    looked = len(first) + half
    assert (of_two.discards, of_two.looked_at, of_two.found) == (3_500, looked, 1)
    share = 0.02 * half / len(second_night)
    assert of_two.estimate == pytest.approx(1 / share)
    rest = {audit.LEAST: 2_000 - len(first), audit.LEAST * half / len(second_night): 1_000 - half}
    chances = [0.02] * len(first) + [share] * half
    found = [False] * len(first) + [True] * 2 + [False] * (half - 2)
    assert of_two.at_most == lost_bound(3_000, chances, found, rest=rest) + 500
    assert of_two.text.startswith(f"of 3,500 discards of this model and cut at most {of_two.at_most:,} events were ")
    assert "1 event found, which stands for about" in of_two.text
    assert "1 curve in doubt is counted as lost" in of_two.text


def test_while_the_night_goes_on_what_came_after_the_last_answer_counts_whole(state: State) -> None:
    state.discard(1_500)
    seen = [one.seq for one in state.draws()]
    state.look("discard", *seen)
    state.wall_s += 3_600
    state.discard(1_500)
    said, drawn = state.unseen(), len(state.draws())
    assert (said.discards, said.drawn, said.looked_at) == (3_000, drawn, len(seen))
    bound = lost_bound(1_500, [0.02] * len(seen), [False] * len(seen), rest=audit.LEAST)
    assert said.at_most == bound + 1_500
    assert said.text.endswith("nobody has looked into 1,500 of them, which count whole")
    state.wall_s += 86_400
    state.look("discard", *[one.seq for one in state.draws()][len(seen) :])
    every = lost_bound(3_000, [0.02] * drawn, [False] * drawn, rest=audit.LEAST)
    assert (state.unseen().at_most, state.unseen().text.count("whole")) == (every, 0)


def test_a_look_that_finds_nothing_never_makes_it_worse(state: State) -> None:
    """Over nights and sessions, in the order of the page, with some of what comes looked at at once and some not."""
    dice = random.Random(3)
    told: list[int] = []
    for step in range(16):
        state.discard(dice.choice((200, 600, 1_500)), score=dice.choice((0.001, 0.01, 0.02)))
        if step % 5 == 3:
            Sessions(state.labels).begin(sample=f"{step}")
        told = [state.unseen().at_most or 0] if state.unseen().looked_at else []
        within = stretches(Sessions(state.labels), dice.choice(("all", "current")))
        waiting = [item.seq for item in queue(state.view, state.labels, "discards", "anna", 200, within) if item.weight]
        for seq in waiting[: dice.choice((0, 1, 4, 20, 200))]:
            state.look("discard", seq)
            said = state.unseen()
            assert said.at_most is not None
            assert said.at_most <= min([said.discards, *told[-1:]]), (step, said.text)
            told.append(said.at_most)
            state.wall_s += 10
            if dice.random() < 0.1:  # the night goes on while somebody looks
                state.discard(30)
                told = [state.unseen().at_most]
        state.wall_s += dice.choice((60, 3_600, 86_400))
    assert state.unseen().looked_at > 100
    assert state.unseen().at_most < 0.5 * state.unseen().discards


def test_the_few_looks_at_what_came_later_do_not_borrow_from_the_many_before(state: State) -> None:
    """All drawn are looked at, none is an event; then the tip is another and every discard is one; one more look."""
    state.discard(3_000)
    state.look("discard", *[one.seq for one in state.draws()])
    clean = len(state.draws())
    state.wall_s += 60
    state.discard(3_000)
    later = [one.seq for one in state.draws()][clean:]
    state.look("keep", later[0])
    assert (state.unseen().looked_at, state.unseen().found) == (clean + 1, 1)
    assert state.unseen().at_most >= 3_000
    state.look("unsure", later[1])
    assert state.unseen().at_most >= 3_000


def test_a_word_that_did_not_come_by_chance_is_known_and_no_look(state: State) -> None:
    state.discard(400)
    drawn = [one.seq for one in state.draws()]
    state.look("keep", *drawn[:2], way="disagreements")
    state.look("discard", *drawn[2:4], way=None)
    assert (state.unseen().looked_at, state.unseen().at_most) == (0, None)
    state.look("discard", *drawn[4:], way="sheet")
    assert state.unseen().looked_at == len(drawn) - 4
    state.look("keep", *drawn[2:4], rater="ben")  # shown blind to another rater; and they differ
    said = state.unseen()
    assert (said.looked_at, said.found) == (len(drawn) - 2, 0)
    assert said.at_most >= 4


def test_the_disputed_and_the_band_are_counted_each_by_its_own_chance(state: State) -> None:
    raised = replace(JUDGE, band=(0.02, 0.3))
    state.discard(1_000)
    state.discard(100, score=0.1, judge=raised)
    disputed = state.discard(10, is_disputed=True, steps=20.0)
    state.wall_s += 86_400
    strata = {one.seq: one for one in state.draws()}
    assert {strata[seq].probability for seq in disputed} == {1.0}
    by_chance = [seq for seq in strata if seq not in disputed]
    state.look("discard", *by_chance)
    waiting = state.unseen()
    state.look("keep", *disputed[:3], way="disagreements")
    state.look("discard", *disputed[3:], way="disagreements")
    said = state.unseen()
    assert (said.discards, said.looked_at, said.found, said.estimate) == (1_110, len(strata), 3, 3.0)
    band = sum(one.stratum == "band" for one in strata.values())
    rest = {audit.LEAST: 1_000 - (len(strata) - band - 10), audit.BAND_SHARE: 100 - band}
    chances = [one.probability for one in strata.values()]
    lost = [seq in disputed[:3] for seq in strata]
    assert said.at_most == lost_bound(1_110, chances, lost, rest=rest)
    assert waiting.at_most == lost_bound(
        1_110,
        [one.probability for seq, one in strata.items() if seq in by_chance],
        [False] * len(by_chance),
        rest=rest | {0.0: 10},
    )


def test_the_disputed_wait_among_the_discards_and_in_the_disagreements_in_one_order(state: State) -> None:
    state.discard(500)
    disputed = state.discard(12, is_disputed=True, steps=20.0)
    blind = [item.seq for item in queue(state.view, state.labels, "discards", "anna", 100)]
    assert {*disputed} < {*blind}
    told = queue(state.view, state.labels, "disagreements", "anna", 100)
    assert [item.seq for item in told] == [seq for seq in blind if seq in disputed]
    assert {item.weight for item in told} == {1.0}
    assert [item.seq for item in told] != sorted(disputed)
    state.look("keep", told[0].seq, way="disagreements")
    assert len(queue(state.view, state.labels, "disagreements", "ben", 100)) == 11
    assert queue(state.view, state.labels, "disagreements", "ben", 100, [(1, 500)]) == []


def test_what_two_detectors_find_says_what_both_miss_at_least(state: State) -> None:
    assert second(state.view, state.labels).text == "the second opinion disputes no discard"
    discards = state.discard(300, steps=1.0)
    disputed = state.discard(20, is_disputed=True, steps=LEVEL + 1)
    kept = state.discard(60, verdict="keep", score=0.9, steps=LEVEL + 2)
    weak = state.discard(30, verdict="review", score=0.3, steps=LEVEL - 2)
    before = state.discard(5, verdict="keep", score=0.9)  # by a version without a second opinion
    said = second(state.view, state.labels)
    assert (said.seen, said.disputed, said.looked_at, said.confirmed, said.least_in_all) == (410, 20, 0, 0, None)
    assert said.text == "the second opinion disputes 20 discards; 0 looked at, 0 confirmed"
    state.look("keep", *disputed[:15], *kept, *weak, *before)
    state.look("discard", *disputed[15:18])
    said = second(state.view, state.labels)
    least = least_events(60, 30, 15)
    assert (said.looked_at, said.confirmed, said.least_in_all, said.least_missed) == (18, 15, least, least - 105)
    assert said.text.endswith("; 18 looked at, 15 confirmed")  # that none is missed by both would say nothing
    state.look("keep", *discards[:40])  # found by neither, and known all the same
    said = second(state.view, state.labels)
    assert said.least_missed == 40
    assert said.text.endswith("; there are at least 145 events, and both miss at least 40 of them (90 %)")


def test_three_hundred_thousand_decisions_are_told_of_at_once(state: State) -> None:
    """Written into the tables as the ledger does: 60 nights, 6,000 drawn, as many disputed, 1,500 labels."""
    nights, a_night = range(1, 61), 5_000
    body = wire.encode({"time": "2026-01-01T00:00:00Z", "data": {"verdict": "discard", "steps": 13.0}})
    audits = [(n, PIPELINE, f"2026-{n // 28 + 1:02d}-{n % 28 + 1:02d}", a_night, a_night, 40.0, 0, 100) for n in nights]
    drawn = [(n, n * a_night + place * 24, place) for n in nights for place in range(200)]
    with contextlib.closing(sqlite3.connect(state.ledger.path)) as database:
        database.executemany("insert into audits values (?, ?, ?, ?, ?, ?, ?, ?)", audits)
        database.executemany(
            "insert into decisions values (?, ?, 'discard', ?, ?)",
            [(seq, f"{seq}", body, wire.checksum(seq, "discard", body)) for _, seq, _ in drawn],
        )
        database.executemany(
            "insert into looks values (?, 'discard', 0.01, ?, x'00')",
            [(seq, 1.0 if place % 2 else 0.02) for _, seq, place in drawn],
        )
        database.executemany(
            "insert into draws values (?, ?, ?, ?)",
            [(n, "steps" if place % 2 else "score", seq, place // 2 + 1) for n, seq, place in drawn],
        )
        database.commit()
    data = {"curve": 0, "sha256": None, "model": "m", "pipeline": PIPELINE, "verdict": "discard", "score": 0.01}
    state.labels.add(
        Labels.of_event(
            {"stream": state.view.stream, "seq": seq, "data": {"path": f"{seq}", **data}},
            "keep" if place % 16 == 1 else "discard",
            "anna",
            queue="discards",
        )
        for _, seq, place in drawn
        if place % 8 < 2 and place < 100
    )
    tellers: tuple[Callable[[], Any], ...] = (state.unseen, lambda: second(state.view, state.labels))
    found = [tell() for tell in tellers]  # what is new in the labels is read once
    assert (found[0].discards, found[0].looked_at, found[0].found) == (300_000, 60 * 26, 60 * 7)
    assert (found[1].disputed, found[1].confirmed) == (6_000, 60 * 7)
    for tell in tellers:
        took_s = []
        for _ in range(5):
            began_s = time.thread_time()  # of the processor: others may be using the machine
            tell()
            took_s.append(time.thread_time() - began_s)
        assert min(took_s) <= allowed(LIMIT_S)
