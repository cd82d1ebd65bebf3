"""What a person may be asked to look at: noted with every decision, drawn fairly, found quickly."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon.common.errors import UserError
from daemon.judging import Decision, audit, chance_in
from daemon.ledger import Ledger, LedgerView, file
from models.clock import Clock
from tests.ledgerhelp import JUDGE, as_version_2, decision, decisions, ledger_with

ROOT = Path(__file__).resolve().parents[1]
RAISED = replace(JUDGE, pipeline="raised", band=(0.04, 0.3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def discards(start: int, stop: int, **changes: object) -> list[Decision]:
    return [decision(number, verdict="discard", compact_copy=b"drawn", **changes) for number in range(start, stop)]


def test_what_is_kept_or_flagged_may_be_looked_at_and_its_copy_is_there(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    unreadable = decision(5, identity="none#x", verdict="review", score=None, compact_copy=None)
    kept = [decision(n, verdict="keep", score=score, compact_copy=b"kept") for n, score in ((1, 0.7), (2, 0.9))]
    ledger.record([*kept, decision(3, verdict="review", compact_copy=b"flagged"), unreadable])
    with ledger.view() as view:
        assert [(one.seq, one.score, one.probability) for one in view.looks("keep")] == [(2, 0.9, 1.0), (1, 0.7, 1.0)]
        assert [one.seq for one in view.looks("keep", order="seq")] == [1, 2]
        assert [one.seq for one in view.looks("keep", order="newest", limit=1)] == [2]
        assert [one.seq for one in view.looks("keep", order="newest", limit=1, offset=1)] == [1]
        assert [(one.seq, one.score) for one in view.looks("review")] == [(3, 0.25), (4, None)]
        assert [one.seq for one in view.looks("keep", between=(0.7, 0.9))] == [2]
        assert [view.compact_copy(seq) for seq in (1, 2, 3, 4)] == [b"kept", b"kept", b"flagged", None]
        assert (view.count_looks("keep"), view.count_looks("keep", after=1), view.count_looks("keep", 0, 1)) == (
            2,
            1,
            1,
        )
        assert view.find_copy(0, sha256=decision(1).sha256) == b"kept"
        assert view.find_copy(0, sha256=decision(3).sha256) == b"flagged"
        assert view.find_copy(0, path=decision(2).path) == b"kept"
        assert view.find_copy(1, path=decision(2).path) is None
        events = view.decisions([3, 1, 99])
        assert {seq: event["data"]["verdict"] for seq, event in events.items()} == {3: "review", 1: "keep"}
    ledger.close()


def test_two_of_a_hundred_discards_are_drawn_and_the_same_ones_by_everybody(path: Path) -> None:
    some = discards(1, 5001)
    ledger = Ledger(path, "afm1")
    for start in range(0, 5000, 1000):
        ledger.record(some[start : start + 1000])
    with ledger.view() as view:
        found = view.looks("discard", order="seq")
        assert 65 <= len(found) <= 140  # 100 on average; 3.5 times what chance moves it
        assert {one.probability for one in found} == {audit.AUDIT_SHARE}
        assert [one.seq for one in found] == [n for n in range(1, 5001) if audit.draw(some[n - 1].identity) < 0.02]
        assert view.compact_copy(found[0].seq) == b"drawn"
        assert view.count_looks("keep") == 0
    ledger.close()


def test_after_a_raise_the_band_is_audited_more_until_it_was(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    below = discards(1, 2001, judge=RAISED, score=0.04)  # the old cut discarded them too
    within = discards(2001, 2601, judge=RAISED, score=0.3)
    ledger.record(below)
    ledger.record(within[:300])
    ledger.close()
    ledger = Ledger(path, "afm1")  # what was counted outlives the process
    ledger.record(within[300:500])
    ledger.record(within[500:])
    with ledger.view() as view:
        shares = {one.seq: one.probability for one in view.looks("discard")}
        assert {shares[seq] for seq in shares if seq <= 2000} == {audit.AUDIT_SHARE}
        assert {shares[seq] > audit.BAND_SHARE for seq in shares if 2000 < seq <= 2300} == {True}  # by score, even more
        assert {shares[seq] for seq in shares if 2300 < seq <= 2500} == {audit.BAND_SHARE}
        assert {shares.get(seq, 0.02) < audit.BAND_SHARE for seq in range(2501, 2601)} == {True}
        assert 32 <= sum(2000 < seq <= 2500 for seq in shares) <= 82  # 57 on average
        assert {one.stratum: one.seq > 2000 for one in view.draws([1])} == {"score": False, "band": True}
    ledger.close()


def test_the_higher_the_score_the_likelier_a_discard_is_drawn(path: Path) -> None:
    """By what was discarded before its batch, and no more; each with its chance, and counted out of how many."""
    dice = np.random.default_rng(12)
    scores = [0.0, *dice.exponential(0.004, 5999)]
    some = [decision(n, verdict="discard", score=score, compact_copy=b"drawn") for n, score in enumerate(scores, 1)]
    wall_s = [1.8e9]  # in the middle of a night, whatever the zone: 2027-01-15T08:00Z
    ledger = Ledger(path, "afm1", clock=Clock(wall_s=lambda: wall_s[0]))
    expected = list[float]()
    for start in range(0, 6000, 500):
        if start == 3000:
            ledger.close()
            wall_s[0] += 86_400.0
            ledger = Ledger(path, "afm1", clock=Clock(wall_s=lambda: wall_s[0]))
        past = ledger.past(JUDGE.pipeline)
        assert (past.discards, past.scores) == (start, pytest.approx(sum(scores[:start])))
        expected += [chance_in(one, past).probability for one in some[start : start + 500]]
        ledger.record(some[start : start + 500])
        ledger.record(some[start : start + 9])  # decided already: counted once
    with ledger.view() as view:
        nights = view.audits(JUDGE.pipeline)
        draws = view.draws(one.number for one in nights)
        assert {one.seq: one.probability for one in draws} == {
            n: share for n, share in enumerate(expected, 1) if audit.draw(some[n - 1].identity) < share
        }
        assert {one.seq: one.probability for one in view.looks("discard")} == {o.seq: o.probability for o in draws}
        assert sum(expected[500:]) / 5500 == pytest.approx(audit.AUDIT_SHARE, rel=0.05)
        assert min(expected) >= audit.LEAST == pytest.approx(0.02 * (audit.UNIFORM + (1 - audit.UNIFORM) * 0.02 / 1.02))
        estimate, error = sum(1 / one.probability for one in draws), 4 * np.sqrt(6000 / 0.01)
        assert abs(estimate - 6000) < error
        assert [one.place for one in draws] == [(one.seq - 1) % 3000 + 1 for one in draws]
        assert [(one.discards, one.in_band, one.disputed) for one in nights] == [(3000, 0, 0)] * 2
        assert [one.night for one in nights] == sorted({one.night for one in nights})
        assert {one.audit for one in draws if one.seq <= 3000} == {nights[0].number}
        assert view.audits("another") == []
    ledger.close()


def test_what_the_second_opinion_disputes_is_all_looked_at_in_a_stratum_of_its_own(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    ledger.record(discards(1, 1001))
    disputed = discards(1001, 1011, is_disputed=True, steps=15.5, judge=RAISED, score=0.3)
    ledger.record([*disputed, decision(1011, verdict="keep", score=0.9, steps=3.0, judge=RAISED)])
    with ledger.view() as view:
        (audited,) = view.audits("raised")
        assert (audited.steps, audited.discards, audited.in_band, audited.disputed) == (11, 10, 0, 10)
        draws = view.draws([audited.number])
        assert draws == [(audited.number, "steps", 1000 + place, place, 1.0) for place in range(1, 11)]
        assert view.disputed() == [one.seq for one in draws]
        assert view.disputed(1005, 1007) == [1006, 1007]
        assert view.steps([1001, 1011, 1, 5000]) == {1001: ("discard", 15.5), 1011: ("keep", 3.0), 1: ("discard", None)}
        assert view.compact_copy(1001) == b"drawn"
    ledger.close()


def test_a_ledger_from_before_is_opened_at_once_and_filled_beside_the_service(path: Path) -> None:
    """As version 2 left it: nothing is known of looks, and a copy only of what was flagged."""
    ledger_with(path, 900).close()
    as_version_2(path)
    with LedgerView(path) as before, pytest.raises(UserError, match="start the service once") as refusal:
        before.looks("keep")
    assert refusal.value.exit_code == 69
    with LedgerView(path) as view:
        with pytest.raises(UserError):
            view.count_looks("keep")
        assert view.compact_copy(2) == b"a curve"
        ledger = Ledger(path, "afm1")
        assert view.count_looks("keep") == 0
        ledger.record([decision(901, verdict="keep")])
        portions = 1
        while ledger.do_chore():
            portions += 1
        assert portions == 5 + 5  # looks, and when each was measured
        assert view.count_looks("keep") == 301
        assert view.count_looks("review") == 300
        drawn = {n for n in range(1, 901) if n % 3 == 1 and audit.draw(decision(n).identity) < audit.AUDIT_SHARE}
        assert {one.seq for one in view.looks("discard")} == drawn
        assert not ledger.do_chore()
        ledger.close()


@pytest.mark.parametrize("name", ["ledger-schema-1.sqlite", "ledger-schema-2.sqlite", "ledger-schema-3.sqlite"])
def test_ledgers_that_services_of_before_wrote_are_filled_too(path: Path, name: str) -> None:
    shutil.copy(ROOT / "tests" / "faults" / name, path)
    with LedgerView(path) as before:
        stream, history = before.stream, before.bodies_since(0)
    ledger = Ledger(path, "afm1")
    while ledger.do_chore():
        pass
    with ledger.view() as view:
        assert (view.stream, view.bodies_since(0)) == (stream, history)
        counted = view.verdict_counts()
        assert [view.count_looks(word) for word in ("keep", "review")] == [counted["keep"], counted["review"]]
        assert sum(counted.values()) == view.last_seq == len(view.stream_scores().seqs)
    ledger.close()
    assert file.LOOKS_SINCE + 1 == file.DRAWS_SINCE == len(file.MIGRATIONS) - 1 == 4


def test_the_stream_of_scores(path: Path) -> None:
    ledger = Ledger(path, "afm1")
    odd = decision(3, identity="ab#odd", path="caf\udce9.txt", verdict="review", score=None)
    for one in (decision(1), decision(2, judge=RAISED), odd, decision(4, verdict="keep", score=0.9)):
        ledger.record([one])
    with ledger.view() as view:
        stream = view.stream_scores()
        assert stream.seqs.tolist() == [1, 2, 3, 4]
        assert np.isnan(stream.scores).tolist() == [False, False, True, False]
        assert stream.verdicts.tolist() == ["discard", "review", "review", "keep"]
        assert (stream.pipelines == "raised").tolist() == [False, True, False, False]
        assert view.stream_scores(last=2).seqs.tolist() == [3, 4]
        assert view.stream_scores(after=1, until=3).seqs.tolist() == [2, 3]
        assert view.stream_scores(after=9).scores.shape == (0,)
    ledger.close()


def test_a_draw_is_spread_evenly_and_knows_odd_names() -> None:
    drawn = np.array([audit.draw(one.identity) for one in decisions(0, 4000)])
    assert np.abs(np.sort(drawn) - np.arange(4000) / 4000).max() < 0.03  # Kolmogorov: 1 in 500 by chance
    assert 0 <= audit.draw("ab#caf\udce9.txt") == audit.draw("ab#caf\\udce9.txt") < 1
