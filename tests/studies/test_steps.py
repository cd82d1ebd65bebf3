import json

import numpy as np
import pytest

from daemon.cli import main
from tests.studies.__main__ import main as study
from tests.studies.steps import Seen, Share, level_of


@pytest.mark.smoke
@pytest.mark.timeout(120)
def test_the_figures_are_those_of_simulated_and_labelled_curves(tmp_path, capsys):
    words = ["--into", str(tmp_path / "lab"), "--curves", "20", "--prevalence", "0.5", "--seed", "3", "--truth"]
    (tmp_path / "lab").mkdir()
    assert main(["simulate", *words, str(tmp_path / "truth.csv")]) == 0
    (tmp_path / "truth.csv").rename(tmp_path / "lab" / "labels.csv")
    capsys.readouterr()
    out = tmp_path / "found.json"
    assert study(["steps", str(tmp_path / "lab"), "--simulate", "100", "--events", "100", "--out", str(out)]) == 0
    found, said = json.loads(out.read_text()), capsys.readouterr().out
    assert f"level at 2 % of the curves {found['level']:.3f}" in said
    assert [row["group"] for row in found["real"]][:3] == ["all", "chosen on", "other half"]
    assert found["real"][0]["misread"]["all"] == found["real"][2]["misread"]["all"] > 0


def test_the_level_is_what_two_in_a_hundred_of_the_stream_exceed_as_discards():
    free = Seen(np.arange(1000.0), np.arange(1000) % 2 == 0, ("free",) * 1000)
    events = Seen(np.full(100, 5000.0), np.arange(100) < 50, ("event",) * 100)
    level = level_of(free, events)  # half of the events stand for 1 %, and the other 1 % are discards that are none
    assert level == pytest.approx(980, abs=2)
    assert events.reached(level, np.ones(100, bool)) == Share(50, 50)


@pytest.mark.parametrize("words", [["--simulate", "0"], ["--events", "99"], ["--seed", "-1"]])
def test_what_cannot_be_asked_is_one_line(capsys, words):
    assert study(["steps", *words]) == 64
    assert len(capsys.readouterr().err.splitlines()) == 1
