import json

import numpy as np
import pytest

from models.ruptures import Rupture
from models.simulate import simulate
from tests.studies.__main__ import main as study
from tests.studies.ruptures import compare, row_of, scene_of


def test_the_scene_is_that_of_the_curve_and_the_truth_has_no_error():
    number, one = next((i, one) for i, one in enumerate(simulate(40, 41)) if one.family == "sawtooth")
    scene = scene_of(41, number)
    assert scene.family == one.family
    assert scene.ruptures == one.ruptures
    gain, noise = scene.instrument.gain, scene.instrument.noise_pn
    told = [
        Rupture(true.index - 1, gain * true.force_pn, 1.0, 2.0, 1.0, "pN", np.nan, None) for true in one.ruptures[:-1]
    ]
    pairs = compare(one, scene, told)
    assert [pair.is_found for pair in pairs] == [True] * len(told) + [False]
    row = row_of("sawtooth", pairs)
    assert row["force_pn"] == [0.0, 0.0]
    assert row["place"] == [0.0, 0.0]
    assert pairs[0].strength == pytest.approx(one.ruptures[0].force_pn / noise)


def test_the_figures_are_written_as_they_are_printed(tmp_path, capsys):
    out = tmp_path / "found.json"
    assert study(["ruptures", "--curves", "150", "--out", str(out)]) == 0
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    assert found["all"]["found"]["of"] == sum(row["found"]["of"] for row in found["families"])
    assert found["all"]["found"]["of"] == sum(row["found"]["of"] for row in found["strengths"])
    assert f"{100 * found['all']['force'][0]:.1f} %" in said
    assert found["strengths"][-1]["found"]["hits"] / found["strengths"][-1]["found"]["of"] > 0.6
    assert study(["ruptures", "--curves", "99"]) == 64


def test_of_the_discards_is_told_what_their_events_have(tmp_path):
    out = tmp_path / "found.json"
    assert study(["ruptures", "--curves", "100", "--judged", "300", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["discards"]
    assert [row["force_pn"] for row in rows] == [50.0, 100.0, 150.0]
    of = [row["told"]["of"] for row in rows]
    assert of == sorted(of, reverse=True)
    assert 100 < rows[0]["seeming"]["of"] <= 300
    assert all(row["near"]["hits"] <= row["told"]["hits"] for row in rows)
