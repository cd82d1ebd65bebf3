"""The studies on labelled curves: left-out and baselines, on a handful of curves and a network of width 4."""

import json

import numpy as np
import pytest
from modelhelp import GOOD, make_model, write_folder

from daemon.common.errors import UserError
from daemon.learn.evidence import collect
from models.raster import RasterProfile
from tests.studies.__main__ import main as study
from tests.studies.baselines import compare, read_twice
from tests.studies.left_out import split
from tests.studies.workplace import open_workplace

HEADER = ("path", "curve_index", "label", "system", "source_label")
ROWS = [
    ("a.txt", 0, "discard", "one", "first=none;final=none"),
    ("b.txt", 0, "discard", "two", "first=single;final=none"),
    ("c.txt", 0, "keep", "one", "first=single;final=double"),
    ("d.txt", 0, "keep", "two", "first=none;final=multiple"),
    ("e.txt", 0, "unsure", "two", "first=single"),
    ("f.txt", 0, "discard", "three", ""),
]


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "lab", ROWS, HEADER)


@pytest.fixture
def model(tmp_path):
    make_model(tmp_path / "model")
    return str(tmp_path / "model")


def left_out(folder, model, tmp_path, *words):
    out = tmp_path / "found.json"
    given = ["--model", model, "--simulate", "60", "--held-out", "60", "--work", str(tmp_path / "work")]
    assert study(["left-out", str(folder), *given, "--out", str(out), *words]) == 0
    return json.loads(out.read_text())


def test_a_collection_holds_every_curve_that_can_be_scored(folder):
    (folder / "b.txt").write_text("distance [m]\tforce [N]\n" + "0\t1e-9\n1e-9\t1.1e-9\n" * 20)
    collection = collect([folder], RasterProfile())
    assert len(collection) == 5
    assert collection.left_out == 1
    assert collection.edges.shape == (5, 2, 256)
    assert collection.events.tolist() == [False, True, True, False, False]
    assert collection.sure.tolist() == [True, True, True, False, True]
    assert len(collection.examples(np.ones(5, bool))) == 4
    assert collect([folder], RasterProfile()).digest == collection.digest
    assert set(collect([folder], RasterProfile(), "label").systems) == {"discard", "keep", "unsure"}


def test_each_system_is_judged_by_a_model_that_was_not_taught_with_it(folder):
    collection = collect([folder], RasterProfile())
    folds = list(split(collection, ["*"], []))
    assert [fold.tested for fold in folds] == [("one",), ("three",), ("two",)]
    for fold in folds:
        assert not fold.taught[np.isin(collection.systems, fold.tested)].any()
        assert fold.taught.sum() == (~np.isin(collection.systems, fold.tested)).sum()


def test_systems_that_never_teach_share_one_fold(folder):
    collection = collect([folder], RasterProfile())
    with pytest.raises(UserError, match="without one no labelled events"):
        list(split(collection, ["one"], []))
    folds = list(split(collection, ["t*", "one"], ["three"]))
    assert [fold.tested for fold in folds] == [("one",), ("two",), ("three",)]
    assert sorted(set(collection.systems[folds[2].taught])) == ["one", "two"]


def test_small_systems_are_left_out_together(folder):
    write_folder(folder, [*ROWS[:4], ("e.txt", 0, "keep", "four", ""), ROWS[5]], HEADER)
    folds = list(split(collect([folder], RasterProfile()), ["*"], [], least=2))
    assert [fold.tested for fold in folds] == [("one",), ("two",), ("four", "three")]


def test_left_out_prints_a_table_and_goes_on_where_it_was_ended(folder, model, tmp_path, capsys):
    found = left_out(folder, model, tmp_path, "--apart", "three")
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines()[2:5]] == ["one", "three", "two"]
    assert list(found["groups"]) == ["one", "three", "two", "pooled, without three", "pooled"]
    pooled = found["groups"]["pooled"]
    assert (pooled["events"], pooled["event_free"], pooled["unsure"]) == (2, 3, 1)
    assert set(pooled["arms"]) == {"as it is", "no labels", "labels"}
    assert found["groups"]["three"]["arms"]["labels"]["auc"] is None
    assert set(found["differences"]["pooled"]) == {"auc", "recall", "discarded"}
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").iterdir()}
    assert sum(file.name.startswith("fold-") for file in made) == 3
    (tmp_path / "work" / "fold-1.json").unlink()
    assert left_out(folder, model, tmp_path, "--apart", "three") == found
    again = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").iterdir()}
    assert [file.name for file in made if made[file] != again[file]] == ["fold-1.json"]


def test_a_workplace_is_of_one_study_and_never_of_something_else(tmp_path):
    work = open_workplace(tmp_path / "work", {"seed": 1})
    (work / "kept").touch()
    assert (open_workplace(work, {"seed": 1}) / "kept").exists()
    assert not (open_workplace(work, {"seed": 2}) / "kept").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UserError, match="of no study"):
        open_workplace(tmp_path / "mine", {})
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_curves_labelled_twice_set_the_ceiling(folder):
    twice = read_twice([folder])
    assert [name for name, _ in twice.names] == ["a.txt", "b.txt", "c.txt", "d.txt"]
    names = {"knower": dict.fromkeys(twice.names, 0.0) | {("c.txt", 0): 1.0, ("d.txt", 0): 1.0}}
    found = compare(twice, names)
    assert (found["curves"], found["agreement"], found["kappa"]) == (4, 0.5, 0.0)
    assert found["final_knows_first"] == 0.5
    assert found["methods"]["knower"] == {"first": 0.5, "final": 1.0}
    assert compare(read_twice([write_folder(folder, GOOD)]), names) is None


def test_baselines_stand_beside_the_model(folder, model, tmp_path, capsys):
    words = ["--simulate", "32", "--epochs", "1", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "o.json")]
    assert study(["baselines", str(folder), "--model", model, "--apart", "two", *words]) == 0
    found = json.loads((tmp_path / "o.json").read_text())
    methods = found["groups"]["pooled"]["methods"]
    assert list(methods) == ["the model", "step detector", "published recipe", "our recipe, equal curves"]
    assert methods["step detector"]["auc"]["value"] == 1.0
    assert methods["published recipe"]["auc"]["less_the_model"] is not None
    text = capsys.readouterr().out
    assert "pooled, two alone" in text
    assert "labelled twice: 4 curves" in text
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [
        *("ours", "pictures.npy", "published", "study.json")
    ]


def test_studies_refuse_labels_that_make_no_sense(tmp_path, capsys):
    folder = write_folder(tmp_path / "lab", [("a.txt", 3, "keep")])
    for topic in ("left-out", "baselines"):
        assert study([topic, str(folder), "--work", str(tmp_path / "work")]) == 65
        assert "curve_index 3" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
