import numpy as np
import pytest
from modelhelp import GOOD, SHARED, make_model, write_folder

from daemon.cli import main
from daemon.learn.evidence import read_folder
from models.bundle import read


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "lab", GOOD)


def test_rows_and_curves_come_in_order(folder):
    labelled = read_folder(folder)
    assert labelled.problems == ()
    assert [row.label for row in labelled.rows] == ["discard", "discard", "keep", "keep", "unsure", "unsure"]
    assert {row.system for row in labelled.rows} == {"lab"}
    problems = []
    curves = list(labelled.curves(problems))
    assert problems == []
    assert [len(item.curve) for item in curves] == [2000] * 6
    assert [item.event for item in curves[:4]] == [False, False, True, True]


def test_a_system_is_a_column_or_the_folder_of_the_file(tmp_path):
    inner = write_folder(tmp_path / "lab" / "day1", [])
    (tmp_path / "lab" / "labels.csv").write_text(
        "path,label,system,note\nday1/a.txt,discard,,x\nday1\\b.txt,keep,titin,y\n", encoding="utf-8-sig"
    )
    labelled = read_folder(inner.parent)
    assert labelled.problems == ()
    assert [row.system for row in labelled.rows] == ["day1", "titin"]


def test_an_experiment_is_a_column_or_the_system(tmp_path):
    rows = [("a.txt", "keep", "2026-11-20"), ("b.txt", "discard", "")]
    labelled = read_folder(write_folder(tmp_path / "lab", rows, ("path", "label", "experiment")))
    assert [row.experiment for row in labelled.rows] == ["2026-11-20", "lab"]


def test_every_problem_is_one_line_with_its_row(tmp_path):
    rows = [
        ("a.txt", 0, "keep"),
        ("nowhere.txt", 0, "keep"),
        ("b.txt", 0, "maybe"),
        ("c.txt", "one", "keep"),
        ("a.txt", 0, "discard"),
        ("", 0, "keep"),
        ("labels.csv", 0, "keep"),
    ]
    problems = read_folder(write_folder(tmp_path, rows)).problems
    assert [line.split("row ")[1].split(":")[0] for line in problems] == ["3", "4", "5", "6", "7", "8"]
    assert all("\n" not in line for line in problems)
    assert "keep, discard or unsure" in problems[1]
    assert "labelled twice" in problems[3]


@pytest.mark.parametrize("content", [b"", b"file,verdict\na,keep\n", b"\xff\xfe\x00", b"path\na.txt\n"])
def test_a_table_that_is_none_is_one_problem(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    labelled = read_folder(tmp_path)
    assert labelled.rows == ()
    assert len(labelled.problems) == 1


def test_a_file_that_cannot_be_read_is_a_problem_of_its_rows(folder):
    (folder / "c.txt").write_bytes(b"")
    problems = []
    curves = list(read_folder(folder).curves(problems))
    assert len(curves) == 5
    assert len(problems) == 1
    assert "row 4" in problems[0]


def test_an_index_beyond_the_file_is_a_problem(tmp_path):
    problems = []
    list(read_folder(write_folder(tmp_path, [("a.txt", 7, "keep")])).curves(problems))
    assert len(problems) == 1
    assert "curve_index 7" in problems[0]


def test_the_same_row_twice_is_said_with_both_rows(tmp_path):
    rows = [("a.txt", 0, "keep"), ("b.txt", 0, "keep"), ("./a.txt", "", "KEEP"), ("b.txt", 0, "discard")]
    labelled = read_folder(write_folder(tmp_path, rows))
    assert [line.split("row ", 1)[1] for line in labelled.problems] == [
        "4: a.txt curve 0 stands in row 2 already; remove one of them",
        "5: b.txt curve 0 is labelled twice, differently: labelled keep in row 3 and discard here; decide for one",
    ]


def test_raters_may_agree_and_where_they_differ_the_curve_is_unsure(tmp_path):
    header = ("path", "curve_index", "label", "rater")
    rows = [("a.txt", 0, "keep", "ada"), ("b.txt", 0, "keep", "ada"), ("a.txt", 0, "keep", "bob")]
    labelled = read_folder(write_folder(tmp_path, [*rows, ("b.txt", 0, "discard", "bob")], header))
    assert labelled.problems == ()
    assert [(row.path, row.label) for row in labelled.rows] == [("a.txt", "keep"), ("b.txt", "unsure")]
    once_more = read_folder(write_folder(tmp_path, [*rows, ("a.txt", 0, "keep", "bob")], header))
    assert "row 5: a.txt curve 0 stands in row 4 already" in once_more.problems[0]


def test_a_table_from_excel_reads_as_any_other(tmp_path):
    folder = write_folder(tmp_path / "lab", [])
    (folder / "day1").mkdir()
    (folder / "a.txt").rename(folder / "day1" / "a.txt")
    text = "Path;Curve_index;Label;Note\r\nday1\\a.txt;0;Discard;schön\r\n.\\b.txt;;keep;\r\n;;;\r\n;;;\r\n"
    (folder / "labels.csv").write_bytes(("\ufeff" + text).encode())
    labelled = read_folder(folder)
    assert labelled.problems == ()
    assert [(row.number, row.path, row.label) for row in labelled.rows] == [
        (2, "day1/a.txt", "discard"),
        (3, "b.txt", "keep"),
    ]


def test_a_table_without_rows_is_a_problem(tmp_path):
    assert "no row below its header" in read_folder(write_folder(tmp_path, [])).problems[0]


@pytest.mark.parametrize("rows", [[("c.txt", 0, "keep"), ("d.txt", 0, "keep")], [("a.txt", 0, "discard")]])
def test_one_class_alone_teaches_nothing(tmp_path, capsys, rows):
    folder, out = write_folder(tmp_path / "lab", rows), tmp_path / "out"
    assert main(["train", "--labelled", str(folder), "--out", str(out)]) == 65
    error = capsys.readouterr().err
    assert f"{sum(row[2] == 'keep' for row in rows)} labelled events" in error
    assert "add --simulate N" in error
    assert [path.name for path in tmp_path.iterdir()] == ["lab"]


def test_an_index_beyond_the_file_leaves_nothing_behind(tmp_path, capsys):
    folder, out = write_folder(tmp_path / "lab", [*GOOD, ("a.txt", 7, "keep")]), tmp_path / "out"
    assert main(["train", "--labelled", str(folder), "--simulate", "100000", "--out", str(out)]) == 65
    assert main(["evaluate", "shipped", str(folder), "--report", str(tmp_path / "r.html")]) == 65
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("row 8: a.txt has one curve, number 0; curve_index 7 is none of them") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["lab"]


@pytest.mark.parametrize("verb", ["evaluate", "train"])
def test_bad_labels_end_a_verb_with_65_and_nothing_written(tmp_path, capsys, verb):
    rows = [("a.txt", 0, "may\x1b[2Jbe"), ("z.txt", 0, "keep"), ("b.txt", 5, "keep"), ("c.txt", 0, "keep")]
    folder = write_folder(tmp_path / "lab", rows)
    out = tmp_path / "out"
    words = ["evaluate", "shipped", str(folder)] if verb == "evaluate" else ["train", "--labelled", str(folder)]
    assert main([*words, *(["--out", str(out)] if verb == "train" else [])]) == 65
    error = capsys.readouterr().err
    assert "row 2" in error
    assert "row 3" in error
    assert "row 4: b.txt has one curve" in error  # told with the others, although the file has to be opened for it
    assert len(error.splitlines()) == 3
    assert "\x1b" not in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab"]


def train(*words):
    return main(["train", *words, "--epochs", "1", "--held-out", "200", "--threads", "1"])


def test_train_from_both_kinds_then_go_on_from_it(folder, tmp_path, capsys):
    out = tmp_path / "model"
    assert train("--simulate", "150", "--labelled", str(folder), "--width", "4", "--size", "64", "--out", str(out)) == 0
    first, said = read(out), capsys.readouterr()
    assert first.id in said.out
    assert "2 labelled events and 2 labelled event-free curves" in said.err
    assert first.manifest.training["labelled_curves"] == {"events": 2, "event_free": 2}
    assert first.width == 4
    assert first.profile.columns == 64
    assert first.manifest.score_basis == "simulation"
    assert first.manifest.training["simulated"] == 150
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert train("--labelled", str(folder), "--init", str(out), "--out", str(tmp_path / "next"), "--loss", "bce") == 0
    second = read(tmp_path / "next")
    assert second.manifest.parent == first.id
    assert second.width == 4
    assert second.profile == first.profile


def test_train_repeats_itself_after_an_interruption(tmp_path, monkeypatch):
    words = ["--simulate", "130", "--width", "4", "--size", "64", "--epochs", "3"]
    assert main(["train", *words, "--held-out", "200", "--threads", "1", "--out", str(tmp_path / "whole")]) == 0
    from models import train as loop

    stored = loop.store

    def killed(*given):
        stored(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "store", killed)
    again = ["train", *words, "--held-out", "200", "--threads", "1", "--out", str(tmp_path / "broken")]
    assert main(again) == 130
    assert not (tmp_path / "broken").exists()
    assert (tmp_path / ".broken.training" / "progress.json").exists() is False
    assert (tmp_path / ".broken.training" / "checkpoint" / "progress.json").is_file()
    monkeypatch.setattr(loop, "store", stored)
    assert main(again) == 0
    one, other = read(tmp_path / "whole"), read(tmp_path / "broken")
    assert all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing to learn from"),
        (["--simulate", "-1"], "0 or more"),
        (["--simulate", "9", "--init", "imagenet:x", "--width", "16"], "--width is 64"),
        (["--simulate", "9", "--freeze"], "name them with --init"),
        (["--simulate", "9", "--head", "svm"], "name them with --init"),
        (["--simulate", "9", "--init", "shipped", "--freeze", "--head", "svm"], "choose one"),
        (["--simulate", "9", "--init", "shipped", "--features", "pca"], "belong to --head"),
        (["--simulate", "9", "--init", "shipped", "--unlabelled", "."], "belong to --head"),
        (["--simulate", "9", "--size", "100"], "--size"),
        (["--simulate", "9", "--width", "2000"], "--width"),
        (["--simulate", "9", "--init", "shipped", "--width", "8"], "leave them out"),
        (["--simulate", "9", "--threads", "-1"], "--threads"),
        (["--simulate", "9", "--held-out", "3"], "--held-out"),
    ],
)
def test_train_says_what_is_wrong(tmp_path, capsys, words, says):
    assert main(["train", *words, "--out", str(tmp_path / "m")]) == 64
    assert says in capsys.readouterr().err


def test_train_never_replaces_what_is_no_model(tmp_path, capsys):
    (tmp_path / "m").mkdir()
    assert main(["train", "--simulate", "9", "--out", str(tmp_path / "m")]) == 64
    assert "is no model" in capsys.readouterr().err


def test_train_from_a_model_that_is_none(tmp_path, capsys):
    assert main(["train", "--simulate", "9", "--init", "nowhere", "--out", str(tmp_path / "m")]) == 65
    assert "no model 'nowhere'" in capsys.readouterr().err


def test_models_list_and_show(tmp_path, capsys):
    made = make_model(tmp_path / "models" / "ours")
    assert main(["models", "list", "--state", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert "shipped" in listed
    assert made.id in listed
    assert main(["models", "show", "ours", "--state", str(tmp_path)]) == 0
    assert "What it is for" in capsys.readouterr().out
    assert main(["models", "show", "theirs", "--state", str(tmp_path)]) == 65


@pytest.mark.skipif(not SHARED.is_dir(), reason="no collection of real curves here")
def test_the_collection_has_no_bad_row():
    labelled = read_folder(SHARED / "data")
    assert labelled.problems == ()
    assert len(labelled.rows) == 593


@pytest.mark.parametrize(
    ("header", "rows", "says"),
    [
        ("path,label,Label", "a.txt,keep,discard", "column label stands twice"),
        ("path,label,system,system", "a.txt,keep,x,y", "column system stands twice"),
    ],
)
def test_a_column_that_stands_twice_is_not_chosen_from(folder, header, rows, says):
    (folder / "labels.csv").write_text(f"{header}\n{rows}\n")
    labelled = read_folder(folder)
    assert labelled.rows == ()
    assert says in labelled.problems[0]


def test_curves_outside_the_folder_are_said_to_be_so(tmp_path):
    write_folder(tmp_path / "other", [])
    folder = write_folder(tmp_path / "lab", [("../other/a.txt", 0, "keep"), (str(tmp_path / "lab/a.txt"), 0, "keep")])
    (folder / "link").symlink_to(tmp_path / "other")
    (folder / "labels.csv").write_text((folder / "labels.csv").read_text() + "link/a.txt,0,keep\n")
    problems = read_folder(folder).problems
    assert len(problems) == 3
    assert "row 2: ../other/a.txt: lies outside" in problems[0]
    assert "row 4: link/a.txt: lies outside" in problems[2]
