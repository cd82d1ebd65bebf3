"""The guard: what it finds becomes an alarm once and clears, what it knows outlives it, and it never harms the line."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from adapthelp import Night
from guardhelp import Clock, Heard, a_guard, a_tip, judged
from msgspec import structs
from pace import allowed

import daemon.guard
from daemon.common.errors import UserError
from daemon.config import GuardConfig
from daemon.guard.canaries import PathWatch
from daemon.guard.logbook import NAME, VERSIONS, Logbook, LogbookView, Run
from daemon.guard.morning import NO_CANARIES, left_in
from daemon.judging import Thresholds
from daemon.labels import Labels
from daemon.labels.confirmed import Said
from daemon.ledger.numbers import GuardNumbers, TipPoint, Told, in_short
from models.clock import utc_now

POINT = TipPoint(seq=50, time="2026-11-28T02:14:00Z", noise=10.0, tilt=None, slope=40.0, adhesion=1200.0, wave=1.0)
TOLD = Told(
    name="advice noise",
    level="degraded",
    since="2026-11-28T02:14:00Z",
    text="noise doubled since 02:14: look at the tip",
)


def note_all(book: Logbook) -> None:
    book.keep("path", "p", {"evidence": [1.0, 2.5]})
    book.count("2026-11-28T02:00:00Z", "p", "found", 3)
    book.note_block(POINT, "pN")
    book.note_told(TOLD)
    book.note_said("network", 7, Said(0.25, ("score", "still_attached")))


def holds_all(file: Path, times: int = 1) -> None:
    """As a reader in another process sees it."""
    with LogbookView(file) as view:
        assert view.tallies() == {"found": 3 * times}
        assert view.tallies("2026-11-28T03:00:00Z") == {}
        assert view.blocks() == [(POINT, "pN")] * times
        assert view.told("2026-11-28T03:00:00Z") == [TOLD]


# The logbook.


def test_what_was_noted_is_read_by_others_and_by_the_next_service(tmp_path: Path) -> None:
    file = tmp_path / NAME
    with closing(Logbook(file, "s")) as book:
        note_all(book)
        assert book.kept("path") == {"p": {"evidence": [1.0, 2.5]}}
        book.write()
        holds_all(file)
        note_all(book)  # written when it is closed
    holds_all(file, times=2)
    with closing(Logbook(file, "s")) as book:
        assert book.kept("path") == {"p": {"evidence": [1.0, 2.5]}}
        assert book.blocks() == [(POINT, "pN")] * 2
        assert book.said("network") == {7: Said(0.25, ("score", "still_attached"))}
        assert book.said("another") == {}
        book.leave("2026-11-28T05:00:00Z")
        book.write()
        with LogbookView(file) as view:
            assert view.told() == [structs.replace(TOLD, left="2026-11-28T05:00:00Z")]
            assert view.told("2026-11-28T06:00:00Z") == []
    with closing(Logbook(file, "another ledger")) as book:  # numbers of another one mean nothing here
        assert (book.blocks(), book.said("network")) == ([], {})


@pytest.mark.parametrize("spoil", ["garbage", "a page of garbage"])
def test_a_damaged_logbook_is_set_aside(tmp_path: Path, spoil: str) -> None:
    file = tmp_path / NAME
    with closing(Logbook(file, "s")) as book:
        note_all(book)
    content = bytearray(file.read_bytes())
    content[0 if spoil == "garbage" else 4096 :] = b"no page of SQLite" * 200
    file.write_bytes(content)
    with closing(Logbook(file, "s")) as book:
        assert book.trouble == ""
        note_all(book)
    holds_all(file)
    assert (tmp_path / f"{NAME}.damaged-1").read_bytes() == content


def test_a_logbook_that_is_taken_away_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / NAME
    with closing(Logbook(file, "s")) as book:
        note_all(book)
        book.write()
        for one in tmp_path.iterdir():
            one.unlink()
        note_all(book)
        book.write()
        holds_all(file)


@pytest.mark.parametrize("whose", ["a newer version", "another program"])
def test_a_logbook_that_is_not_ours_is_told_and_left_alone(tmp_path: Path, whose: str) -> None:
    file = tmp_path / NAME
    with closing(sqlite3.connect(file)) as other:
        number = VERSIONS.application if whose == "a newer version" else 1
        other.executescript(f"create table theirs (x); pragma application_id = {number}; pragma user_version = 99;")
    before, clock = file.read_bytes(), Clock()
    with closing(Logbook(file, "s", now=clock)) as book:
        note_all(book)
        book.write()
        assert ("newer" if whose == "a newer version" else "move it away") in book.trouble
        assert book.kept("path") == {"p": {"evidence": [1.0, 2.5]}}  # of this service all the same
        assert file.read_bytes() == before
        file.unlink()
        clock.now_s += 11.0
        book.write()
        assert book.trouble == ""
        holds_all(file)


def test_what_cannot_be_written_waits(tmp_path: Path) -> None:
    """Another program holds the file, then the disk is full, then the folder is not there."""
    file, clock = tmp_path / "state" / NAME, Clock()
    file.parent.mkdir()
    with closing(Logbook(file, "s", now=clock)) as book:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("begin immediate")
            note_all(book)
            book.write()
            assert "fuser" in book.trouble
        book.write()
        assert book.trouble == ""
        holds_all(file)
        assert book._connection is not None
        (pages,) = book._connection.execute("pragma page_count").fetchone()
        book._connection.execute(f"pragma max_page_count = {pages}")
        for _ in range(200):
            book.note_block(POINT, "pN")
        book.write()
        assert "full" in book.trouble
        book._connection.execute("pragma max_page_count = 100000")
        book.write()
        assert book.trouble == ""
        with LogbookView(file) as view:
            assert len(view.blocks(last=1_000)) == 201
        shutil.rmtree(file.parent)
        note_all(book)
        book.write()
        assert "unable to open" in book.trouble
        file.parent.mkdir()
        clock.now_s += 11.0
        book.write()
        holds_all(file)


def test_when_the_service_ran_and_what_it_passed_over_outlives_it(tmp_path: Path) -> None:
    """A service that is killed leaves its run without an end; the next one has its own, and counts from nothing."""
    with a_guard(tmp_path) as guard:
        guard.serve("openvino-cpu-fp32", {"unclaimed .docx": 2})
        guard.step()
        guard.serve("openvino-cpu-fp32", {"unclaimed .docx": 3, "image": 1})
        guard.step()
        shutil.copytree(tmp_path, tmp_path / "killed")
    with a_guard(tmp_path / "killed") as guard:
        guard.serve("torch-cpu-bf16", {"image": 4})
        guard.step()
    for folder, ends, engines, images in (
        (tmp_path, [True], ["openvino-cpu-fp32"], 1),
        (tmp_path / "killed", [False, True], ["openvino-cpu-fp32", "torch-cpu-bf16"], 5),
    ):
        with LogbookView(folder / NAME) as view:
            runs = view.runs()
            assert [one.ended is not None for one in runs] == ends
            assert [one.engine for one in runs] == engines
            assert view.ignored() == {"unclaimed .docx": 3, "image": images}
            assert view.runs("2999") == []
            assert not view.ignored("2999")


def test_a_logbook_of_the_version_before_knows_no_runs(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / NAME)) as old:
        old.executescript(
            f"{VERSIONS.scripts[0]} pragma application_id = {VERSIONS.application}; pragma user_version = 1;"
        )
    with LogbookView(tmp_path / NAME) as view:
        assert view.runs() == []
        assert not view.ignored()
    with Logbook(tmp_path / NAME, "s") as book:
        book.note_run(Run("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z", None, "0", "e"))
        book.write()
        book.forget_old(time.time())
    with LogbookView(tmp_path / NAME) as view:
        assert view.runs() == []


def test_there_is_no_logbook_to_read_before_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no logbook"):
        LogbookView(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(b"garbage" * 1_000)
    with pytest.raises(UserError, match="not a database"):
        LogbookView(tmp_path / NAME)


# The guard.


def test_trouble_of_the_guard_is_one_condition_and_only_when_it_lasts(tmp_path: Path) -> None:
    clock, health = Clock(), Heard()
    with a_guard(tmp_path, now=clock) as guard:
        with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as other:
            other.execute("begin immediate")
            guard.step()
            assert health.take(guard) == []
            clock.now_s += 11.0
            guard.step()
            (said,) = health.take(guard)
            assert said[:2] == ("guard", "degraded")
            assert "fuser" in said[2]
            assert said[2].endswith("judging goes on")
            guard.step()
            assert health.take(guard) == []
        guard.step()
        assert health.take(guard) == [("guard", "ok", "the guard watches")]


def test_a_watch_that_fails_harms_nothing_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, health = Clock(), Heard()
    with a_guard(tmp_path, now=clock) as guard:
        health.take(guard)
        with monkeypatch.context() as broken:
            broken.setattr(guard._tip, "observe", lambda *args: 1 / 0)
            guard.observe([judged(1)])
            ((name, level, text),) = health.take(guard)
        assert (name, level) == ("guard", "degraded")
        assert "ZeroDivisionError" in text
        assert health.level == "degraded"
        clock.now_s += 61.0
        guard.observe([judged(2)])
        assert health.take(guard) == [("guard", "ok", "the guard watches")]
        with monkeypatch.context() as broken:
            broken.setattr(PathWatch, "numbers", lambda path: 1 / 0)
            assert guard.status() == GuardNumbers()
            ((name, level, _),) = health.take(guard)
            assert (name, level) == ("guard", "degraded")


def test_no_start_fails_on_what_was_left_behind(tmp_path: Path) -> None:
    with a_guard(tmp_path) as guard:
        guard.logbook.keep("tip", guard.logbook.stream, {"time_s": time.time(), "watches": [1, 2, 3]})
        guard.logbook.keep("path", "raster:v1|model:abc", {"evidence": "none"})
    with closing(sqlite3.connect(tmp_path / NAME)) as book:
        book.execute("insert into states values ('tip', 'another', 'no JSON')")
        book.commit()
    with a_guard(tmp_path) as guard:
        guard.step()
        assert guard.status().path is not None


def test_advice_is_an_alarm_event_once_with_its_text_and_leaves_the_state_alone(tmp_path: Path) -> None:
    """Noise doubles, is told, is over; the logbook has both times, and a service that follows shows the blocks."""
    health = Heard()

    def show(curves: int, noise: float) -> list[tuple[str, str, str]]:
        news = []
        for number in range(0, curves, 50):
            guard.observe([judged(number + one, a_tip(noise)) for one in range(50)])
            guard.step()
            news += [(name, level, text) for name, level, text in health.take(guard)]
        return news

    with a_guard(tmp_path) as guard:
        assert show(500, 1e-11) == []
        ((name, level, text),) = show(300, 2e-11)
        assert (name, level) == ("advice noise", "degraded")
        assert "noise doubled since" in text
        assert text.endswith("look at the tip")
        assert health.level == "ok"  # the service is as well as ever
        assert [one.is_advice for one in health.for_status() if not one.ok] == [True]
        told = guard.status().tip
        assert told is not None
        assert ([one.kind for one in told.advice], len(told.blocks), told.unit) == (["noise"], 16, "pN")
    with a_guard(tmp_path) as guard:  # the next service: the advice holds, and nobody hears of it as news of now
        assert health.take(guard) == []
        after = guard.status().tip
        assert after is not None
        assert (after.blocks, after.advice, after.unit) == (told.blocks, told.advice, told.unit)
        guard.step()
        with LogbookView(tmp_path / NAME) as view:
            ((began, ended, left),) = [(one.since, one.ended, one.left) for one in view.told()]
            assert (began, ended, left) == (told.advice[0].since, None, None)
        assert show(300, 1e-11) == [("advice noise", "ok", f"over: {text}")]
        after = guard.status().tip
        assert after is not None
        assert len(after.blocks) == 22
        assert after.blocks[-1].noise == pytest.approx(10.0)
    with LogbookView(tmp_path / NAME) as view:
        (noted,) = view.told()
        assert (noted.since, noted.text, noted.ended is not None) == (told.advice[0].since, told.advice[0].text, True)


def test_a_stop_a_kill_and_a_restart_end_no_alarm(tmp_path: Path) -> None:
    """What stood is told until it is told again or is over; what was over stays in the logbook with its end."""
    texts = {"orientation jpk": "the sign may be wrong", "contact": "28 curves in a row without contact"}
    with a_guard(tmp_path) as guard:
        since = utc_now()
        for text in ("20 curves in a row without contact", texts["contact"]):
            guard.hear("contact", "alarm", text, since)
        guard.hear("orientation jpk", "alarm", texts["orientation jpk"], utc_now())
        guard.step()
        guard.hear("disk", "alarm", "the disk is full", utc_now())
        guard.hear("disk", "ok", "the ledger can be written", utc_now())
        assert guard.status().told == ()
    left = left_in(tmp_path)
    assert {one.name: one.text for one in left.told if one.left} == texts
    assert [(one.name, one.text) for one in left.told if one.ended] == [("disk", "the disk is full")]
    assert left.path is not None
    assert left.path.text == "no simulated event has come out of the line yet"
    with a_guard(tmp_path) as guard:
        assert {one.name for one in guard.status().told} == texts.keys()
        guard.hear("contact", "alarm", "20 curves in a row without contact", utc_now())
        assert [one.name for one in guard.status().told] == ["orientation jpk"]
        guard.step()
        shutil.copytree(tmp_path, tmp_path / "killed", ignore=shutil.ignore_patterns("killed"))
    with a_guard(tmp_path / "killed") as guard:
        told = {one.name: one.text for one in guard.status().told}
        assert told == texts | {"contact": "20 curves in a row without contact"}
        guard.hear("contact", "alarm", "20 curves in a row without contact", utc_now())
        guard.hear("contact", "ok", "curves reach the surface", utc_now())
        guard.step()
    with a_guard(tmp_path / "killed") as guard:
        assert [one.name for one in guard.status().told] == ["orientation jpk"]


def test_canaries_that_are_switched_off_are_told_and_no_path_is(tmp_path: Path) -> None:
    with a_guard(tmp_path) as guard:
        guard.reloaded(GuardConfig(canaries=False))
        guard.step()
        assert (guard.status().path, guard.status().no_path) == (None, NO_CANARIES)
    assert (left_in(tmp_path).path, left_in(tmp_path).no_path) == (None, NO_CANARIES)


def test_your_events_are_those_that_people_confirmed(tmp_path: Path) -> None:
    """They change with the labels, and with the cut; nobody else's lock is waited for."""
    night, clock = Night(tmp_path), Clock()
    night.decide([4.0, 4.1, 4.2, 0.5, -3.0])
    with a_guard(tmp_path, night.judge(), now=clock) as guard:
        guard.step()
        found = guard.status().events
        assert found is not None
        assert found.confirmed == 0
        assert (guard.status().unseen, guard.status().second) != (None, None)
        assert not (tmp_path / "labels.sqlite").exists()
        night.say("keep", range(1, 6))
        guard.step()
        found = guard.status().events
        assert found is not None
        assert (found.confirmed, found.kept_live, found.shown_live, found.found_now) == (5, 3, 4, 4)
        base = night.base
        guard._serving.judge = dataclasses.replace(night.judge(), thresholds=Thresholds(0.1, base.keep))
        guard.step()
        later = guard.status().events
        assert later is not None
        assert (later.kept_live, later.live_low, later.found_now) == (3, found.live_low, 3)
        assert guard.pulse() == in_short(guard.status())
        night.say("unsure", [1], rater="bob")
        with Labels(tmp_path / "labels.sqlite") as labels:
            labels._connection.execute("begin exclusive")
            guard.step()
            assert guard.status().events == later
            labels._connection.execute("rollback")
        guard.step()
        found = guard.status().events
        assert found is not None
        assert found.confirmed == 4


def test_events_that_never_come_out_make_room_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged copy, or canaries that were switched off meanwhile: the later number goes on."""
    monkeypatch.setattr(daemon.guard, "_AT_ONCE", 2)
    night, clock = Night(tmp_path), Clock()
    night.decide([4.0, 4.1, 4.2, 4.3, 4.4], copy=b"a curve")
    night.say("keep", range(1, 6))
    with a_guard(tmp_path, now=clock) as guard:
        assert guard._path is not None
        source = guard._path.source

        def asked(after_s: float) -> list[int]:
            clock.now_s += after_s
            guard.step()
            copies = [seq for _, seq in source._copies]
            source._copies.clear()
            return copies

        assert asked(0.0) == [1, 2]
        assert asked(5.0) == []
        assert asked(200.0) == [3, 4]
        source.settings = GuardConfig(canaries=False)
        assert asked(5.0) == []
        source.settings = GuardConfig()
        assert asked(5.0) == [3, 4]
        assert asked(200.0) == [5]


def test_observing_a_curve_takes_microseconds(tmp_path: Path) -> None:
    batch = [judged(number, a_tip()) for number in range(64)]
    with a_guard(tmp_path) as guard:
        best_s = 1.0
        for _ in range(20):
            began_s = time.perf_counter()
            guard.observe(batch)
            best_s = min(best_s, (time.perf_counter() - began_s) / len(batch))
    assert best_s < allowed(50e-6)
