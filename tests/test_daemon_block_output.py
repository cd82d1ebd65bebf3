"""The dataset of verdicts: each curve once by its bytes, gone on with from what is committed, with any index."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from makers import a_retract, make_jpk, make_jpk_map, make_jpk_text
from modelhelp import make_model

from daemon.archive import Archive, start_workers
from daemon.blocks import cut_rows
from daemon.cli import main
from daemon.common.errors import UserError
from daemon.reading.ahead import find
from daemon.tables import data_of
from daemon.tables.dataset import parts_of, values_of

pytest.importorskip("pyarrow")

from daemon.blocks.output import TableOutput

MADE_BY = ("model small", "pipeline 1", "thresholds 0.1 and 0.9")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "small"
    make_model(folder)
    return str(folder)


@pytest.fixture
def lab(tmp_path) -> Path:
    """A file, its copy, a map, one that is broken, and a name that is not UTF-8: 12 curves, of 11 identities."""
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "a.jpk-force").write_bytes(make_jpk(*a_retract(256, seed=1)))
    shutil.copy2(folder / "a.jpk-force", folder / "b-copy.jpk-force")
    (folder / "c-map.jpk-force-map").write_bytes(make_jpk_map(8, points=128))
    (folder / "d-broken.jpk-force").write_bytes(b"PK\x03\x04 no more")
    (folder / os.fsdecode(b"e-caf\xe9.txt")).write_bytes(make_jpk_text(*a_retract(256, seed=8)))
    return folder


def lines_of(path: Path, model: str) -> list[bytes]:
    """What one computer says of it."""
    out = path.with_name(f"{path.name}.jsonl")
    assert main(["score", str(path), "--out", str(out), "--model", model, "--engine", "torch", "--fresh"]) == 0
    return out.read_bytes().splitlines(keepends=True)


def rows_of(folder: Path) -> list[dict]:
    """As a reader without us finds them, back as lines."""
    from pyarrow import parquet

    rows = []
    for part in parts_of(folder):
        table = parquet.read_table(part, partitioning=None)
        rows += [data_of({**row, **values_of(part.relative_to(folder))}) for row in table.to_pylist()]
    return rows


def names(folder: Path) -> Counter:
    return Counter(f"{row['path']}#{row['curve']}" for row in rows_of(folder))


def jobs(output: TableOutput, lab: Path) -> dict[str, int]:
    """Name -> first curve that is left, of the files that have any."""
    told = [output.job(arrival) for arrival in find([lab])]
    return {job.arrival.path: job.arrival.first for job in told if not job.is_answered}


def test_each_curve_has_one_row_as_its_line_says_and_is_not_judged_again(lab, model, tmp_path):
    lines, out = lines_of(lab, model), tmp_path / "out"
    with TableOutput(out, MADE_BY) as output:
        assert len(jobs(output, lab)) == 5
        assert output.add(lines) == 11
        output.finish()
        assert output.doubled == 1
        assert str(out / "_notes" / "same.jsonl") in output.report()[0]
    same = [json.loads(line) for line in (out / "_notes" / "same.jsonl").read_bytes().splitlines()]
    assert [one["path"] for one in same] == ["b-copy.jpk-force"]
    said = {f"{one['path']}#{one['curve']}": one for one in map(json.loads, lines)}
    del said["b-copy.jpk-force#0"]
    assert {f"{row['path']}#{row['curve']}": row for row in rows_of(out)} == said
    with TableOutput(out, MADE_BY) as output:
        assert jobs(output, lab) == {}
        assert output.kept == 12
        assert output.add(lines) == 0


@pytest.mark.parametrize("fate", ["missing", "torn", "older"])
def test_an_index_that_is_not_of_the_last_commit_is_made_again(lab, model, tmp_path, fate):
    lines, out = lines_of(lab, model), tmp_path / "out"
    index = out / "_notes" / "index.sqlite"
    with TableOutput(out, MADE_BY) as output:
        output.add(lines[:5])
    older = index.read_bytes()
    with TableOutput(out, MADE_BY) as output:
        assert jobs(output, lab)["c-map.jpk-force-map"] == 3
        output.add(lines[5:])
    if fate == "missing":
        index.unlink()
    else:
        index.write_bytes(older if fate == "older" else b"torn" * 4096)
    with TableOutput(out, MADE_BY) as output:
        assert jobs(output, lab) == {}
        assert output.add(lines) == 0
    assert set(names(out).values()) == {1}


def test_what_is_not_committed_has_never_been(lab, model, tmp_path, monkeypatch):
    """As after kill -9, a full disk, or a line that is none."""
    lines, out = lines_of(lab, model), tmp_path / "out"
    output = TableOutput(out, MADE_BY)
    output.add(lines[:6])

    def full(*_):
        raise UserError(74, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(output._dataset, "commit", full)
        with pytest.raises(UserError):
            output.finish()
        output.close()
    with TableOutput(out, MADE_BY) as output:
        assert len(jobs(output, lab)) == 5
        with pytest.raises(ValueError, match="Expecting"):
            output.add([*lines[:6], b"{no"])
    with TableOutput(out, MADE_BY) as output:
        assert output.add(lines) == 11
    assert names(out).total() == 11


def test_rows_of_a_file_that_has_changed_go_unless_another_has_its_bytes(lab, model, tmp_path):
    out = tmp_path / "out"
    with TableOutput(out, MADE_BY) as output:
        output.add(lines_of(lab, model))
        output.finish()
    (lab / "c-map.jpk-force-map").write_bytes(make_jpk_map(5, points=200))
    (lab / "a.jpk-force").write_bytes(make_jpk(*a_retract(256, seed=77)))
    again = lines_of(lab, model)
    with TableOutput(out, MADE_BY) as output:
        assert jobs(output, lab) == {"a.jpk-force": 0, "c-map.jpk-force-map": 0}
        assert output.add(again) == 6
        output.finish()
    expected = Counter({"a.jpk-force#0": 2, "d-broken.jpk-force#0": 1, "e-caf\ufffd.txt#0": 1})  # a as it was: b's row
    assert names(out) == expected + Counter(f"c-map.jpk-force-map#{number}" for number in range(5))
    with TableOutput(out, MADE_BY) as output:
        assert jobs(output, lab) == {}


def test_a_file_that_could_not_be_read_is_tried_again_and_has_one_row(lab, model, tmp_path):
    out, lines = tmp_path / "out", lines_of(lab, model)
    unread = next(json.loads(line) for line in lines if b"a.jpk-force" in line)
    unread |= {"sha256": None, "score": None, "reasons": ["unreadable"], "verdict": "review"}
    content = json.dumps(unread).encode()
    for fresh in (1, 0):
        with TableOutput(out, MADE_BY) as output:
            assert "a.jpk-force" in jobs(output, lab)
            assert output.add([content]) == fresh
            output.finish()
    with TableOutput(out, MADE_BY) as output:
        output.add(lines)
        output.finish()
    assert names(out)["a.jpk-force#0"] == 1
    assert None not in {row["sha256"] for row in rows_of(out)}


def test_rows_of_an_archive_are_judged_once_in_any_order(lab, model, tmp_path):
    (lab / "d-broken.jpk-force").unlink()
    path, out = tmp_path / "lab.h5", tmp_path / "out"
    assert main(["pack", str(lab), "--out", str(path)]) == 0
    lines = lines_of(path, model)
    with start_workers() as workers:
        archive = Archive.open(path, workers)
        twin = Archive.open(shutil.copyfile(path, tmp_path / "twin.h5"), workers)
    with TableOutput(out, MADE_BY) as output:
        output.add(lines[6:9], archive, 6)
        output.add(lines[1:3], archive, 1)
    with TableOutput(out, MADE_BY) as output:
        assert output.told(archive) == [(1, 3), (6, 9)]
        assert output.kept == 5
        for block in cut_rows(archive, output.told(archive)):
            output.add(lines[block.first : block.first + block.count], archive, block.first)
        assert output.told(archive) == [(0, len(lines))]
        assert output.told(twin) == []
        assert output.add(lines, twin, 0) == 0
        assert output.doubled >= len(lines)
    assert names(out).total() == len({(row["sha256"], row["curve"]) for row in map(json.loads, lines)})


@pytest.mark.parametrize("is_first", [True, False])
def test_curves_of_an_archive_keep_their_rows_whatever_becomes_of_files_of_the_same_bytes(
    lab, model, tmp_path, is_first
):
    """Two archives hold another file of the same name, as two nights do; the index is made again all the time."""
    for path in [*lab.glob("[b-d]*")]:
        path.unlink()
    files, out = lines_of(lab, model), tmp_path / "out"
    (lab / "a.jpk-force").write_bytes(make_jpk(*a_retract(256, seed=77)))
    again = lines_of(lab, model)
    first, second = (
        [json.dumps({**json.loads(one), "folder": None}).encode() for one in some] for some in (files, again)
    )
    once, later = (Archive(tmp_path / name, 2, (), (1, 2, 3, 4)) for name in ("once.h5", "later.h5"))
    steps = [(files, None), (first, once), (second, later)]
    for lines, archive in steps if is_first else [*steps[1:], *steps[:1]]:
        with TableOutput(out, MADE_BY) as output:
            output.add(lines, archive)
            output.finish()
        (out / "_notes" / "index.sqlite").unlink()
    with TableOutput(out, MADE_BY) as output:
        output.add(again)
        output.finish()
    with TableOutput(out, MADE_BY) as output:
        assert output.add(files) == 0
        assert output.told(once) == [(0, 2)]
    assert Counter(row["path"] for row in rows_of(out)) == {"a.jpk-force": 2, "e-caf\ufffd.txt": 1}


def test_what_is_damaged_is_named_in_one_line_and_a_damaged_index_is_made_again(lab, model, tmp_path, monkeypatch):
    lines, out = lines_of(lab, model), tmp_path / "out"
    out.mkdir()
    monkeypatch.chdir(out)
    with TableOutput(Path(), MADE_BY) as output:  # a folder of which only "." was said
        output.add(lines)
    index, part = out / "_notes" / "index.sqlite", next(iter(parts_of(out)))
    with index.open("r+b") as file:
        file.seek(2 * 4096)  # behind the number of its commit
        file.write(b"no" * (index.stat().st_size // 2 - 4096))
    with pytest.raises(UserError, match="malformed"), TableOutput(out, MADE_BY) as output:
        output.add(lines)
    with TableOutput(out, MADE_BY) as output:
        assert output.add(lines) == 0
    index.unlink()
    for content in (b"", b"PAR1 no more", b"no" * 4096 + part.read_bytes()[-4000:]):
        part.write_bytes(content)
        with pytest.raises(UserError, match=r"part-.*: is damaged; ") as damaged:
            TableOutput(out, MADE_BY)
        assert damaged.value.exit_code == 65


def test_a_dataset_is_of_one_judge_and_of_one_run(lab, model, tmp_path):
    out = tmp_path / "out"
    with TableOutput(out, MADE_BY) as output:
        output.add(lines_of(lab, model))
        with pytest.raises(UserError) as held:
            TableOutput(out, MADE_BY)
    with pytest.raises(UserError, match="thresholds") as other:
        TableOutput(out, (*MADE_BY[:2], "thresholds 0.2 and 0.9"))
    assert (held.value.exit_code, other.value.exit_code) == (73, 65)
    with TableOutput(out, (*MADE_BY[:2], "thresholds 0.2 and 0.9"), fresh=True):
        pass
    assert rows_of(out) == []


def test_a_folder_that_a_killed_run_had_just_begun_is_gone_on_with_and_no_other(tmp_path):
    out = tmp_path / "out"
    (out / "_notes" / "staging").mkdir(parents=True)
    (out / "_notes" / ".about.json.4711.tmp").write_text("{")
    (out / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds something else"):
        TableOutput(out, MADE_BY)
    (out / "thesis.txt").unlink()
    TableOutput(out, MADE_BY).close()
    TableOutput(out, MADE_BY).close()
