import json

import numpy as np
import pytest
from modelhelp import GOOD, make_model, write_folder

from daemon.judging import Judge, Thresholds
from deploy.classifier import EngineId
from deploy.serving import Model
from tests.studies.__main__ import main as study
from tests.studies.streams import judge_simulated


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    make_model(folder / "model")
    rows = [(name, index, label) for name, index, label in GOOD]
    write_folder(folder / "lab", [(*row, "day1") for row in rows], ("path", "curve_index", "label", "day"))
    (folder / "control").mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / "control" / name).write_bytes((folder / "lab" / name).read_bytes())
    return folder


def judge(base, *words):
    return study(["streams", "--model", str(base / "model"), *map(str, words)])


def test_streams_are_told_with_bars_intervals_and_kinds(base, tmp_path, capsys):
    out = tmp_path / "out.json"
    words = [base / "lab", "--control", base / "control", "--system-column", "day", "--least", 2]
    assert judge(base, *words, "--streams", 3, "--pool", 970, "--out", out) == 0
    shown, report = capsys.readouterr().out, json.loads(out.read_text())
    assert list(report["simulated"]["mixes"]) == ["as simulated", "880 of 957 plain", "control runs"]
    assert report["simulated"]["recall"]["of"] == 39
    assert report["simulated"]["event_free"]["all"]["keep"]["of"] == pytest.approx(970, abs=2)
    assert report["simulated"]["event_free"]["control runs"]["keep"]["of"] == 2
    assert list(report["real"]) == ["day1", "pooled"]
    assert (report["real"]["day1"]["recall"]["of"], report["real"]["day1"]["review"]["of"]) == (2, 2)
    for words in ("again and again from 970", "published", "bar: recall 0.98, 3.3% left", "sawtooth", "repeats them"):
        assert words in shown


def test_without_a_pool_a_share_of_a_stream_is_that_of_its_curves(base, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert judge(base, "--streams", 1, "--pool", 0, "--out", out) == 0
    shown = capsys.readouterr().out
    assert "no curve twice" in shown
    assert "real curves" not in shown
    drawn = json.loads(out.read_text())["simulated"]
    one, event_free = drawn["mixes"]["as simulated"], drawn["event_free"]["all"]
    left = event_free["review"]["hits"] + drawn["recall"]["of"] * one["recall"] - 13 * one["events_kept"]
    assert one["review"] == pytest.approx(left / 970)
    assert one["recall"] == pytest.approx(drawn["recall"]["share"])
    assert sum(kind["keep"]["of"] for kind in drawn["event_free_kinds"].values()) == event_free["keep"]["of"] == 957
    assert sum(drawn["lifted"].values()) <= event_free["review"]["hits"]


def test_what_the_front_end_doubts_is_never_discarded(base):
    """With a threshold that would discard everything, what is left is left by a reason."""
    model = Model.load(base / "model")
    judge = Judge(model.id, "p", EngineId("torch", "cpu", "fp32"), Thresholds(0.999998, 0.999999), "simulation", 0.02)
    found = judge_simulated("events", 300, 5, True, model, judge)
    doubted = found.lifted != ""
    assert len(found) == 300
    assert 0 < doubted.sum() < 100
    assert (found.verdicts[doubted] == "review").all()
    assert (found.verdicts[~doubted] == "discard").all()
    assert np.isinf(found.scores[doubted]).all()
    assert len(found.of(doubted)) == doubted.sum()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--streams", 0], 64, "1 or more"),
        (["--pool", 9], 64, "at least 970"),
        (["--control", "nowhere.txt"], 65, "nowhere.txt: no such file"),
        (["nowhere"], 65, "labels.csv"),
    ],
)
def test_what_makes_no_sense_is_said(base, capsys, words, code, says):
    assert judge(base, *words) == code
    assert says in capsys.readouterr().err
