"""Blocks: what is cut from files and archives, travels, and is judged on a node as `score --out` does it here."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from makers import a_retract, make_jpk, make_jpk_map, make_jpk_text
from modelhelp import make_model

from daemon import blocks
from daemon.archive import Archive, BadArchive, start_workers
from daemon.batch.output import opinion_of
from daemon.blocks import Answer, Children, FileBlock, Reached
from daemon.cli import main
from daemon.common.errors import UNREACHABLE
from daemon.config import ThresholdsConfig
from daemon.judging.judge import judge_of, load_model
from daemon.reading.ahead import Job, Stamp, find
from daemon.sources import Ignored
from deploy.classifier import EngineRequest
from models.bundle import CARD, MANIFEST, WEIGHTS


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "small"
    make_model(folder)
    return str(folder)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """Single curves, two of them one, one broken; a map; what is no curve; and a name that is not UTF-8."""
    folder = tmp_path_factory.mktemp("lab")
    for number in range(5):
        (folder / f"a-{number}.jpk-force").write_bytes(make_jpk(*a_retract(256, seed=number)))
    (folder / "a-9.jpk-force").write_bytes((folder / "a-0.jpk-force").read_bytes())
    (folder / "b-broken.jpk-force").write_bytes(b"PK\x03\x04 no more")
    (folder / "c-map.jpk-force-map").write_bytes(make_jpk_map(40, points=128))
    for name in ("a-7.txt", "notes.txt", "z-last.txt"):
        (folder / name).write_text("Tip 3 was lost at noon.\n")
    (folder / os.fsdecode(b"z-caf\xe9.txt")).write_bytes(make_jpk_text(*a_retract(256, seed=8)))
    return folder


@pytest.fixture(scope="module")
def lines(lab, model, tmp_path_factory) -> list[dict]:
    """What one computer says of them."""
    out = tmp_path_factory.mktemp("lines") / "lines.jsonl"
    assert main(["score", str(lab), "--out", str(out), "--model", model, "--engine", "torch"]) == 0
    return timeless(out.read_bytes().splitlines())


def timeless(lines) -> list[dict]:
    """Without what depends on the clock."""
    return [{key: one for key, one in json.loads(line).items() if key not in ("latency_s", "time")} for line in lines]


class ANode:
    """What a node has: a model, and processes that read."""

    def __init__(self, model: str) -> None:
        self.model = load_model(model, EngineRequest("cpu", "torch"))
        self.judge = judge_of(self.model, ThresholdsConfig())
        self.children = Children(self.model.bundle.profile)

    def answers(self, packed: bytes, told: Reached = Reached()) -> list[Answer]:  # noqa: B008
        block, kinds = blocks.unpack_block(packed), dict[str, str]()
        judged = blocks.judge(block, self.model, self.judge, self.children, Ignored(files=kinds))
        return [blocks.unpack_answer(blocks.pack(one)) for one in blocks.answers(block, told, judged, kinds)]


@pytest.fixture(scope="module")
def node(model):
    one = ANode(model)
    yield one
    one.children.close()


def jobs_of(lab: Path) -> list[Job]:
    return [Job(arrival, Stamp.of(arrival)) for arrival in find([lab])]


def test_a_node_says_of_a_block_what_score_says_of_its_files_wherever_another_left_off(lab, lines, node, monkeypatch):
    monkeypatch.setattr(blocks, "_ANSWER_BYTES", 1)  # a piece a curve
    (block,) = blocks.cut(jobs_of(lab))
    told = node.answers(blocks.pack_block(block))
    assert timeless(line for one in told for line in one.contents) == lines
    assert [one.is_last for one in told] == [False] * len(lines) + [True]
    passed_over = [file for one in told for file in one.ignored]
    names = [block.jobs[at].arrival.path for at, _ in passed_over]
    assert names == ["a-7.txt", "notes.txt", "z-last.txt"]
    assert {kind for _, kind in passed_over} == {"unclaimed .txt"}
    verdicts = [opinion_of(line)[0] for one in told for line in one.contents]
    assert verdicts == [line["verdict"] for line in lines]
    in_map = next(at for at, line in enumerate(lines) if line["path"].startswith("c-map"))
    for rows in (1, in_map, in_map + 17, in_map + 40, len(lines)):
        reached = told[rows - 1].reached
        rest = node.answers(blocks.pack_block(block.behind(reached)), reached)
        assert timeless(line for one in rest for line in one.contents) == lines[rows:]
        assert rest[-1].reached.rows == len(lines)
        assert [file for one in (*told[:rows], *rest) for file in one.ignored] == passed_over


def test_what_two_nodes_say_of_the_same_rows_and_files_counts_once():
    """One is taken for lost, wakes, and says what the other one is saying too."""
    ignored = ((9, "unclaimed .txt"), (14, "image"))
    answer = Answer(10, (b"a", b"b", b"c"), ("jpk", None, "text"), Reached(13, 15), ignored)
    assert answer.behind(Reached(10, 9)) == answer
    assert answer.behind(Reached(12, 13)) == Answer(12, (b"c",), ("text",), Reached(13, 15), ignored[1:])
    over = answer.behind(Reached(99, 99))
    assert (over.contents, over.ignored) == ((), ())


def test_files_are_cut_late_into_blocks_that_are_small_at_first(lab, monkeypatch):
    monkeypatch.setattr(blocks, "_FIRST_FILES", 2)
    monkeypatch.setattr(blocks, "_GROWS_AFTER", 2)
    jobs = jobs_of(lab)
    coming = iter(jobs)
    cut = blocks.cut(coming)
    assert len(next(cut).jobs) == 2
    assert len(list(coming)) == len(jobs) - 2
    cut = blocks.cut(jobs)
    assert len(next(cut).jobs) == 2
    assert [(one.number, len(one.jobs)) for one in cut] == [(1, 2), (2, 4), (3, len(jobs) - 8)]
    monkeypatch.setattr(blocks, "MOST_BYTES", 1)
    assert [len(one.jobs) for one in blocks.cut(jobs)] == [1] * len(jobs)
    answered = [Job(job.arrival, is_answered=True) for job in jobs]
    assert list(blocks.cut(answered)) == []


def test_rows_of_an_archive_are_cut_apart_from_those_that_are_told(lab, lines, model, node, tmp_path, monkeypatch):
    path = tmp_path / "lab.h5"
    assert main(["pack", str(lab), "--out", str(path)]) == 0
    whole = tmp_path / "rows.jsonl"
    words = ["score", str(path), "--out", str(whole), "--model", model, "--engine", "torch"]
    assert main(words) == 0
    expected = timeless(whole.read_bytes().splitlines())
    monkeypatch.setattr(blocks, "MOST_ROWS", 16)
    with start_workers() as workers:
        archive = Archive.open(path, workers)
    total = len(expected)
    assert sum(one.count for one in blocks.cut_rows(archive)) == total
    for spans in ([], [(0, 3)], [(30, 35), (3, 5)], [(total - 4, total)], [(0, 20), (10, total)], [(0, total)]):
        left = [row for row in range(total) if not any(first <= row < stop for first, stop in spans)]
        cut = list(blocks.cut_rows(archive, spans))
        rows = [row for one in cut for row in range(one.first, one.first + one.count)]
        assert (rows, [one.number for one in cut]) == (left, list(range(len(cut))))
        told = [line for one in cut for answer in node.answers(blocks.pack_block(one)) for line in answer.contents]
        assert timeless(told) == [expected[row] for row in left]
    block = next(iter(blocks.cut_rows(archive)))
    behind = block.behind(Reached(rows=3))
    assert (behind.first, behind.count) == (block.first + 3, block.count - 3)
    packed = blocks.pack_block(block)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BadArchive):
        blocks.unpack_block(packed)


def test_a_block_travels_whole(lab):
    (block,) = blocks.cut(jobs_of(lab))
    there = blocks.unpack_block(blocks.pack_block(block))
    assert isinstance(there, FileBlock)
    for one, other in zip(block.jobs, there.jobs, strict=True):
        assert (one.stamp, one.arrival.file, one.arrival.path) == (other.stamp, other.arrival.file, other.arrival.path)
        assert one.arrival.folder == other.arrival.folder


def test_a_node_leaves_no_model_behind_and_names_a_file_that_has_gone(lab, model, tmp_path, monkeypatch):
    """Most nodes are ended by a kill; and a name that is not UTF-8 must not end one."""
    pytest.importorskip("ray")
    from msgspec import msgpack

    from daemon.blocks.node import Node, Settings

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    node = Node(0, 1)
    files = [(name, (Path(model) / name).read_bytes()) for name in (MANIFEST, WEIGHTS, CARD)]
    names = [(name, 1) for name, _ in files]
    begun = node.begin(msgpack.encode(Settings("cpu", "torch")), names, *(content for _, content in files))
    assert b"torch" in begun
    assert list(tmp_path.iterdir()) == []
    (job,) = (one for one in jobs_of(lab) if one.arrival.path.startswith("z-caf"))
    gone = replace(job, arrival=replace(job.arrival, file=tmp_path / os.fsdecode(b"caf\xe9.txt")))
    packed = blocks.pack_block(FileBlock(0, (gone,)))
    (said,) = node.answer(packed, msgpack.encode(Reached()), is_there=True)
    answer = blocks.unpack_answer(said[1:])
    assert answer.code == UNREACHABLE
    assert "caf�.txt as it is" in answer.trouble
