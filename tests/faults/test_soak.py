"""The soak and the second look in small, so that the programs of an hour work on the day when they are asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import again
from tests.faults.soak import __main__ as soak
from tests.faults.soak.sampling import Sample, slope_mb_per_h
from tests.faults.soak.trouble import Fall, Plan
from tests.faults.soak.verdict import Decided, Flat, compare, quiet_minutes


def decided(seq: int, name: str, score: float = 0.5) -> Decided:
    return Decided(seq, (name, 0), 60.0 * seq, 0.01, score, "review", ("score",), "shipped")


def heard(file: Path, *them: Decided) -> Path:
    rows = [{"seq": one.seq, "data": {"path": one.key[0], "curve": one.key[1]}} for one in them]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_the_judge_finds_what_is_lost_doubled_strange_unheard_and_unlike(tmp_path: Path) -> None:
    oracle = {(name, 0): "made1" for name in "abc"}
    good = [decided(1, "a"), decided(2, "b"), decided(3, "c")]
    assert compare(oracle, good, heard(tmp_path / "all", *good)).words() == []
    bad = [decided(1, "a"), decided(2, "a", 0.6), decided(4, "x")]
    found = compare({**oracle, ("x", 1): "made1"}, bad, heard(tmp_path / "some", bad[0], bad[1], bad[1]))
    assert found.lost == [("b", 0), ("c", 0), ("x", 1)]
    assert (found.doubled, found.strange, found.gaps) == ([("a", 0)], [("x", 0)], [4])
    assert (found.unheard, found.unlike) == ([2, 4], ["made1#0: 2 scores"])
    assert len(found.words()) == 6


def test_a_service_that_grows_is_not_flat_and_a_minute_after_a_fall_is_not_quiet() -> None:
    flat = [
        Sample(10.0 * i, 1, {"service": 200.0, "readers": 50.0, "others": 0.0}, 30, 80, 4.0, 9.0, 1.0)
        for i in range(200)
    ]
    growing = [replace(one, memory_mb={**one.memory_mb, "service": 200.0 + i}) for i, one in enumerate(flat)]
    assert Flat.of(flat).words() == []
    assert slope_mb_per_h(growing) == pytest.approx(360.0)
    assert "memory grew by" in Flat.of(growing).words()[0]
    assert quiet_minutes(0.0, 600.0, [Fall("kill -9", 125.0, 175.0)]) == {1, 4, 5, 6, 7, 8, 9}


@pytest.mark.timeout(240)
def test_a_soak_in_small_loses_and_doubles_nothing_and_writes_its_page(tmp_path: Path) -> None:
    plan = Plan(kills=1, reader_kills=0, swaps=1, reloads=0, fulls=0, losses=0, care=0)
    found = soak.run(tmp_path, 400, 0.03, plan)
    page = soak.report(found, "as a test")
    assert found.findings.words() == []
    assert found.done["kill -9"] == found.done["another model"] == 1
    assert len(found.decided) == len(found.oracle) > 300
    assert "holds: " in page


@pytest.mark.long
@pytest.mark.timeout(240)
def test_verdicts_are_the_same_live_and_from_an_archive(tmp_path: Path) -> None:
    found = again.run(tmp_path, 400, 2, seed=3)
    assert (found.live, found.missing, found.differing, found.first) == (400, 0, {}, [])
