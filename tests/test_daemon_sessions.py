"""Sessions: ranges of decisions with what people say of them, and what a new day folder begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from daemon.common.errors import UserError
from daemon.labels import Labels
from daemon.labels.sessions import Sessions, day_of
from daemon.ledger import Ledger
from tests.ledgerhelp import decisions, ledger_with


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
    ],
)
def test_the_first_part_with_a_date_is_the_day_folder(path: str, folder: str, day: tuple[int, int, int]) -> None:
    assert day_of(path) == (folder, date(*day))


@pytest.mark.parametrize("path", ["2026-11-27.ibw", "run7/2026-11-27.ibw", "120261127/a", "2026-13-27/a", "x/a", ""])
def test_what_is_no_date_begins_nothing(path: str) -> None:
    assert day_of(path) is None
