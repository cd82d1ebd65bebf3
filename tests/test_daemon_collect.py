"""`collect`: what was kept is handed over whole and once; nothing of the instrument's is touched."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.archive import Archive, portions, start_workers
from daemon.cli import main
from daemon.collect import COLUMNS, Chosen, Table, Wanted, as_written, cells_of, choose, safe, session_of
from daemon.common.errors import UserError
from daemon.formats import open_file
from daemon.formats.afmcurve import pack
from daemon.judging import Verdict
from daemon.labels import Labels, Word
from daemon.labels.curve_name import sha256_of
from daemon.labels.sessions import Sessions
from daemon.ledger import Ledger, LedgerView
from models.ruptures import ruptures
from tests.ledgerhelp import decision
from tests.makers import make_ibw_pair, make_jpk_map
from tests.reviewhelp import CURVES, SAWTOOTH, copy_of

TEXT = CURVES / "waite_set1_120.txt"
NIGHT = datetime(2026, 11, 27, 23, 0).timestamp()


@dataclass
class Lab:
    """Two instruments that call their folders alike, and what was judged of them."""

    root: Path
    judged: int = 0

    @property
    def state(self) -> Path:
        return self.root / "state"

    def judge(self, *made: Any) -> None:
        ledger = Ledger(self.state / "ledger.sqlite", "afm1")
        ledger.record(made)
        ledger.close()

    def kept(self, folder: str, path: str, curve: int = 0, **changes: Any) -> Any:
        """A decision on a file that is there."""
        self.judged += 1
        place = self.root / folder
        digest = sha256_of(place / path)
        said = {
            "score": 0.9,
            "verdict": "keep",
            "acquired_s": NIGHT + 60 * self.judged,
            "compact_copy": None,
            **changes,
        }
        of = {"sha256": digest, "folder": str(place), "path": path, "curve": curve}
        return decision(self.judged, **{"identity": f"{digest}#{curve}", **of, **said})

    def listing(self) -> dict[str, tuple[int, int]]:
        """Of the instruments' folders: all names, sizes and times."""
        files = [path for place in ("a/afm", "b/afm") for path in (self.root / place).rglob("*")]
        return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in files}

    def __call__(self, *words: str | Path) -> int:
        return main(["collect", "--state", str(self.state), *map(str, words)])


def fill(lab: Lab) -> None:
    for place in ("a/afm/run7", "b/afm/run7"):
        (lab.root / place).mkdir(parents=True)
    lab.state.mkdir()
    (lab.state / "watched.json").write_text(json.dumps({"watch": [str(lab.root / "a/afm"), str(lab.root / "b/afm")]}))
    first, second = make_ibw_pair()
    (lab.root / "a/afm/run7/Line0Point0Defl.ibw").write_bytes(first)
    (lab.root / "a/afm/run7/Line0Point0ZSnsr.ibw").write_bytes(second)
    (lab.root / "a/afm/map.jpk-force-map").write_bytes(make_jpk_map(3))
    shutil.copy(SAWTOOTH, lab.root / "a/afm/=1+1.jpk-force")
    shutil.copy(TEXT, lab.root / "a/afm/run7/x.txt")
    (lab.root / "b/afm/run7/x.txt").write_bytes(TEXT.read_bytes() + b"\n")
    for name in ("gone.txt", "changed.txt"):
        (lab.root / f"a/afm/{name}").write_bytes(TEXT.read_bytes() + name.encode())
    lab.judge(
        lab.kept("a/afm", "run7/Line0Point0Defl.ibw"),
        lab.kept("a/afm", "map.jpk-force-map", 0),
        lab.kept("a/afm", "map.jpk-force-map", 1, verdict="discard", score=0.01),
        lab.kept("a/afm", "map.jpk-force-map", 2),
        lab.kept("a/afm", "=1+1.jpk-force"),
        lab.kept("a/afm", "run7/x.txt"),
        lab.kept("b/afm", "run7/x.txt"),
        lab.kept("a/afm", "gone.txt", compact_copy=copy_of(TEXT)),
        lab.kept("a/afm", "changed.txt"),
        decision(
            99, source="ingest", identity="ingest:n#0", sha256=None, path="/n/probe", verdict="keep", acquired_s=NIGHT,
            score=0.7, compact_copy=copy_of(SAWTOOTH),
        ),
    )  # fmt: skip
    (lab.root / "a/afm/gone.txt").unlink()
    (lab.root / "a/afm/changed.txt").write_text("another curve")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    fill(lab)
    return lab


def rows_of(file: Path, separator: str = ",") -> list[dict[str, str]]:
    content = file.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")  # Excel takes it for UTF-8 by this alone
    assert content.count(b"\n") == content.count(b"\r\n")
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=separator))


def test_what_was_kept_is_handed_over_whole_and_the_same_command_adds_what_is_new(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table, before = lab.root / "out", lab.root / "kept.csv", lab.listing()
    words = ("--since", "2026-11-27T22:00", "--until", "2026-11-28", "--copy", out, "--csv", table)
    assert lab(*words, "--dry-run") == 0
    assert f"{out}: 8 would be new, 0 there already" in capsys.readouterr().out
    assert not out.exists()
    assert not table.exists()
    assert lab(*words) == 0
    said = capsys.readouterr()
    assert f"{table}: 9 new, 0 there already\n{out}: 8 new, 0 there already" in said.out
    assert "holds something else by now, and the ledger has no copy: changed.txt#0" in said.err
    assert "the file is gone: the ledger's compact copy was handed over of gone.txt#0" in said.err
    assert f"run7/x.txt of {lab.root}/b/afm is afm~2/run7/x.txt" in said.err
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert there == {
        "curves.csv", "run7/Line0Point0Defl.ibw", "run7/Line0Point0ZSnsr.ibw", "map.jpk-force-map", "=1+1.jpk-force",
        "run7/x.txt", "afm~2/run7/x.txt", "gone.txt-0.afmcurve", "n/probe.afmcurve",
    }  # fmt: skip
    assert sha256_of(out / "run7/Line0Point0Defl.ibw") == sha256_of(lab.root / "a/afm/run7/Line0Point0Defl.ibw")
    assert (out / "afm~2/run7/x.txt").read_bytes() == (lab.root / "b/afm/run7/x.txt").read_bytes()
    assert (out / "run7/x.txt").stat().st_mtime_ns == (lab.root / "a/afm/run7/x.txt").stat().st_mtime_ns
    assert len(open_file(out / "n/probe.afmcurve")) == 1

    rows = rows_of(table)
    assert [row["path"] for row in rows[:2]] == ["/n/probe", "run7/Line0Point0Defl.ibw"]  # as they were measured
    assert [(row["curve"], row["file"]) for row in rows if row["path"].startswith("map")] == [
        ("0", str(out / "map.jpk-force-map")),
        ("2", str(out / "map.jpk-force-map")),
    ]
    sawtooth = next(row for row in rows if row["path"] == "'=1+1.jpk-force")
    found = ruptures(open_file(SAWTOOTH)[0])
    assert as_written(sawtooth["path"]) == "=1+1.jpk-force"
    assert [float(force) for force in sawtooth["rupture_forces_pn"].split()] == [
        round(one.force_pn, 2) for one in found
    ]
    assert float(sawtooth["max_rupture_force_pn"]) == max(round(one.force_pn, 2) for one in found)
    assert (sawtooth["n_ruptures"], sawtooth["content"]) == (str(len(found)), "file")
    assert [row["content"] for row in rows if row["path"] == "changed.txt"] == ["gone"]

    (out / "map.jpk-force-map").unlink()  # somebody does not want it: it does not come back
    shutil.copy(CURVES / "force-save-0441.jpk-force", lab.root / "b/afm/later.jpk-force")
    with (lab.root / "b/afm/later.jpk-force").open("ab") as file:
        file.write(b"later")
    lab.judge(lab.kept("b/afm", "later.jpk-force"))
    assert lab(*words) == 0
    taken = "8 there already, 2 of them taken out of the folder since"
    assert f"{table}: 1 new, 9 there already\n{out}: 1 new, {taken}" in capsys.readouterr().out
    assert [row["path"] for row in rows_of(table)] == [*(row["path"] for row in rows), "later.jpk-force"]
    assert not (out / "map.jpk-force-map").exists()
    after = {name: stamp for name, stamp in lab.listing().items() if not name.endswith("later.jpk-force")}
    assert after == before


def test_a_spring_constant_that_no_file_says_makes_forces_of_deflections(lab: Lab) -> None:
    said = open_file(SAWTOOTH)[0]
    pair = replace(
        said, force=said.force / 0.02, force_unit="m", spring_constant_n_per_m=None, sensitivity_m_per_v=None
    )
    sent = decision(
        50, source="ingest", identity="ingest:d#0", sha256=None, path="/n/deflection", verdict="keep",
        acquired_s=NIGHT, score=0.9, compact_copy=pack(pair),
    )  # fmt: skip
    lab.judge(sent)

    def row(name: str, *words: str) -> dict[str, dict[str, str]]:
        assert lab("--csv", lab.root / name, *words) == 0
        return {one["path"]: one for one in rows_of(lab.root / name)}

    without, named = row("without.csv"), row("named.csv", "--spring-constant", "0.02")
    assert without["/n/deflection"]["rupture_forces_pn"] == ""
    deflections_nm = [float(one) for one in without["/n/deflection"]["rupture_deflections_nm"].split()]
    forces_pn = [float(one) for one in named["/n/deflection"]["rupture_forces_pn"].split()]
    assert forces_pn == pytest.approx([20 * one for one in deflections_nm], rel=1e-3, abs=0.02)
    assert forces_pn
    assert named["/n/deflection"]["rupture_deflections_nm"] == ""
    sawtooth = "'=1+1.jpk-force"  # its file says its own, and that stays
    assert named[sawtooth]["rupture_forces_pn"] == without[sawtooth]["rupture_forces_pn"] != ""
    assert lab("--csv", lab.root / "bad.csv", "--spring-constant", "60000") == 64


def test_links_lead_to_the_files_and_what_has_none_is_a_copy(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    out, archive = lab.root / "links", lab.root / "kept.h5"
    for count in ("8 new, 0", "0 new, 8"):
        assert lab("--link", out, "--archive", archive, "--decimal", "comma", "--verdict", "keep") == 0
        said = capsys.readouterr().out
        assert f"{out}: {count} there already\n{archive}: {count} there already" in said
    for name in ("run7/Line0Point0Defl.ibw", "run7/Line0Point0ZSnsr.ibw", "map.jpk-force-map"):
        assert os.readlink(out / name) == str(lab.root / "a/afm" / name)
    assert not (out / "n/probe.afmcurve").is_symlink()
    row = next(row for row in rows_of(out / "curves.csv", ";") if "1+1" in row["path"])
    assert row["score"] == "0,9"
    assert "," in row["max_rupture_force_pn"]
    assert "." not in row["rupture_positions_nm"]
    lab.judge(lab.kept("a/afm", "map.jpk-force-map", 1, identity="again", score=0.8))
    assert lab("--archive", archive) == 0
    assert f"{archive}: 1 new, 8 there already" in capsys.readouterr().out
    with start_workers(1) as workers:
        found = [one for part in portions([Archive.open(archive, workers)]) for one in part.origins()]
    assert len(found) == len({(one.path, one.sha256, one.index) for one in found}) == 9


def test_a_curve_that_is_called_as_the_table_keeps_its_name_beside_and_links_are_never_told_as_copies(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    curve = lab.root / "a/afm/curves.csv"
    curve.write_bytes(TEXT.read_bytes() + b"\n\n")
    lab.judge(lab.kept("a/afm", "curves.csv"))
    copies, links = lab.root / "copies", lab.root / "links"
    for option, out in (("--copy", copies), ("--link", links)):
        assert lab(option, out) == 0
        assert (out / "afm~2/curves.csv").read_bytes() == curve.read_bytes()
        assert "afm~2/curves.csv" in [row["file"] for row in rows_of(out / "curves.csv")]
    capsys.readouterr()
    assert lab("--copy", links) == 64
    assert "holds links, like " in capsys.readouterr().err


def test_a_table_that_somebody_saves_meanwhile_is_not_written_over(lab: Lab) -> None:
    file = lab.root / "kept.csv"
    one, other = Table(file), Table(file)
    with LedgerView(lab.state / "ledger.sqlite") as view:
        first, second = list(choose(view, None, Wanted(("keep",))))[:2]
    one.add(first, cells_of(first, None, "gone", ""))
    one.save()
    other.add(second, cells_of(second, None, "gone", ""))
    with pytest.raises(UserError, match="give the same command again") as told:
        other.save()
    assert told.value.exit_code == 73
    assert [row["event"] for row in rows_of(file)] == [first.event["id"]]


@pytest.mark.parametrize("option", ["--csv", "--copy", "--link", "--archive"])
def test_nothing_is_put_into_a_watched_folder(lab: Lab, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    inside = lab.root / "a/afm/run7/kept"
    (lab.root / "way").symlink_to(lab.root / "a/afm/run7")
    for target in (inside, lab.root / "way" / "kept"):
        assert lab(option, target) == 64
        assert f"lies in the watched folder {lab.root}/a/afm" in capsys.readouterr().err
    assert not inside.exists()


def test_a_target_that_leads_elsewhere_is_refused(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("--copy", lab.root) == 64
    assert f"holds the watched folder {lab.root}/a/afm" in capsys.readouterr().err
    (lab.root / "out").mkdir()
    (lab.root / "out/run7").symlink_to(lab.root / "b/afm/run7")
    before = lab.listing()
    assert lab("--copy", lab.root / "out") == 64
    assert "is a link that leads out of" in capsys.readouterr().err
    assert lab.listing() == before
    for words in ((), ("--csv", lab.root / "no/such/t.csv"), ("--csv", lab.root), ("--copy", SAWTOOTH)):
        assert lab(*words) == 64
    assert lab("--csv", "t.csv", "--since", "tonight") == 64
    assert lab("--csv", SAWTOOTH) == 65
    assert "name another file" in capsys.readouterr().err
    assert lab("--csv", "/dev/full", "--since", "2020-01-01", "--until", "2020-01-02") == 74


def test_a_day_without_curves_is_told(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    table = lab.root / "none.csv"
    assert lab("--csv", table, "--copy", lab.root / "none", "--since", "2026-11-28T12:00") == 0
    said = capsys.readouterr()
    assert "no curve that is wanted, since 2026-11-28 12:00" in said.out
    assert [*csv.reader(table.read_text("utf-8-sig").splitlines())] == [list(COLUMNS)]
    assert not (lab.root / "none").exists()
    assert lab("--csv", table, "--since", "20261127") == 0
    assert "the last decision is 10, none is behind 20261127; a day is written 2026-11-27" in capsys.readouterr().err


def test_a_clock_that_was_set_back_is_told_with_what_brings_its_curves(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """Judged now, and dated in the year 2000: a night by the time of acquisition cannot hold it."""
    lab.judge(lab.kept("b/afm", "run7/x.txt", 7, identity="old", acquired_s=datetime(2000, 1, 1).timestamp()))
    assert lab("--csv", lab.root / "t.csv", "--since", "today", "--dry-run") == 0
    assert "a clock that was set back): --since 0 has them too" in capsys.readouterr().err


def test_a_persons_word_counts_before_the_verdict(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    with Labels(lab.state / "labels.sqlite") as labels:
        Sessions(labels).begin(name="one", sample="=titin", tip="OMCL")
        lab.judge(lab.kept("a/afm", "run7/x.txt", 5, identity="in the session", score=0.99))
        Sessions(labels).begin(name="two")
    for curve, word in (("map.jpk-force-map#1", "keep"), ("map.jpk-force-map#0", "discard")):
        assert main(["labels", "add", curve, word, "--rater", "anna", "--state", str(lab.state)]) == 0
    capsys.readouterr()

    def handed(verdicts: Collection[Verdict], words: Collection[Word], **more: Any) -> dict[tuple[str, int], Chosen]:
        with LedgerView(lab.state / "ledger.sqlite") as view, Labels(lab.state / "labels.sqlite") as labels:
            session = session_of(labels, more.pop("session")) if "session" in more else None
            found = choose(view, labels, Wanted(verdicts, words, session=session, **more))
            return {(one.data["path"], one.data["curve"]): one for one in found}

    map_0, map_1 = ("map.jpk-force-map", 0), ("map.jpk-force-map", 1)
    assert list(handed((), ["keep"])) == [map_1]
    both = handed(["keep"], ["keep"])
    assert map_1 in both
    assert map_0 not in both
    assert map_0 in handed(["keep"], [])
    ((name, one),) = handed(["keep"], [], session="1", min_score=0.95).items()
    assert name == ("run7/x.txt", 5)
    row = cells_of(one, None, "gone", "")
    assert (row["session"], row["sample"], row["tip"], row["n_ruptures"]) == (1, "=titin", "OMCL", "")
    row = cells_of(both[map_1], None, "gone", "")
    assert (row["verdict"], row["label"], row["rater"]) == ("discard", "keep", "anna")
    assert lab("--csv", lab.root / "t.csv", "--session", "current") == 0
    assert "session 2 has not ended" in capsys.readouterr().err
    assert lab("--csv", lab.root / "t.csv", "--session", "9") == 65


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@sum", "\t=1", "'=1", "''=1", "'x", "x=1", "", "ü ö"])
def test_no_text_runs_and_each_reads_back_equal(text: str) -> None:
    cell = safe(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert as_written(cell) == text


def saved_by_excel(table: Path) -> None:
    """As the German Excel saves it: semicolons, decimal commas; and a column that somebody wrote beside."""
    rows = [*csv.reader(table.read_text("utf-8-sig").splitlines(), delimiter=";")]
    rows = [rows[0] + ["my note"], *([*row, "schön"] for row in rows[1:])]
    text = "\r\n".join(";".join(cell for cell in row) for row in rows)
    table.write_bytes(b"\xef\xbb\xbf" + text.encode())


def test_what_a_person_wrote_beside_stays(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"

    def add(number: int, decimal: Any) -> Table:
        data = {"path": f"{number}.txt", "curve": 0, "sha256": "ab" * 32, "verdict": "keep", "score": 0.5}
        event = {
            "id": f"s:{number}",
            "seq": number,
            "time": "2026-11-27T22:00:00Z",
            "data": data | {"reasons": ["score"]},
        }
        event["data"]["curve"], event["data"]["model"] = number, "m"
        table = Table(file, decimal)
        one = Chosen(event, None, ())
        if one.identity not in table.known:
            table.add(one, cells_of(one, (), "file", f"{number}.txt"))
        table.save()
        return table

    add(1, "comma")
    saved_by_excel(file)
    before = file.read_bytes()
    add(1, None)
    assert file.read_bytes() == before
    add(2, None)
    assert file.read_bytes().startswith(before)
    rows = rows_of_any(file)
    assert [(row["path"], row["score"], row["my note"]) for row in rows] == [
        ("1.txt", "0,5", "schön"),
        ("2.txt", "0,5", ""),
    ]
    with pytest.raises(UserError, match="decimal comma: name another file"):
        Table(file, "point")


def rows_of_any(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text("utf-8-sig"), newline=""), delimiter=";"))
