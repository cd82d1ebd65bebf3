"""`score`: files read ahead by many processes, in order; and --out, which goes on where it was ended."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from makers import a_retract, make_jpk, make_jpk_map
from makers_vendors import make_ibw_image, make_nid, make_tiff
from modelhelp import make_model

from daemon.batch.output import ResumableOutput
from daemon.cli import main
from daemon.common.errors import UserError
from daemon.judging import overlap
from daemon.reading.ahead import Job, Kept, Piece, Stamp, find, read_ahead
from daemon.sources import Ignored
from models.frontend import prepare
from models.raster import RasterProfile

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "small"
    make_model(folder)
    return str(folder)


def write_lab(folder: Path, singles: int = 12, mapped: int = 70) -> Path:
    """Single curves before and behind a map of several portions, a broken file, and something that is no curve."""
    (folder / "day2").mkdir(parents=True)
    for number in range(singles):
        name = f"day2/z-{number:03d}" if number % 2 else f"a-{number:03d}"
        (folder / f"{name}.jpk-force").write_bytes(make_jpk(*a_retract(256, seed=number)))
    (folder / "day2" / "map.jpk-force-map").write_bytes(make_jpk_map(mapped, points=128))
    (folder / "b-broken.jpk-force").write_bytes(b"PK\x03\x04 no more")
    (folder / "notes.txt").write_text("Tip 3 was lost at noon.\n")
    return folder


def score(folder: Path, out: Path, model: str, *words: str) -> int:
    return main(["score", str(folder), "--out", str(out), "--model", model, "--engine", "torch", *words])


def rows(out: Path) -> list[dict]:
    """The lines without what depends on the clock."""
    return [{k: v for k, v in json.loads(line).items() if k != "latency_s"} for line in out.read_text().splitlines()]


def names(out: Path) -> list[str]:
    return [f"{row['path']}#{row['curve']}" for row in rows(out)]


def test_one_curve_is_scored_by_its_name(tmp_path, model, capsys):
    """As of the whole file, also where a name has a hash or bytes that are no UTF-8 in it."""
    content = make_jpk_map(4)
    for name in (b"odd #2.jpk-force-map", b"caf\xe9.jpk-force-map"):
        (tmp_path / os.fsdecode(name)).write_bytes(content)

    def told(*words):
        assert main(["score", "--model", model, *map(str, words)]) == 0
        return capsys.readouterr().out.splitlines()

    whole = told(tmp_path)
    assert [line.partition("  ")[2].split("  ")[-1] for line in whole][:4] == [
        f"caf�.jpk-force-map#{number}" for number in range(4)
    ]
    verdict = whole[7].split()[:2]
    (line,) = told(tmp_path / "odd #2.jpk-force-map#3")
    assert line.split()[:2] == verdict
    assert line.endswith("odd #2.jpk-force-map#3")
    (tmp_path / "list.txt").write_text("odd #2.jpk-force-map#1\ncaf�.jpk-force-map#0\n")
    assert [line[-6:] for line in told(tmp_path, "--only", tmp_path / "list.txt")] == ["-map#0", "-map#1"]
    for words, code in (
        (["nowhere.txt#2"], 65),
        (["odd #2.jpk-force-map#9"], 65),
        (["nowhere#1", "--only", "list.txt"], 65),
    ):
        assert (
            main(["score", "--model", model, *(str(tmp_path / word) if "#" in word else word for word in words)])
            == code
        )
        assert capsys.readouterr().err.count("\n") == 1


def test_files_come_in_order_and_a_map_is_read_by_all_readers_at_once(tmp_path):
    lab = write_lab(tmp_path / "lab", mapped=300)
    pieces = [item for item in read_ahead(map(Job, find([lab])), workers=3) if isinstance(item, Piece)]
    read = [(piece.reading.arrival.path, piece.reading.index) for piece in pieces]
    assert read == sorted(read)
    assert len(read) == 12 + 300 + 1
    assert {piece.curves for piece in pieces} == {1, 300}
    assert [piece.reading.reason for piece in pieces if piece.reading.curve is None] == ["truncated"]
    whole = [piece.reading.curve.force for piece in pieces if piece.curves == 300]
    again = [item.reading.curve.force for item in read_ahead(map(Job, find([lab / "day2" / "map.jpk-force-map"])), 1)]
    assert all((one == other).all() for one, other in zip(whole, again, strict=True))


def test_with_a_profile_curves_come_prepared_and_without_their_samples(tmp_path):
    lab = write_lab(tmp_path / "lab", singles=4, mapped=40)
    whole = [item.reading for item in read_ahead(map(Job, find([lab])), 1)]
    bare = [item.reading for item in read_ahead(map(Job, find([lab])), 2, RasterProfile())]
    for one, other in zip(whole, bare, strict=True):
        assert (one.index, one.sha256, one.reason) == (other.index, other.sha256, other.reason)
        if one.curve is not None:
            (wanted,) = prepare([one.curve], RasterProfile())
            assert (len(other.curve), other.curve.force_unit) == (0, one.curve.force_unit)
            assert other.prepared.reasons == wanted.reasons
            assert other.prepared.signal.tobytes() == wanted.signal.tobytes()


def test_a_map_is_never_held_whole(tmp_path):
    folder = tmp_path / "maps"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpk-force-map").write_bytes(make_jpk_map(400, points=64, seed=1000 * number))
    handed_on = 0
    most = 0
    from daemon.reading.ahead import _Line
    from daemon.reading.pool import ReaderPool

    with ReaderPool(1) as pool:
        line = _Line(map(Job, find([folder])), pool, most=64, ignored=Ignored())
        for _ in line:
            handed_on += 1
            most = max(most, sum(len(file.pieces) for file in line._files))
    assert handed_on == 1200
    assert most <= 64 + 32


def test_a_map_that_vanishes_while_it_is_read_is_answered_to_its_last_curve(tmp_path):
    path = tmp_path / "map.jpk-force-map"
    path.write_bytes(make_jpk_map(500, points=64))
    coming = read_ahead(map(Job, find([path])), workers=2)
    first = next(coming)
    path.write_bytes(make_jpk_map(500, points=64, seed=9))
    readings = [first.reading, *(item.reading for item in coming)]
    assert [reading.index for reading in readings] == list(range(500))
    assert {reading.reason for reading in readings if reading.curve is None} <= {"changed", "unreadable", "truncated"}


def test_a_map_that_has_become_an_image_is_answered_to_its_last_curve(tmp_path):
    path = tmp_path / "map.nid"
    path.write_bytes(make_nid([a_retract(64)] * 500))
    coming = read_ahead(map(Job, find([path])), workers=2)
    first = next(coming)
    path.write_bytes(make_nid(spectra=False))
    readings = [first.reading, *(item.reading for item in coming)]
    assert [reading.index for reading in readings] == list(range(500))
    assert {reading.reason for reading in readings if reading.curve is None} <= {"changed"}


def test_an_image_beside_curves_gets_no_line_and_is_counted(tmp_path, model):
    lab = write_lab(tmp_path / "lab", singles=2, mapped=3)
    (lab / "c.ibw").write_bytes(make_ibw_image())
    (lab / "c.tiff").write_bytes(make_tiff())
    ignored = Ignored()
    curves = list(read_ahead(map(Job, find([lab])), workers=2, ignored=ignored))
    assert len(curves) == 2 + 3 + 1
    assert ignored.kinds == {"image": 2, "unclaimed .txt": 1}
    assert score(lab, tmp_path / "out", model) == 0
    assert not [name for name in names(tmp_path / "out") if name.startswith("c.")]


def test_kept_lines_stand_where_they_belong(tmp_path):
    lab = write_lab(tmp_path / "lab", singles=6, mapped=40)
    found = list(find([lab]))
    kept = Kept("x", 0, 1)
    jobs = [Job(arrival, kept=kept, is_answered=True) if "a-" in arrival.path else Job(arrival) for arrival in found]
    items = list(read_ahead(jobs, workers=2))
    assert [isinstance(item, Kept) for item in items[:4]] == [True, True, True, False]
    assert sum(isinstance(item, Piece) for item in items) == 1 + 40 + 3


def test_while_one_batch_is_judged_the_next_is_read():
    running: list[str] = []

    def batches():
        for number in range(4):
            running.append(f"read {number}")
            yield number

    def work(number: int) -> int:
        time.sleep(0.1)
        running.append(f"judged {number}")
        return number * number

    assert list(overlap(batches(), work)) == [(0, 0), (1, 1), (2, 4), (3, 9)]
    assert running.index("read 2") < running.index("judged 1")


def test_what_the_classifier_raises_reaches_the_user():
    def work(number: int) -> int:
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        list(overlap(iter(range(9)), work))


@pytest.mark.faults
def test_ended_anywhere_it_goes_on_to_the_same_file(tmp_path, model):
    lab = write_lab(tmp_path / "lab", singles=40, mapped=160)
    assert score(lab, tmp_path / "whole", model) == 0
    out = tmp_path / "out"
    command = ["score", str(lab), "--out", str(out), "--model", model, "--engine", "torch"]
    random.seed(4)
    kills, before = 0, b""
    for wanted in (1, 40_000, 110_000):
        process = subprocess.Popen([sys.executable, "-m", "daemon", *command], cwd=ROOT, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not out.exists() or out.stat().st_size < wanted):
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.01))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        content = out.read_bytes()
        assert content.startswith(before), "an answered curve was judged again"
        before = content[: content.rfind(b"\n") + 1]
    assert kills >= 2
    assert main(command) == 0
    assert out.read_bytes().startswith(before)
    assert rows(out) == rows(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def test_a_torn_line_is_cut_and_judged_again(tmp_path, model, capsys):
    lab = write_lab(tmp_path / "lab")
    out = tmp_path / "out"
    score(lab, out, model)
    whole = rows(out)
    for left in (5, 1500, out.stat().st_size - 3):
        with out.open("r+b") as file:
            file.truncate(left)
            file.seek(0, os.SEEK_END)
            file.write(b"\0" * 7)  # what some file systems leave after a power cut
        capsys.readouterr()
        assert score(lab, out, model) == 0
        assert rows(out) == whole
    assert "judged before" in capsys.readouterr().err


def test_a_finished_run_judges_nothing_again(tmp_path, model, capsys):
    lab = write_lab(tmp_path / "lab")
    score(lab, tmp_path / "out", model)
    before = (tmp_path / "out").read_bytes()
    capsys.readouterr()
    assert score(lab, tmp_path / "out", model) == 0
    assert (tmp_path / "out").read_bytes() == before
    out, err = capsys.readouterr()
    assert (out, err) == ("", "nothing new; 83 judged before\nignored: 1 unclaimed .txt\n")


def test_a_sheet_into_a_folder_that_is_not_there_is_told_before_the_work(tmp_path, capsys):
    lab = write_lab(tmp_path / "lab", singles=2, mapped=1)
    assert score(lab, tmp_path / "none" / "out", "no-such-model") == 64
    assert f"--out {tmp_path}/none/out: its folder does not exist; make it first" in capsys.readouterr().err


def test_what_has_changed_since_is_judged_anew_in_its_place(tmp_path, model):
    lab = write_lab(tmp_path / "lab")
    out = tmp_path / "out"
    score(lab, out, model)
    lines = dict(zip(names(out), out.read_bytes().splitlines(), strict=True))
    (lab / "a-002.jpk-force").write_bytes(make_jpk(*a_retract(256, seed=77)))
    shutil.copy(lab / "a-006.jpk-force", lab / "a-005.jpk-force")
    assert score(lab, out, model) == 0
    assert score(lab, tmp_path / "anew", model) == 0
    assert rows(out) == rows(tmp_path / "anew")
    after = dict(zip(names(out), out.read_bytes().splitlines(), strict=True))
    new = {name for name in after if after[name] != lines.get(name)}
    assert new == {"a-002.jpk-force#0", "a-005.jpk-force#0"}
    assert not list(tmp_path.glob(".*"))


def test_verdicts_on_other_files_are_never_dropped(tmp_path, model, capsys):
    lab = write_lab(tmp_path / "lab", singles=4, mapped=3)
    other = tmp_path / "other"
    other.mkdir()
    (other / "c-000.jpk-force").write_bytes(make_jpk(*a_retract(256, seed=50)))
    out = tmp_path / "out"
    score(lab, out, model)
    before = out.read_bytes()
    capsys.readouterr()
    assert score(other, out, model) == 65
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{out} holds 8 verdicts on files that are not among these paths; name another file" in line
    assert out.read_bytes() == before
    (lab / "a-002.jpk-force").unlink()  # its verdict is all that is left of it
    assert score(lab, out, model) == 65
    assert "holds 1 verdict on files" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert score(lab, out, model, "--fresh") == 0
    assert main(["score", str(other), str(lab), "--out", str(out), "--model", model, "--engine", "torch"]) == 0
    assert len(rows(out)) == 8
    assert not list(tmp_path.glob(".*"))


def test_files_of_the_same_names_in_another_folder_are_other_files(tmp_path, model, capsys):
    labs = [tmp_path / "monday", tmp_path / "tuesday"]
    for seed, lab in enumerate(labs):
        lab.mkdir()
        for number in range(2):
            (lab / f"{number}.jpk-force").write_bytes(make_jpk(*a_retract(256, seed=2 * seed + number)))
    out = tmp_path / "out"
    score(labs[0], out, model)
    before = out.read_bytes()
    capsys.readouterr()
    assert score(labs[1], out, model) == 65
    assert "holds 2 verdicts on files" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_verdicts_on_a_folder_that_cannot_be_listed_stay(tmp_path, model, capsys):
    lab = write_lab(tmp_path / "lab", singles=2, mapped=1)
    out = tmp_path / "out"
    score(lab, out, model)
    before = out.read_bytes()
    (lab / "day2").chmod(0)
    capsys.readouterr()
    assert score(lab, out, model) == 74
    (lab / "day2").chmod(0o755)
    assert "could not be listed" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_ended_while_lines_are_set_aside_nothing_is_judged_twice(tmp_path, model):
    lab = write_lab(tmp_path / "lab", singles=40)
    out = tmp_path / "out"
    score(lab, out, model)
    lines = set(out.read_bytes().splitlines())
    (lab / "a-000.jpk-force").write_bytes(make_jpk(*a_retract(256, seed=77)))
    command = ["score", str(lab), "--out", str(out), "--model", model, "--engine", "torch"]
    aside = tmp_path / ".out.aside"
    process = subprocess.Popen([sys.executable, "-m", "daemon", *command], cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and not aside.exists():
        time.sleep(0.0005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    (lab / "a-002.jpk-force").write_bytes(make_jpk(*a_retract(256, seed=78)))
    assert main(command) == 0
    assert score(lab, tmp_path / "anew", model) == 0
    assert rows(out) == rows(tmp_path / "anew")
    assert len(set(out.read_bytes().splitlines()) - lines) == 2
    assert not aside.exists()


def test_lines_of_another_judge_are_refused(tmp_path, model, capsys):
    lab = write_lab(tmp_path / "lab")
    out = tmp_path / "out"
    score(lab, out, model)
    before = out.read_bytes()
    other = tmp_path / "other"
    make_model(other, name="other")
    capsys.readouterr()
    assert score(lab, out, str(other)) == 65
    (line,) = capsys.readouterr().err.splitlines()
    assert "model small-" in line
    assert "model other-" in line
    assert "--fresh" in line
    out.write_bytes(before.replace(b'"engine":"torch-', b'"engine":"other-'))
    assert score(lab, out, model) == 65
    err = capsys.readouterr().err
    assert "engine other-cpu-" in err
    assert "engine torch-cpu-" in err
    out.write_bytes(before)
    assert score(lab, out, model, "--require-certificate") == 65
    assert "certificate:required" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert score(lab, out, str(other), "--fresh") == 0
    assert {row["model"].split("-")[0] for row in rows(out)} == {"other"}


@pytest.mark.parametrize("words", [(), ("--fresh",)])
def test_what_is_no_sheet_is_left_alone(tmp_path, model, capsys, words):
    lab = write_lab(tmp_path / "lab", singles=2, mapped=1)
    curve = lab / "a-000.jpk-force"
    before = curve.read_bytes()
    assert score(lab, curve, model, *words) == 65
    assert "something else than verdicts" in capsys.readouterr().err
    assert curve.read_bytes() == before
    assert score(lab, tmp_path, model, *words) == 65
    assert "no regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", [b'{"path":"/a"}', b'{"path":"/a"}\n', b'{"path":\n"/a"}', b'{"path":"/a"}\n{"path"']
)
@pytest.mark.parametrize("words", [(), ("--fresh",)])
def test_a_json_file_that_begins_like_verdicts_is_left_alone(tmp_path, model, capsys, words, content):
    lab = write_lab(tmp_path / "lab", singles=2, mapped=1)
    theirs = tmp_path / "settings.json"
    theirs.write_bytes(content)
    assert score(lab, theirs, model, *words) == 65
    assert "something else than verdicts" in capsys.readouterr().err
    assert theirs.read_bytes() == content


@pytest.mark.parametrize("wrong", [b'{"path": 3}\n', b"[" * 100_000 + b"\n", None])
def test_a_line_that_is_none_is_named(tmp_path, model, capsys, wrong):
    lab = write_lab(tmp_path / "lab", singles=3, mapped=1)
    out = tmp_path / "out"
    score(lab, out, model)
    lines = out.read_bytes().splitlines(keepends=True)
    endless = lines[1].replace(b'"size_bytes":', b'"size_bytes":1e999,"was":')
    out.write_bytes(b"".join([lines[0], wrong or endless, *lines[2:]]))
    capsys.readouterr()
    assert score(lab, out, model) == 65
    assert "line 2: no verdict" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(tmp_path, model, capsys):
    lab = write_lab(tmp_path / "lab")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    out = tmp_path / "out"
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # no file grows beyond, as on a disk that is full
    try:
        assert score(lab, out, model) == 74
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert "the same command goes on" in line
    assert 0 < out.stat().st_size <= 20_000
    assert score(lab, out, model) == 0
    assert score(lab, tmp_path / "whole", model) == 0
    assert rows(out) == rows(tmp_path / "whole")


def test_where_there_is_no_curve_there_is_no_sheet(tmp_path, model, capsys):
    (tmp_path / "lab").mkdir()
    assert score(tmp_path / "lab", tmp_path / "out", model) == 65
    assert "no force curve" in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.rename(f"{path}2")]
)
def test_a_sheet_that_is_spoiled_meanwhile_is_told(tmp_path, spoil):
    out = tmp_path / "out"
    with ResumableOutput(out) as sheet:
        sheet.write(b'{"path": "a"}\n')
        sheet.flush()
        spoil(out)
        with pytest.raises(UserError, match="removed, replaced or cut off"):
            sheet.finish()


def test_a_file_that_could_not_be_opened_is_tried_again(tmp_path, model):
    lab = write_lab(tmp_path / "lab", singles=3, mapped=1)
    out = tmp_path / "out"
    assert score(lab, out, model) == 0
    whole = rows(out)
    lines = out.read_bytes().splitlines(keepends=True)
    failed = {**whole[1], "sha256": None, "verdict": "review", "score": None, "reasons": ["no_permission"]}
    lines[1] = json.dumps(failed, separators=(",", ":")).encode() + b"\n"
    out.write_bytes(b"".join(lines))
    assert score(lab, out, model) == 0
    assert [(one["path"], one["score"]) for one in rows(out)] == [(one["path"], one["score"]) for one in whole]


def test_two_runs_do_not_write_the_same_file(tmp_path, model, capsys):
    lab = write_lab(tmp_path / "lab", singles=2, mapped=1)
    from daemon.batch.output import ResumableOutput

    with ResumableOutput(tmp_path / "out"):
        assert score(lab, tmp_path / "out", model) == 73
    assert "another run" in capsys.readouterr().err


def test_the_sheet_may_lie_among_the_curves(tmp_path, model):
    lab = write_lab(tmp_path / "lab", singles=2, mapped=1)
    for _ in range(2):
        assert score(lab, lab / "a-001-verdicts.txt", model) == 0
    assert len(names(lab / "a-001-verdicts.txt")) == 2 + 1 + 1


def test_the_stamp_of_a_pair_changes_with_either_half(tmp_path):
    (tmp_path / "x.ibw").write_bytes(b"12")
    (tmp_path / "y.ibw").write_bytes(b"345")
    (arrival,) = find([tmp_path / "x.ibw"])
    from dataclasses import replace

    alone, pair = Stamp.of(arrival), Stamp.of(replace(arrival, companion=tmp_path / "y.ibw"))
    assert (alone.size_bytes, pair.size_bytes) == (2, 5)
    os.utime(tmp_path / "y.ibw", ns=(0, 2**62))
    assert Stamp.of(replace(arrival, companion=tmp_path / "y.ibw")).mtime_ns == 2**62


def test_how_the_options_exclude_each_other(tmp_path, capsys):
    (tmp_path / "list").write_text("a\n")
    for words in (["--fresh"], ["--out", "x", "--only", "list"], ["--out", "x", "--json"], ["--summary", "--json"]):
        assert main(["score", str(tmp_path), *words]) == 64, words
    capsys.readouterr()


def test_summary_counts_what_the_lines_say(tmp_path, model, capsys):
    lab = write_lab(tmp_path / "lab")
    assert main(["score", str(lab), "--model", model, "--json"]) == 0
    said = [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()]
    assert main(["score", str(lab), "--model", model, "--summary"]) == 0
    out, err = capsys.readouterr()
    assert out.split() == [
        word for verdict in ("keep", "review", "discard") for word in (verdict, str(said.count(verdict)))
    ]
    assert "83 curves in" in err
    assert "curves/s" in err
