"""Labels: given, superseded, carried out and back, and never half written."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from daemon.cli import main
from daemon.common.errors import UserError
from daemon.formats import open_file
from daemon.formats.afmcurve import pack
from daemon.labels import Full, Label, Labels, Locked, read_word, unanimous
from daemon.labels import table as labeltable
from daemon.labels.schema import MIGRATIONS
from daemon.ledger import Ledger, LedgerView
from daemon.ledger.wire import decode
from models.curve import Curve
from models.files import write_whole
from tests.ledgerhelp import decision

ROOT = Path(__file__).resolve().parents[1]
SHA = "ab" * 32
SAID = Label("run7/a.ibw", 0, "keep", "ada", "2026-11-20T12:00:00.000Z", "two ruptures", SHA)


@pytest.fixture
def labels(tmp_path: Path) -> Iterator[Labels]:
    with Labels(tmp_path / "labels.sqlite") as labels:
        yield labels


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def verb(state: Path, action: str, *words: str) -> Done:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main(["labels", action, *words, "--state", str(state)])
    return Done(code, out.getvalue(), err.getvalue())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_last_word_of_each_rater_counts_and_the_history_stays(labels: Labels) -> None:
    later = replace(SAID, label="discard", time="2026-11-20T12:00:00.500Z")
    other = replace(SAID, rater="bob", label="unsure")
    elsewhere = replace(SAID, path="copy/a.ibw", time="2026-11-20T13:00:00.000Z")  # the same content, renamed
    early = replace(SAID, label="unsure", time="2026-11-19T00:00:00.000Z")
    assert labels.add([SAID, later, other]) == 3
    assert [(one.rater, one.label) for one in labels.current()] == [("bob", "unsure"), ("ada", "discard")]
    assert labels.add([elsewhere, early]) == 2
    assert [(one.rater, one.label) for one in labels.current()] == [("bob", "unsure"), ("ada", "keep")]
    assert len(list(labels.history())) == 5
    assert labels.add([SAID, early]) == 0


def test_without_content_the_path_is_the_identity(labels: Labels) -> None:
    bare = replace(SAID, sha256=None)
    labels.add([SAID, bare, bare, replace(bare, curve=1)])
    assert len(list(labels.current())) == 3


def test_a_batch_with_an_impossible_label_adds_nothing(labels: Labels) -> None:
    with pytest.raises(UserError):
        labels.add([SAID, replace(SAID, label="perhaps")])  # type: ignore[arg-type]
    assert list(labels.history()) == []
    assert labels.add([SAID]) == 1


def test_words() -> None:
    assert [read_word(word) for word in ("keep", " Discard", "ambiguous", "UNSURE")] == [
        "keep",
        "discard",
        "unsure",
        "unsure",
    ]
    with pytest.raises(ValueError, match="write keep, discard or unsure"):
        read_word("good")
    assert unanimous(["keep", "keep"]) == "keep"
    assert unanimous(["keep", "discard"]) == "unsure"


def test_two_writers_wait_for_each_other(labels: Labels) -> None:
    code = """
import sys, pathlib
from daemon.labels import Labels, Label
with Labels(pathlib.Path(sys.argv[1])) as labels:
    for number in range(40):
        labels.add([Label("a", number, "keep", sys.argv[2], "2026-11-20T12:00:00.000Z")])
"""
    words = [sys.executable, "-c", code, str(labels.path)]
    writers = [subprocess.Popen([*words, rater], cwd=ROOT) for rater in ("ada", "bob")]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert len(list(labels.current())) == 80


def test_a_table_comes_back_as_it_went(tmp_path: Path) -> None:
    odd = replace(SAID, path='µ, "x".ibw', curve=3, extra={"system": "titin", "note": "line\nbreak; 7"})
    bare = replace(SAID, sha256=None, reason="")
    file = tmp_path / "labels.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        labeltable.write([SAID, odd, bare], out)
    assert file.read_text().partition("\n")[0] == "path,curve_index,label,rater,reason,time,sha256,system,note"
    assert [row.label for row in labeltable.read(file, now_s=0.0)] == [SAID, odd, bare]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_spreadsheets_are_read(separator: str, tmp_path: Path) -> None:
    lines = ["path,label,curve_index", "a\\b.ibw,Ambiguous,", "c.ibw,keep,2"]
    file = tmp_path / "labels.csv"
    file.write_text("\ufeff" + "\r\n".join(lines).replace(",", separator) + "\r\n", encoding="utf-8")
    first, second = (row.label for row in labeltable.read(file, now_s=1.8e9, rater="ada"))
    assert (first.path, first.curve, first.label, first.rater) == ("a/b.ibw", 0, "unsure", "ada")
    assert (second.curve, second.time) == (2, "2027-01-15T08:00:00.000Z")


def test_every_wrong_row_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    rows = [
        "path,curve_index,label,rater,time,sha256",
        "a.ibw,0,good,ada,,",
        "a.ibw,0,keep,ada,,",
        ",-1,keep,,yesterday,xyz",
        "a.ibw,0,keep,ada,,,surplus",
        f"a.ibw,{'9' * 20},keep,ada,,",
    ]
    file.write_text("\n".join(rows))
    with pytest.raises(UserError) as refusal:
        labeltable.read(file, now_s=0.0)
    told = str(refusal.value).splitlines()
    assert refusal.value.exit_code == 65
    assert [line.split(": ")[0].rpartition(" ")[2] for line in told[:-1]] == ["2", "4", "4", "4", "4", "4", "5", "6"]
    assert "nothing was imported" in told[-1]


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b"path\nx\n"])
def test_what_is_no_table_of_labels_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserError) as refusal:
        labeltable.read(tmp_path / "labels.csv", now_s=0.0)
    assert refusal.value.exit_code == 65


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder whose service is down: three flagged curves, the first of them with its file still there."""
    state, data = tmp_path / "state", tmp_path / "data"
    state.mkdir()
    data.mkdir()
    (data / "a.ibw").write_bytes(b"bytes of a")
    sha256 = hashlib.sha256(b"bytes of a").hexdigest()
    copy = pack(Curve(np.sin(np.arange(300.0)), "N", np.arange(300.0) * 1e-9, "piezo"))
    flagged = dict(verdict="review", compact_copy=copy)
    ledger = Ledger(state / "ledger.sqlite", "afm1")
    ledger.record(
        [
            decision(1, identity=f"{sha256}#0", sha256=sha256, path="run7/a.ibw", **flagged),
            decision(2, path="run7/gone.ibw", **flagged),
            decision(5, path="run7/broken.ibw", verdict="review", score=None, compact_copy=None),
            decision(3, path="run7/kept.ibw"),
        ]
    )
    ledger.close()
    return state


def unlabelled(state: Path) -> int:
    with LedgerView(state / "ledger.sqlite") as view:
        return view.unlabelled_count(state / "labels.sqlite")


def test_add_finds_the_curve_by_content_or_by_its_path_in_the_ledger(state: Path) -> None:
    assert unlabelled(state) == 3
    by_content = verb(state, "add", str(state.parent / "data" / "a.ibw"), "keep", "--rater", "ada")
    assert (by_content.returncode, by_content.stdout) == (0, "run7/a.ibw#0: keep (ada)\n")
    by_path = verb(state, "add", "run7/gone.ibw#0", "ambiguous", "--rater", "ada", "--reason", "drift")
    assert by_path.stdout == "run7/gone.ibw#0: unsure (ada)\n"
    assert unlabelled(state) == 1
    with Labels(state / "labels.sqlite") as labels:
        first, second = labels.current()
    assert first.sha256 == hashlib.sha256(b"bytes of a").hexdigest()
    assert (second.sha256, second.reason) == (decision(2).sha256, "drift")


@pytest.mark.parametrize(
    ("words", "exit_code", "told"),
    [
        (("nowhere.ibw", "keep", "--rater", "ada"), 65, "no such file, and no curve of that name"),
        (("run7/gone.ibw", "good", "--rater", "ada"), 64, "write keep, discard or unsure"),
        (("run7/gone.ibw", "keep"), 64, "--rater"),
        (("{data}/a.ibw", "keep", "--rater", "ada", "--curve", "7"), 65, "has no curve 7"),
        (("{data}/a.ibw", "keep", "--rater", "ada", "--curve", "9" * 20), 64, "--curve counts from 0"),
    ],
)
def test_add_refuses_in_one_line(words: tuple[str, ...], exit_code: int, told: str, state: Path) -> None:
    done = verb(state, "add", *(word.format(data=state.parent / "data") for word in words))
    assert done.returncode == exit_code
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_export_and_import_elsewhere_give_the_same_labels(state: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "out" / "labels.csv", tmp_path / "other"
    file.parent.mkdir()
    other.mkdir()
    verb(state, "add", "run7/gone.ibw", "keep", "--rater", "ada")
    verb(state, "add", "run7/gone.ibw", "discard", "--rater", "bob")
    assert verb(state, "export", "--out", str(file)).returncode == 0
    assert verb(other, "import", str(file)).stdout == "2 labels imported, 0 were known\n"
    assert verb(other, "export").stdout == file.read_text()
    assert verb(state, "import", str(file)).stdout == "0 labels imported, 2 were known\n"


def test_export_into_a_pipe_leaves_the_pipe_where_it_is(state: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        assert verb(state, "export", "--out", str(pipe)).returncode == 0
        assert reader.communicate(timeout=10)[0].startswith("path,curve_index,label")
    assert pipe.is_fifo()


def test_import_writes_nothing_when_a_row_is_wrong(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("path,label,rater\nrun7/gone.ibw,keep,ada\nrun7/a.ibw,fine,ada\n")
    done = verb(state, "import", str(file))
    assert done.returncode == 65
    assert "row 3" in done.stderr
    assert unlabelled(state) == 3


def test_import_takes_the_identity_from_files_beside_the_table(state: Path) -> None:
    """A labelled folder, or a table that names paths as the ledger does: both find the flagged curve."""
    file = state.parent / "data" / "labels.csv"
    file.write_text("path,label,rater\na.ibw,keep,ada\nrun7/gone.ibw,discard,ada\nelsewhere.ibw,keep,ada\n")
    assert verb(state, "import", str(file)).returncode == 0
    assert unlabelled(state) == 1


def test_flagged_curves_are_exported_as_a_folder_to_train_on(state: Path, tmp_path: Path) -> None:
    for path, label, rater in [("a", "keep", "ada"), ("gone", "keep", "ada"), ("gone", "discard", "bob")]:
        verb(state, "add", f"run7/{path}.ibw", label, "--rater", rater)
    verb(state, "add", "run7/broken.ibw", "discard", "--rater", "ada")
    folder = tmp_path / "flagged"
    done = verb(state, "export", "--curves", str(folder))
    assert done.returncode == 0
    assert "no copy of 1: none in the ledger" in done.stderr
    rows = table(folder / "labels.csv")
    assert {row["origin_path"]: row["label"] for row in rows} == {"run7/a.ibw": "keep", "run7/gone.ibw": "unsure"}
    assert len({row["path"] for row in rows}) == 2
    for row in rows:
        assert len(open_file(folder / row["path"])[0]) == 300
        assert hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest() == row["sha256"]


def test_a_curve_that_was_never_flagged_is_exported_from_its_file(state: Path, tmp_path: Path) -> None:
    watched = tmp_path / "instrument"
    watched.mkdir()
    (watched / "kept.afmcurve").write_bytes(pack(Curve(np.cos(np.arange(300.0)), "N")))
    config = tmp_path / "afm.toml"
    config.write_text(f'watch = ["{watched}"]\n')
    assert verb(state, "add", "kept.afmcurve", "keep", "--rater", "ada", "--config", str(config)).returncode == 0
    inside = verb(state, "export", "--curves", str(watched / "copies"), "--config", str(config))
    assert (inside.returncode, (watched / "copies").exists()) == (64, False)
    assert "watched folder" in inside.stderr
    done = verb(state, "export", "--curves", str(tmp_path / "copies"), "--config", str(config))
    assert done.stderr.startswith("1 curves and labels.csv")
    (watched / "kept.afmcurve").write_bytes(pack(Curve(np.sin(np.arange(300.0)), "N")))  # another curve of this name
    done = verb(state, "export", "--curves", str(tmp_path / "later"), "--config", str(config))
    assert done.stderr.startswith("0 curves")


def test_without_a_state_folder_it_is_said_what_to_do(tmp_path: Path) -> None:
    done = verb(tmp_path / "absent", "export")
    assert done.returncode == 69
    assert done.stderr.startswith("afm-triage: no state folder")


@pytest.mark.parametrize(
    ("text", "told"), [('path,label\na,"keep\nb,keep\n', "no CSV"), ("path,label,label\na,keep,discard\n", "twice")]
)
def test_a_table_that_could_be_read_in_two_ways_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=told):
        labeltable.read(tmp_path / "labels.csv", now_s=0.0, rater="ada")


def test_a_disk_that_fills_up_leaves_the_old_file_and_no_half_of_the_new(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_whole(tmp_path / "report.html", b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "old"


def current(state: Path) -> list[tuple[str, int, str, str]]:
    with Labels(state / "labels.sqlite") as labels:
        return [(one.path, one.curve, one.label, one.rater) for one in labels.current()]


def test_a_removed_label_is_gone_everywhere_and_stays_as_history(state: Path) -> None:
    verb(state, "add", "run7/gone.ibw", "keep", "--rater", "ada", "--reason", "two ruptures")
    verb(state, "add", "run7/gone.ibw", "discard", "--rater", "bob")
    assert verb(state, "disagree").stdout == (
        "run7/gone.ibw#0: keep (ada), discard (bob)\n"
        "ada and bob agree on 0 of 1 curve that both have labelled; it counts from 30 on\n"
    )
    refused = verb(state, "remove", "run7/gone.ibw#0")
    assert (refused.returncode, "--rater ada or bob" in refused.stderr) == (64, True)
    words = ("run7/gone.ibw#0", "--rater", "bob", "--by", "ada", "--reason", "wrong curve")
    assert verb(state, "remove", *words).stdout == "run7/gone.ibw#0: discard (bob) removed\n"
    alone = verb(state, "disagree")
    assert (alone.stdout, alone.stderr) == ("", "only ada has labelled curves: there is nobody to disagree with\n")
    assert ",bob," not in verb(state, "export").stdout
    assert verb(state, "remove", *words).returncode == 65
    with Labels(state / "labels.sqlite") as labels:
        said, _, tombstone = labels.history()
    assert (tombstone.rater, tombstone.removed_by, tombstone.reason) == ("bob", "ada", "wrong curve")
    assert tombstone.time >= said.time
    assert unlabelled(state) == 2  # ada's word holds
    verb(state, "remove", "run7/gone.ibw")
    assert (current(state), unlabelled(state)) == ([], 3)


def test_a_removal_is_undone_and_a_later_label_revives(state: Path) -> None:
    assert verb(state, "remove", "run7/gone.ibw", "--undo").returncode == 65
    verb(state, "add", "run7/gone.ibw", "keep", "--rater", "ada")
    for _ in range(2):
        verb(state, "remove", "run7/gone.ibw")
        assert verb(state, "remove", "run7/gone.ibw", "--undo").stdout == "run7/gone.ibw#0: keep (ada) holds again\n"
        assert current(state) == [("run7/gone.ibw", 0, "keep", "ada")]
    verb(state, "remove", "run7/gone.ibw")
    verb(state, "add", "run7/gone.ibw", "unsure", "--rater", "ada")
    assert current(state) == [("run7/gone.ibw", 0, "unsure", "ada")]


def test_an_export_that_is_imported_again_changes_nothing(state: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(
        "path,curve_index,label,rater,reason,time,sha256,System,note\n"
        'run7/a.ibw,0,keep,ada,"two, or three",2026-11-20T12:00:00.000Z,,titin,"line\nbreak"\n'
        "run7/gone.ibw#0,,ambiguous,ada,,2026-11-20T12:00:01.000Z,,,\n"
    )
    assert verb(state, "import", str(table)).stdout == "2 labels imported, 0 were known\n"
    first = verb(state, "export").stdout
    ours = "event,model,pipeline,verdict,score,queue,weight,session"
    assert first.startswith(f"path,curve_index,label,rater,reason,time,sha256,{ours},System,note\n")
    (tmp_path / "out.csv").write_text(first)
    assert verb(state, "import", str(tmp_path / "out.csv")).stdout == "0 labels imported, 2 were known\n"
    assert verb(state, "export").stdout == first
    verb(state, "remove", "run7/a.ibw")
    assert verb(state, "import", str(tmp_path / "out.csv")).stdout == "0 labels imported, 2 were known\n"
    assert current(state) == [("run7/gone.ibw", 0, "unsure", "ada")]  # what was taken back later stays so


def test_rows_without_a_time_are_one_label_however_often_they_are_imported(state: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label,rater\nrun7/gone.ibw,keep,ada\n")
    told = [verb(state, "import", str(table)).stdout for _ in range(2)]
    assert told == ["1 labels imported, 0 were known\n", "0 labels imported, 1 were known\n"]


def test_rows_that_name_no_judged_curve_are_told_and_not_stored(state: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    rows = [f"run8/{number}.ibw,keep,ada," for number in range(4)]
    table.write_text("\n".join(["path,label,rater,sha256", *rows, "run7/gone.ibw,keep,ada,", f"x,keep,ada,{'9' * 64}"]))
    done = verb(state, "import", str(table))
    assert (done.returncode, done.stdout) == (0, "1 labels imported, 0 were known\n")
    assert "5 of 6 rows name no judged curve: row 2 (run8/0.ibw#0), row 3 (run8/1.ibw#0), row 4 (run8/2.ibw#0)" in (
        done.stderr
    )
    assert done.stderr.count("\n") == 1
    assert current(state) == [("run7/gone.ibw", 0, "keep", "ada")]
    table.write_text("\n".join(["path,label,rater", rows[0]]))
    done = verb(state, "import", str(table))
    assert (done.returncode, done.stderr.count("\n")) == (65, 1)
    assert "nothing was imported" in done.stderr


def test_import_looks_in_the_watched_folders(state: Path, tmp_path: Path) -> None:
    """A file that was copied into another run is the curve that was judged."""
    watched = tmp_path / "watched"
    (watched / "run9").mkdir(parents=True)
    (watched / "run9" / "copy.ibw").write_bytes(b"bytes of a")
    (tmp_path / "afm.toml").write_text(f'watch = ["{watched}"]\n')
    table = tmp_path / "elsewhere" / "labels.csv"
    table.parent.mkdir()
    table.write_text("path,label,rater\nrun9/copy.ibw,keep,ada\n")
    done = verb(state, "import", str(table), "--config", str(tmp_path / "afm.toml"))
    assert (done.returncode, current(state)) == (0, [("run7/a.ibw", 0, "keep", "ada")])


def test_a_label_of_two_possible_curves_is_refused_with_both(state: Path, tmp_path: Path) -> None:
    ledger = Ledger(state / "ledger.sqlite", "afm1")
    ledger.record([decision(number, path="twice.ibw", folder=f"/{number}") for number in (7, 10)])
    ledger.close()
    refused = verb(state, "add", "twice.ibw#0", "keep", "--rater", "ada")
    assert refused.returncode == 64
    assert refused.stderr == "afm-triage: twice.ibw#0 may be /7/twice.ibw#0 or /10/twice.ibw#0: name one of them\n"
    assert verb(state, "add", "/10/twice.ibw#0", "keep", "--rater", "ada").stdout == "twice.ibw#0: keep (ada)\n"
    table = tmp_path / "labels.csv"
    table.write_text("path,label,rater\ntwice.ibw,keep,ada\n/7/twice.ibw,discard,ada\n")
    done = verb(state, "import", str(table))
    assert done.stdout == "1 labels imported, 0 were known\n"
    assert "row 2 (twice.ibw may be /7/twice.ibw#0 or /10/twice.ibw#0" in done.stderr
    assert [one[2] for one in current(state)] == ["keep", "discard"]


def test_labels_of_a_version_before_are_taken_over_and_those_of_a_later_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    with closing(sqlite3.connect(path)) as before:
        before.executescript(MIGRATIONS[0])
        before.execute(
            "insert into labels values (1, 'a', 0, null, 'keep', 'ada', '', '2026-11-20T12:00:00.000Z', '{}')"
        )
        before.commit()
    with Labels(path) as labels:
        (label,) = labels.current()
        assert labels.add([label]) == 0
    with closing(sqlite3.connect(path)) as later:
        assert later.execute("pragma user_version").fetchone() == (len(MIGRATIONS),)
        later.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(UserError, match="newer afm-triage"):
        Labels(path)


def test_a_label_knows_what_was_decided_and_how_its_curve_was_chosen(state: Path, tmp_path: Path) -> None:
    """From the ledger, through a table, into another state and back; other programs' columns stay theirs."""
    with LedgerView(state / "ledger.sqlite") as ledger, Labels(state / "labels.sqlite") as labels:
        (event,) = (decode(row.body) for row in ledger.since(1, 1))
        said = Labels.of_event(event, "keep", "ada", queue="discards", weight=50.0, session=3)
        assert labels.say([said, said]) == [said, said]
        assert (said.seq, said.stream, said.model, said.verdict, said.score) == (
            2,
            ledger.stream,
            "shipped",
            "review",
            0.25,
        )
        assert list(labels.history()) == [said]
    (tmp_path / "labels.csv").write_text(verb(state, "export").stdout)
    (row,) = labeltable.read(tmp_path / "labels.csv", now_s=0.0)
    assert row.label == replace(said, folder=None)
    (tmp_path / "foreign.csv").write_text("path,label,rater,score,session\nrun7/a.ibw,keep,bob,5,morning\n")
    assert verb(state, "import", str(tmp_path / "foreign.csv")).returncode == 0
    with Labels(state / "labels.sqlite") as labels:
        (foreign,) = (one for one in labels.current() if one.rater == "bob")
        assert (foreign.seq, foreign.score, foreign.extra) == (1, 0.25, {"score": "5", "session": "morning"})
        assert labels.labelled() == {1: [foreign], 2: [said]}
    back = tmp_path / "labels.csv"
    back.write_text(verb(state, "export").stdout)
    assert {row.label.extra.get("score") for row in labeltable.read(back, now_s=0.0)} == {None, "5"}


def test_a_row_that_names_the_decision_on_another_curve_is_a_label_on_its_own(state: Path, tmp_path: Path) -> None:
    """One column sorted in a spreadsheet must not confirm an event on a curve that nobody has seen."""
    with LedgerView(state / "ledger.sqlite") as ledger:
        head, event = "path,curve_index,label,rater,event,verdict", f"{ledger.stream}:2"
        (tmp_path / "sorted.csv").write_text(f"{head}\nrun7/a.ibw,0,keep,ada,{event},review\n")
    assert verb(state, "import", str(tmp_path / "sorted.csv")).returncode == 0
    with Labels(state / "labels.sqlite") as labels:
        assert labels.labelled().keys() == {1}
        assert [one.seq for one in labels.current()] == [1]


def test_labels_are_found_by_decision_also_those_of_another_ledger(state: Path, labels: Labels) -> None:
    """By content where the number is of another ledger, or was never noted; what is taken back is found no more."""
    content = replace(SAID, sha256=decision(2).sha256)
    with Labels(state / "labels.sqlite") as here, Labels(state / "labels.sqlite") as beside:
        here.add([replace(content, stream="another", seq=1), replace(content, rater="bob", path="renamed")])
        here.add([replace(SAID, sha256=None, path="run7/gone.ibw", rater="eve")])
        assert {seq: {one.rater for one in found} for seq, found in here.labelled().items()} == {
            2: {"ada", "bob", "eve"}
        }
        assert beside.labelled([1, 2]).keys() == {2}
        here.remove([one for one in here.current() if one.rater != "bob"], by="ada", reason="", time=SAID.time)
        assert [one.rater for one in beside.labelled([2])[2]] == ["bob"]
        here.undo_removal(content.identity, "ada", time=SAID.time)
        assert [one.rater for one in beside.labelled([2])[2]] == ["ada", "bob"]


def test_a_label_that_is_sent_again_is_stored_once_and_the_later_word_wins(labels: Labels) -> None:
    again, ahead = (
        replace(SAID, time="2026-11-20T12:00:05.000Z"),
        replace(SAID, label="discard", time="2026-11-19T00:00:00.000Z"),
    )
    assert labels.say([SAID]) == labels.say([again]) == [SAID]
    (held,) = labels.say([ahead])
    assert (held.label, held.time) == ("discard", SAID.time)
    assert list(labels.current()) == [held]
    labels.remove([held], by="ada", reason="", time=SAID.time)
    assert labels.say([held]) == list(labels.current()) == [held]
    with pytest.raises(UserError):
        labels.say([again, replace(SAID, label="perhaps", rater="bob")])  # type: ignore[arg-type]
    assert list(labels.current()) == [held]
    assert labels.say([again]) == [again]  # nothing of the refused one is believed to be there


def test_bytes_that_are_no_text_are_spelt_out_and_are_one_label(state: Path, labels: Labels) -> None:
    odd = replace(SAID, path="a\udcff.ibw", sha256=None, rater="a\udcffda", reason="\udcfe", folder="/\udcfd")
    assert labels.say([odd]) == labels.say([odd]) == list(labels.current())
    assert (labels.add([odd]), next(labels.current()).rater) == (0, "a\\udcffda")
    labels.note_shown("a\udcffda", 3, "review", "skip")
    labels.forget_shown("a\udcffda", 3)
    done = verb(state, "add", "run7/gone.ibw", "keep", "--rater", "\udcff\x1b[2J", "--reason", "\udcff")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert verb(state, "remove", "run7/gone.ibw", "--by", "\udcff", "--reason", "\udcff").returncode == 0


def test_what_was_shown_is_noted_once_and_is_no_label(labels: Labels) -> None:
    for minute in (1, 2):
        time = f"2026-11-20T12:0{minute}:00.000Z"
        labels.note_shown("ada", 7, "review", "skip", time=time)
        labels.note_shown(
            "ada", -1, "review", "golden", answer=("keep", "discard")[minute - 1], expected="keep", time=time
        )
    labels.note_shown("ada", 5, "review", "skip", time="2026-11-20T12:01:30.000Z")
    assert [(one.seq, one.answer) for one in labels.shown("ada")] == [(-1, "keep"), (5, None), (7, None)]
    assert labels.skipped_by("ada") == [5, 7]
    labels.say([replace(SAID, seq=5)])
    assert labels.skipped_by("ada") == [7]
    labels.forget_shown("ada", 7)
    assert (labels.skipped_by("ada"), len(list(labels.current()))) == ([], 1)


def test_labels_that_a_restore_moved_away_say_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with Labels(tmp_path / "state" / "labels.sqlite") as labels:
        labels.add([SAID])
        (tmp_path / "state").rename(tmp_path / "state.before")
        with pytest.raises(UserError, match=r"moved away .*: start this anew"):
            labels.add([replace(SAID, curve=1)])


def test_a_file_that_is_locked_full_or_damaged_is_told_in_one_line(labels: Labels, tmp_path: Path) -> None:
    with closing(sqlite3.connect(labels.path)) as other:
        other.execute("begin exclusive")
        labels.select("pragma busy_timeout = 50")
        with pytest.raises(Locked, match="locked") as refusal:
            labels.say([SAID])
        assert refusal.value.exit_code == 74
    (pages,) = labels.select("pragma page_count")[0]
    labels.select(f"pragma max_page_count = {pages}")
    with pytest.raises(Full, match="disk is full"):
        labels.say([replace(SAID, reason="x" * 20_000)])
    assert labels.labelled() == {}
    assert labels.say([SAID]) == [SAID]
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database at all, " * 100)
    with pytest.raises(UserError, match="damaged"):
        Labels(damaged)


EXCEL = {
    "a line that names the separator": b"sep=;\r\npath;label\r\na.ibw;keep\r\n",
    "Unicode text": "path\tlabel\r\na.ibw\tkeep\r\n".encode("utf-16"),
    "each row one quoted cell": b'"path,label"\r\n"a.ibw,keep"\r\n',
    "rows and columns of empty cells": b"\xef\xbb\xbfPath;Label;;\r\na.ibw;keep;;\r\n;;;\r\n",
}


@pytest.mark.parametrize("content", EXCEL.values(), ids=EXCEL)
def test_what_excel_saves_is_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    (row,) = labeltable.read(tmp_path / "labels.csv", now_s=0.0, rater="ada")
    assert (row.label.path, row.label.label) == ("a.ibw", "keep")


def test_rows_in_another_encoding_are_named(tmp_path: Path) -> None:
    content = "path,label,rater\nµ.ibw,keep,ada\na.ibw,keep,ada\nü.ibw,keep,ada\n".encode("cp1252")
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match="rows 2, 4 are not in UTF-8") as refusal:
        labeltable.read(tmp_path / "labels.csv", now_s=0.0)
    assert (refusal.value.exit_code, str(refusal.value).count("\n")) == (65, 0)
