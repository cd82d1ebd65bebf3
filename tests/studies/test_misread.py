"""The study of planted misreadings: each is told by the number that it is for."""

from __future__ import annotations

import pytest

from deploy.serving import Model
from tests.studies.misread import FAULTS, table, trial

pytestmark = pytest.mark.study


def test_another_unit_is_told_by_tip_and_run_and_nothing_before_it() -> None:
    row = trial("unit off by 1,000", Model.load(), 300, 100, 3, canaries=False)
    assert {name: at for name, (at, _) in row.told.items() if name.startswith("advice")} == {
        "advice reason": 50,
        "advice unit": 100,
    }
    assert row.false == {}
    assert sum(row.verdicts.values()) == 400


def test_a_class_that_the_network_does_not_see_is_told_by_the_path() -> None:
    row = trial("a blind class", Model.load(), 0, 150, 3)
    at, text = row.told["path"]
    assert at <= 150
    assert "simulated events are discarded" in text
    lines = "\n".join(table([row]))
    assert f"path ({at})" in lines
    assert FAULTS.keys() >= {"signs flipped", "interference x 3", "thresholds swapped"}
