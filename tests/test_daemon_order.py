"""The order of the pile: a head on the labels, what it does not know, and what happens around it."""

from __future__ import annotations

import numpy as np
from adapthelp import Night

from daemon.labels import Labels
from daemon.learn.order import Ranking
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Look
from daemon.review.queues import Aims, queue


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
