"""`find`: what a search finds is what a plain loop over every decision finds; from there to `collect` and the page."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.cli import main
from daemon.client.folders import note
from daemon.common.errors import BAD_DATA, UNREACHABLE, USAGE
from daemon.common.options import Range
from daemon.config import Config
from daemon.labels import Labels
from daemon.labels.curve_name import sha256_of
from daemon.labels.sessions import Sessions
from daemon.ledger import Ledger
from daemon.ledger.span import Span
from daemon.tables import DECISIONS, rows, said_rows, schema
from models.curve import ToldRupture
from models.raster import PreviewAxes
from tests.ledgerhelp import decision
from tests.reviewhelp import BY_SCORE, SAWTOOTH, Page
from tests.studies.find import FIRST_NIGHT, night

duckdb = pytest.importorskip("duckdb")
pytest.importorskip("pyarrow")

from daemon.tables.dataset import Dataset, parts_of, write_part  # noqa: E402 - behind what they need
from daemon.tables.search import Asked, Hit, Tables  # noqa: E402

Row = Mapping[str, Any]
NIGHT = datetime(2026, 11, 27, 23, 0).timestamp()


# Against a plain loop.


@pytest.fixture(scope="module")
def nights() -> list[Row]:
    """Three nights of two instruments, 900 curves each, with more ruptures than there are."""
    rng = np.random.default_rng(7)
    every: list[Row] = []
    for number in range(3):
        for instrument in (1, 2):
            day = FIRST_NIGHT + timedelta(days=number)
            table = night(instrument, day, 900, 900 * number + 1, rng)
            every += table.to_pylist()
    return every


def said(seq: int) -> list[str]:
    """What people say of a decision of the first instrument."""
    return {0: ["keep"], 1: ["discard", "discard"], 2: ["keep", "discard"]}.get(seq % 50, [])


def people() -> dict[str, Any]:
    stream = "00000000-0000-4000-8000-000000000001"
    labels = [
        {"path": "x", "curve": 0, "label": word, "rater": f"rater{place}", "stream": stream, "seq": seq}
        for seq in range(1, 2_701)
        for place, word in enumerate(said(seq))
    ]
    sessions = [
        {"number": 1, "name": "", "tip": "OMCL-7", "sample": "Titin  I27", "stream": stream, "first_seq": 100},
        {"number": 2, "name": "b", "tip": "mlct", "sample": "dna", "stream": stream, "first_seq": 1_000},
    ]
    for one, last, ended in zip(sessions, (800, None), ("2026-05-12T08:00:00Z", None), strict=True):
        one |= {"last_seq": last, "began": "2026-05-11T08:00:00Z", "ended": ended}
    return said_rows("afm1", labels, sessions)


@pytest.fixture(scope="module", params=["parquet", "duckdb"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nights: list[Row]) -> Path:
    """The tables of these nights, as a collector leaves them."""
    import pyarrow as pa

    folder = tmp_path_factory.mktemp("it's a 'place' [1]")
    table = pa.Table.from_pylist([dict(row) for row in nights], schema=schema())
    if request.param == "duckdb":
        with closing(duckdb.connect(folder / "tables.duckdb")) as database:
            for name, one in {DECISIONS: table, **people()}.items():
                database.register("fresh", one)
                database.execute(f"create table {name} as select * from fresh")
        return folder / "tables.duckdb"
    with Dataset(folder / DECISIONS, schema(), ("day",)) as dataset:
        dataset.commit(table)
    for name, one in people().items():
        (folder / name / "instrument=afm1").mkdir(parents=True)
        write_part(one.drop_columns(["instrument"]), folder / name / "instrument=afm1" / f"{name}.parquet")
    return folder


def is_meant(one: Row, force: Range | None, place: Range | None) -> bool:
    return (force is None or force.low <= one["force_pn"] <= force.high) and (
        place is None or (one["position_nm"] is not None and place.low <= one["position_nm"] <= place.high)
    )


def session_of(row: Row) -> int | None:
    if row["instrument"] != "afm1":
        return None
    return 1 if 100 <= row["seq"] <= 800 else 2 if row["seq"] >= 1_000 else None


def by_loop(asked: Asked, row: Row) -> bool:
    """Whether a decision is a match, in plain words."""
    every = row["ruptures"]
    if asked.is_of_ruptures and every is None:
        return False
    meant = [one for one in every or () if is_meant(one, asked.force, asked.place)]
    if asked.force or asked.place or asked.ruptures:
        least = asked.ruptures or Range(low=1)
        if not least.low <= len(meant) <= least.high:
            return False
    if asked.length and not (every and asked.length.holds(max(one["position_nm"] for one in every))):
        return False
    if asked.session is not None and session_of(row) != {"current": 2, "last": 2}.get(
        str(asked.session), asked.session
    ):
        return False
    words = set(said(row["seq"])) if row["instrument"] == "afm1" else set()
    word = None if not words else words.pop() if len(words) == 1 else "unsure"
    return (
        (not asked.verdicts or row["verdict"] in asked.verdicts)
        and (asked.score is None or asked.score.holds(row["score"]))
        and (not asked.instruments or row["instrument"] in asked.instruments)
        and (not asked.words or word in asked.words)
        and asked.span.holds(row["acquired"].timestamp(), row["seq"])
        and (not asked.samples or session_of(row) == 1)
        and (not asked.tips or session_of(row) == 2)
    )


DAY = datetime(2026, 5, 12, tzinfo=UTC).timestamp()
QUESTIONS = {
    "everything": Asked(),
    "force": Asked(force=Range(150, 250)),
    "force and place": Asked(force=Range(60, 250), place=Range(20, 80)),
    "place": Asked(place=Range(high=30.0)),
    "many": Asked(force=Range(150, 300), ruptures=Range(low=2)),
    "none": Asked(ruptures=Range(0, 0)),
    "none so strong": Asked(force=Range(low=100), ruptures=Range(0, 0)),
    "weak": Asked(force=Range(high=60.0)),
    "length": Asked(length=Range(low=90)),
    "length and force": Asked(length=Range(low=60), force=Range(low=100), verdicts=("discard", "review")),
    "verdict": Asked(verdicts=("discard",), place=Range(10, 60)),
    "score": Asked(score=Range(0.02, 0.2)),
    "instrument": Asked(instruments=("afm2",), ruptures=Range(low=1)),
    "time": Asked(span=Span(DAY, DAY + 86_400.0), ruptures=Range(low=1)),
    "hours": Asked(span=Span(DAY + 30_000.5, DAY + 40_000.25)),
    "numbers": Asked(span=Span(after=200, last=950)),
    "session": Asked(session=1),
    "current": Asked(session="current", force=Range(low=50)),
    "last": Asked(session="last"),
    "sample": Asked(samples=("titin *",)),
    "tip": Asked(tips=("MLCT",), verdicts=("discard",)),
    "people keep": Asked(words=("keep",)),
    "people differ": Asked(words=("unsure", "discard")),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_is_found_is_what_a_plain_loop_finds(name: str, place: Path, nights: list[Row]) -> None:
    asked = QUESTIONS[name]
    wanted = [row for row in nights if by_loop(asked, row)]
    assert wanted, "a question to which there is an answer"
    with Tables(place) as tables:
        found = tables.find(asked)
        hits = list(tables.hits())
        few = tables.find(asked, "strongest", 5)
        strongest = list(tables.hits())
    newest = sorted(wanted, key=lambda row: (row["acquired"], row["seq"]), reverse=True)
    assert [(hit.id, hit.data["verdict"]) for hit in hits] == [(row["id"], row["verdict"]) for row in newest]
    assert found.total == few.total == len(wanted)
    assert found.counts == {
        verdict: sum(row["verdict"] == verdict for row in wanted) for verdict in ("keep", "review", "discard")
    }
    curves = Asked(span=asked.span, verdicts=asked.verdicts, score=asked.score, instruments=asked.instruments)
    assert found.looked == sum(by_loop(curves, row) for row in nights)
    forces = [best(row, asked) for row in wanted]
    assert [best_of(hit, asked) for hit in strongest] == sorted(forces, reverse=True)[:5]


def best(row: Row, asked: Asked) -> float:
    meant = [one["force_pn"] for one in row["ruptures"] or () if is_meant(one, asked.force, asked.place)]
    return max(meant, default=-1.0)


def best_of(hit: Hit, asked: Asked) -> float:
    return best({"ruptures": hit.ruptures}, asked)


def test_curves_whose_ruptures_nobody_knows_are_counted(place: Path, nights: list[Row]) -> None:
    with Tables(place) as tables:
        found = tables.find(Asked(force=Range(low=100), verdicts=("keep",)))
        plain = tables.find(Asked(verdicts=("keep",)))
    assert found.unknown == sum(row["ruptures"] is None and row["verdict"] == "keep" for row in nights) > 0
    assert plain.unknown == 0


def test_session_and_label_come_with_what_was_found(place: Path) -> None:
    with Tables(place) as tables:
        tables.find(Asked(session=1, words=("discard",)), limit=3)
        (hit, *_) = tables.hits()
    assert hit.session == {"number": 1, "name": "", "tip": "OMCL-7", "sample": "Titin  I27"}
    assert (hit.word, hit.raters) == ("discard", "rater0, rater1")


def test_a_part_that_was_merged_meanwhile_is_looked_for_where_it_lies_now(tmp_path: Path, nights: list[Row]) -> None:
    import pyarrow as pa

    with Dataset(tmp_path / DECISIONS, schema(), ("day",)) as dataset:
        for first in range(0, 2_000, 500):
            some = [dict(row) for row in nights[first : first + 500]]
            dataset.commit(pa.Table.from_pylist(some, schema=schema()))
        with Tables(tmp_path) as tables:
            files = set(parts_of(tmp_path))
            assert dataset.merge(before=FIRST_NIGHT + timedelta(days=30))
            assert not files <= set(parts_of(tmp_path)), "some are gone"
            assert tables.find(Asked()).total == 2_000
            assert len({hit.id for hit in tables.hits()}) == 2_000


# The verb, on an instrument's own ledger.


@dataclass
class Lab:
    """An instrument with a folder of real files, and what was judged of them."""

    root: Path

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def folder(self) -> Path:
        return self.root / "afm"

    def judge(self, *made: Any, name: str = "afm1") -> None:
        self.state.mkdir(exist_ok=True)
        with closing(Ledger(self.state / "ledger.sqlite", name)) as ledger:
            ledger.record(made)

    def curve(self, number: int, *ruptures: tuple[float, float], **changes: Any) -> Any:
        """A decision on a file that is there, with ruptures (pN, nm)."""
        self.folder.mkdir(exist_ok=True)
        file = self.folder / f"curve-{number}.jpk-force"
        shutil.copy(SAWTOOTH, file)
        with file.open("ab") as out:
            out.write(bytes([number]))  # behind the end of the zip: other bytes, the same curve
        digest = sha256_of(file)
        told = tuple(ToldRupture(force, force, at, "separation") for force, at in ruptures)
        made = {
            **{"sha256": digest, "identity": f"{digest}#0", "folder": str(self.folder), "path": file.name},
            **{"acquired_s": NIGHT + 60 * number, "ruptures": told, "preview": "AAAA" * 128, **changes},
        }
        return decision(number, **made)

    def __call__(self, *words: str | Path) -> int:
        return main(["find", "--state", str(self.state), *map(str, words)])


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Six curves, of which 1 and 4 are discards, 2 and 5 go to review, 3 and 6 are kept; 5 and 6 in a session."""
    lab = Lab(tmp_path)
    axes = PreviewAxes("pN", 4.0, -40.0, 1000.0, -20.0, 800.0)
    lab.judge(
        lab.curve(1, (200.0, 80.0), (120.0, 40.0)),
        lab.curve(2, (90.0, 80.0)),
        lab.curve(3, (210.0, 90.0), (180.0, 118.0), preview_axes=axes),
        lab.curve(4, ruptures=None),
    )
    with Labels(lab.state / "labels.sqlite") as labels:
        Sessions(labels).begin(tip="OMCL-7", sample="titin")
    lab.judge(lab.curve(5), lab.curve(6, (160.0, 70.0)))
    return lab


def found_by(lab: Lab, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert lab(*words, "--json") == 0
    return [json.loads(line)["data"]["path"] for line in capsys.readouterr().out.splitlines()]


def test_the_own_ledger_is_searched_without_any_set_up_and_as_it_is_now(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    physics = ("--force", "150..250", "--at", "60..120")
    assert found_by(lab, capsys, *physics) == ["curve-6.jpk-force", "curve-3.jpk-force", "curve-1.jpk-force"]
    assert found_by(lab, capsys, *physics, "--session", "current", "--tip", "omcl*") == ["curve-6.jpk-force"]
    assert found_by(lab, capsys, *physics, "--order", "strongest", "--limit", "1") == ["curve-3.jpk-force"]
    lab.judge(lab.curve(7, (155.0, 61.0)))
    assert found_by(lab, capsys, *physics)[0] == "curve-7.jpk-force"
    shutil.rmtree(lab.state / "tables")
    assert len(found_by(lab, capsys, *physics)) == 4


def test_json_is_the_event_with_its_session(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("--sample", "titin", "--force", "100..", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert main(["events", "--state", str(lab.state), "--since", "5"]) == 0
    event = json.loads(capsys.readouterr().out)
    assert said["data"] == event["data"]
    assert said["id"] == event["id"]
    assert said["time"] == event["time"]
    assert (said["instrument"], said["seq"], said["session"]["tip"]) == ("afm1", 6, "OMCL-7")


def test_the_screen_says_what_was_found_and_of_how_many_nobody_knows(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab("--force", "150..250", "--at", "60..120", "--limit", "2") == 0
    said = capsys.readouterr()
    assert "3 curves with a rupture of 150 to 250 pN at 60 to 120 nm: ● 2 keep, ◐ 0 review, ○ 1 discard" in said.out
    assert "of 6 curves" in said.out
    assert "210 pN at 90 nm" in said.out
    assert "curve-3.jpk-force#0" in said.out
    assert "2 of 3 are shown, the newest first" in said.out
    assert "of 1 more curve nobody knows the ruptures" in said.err
    assert said.err.count("\n") == 1


def test_nothing_found_is_said_and_no_error(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("--force", "900..", "--verdict", "keep") == 0
    assert "No curve with a rupture of at least 900 pN was found" in capsys.readouterr().out


def test_the_page_draws_what_was_found_and_runs_no_code(lab: Lab) -> None:
    page = lab.root / "found.html"
    assert lab("--at", "60..", "--html", page) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure") == 4
    assert "210 pN at 90 nm" in text
    assert "<script" not in text
    assert "over 820 nm" in text, "the size of a drawing whose axes are known"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--force", "150"), '--force "150": write a range, like 150..250'),
        (("--force", "250..150"), "150..250"),
        (("--at", ".."), "write a range"),
        (("--ruptures", "many"), "like 3.."),
        (("--limit", "0"), "one curve is the least"),
        (("--session", "tonight"), "its number, current or last"),
        (("--since", "2026-06-02", "--until", "2026-06-01"), "exchange them"),
        (("--csv", "no/such/folder/x.csv"), "its folder does not exist"),
        (("--tables", "no/such"), "does not exist"),
    ],
)
def test_a_question_that_makes_no_sense_is_one_line(
    words: tuple[str, ...], said: str, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab(*words) == USAGE
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("option", ["--csv", "--html"])
def test_nothing_is_put_into_a_watched_folder(lab: Lab, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    note(Config(state=lab.state, watch=(lab.folder,)))
    assert lab(option, lab.folder / "found") == USAGE
    assert f"lies in the watched folder {lab.folder}" in capsys.readouterr().err
    assert not (lab.folder / "found").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--length", "900.."), "a last rupture at 900 nm or more"),
        (("--at", "..0.5"), "a rupture at 0.5 nm or less"),
        (("--at", "900..901"), "a rupture at 900 to 901 nm"),
    ],
)
def test_a_place_is_told_in_plain_words(
    words: tuple[str, ...], said: str, lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab(*words) == 0
    assert f"No curve with {said} was found" in capsys.readouterr().out


def test_an_instrument_that_the_tables_do_not_know_is_told_with_those_they_do(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab() == 0
    capsys.readouterr()
    assert main(["find", "--tables", str(lab.state / "tables"), "--instrument", "afm7"]) == BAD_DATA
    assert "knows no instrument afm7; it has afm1" in capsys.readouterr().err
    assert main(["find", "--tables", str(lab.state / "tables"), "--instrument", "afm1", "--since", "2030-01-01"]) == 0


def test_where_there_is_nothing_to_search_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").mkdir()
    assert main(["find", "--state", str(tmp_path / "state")]) == UNREACHABLE
    (tmp_path / "empty").mkdir()
    assert main(["find", "--tables", str(tmp_path / "empty")]) == UNREACHABLE
    (tmp_path / "notes.duckdb").write_bytes(b"no database at all" * 1000)
    assert main(["find", "--tables", str(tmp_path / "notes.duckdb")]) == BAD_DATA
    with closing(duckdb.connect(tmp_path / "other.duckdb")) as database:
        database.execute("create table decisions as select 1 as verdict")
    assert main(["find", "--tables", str(tmp_path / "other.duckdb")]) == BAD_DATA
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "x.parquet").write_bytes(b"PAR1 and no end")
    assert main(["find", "--tables", str(tmp_path / "torn")]) in (BAD_DATA, 74)
    assert capsys.readouterr().err.count("\n") == 5


def test_without_its_packages_it_says_what_to_install(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("daemon.tables.find_spec", lambda module: None)
    assert lab() == UNREACHABLE
    assert "find needs the extra tables: .venv/bin/pip install 'afm-triage[tables]'" in capsys.readouterr().err


def test_rows_of_score_are_searched_too(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", "--state", str(lab.state), "--since", "0"]) == 0
    lines = [json.loads(line)["data"] for line in capsys.readouterr().out.splitlines()]
    with Dataset(tmp_path / "scored", schema(), ("folder", "day")) as dataset:
        dataset.commit(rows(lines))
    assert main(["find", "--tables", str(tmp_path / "scored"), "--force", "150..250"]) == 0
    assert "3 curves with a rupture of 150 to 250 pN" in capsys.readouterr().out


# From there on.


@pytest.fixture
def listed(lab: Lab) -> Path:
    """The discard and the two kept ones."""
    file = lab.root / "found.csv"
    assert lab("--force", "150..250", "--at", "60..120", "--csv", file) == 0
    return file


def test_the_table_has_a_row_a_curve_and_is_made_anew_by_the_next_search(lab: Lab, listed: Path) -> None:
    with listed.open(encoding="utf-8-sig", newline="") as file:
        (first, *_, last) = csv.DictReader(file)
    assert (first["path"], first["session"], first["rupture_forces_pn"]) == ("curve-6.jpk-force", "1", "160.00")
    assert (last["verdict"], last["rupture_forces_pn"], last["n_ruptures"]) == ("discard", "200.00 120.00", "2")
    assert lab("--verdict", "review", "--csv", listed) == 0
    assert len(listed.read_text().splitlines()) == 3
    with listed.open(encoding="utf-8-sig", newline="") as file:
        table = [[*row, "my note"] for row in csv.reader(file)]
    with listed.open("w", newline="") as file:
        csv.writer(file).writerows(table)
    assert lab("--csv", listed) == BAD_DATA, "a person has written into it"
    assert "my note" in listed.read_text()


def test_collect_takes_what_was_found_discards_too(
    lab: Lab, listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    collect = ["collect", "--state", str(lab.state), "--found", str(listed), "--copy", str(tmp_path / "taken")]
    assert main(collect) == 0
    assert sorted(one.name for one in (tmp_path / "taken").glob("*.jpk-force")) == [
        f"curve-{number}.jpk-force" for number in (1, 3, 6)
    ]
    assert main([*collect, "--verdict", "keep"]) == USAGE
    text = listed.read_text(encoding="utf-8-sig").splitlines()
    listed.write_text("\n".join([*text[:2], text[2].replace("curve-3", "curve-9").replace(text[2][-64:], "0" * 64)]))
    lines = listed.read_text().replace(text[2].split(",")[-2], "another-ledger:1")
    listed.write_text(lines)
    assert main([*collect[:-1], str(tmp_path / "others")]) == 0
    assert [one.name for one in (tmp_path / "others").glob("*.jpk-force")] == ["curve-6.jpk-force"]
    assert "1 curve of " in capsys.readouterr().err
    listed.write_text("path,curve\nx,0\n")
    assert main(collect) == BAD_DATA


def test_the_page_shows_the_list_and_its_labels_have_no_weight(lab: Lab, listed: Path) -> None:
    with Page(lab.state, "--found", str(listed), environment=BY_SCORE) as page:
        found = page.ask("/api/queue?name=found&limit=10&rater=anna").json
        assert [(one["path"], one["verdict"]) for one in found] == [
            ("curve-6.jpk-force", "keep"),
            ("curve-3.jpk-force", "keep"),
            ("curve-1.jpk-force", "discard"),
        ]
        assert page.ask("/api/state?rater=anna").json["queues"]["found"] == 3
        assert page.label(found[2]["id"], "keep", rater="anna", queue="found").status == 201
        assert len(page.ask("/api/queue?name=found&limit=10&rater=anna").json) == 2
        assert page.ask("/api/state?rater=anna").json["queues"]["found"] == 2
    with Labels(lab.state / "labels.sqlite") as labels:
        ((queue, weight, verdict),) = labels.select("select queue, weight, verdict from labels")
    assert (queue, weight, verdict) == ("found", None, "discard")
    assert lab("--label", "keep", "--json") == 0


def test_nothing_yet_is_nothing_found_and_no_folder_above_is_a_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "day=2020-01-01" / "seq=7"
    state.mkdir(parents=True)
    with closing(Ledger(state / "ledger.sqlite", "afm1")) as ledger:
        assert main(["find", "--state", str(state), "--force", "3.."]) == 0
        assert "was found" in capsys.readouterr().out
        ledger.record([decision(number) for number in range(1, 4)])
    assert main(["find", "--state", str(state), "--json", "--since", "1", "--limit", "9" * 20]) == 0
    assert sorted(json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()) == [2, 3]


@pytest.mark.parametrize("content", ["[]", '{"noted": {}}', '{"number": 1, "rows": 1, "parts": [5], "noted": {}}'])
def test_a_note_that_is_none_is_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite", "afm1")) as ledger:
        ledger.record([decision(1)])
    assert main(["find", "--state", str(tmp_path)]) == 0
    for name in ("000000001.json", "about.json"):
        note = tmp_path / "tables" / DECISIONS / "_notes" / name
        before = note.read_bytes()
        note.write_text(content if name != "about.json" else "[]")
        capsys.readouterr()
        assert main(["find", "--state", str(tmp_path)]) == BAD_DATA
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{name}: is damaged" in line
        note.write_bytes(before)
