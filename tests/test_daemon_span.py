"""WHEN: what people write, and what a ledger finds of it: by the time of acquisition, whenever it was decided."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest

from daemon.common.errors import UserError
from daemon.ledger import Ledger, LedgerView, file
from daemon.ledger.span import EVER, Span
from tests.ledgerhelp import as_version_2, decision

NOON = datetime(2026, 11, 28, 12, 0).timestamp()


def at(hour: float, day: int = 28) -> float:
    return datetime(2026, 11, day).timestamp() + 3600 * hour


@pytest.mark.parametrize(
    ("since", "until", "span"),
    [
        (None, None, EVER),
        ("today", None, Span(since_s=at(0))),
        ("yesterday", "yesterday", Span(since_s=at(0, 27), until_s=at(0))),
        ("2026-11-26", "2026-11-27", Span(since_s=at(0, 26), until_s=at(0))),
        ("2026-11-27T22:00", "2026-11-28 06:30", Span(since_s=at(22, 27), until_s=at(6.5))),
        ("1970-01-01T00:00:10Z", "1970-01-01T01:00:20+01:00", Span(since_s=10.0, until_s=20.0)),
        ("41", "42", Span(after=41, last=42)),
        ("0", "Today", Span(until_s=at(24))),
        ("2D", "12h", Span(since_s=at(12, 26), until_s=at(0))),
    ],
)
def test_what_people_write(since: str | None, until: str | None, span: Span) -> None:
    assert Span.parse(since, until, NOON) == span


@pytest.mark.parametrize("nonsense", ["tomorrow", "", "2026-13-01", "27.11.2026", "22:00", "-1", "9" * 30, "1.5h"])
def test_nonsense_is_told_with_what_to_write(nonsense: str) -> None:
    for words in ((nonsense, None), (None, nonsense)):
        with pytest.raises(UserError, match=r"write today, yesterday, a day \(2026-11-27\)") as refusal:
            Span.parse(*words, NOON)
        assert refusal.value.exit_code == 64


def test_an_end_before_the_beginning_is_refused() -> None:
    for since, until in (("2026-11-28", "2026-11-27"), ("2026-11-28T08:00", "2026-11-28T08:00"), ("42", "41")):
        with pytest.raises(UserError, match="exchange them"):
            Span.parse(since, until, NOON)


def test_a_span_says_itself_in_words() -> None:
    assert Span.parse("yesterday", "today", NOON).text == "since 2026-11-27 00:00, until 2026-11-29 00:00"
    assert Span.parse("41", "42", NOON).text == "behind decision 41, up to decision 42"
    assert Span.parse("99999d", now_s=NOON).text.startswith("since 1753-02-1")
    assert EVER.text == "since the ledger began"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Curves of one night, decided out of order; one of a month before, one that nobody dates, one of a wrong clock."""
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, "afm1")
    measured: list[float | None] = [at(3), at(1), at(2), at(2), at(0, 1), None, at(0) + 86_400 * 3650, at(23, 27)]
    ledger.record(
        [
            decision(
                number,
                acquired_s=when,
                verdict=("keep", "discard")[number % 2],
                score=None if number == 3 else number / 10,
                path="caf\udce9.txt" if number == 2 else f"{number}.txt",  # bytes that are no UTF-8
            )
            for number, when in enumerate(measured, start=1)
        ]
    )
    ledger.close()
    return path


def seqs(view: LedgerView, span: Span = EVER, **asked: object) -> list[int]:
    found = [event["seq"] for event in view.within(span, **asked)]  # type: ignore[arg-type] - as a test asks
    assert len(found) == view.count_within(span, **asked)  # type: ignore[arg-type] - the same
    return found


def look(path: Path) -> None:
    """All that is known of these curves, whichever way the ledger finds it."""
    night = Span.parse("2026-11-27T20:00", "2026-11-28T02:30", NOON)
    with LedgerView(path) as view:
        decided = datetime.fromisoformat(next(iter(view.decisions([6]).values()))["time"]).timestamp()
        assert abs(decided - time.time()) < 60
        measured = {1: at(3), 2: at(1), 3: at(2), 4: at(2), 5: at(0, 1), 6: decided, 8: at(23, 27)}
        assert seqs(view) == [*sorted(measured, key=measured.__getitem__), 7]
        assert seqs(view, night) == [8, 2, 3, 4]
        assert seqs(view, night, verdicts={"keep"}) == [8, 2, 4]
        assert seqs(view, night, min_score=0.4) == [8, 4]
        assert seqs(view, night, session=(3, None)) == [8, 3, 4]
        assert seqs(view, night, session=(1, 2)) == [2]
        assert seqs(view, Span(after=5, last=7)) == [6, 7]
        assert seqs(view, Span(last=0), session=(1, 0)) == []


def test_a_night_is_found_by_acquisition(path: Path) -> None:
    look(path)


def test_a_ledger_of_a_version_before_is_looked_through_until_its_times_are_noted(path: Path) -> None:
    as_version_2(path)
    look(path)
    ledger = Ledger(path, "afm1")  # a service starts, and brings it up to date beside its work
    look(path)
    while ledger.do_chore():
        look(path)
    look(path)
    ledger.close()
    assert len(file.MIGRATIONS) == file.TIMES_SINCE
