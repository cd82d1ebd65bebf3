"""Scoring: files judged once, by the very stages that the service uses, so that both give the same verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from daemon.arrival import Arrival
from daemon.classify import classify
from daemon.decide import decide
from daemon.decision import Decision, Judge
from daemon.reader import read_files
from daemon.reading import FileReading, Reading
from deploy.serving import Model

BATCH = 32


def score(found: Iterable[Arrival], model: Model, judge: Judge) -> Iterator[Decision]:
    """One decision a curve, files in the order they are found; nothing is recorded anywhere."""
    for batch in _batches(read_files(found)):
        yield from decide(batch, classify(batch, model), judge)


def _batches(files: Iterable[FileReading]) -> Iterator[list[Reading]]:
    waiting: list[Reading] = []
    for file in files:
        waiting += file.readings
        while len(waiting) >= BATCH:
            yield waiting[:BATCH]
            waiting = waiting[BATCH:]
    if waiting:
        yield waiting
