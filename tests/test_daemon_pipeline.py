"""The pipeline with its real parts: two batches under way, a ledger that is away for a while, another model."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from makers_vendors import make_ibw_image, make_tiff
from prometheus_client import CollectorRegistry, generate_latest

from daemon.config import ThresholdsConfig
from daemon.formats import NAMES
from daemon.instrument import play, recordings
from daemon.judging import Decision, Judged
from daemon.judging.judge import Serving, judge_of
from daemon.judging.sentinel import Dispute, Sentinel
from daemon.ledger import Ledger, NotRecorded
from daemon.metrics import Metrics
from daemon.pipeline import Backlog, Pace, Pipeline
from daemon.publish import Publisher
from daemon.reading.pool import ReaderPool
from daemon.sources import CANARY, Arrival, SourceHealth
from daemon.sources.watch import FolderNeeds, WatchSource
from deploy.serving import Model

CURVES = Path(__file__).resolve().parents[1] / "daemon" / "curves"
ANY = "tcp://127.0.0.1:0"
BATCH = 4


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.load()


class OwnCurves:
    """A source of canaries, given by hand; what became of each stands in ``answers``."""

    name = CANARY

    def __init__(self) -> None:
        self.waiting: deque[Arrival] = deque()
        self.answers: dict[str, tuple[bool, str | None]] = {}

    def add(self, file: Path) -> None:
        arrival = Arrival(CANARY, file.name, file, noticed_s=time.monotonic(), known_curve=f"canary-{file.name}")
        self.waiting.append(replace(arrival, answer=self._answered))

    def _answered(self, arrival: Arrival, is_done: bool, reason: str | None) -> None:
        self.answers[arrival.path] = (is_done, reason)

    def start(self) -> None:
        """Nothing has to begin."""

    def take(self, limit: int, large: int) -> list[Arrival]:
        return [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]

    def ready(self) -> int:
        return len(self.waiting)

    def oldest_pending_s(self) -> float | None:
        return None

    def health(self) -> list[SourceHealth]:
        return []

    def stop(self) -> None:
        """Nothing has to end."""


class Line:
    """A pipeline on one folder, turned by hand."""

    def __init__(self, folder: Path, model: Model, closing: ExitStack) -> None:
        self.folder, self.bell, self.metrics = folder / "watch", threading.Event(), Metrics()
        self.sentinel = Sentinel()
        self.curves, self.canaries = list[Judged](), list[Judged]()
        self.folder.mkdir()
        self.model, self.judge = model, judge_of(model, ThresholdsConfig())
        self.ledger = Ledger(folder / "ledger.sqlite", "afm1")
        closing.callback(self.ledger.close)
        self.reader = closing.enter_context(ReaderPool(2, wake=self.bell.set))
        accounts, wake = self.metrics.accounts, self.bell.set
        needs = FolderNeeds(NAMES, wake, seen=lambda count: accounts.seen("watch", count), ignored=accounts.ignored)
        self.source = WatchSource([self.folder], needs)
        publisher = Publisher(self.ledger.path, "afm1", publish=ANY, replay=ANY)
        closing.callback(publisher.stop)
        self.own = OwnCurves()
        self.pipeline = Pipeline(
            Backlog([self.source, self.own]),
            self.reader,
            Serving(model, self.judge),
            self.ledger,
            publisher,
            self.metrics,
            bell=self.bell,
            pace=Pace(BATCH, 0.005),
            sentinel=self.sentinel,
            dispute=Dispute(),
            observe=self._observe,
        )

    def _observe(self, judged: Sequence[Judged], canaries: Sequence[Judged]) -> None:
        self.curves += judged
        self.canaries += canaries

    def write(self, count: int) -> list[Path]:
        """JPK curves, each another recording."""
        found = [one for one in recordings([CURVES]) if one.files[0].name.startswith("force-save")]
        return list(play(found, self.folder, rate=1e6, writer="rename", count=count))

    def turn_until(self, done: int) -> list[list[Decision]]:
        """Turns until so many curves are decided or known to be duplicates; the decisions of each."""
        turns, until_s = [], time.monotonic() + 30
        while time.monotonic() < until_s:
            turns.append(self.pipeline.turn(0.1))
            books = self.metrics.accounts.snapshot()
            if books["decided"] + books["duplicate"] >= done and self.pipeline.idle():
                return turns
        raise AssertionError(self.metrics.accounts.snapshot())

    def put_under_way(self) -> None:
        """Hand a batch to the classifier, as large as the readers may be ahead, and look no further."""
        until_s = time.monotonic() + 20
        while self.reader.ready < 2 * BATCH and time.monotonic() < until_s:
            self.pipeline._feed()
            time.sleep(0.01)
        self.pipeline._begin(self.pipeline._collected())
        assert len(self.pipeline._batches[-1].files) == 2 * BATCH


@pytest.fixture
def line(tmp_path: Path, model: Model) -> Iterator[Line]:
    with ExitStack() as closing:
        made = Line(tmp_path, model, closing)
        closing.callback(made.source.stop)
        yield made


def test_every_curve_is_decided_once_and_copies_are_duplicates_also_of_what_is_under_way(line: Line) -> None:
    written = line.write(2 * BATCH)
    line.source.start()
    line.put_under_way()
    for path in written:
        path.with_name(f"again-{path.name}").write_bytes(path.read_bytes())
    line.put_under_way()
    made = [decision for turn in line.turn_until(4 * BATCH) for decision in turn]
    books = line.metrics.accounts.snapshot()
    assert len({decision.identity for decision in made}) == len(made) == 8 == line.ledger.last_seq
    assert (books["seen"], books["decided"], books["duplicate"], books["backlog"]) == (16, 8, 8, 0)


def test_an_image_beside_curves_is_ignored_as_what_it_is_and_never_was_in_the_books(line: Line) -> None:
    line.write(3)
    for name, content in {"a.ibw": make_ibw_image(), "b.jpk": make_tiff(), "c.tiff": make_tiff()}.items():
        (line.folder / name).write_bytes(content)
    (line.folder / "d.txt").write_text("the tip was changed\n")
    line.source.start()
    sums, until_s = set(), time.monotonic() + 30
    while time.monotonic() < until_s and line.metrics.accounts.snapshot()["ignored"] < 4:
        line.pipeline.turn(0.05)
        books = line.metrics.accounts.snapshot()
        sums.add(books["seen"] - books["decided"] - books["duplicate"] - books["backlog"])
    line.turn_until(3)
    ignored = {
        sample.labels["reason"]: sample.value
        for metric in line.metrics.accounts.collect()
        for sample in metric.samples
        if sample.name == "afm_triage_files_ignored_total" and sample.value
    }
    assert ignored == {"image": 3, "unclaimed": 1}
    assert sums == {0}
    books = line.metrics.accounts.snapshot()
    assert (books["seen"], books["decided"], books["unreadable"], books["backlog"]) == (3, 3, 0, 0)
    assert line.ledger.last_seq == 3


def test_while_the_disk_is_full_what_is_judged_waits_and_is_then_recorded(line: Line) -> None:
    written = line.write(24)
    line.source.start()
    line.put_under_way()
    line.put_under_way()
    away = line.ledger.path.with_name("away")
    line.ledger.path.rename(away)
    for _ in range(5):
        with pytest.raises(NotRecorded):
            line.pipeline.turn(0.1)
    assert not line.pipeline.idle()
    assert line.metrics.accounts.snapshot()["decided"] == 0
    away.rename(line.ledger.path)
    made = [decision for turn in line.turn_until(24) for decision in turn]
    assert {decision.path for decision in made} == {path.name for path in written}
    assert line.ledger.known([decision.identity for decision in made]) == {decision.identity for decision in made}
    assert (line.ledger.last_seq, line.metrics.accounts.snapshot()["backlog"]) == (24, 0)


def test_what_is_under_way_is_judged_to_its_end_by_the_model_it_was_begun_with(line: Line, model: Model) -> None:
    line.write(30)
    line.source.start()
    line.put_under_way()
    line.put_under_way()
    other = replace(line.judge, model="the next one")
    line.pipeline.swap(model, other, Pace(BATCH, 0.005))
    assert all(batch.scored.done() for batch in line.pipeline._batches)
    made = [decision for turn in line.turn_until(30) for decision in turn]
    assert [decision.judge.model for decision in made] == [line.judge.model] * 16 + ["the next one"] * 14


def test_canaries_are_judged_with_the_others_and_set_aside(line: Line, tmp_path: Path) -> None:
    files = sorted(CURVES.glob("force-save*.jpk-force"))
    broken = tmp_path / "broken.jpk-force"
    broken.write_bytes(files[0].read_bytes()[:-100])
    for file in [*files[:3], broken]:
        line.own.add(file)
    written = [path.name for path in line.write(2 * BATCH)]
    line.source.start()
    sums: set[int] = set()
    until_s = time.monotonic() + 30
    while line.metrics.accounts.snapshot()["decided"] < 2 * BATCH or not line.pipeline.idle():
        assert time.monotonic() < until_s
        line.pipeline.turn(0.1)
        books = line.metrics.accounts.snapshot()
        sums.add(books["seen"] - books["decided"] - books["duplicate"] - books["backlog"])
    seen = {one.reading.arrival.path: one for one in line.canaries}
    assert seen.keys() == {one.name for one in files[:3]}
    assert all(one.scored is not None and one.decision.score == one.scored.score for one in seen.values())
    assert line.own.answers == {**{one.name: (True, None) for one in files[:3]}, broken.name: (False, "truncated")}
    books = line.metrics.accounts.snapshot()
    assert (sums, books["seen"], books["decided"], books["duplicate"], books["unreadable"]) == ({0}, 8, 8, 0, 0)
    told = line.ledger.view().decisions(range(1, 20))
    assert {event["data"]["path"] for event in told.values()} == set(written)
    assert sorted(one.reading.arrival.path for one in line.curves) == sorted(written)
    assert {one.reading.sha256 for one in seen.values()} & {one.decision.sha256 for one in line.curves}, "none alike"
    scraped = CollectorRegistry()
    scraped.register(line.metrics.accounts)
    assert b"canary" not in generate_latest(scraped)


def test_the_ledger_refuses_a_canary(line: Line) -> None:
    line.own.add(next(iter(CURVES.glob("force-save*.jpk-force"))))
    while not line.canaries:
        assert line.pipeline.turn(1.0) == []
    with pytest.raises(ValueError, match="canary"):
        line.ledger.record([line.canaries[0].decision])
    assert line.ledger.last_seq == 0
