"""`make study TOPIC=explain`: what counts as near, what chance gives, and a table that adds up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from modelhelp import make_model

from models.curve import Curve
from models.simulate import Rupture, Simulated
from tests.studies.__main__ import main as study
from tests.studies.explain import Kept, chance_of, is_near, report, write_text


def event(n: int, *marks: int) -> Simulated:
    return Simulated(Curve(np.zeros(n), "N"), "keep", "cell", tuple(Rupture(mark, 50.0, None) for mark in marks))


def test_near_is_five_per_cent_of_the_ramp_on_either_side() -> None:
    one = event(1000, 300, 900)
    assert [is_near(one, at) for at in (250.0, 249.0, 350.0, 351.0, 600.0, 880.0)] == [
        True,
        False,
        True,
        False,
        False,
        True,
    ]


def test_chance_is_the_share_of_the_ramp_that_is_near() -> None:
    assert chance_of(event(1000, 500)) == pytest.approx(0.101)
    assert chance_of(event(1000, 500, 510)) == pytest.approx(0.111)  # they overlap
    assert chance_of(event(1000, 10)) == pytest.approx(0.061)  # the ramp begins


def test_chance_is_what_random_places_hit() -> None:
    one, rng = event(700, 80, 200, 650), np.random.default_rng(0)
    hits = np.mean([is_near(one, at) for at in rng.uniform(-0.5, 699.5, 20_000)])
    assert hits == pytest.approx(chance_of(one), abs=0.02)


def test_the_table_adds_up() -> None:
    lens = "layers 3 x 4, Grad-CAM, on ink (used)"
    kept = [
        Kept("cell", 0.1, True, {lens: True, "other": False}),
        Kept("dna", 0.3, False, {lens: False, "other": False}),
    ]
    found = report(kept)
    assert found["all"]["kept"] == sum(row["kept"] for row in found["families"].values()) == 2
    assert found["all"]["heat"]["hits"] == 1
    assert found["all"]["chance"] == pytest.approx(0.2)
    assert found["lenses"]["other"]["interval"] == [0.0, pytest.approx(1 - 0.025**0.5)]
    text = write_text({"model": "m", "engine": "e", "seed": 2, "curves": 5, **found})
    assert "2 of 5 simulated events kept" in text
    assert [line.split()[0] for line in text.splitlines()[4:7]] == ["cell", "dna", "all"]
    assert "other" in text


def test_the_command_prints_a_table_and_writes_what_it_was_made_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "explain.json"
    command = ["explain", "--curves", "40", "--seed", "3"]
    assert study([*command, "--compare", "--out", str(out)]) == 0
    text, found = capsys.readouterr().out, json.loads(out.read_text())
    assert found["all"]["kept"] >= 20
    assert found["all"]["heat"] == found["lenses"]["layers 3 x 4, Grad-CAM, on ink (used)"]
    assert found["all"]["heat"]["hits"] / found["all"]["kept"] > found["all"]["chance"] + 0.3
    assert study(command) == 0
    assert capsys.readouterr().out.splitlines() == text.split("\n\nhow the heat")[0].splitlines()


@pytest.mark.parametrize("words", [["--curves", "0"], ["--seed", "-1"]])
def test_a_mistake_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert study(["explain", *words]) == 64
    assert capsys.readouterr().err.count("\n") == 1


def test_a_model_that_keeps_nothing_has_nothing_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_model(tmp_path / "small")
    manifest = json.loads((tmp_path / "small" / "manifest.json").read_text())
    manifest["thresholds"]["keep"] = 1.0
    (tmp_path / "small" / "manifest.json").write_text(json.dumps(manifest))
    assert study(["explain", "--curves", "3", "--model", str(tmp_path / "small")]) == 65
    assert "keeps none of 3" in capsys.readouterr().err
