"""The audit over nights: through real ledgers and real labels, and what its draw costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon.guard.unseen import unseen
from daemon.labels import Labels, Word
from daemon.ledger import Ledger, LedgerView
from daemon.review.queues import queue
from models.clock import Clock, rfc3339
from tests.ledgerhelp import JUDGE, decision
from tests.studies.unseen import coverage, price

NIGHTS, DISCARDS, LOST = 30, 500, 60
RUNS = 8


def pools(dice: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores of event-free discards and of lost events, about as the shipped model gives them."""
    return np.minimum(dice.lognormal(-9.6, 1.8, 5_000), 0.004), np.minimum(dice.lognormal(-6.6, 0.9, 500), 0.004)


def test_the_estimate_through_ledger_page_and_labels_is_right_on_average_and_the_bound_holds(tmp_path: Path) -> None:
    """Each night is of a pipeline of its own, and looked at as far as the rater came in the page's blind queue."""
    dice = np.random.default_rng(5)
    free, lost = pools(dice)
    ledger, estimates = Ledger(tmp_path / "ledger.sqlite", "afm1"), list[float]()
    with LedgerView(ledger.path) as view, Labels(tmp_path / "labels.sqlite") as labels:
        for night in range(NIGHTS):
            judge, start = replace(JUDGE, pipeline=f"night {night}"), ledger.last_seq
            truth = dice.permutation(np.arange(DISCARDS) < LOST)
            scores = np.where(truth, dice.choice(lost, DISCARDS), dice.choice(free, DISCARDS))
            for first in range(0, DISCARDS, 50):
                batch = enumerate(scores[first : first + 50].tolist(), start + first + 1)
                ledger.record([decision(seq, verdict="discard", score=score, judge=judge) for seq, score in batch])
            drawn = {look.seq for look in view.looks("discard", after=start)}
            items = queue(view, labels, "discards", "anna", 1_000, [(start + 1, None)])
            items = [item for item in items if item.kind == "plain" and item.seq in drawn]
            items = items[: -(-len(drawn) * int(dice.integers(1, 5)) // 4)]
            events = view.decisions([item.seq for item in items])
            labels.say(
                Labels.of_event(
                    events[item.seq],
                    "keep" if truth[item.seq - start - 1] else "discard",
                    "anna",
                    queue=item.queue,
                    weight=item.weight,
                )
                for item in items
            )
            said = unseen(view, labels, judge.pipeline)
            assert said.looked_at == len(items)
            assert said.at_most is None or said.at_most >= LOST
            estimates.append(said.estimate or 0.0)
    ledger.close()
    error = np.std(estimates) / np.sqrt(NIGHTS)
    assert abs(np.mean(estimates) - LOST) < 4 * error
    assert error < LOST / 4


def test_a_uniform_part_costs_the_bound_what_a_small_chance_costs() -> None:
    """The less of the draw is uniform, the larger the bound; more of it makes the estimate better in a misread run."""
    dice = np.random.default_rng(5)
    free, _ = pools(dice)
    found = {one.uniform: one for one in price(free, {"misread": free}, dice, draws=300, bounds=15)}
    assert found[1.0].without == pytest.approx(66, abs=6)  # 100 of 2,184 looked at by equal chances
    assert found[0.2].without > 4 * found[1.0].without
    assert found[1.0].error < found[0.2].error


def test_the_bound_holds_over_nights_in_which_everything_differs() -> None:
    dice = np.random.default_rng(5)
    nights = coverage(*pools(dice), dice, nights=60, discards=2_000)
    assert nights.right >= 57
    assert abs(nights.bias) < 4 * nights.bias_error


def test_the_bound_holds_however_nights_are_looked_at(tmp_path: Path) -> None:
    """Lost events score lowest, so that each has the least chance there is, and they come when hardly anybody looks.

    Who looks does so at once, later or not at all, at some or all that waits, and sometimes stops at an event.
    """
    dice, now_s, right, close = np.random.default_rng(8), 1.8e9, 0, 0
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1", clock=Clock(wall_s=lambda: now_s))
    with LedgerView(ledger.path) as view, Labels(tmp_path / "labels.sqlite") as labels:
        for run in range(RUNS):
            judge, start, lost = replace(JUDGE, pipeline=f"run {run}"), ledger.last_seq, set[int]()
            for _ in range(6):
                first = ledger.last_seq + 1
                is_lost = dice.random(400) < dice.choice((0.0, 0.1, 0.6))
                lost |= {first + place for place in np.flatnonzero(is_lost).tolist()}
                made = [
                    decision(first + place, verdict="discard", score=0.0 if event else 0.01, judge=judge)
                    for place, event in enumerate(is_lost)
                ]
                for place in range(0, 400, 100):
                    ledger.record(made[place : place + 100])
                now_s += dice.choice((60, 3_600, 86_400))
                items = queue(view, labels, "discards", "anna", 1_000, [(start + 1, None)])
                events = view.decisions([item.seq for item in items])
                for item in [item for item in items if item.weight][: int(dice.choice((0, 1, 5, 1_000)))]:
                    word: Word = "keep" if item.seq in lost else "discard"
                    time = rfc3339(now_s)
                    labels.say([Labels.of_event(events[item.seq], word, "anna", queue="discards", time=time)])
                    if word == "keep" and dice.random() < 0.3:
                        break
            said = unseen(view, labels, judge.pipeline)
            bound = said.discards if said.at_most is None else said.at_most
            right += bound >= len(lost)
            close += bound < said.discards
    ledger.close()
    assert close >= RUNS // 2
    assert right >= 0.95 * RUNS - 1
    print(f"{right} of {RUNS} right, {close} say something")
