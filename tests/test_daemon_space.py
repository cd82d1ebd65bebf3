"""The space: a disk that fills is told in time, and what nobody waits for goes first."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import count as count_from
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from daemon.cli import main
from daemon.common.errors import UserError
from daemon.config import Config
from daemon.config.rule import SpaceConfig
from daemon.judging import Decision
from daemon.judging.audit import LEAST, draw
from daemon.labels import Label, Labels
from daemon.ledger import Ledger
from daemon.ledger.numbers import Disk
from daemon.ledger.space import LOOK_S, DiskWatch, FullWarning, Pruner, SpaceCare
from daemon.sources.ingest import Spool, digest_noted
from daemon.sources.message import Refused, check_same, content_of, parse
from models.clock import utc_now
from tests.ledgerhelp import decision, decisions

GB, HOUR_S, DAY_S = 1 << 30, 3600.0, 86_400.0


def watched(free: Callable[[float], float], hours: float) -> DiskWatch:
    """After so many hours of looks at what is free at a moment."""
    watch = DiskWatch()
    for look in range(int(hours * HOUR_S / LOOK_S) + 1):
        watch.note(look * LOOK_S, int(free(look * LOOK_S)))
    return watch


def test_a_disk_that_others_fill_is_told_a_day_before() -> None:
    watch = watched(lambda now_s: 100 * GB - 3 * GB / HOUR_S * now_s, 10)
    assert watch.full_s() == pytest.approx(70 / 3 * HOUR_S, rel=0.02)


def test_a_disk_that_fills_within_minutes_is_told_within_minutes() -> None:
    watch = watched(lambda now_s: 12 * GB - 120 * GB / HOUR_S * now_s, 4 / 60)
    assert watch.full_s() == pytest.approx(120, rel=0.05)


@pytest.mark.parametrize(
    "free",
    [
        pytest.param(lambda now_s: 100 * GB, id="quiet"),
        pytest.param(lambda now_s: 30 * GB + 10 * GB * (now_s % HOUR_S) / HOUR_S, id="files come and go"),
        pytest.param(lambda now_s: 200 * GB - 50 * GB * min(max(now_s / HOUR_S - 9.5, 0.0) * 12, 1.0), id="one copy"),
        pytest.param(lambda now_s: 10 * GB + now_s, id="is emptied"),
    ],
)
def test_a_disk_that_does_not_fill_is_silent(free: Callable[[float], float]) -> None:
    assert watched(free, 10).full_s() > DAY_S


def test_nothing_is_told_of_a_disk_that_was_just_looked_at() -> None:
    assert watched(lambda now_s: GB - now_s * 1e6, 1 / 60).full_s() == math.inf


def test_a_warning_stays_until_it_is_quiet_or_there_is_room() -> None:
    def told(warning: FullWarning, now_s: float, full_s: float | None, free: int = 10) -> bool:
        warning.observe(now_s, Disk(free_bytes=free, full_s=full_s), DAY_S)
        return warning.full_s is not None

    warning = FullWarning()
    assert not told(warning, 0, 2 * DAY_S)
    assert told(warning, 10, 3600.0)
    assert told(warning, 20, None)
    assert not told(warning, 20 + 900, None)
    assert told(warning, 1000, 3600.0)
    assert not told(warning, 1010, None, free=20)


def test_the_warning_names_the_disk_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter(range(3 * GB, 0, -(GB // 10)))
    monkeypatch.setattr("daemon.ledger.space.free_bytes", lambda state: next(free))
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    care = SpaceCare(Config(state=tmp_path, space=SpaceConfig()), ledger, lambda what, curves: None)
    looks = iter(range(30))
    while not care.text:
        care.look(next(looks) * LOOK_S)
    assert 17 <= next(looks) <= 19, "after three minutes"
    assert f"the disk of {tmp_path} is full in 2 min at the present rate, 1.3 GB are free" in care.text
    assert "ledger size" in care.text
    ledger.close()


# What goes when a budget is full.

COPY = b"a compact copy" * 100


def drawn(start: int, count: int) -> list[Decision]:
    """Discards that are drawn for audit, by their identity."""
    found = (one for one in map(decision, count_from(start)) if draw(one.identity) < LEAST)
    return [replace(one, verdict="discard", score=0.01, compact_copy=COPY) for one in islice(found, count)]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Ten audited discards of two months ago, a disputed one, a kept and a flagged curve; ten discards of today."""
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    others = [
        decision(1, verdict="discard", is_disputed=True, compact_copy=COPY),
        decision(2, verdict="keep", compact_copy=COPY),
        decision(3, verdict="review", compact_copy=COPY),
    ]
    ledger.record([*drawn(100, 10), *others])
    ledger.close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)) as database:
        database.execute("update audits set night = '2026-01-01'")
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    ledger.record(drawn(10_000, 10))
    ledger.close()
    return tmp_path


def copies_in(state: Path) -> dict[int, int]:
    """``seq`` of every look with a copy, and of every flagged curve -> its bytes."""
    query = "select seq, length(copy) from looks where copy is not null union select seq, length(keepsake) from reviews"
    with closing(sqlite3.connect(state / "ledger.sqlite")) as database:
        return dict(database.execute(query))


def test_only_what_nobody_waits_for_goes_and_the_oldest_first(state: Path) -> None:
    old, labelled = range(1, 11), 2
    with Labels(state / "labels.sqlite") as labels:
        sha256 = drawn(100, 10)[labelled - 1].sha256
        labels.add([Label(path="x", curve=0, sha256=sha256, label="keep", rater="ada", reason="", time=utc_now())])
    before = copies_in(state)
    assert len(before) == 23
    dry = Pruner(state, None).copies(before[1] * 20)
    assert (dry.curves, copies_in(state)) == (3, before)
    ledger = Ledger(state / "ledger.sqlite", "afm1")
    went = Pruner(state, ledger).copies(before[1] * 20)
    assert went == dry
    assert before.keys() - copies_in(state).keys() == {1, 3, 4}
    rest = Pruner(state, ledger).copies(0)
    assert before.keys() - copies_in(state).keys() == set(old) - {labelled}
    assert rest.left_bytes == sum(copies_in(state).values())
    assert ledger.last_seq == 23
    ledger.close()


def test_what_is_labelled_or_drawn_while_others_go_stays(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.ledger.space._PORTION", 4)
    ledger = Ledger(state / "ledger.sqlite", "afm1")
    labelled = drawn(100, 10)[9]

    def meanwhile() -> bool:
        if ledger.last_seq == 23:
            ledger.record(drawn(20_000, 1))
            with Labels(state / "labels.sqlite") as labels:
                said = {"path": "x", "curve": 0, "label": "keep", "rater": "ada"}
                labels.add([Label(**said, sha256=labelled.sha256, time=utc_now())])
        return False

    went = Pruner(state, ledger, meanwhile).copies(0)
    ledger.close()
    assert went.curves == 9
    assert {10, 24} <= copies_in(state).keys(), "the tenth was labelled, and the 24th drawn, when four had gone"


def test_where_the_labels_cannot_be_read_nothing_goes(state: Path) -> None:
    (state / "labels.sqlite").write_bytes(b"no database" * 1000)
    before = copies_in(state)
    ledger = Ledger(state / "ledger.sqlite", "afm1")
    with pytest.raises(UserError, match="nothing is pruned"):
        Pruner(state, ledger).copies(0)
    ledger.close()
    assert copies_in(state) == before


def test_what_goes_is_given_back_to_the_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    ledger.record([replace(one, compact_copy=b"x" * 100_000) for one in drawn(1, 40)])
    ledger.tend(lambda database: database.execute("update audits set night = '2026-01-01'"))
    ledger.close()
    before_bytes = (tmp_path / "ledger.sqlite").stat().st_size
    assert main(["ledger", "prune", "--state", str(tmp_path), "--copies-bytes", "0", "--dry-run"]) == 0
    assert "40 curves would go" in capsys.readouterr().out
    assert main(["ledger", "prune", "--state", str(tmp_path), "--copies-bytes", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["copies"] == {"curves": 40, "freed_bytes": 4_000_000, "left_bytes": 0}
    assert before_bytes - (tmp_path / "ledger.sqlite").stat().st_size > 3_900_000


def test_a_running_service_gives_back_what_goes_and_sees_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite cuts the file off at a checkpoint, which is none that somebody else did."""
    monkeypatch.setattr("daemon.ledger.file._CHECKPOINT_PAGES", 1)
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    ledger.record([replace(one, compact_copy=b"x" * 100_000) for one in drawn(1, 40)])
    ledger.tend(lambda database: database.execute("update audits set night = '2026-01-01'"))
    ledger.record([decision(1)])
    before_bytes = (tmp_path / "ledger.sqlite").stat().st_size
    gone = dict[str, int]()
    care = SpaceCare(Config(state=tmp_path, space=SpaceConfig(copies_bytes=1)), ledger, gone.__setitem__)
    care.keep_budgets()
    assert gone == {"copies": 40}
    assert ledger.record(decisions(2, 12)) == list(range(42, 52))
    assert ledger.look().is_well
    assert not ledger.wants_check
    assert before_bytes - (tmp_path / "ledger.sqlite").stat().st_size > 3_900_000
    ledger.close()


def test_an_id_that_was_pruned_stays_taken(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite", "afm1")
    spool, messages = Spool(tmp_path / "ingest"), [parse(frames(number)) for number in range(3)]
    spool.open()
    paths = [spool.write(one.id, content_of(one)) for one in messages]
    verdicts = ("discard", "keep", "discard")
    ledger.record(
        [
            decision(number, identity=f"ingest:{one.id}#0", verdict=verdict, source="ingest")
            for number, (one, verdict) in enumerate(zip(messages[:2], verdicts, strict=False), 10)
        ]
    )
    went = Pruner(tmp_path, ledger).spool(0)
    ledger.close()
    assert (went.curves, [path.exists() for path in paths]) == (1, [False, True, True]), "kept, or not decided yet"
    again = Spool(tmp_path / "ingest")
    assert again.open() == paths[1:]
    found = again.find(messages[0].id)
    assert found == paths[0]
    check_same(messages[0], found, partial(digest_noted, found))
    other = parse(frames(7, id=messages[0].id))
    with pytest.raises(Refused, match="was given to another curve"):
        check_same(other, found, partial(digest_noted, found))


def frames(number: int, **header: object) -> list[bytes]:
    said = {"id": f"curve-{number}", "name": f"curve-{number}", "dtype": "<f8", "force_unit": "N"}
    said |= {"pulling": "positive", "distance_grows": "away", **header}
    return [json.dumps(said).encode(), (np.arange(100.0) + number).tobytes(), b""]
