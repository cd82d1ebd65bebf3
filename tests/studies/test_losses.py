import json
import shutil

import numpy as np
import pytest
from modelhelp import GOOD, write_folder

from daemon.judging import Thresholds, verdict_of
from tests.studies.__main__ import main as study
from tests.studies.trials import Pool

TINY = [
    "--curves",
    "200",
    "--held-out",
    "200",
    "--judged",
    "240",
    "--epochs",
    "1",
    "--width",
    "4",
    "--size",
    "64",
    "--draws",
    "20",
]


def compare(work, *words):
    return study(["losses", *TINY, "--work", str(work), *map(str, words)])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A tiny study of two losses and two seeds with a labelled folder, and what it wrote."""
    base = tmp_path_factory.mktemp("losses")
    folder = write_folder(base / "lab", GOOD)
    words = ["--losses", "bce", "asymmetric_focal:gamma_none=3", "--seeds", 2, "--out", base / "out.json"]
    assert compare(base / "work", folder, *words) == 0
    return base, json.loads((base / "out.json").read_text())


def test_every_loss_is_judged_on_streams_and_on_labelled_curves(done):
    _, report = done
    streams, labelled = report["sets"]["simulated streams"], report["sets"]["labelled curves"]
    assert list(report["sets"]) == ["simulated streams", "labelled curves"]
    assert streams["events"] + streams["event_free"] == pytest.approx(240, abs=10)
    assert (labelled["events"], labelled["event_free"]) == (2, 2)  # unsure ones are told by neither side
    for loss in report["losses"]:
        table = np.array(streams["losses"][loss]["table"])
        assert table.sum(0) == pytest.approx([13, 957])
        assert streams["losses"][loss]["recall"]["mean"] == pytest.approx(1 - table[2, 0] / 13)
        assert np.array(labelled["losses"][loss]["table"]).sum(0) == pytest.approx([2, 2])


def test_the_reference_differs_from_itself_by_nothing_and_others_by_their_means(done):
    _, report = done
    for found in report["sets"].values():
        first, second = found["losses"].values()
        assert first["ap"]["difference"] == 0
        assert first["ap"]["interval"] == [0, 0]
        gap = second["ap"]["mean"] - first["ap"]["mean"]
        assert second["ap"]["difference"] == pytest.approx(gap) == pytest.approx(np.mean(second["ap"]["by_seed"]))
        assert second["ap"]["interval"][0] <= second["ap"]["interval"][1]


def test_the_table_says_which_and_what(done, capsys):
    base, _ = done
    words = ["--losses", "bce", "asymmetric_focal:gamma_none=3", "--seeds", 2, "--apart", "la*"]
    assert compare(base / "work", base / "lab", *words) == 0
    shown = capsys.readouterr().out
    assert "labelled curves of la*: 2 events, 2 event-free" in shown
    assert "without la*" not in shown  # nothing is left to stand there
    assert "2 seeds" in shown
    assert "simulated streams" in shown
    assert "less bce" in shown
    assert "asymmetric_focal:gamma_none=3" in shown
    assert "no loss differs from bce" in shown or "than bce" in shown


def test_what_is_trained_is_not_trained_again_and_can_be_added_to(done, tmp_path, capsys):
    base, report = done
    work = shutil.copytree(base / "work", tmp_path / "work")
    before = {file.name: file.stat().st_mtime_ns for file in work.glob("*/*")}
    assert compare(work, "--losses", "bce", "dice", "--seeds", 2, "--out", tmp_path / "more.json") == 0
    after = {file.name: file.stat().st_mtime_ns for file in work.glob("*/*")}
    assert {name: after[name] for name in before} == before
    assert {name.split("-")[0] for name in set(after) - set(before)} == {"dice"}
    again = json.loads((tmp_path / "more.json").read_text())
    streams = "simulated streams"
    assert again["sets"][streams]["losses"]["bce"] == report["sets"][streams]["losses"]["bce"]


def test_another_budget_leaves_the_first_one_alone(done, tmp_path):
    base, _ = done
    work = shutil.copytree(base / "work", tmp_path / "work")
    (first,) = work.iterdir()
    before = sorted(file.name for file in first.iterdir())
    assert compare(work, "--losses", "bce", "--seeds", 1, "--curves", 150) == 0
    assert len(list(work.iterdir())) == 2
    assert sorted(file.name for file in first.iterdir()) == before


def test_the_shipped_thresholds_rule_is_the_one_applied(tmp_path):
    """A floor reason keeps a curve from being discarded, as in service."""
    events, doubtful = np.array([True, False, False]), np.array([False, False, True])
    pool = Pool(np.zeros((3, 2, 64), np.float32), events, doubtful)
    assert list(pool.judge(np.array([0.9, 0.1, 0.1]), 0.2, 0.8)) == ["keep", "discard", "review"]
    assert verdict_of(0.1, ("still_attached",), Thresholds(0.2, 0.8)) == "review"
    pool.save(tmp_path / "pool.npz")
    assert (Pool.load(tmp_path / "pool.npz").doubtful == doubtful).all()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--losses", "hinge"], "none of focal"),
        (["--losses", "bce", "bce"], "twice"),
        (["--curves", "9"], "100 or more"),
        (["--seeds", "0"], "1 or more"),
        (["--size", "100"], "multiple of 32"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_done(tmp_path, capsys, words, says):
    assert compare(tmp_path / "work", *words) == 64
    assert says in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_labels_that_make_no_sense_are_told_by_row(tmp_path, capsys):
    folder = write_folder(tmp_path / "lab", [("a.txt", 0, "maybe")])
    assert compare(tmp_path / "work", folder) == 65
    assert "row 2" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
