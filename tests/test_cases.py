"""Small files after public reports, where they lie beside this checkout: each gives its curves and its verdict."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from daemon.batch import score as score_files
from daemon.config import ThresholdsConfig
from daemon.judging.judge import judge_of, load_model
from daemon.reading.ahead import find
from deploy.serving import Model

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
EXPECTED = CASES / "expected.csv"
pytestmark = pytest.mark.skipif(not EXPECTED.exists(), reason="no ../shared/cases beside this checkout")


def rows() -> list[dict[str, str]]:
    if not EXPECTED.exists():
        return []
    with open(EXPECTED, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("shipped")


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["path"])
def test_every_case_is_read_and_judged_as_a_person_would(row: dict[str, str], model: Model) -> None:
    decisions = list(score_files(find([CASES / row["path"]]), model, judge_of(model, ThresholdsConfig())))
    assert len(decisions) == int(row["curves"])
    verdicts = {decision.verdict for decision in decisions}
    if row["verdict"] == "keep":
        assert verdicts == {"keep"}
    elif row["verdict"] == "not_discard":
        assert "discard" not in verdicts
    elif row["verdict"] == "scored":
        assert all(decision.score is not None for decision in decisions)
    else:
        assert row["verdict"] == "ignored"
