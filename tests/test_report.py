"""The report: what happened adds up, is told in one screen and on one page, and nothing is touched for it."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from reviewhelp import SAWTOOTH, copy_of, judged

from daemon.cli import main
from daemon.client.folders import NOTE
from daemon.config import Flags, load
from daemon.guard.logbook import NAME, Logbook, Run
from daemon.guard.unseen import unseen
from daemon.judging import Decision
from daemon.labels import Labels
from daemon.learn.evaluation import evaluate, write_html
from daemon.ledger import Ledger, LedgerView
from daemon.ledger.numbers import TipPoint, Told
from daemon.ledger.span import Span
from daemon.report import gather
from daemon.report.words import missed_in_all
from models.clock import night_of, rfc3339

EVENING_S = datetime.now().replace(hour=12, minute=5, second=0, microsecond=0).timestamp() - 86_400
EVIL = "<script>alert(1)</script>\x1b[2J"


def a_night(folder: Path) -> Iterable[Decision]:
    """Ten curves an hour for three hours, then nothing for two, then ten: of each ten 2 kept, 3 flagged."""
    for number in range(40):
        pause_s = 7_200.0 if number >= 30 else 0.0
        verdict: Any = "keep" if number % 10 < 2 else "review" if number % 10 < 5 else "discard"
        yield judged(
            number,
            verdict=verdict,
            score={"keep": 0.9, "review": 0.3, "discard": 0.001}[verdict],
            folder=str(folder),
            path=f"{'titin' if number < 20 else EVIL}/curve-{number}.jpk-force",
            acquired_s=EVENING_S + 360.0 * number + pause_s,
            compact_copy=copy_of(SAWTOOTH) if verdict != "discard" else None,
        )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night in a state folder: its ledger, what two people said, and what the guard wrote down. To be read only."""
    state = tmp_path_factory.mktemp("report") / "state"
    state.mkdir()
    folder = state.parent / "afm"
    folder.mkdir()
    with closing(Ledger(state / "ledger.sqlite", "afm1")) as ledger:
        ledger.record(list(a_night(folder)))
        stream = ledger.stream
    (state / NOTE).write_text(json.dumps({"watch": [str(folder)]}))
    with LedgerView(state / "ledger.sqlite") as view, Labels(state / "labels.sqlite") as labels:
        events = list(view.within())
        words = {0: ("keep", "keep"), 1: ("discard", "discard"), 2: ("keep", "discard"), 5: ("keep", "keep")}
        for place, said in words.items():
            for rater, word in zip(("anna", "ben"), said, strict=True):
                labels.add([Labels.of_event(events[place], word, rater)])  # type: ignore[arg-type]  # they are words
    now = time.time()
    with Logbook(state / NAME, stream) as book:
        pulled_s = EVENING_S + 8 * 3600  # the plug, some hours after the last curve, whenever this test is run
        book.note_run(Run(rfc3339(EVENING_S - 600), rfc3339(pulled_s), None, "0.1.0", "torch-cpu-bf16"))
        book.note_run(Run(rfc3339(pulled_s + 1000), rfc3339(now - 10), rfc3339(now - 10), "0.1.0", "torch-cpu-bf16"))
        book.note_told(
            Told(name="disk", level="alarm", since=rfc3339(now - 300), ended=rfc3339(now - 200), text=f"full {EVIL}")
        )
        book.count(f"{rfc3339(now)[:13]}:00:00Z", "p", "found", 38)
        book.count(f"{rfc3339(now)[:13]}:00:00Z", "p", "missed", 2)
        book.ignore(f"{rfc3339(now)[:13]}:00:00Z", "unclaimed .docx", 3)
        for seq, noise in ((10, 8.0), (20, 9.0), (30, 12.0), (40, 16.0)):
            point = TipPoint(seq=seq, time=rfc3339(now), noise=noise, tilt=None, slope=40.0, adhesion=100.0, wave=1.0)
            book.note_block(point, "pN")
        book.write()
    return state


def told(state: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["report", "--state", str(state), *words]) == 0
    return capsys.readouterr().out


def test_the_numbers_are_those_of_the_time_of_measurement(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(told(state, capsys, "--json"))
    assert report["counts"] == {"keep": 8, "review": 12, "discard": 20}
    bars = [one["keep"] + one["review"] + one["discard"] for one in report["bars"]]
    assert bars == [10, 10, 10, 0, 0, 10]
    assert report["bars"][0]["start"] == datetime.fromtimestamp(EVENING_S).strftime("%Y-%m-%dT%H")
    (silence,) = report["silences"]
    assert silence["seconds"] == pytest.approx(7_560)
    # 39 pauses of 6 min and one of two hours more; without that silence 3.8 h
    assert report["per_hour"] == pytest.approx(8 / 3.8)
    assert [one["keep"] for one in report["folders"]] == [4, 4]
    assert (report["kept_but_not"], report["waiting"]) == (1, 11)
    assert report["missed"]["confirmed"] == {"keep": 1, "review": 0, "discard": 1}
    assert report["missed"]["canaries"] == {"found": 38, "missed": 2}
    assert [(one["rater"], one["keep"], one["discard"]) for one in report["raters"]] == [("anna", 3, 1), ("ben", 2, 2)]
    assert report["tip"]["noise"] == [8.0, 9.0, 12.0, 16.0]
    assert report["tip"]["times"] == sorted(report["tip"]["times"])
    assert report["ignored"] == {"unclaimed .docx": 3}
    assert len(report["runs"]) == 2


def test_a_part_of_the_night_is_told_of_itself(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin, end = (datetime.fromtimestamp(EVENING_S) + timedelta(minutes=minutes) for minutes in (58, 118))
    some = json.loads(
        told(state, capsys, "--json", "--since", f"{begin:%Y-%m-%dT%H:%M}", "--until", f"{end:%Y-%m-%dT%H:%M}")
    )
    assert some["counts"] == {"keep": 2, "review": 3, "discard": 5}
    assert some["silences"] == []
    assert json.loads(told(state, capsys, "--json", "--since", "20"))["counts"]["keep"] == 4


def test_one_screen_says_what_was_kept_and_whether_all_was_well(
    state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = told(state, capsys).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    words = " ".join(lines)
    for said in (
        "8 of 40 curves (20.0%) were kept, 2.11 an hour while the instrument measured; people say that 1 of them holds",
        "12 (30.0%) are unsure; nobody has looked at 11 yet.",
        "Nobody has looked blind at any of the 20 discards",
        "1 alarm, the service ended once without stopping in order, 1 silence, the longest of 2 h 6 min",
        "noise 8 → 16 pN",
        "path: 38 of 40 simulated events found",
        "your events: 1 of 2 shown, 1 discarded",
        "labels by anna 4, ben 4; anna and ben agree on 3 of 4",
        "3 unclaimed .docx",
    ):
        assert said in words
    assert "\x1b" not in words


class Balance(HTMLParser):
    """Every tag that opens closes, in order; links and marks."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_safe_and_answers_the_six_questions(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(state, capsys, "--html", str(tmp_path / "night.html"))
    page = (tmp_path / "night.html").read_text()
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    marks = {value for name, value in balance.attributes if name == "id"}
    links = {str(value).removeprefix("#") for name, value in balance.attributes if name == "href"}
    assert links <= marks
    assert {"missed", "tip", "hours", "people", "discarded", "service"} <= links
    assert "<script" not in page
    assert "\x1b" not in page
    assert not {name for name, _ in balance.attributes} & {"src", "onload", "onclick", "action"}
    assert page.count('<figure id="kept') == 8
    assert page.count('<figure id="pile') == 11
    assert len(re.findall(r"\d pN at \d+ nm", page)) > 8, "kept curves say at which force they broke"
    assert f"{state.parent / 'afm'}/titin/curve-0.jpk-force" in page
    assert page.count("cannot be drawn") == 1  # the discard that people call an event: the ledger has no copy of it
    assert "people: an event" in page
    told(state, capsys, "--since", "20", "--until", "35", "--html", str(tmp_path / "night.html"))
    assert "collect --since 20 --until 35 --csv" in (tmp_path / "night.html").read_text()


def test_nothing_is_written_into_a_watched_folder_nor_half(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = state.parent / "afm" / "night.html"
    before = {one.name: one.read_bytes() for one in state.iterdir() if one.is_file()}
    for where, code in ((inside, 64), (tmp_path, 74), (tmp_path / "none" / "a.html", 74), (Path("/proc/a.html"), 74)):
        assert main(["report", "--state", str(state), "--html", str(where)]) == code
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert str(where) in said
    assert list(inside.parent.iterdir()) == []
    assert list(tmp_path.iterdir()) == []
    assert before == {one.name: one.read_bytes() for one in state.iterdir() if one.is_file()}


def test_a_timer_leaves_a_page_a_night_and_the_last_sixty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite", "afm1")):
        pass
    pages = tmp_path / "reports"
    pages.mkdir()
    for day in range(70):
        (pages / f"{datetime(2020, 1, 1) + timedelta(days=day):%Y-%m-%d}.html").touch()
    (pages / "my own.html").touch()
    assert main(["report", "--state", str(tmp_path), "--unattended"]) == 0
    assert capsys.readouterr().out == ""
    names = sorted(one.name for one in pages.iterdir())
    assert len(names) == 61
    assert names[-1] == "my own.html"
    assert names[-2] == f"{night_of(time.time() - 86_400)}.html" or names[-2] == f"{night_of(time.time())}.html"
    assert "No curve was measured in this time." in (pages / names[-2]).read_text()
    assert main(["report", "--state", str(tmp_path), "--unattended", "--since", "today"]) == 64
    assert main(["status", "--state", str(tmp_path)]) == 69
    assert f"report    {pages / names[-2]}" in capsys.readouterr().out


def test_a_time_without_curves_says_when_the_last_one_came(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(state, capsys, "--since", "2020-01-01", "--until", "2020-01-02")
    assert "No curve was measured in this time." in said
    tomorrow = f"{datetime.now() + timedelta(days=1):%Y-%m-%d}"
    assert "The last one before was measured" in told(state, capsys, "--since", tomorrow)


def test_old_files_that_are_judged_tonight_are_told_and_make_no_empty_months(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    state, now = tmp_path / "state", time.time()
    state.mkdir()
    years = [datetime(year, 3, 5, 14).timestamp() for year in (2009, 2009, 2014, 2026)]
    with closing(Ledger(state / "ledger.sqlite", "afm1")) as ledger:
        made = [judged(number, verdict="keep", acquired_s=when) for number, when in enumerate(years)]
        ledger.record([*made, judged(9, verdict="discard", score=0.001, acquired_s=now - 60)])
        stream = ledger.stream
    with Logbook(state / NAME, stream) as book:
        book.note_run(Run(rfc3339(now - 600), rfc3339(now - 5), rfc3339(now - 5), "0.1.0", "torch-cpu-bf16"))
        book.write()
    report = json.loads(told(state, capsys, "--json"))
    assert report["older"] == {"curves": 4, "keep": 4, "after": 0}
    said = " ".join(told(state, capsys).split())
    assert "None of 1 curve was kept. 4 more curves (4 kept) were judged in this time" in said
    assert "`--since 0` has them too" in said
    assert "Everything was well in the 9 min that the service ran." in said
    every = json.loads(told(state, capsys, "--since", "0", "--json"))
    assert sum(one["keep"] for one in every["bars"]) == 4
    assert 3 <= len(every["bars"]) <= 4, "months without a curve are left out"
    assert every["silences"] == [], "the service did not run yet"
    assert every["per_hour"] is None
    assert "Thu 05 Mar 2009 14:00" in told(state, capsys, "--since", "0")
    before = " ".join(told(state, capsys, "--since", "2020-01-01", "--until", "2020-01-02").split())
    assert "The service did not run in this time" in before
    assert "Everything was well" not in before


def test_a_part_of_a_night_has_its_own_discards_below_the_bound_of_the_night(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite", "afm1")) as ledger:
        ledger.record([judged(number, verdict="discard", score=0.001) for number in range(30)])
    report = gather(load(Flags(keys={"state": str(tmp_path)})), Span(after=20))
    assert (report.missed.discards, report.missed.of_nights) == (10, 30)
    assert "any of the 10 discards of this time" in missed_in_all(report)


def test_what_cannot_be_read_is_told_and_the_rest_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite", "afm1")) as ledger:
        ledger.record([judged(1, acquired_s=time.time() + 3_600.0), judged(2, acquired_s=None)])
    (tmp_path / "labels.sqlite").write_bytes(b"no database at all" * 100)
    (tmp_path / NAME).touch()  # as a full disk leaves it, which takes no table
    report = json.loads(told(tmp_path, capsys, "--json"))
    assert sum(report["counts"].values()) == 2
    notes = " ".join(report["notes"])
    for said in (
        "what people said is not told",
        "restarts and the tip are not told",
        "1 curve without a time of measurement",
        "is the clock of the instrument",
    ):
        assert said in notes
    assert main(["report", "--state", str(tmp_path / "nowhere")]) == 69


def test_a_bound_of_some_nights_counts_their_discards_alone(tmp_path: Path) -> None:
    now_s = time.time()
    with closing(Ledger(tmp_path / "ledger.sqlite", "afm1")) as ledger:
        ledger.record([judged(number, verdict="discard", score=0.001) for number in range(30)])
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as changed, changed:
        changed.execute("update audits set night = ?", (night_of(now_s - 10 * 86_400),))
    with closing(Ledger(tmp_path / "ledger.sqlite", "afm1")) as ledger:
        ledger.record([judged(number, verdict="discard", score=0.001) for number in range(30, 37)])
    with LedgerView(tmp_path / "ledger.sqlite") as view:
        pipeline = view.last(1)[0]["data"]["pipeline"]
        every, tonight = unseen(view, None, pipeline), unseen(view, None, pipeline, {night_of(now_s)})
        assert (every.discards, every.nights) == (37, 2)
        assert (tonight.discards, tonight.nights) == (7, 1)


@pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no browser, or no driver")
def test_nothing_of_either_page_is_cut_at_any_width_and_a_click_enlarges(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("selenium.webdriver")
    from tests.test_daemon_report import JUDGE
    from tests.test_daemon_report import judged as labelled
    from tests.test_review_page import Browser

    told(state, capsys, "--html", str(tmp_path / "night.html"))
    (tmp_path / "evaluate.html").write_text(write_html(evaluate(labelled(), JUDGE), labelled()))
    beyond = """return [...document.querySelectorAll('h1, h2, p, li, td, th, figcaption, svg')].filter(
        one => one.getBoundingClientRect().right > innerWidth + 1).length"""
    browser = Browser()
    try:
        for name in ("night.html", "evaluate.html"):
            for width in (400, 1200, 1600):
                browser.size(width, 900)
                browser.driver.get((tmp_path / name).as_uri())
                assert browser.run(beyond) == 0, f"{name} is cut at {width} pixels"
                charts = (
                    "return [...document.querySelectorAll('.diagrams svg')].map(one => Math.round(one.clientWidth))"
                )
                assert len(set(browser.run(charts))) == 1, f"charts of {name} have several sizes at {width} pixels"
        wide = "return document.querySelector('.thumbnails figure').getBoundingClientRect().width"
        before = browser.run(wide)
        browser.find(".thumbnails figure a:not(.back)").click()
        assert browser.run(wide) > 4 * before
        browser.find(".thumbnails figure a.back").click()
        assert browser.run(wide) == before
    finally:
        browser.driver.quit()
