"""The queues, on a real ledger and real labels: what comes first, what never comes again, who leads whom."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pace import allowed

from daemon.judging import Thresholds, Verdict, audit
from daemon.labels import Labels, Word
from daemon.labels.raters import BLOCK, REPEAT_AFTER
from daemon.labels.sessions import Sessions
from daemon.ledger import Ledger
from daemon.ledger.view import LedgerView
from daemon.review.outlook import outlook
from daemon.review.queues import Aims, Item, QueueName, lengths, portion, queue, stretches
from tests.ledgerhelp import JUDGE, decision

#: Of computing, for any queue of a long history: 10 to 40 ms where it was measured, 160 ms on a machine at its slowest.
LIMIT_S = 0.25


@dataclass(frozen=True, slots=True)
class Night:
    """A ledger, its labels, and short ways to ask and to answer."""

    ledger: Ledger
    view: LedgerView
    labels: Labels

    def add(self, *judged: tuple[Verdict, float | None], **changes: Any) -> list[int]:
        """Decisions of these verdicts and scores; their ``seq``."""
        first = self.ledger.last_seq + 1
        made = [
            decision(first + n, verdict=verdict, score=score, compact_copy=b"a curve", **changes)
            for n, (verdict, score) in enumerate(judged)
        ]
        return [seq for seq in self.ledger.record(made) if seq]

    def say(self, rater: str, word: Word, *seqs: int, queue: str = "review") -> None:
        """As the server stores a word, curve after curve."""
        events = self.view.decisions(seqs)
        for seq in seqs:
            self.labels.say([Labels.of_event(events[seq], word, rater, queue=queue, weight=1.0)])

    def next(self, name: QueueName, rater: str = "anna", limit: int = 1_000, **asked: Any) -> list[Item]:
        return queue(self.view, self.labels, name, rater, limit, **asked)

    def seqs(self, name: QueueName, rater: str = "anna", limit: int = 1_000, **asked: Any) -> list[int]:
        return [item.seq for item in self.next(name, rater, limit, **asked)]


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    with ledger.view() as view, Labels(tmp_path / "labels.sqlite") as labels:
        yield Night(ledger, view, labels)
    ledger.close()


def test_kept_curves_come_newest_first_and_those_in_doubt_by_score(night: Night) -> None:
    night.add(("keep", 0.7), ("review", None), ("review", 0.2), ("keep", 0.9), ("review", 0.5), ("review", None))
    assert night.seqs("kept") == [4, 1]
    assert night.seqs("review") == [5, 3, 2, 6]
    assert night.seqs("review", limit=2) == [5, 3]
    (item,) = night.next("kept", limit=1)
    assert item == Item(4, f"{night.view.stream}:4", "kept", 1.0, "plain")


def test_the_cut_is_served_first(night: Night) -> None:
    """What `adapt` names heads the pile, once; the band heads the discards, with the weight of its own draw."""
    night.add(*[("review", score / 100) for score in range(60)])
    aims = Aims(first=[7, 3], band=(0.04, 0.3))
    found = night.next("review", aims=aims)
    assert [(item.seq, item.queue) for item in found[:3]] == [(7, "first"), (3, "first"), (60, "review")]
    assert sorted(item.seq for item in found) == list(range(1, 61))
    assert night.seqs("first", aims=aims) == [7, 3]

    night.add(*[("discard", 0.01 if n % 2 else 0.2) for n in range(3_000)])
    every = night.next("discards", aims=aims)
    band = [item for item in every if item.queue == "band"]
    assert every[: len(band)] == band
    assert 15 <= len(band) <= 50
    assert night.next("band", aims=aims) == band
    assert {item.weight for item in every} == {50.0}
    assert all(night.view.decisions([item.seq])[item.seq]["data"]["score"] == 0.2 for item in band)
    order = [item.seq for item in every[len(band) :]]
    assert order != sorted(order)
    assert night.seqs("discards", aims=aims, limit=10) == [i.seq for i in every[:10]]


def test_what_was_answered_is_gone_for_its_rater_alone_and_what_was_skipped_comes_back_at_the_end(night: Night) -> None:
    night.add(*[("keep", 0.9)] * 6)
    night.say("anna", "keep", 6)
    for seq, moment in ((5, "2026-11-28T10:00:00.000Z"), (3, "2026-11-28T10:00:01.000Z")):
        night.labels.note_shown("anna", seq, "kept", "skip", time=moment)
    assert night.seqs("kept") == [4, 2, 1, 5, 3]
    assert night.seqs("kept", limit=4) == [4, 2, 1, 5]
    assert lengths(night.view, night.labels, "anna")["kept"] == 5
    assert lengths(night.view, night.labels, None)["kept"] == 5  # of which nobody has said a word
    assert lengths(night.view, night.labels, "ben", [(2, 4)])["kept"] == 3
    night.say("anna", "discard", 5)
    assert night.seqs("kept") == [4, 2, 1, 3]
    assert set(night.seqs("kept", "ben")) == {1, 2, 3, 4, 5, 6}


def test_an_answer_that_was_taken_back_brings_the_curve_back(night: Night) -> None:
    night.add(*[("keep", 0.9)] * 3)
    night.say("anna", "keep", 3)
    assert night.seqs("kept") == [2, 1]
    holding = [one for one in night.labels.current() if one.seq == 3]
    night.labels.remove(holding, by="anna", reason="undone", time="2026-11-28T10:00:00.000Z")
    assert night.seqs("kept") == [3, 2, 1]


def test_sessions_bound_the_queues(night: Night) -> None:
    sessions = Sessions(night.labels)
    assert stretches(sessions) is None
    night.add(*[("keep", 0.9)] * 2)
    first = sessions.begin(sample="A")
    night.add(*[("keep", 0.9), ("review", 0.1)])
    second = sessions.begin(sample="B")
    night.add(*[("keep", 0.8), ("review", 0.3)])
    assert night.seqs("kept", within=stretches(sessions)) == [5]
    assert night.seqs("kept", within=stretches(sessions, first.number)) == [3]
    assert night.seqs("kept", within=stretches(sessions, "all")) == [5, 3, 2, 1]
    both = [*(stretches(sessions, first.number) or []), *(stretches(sessions, second.number) or [])]
    assert (night.seqs("kept", within=both), night.seqs("review", within=both)) == ([5, 3], [6, 4])
    with pytest.raises(LookupError, match="no session 9"):
        stretches(sessions, 9)


def test_a_second_rater_is_led_to_thirty_shared_curves_of_both_words_and_then_to_what_is_new(night: Night) -> None:
    """Each third curve, keeps and discards in turn: thirty shared discards would agree by themselves."""
    night.add(*[("review", n / 1_000) for n in range(400)])
    night.say("anna", "discard", *range(1, 200))
    night.say("anna", "keep", *range(200, 231))
    answered: list[int] = []
    for number in range(105):
        item = night.next("review", "ben", limit=20)[0]
        if item.kind == "plain":
            assert (item.seq <= 230) == (number % 3 == 2 and sum(seq <= 230 for seq in answered) < 30), number
            night.say("ben", "keep", item.seq)
            answered.append(item.seq)
        else:
            night.labels.note_shown("ben", item.seq, "review", item.kind, answer="keep")
    shared = [seq for seq in answered if seq <= 230]
    assert len(shared) == 30
    assert 13 <= sum(seq >= 200 for seq in shared) <= 17
    new = [seq for seq in answered if seq > 230]
    assert new == list(range(400, 400 - len(new), -1))  # the highest score first
    rest = [item.seq for item in night.next("review", "ben") if item.kind == "plain"]
    assert rest == [*range(400 - len(new), 230, -1), *(seq for seq in range(230, 0, -1) if seq not in shared)]


def test_raters_who_differ_are_asked_again_until_each_has_answered_the_other(night: Night) -> None:
    night.add(*[("review", 0.3)] * 4)
    night.say("anna", "keep", 1, 2, 3)
    night.say("ben", "keep", 1)
    night.say("ben", "discard", 2, 3)
    assert night.seqs("disagreements", "anna") == [3, 2]  # the latest first
    assert night.seqs("disagreements", "ben") == []  # who spoke last has seen what the other said
    assert night.seqs("disagreements", "cora") == [3, 2]
    night.labels.note_shown("anna", 3, "disagreements", "skip")
    assert night.seqs("disagreements", "anna") == [2, 3]
    night.say("anna", "discard", 3)
    night.say("anna", "unsure", 2)
    assert night.seqs("disagreements", "anna") == []
    assert night.seqs("disagreements", "ben") == [2]


def test_what_the_model_of_now_would_decide_otherwise_is_a_disagreement_too(night: Night) -> None:
    night.add(("review", 0.05), ("review", 0.5), ("keep", 0.7), ("keep", 0.9))
    night.add(("review", 0.05), judge=replace(JUDGE, pipeline="weights:other|thresholds:1"))
    night.add(("review", 0.05), reasons=("flip",))
    serving = (f"{JUDGE.pipeline}|thresholds:0.1-0.8", Thresholds(0.1, 0.8))
    assert set(night.seqs("disagreements", aims=Aims(serving=serving))) == {1, 3}
    night.say("ben", "keep", 1)
    assert night.seqs("disagreements", aims=Aims(serving=serving)) == [3]


def test_questions_come_in_silence_and_never_twice(night: Night) -> None:
    """Known curves that this rater never saw, and their own of a while ago; answers are no labels."""
    night.add(*[("keep", 0.9)] * 300)
    for rater in ("anna", "ben"):
        night.say(rater, "keep", *range(1, 101))
    asked: dict[str, list[int]] = {"plain": [], "golden": [], "repeat": []}
    for number in range(8 * BLOCK):
        item = night.next("kept", "cora", limit=5)[0]
        asked[item.kind].append(item.seq)
        if item.kind == "plain":
            assert item.weight == 1.0
            night.say("cora", "keep", item.seq, queue="kept")
        else:
            assert item.weight is None
            if item.kind == "repeat":  # at least so many others lie between, and it is one of as many
                assert item.seq in asked["plain"][:-REPEAT_AFTER], number
                assert len(asked["plain"]) >= 2 * REPEAT_AFTER
            night.labels.note_shown("cora", item.seq, "kept", item.kind, answer="keep", expected="keep")
    assert len(asked["golden"]) == len(set(asked["golden"])) == 8
    assert len(asked["repeat"]) == len(set(asked["repeat"]))
    assert 4 <= len(asked["repeat"]) <= 6  # from the sixtieth label on: earlier there are too few to choose from
    assert len(asked["plain"]) == len(set(asked["plain"]))
    assert set(asked["golden"]) <= set(range(1, 101))
    assert set(asked["golden"]).isdisjoint(asked["plain"])
    assert sum(one.rater == "cora" for one in night.labels.current()) == len(asked["plain"])


def test_a_question_shows_by_its_verdict_only_where_that_is_hidden(night: Night) -> None:
    """Among kept curves a known discard would stand out; among blind ones it must not be missing."""
    night.add(*[("keep", 0.9)] * 100, *[("review", 0.3)] * 40)
    for rater in ("anna", "ben"):
        night.say(rater, "discard", *range(101, 131))
    assert {item.kind for item in night.next("kept", "cora")} == {"plain"}
    assert {item.kind for item in night.next("review", "", is_blind=True)} == {"plain"}  # nobody in particular
    blind = [item for item in night.next("kept", "cora", is_blind=True) if item.kind == "golden"]
    assert len(blind) >= 5
    assert {item.seq for item in blind} <= set(range(101, 131))


def test_a_young_night_has_discards_to_look_at_too(night: Night) -> None:
    """Few are drawn for audit: others stand in behind them, twenty in all; they weigh nothing, nobody waits for them.

    A question among them looks like what stands around it.
    """
    kept, *discards = night.add(("keep", 0.9), *[("discard", 0.01)] * 300)
    drawn = {look.seq: 1 / look.probability for look in night.view.looks("discard")}
    items = queue(night.view, night.labels, "discards", "anna", 100)
    assert len(items) == 20
    assert 2 <= len(drawn) <= 12
    assert [item.is_drawn for item in items] == [True] * len(drawn) + [False] * (20 - len(drawn))
    assert {item.seq for item in items[: len(drawn)]} == drawn.keys()
    assert {item.seq for item in items} <= set(discards)
    assert drawn.keys() <= {item.seq for item in items}
    assert {item.seq: item.weight for item in items} == dict.fromkeys((item.seq for item in items), 0.0) | drawn
    assert lengths(night.view, night.labels, "anna")["discards"] == len(drawn)
    night.say("anna", "discard", items[0].seq, items[-1].seq, queue="discards")
    assert lengths(night.view, night.labels, "anna")["discards"] == len(drawn) - 1
    assert kept not in night.seqs("discards", "anna", limit=100)
    night.labels.note_shown("anna", items[1].seq, "discards", "skip", time="2026-11-28T10:00:00.000Z")
    again = [item.seq for item in queue(night.view, night.labels, "discards", "anna", 100)]
    assert again == [item.seq for item in (*items[2 : len(drawn)], items[1], *items[len(drawn) : -1])]

    known = night.add(*[("keep", 0.9)] * 40)
    for rater in ("ben", "cora"):
        night.say(rater, "keep", *known)
    kinds = set[str]()
    for rater in ("dora", "eve", "fay", "gil"):
        night.say(rater, "discard", *drawn, queue="discards")
        asked = queue(night.view, night.labels, "discards", rater, 100, is_blind=True)
        assert {item.is_drawn for item in asked} == {False}
        kinds |= {item.kind for item in asked}
    assert kinds == {"plain", "golden"}


def test_a_long_history_is_answered_at_once(night: Night) -> None:
    """Of some 100,000 decisions 10,000 flagged and labelled: at once, in every queue.

    Of the discards only those that are drawn for audit are recorded: no queue looks at any other.
    """
    drawn = [n for n in range(1, 90_001) if audit.draw(f"{n:064x}#0") < audit.AUDIT_SHARE]
    made = [decision(n, verdict="discard", score=0.01, compact_copy=b"a curve") for n in drawn]
    scores = random.Random(1)
    for n in range(90_001, 102_001):
        verdict: Verdict = "keep" if n % 6 == 0 else "review"
        made.append(decision(n, verdict=verdict, score=scores.random(), compact_copy=b"a curve"))
    scores.shuffle(made)
    for start in range(0, len(made), 2_000):
        night.ledger.record(made[start : start + 2_000])
    flagged = [look.seq for look in night.view.looks("review", limit=20_000)]
    assert len(flagged) == 10_000
    assert night.view.count_looks("discard") == len(drawn)
    events = night.view.decisions(flagged)
    for rater, seqs in (("anna", flagged), ("ben", flagged[:5_000])):
        night.labels.add(Labels.of_event(events[seq], "keep" if seq % 9 == 0 else "discard", rater) for seq in seqs)
    assert night.seqs("review", "anna") == []
    names: tuple[QueueName, ...] = ("kept", "review", "discards", "disagreements")
    for rater in ("anna", "ben", "cora"):
        for name in names:
            night.seqs(name, rater, limit=60)  # what is new in the labels is read once
            took_s = []
            for _ in range(5):
                began_s = time.thread_time()  # of the processor: others may be using the machine
                night.seqs(name, rater, limit=60)
                took_s.append(time.thread_time() - began_s)
            assert min(took_s) <= allowed(LIMIT_S), (rater, name)
    counted: tuple[Callable[[], object], ...] = (
        lambda: lengths(night.view, night.labels, "anna"),
        lambda: outlook(night.view, night.labels, [(1, None)]),
    )
    for count in counted:
        took_s = []
        for _ in range(5):
            began_s = time.thread_time()
            count()
            took_s.append(time.thread_time() - began_s)
        assert min(took_s) <= allowed(LIMIT_S)
    assert lengths(night.view, night.labels, "ben") == {
        "kept": 2_000,
        "review": 5_000,
        "discards": len(drawn),
        "disagreements": 0,
    }


def answer(night: Night, items: list[Item], is_event: Callable[[int], bool], rater: str = "anna") -> None:
    """As the server stores what was handed out, all of it at once."""
    events = night.view.decisions([item.seq for item in items])
    night.labels.say(
        Labels.of_event(events[one.seq], "keep" if is_event(one.seq) else "discard", rater, queue=one.queue)
        for one in items
    )


def test_when_the_ranking_runs_dry_curves_come_by_chance_until_it_is_enough(night: Night) -> None:
    """The pile is that of the first drawn curve; what comes later is a portion of its own; anybody's answers count."""
    events = set(night.add(*[("review", 0.9 - n / 1_000) for n in range(60)]))
    night.add(*[("review", 0.5 - n / 1_000) for n in range(440)])
    answer(night, night.next("review", limit=60), events.__contains__)
    asked = night.next("review", limit=50)
    assert {item.queue for item in asked} == {"review"}  # the ranking has just brought nothing but events
    answer(night, asked, events.__contains__)
    looked = portion(night.view, night.labels).standing.looked
    assert portion(night.view, night.labels).standing.text.endswith("seen; about 212 more for 5 %")

    asked = [item for item in night.next("review", limit=40) if item.kind == "plain"]
    assert {item.queue for item in asked} == {"drawn"}
    seqs = [item.seq for item in asked]
    assert seqs not in (sorted(seqs), sorted(seqs, reverse=True))
    assert night.seqs("drawn", "", limit=len(seqs)) == seqs
    dealt = queue(night.view, night.labels, "review", "anna", 40, is_dealt=True)
    assert {item.queue for item in [*dealt, *night.next("review", "")]} == {"review"}

    answer(night, night.next("drawn", "", limit=len(seqs)), events.__contains__, "ben")
    later = night.add(*[("review", 0.95)] * 5)  # the most likely ones, but not of this portion
    now = portion(night.view, night.labels)
    assert (now.later, now.standing.looked, now.standing.left) == (5, looked + len(asked), 500 - looked - len(asked))
    assert now.standing.unseen_bound is not None
    assert set(night.seqs("drawn", limit=1_000)).isdisjoint(later)
    for _ in range(40):
        if portion(night.view, night.labels).before is not None:
            break
        answer(night, night.next("review", limit=20), events.__contains__)
    now = portion(night.view, night.labels)
    assert now.before is not None
    assert now.before.is_enough
    assert now.before.looked < 0.85 * 500
    assert now.plain()["text"].startswith("enough: looked at ")
    assert (now.standing.looked, now.standing.left, now.later) == (0, 5, 0)
    assert night.seqs("review", limit=5) == later  # by rank again


def test_an_answer_taken_back_or_passed_over_leaves_the_drawn_curve_open(night: Night) -> None:
    night.add(*[("review", 0.9 - n / 1_000) for n in range(300)])
    answer(night, night.next("review", limit=90), lambda seq: seq <= 60)
    drawn = [item for item in night.next("review", limit=60) if item.queue == "drawn"]
    answer(night, drawn, lambda seq: False)
    before = portion(night.view, night.labels).standing
    assert before.unseen_bound is not None
    holding = [one for one in night.labels.current() if one.seq == drawn[3].seq]
    night.labels.remove(holding, by="anna", reason="undone", time="2026-11-28T10:00:00.000Z")
    undone = portion(night.view, night.labels)
    assert undone.drawn[0].seq == drawn[3].seq
    assert undone.standing.unseen_bound > before.unseen_bound
    assert night.seqs("review", limit=1) == [drawn[3].seq]
    night.labels.note_shown("anna", drawn[3].seq, "review", "skip")
    assert night.seqs("review", limit=1) == [undone.drawn[1].seq]
    night.say("ben", "discard", drawn[3].seq)
    assert portion(night.view, night.labels).standing == before
    night.say("ben", "unsure", drawn[3].seq)
    assert portion(night.view, night.labels).standing.unseen_bound > before.unseen_bound
