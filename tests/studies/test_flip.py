import json
from dataclasses import replace

import numpy as np
import pytest

from daemon.cli import main
from daemon.config import ThresholdsConfig
from daemon.judging.judge import judge_of, load_model
from deploy.serving import known_curves
from models.frontend import turned
from tests.studies.__main__ import main as study
from tests.studies.flip import Row, Sample, _row, look, table


def noisy(curve, seed):
    return replace(curve, force=curve.force + np.random.default_rng(seed).normal(0.0, 5e-12, len(curve)))


@pytest.mark.smoke
def test_the_figures_are_those_of_simulated_and_labelled_curves(tmp_path, capsys):
    words = ["--into", str(tmp_path / "lab"), "--curves", "30", "--prevalence", "0.5", "--seed", "3", "--truth"]
    (tmp_path / "lab").mkdir()
    assert main(["simulate", *words, str(tmp_path / "truth.csv")]) == 0
    (tmp_path / "truth.csv").rename(tmp_path / "lab" / "labels.csv")
    capsys.readouterr()
    out = tmp_path / "found.json"
    assert study(["flip", str(tmp_path / "lab"), "--simulate", "60", "--out", str(out)]) == 0
    rows = [Row(**row) for row in json.loads(out.read_text())]
    assert capsys.readouterr().out.splitlines() == table(rows)
    found = {row.group: row.curves for row in rows}
    assert (found["all labelled"], found["simulated"]) == (30, 60)
    assert all(row.doubted_live <= row.doubted <= row.discarded <= row.curves for row in rows)
    assert all(row.lost_live <= row.lost <= row.events for row in rows)


def test_a_wrong_sign_is_found_and_a_right_one_left_alone():
    model = load_model("shipped")
    judge = judge_of(model, ThresholdsConfig())
    curves = [(place, noisy(known_curves()[place], seed)) for seed in range(6) for place in (0, 2, 3, 5)]
    right = [Sample("right", place in (2, 3), curve) for place, curve in curves]
    wrong = [Sample("wrong", place in (2, 3), turned(curve)) for place, curve in curves]
    one, other = (_row("", list(look(some, model)), judge) for some in (right, wrong))
    assert (one.events, one.discarded, one.doubted, one.alarm_after) == (12, 12, 0, None)
    assert (one.lost, one.lost_live) == (12, 0)
    assert one.alarm_after_if_wrong == other.alarm_after <= 7
    assert (other.discarded, other.doubted, other.doubted_live, other.lost) == (24, 12, 12, 0)
    assert (one.open_newly_discarded, one.open_saved, other.open_newly_discarded, other.open_saved) == (0, 0, 0, 12)
    assert other.looks_like_an_event == 12


@pytest.mark.parametrize("words", [["--simulate", "0"], ["--simulate", "-1"], ["--seed", "-1"]])
def test_what_cannot_be_asked_is_one_line(capsys, words):
    assert study(["flip", *words]) == 64
    assert len(capsys.readouterr().err.splitlines()) == 1
