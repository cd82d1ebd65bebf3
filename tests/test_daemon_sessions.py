"""Sessions: ranges of decisions with what people say of them, and what a new day folder begins."""

from __future__ import annotations

import io
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pace import allowed

from daemon.cli import main
from daemon.client.status import gather
from daemon.common.errors import UserError
from daemon.config import Config
from daemon.judging.registry import Registry
from daemon.labels import Label, Labels
from daemon.labels.sessions import Sessions, day_of, wanted_of
from daemon.ledger import Ledger
from daemon.service.sessions import RunSoFar, SessionWatch
from daemon.verbs.status import page
from models.bundle import CONFIRMED, SHIPPED, read
from tests.ledgerhelp import decision, decisions, ledger_with


@pytest.fixture
def labels(tmp_path: Path) -> Iterator[Labels]:
    with Labels(tmp_path / "labels.sqlite") as labels:
        yield labels


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(ledger_with(tmp_path / "ledger.sqlite", 10)) as ledger:
        yield ledger


def test_a_session_is_a_range_of_decisions_and_counts_them(ledger: Ledger, labels: Labels) -> None:
    sessions = Sessions(labels)
    assert (sessions.current(), sessions.end(), sessions.of(5)) == (None, None, None)
    first = sessions.begin(tip="OMCL", sample=" Titin  I27", operator="ada", goal="500 curves")
    ledger.record(decisions(11, 17))
    assert sessions.current() == first
    assert first.counts(ledger.view().verdict_counts()) == {"keep": 2, "discard": 2, "review": 2}
    second = sessions.begin(sample="titin i27 ", name="evening")
    ledger.record(decisions(17, 20))
    ended = sessions.end()
    ledger.record(decisions(20, 24))
    assert ended is not None
    assert [(one.number, one.first_seq, one.last_seq) for one in sessions.all()] == [(1, 11, 16), (2, 17, 19)]
    assert ended.counts(ledger.view().verdict_counts()) == {"keep": 1, "discard": 1, "review": 1}
    assert [one and one.number for one in map(sessions.of, (10, 11, 16, 17, 19, 20))] == [None, 1, 1, 2, 2, None]
    assert (ended.name, ended.began >= second.began, sessions.current()) == ("evening", True, None)


def test_the_sessions_of_one_sample_are_a_group(ledger: Ledger, labels: Labels) -> None:
    sessions = Sessions(labels)
    for sample, count in (("Titin", 5), ("", 3), (" titin", 2)):
        sessions.begin(sample=sample)
        last = ledger.view().last_seq
        ledger.record(decisions(last + 1, last + 1 + count))
    assert sessions.group(sessions.current()) == "titin"
    assert sessions.group(None) == ""
    assert sessions.seqs_of("titin") == [(11, 15), (19, None)]
    assert sessions.seqs_of("") == [(1, 10), (16, 18)]
    sessions.end()
    assert sessions.seqs_of("titin") == [(11, 15), (19, 20)]
    assert sessions.seqs_of("") == [(1, 10), (16, 18), (21, None)]
    assert sessions.seqs_of("other") == []


def test_a_session_is_present_until_something_is_decided_outside_of_it(ledger: Ledger, labels: Labels) -> None:
    sessions = Sessions(labels)
    assert sessions.present() is None
    begun = sessions.begin(sample="titin")
    assert sessions.present() == begun
    ledger.record(decisions(11, 13))
    ended = sessions.end()
    assert (sessions.current(), sessions.present()) == (None, ended)
    ledger.record(decisions(13, 14))
    assert sessions.present() is None


def test_a_session_of_a_ledger_that_has_gone_is_over(ledger: Ledger, labels: Labels, tmp_path: Path) -> None:
    sessions = Sessions(labels)
    sessions.begin(sample="titin")
    ledger.close()
    for file in tmp_path.glob("ledger.sqlite*"):
        file.unlink()
    with closing(ledger_with(tmp_path / "ledger.sqlite", 30)):
        assert (sessions.current(), sessions.of(12), sessions.seqs_of("titin")) == (None, None, [])
        sessions.begin(sample="titin")
        assert sessions.seqs_of("titin") == [(31, None)]
        assert sessions.all()[0].counts({"keep": 9, "review": 9, "discard": 9}) == {
            "keep": 0,
            "review": 0,
            "discard": 0,
        }


def test_a_session_begun_before_the_first_curve_has_it(labels: Labels, tmp_path: Path) -> None:
    sessions = Sessions(labels)
    sessions.begin(sample="titin")
    with closing(ledger_with(tmp_path / "ledger.sqlite", 4)) as ledger:
        found = sessions.of(1)
        assert found is not None
        assert sum(found.counts(ledger.view().verdict_counts()).values()) == 4
        sessions.end()
        assert sessions.seqs_of("titin") == [(1, 4)]


def test_what_people_write_is_kept_as_it_is_and_what_is_too_long_refused(labels: Labels) -> None:
    sessions = Sessions(labels)
    hostile = "'); drop table labels; -- <img onerror=x> \u202e\n\x1b[2J \ud800"
    assert sessions.begin(note=hostile).note == hostile.encode("utf-8", "backslashreplace").decode().strip()
    with pytest.raises(UserError) as refusal:
        sessions.begin(goal="x" * 2_001)
    assert refusal.value.exit_code == 64
    assert len(sessions.all()) == 1
    assert sessions.current() is not None


@pytest.mark.parametrize(
    ("path", "folder", "day"),
    [
        ("2026-11-27/run7/a.ibw", "2026-11-27", (2026, 11, 27)),
        ("ada/20261127_titin/a.ibw", "20261127_titin", (2026, 11, 27)),
        ("27.11.2026/2026-11-28/a.ibw", "27.11.2026", (2026, 11, 27)),
        ("run 2026_11_27 b/a.ibw", "run 2026_11_27 b", (2026, 11, 27)),
        ("x/20261127153000/a.ibw", "20261127153000", (2026, 11, 27)),
    ],
)
def test_the_first_part_with_a_date_is_the_day_folder(path: str, folder: str, day: tuple[int, int, int]) -> None:
    assert day_of(path) == (folder, date(*day))


@pytest.mark.parametrize("path", ["2026-11-27.ibw", "run7/2026-11-27.ibw", "120261127/a", "2026-13-27/a", "x/a", ""])
def test_what_is_no_date_begins_nothing(path: str) -> None:
    assert day_of(path) is None


# The verb.


def verb(state: Path, *words: str) -> tuple[int, str, str]:
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main(["session", *words, "--state", str(state)])
    return code, out.getvalue(), err.getvalue()


def test_a_person_begins_ends_and_sees_sessions(ledger: Ledger, tmp_path: Path) -> None:
    assert verb(tmp_path, "end") == (
        65,
        "",
        "afm-triage: no session goes on; begin one with: afm-triage session begin --sample TEXT\n",
    )
    code, told, _ = verb(tmp_path, "begin", "--sample", "Titin", "--tip", "OMCL\x1b[2J", "--goal", "")
    assert (code, told) == (0, "session 1 begins with decision 11: tip OMCL\ufffd[2J, sample Titin\n")
    ledger.record(decisions(11, 17))
    told = verb(tmp_path, "begin", "--name", "evening")[1]
    assert told.startswith("session 1 ended: 6 curves, ● keep 2   ◐ review 2   ○ discard 2\nsession 2 begins")
    shown = verb(tmp_path, "show")[1].splitlines()
    assert "goes on" in shown[1]
    assert "name evening; 0 curves" in shown[1]
    assert shown[2] == "all time: 16 curves, ● keep 5   ◐ review 5   ○ discard 6"
    with Labels(tmp_path / "labels.sqlite") as labels:
        labels.add(
            Label(f"{number}", 0, "keep", "ada", "2026-11-20T12:00:00Z", sha256=f"{number:064x}") for number in (9, 12)
        )
    told = json.loads(verb(tmp_path, "show", "--json")[1])
    assert [one["labelled"] for one in told["sessions"]] == [1, 0]
    assert (told["current"]["number"], [one["group"] for one in told["sessions"]]) == (2, ["titin", ""])
    assert told["sessions"][0]["counts"] == {"keep": 2, "review": 2, "discard": 2}
    assert verb(tmp_path, "end")[1].startswith("session 2 ended: 0 curves")
    assert verb(tmp_path, "show")[1].startswith("no session goes on\n")
    assert verb(tmp_path, "begin", "--goal", "x" * 3000)[0] == 64
    assert verb(tmp_path / "absent", "begin")[0] == 69


def test_a_session_of_another_sample_lets_its_cut_serve_and_says_so(ledger: Ledger, tmp_path: Path) -> None:
    registry, base = Registry(tmp_path / "models"), read(SHIPPED)
    registry.write_cut(
        base, "titin-cut", 0.02, {"basis": CONFIRMED, "events": 5, "band": [base.discard, 0.02], "group": "titin"}
    )
    registry.promote("titin-cut", base=base, group="titin", why="5 events", by="ada")
    assert "titin-cut, serves from the next batch on" in verb(tmp_path, "begin", "--sample", "TITIN")[1]
    assert registry.serving() == registry.for_group("titin")
    assert "serve" not in verb(tmp_path, "begin", "--sample", "titin ")[1]
    assert "the configured model serves the curves of i27" in verb(tmp_path, "begin", "--sample", "I27")[1]
    assert registry.serving() is None
    (tmp_path / "models" / "serving.json").write_text("{}garbage")
    code, told, complaint = verb(tmp_path, "begin", "--sample", "titin")
    assert (code, told.splitlines()[-1].startswith("session 4 begins"), complaint.count("\n")) == (65, True, 1)
    assert "is noted, but the model that judges stays" in complaint


def test_labels_of_a_newer_version_or_damaged_stop_a_verb_in_one_line_and_no_status(
    ledger: Ledger, tmp_path: Path
) -> None:
    file = tmp_path / "labels.sqlite"
    assert verb(tmp_path, "begin", "--sample", "titin")[0] == 0
    good = file.read_bytes()

    def is_refused(word: str) -> bool:
        code, told, complaint = verb(tmp_path, "begin", "--sample", "i27")
        return (code, told, complaint.count("\n"), word in complaint) == (74, "", 1, True)

    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("pragma user_version = 99")
        assert is_refused("newer afm-triage")
        assert gather(Config(state=tmp_path))["ledger"]["last_seq"] == 10
        other.execute("pragma user_version = 3")
    file.write_bytes(good[:5000] + b"x" * (len(good) - 5000))
    assert is_refused("damaged")
    file.write_bytes(good)
    with Labels(file) as labels:
        assert [one.sample for one in Sessions(labels).all()] == ["titin"]


def test_status_shows_the_session_beside_all_time() -> None:
    told = {"number": 3, "sample": "titin\x1b[2J", "seconds": 8000.0, "counts": {"keep": 4, "review": 0, "discard": 6}}
    report = {"running": True, "instrument": "afm1", "ledger": None, "flagged": [], "current_session": told}
    report["goal"] = {"text": "4 of 50 kept, too early to say how long"}
    rows = [row.plain for row in page({**report, "counts": {"keep": 7, "review": 0, "discard": 1_000}})]
    (row,) = (row for row in rows if row.startswith("  session"))
    assert (
        row == "  session   3, titin\ufffd[2J, for 2 h 13 min:  ● keep 4   ◐ review 0   ○ discard 6   (60.0% discarded)"
    )
    assert any("discard 1,000" in row for row in rows)
    assert [row for row in rows if "too early" in row] == ["  goal      4 of 50 kept, too early to say how long"]


# The service.


def test_beside_a_damaged_ledger_no_session_begins(tmp_path: Path) -> None:
    """It would begin with decision 1, and hold all that a backup brings back."""
    (tmp_path / "ledger.sqlite").write_bytes(b"x" * 20_000)
    for words in (("begin", "--sample", "i27"), ("show",)):
        code, told, complaint = verb(tmp_path, *words)
        assert (code, told, complaint.count("\n"), "damaged" in complaint) == (74, "", 1, True), words
    with Labels(tmp_path / "labels.sqlite") as labels:
        assert Sessions(labels).all() == []


def test_a_new_day_folder_begins_a_session_with_its_first_curve(ledger: Ledger, tmp_path: Path) -> None:
    watch = SessionWatch(tmp_path, ledger.view())

    def comes(folder: str, start: int, stop: int) -> None:
        ledger.record(made := decisions(start, stop))
        watch.observe([(folder, one.verdict) for one in made])

    comes("run7", 11, 14)
    watch.step()
    assert (watch.current, (tmp_path / "labels.sqlite").exists()) == (None, False)
    ledger.record(both := decisions(14, 20))
    watch.observe([("2025-11-26" if number < 2 else "2025-11-27", one.verdict) for number, one in enumerate(both)])
    watch.step()
    comes("2025-11-26", 20, 21)  # one of before comes late
    comes("2999-01-01", 21, 22)  # and one of a day that has not come
    watch.step()
    with Labels(tmp_path / "labels.sqlite") as labels:
        sessions = Sessions(labels)
        assert [(one.name, one.first_seq, one.last_seq, one.origin) for one in sessions.all()] == [
            ("2025-11-26", 14, 15, "folder"),
            ("2025-11-27", 16, None, "folder"),
        ]
        told = watch.status(ledger.view().verdict_counts())
        assert told is not None
        assert (told.name, sum(told.counts.values())) == ("2025-11-27", 6)
        sessions.begin(sample="titin")
        comes("2025-11-28", 22, 24)
        watch.step()
        assert (watch.current and watch.current.sample, len(sessions.all())) == ("titin", 3)
        again = SessionWatch(tmp_path, ledger.view())  # a restart in the middle of it
        again.observe([("2025-11-28", "keep")])
        again.step()
        assert len(sessions.all()) == 3
        sessions.end()
        again.step()
        again.observe([("2025-11-28", "keep")])
        again.step()
        assert [one.name for one in sessions.all()][3:] == ["2025-11-28"]


def test_whose_cut_serves_is_that_of_the_session_whoever_has_changed_it(ledger: Ledger, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    with Labels(tmp_path / "labels.sqlite") as labels:
        Sessions(labels).begin(sample="Titin")
        watch = SessionWatch(tmp_path, ledger.view())  # by the page, while no service ran
        assert registry.group() == "titin"
        registry.turn_to("i27", by="ada")
        watch.step()
        assert registry.group() == "titin"
        Sessions(labels).end()
        watch.step()
        assert registry.group() == ""


def test_labels_that_are_locked_hold_up_nothing_and_the_session_begins_later(ledger: Ledger, tmp_path: Path) -> None:
    Labels(tmp_path / "labels.sqlite").close()
    watch = SessionWatch(tmp_path, ledger.view())
    with closing(sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None)) as other:
        other.execute("begin exclusive")
        watch.start()
        began_s = time.monotonic()
        watch.observe([("2025-11-27", "keep")])
        assert watch.status({"keep": 1}) is None
        assert time.monotonic() - began_s < allowed(1.0)
        other.execute("rollback")
    deadline_s = time.monotonic() + 20
    while watch.current is None and time.monotonic() < deadline_s:
        time.sleep(0.05)
    watch.stop()
    assert watch.current is not None
    assert watch.current.first_seq == 10


def test_the_goal_counts_what_was_kept_less_what_people_said_no_to(
    ledger: Ledger, labels: Labels, tmp_path: Path
) -> None:
    begun_s = time.time() - 4_000.0
    sessions = Sessions(labels)
    sessions.begin(goal="40 kept")
    first = ledger.view().last_seq + 1
    ledger.record([replace(decision(number), acquired_s=begun_s + 20.0 * number) for number in range(100, 160)])
    watch = RunSoFar(ledger.view())
    watch.look(sessions.current())
    goal = watch.goal
    assert goal is not None
    assert (goal.kept, goal.wanted) == (20, 40)
    assert goal.low_s is not None
    kept = [seq for seq, event in ledger.view().decisions(range(first, first + 60)).items() if is_kept(event)]
    flagged = first if first not in kept else first + 1
    for seq, word in ((kept[0], "discard"), (kept[1], "discard"), (flagged, "keep")):
        labels.say([Labels.of_event(ledger.view().decisions([seq])[seq], word, "ada")])
    watch.heard(labels.words())
    watch.look(sessions.current())
    assert watch.goal is not None
    assert watch.goal.kept == 19
    assert watch.goal.text.startswith("19 of 40 kept (2 called no event, 1 called an event); ")
    sessions.end()
    night = RunSoFar(ledger.view())
    night.look(None)
    assert night.goal is not None
    assert (night.goal.kept, night.goal.wanted) == (ledger.view().verdict_counts()["keep"], 50)


def test_files_of_another_year_foretell_nothing_of_tonight(ledger: Ledger) -> None:
    ledger.record([replace(decision(number), acquired_s=1_243_000_000.0 + number) for number in range(100, 160)])
    run = RunSoFar(ledger.view())
    run.look(None)
    assert run.goal is not None
    assert (run.goal.kept >= 5, run.goal.low_s) == (True, None)
    assert run.goal.text.endswith(" of 50 kept; of files of other days no time is foretold")


def is_kept(event: dict[str, Any]) -> bool:
    return bool(event["data"]["verdict"] == "keep")


@pytest.mark.parametrize(
    ("goal", "wanted"),
    [("", 50), ("200 events", 200), ("30", 30), ("12 kept by noon", 12), ("2 spots", 50), ("500 curves", 50)],
)
def test_a_goal_that_begins_with_a_number_of_events_is_counted_to(goal: str, wanted: int) -> None:
    assert wanted_of(goal) == wanted
