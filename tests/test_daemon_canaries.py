"""The canaries: made by the clock, told apart from data, and an alarm when the line loses them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from guardhelp import judged
from ledgerhelp import JUDGE
from modelhelp import make_model

import models.simulate
from daemon import instrument
from daemon.common.errors import UserError
from daemon.config import GuardConfig
from daemon.guard import canaries
from daemon.guard.canaries import BURST, LOST_S, START_S, Canary, CanarySource, Outcome, PathWatch
from daemon.judging import CutOrigin, Judged, Thresholds, identity_of, loss
from daemon.judging.judge import Serving
from daemon.metrics import Metrics
from daemon.processes.child import launch
from daemon.sources import Arrival
from deploy.classifier import EngineId
from models.anytime import burst_limit
from models.bundle import SHIPPED, read
from models.clock import Clock

SETTINGS = GuardConfig()


class Time:
    """Both clocks; a second passes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    @property
    def clock(self) -> Clock:
        return Clock(wall_s=lambda: 1.7e9 + self.now_s, steady_s=lambda: self.now_s)


class Line:
    """A source without its thread, and a line that judges what it offers as ``verdict`` has it."""

    def __init__(self, folder: Path, settings: GuardConfig = SETTINGS) -> None:
        self.time = Time()
        self.source = CanarySource(folder / "canaries", settings, clock=self.time.clock)
        self.outcomes: list[Outcome] = []
        self.taken: list[tuple[float, Arrival]] = []

    def run(self, seconds: float, curves_per_s: float = 0.0, waited_s: float = 0.0, comes_out: bool = True) -> int:
        """How many canaries were sent meanwhile."""
        before, owed = len(self.taken), 0.0
        for _ in range(round(seconds * 10)):
            self.time.now_s += 0.1
            self.source.step()
            owed += curves_per_s / 10
            batch, curves = list[Judged](), int(owed)
            owed -= curves
            for arrival in self.source.take(32, 2):
                self.taken.append((self.time.now_s, arrival))
                if comes_out:
                    batch.append(out(arrival))
                    arrival.done()
            self.outcomes += self.source.observe(batch, curves, self.time.now_s - waited_s)
        return len(self.taken) - before


def out(arrival: Arrival, **changes: Any) -> Judged:
    """What the line says of a canary."""
    one = judged(1, verdict="keep", **changes)
    return replace(one, reading=replace(one.reading, arrival=arrival))


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """Whose curves cost nothing to make."""
    monkeypatch.setattr(models.simulate, "simulate", lambda *_: [SimpleNamespace(curve=None)])
    monkeypatch.setattr(instrument, "pack", lambda _: b"a curve")
    return Line(tmp_path)


# The source.


def test_one_goes_every_30_s_at_rest_and_every_5_s_while_curves_come(line: Line) -> None:
    assert line.run(301) == 10
    assert line.run(300, curves_per_s=1) == pytest.approx(60, abs=2)
    line.run(40)
    assert line.run(301) == 10


def test_a_burst_goes_three_a_second_at_rest_and_one_in_six_holds_no_event(line: Line) -> None:
    line.source.burst()
    assert line.run(10) == pytest.approx(30, abs=3)
    line.run(60)
    assert line.run(60) <= 3, "it is over"
    kinds = [one.canary.kind for one in line.outcomes]
    of_burst = [one.canary.kind for one in line.outcomes if one.canary.burst == 1]
    assert of_burst.count("event") == BURST
    assert kinds.count("event_free") == len(kinds) // 6


@pytest.mark.parametrize("rate", [4, 40, 400])
def test_while_curves_wait_canaries_are_no_more_than_a_twentieth_of_the_line(line: Line, rate: int) -> None:
    line.run(1, rate, waited_s=30.0)
    line.source.burst()
    sent, curves = line.run(60, rate, waited_s=30.0), 60 * rate
    assert sent <= 0.05 * (curves + sent) + 5
    assert sent >= 12, "the clock goes on"


def test_the_first_one_leaves_the_start_alone(line: Line) -> None:
    line.source._begin_s = line.time.now_s + START_S
    line.source.burst()
    assert line.run(START_S - 0.2) == 0
    assert line.run(1.0) > 0


def test_every_curve_is_fresh_and_no_file_stays(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "other"):
        line = Line(tmp_path / name)
        line.source._folder.parent.mkdir()
        line.source.burst()
        line.run(2, comes_out=False)
        contents += [arrival.file.read_bytes() for _, arrival in line.taken]
        for _, arrival in line.taken:
            arrival.done()
        line.run(0.1, comes_out=False)
        line.source.stop()
        assert not list(line.source._folder.iterdir())
    assert len(set(contents)) == len(contents) >= 12


def test_what_an_earlier_run_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    source = CanarySource(tmp_path, SETTINGS)
    for name in ("canary-00000007.jpk-force", "a-persons.jpk-force"):
        (tmp_path / name).write_bytes(b"")
    source.start()
    while [file.name for file in tmp_path.iterdir()] != ["a-persons.jpk-force"]:
        time.sleep(0.01)
    source.stop()


def test_one_that_does_not_come_out_is_lost_but_not_while_the_line_stands(line: Line) -> None:
    line.run(31, comes_out=False)
    assert line.source.pending == 1
    line.source.is_held = lambda: True
    assert line.run(600, comes_out=False) == 0, "into a line that stands none is sent"
    assert line.source.lost() == []
    line.source.is_held = lambda: False
    line.run(LOST_S - 2, comes_out=False)
    assert line.source.lost() == []
    line.run(2, comes_out=False)
    assert [one.result for one in line.source.lost()] == ["lost"]
    late = out(line.taken[0][1])
    assert line.source.observe([late]) == [], "it was counted"


def test_one_that_is_unreadable_is_lost_and_an_odd_one_is_not(line: Line) -> None:
    line.run(31, comes_out=False)
    line.taken[0][1].later("truncated")
    assert [one.result for one in line.source.lost()] == ["lost"]
    for reason, result in {"engine_fault": "lost", "crash": "lost", "noise_out_of_range": "found"}.items():
        assert Outcome(Canary("event"), judged(1, verdict="review", score=None, reasons=(reason,))).result == result
    assert Outcome(Canary("event"), judged(1, verdict="review", reasons=("score", "no_certificate"))).result == "missed"


def test_no_more_than_a_handful_are_ahead_of_a_line_that_is_busy(line: Line) -> None:
    line.source.burst()
    for _ in range(100):
        line.time.now_s += 0.3
        line.source.step()
    assert line.source.ready() == line.source.pending == 8


def test_one_key_switches_them_off_and_on_again(tmp_path: Path) -> None:
    line = Line(tmp_path, GuardConfig(canaries=False))
    line.source.burst()
    line.source.send(b"a copy", 7)
    assert line.run(100, 10) == 0
    line.source.settings = SETTINGS
    assert line.run(100) > 0
    assert all(one.canary.kind != "yours" for one in line.outcomes)


def test_a_copy_comes_out_as_yours_and_a_second_one_is_no_duplicate(line: Line) -> None:
    line.source.send(b"a copy", 7)
    line.source.send(b"a copy", 7)
    line.run(2)
    assert [(one.canary.kind, one.canary.seq) for one in line.outcomes] == [("yours", 7), ("yours", 7)]
    one, other = (identity_of(replace(judged(1).reading, arrival=arrival)) for _, arrival in line.taken)
    assert one != other


def test_a_folder_that_takes_no_file_is_told_and_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canaries, "START_S", 0.0)
    monkeypatch.setattr(canaries, "_LOOK_S", 0.05)
    (tmp_path / "canaries").write_text("no folder")
    source = CanarySource(tmp_path / "canaries", SETTINGS)
    source.burst()
    source.start()
    try:
        until_s = time.monotonic() + 10
        while not source.trouble:
            assert time.monotonic() < until_s
            time.sleep(0.05)
        assert "no canary can be made" in source.trouble
        (tmp_path / "canaries").unlink()
        while source.trouble or not source.ready():
            assert time.monotonic() < until_s
            time.sleep(0.05)
    finally:
        source.stop()


def test_behind_a_link_nothing_is_written_or_removed(tmp_path: Path) -> None:
    """The laboratory's files may have any name, and the trouble is told for as long as it lasts."""
    theirs, folder = tmp_path / "theirs", tmp_path / "canaries"
    theirs.mkdir()
    for name in ("canary-00000000.jpk-force", "canary-00000009.jpk-force"):
        (theirs / name).write_bytes(b"a curve")
    folder.symlink_to(theirs)
    clock = Time()
    source = CanarySource(folder, SETTINGS, clock=clock.clock)
    source._clear()
    clock.now_s += SETTINGS.canary_rest_s
    with pytest.raises(UserError, match="is no folder of this service's own"):
        source.step()
    source._over.append(folder / "canary-00000009.jpk-force")
    source.stop()
    assert {file.name: file.read_bytes() for file in theirs.iterdir()} == {
        "canary-00000000.jpk-force": b"a curve",
        "canary-00000009.jpk-force": b"a curve",
    }


# The watch over the path.


class OnePath:
    """A watch that is shown outcomes by hand; the shipped model serves."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        bundle = read(SHIPPED)
        thresholds = Thresholds(bundle.discard, bundle.keep)
        self.judge = replace(JUDGE, pipeline="one", thresholds=thresholds, **changes)
        self.serving = Serving(cast("Any", SimpleNamespace(bundle=bundle)), self.judge)
        self.metrics, self.time = Metrics(), Time()
        self.source = CanarySource(folder / "canaries", SETTINGS, clock=self.time.clock)
        self.watch = PathWatch(self.source, self.metrics, folder, self.time.clock)
        self.kept: dict[str, Any] = {}
        self.look()

    def look(self, session: int | None = None) -> None:
        self.watch.look(self.serving, session, self.kept.get)

    def show(self, misses: Iterator[bool] | list[bool], kind: str = "event", burst: int = 0, **changes: Any) -> int:
        """Events missed or found, one after the other; after how many there was something to tell."""
        told = 0
        for number, is_bad in enumerate(misses, 1):
            bad, good = ("discard", "keep") if kind == "event" else ("keep", "discard")
            made = judged(number, verdict=bad if is_bad else good, judge=self.judge, **changes)
            self.watch._note(Outcome(Canary(cast("Any", kind), burst), made))
            told = told or (number if self.trouble() else 0)
        return told

    def trouble(self) -> str | None:
        found = self.watch.numbers()
        assert found is not None
        return None if found.is_well else found.text

    def count(self, result: str) -> float:
        return self.metrics.canary.labels(result)._value.get()


@pytest.fixture
def path(tmp_path: Path) -> OnePath:
    return OnePath(tmp_path)


def missing(every: int, count: int) -> list[bool]:
    """One of so many is missed."""
    return [number % every == every - 1 for number in range(count)]


def test_a_line_as_good_as_its_cut_tells_nothing_and_the_bound_grows(path: OnePath) -> None:
    assert path.show(missing(50, 1_000)) == 0
    found = path.watch.numbers()
    assert found is not None
    assert (found.canaries, found.missed, found.lost, found.is_well) == (1_000, 20, 0, True)
    assert found.null == pytest.approx(0.0231, abs=0.0005), "35 of 2,000 simulated events lie below the shipped cut"
    assert found.lower_bound == pytest.approx(0.964, abs=0.001)
    assert found.text.startswith("980 of 1,000 simulated events found since")
    path.look()
    assert (path.count("found"), path.count("missed")) == (980, 20)


def test_a_model_that_is_blind_to_a_family_is_told_and_so_is_that_it_is_over(path: OnePath) -> None:
    path.show(missing(50, 300))
    assert 0 < path.show(missing(6, 200)) < 100
    assert "events are discarded, of which this cut discards 2.3% at most" in (path.trouble() or "")
    path.show(missing(50, 2 * BURST))
    assert path.trouble() is None
    found = path.watch.numbers()
    assert found is not None
    assert (found.canaries, found.missed) < (2 * BURST, 7), "what came before it was over says nothing of now"


def test_a_burst_tells_by_itself_and_an_alarm_asks_for_another(path: OnePath) -> None:
    limit = burst_limit(found.null if (found := path.watch.numbers()) else 0.0, BURST)
    spread = missing(BURST // limit, BURST)
    assert sum(spread) >= limit
    assert path.show(spread, burst=0) == 0, "spread so far by the clock they do not ring"
    again = OnePath(path.source._folder.parent)
    number = again.source._burst
    assert 0 < again.show(spread, burst=number) <= BURST
    assert again.source._burst == number + 1


def test_one_lost_canary_is_told_until_twenty_came_out(path: OnePath) -> None:
    path.watch._note(Outcome(Canary("event"), None))
    assert "were lost on the way" in (path.trouble() or "")
    path.show([False] * 19)
    assert path.trouble()
    path.show([False])
    assert path.trouble() is None
    assert (path.count("lost"), path.count("found")) == (1, 20)


def test_curves_without_an_event_that_are_kept_are_told(path: OnePath) -> None:
    assert path.show([False] * 400, "event_free") == 0
    assert 0 < path.show(missing(4, 100), "event_free") < 60
    assert "without an event are kept" in (path.trouble() or "")
    assert (path.count("quiet") + path.count("false_kept"), path.count("found")) == (500, 0)


def test_another_cut_begins_anew_and_what_the_old_one_judged_is_not_counted(path: OnePath) -> None:
    path.show(missing(6, 12))
    old, bursts = path.judge, path.source._burst
    path.serving.judge = path.judge = replace(old, pipeline="another")
    path.look()
    assert path.source._burst == bursts + 1
    path.watch._note(Outcome(Canary("event"), judged(1, verdict="discard", judge=old)))
    found = path.watch.numbers()
    assert found is not None
    assert (found.canaries, found.lower_bound) == (0, None)
    path.look(session=2)
    assert path.source._burst == bursts + 2, "another session, another tip"
    path.serving.engine = EngineId("openvino", "cpu", "fp32")
    path.look(session=2)
    assert path.source._burst == bursts + 3


def test_the_next_service_goes_on(tmp_path: Path) -> None:
    first = OnePath(tmp_path)
    first.show(missing(6, 18))
    assert first.trouble() is None
    kept = first.watch.state
    second = OnePath(tmp_path)
    second.kept = {"one": kept}
    second.watch.pipeline = ""
    second.look()
    found = second.watch.numbers()
    assert found is not None
    assert (found.canaries, found.missed) == (18, 3)
    alone = OnePath(tmp_path)
    assert second.show(missing(6, 100)) < alone.show(missing(6, 100)), "the evidence was not forgotten"
    second.kept = {"one": {"of": "another version"}}
    second.watch.pipeline = ""
    second.look()
    assert second.watch.state["counts"] == {}


def test_a_configured_cut_that_gives_events_up_is_told_at_once(tmp_path: Path) -> None:
    base = read(SHIPPED)
    swapped = OnePath(tmp_path, cut=CutOrigin("configured", 0))
    assert swapped.trouble() is None, "the shipped cut, in the configuration"
    high = replace(swapped.judge, pipeline="high", thresholds=Thresholds(base.keep, 0.9))
    swapped.serving.judge = high
    swapped.look()
    assert "the configured discard threshold gives up" in (swapped.trouble() or "")


def test_a_network_that_nobody_has_counted_is_counted_beside_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = OnePath(tmp_path)
    other = make_model(tmp_path / "other")
    path.serving.model = cast("Any", SimpleNamespace(bundle=other))
    path.serving.judge = replace(path.judge, pipeline="another", thresholds=Thresholds(other.discard, other.keep))
    commands: list[list[str]] = []

    def launched(command: list[str], *others: Any, **more: Any) -> Any:
        commands.append(command)
        return launch([sys.executable, "-c", "input()"], {}, may_be_left=True)

    monkeypatch.setattr(loss, "launch", launched)
    path.look()
    assert commands == [], "not while a burst goes on"
    assert path.show([True] * 20) == 0, "how much of that is the network's own nobody knows yet"
    assert "not counted yet" in path.watch._words(0.9)
    path.source._owed = 0
    for _ in range(3):
        path.look()
    (command,) = commands
    monkeypatch.setattr(loss, "CURVES", 8)
    loss.main(*map(Path, command[-2:]), None)
    until_s = time.monotonic() + 20
    while not path.watch._nulls.is_counted:
        assert time.monotonic() < until_s
        path.look()
        time.sleep(0.02)
    assert "not counted yet" not in path.watch._words(0.9)
    assert len(commands) == 1
    assert not path.source.is_at_rest, "now a burst tells something"
    path.watch.stop()


def test_a_count_that_came_to_nothing_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has ended the process, or the disk was full."""
    commands: list[list[str]] = []

    def launched(command: list[str], *others: Any, **more: Any) -> Any:
        commands.append(command)
        return launch([sys.executable, "-c", ""], {}, may_be_left=True)

    monkeypatch.setattr(loss, "launch", launched)
    counting = loss.Counting()
    uncounted = loss.SimulatedLoss(tmp_path, make_model(tmp_path / "other"))

    def wait_for_end() -> None:
        until_s = time.monotonic() + 20
        while not counting.look(uncounted):
            assert time.monotonic() < until_s
            time.sleep(0.02)

    wait_for_end()
    assert not any(counting.look(uncounted) for _ in range(3))
    assert len(commands) == 1
    counting._again_s = time.monotonic()
    wait_for_end()
    assert len(commands) == 2


def test_canaries_are_curves_of_the_simulator(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.run(31, comes_out=False)
    (_, arrival), seed = line.taken[0], line.source._seed
    (made,) = models.simulate.simulate(1, seed, 1.0)
    assert arrival.file.read_bytes() == instrument.pack(made.curve)
    assert seed > 2**64
