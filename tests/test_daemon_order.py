"""The order of the pile: a head on the labels, what it does not know, and what happens around it."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import signal
import sqlite3
import time

import numpy as np
import pytest
from adapthelp import Night
from modelhelp import noisy
from pace import allowed

from daemon.cli import main
from daemon.client.folders import NOTE
from daemon.formats.afmcurve import compact_copy_of
from daemon.labels import Labels
from daemon.learn.order import Orderer, Pile, Ranking
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Look
from daemon.processes.child import Child
from daemon.review.queues import Aims, queue
from deploy.serving import known_curves
from models.bundle import SHIPPED, read
from models.frontend import prepare_to_judge


def looks(*scores: float | None) -> list[Look]:
    return [Look(seq, "review", score, 1.0) for seq, score in enumerate(scores, start=1)]


def ranking(**scores: float) -> Ranking:
    """``_3=0.5``: what the head thinks of curve 3."""
    seqs = sorted(int(name[1:]) for name in scores)
    return Ranking(np.array(seqs, np.int64), np.array([scores[f"_{seq}"] for seq in seqs]), 8)


def test_known_curves_come_in_the_order_of_the_head_and_those_without_a_score_last() -> None:
    order = ranking(_1=-2.0, _2=3.0, _3=0.0, _9=9.0).order(looks(0.9, 0.8, 0.7, None, None))
    assert [look.seq for look in order] == [2, 3, 1, 4, 5]


def test_a_curve_that_came_just_now_keeps_its_place_among_the_others() -> None:
    """By the network it would be first, or third of four: so many known ones stand before it."""
    assert [one.seq for one in ranking(_2=1.0, _3=2.0, _4=3.0).order(looks(0.9, 0.8, 0.7, 0.6))] == [1, 4, 3, 2]
    assert [one.seq for one in ranking(_1=1.0, _2=2.0, _4=3.0).order(looks(0.9, 0.8, 0.7, 0.6))] == [4, 2, 3, 1]
    assert [one.seq for one in ranking().order(looks(0.9, 0.8))] == [1, 2]
    assert ranking(_1=1.0).order([]) == []


def test_the_queue_follows_the_head(tmp_path) -> None:
    night = Night(tmp_path)
    seqs = night.decide([0.5, 0.4, 0.3, 0.2, 0.1])
    head = Aims(ranking=Ranking(np.array(seqs, np.int64), np.arange(5.0), 8))
    with LedgerView(tmp_path / "ledger.sqlite") as view, Labels(tmp_path / "labels.sqlite") as labels:
        assert [one.seq for one in queue(view, labels, "review", "", 9)] == seqs
        assert [one.seq for one in queue(view, labels, "review", "", 9, aims=head)] == seqs[::-1]
        first = Aims(first=[seqs[2]], ranking=head.ranking)
        assert [one.seq for one in queue(view, labels, "review", "", 2, aims=first)] == [seqs[2], seqs[4]]


#: Of each known curve, with other noise each: whether it holds an event.
TRUTH = (False, False, True, True, True, False)
EACH = 4


@pytest.fixture(scope="module")
def flagged(tmp_path_factory) -> Night:
    """Curves of two kinds, all of one score, so that the network's word decides nothing; the last one has no copy."""
    night, profile = Night(tmp_path_factory.mktemp("flagged") / "state"), read(SHIPPED).profile
    for number in range(EACH):
        for place, curve in enumerate(known_curves()):
            some = noisy(curve, 10 * number + place)
            night.decide([0.3], copy=compact_copy_of(some, profile, prepare_to_judge([some], profile)[0]))
    night.decide([0.3], copy=b"no curve")
    return night


@pytest.fixture
def night(flagged, tmp_path) -> Night:
    """A copy of it, as nobody has touched it yet."""
    shutil.copytree(flagged.state, tmp_path / "state")
    return Night(tmp_path / "state", count=flagged.count)


def of_kind(kind: bool) -> list[int]:
    return [seq for seq in range(1, EACH * len(TRUTH) + 1) if TRUTH[(seq - 1) % len(TRUTH)] == kind]


def ordered(pile: Pile) -> Ranking | None:
    pile.look()
    while pile.left:
        pile.embed_some()
    return pile.ranking()


def test_eight_labels_of_both_kinds_order_the_others_whatever_the_labels_call_an_event(night, monkeypatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr("daemon.learn.head.OWN_BY_LABELS", 0.0)  # the network, which says the opposite, speaks softly
    told: list[str] = []
    night.say("keep", of_kind(False)[:4])  # a laboratory that looks for the others
    with Pile(night.config, told.append) as pile:
        assert ordered(pile) is None
        assert pile.missing == "4 more labels"
        night.say("keep", of_kind(False)[4:8])
        assert ordered(pile) is None
        assert "other kind" in pile.missing
        night.say("discard", of_kind(True)[:4])
        night.say("unsure", of_kind(True)[4:5])
        night.say("discard", of_kind(False)[:1], "ben")  # of whom the one says this and the other that: no lesson
        found = ordered(pile)
        assert not pile.look(), "nothing has changed since"
    assert found is not None
    assert found.labels == 11
    assert found.seqs.tolist() == [*range(1, night.count)], "the one that cannot be read has no place in it"
    best = found.seqs[np.argsort(-found.scores)][: len(of_kind(False))]
    assert set(best.tolist()) == set(of_kind(False))
    assert not told


def test_what_was_embedded_is_embedded_once_and_a_damaged_file_is_made_anew(night) -> None:
    told: list[str] = []
    file = night.state / "order.sqlite"

    def left() -> int:
        with Pile(night.config, told.append) as pile:
            pile.look()
            count = pile.left
            while pile.left:
                pile.embed_some()
            return count

    assert (left(), left()) == (night.count, 0)
    with sqlite3.connect(file) as database:
        database.execute("update vectors set network = 'of another ledger'")
    database.close()
    assert (left(), left(), told) == (night.count, 0, [])
    strange = [b"\0", b"\0\0", np.full(read(SHIPPED).width * 8, np.nan, "<f2").tobytes()]
    with sqlite3.connect(file) as database:
        database.executemany("update vectors set vector = ? where seq = ?", zip(strange, (1, 2, 3), strict=True))
    database.close()
    assert (left(), left(), told) == (3, 0, [])
    file.write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
    assert (left(), left()) == (night.count, 0)
    assert [one for one in told if "made anew" not in one] == []
    assert told


def test_a_file_that_cannot_be_written_is_done_without_and_told_of(night) -> None:
    told: list[str] = []
    file = night.state / "order.sqlite"
    sqlite3.connect(file).execute("create table of_somebody_else (x)").connection.close()
    before = file.read_bytes()
    night.say("keep", of_kind(True)[:4])
    night.say("discard", of_kind(False)[:4])
    with Pile(night.config, told.append) as pile:
        assert ordered(pile) is not None
    assert len(told) == 1
    assert "move it away; what was embedded is not kept" in told[0]
    assert file.read_bytes() == before


@pytest.mark.timeout(90)
def test_the_order_comes_from_a_process_that_stands_back_and_ends_with_the_page(night, caplog, monkeypatch) -> None:
    stood_back: list[int] = []  # only noted: beside other tests it would wait for minutes
    monkeypatch.setattr(Child, "stand_back", lambda one: stood_back.append(one.pid))
    night.say("keep", of_kind(True)[:4])
    night.say("discard", of_kind(False)[:4])
    orderer = Orderer(night.config, lambda: True)
    assert orderer.now.plain() == {"by": "score", "labels": 0, "sentence": "by score"}
    orderer.open()
    try:
        wait_for(lambda: orderer.now.ranking is not None)
        assert orderer.now.sentence == "in the order of your 8 labels"
        child = orderer._child
        assert child is not None
        assert stood_back == [child.pid]
        begun_s = time.monotonic()
        night.say("keep", of_kind(True)[4:5])
        wait_for(lambda: orderer.now.plain()["labels"] == 9)
        assert time.monotonic() - begun_s < allowed(3.0)  # well below a second, where nobody else computes
        with caplog.at_level(logging.WARNING):
            os.kill(child.pid, signal.SIGKILL)
            wait_for(lambda: orderer.now.ranking is None)
        assert [one.getMessage() for one in caplog.records] == [
            "the order of the pile: the process that orders the pile ended by signal 9"
        ]
    finally:
        orderer.close()
    orderer.join(5.0)
    assert not orderer.is_alive()


def wait_for(is_so, limit_s: float = 40.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_rank_lists_the_pile_of_a_state_in_that_order(night, capsys) -> None:
    pytest.importorskip("sklearn")
    file = night.state / "order.csv"
    words = ["rank", "--state", str(night.state), "--list", str(file)]
    assert main(words) == 0
    assert "25 flagged curves by score: 8 more labels needed" in capsys.readouterr().err
    night.say("keep", of_kind(True)[:4])
    night.say("discard", of_kind(False)[:4])
    assert main(words) == 0
    assert "17 flagged curves in the order of 8 labels" in capsys.readouterr().err
    rows = list(csv.DictReader(file.read_text().splitlines()))
    named = [int(row["path"][-14:-10]) for row in rows]
    assert set(named[:8]) == set(of_kind(True)[4:])
    assert (named[-1], rows[-1]["rank_score"]) == (night.count, ""), "what cannot be read is left out of no list"
    assert main([*words, "--labelled", str(night.state)]) == 64
    (night.state / NOTE).write_text(json.dumps({"watch": [str(night.state / "afm")]}))
    (night.state / "afm").mkdir()
    assert main(["rank", "--state", str(night.state), "--list", str(night.state / "afm" / "o.csv")]) == 64
    assert not list((night.state / "afm").iterdir()), "it would be judged"
    assert main([*words, str(night.state)]) == 64
    assert main(["rank", "--state", str(night.state / "none"), "--list", str(file)]) == 69
    assert all(line.startswith("afm-triage") for line in capsys.readouterr().err.splitlines())
