import io
import json
import os
import sys
from types import SimpleNamespace

import pytest
from makers import make_jpk_map
from modelhelp import GOOD, write_folder

from daemon.cli import main
from daemon.common.errors import UserError
from daemon.labels.table import read_selection


@pytest.fixture
def folder(tmp_path):
    folder = write_folder(tmp_path / "lab", GOOD)
    (folder / "day2").mkdir()
    (folder / "day2" / "map.jpk-force-map").write_bytes(make_jpk_map(3, points=256))
    return folder


def scored(folder, capsys, *words):
    code = main(["score", str(folder), "--json", *words])
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    return code, [(row["path"], row["curve"]) for row in rows], err


def write(path, text):
    path.write_bytes(text.encode())
    return str(path)


def test_score_looks_at_the_list_alone(folder, tmp_path, capsys):
    picked = write(tmp_path / "list.txt", "day2/map.jpk-force-map#2\r\n\r\n.\\a.txt\r\n")
    assert scored(folder, capsys, "--only", picked) == (0, [("a.txt", 0), ("day2/map.jpk-force-map", 2)], "")


def test_a_path_alone_means_all_its_curves_and_a_table_works_too(folder, tmp_path, capsys):
    whole = [("day2/map.jpk-force-map", index) for index in range(3)]
    assert scored(folder, capsys, "--only", write(tmp_path / "one", "day2/map.jpk-force-map\n"))[1] == whole
    table = "path;curve_index;score\nday2\\map.jpk-force-map;1;0.7\nb.txt;;0.2\n"
    assert scored(folder, capsys, "--only", write(tmp_path / "two", "\ufeff" + table))[1] == [("b.txt", 0), whole[1]]


def test_paths_as_a_shell_writes_them(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (folder / "a.txt", os.path.relpath(folder / "a.txt")):
        assert scored("lab", capsys, "--only", write(tmp_path / "list", f"{path}\n"))[:2] == (0, [("a.txt", 0)])


def test_a_list_comes_through_a_pipe(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"c.txt\n")))
    assert scored(folder, capsys, "--only", "-")[1] == [("c.txt", 0)]


def test_what_is_not_found_is_said_and_the_rest_is_scored(folder, tmp_path, capsys):
    picked = write(tmp_path / "list", "a.txt\nnowhere.txt\nday2/map.jpk-force-map#3\n")
    code, rows, error = scored(folder, capsys, "--only", picked)
    assert (code, rows) == (65, [("a.txt", 0)])
    lines = error.strip().splitlines()
    assert len(lines) == 2
    assert "row 2: nowhere.txt: no such file there" in lines[0]
    assert "row 3: day2/map.jpk-force-map#3: the file is there, this curve of it is not" in lines[1]


def test_a_file_that_cannot_be_read_is_still_answered(folder, tmp_path, capsys):
    (folder / "broken.jpk-force").write_bytes(b"PK\x03\x04 no archive")
    code, rows, error = scored(folder, capsys, "--only", write(tmp_path / "list", "broken.jpk-force#4\n"))
    assert (code, rows, error) == (0, [("broken.jpk-force", 0)], "")


@pytest.mark.parametrize(
    ("content", "says"),
    [("", "names no curve"), ("path,curve_index\na.txt,x\n,0\n", "row 2: curve_index 'x'"), (None, "existing list")],
)
def test_a_list_that_makes_no_sense_is_refused(tmp_path, content, says):
    source = str(tmp_path / "nowhere") if content is None else write(tmp_path / "list", content)
    with pytest.raises(UserError, match=says) as caught:
        read_selection(source)
    assert caught.value.exit_code == 65


def test_evaluate_narrows_to_the_list(folder, tmp_path, capsys):
    picked = write(tmp_path / "list", "a.txt\nc.txt#0\n")
    assert main(["evaluate", "shipped", str(folder), "--json", "--only", picked]) == 0
    pooled = json.loads(capsys.readouterr().out)["pooled"]
    assert (pooled["events"], pooled["event_free"], pooled["unsure"]) == (1, 1, 0)


def test_evaluate_refuses_a_list_with_curves_that_have_no_label(folder, tmp_path, capsys):
    picked = write(tmp_path / "list", "a.txt\nz.txt\na.txt#1\n")
    report = tmp_path / "r.html"
    assert main(["evaluate", "shipped", str(folder), "--only", picked, "--report", str(report)]) == 65
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split(": ")[-2] for line in captured.err.strip().splitlines()] == ["z.txt", "a.txt#1"]
    assert not report.exists()
