import json

import numpy as np
import pytest
from modelhelp import make_model

from tests.studies.__main__ import main as study
from tests.studies.calibration import BARS, PREVALENCES, Judged, figures, thin, write_text


def test_a_stream_is_thinned_of_events_alone():
    rng = np.random.default_rng(0)
    stream = Judged(rng.normal(0, 1, 5000), rng.random(5000) < 0.1)
    for prevalence in PREVALENCES[:3]:
        rare = thin(stream, prevalence, seed=3)
        assert (~rare.events).sum() == (~stream.events).sum()
        assert rare.events.mean() == pytest.approx(prevalence, abs=2e-4)
        assert np.isin(rare.logits, stream.logits).all()
    assert thin(stream, 0.5, seed=3).events.sum() == stream.events.sum()


def test_figures_of_honest_and_of_boastful_scores():
    rng = np.random.default_rng(1)
    odds = rng.normal(-3, 3, 60_000)
    events = rng.random(60_000) < 1 / (1 + np.exp(-odds))
    honest, boastful = (figures(1 / (1 + np.exp(-k * odds)), events) for k in (1, 3))
    assert all(low <= honest[name] <= high for name, (low, high) in BARS.items() if name != "brier_skill")
    assert boastful["reliability_slope"] == pytest.approx(1 / 3, rel=0.05)
    assert boastful["ece"] > 0.03


def test_the_study_runs_repeats_itself_and_judges_by_the_bars(tmp_path, capsys):
    model = make_model(tmp_path / "small").folder
    words = ["calibration", "--model", str(model), "--labelled", "60", "--curves", "1000", "--streams", "1"]
    for name in ("one.json", "other.json"):
        assert study([*words, "--out", str(tmp_path / name)]) == 0
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "other.json"))
    assert one == other
    assert [row["prevalence"] for row in one["rows"]] == list(PREVALENCES)
    said = capsys.readouterr().out
    assert said.count("brier_skill") == 4
    assert "FAILS" in said  # an untrained network knows nothing
    for row in one["rows"]:
        row["fitted"] = row["moved"] = {"ece": 0.01, "brier_skill": 0.8, "reliability_slope": 1.0}
    assert "FAILS" not in write_text(one)


def test_options_that_make_no_sense_are_usage(capsys):
    assert study(["calibration", "--curves", "10"]) == 64
    assert "--curves 1000" in capsys.readouterr().err
