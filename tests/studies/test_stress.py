"""`make study TOPIC=stress`: the table counts what was judged, and the verdicts are those of service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from modelhelp import GOOD, make_model, write_folder

from daemon.cli import main
from tests.studies.__main__ import main as study
from tests.studies.stress import Cell, report, write_text

COMMAND = ["stress", "--curves", "40", "--only", "tilt", "--only", "zero tail"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "small"
    make_model(folder)
    return str(folder)


def test_the_table_and_its_source(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write_folder(tmp_path / "labelled", GOOD), tmp_path / "o.json"
    assert study([*COMMAND, str(folder), "--model", model, "--out", str(out)]) == 0
    text, found = capsys.readouterr().out, json.loads(out.read_text())
    assert text.count("tilt") == 10  # five strengths, two groups
    assert text.count("zero tail") == 5  # where nobody knows the ruptures, no end is replaced
    rows = found["groups"]["simulated"]
    assert [row["nuisance"] for row in rows] == ["as it is", *["tilt"] * 5, *["zero tail"] * 5]
    for row in rows:
        counted = sum(row["table"][verdict]["event"] for verdict in row["table"])
        assert counted == row["lost"]["of"] <= rows[0]["lost"]["of"]
        assert (
            row["lost"]["interval"][0] <= row["lost"]["hits"] / max(row["lost"]["of"], 1) <= row["lost"]["interval"][1]
        )
        assert row["before"]["of"] == counted
        assert row["before"]["hits"] <= rows[0]["lost"]["hits"]
        assert ("lost_of_visible" in row) == (row["nuisance"] == "tilt")
    assert sum(row["table"]["review"]["none"] for row in rows[-2:]) == sum(row["cut"]["of"] for row in rows[-2:])
    labelled = found["groups"]["labelled"]
    assert labelled[0]["lost"]["of"] == 2  # two labelled keep, unsure ones stand nowhere
    assert labelled[0]["cut"]["of"] == 2
    assert study([*COMMAND, "--model", model]) == 0  # and the same again
    assert capsys.readouterr().out.splitlines()[3:14] == text.splitlines()[3:14]


def test_the_plain_row_is_what_evaluate_says(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_folder(tmp_path / "labelled", GOOD)
    assert main(["evaluate", model, str(folder), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["pooled"]["table"]
    out = tmp_path / "o.json"
    assert study([*COMMAND, str(folder), "--model", model, "--out", str(out)]) == 0
    assert json.loads(out.read_text())["groups"]["labelled"][0]["table"] == table


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--only", "moonlight"], 64, "no such nuisance"),
        (["/no/such/folder"], 65, "labels.csv"),
        (["--curves", "0"], 64, "--curves"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], code: int, said: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(["stress", "--model", model, *words]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


def test_shares_have_exact_intervals_and_nothing_is_shared_where_nothing_is() -> None:
    events = (True,) * 59 + (False,) * 3
    cell = Cell(
        "tilt",
        3.0,
        "pN/100 nm",
        events,
        (True,) * 20 + (False,) * 42,
        ("keep",) * 59 + ("discard",) * 3,
        ("review",) * 62,
    )
    bare = Cell("cut", 1.0, "%", (True,), None, ("discard",), ("keep",))
    first, second = report([cell, bare])
    assert first["lost"]["interval"][1] == pytest.approx(1 - 0.025 ** (1 / 59), abs=1e-9)
    assert first["lost_of_visible"]["of"] == 20
    assert first["cut"] == {"hits": 3, "of": 3, "interval": [pytest.approx(0.025 ** (1 / 3)), 1.0]}
    assert second["cut"]["of"] == 0
    assert (second["lost"]["hits"], second["before"]["hits"]) == (1, 0)
    text = write_text({"model": "m", "engine": "e", "seed": 1, "groups": {"simulated": [first, second]}})
    assert "100.0 % [2.5, 100.0]" in text
    assert np.char.count(text, "59/0/0") == 1


def test_where_nothing_can_be_written_no_study_begins(tmp_path, capsys):
    for out in (tmp_path, tmp_path / "nowhere" / "x.json"):
        assert study(["stress", "--curves", "40", "--out", str(out)]) == 74
        assert "name a file in a folder" in capsys.readouterr().err
