"""The pipeline with its real parts: two batches under way, a ledger that is away for a while, another model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.backlog import Backlog
from daemon.config import ThresholdsConfig
from daemon.decision import Decision, Judge
from daemon.formats import claim, quiet_s
from daemon.instrument import play, specimens
from daemon.judging import judge_of
from daemon.ledger import Ledger, LedgerFull
from daemon.metrics import Metrics
from daemon.pipeline import Pace, Pipeline
from daemon.publish import Publisher
from daemon.reader import ReaderPool
from daemon.sources.watch import WatchSource
from deploy.serving import Model

CURVES = Path(__file__).resolve().parents[1] / "daemon" / "curves"
ANY = "tcp://127.0.0.1:0"
BATCH = 4


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load()


class Line:
    """A pipeline on one folder, turned by hand."""

    def __init__(self, folder: Path, model: Model, closing: ExitStack) -> None:
        self.folder, self.bell, self.metrics = folder / "watch", threading.Event(), Metrics()
        self.folder.mkdir()
        self.model, self.judge = model, judge_of(model, ThresholdsConfig())
        self.ledger = Ledger(folder / "ledger.sqlite", "afm1")
        closing.callback(self.ledger.close)
        self.reader = closing.enter_context(ReaderPool(2, wake=self.bell.set))
        accounts, wake = self.metrics.accounts, self.bell.set
        self.source = WatchSource(
            [self.folder], claim=claim, quiet_s=quiet_s, wake=wake, seen=lambda count: accounts.seen("watch", count)
        )
        publisher = Publisher(self.ledger.path, "afm1", publish=ANY, replay=ANY)
        closing.callback(publisher.stop)
        backlog, pace = Backlog([self.source]), Pace(BATCH, 0.005)
        parts = backlog, self.reader, model, self.judge, self.ledger, publisher, self.metrics, self.bell, pace
        self.pipeline = Pipeline(*parts)

    def write(self, count: int, copies: int = 1) -> int:
        """JPK curves, each under ``copies`` names; returns how many curves they are."""
        found = [one for one in specimens([CURVES]) if one.files[0].name.startswith("force-save")]
        for path in play(found, self.folder, rate=1e6, writer="rename", count=count):
            for copy in range(1, copies):
                path.with_name(f"again{copy}-{path.name}").write_bytes(path.read_bytes())
        return count

    def turn_until(self, done: int) -> list[list[Decision]]:
        """Turns until so many curves are decided or known to be duplicates; the decisions of each."""
        turns, until_s = [], time.monotonic() + 30
        while time.monotonic() < until_s:
            turns.append(self.pipeline.turn(0.1))
            books = self.metrics.accounts.snapshot()
            if books["decided"] + books["duplicate"] >= done and self.pipeline.idle():
                return turns
        raise AssertionError(self.metrics.accounts.snapshot())

    def turn_until_full(self) -> None:
        """Turns, each with a whole batch read beforehand where there is one, until the ledger takes nothing."""
        while True:
            self.wait_for_a_batch(0.1)
            self.pipeline.turn(0.1)

    def wait_for_a_batch(self, patience_s: float) -> None:
        until_s = time.monotonic() + patience_s
        while self.reader.ready < BATCH and time.monotonic() < until_s:
            time.sleep(0.01)


@pytest.fixture
def line(tmp_path: Path, model: Model) -> Iterator[Line]:
    with ExitStack() as closing:
        made = Line(tmp_path, model, closing)
        closing.callback(made.source.stop)
        yield made


def test_every_curve_is_decided_once_and_in_order_and_copies_under_way_are_duplicates(line: Line) -> None:
    count = line.write(30, copies=3)
    line.source.start()
    turns = line.turn_until(3 * count)
    made = [decision for turn in turns for decision in turn]
    books = line.metrics.accounts.snapshot()
    assert len({decision.identity for decision in made}) == len(made) == count == line.ledger.last_seq
    assert (books["seen"], books["decided"], books["duplicate"], books["backlog"]) == (90, 30, 60, 0)


def test_while_the_disk_is_full_what_is_judged_waits_and_is_recorded_in_order(line: Line) -> None:
    count = line.write(24)
    line.source.start()
    away = line.ledger.path.with_name("away")
    line.ledger.path.rename(away)
    for _ in range(5):
        with pytest.raises(LedgerFull):
            line.turn_until_full()
    assert not line.pipeline.idle()
    assert line.metrics.accounts.snapshot()["decided"] == 0
    away.rename(line.ledger.path)
    made = [decision.identity for turn in line.turn_until(count) for decision in turn]
    assert len(made) == len(set(made)) == count == line.ledger.last_seq
    assert line.ledger.known(made) == set(made)
    assert line.metrics.accounts.snapshot()["backlog"] == 0


def test_a_batch_under_way_is_judged_to_its_end_by_the_model_it_was_begun_with(line: Line, model: Model) -> None:
    count = line.write(40)
    line.source.start()
    told: list[Judge] = []
    other = replace(line.judge, model="the next one")
    until_s = time.monotonic() + 20
    while not (line.reader.ready >= BATCH and told) and time.monotonic() < until_s:
        told += [decision.judge for decision in line.pipeline.turn(0.1)]
        line.wait_for_a_batch(0.1)
    line.pipeline.swap(model, other, Pace(BATCH, 0.005))
    told += [decision.judge for turn in line.turn_until(count) for decision in turn]
    names = [judge.model for judge in told]
    assert len(names) == count
    assert names == sorted(names, key=lambda name: name == "the next one")  # the old one's first, never mixed
    assert set(names) == {line.judge.model, "the next one"}
