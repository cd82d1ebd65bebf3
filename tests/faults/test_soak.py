"""The soak and the second look in small, so that the programs of an hour work on the day when they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import again
from tests.faults.soak import __main__ as soak
from tests.faults.soak.trouble import Plan

pytestmark = pytest.mark.timeout(120)


def test_a_soak_in_small_loses_and_doubles_nothing_and_writes_its_page(tmp_path: Path) -> None:
    plan = Plan(kills=1, reader_kills=1, swaps=1, reloads=0, fulls=0, losses=0, care=0)
    found = soak.run(tmp_path, 400, 0.05, plan)
    page = soak.report(found, "as a test")
    assert found.findings.words() == []
    assert found.done["kill -9"] == found.done["another model"] == 1
    assert len(found.decided) == len(found.oracle) > 300
    assert "holds: " in page


def test_verdicts_are_the_same_live_and_from_an_archive(tmp_path: Path) -> None:
    found = again.run(tmp_path, 150, 0, seed=3)
    assert (found.live, found.missing, found.differing, found.first) == (150, 0, {}, [])
