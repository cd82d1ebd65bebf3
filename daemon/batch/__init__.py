"""Scoring: files judged once, by the very stages that the service uses, so that both give the same verdicts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from daemon.formats.text_rule import TextRule
from daemon.judging import VERDICTS, Decision, Judge, classify, decide, overlap
from daemon.judging.sentinel import Sentinel
from daemon.labels.table import Selection
from daemon.reading import Reading
from daemon.reading.ahead import Job, Kept, Piece, Stamp, read_ahead
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival, Ignored
from deploy.classifier import EngineId, usable_cores
from deploy.serving import Model, Scored

BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One curve's verdict, and the file that it stands in."""

    decision: Decision
    curves: int
    stamp: Stamp | None
    format: str | None  # None also for what could not be opened

    @property
    def file(self) -> Mapping[str, int] | None:
        """What a line of ``score --out`` says of the file."""
        return None if self.stamp is None else self.stamp.with_curves(self.curves)


def score(
    found: Iterable[Arrival], model: Model, judge: Judge, selection: Selection | None = None
) -> Iterator[Decision]:
    """One decision a curve, files in the order they are found; nothing is recorded anywhere.

    With a ``selection`` only its files are opened and only its curves judged.
    """
    if selection is not None:
        found = (arrival for arrival in found if selection.has_file(arrival.path, arrival.file))
    for batch in score_jobs(map(Job, found), model, judge, selection):
        yield from (item.decision for item in batch if isinstance(item, Judged))


def score_jobs(
    jobs: Iterable[Job],
    model: Model,
    judge: Judge,
    selection: Selection | None = None,
    ignored: Ignored | None = None,
    rules: Sequence[TextRule] = (),
    readers: ReaderPool | None = None,
) -> Iterator[list[Kept | Judged]]:
    """What becomes of the jobs, in order and in batches: lines that hold, and verdicts on all other curves.

    Files are read by as many processes as there are cores while the network judges what came before; those that turn
    out to be no curves are counted in ``ignored``. ``rules`` are what a configuration says of text files. ``readers``:
    processes that outlive these jobs (:func:`daemon.reading.ahead.read_ahead`).
    """

    def judged(batch: list[Kept | Piece]) -> list[Scored | None]:
        return classify([item.reading for item in batch if isinstance(item, Piece)], model, judge.thresholds)

    items = read_ahead(jobs, max(2, usable_cores()), model.bundle.profile, ignored, rules, readers)
    for batch, scored in overlap(_batches(items, selection), judged):
        pieces = [item for item in batch if isinstance(item, Piece)]
        decisions = iter(decide([piece.reading for piece in pieces], scored, judge))
        yield [
            Judged(next(decisions), item.curves, item.stamp, item.reading.format) if isinstance(item, Piece) else item
            for item in batch
        ]


def _is_wanted(reading: Reading, selection: Selection | None) -> bool:
    index = None if reading.curve is None else reading.index
    return selection is None or selection.has(reading.arrival.path, reading.arrival.file, index)


def _batches(items: Iterable[Kept | Piece], selection: Selection | None) -> Iterator[list[Kept | Piece]]:
    waiting: list[Kept | Piece] = []
    for item in items:
        if isinstance(item, Kept) or _is_wanted(item.reading, selection):
            waiting.append(item)
        if len(waiting) >= BATCH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


@dataclass(slots=True)
class VerdictCounts:
    """What a run of ``score`` has done: curves by verdict, and how long they took."""

    verdicts: Counter[str] = field(default_factory=Counter)
    kept: int = 0  # curves judged by an earlier run
    ignored: Ignored = field(default_factory=Ignored)  # files that held no curve
    begun_s: float = field(default_factory=time.monotonic)
    sentinel: Sentinel = field(default_factory=Sentinel)

    def count(self, judged: Judged) -> None:
        """One more curve."""
        self.count_told(judged.decision.verdict, judged.decision.reasons, judged.format)

    def count_told(self, verdict: str, reasons: tuple[str, ...], format: str | None) -> None:
        """One more curve, of which somebody else has told the verdict."""
        self.verdicts[verdict] += 1
        self.sentinel.observe(format, reasons)

    @property
    def curves(self) -> int:
        return self.verdicts.total()

    def report(self, engine: EngineId | str) -> str:
        """``12000 curves in 10.1 s, 1188 curves/s, torch-cpu-bf16``; ``nothing new; 12000 judged before``."""
        if self.kept and not self.curves:
            return f"nothing new; {self.kept} judged before"
        elapsed_s = max(time.monotonic() - self.begun_s, 1e-9)
        rate = self.curves / elapsed_s
        before = f"; {self.kept} judged before" if self.kept else ""
        return f"{self.curves} curves in {elapsed_s:.1f} s, {rate:.0f} curves/s, {engine}{before}"

    def summary(self) -> str:
        """A line a verdict."""
        return "\n".join(f"{verdict:<8} {self.verdicts[verdict]}" for verdict in VERDICTS)
