"""Scoring: files judged once, by the very stages that the service uses, so that both give the same verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from daemon.arrival import Arrival
from daemon.classify import classify
from daemon.decide import decide
from daemon.decision import Decision, Judge
from daemon.reader import read_files
from daemon.reading import FileReading, Reading
from daemon.selection import Selection
from deploy.serving import Model

BATCH = 32


def score(
    found: Iterable[Arrival], model: Model, judge: Judge, selection: Selection | None = None
) -> Iterator[Decision]:
    """One decision a curve, files in the order they are found; nothing is recorded anywhere.

    With a ``selection`` only its files are opened and only its curves judged.
    """
    if selection is not None:
        found = (arrival for arrival in found if selection.has_file(arrival.path, arrival.file))
    for batch in _batches(read_files(found), selection):
        yield from decide(batch, classify(batch, model, judge.thresholds), judge)


def _is_wanted(reading: Reading, selection: Selection | None) -> bool:
    index = None if reading.curve is None else reading.index
    return selection is None or selection.has(reading.arrival.path, reading.arrival.file, index)


def _batches(files: Iterable[FileReading], selection: Selection | None) -> Iterator[list[Reading]]:
    waiting: list[Reading] = []
    for file in files:
        waiting += [reading for reading in file.readings if _is_wanted(reading, selection)]
        while len(waiting) >= BATCH:
            yield waiting[:BATCH]
            waiting = waiting[BATCH:]
    if waiting:
        yield waiting
