"""`afm-triage simulate`: whole files, the truth elsewhere, the pace asked for."""

import csv
import subprocess
import sys
import threading
import time

import pytest
from pace import allowed

from daemon.cli import main
from daemon.formats.base import Blob
from daemon.formats.jpk import JpkReader
from models.simulate import simulate


def run(*words):
    return main(["simulate", *map(str, words)])


def rows_of(truth):
    return list(csv.DictReader(truth.read_text().splitlines()))


def test_files_and_truth_belong_together(tmp_path, capsys):
    folder, truth = tmp_path / "curves", tmp_path / "truth.csv"
    assert run("--into", folder, "--curves", 12, "--prevalence", 0.5, "--seed", 8, "--truth", truth) == 0
    rows = rows_of(truth)
    assert [row["path"] for row in rows] == sorted(path.name for path in folder.iterdir())
    assert [list(row) for row in rows] == [["path", "curve_index", "label"]] * 12
    assert [row["label"] for row in rows] == [s.label for s in simulate(12, 8, 0.5)]
    for row, simulated in zip(rows, simulate(12, 8, 0.5), strict=True):
        file = JpkReader().open(Blob(folder / row["path"]), row["path"])
        assert int(row["curve_index"]) == len(file) - 1 == 0
        assert len(file.curve(0)) == len(simulated.curve)
    kept = sum(row["label"] == "keep" for row in rows)
    assert f"12 curves in {folder}, {kept} with an event" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        run("--into", tmp_path / name, "--curves", 6, "--seed", 3)
    run("--into", tmp_path / "other", "--curves", 6, "--seed", 4)
    one, two, other = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("one", "two", "other"))
    assert one == two
    assert len(one) == 6
    assert not set(one.values()) & set(other.values())


@pytest.mark.parametrize("where", ["curves/truth.csv", "curves/deep/truth.csv", "curves/../curves/t.csv", "link/t.csv"])
def test_the_truth_is_never_written_into_the_folder(tmp_path, capsys, where):
    (tmp_path / "curves").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "curves")
    assert run("--into", tmp_path / "curves", "--curves", 2, "--truth", tmp_path / where) == 64
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "put it elsewhere" in message
    assert not list((tmp_path / "curves").iterdir())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--curves", "0"], "1 or more"),
        (["--prevalence", "1.5"], "between 0 and 1"),
        (["--prevalence", "nan"], "between 0 and 1"),
        (["--rate", "0"], "above 0"),
        (["--rate", "nan"], "above 0"),
        (["--rate", "1e-300"], "above 0"),
        (["--seed", "-1"], "0 or more"),
        (["--seed", "x"], "invalid int"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_64(tmp_path, capsys, words, hint):
    assert run("--into", tmp_path / "curves", *words) == 64
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert hint in message
    assert not (tmp_path / "curves").exists()


def test_a_file_where_the_folder_should_be_is_refused(tmp_path, capsys):
    (tmp_path / "curves").write_text("")
    assert run("--into", tmp_path / "curves") == 64
    assert "name a folder" in capsys.readouterr().err


def test_the_rate_is_kept(tmp_path):
    begun_s = time.monotonic()
    run("--into", tmp_path / "curves", "--curves", 13, "--rate", 20)
    assert 0.6 <= time.monotonic() - begun_s < allowed(1.5)


def test_who_watches_sees_whole_files_only(tmp_path):
    folder, stop, broken, seen = tmp_path / "curves", threading.Event(), [], set()
    folder.mkdir()

    def watch():
        while not stop.is_set():
            for path in folder.glob("*.jpk-force"):
                if path not in seen:
                    seen.add(path)
                    try:
                        JpkReader().open(Blob(path), path.name).curve(0)
                    except Exception as error:
                        broken.append((path.name, error))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run("--into", folder, "--curves", 40, "--seed", 2)
        deadline_s = time.monotonic() + 5
        while len(seen) < 40 and time.monotonic() < deadline_s:
            time.sleep(0.01)
    finally:
        stop.set()
        watcher.join()
    assert len(seen) == 40
    assert broken == []
    assert len(list(folder.iterdir())) == 40  # nothing unfinished left behind


def test_an_interrupted_run_leaves_whole_files_and_their_truth(tmp_path):
    folder, truth = tmp_path / "curves", tmp_path / "truth.csv"
    words = ["--into", folder, "--curves", "1000", "--rate", "50", "--truth", truth]
    process = subprocess.Popen([sys.executable, "-m", "daemon", "simulate", *map(str, words)])
    deadline_s = time.monotonic() + 10
    while (not truth.exists() or len(truth.read_text().splitlines()) < 6) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    process.kill()
    process.wait()
    rows = rows_of(truth)
    assert len(rows) >= 5
    for row in rows:
        JpkReader().open(Blob(folder / row["path"]), row["path"]).curve(0)
