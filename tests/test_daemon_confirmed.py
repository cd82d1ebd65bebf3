"""Confirmed events: what was kept live stays what it was, and a later model changes only the later number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from adapthelp import Night

from daemon.common.errors import UserError
from daemon.judging import Thresholds
from daemon.labels import Labels, Locked
from daemon.labels.confirmed import Said, as_decided, events_of, your_events
from daemon.labels.sessions import Sessions
from daemon.ledger import LedgerView
from models.metrics import clopper_pearson

OTHER = "raster:v1|model:another|calib:another|thr:1"


@pytest.fixture
def night(tmp_path: Path) -> Night:
    """Nine events of which six were kept, two flagged and one discarded; one curve that holds none."""
    night = Night(tmp_path)
    night.decide([4.0, 4.1, 4.2, 4.3, 4.4, 4.5, 0.5, 0.6, -3.0, -3.1])
    night.say("keep", range(1, 10))
    night.say("discard", [10])
    return night


def test_live_and_now_are_counted_with_exact_intervals(night: Night) -> None:
    base = night.base
    with LedgerView(night.state / "ledger.sqlite") as view, Labels(night.state / "labels.sqlite") as labels:
        assert events_of(labels) == set(range(1, 10))
        said = your_events(as_decided(view, events_of(labels)), base.pipeline, Thresholds(base.discard, base.keep))
    assert (said.confirmed, said.kept_live, said.shown_live) == (9, 6, 8)
    assert (said.scored_now, said.found_now) == (9, 8)
    assert (said.live_low, said.live_high) == clopper_pearson(6, 9)
    assert (said.low, said.high) == clopper_pearson(8, 9)
    assert (said.shown_low, said.shown_high) == clopper_pearson(8, 9)
    assert said.text == (
        "8 of 9 confirmed events were shown to you live (51.7 % to 99.8 %): "
        "6 kept (29.9 % to 92.6 %), 2 for review, 1 discarded"
    )
    assert said.session is None


def test_one_whom_another_rater_contradicts_is_not_confirmed(night: Night) -> None:
    night.say("unsure", [1], rater="bob")
    with Labels(night.state / "labels.sqlite") as labels:
        assert 1 not in events_of(labels)


def test_a_later_model_changes_only_the_later_number(night: Night) -> None:
    """In all and in the session: another network discards four of them, a third one finds every one."""
    base = night.base
    thresholds = Thresholds(base.discard, base.keep)
    with LedgerView(night.state / "ledger.sqlite") as view, Labels(night.state / "labels.sqlite") as labels:
        sessions = Sessions(labels)
        sessions.begin(name="the second half", before={"keep": 4, "review": 0, "discard": 0})
        decided, session = as_decided(view, events_of(labels)), sessions.current()
    before = your_events(decided, base.pipeline, thresholds, session)
    assert before.session is not None
    assert (before.session.confirmed, before.session.shown_live, before.session.kept_live) == (5, 4, 2)
    worse = {seq: Said(0.0 if seq < 5 else 0.9, ("score",)) for seq in range(1, 9)}  # of the ninth there is no copy
    for later, found, scored in ((worse, 4, 8), ({seq: Said(0.99, ("score",)) for seq in range(1, 10)}, 9, 9)):
        after = your_events(decided, OTHER, thresholds, session, later)
        assert (after.found_now, after.scored_now) == (found, scored)
        assert (after.low, after.high) == clopper_pearson(found, scored)
        for name in ("confirmed", "kept_live", "shown_live", "shown_low", "live_low", "live_high", "session", "text"):
            assert getattr(after, name) == getattr(before, name), name


def test_a_doubt_keeps_an_event_from_being_lost_now(night: Night) -> None:
    base = night.base
    with LedgerView(night.state / "ledger.sqlite") as view:
        decided = as_decided(view, [9])
    doubtful = {9: Said(0.0, ("score", "still_attached"))}
    assert your_events(decided, OTHER, Thresholds(base.discard, base.keep), None, doubtful).found_now == 1


def test_before_anybody_has_confirmed_one_nothing_is_claimed() -> None:
    said = your_events([], OTHER, Thresholds(0.1, 0.9))
    assert (said.confirmed, said.low, said.high, said.live_low, said.live_high) == (0, None, None, None, None)
    assert "label some" in said.text


def test_reading_the_labels_never_makes_or_changes_their_file(night: Night, tmp_path: Path) -> None:
    file = night.state / "labels.sqlite"
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    with Labels(file, is_reading=True) as labels:
        assert len(events_of(labels)) == 9
        with pytest.raises(UserError, match="readonly"):
            labels.change("delete from labels")
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    elsewhere = tmp_path / "empty"
    elsewhere.mkdir()
    with pytest.raises(UserError):
        Labels(elsewhere / "labels.sqlite", is_reading=True)
    assert os.listdir(elsewhere) == []


def test_who_reads_waits_no_longer_than_asked(night: Night) -> None:
    file = night.state / "labels.sqlite"
    with Labels(file) as writer, Labels(file, patience_s=0.05, is_reading=True) as reader:
        writer.change("delete from sheets")
        writer._connection.execute("begin exclusive")
        with pytest.raises(Locked):
            events_of(reader)
        writer._connection.execute("rollback")
        assert len(events_of(reader)) == 9
