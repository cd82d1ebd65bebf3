"""The study of the ladder, live, on a handful of curves: too few events to move anything, and every step is taken."""

import csv
import json

import pytest
from modelhelp import write_folder

from tests.studies.__main__ import main as study
from tests.studies.ladder import SYSTEMS

TRUTH = {"a": "discard", "b": "discard", "c": "keep", "d": "keep", "e": "keep", "f": "ambiguous"}


@pytest.fixture
def data(tmp_path):
    rows = []
    for system in ("chromosomes", "live cells"):
        folder = write_folder(tmp_path / SYSTEMS[system], [])
        (folder / "labels.csv").unlink()
        said = "first=single;final=none" if system == "live cells" else ""
        rows += [(f"{SYSTEMS[system]}/{name}.txt", 0, word, said) for name, word in TRUTH.items()]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "curve_index", "label", "source_label"), *rows])
    return tmp_path


@pytest.mark.timeout(240)
def test_every_step_of_the_study_on_a_handful_of_curves(data, tmp_path, capsys):
    out = tmp_path / "out.json"
    words = ["--systems", "chromosomes", "--systems", "live cells", "--draws", 2, "--events", 2, "--shadow", 20]
    assert study(["ladder", str(data), *map(str, words), "--out", str(out)]) == 0
    report, shown = json.loads(out.read_text()), capsys.readouterr().out
    few = report["chromosomes"]
    assert [one["moved"] for one in few["draws"]] == [False, False]
    assert [one["lost"] for one in few["draws"]] == [0, 0]
    assert few["wrong"]["draws"] == []
    assert few["live"]["cut"]["origin"] == "shipped"
    assert few["live"]["of_event_free"] == 60
    assert report["live cells"] == {"shared": 6, "moves": False, "events": 0, "why": report["live cells"]["why"]}
    assert "5 are the fewest" in report["live cells"]["why"][0]
    assert "the cut stays" in shown


def test_a_collection_without_the_system_is_said(tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("path,label\n")
    assert study(["ladder", str(tmp_path)]) == 65
    assert "no such folder" in capsys.readouterr().err
