"""What the study of the fine-tuning counts, and the words of its table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.studies.laboratories import Laboratory
from tests.studies.learn import Cell, Real, Worth, worth, written
from tests.studies.trials import Pool

pytestmark = pytest.mark.study

BEFORE = Worth(0.01, 0.40, 0.01)
CELL = Cell(
    system="laboratory 1",
    note="",
    labels=200,
    events=100,
    outcome="promoted",
    sentences=("it serves",),
    candidate="/nowhere",
    took_s=60.0,
    cpu_s=100.0,
    before=BEFORE,
    adapted=Worth(0.01, 0.30, 0.01),
    after=Worth(0.015, 0.20, 0.01),
    others={"laboratory 2": (BEFORE, Worth(0.03, 0.41, 0.01))},
)


def test_shares_are_counted_by_the_rule_of_service():
    events = np.array([True] * 4 + [False] * 5)
    doubtful = np.array([False] * 3 + [True] + [False] * 4 + [True])
    pool = Pool(np.zeros((9, 2, 4), np.float32), events, doubtful)
    scores = np.array([0.9, 0.5, 0.1, 0.1, 0.9, 0.5, 0.1, 0.1, 0.1])
    found = worth(pool, scores, 0.2, 0.8)
    assert found.lost == 0.25  # the doubtful one is shown
    assert found.pile == pytest.approx(0.02 * 0.5 + 0.98 * 0.4)
    assert found.kept == 0.2
    assert worth(replace(pool, events=np.ones(9, bool)), scores, 0.2, 0.8).pile is None


@pytest.mark.parametrize(
    ("after", "truth"),
    [
        (Worth(0.015, 0.2, 0.01), "gain"),
        (Worth(0.015, 0.36, 0.01), "neither"),
        (Worth(0.03, 0.1, 0.01), "harm"),
        (None, "-"),
    ],
)
def test_what_a_candidate_is_in_truth(after, truth):
    assert replace(CELL, after=after).truth == truth


def test_the_table_says_what_was_forgotten_and_how_the_gate_judged():
    harm = replace(CELL, after=Worth(0.05, 0.1, 0.0), outcome="refused")
    said = written([CELL, harm], [{"truth": "neither", "outcome": "refused"}])
    assert "promoted candidates: lost +2.00 points on average, at most +2.0; 1 of 1 pairs rise" in said
    assert "of its own laboratory that is a gain in truth: 1 of 1 pass the gate" in said
    assert "of its own laboratory that is a harm in truth: 0 of 1 pass the gate" in said
    assert "of another one that is a neither in truth: 0 of 1 pass the gate" in said


def test_a_real_set_is_taught_by_one_half_and_judged_by_the_other():
    pairs = [(one.curve, one.is_event) for one in Laboratory(4).curves(40, 0.5)]
    real = Real("set", pairs)
    assert real.may_be_taught
    judging = {id(curve) for curve, _ in real.fresh(0, 0)}
    assert 0 < len(judging) < 40
    for curve, is_event in real.stream(20, 1):
        gaps = [float(np.abs(curve.force - one.force).max()) for one, _ in pairs]
        nearest, said = pairs[int(np.argmin(gaps))]
        assert min(gaps) > 0.0
        assert id(nearest) not in judging
        assert said is is_event
