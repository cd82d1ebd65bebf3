"""The backlog: the rest of a map that cannot be had any more still gets its answers."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from makers import make_jpk, make_jpk_map
from test_daemon_reader import arrive, collect, reasons

from daemon import pipeline
from daemon.pipeline import Backlog
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival, SourceHealth


def next_of(line: Backlog) -> Arrival:
    until_s = time.monotonic() + 10
    while time.monotonic() < until_s:
        if found := line.take(1, 1):
            return found[0]
        assert line.ready() == 1
        time.sleep(0.005)
    raise AssertionError("nothing came")


def test_the_rest_of_a_map_that_has_gone_is_asked_for_a_while_and_then_told_curve_by_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_RETRY_S", (0.01, 0.02, 0.03))
    line, asked = Backlog([]), 0
    with ReaderPool(1) as pool:
        whole = arrive(tmp_path / "m.jpk-force-map", make_jpk_map(40))
        pool.submit([whole])
        (first,) = collect(pool, 1)
        others = [arrive(tmp_path / f"{seed}.jpk-force-map", make_jpk_map(2, seed=seed)) for seed in (8, 9)]
        pool.submit(others)  # take the places in the cache
        collect(pool, 2)
        whole.file.unlink()
        line.add_portion(whole.portion(32, first.readings[0].sha256, first.total))
        while True:
            pool.submit([next_of(line)])
            (rest,) = collect(pool, 1)
            asked += 1
            if rest.outcome == "curves":
                break
            line.later(rest.arrival, rest.reason or "")
    assert asked == 4
    assert [(one.index, one.reason) for one in rest.readings] == [(index, "vanished") for index in range(32, 40)]
    assert line.ready() == 0


def test_a_share_that_comes_back_in_time_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_RETRY_S", (0.01,) * 3)
    line, away = Backlog([]), tmp_path / "away"
    with ReaderPool(1) as pool:
        whole = arrive(tmp_path / "m.jpk-force-map", make_jpk_map(40))
        pool.submit([whole])
        (first,) = collect(pool, 1)
        others = [arrive(tmp_path / f"{seed}.jpk-force-map", make_jpk_map(2, seed=seed)) for seed in (8, 9)]
        pool.submit(others)  # take the places in the cache
        collect(pool, 2)
        whole.file.rename(away)
        line.add_portion(whole.portion(32, first.readings[0].sha256, first.total))
        pool.submit([next_of(line)])
        (gone,) = collect(pool, 1)
        line.later(gone.arrival, gone.reason or "")
        away.rename(whole.file)
        pool.submit([next_of(line)])
        (rest,) = collect(pool, 1)
    assert (gone.outcome, gone.reason) == ("unfinished", "vanished")
    assert reasons(rest) == [None] * 8


class _Watched:
    """A source with one folder, which is well or not."""

    name, is_well = "watch", False

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def take(self, limit: int, large: int) -> list[Arrival]:
        return []

    def ready(self) -> int:
        return 0

    def oldest_pending_s(self) -> float | None:
        return None

    def health(self) -> list[SourceHealth]:
        return [SourceHealth("/far", self.is_well, "", 0)]


def test_the_rest_of_a_map_waits_for_its_share_as_long_as_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_RETRY_S", (0.01,) * 3)
    watched = _Watched()
    line = Backlog([watched])
    rest = replace(arrive(tmp_path / "m.jpk-force-map", b"x"), folder="/far").portion(32, "0", 40)
    line.add_portion(rest)
    for _ in range(6):  # unmounted: all looks deleted
        again = next_of(line)
        assert not again.final
        line.later(again, "vanished")
    watched.is_well = True
    for _ in range(3):
        line.later(next_of(line), "vanished")
    assert next_of(line).final


def test_single_files_still_go_back_to_their_source(tmp_path: Path) -> None:
    answers: list[tuple[str, bool, str | None]] = []
    line = Backlog([])
    arrival = arrive(tmp_path / "a.jpk-force", make_jpk())
    arrival = replace(arrival, answer=lambda one, is_done, reason: answers.append((one.path, is_done, reason)))
    line.later(arrival, "truncated")
    line.done(arrival)
    line.done(arrival, "image")
    assert answers == [
        ("a.jpk-force", False, "truncated"),
        ("a.jpk-force", True, None),
        ("a.jpk-force", True, "image"),
    ]
    assert line.ready() == 0
