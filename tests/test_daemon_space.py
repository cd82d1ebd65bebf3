"""The space: a disk that fills is told in time, and what nobody waits for goes first."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.config import Config
from daemon.config.rule import SpaceConfig
from daemon.ledger import Ledger
from daemon.ledger.numbers import Disk
from daemon.ledger.space import LOOK_S, DiskWatch, FullWarning, SpaceCare

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
