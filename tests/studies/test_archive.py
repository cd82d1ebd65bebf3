"""`make study TOPIC=archive`: every way of judging an archive is run, and what the table says follows from it."""

import json

from modelhelp import make_model

from tests.studies.__main__ import main as study
from tests.studies.archive import write_text


def test_the_study_runs_every_way_and_says_how_fast(tmp_path, capsys):
    make_model(tmp_path / "small")
    words = ["--model", str(tmp_path / "small"), "--curves", "70", "--files", "31", "--out", str(tmp_path / "out.json")]
    assert study(["archive", *words]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    curves = {row["what"]: row["curves"] for row in found["rows"]}
    assert len(curves) == 9
    assert {count for what, count in curves.items() if "simulate" in what} == {70}
    from_files = {count for what, count in curves.items() if "simulate" not in what}
    assert len(from_files) == 1
    assert from_files.pop() >= 31
    assert all(row["main_us"] > 0 and row["wall_s"] > 0 for row in found["rows"])
    assert set(found["near_threshold"]) >= {"fp32", "fp16", "bf16"}
    lines = capsys.readouterr().out.splitlines()
    assert lines == write_text(found)


def test_a_million_curves_follow_from_the_last_row():
    row = {"what": "x", "curves": 10, "wall_s": 2.0, "main_us": 5.0, "workers_us": 150.0}
    found = {"cores": 2, "model": "m", "engine": "e", "bytes_a_curve": 16_000, "rows": [row], "near_threshold": {}}
    assert "10 s of 15 workers, 5 s of the main process" in write_text(found)[-1]


def test_numbers_that_make_no_sense_are_refused(capsys):
    for words in (["--curves", "0"], ["--files", "0"], ["--seed", "-1"]):
        assert study(["archive", *words]) == 64
    capsys.readouterr()
