"""Raters: how far they agree, when that bars a cut, and what each may know of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from daemon.labels import WORDS, Label, Labels, Word
from daemon.labels.raters import OWN_FIGURES, SHARED, agreements, bar, figures, kappa

TIME = "2026-11-20T12:00:00.000Z"


@pytest.fixture
def labels(tmp_path: Path) -> Iterator[Labels]:
    with Labels(tmp_path / "labels.sqlite") as labels:
        yield labels


def says(labels: Labels, rater: str, words: list[Word], first: int = 0) -> None:
    labels.add(Label(f"{number}.ibw", 0, word, rater, TIME) for number, word in enumerate(words, start=first))


def test_kappa_is_that_of_others() -> None:
    random = np.random.default_rng(11)
    for _ in range(20):
        one, other = (list(random.choice(WORDS, 40, p=(0.2, 0.7, 0.1))) for _ in range(2))
        pairs = [(first, first if random.random() < 0.6 else second) for first, second in zip(one, other, strict=True)]
        assert kappa(pairs) == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))
    assert kappa([("keep", "keep")] * 3) == 1.0
    assert kappa([("keep", "discard"), ("discard", "keep")]) == -1.0


def test_one_rater_bars_nothing_and_that_is_said(labels: Labels) -> None:
    assert (bar(labels).blocks, "nobody" in bar(labels).text) == (False, True)
    says(labels, "ada", ["keep"] * 40)
    assert not bar(labels).blocks
    assert "all labels are ada's: no second rater" in bar(labels).text


def test_two_raters_who_differ_bar_every_cut_from_thirty_shared_curves_on(labels: Labels) -> None:
    says(labels, "ada", ["keep", "discard"] * 20)
    says(labels, "bob", ["keep", "keep"] * 14)
    found = bar(labels)
    assert not found.blocks
    assert f"agree on 14 of 28 curves that both have labelled; it counts from {SHARED} on" in found.text
    says(labels, "bob", ["keep", "keep"], first=28)
    found = bar(labels)
    assert (found.blocks, "15 of 30 shared curves (kappa 0.00)" in found.text) == (True, True)


def test_agreement_lets_labels_move_a_cut_and_the_worst_pair_counts(labels: Labels) -> None:
    says(labels, "ada", ["keep", "discard"] * 20)
    says(labels, "bob", ["keep", "discard"] * 19 + ["discard", "discard"])
    assert not bar(labels).blocks
    assert [(one.raters, one.shared, one.agreed) for one in agreements(labels.current())] == [(("ada", "bob"), 40, 39)]
    says(labels, "eve", ["unsure", "discard"] * 15)
    assert bar(labels).blocks
    assert "ada and eve" in bar(labels).text


def test_of_hundreds_of_raters_only_those_with_a_kappa_are_compared(labels: Labels) -> None:
    says(labels, "ada", ["keep", "discard"] * 15)
    says(labels, "bob", ["keep", "keep"] * 15)
    labels.add(Label("0.ibw", 0, "keep", f"guest {number}", TIME) for number in range(300))
    assert [one.raters for one in agreements(labels.current())] == [("ada", "bob")]  # of 45,451 pairs
    assert bar(labels).blocks


def test_a_rater_sees_own_figures_after_many_labels(labels: Labels) -> None:
    for seq in range(20):
        labels.note_shown("ada", seq, "review", "golden", answer="keep" if seq else "discard", expected="keep")
        labels.note_shown("ada", seq, "review", "repeat", answer="unsure" if seq < 5 else "keep", expected="keep")
    labels.note_shown("ada", 99, "review", "golden", answer="keep", expected="discard")
    labels.note_shown("bob", 1, "review", "golden", answer="discard", expected="keep")
    says(labels, "ada", ["discard"] * (OWN_FIGURES - 1))
    own = figures(labels, "ada")
    assert (own.labels, own.is_shown) == (OWN_FIGURES - 1, False)
    assert (own.right.count, own.right.of, own.missed.count, own.missed.of) == (19, 21, 1, 20)
    assert (own.agreed_with_self.count, own.agreed_with_self.of) == (15, 20)
    assert own.agreed_with_self.low == pytest.approx(0.509, abs=0.001)  # of a table of exact intervals
    assert own.agreed_with_self.high == pytest.approx(0.913, abs=0.001)
    says(labels, "ada", ["keep"], first=OWN_FIGURES)
    assert figures(labels, "ada").is_shown
