"""A smoke of the text mutants; the whole of it is ``python tests/faults/textual.py``."""

from __future__ import annotations

from collections import Counter

from faults.textual import Trial

from daemon.judging.judge import load_model


def test_no_event_is_lost_under_other_columns() -> None:
    trial = Trial(load_model("shipped"))
    assert len(trial.events) >= 5
    outcomes = list(trial.outcomes(80, seed=20261128))
    assert [outcome.mutant.recipe for outcome in outcomes if outcome.is_lost] == []
    words = Counter(outcome.word for outcome in outcomes)
    assert words["keep"] > 40, words
