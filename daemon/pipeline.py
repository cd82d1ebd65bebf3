"""The pipeline: take → read → judge → record → announce.

One turn takes what is finished and has been read and prepared (in other processes), has it judged, commits the
decisions in one transaction, in which each becomes an event (``daemon.ledger.events``), and only then tells the
world. Under load the next batch is with the classifier, on a thread of its own, while this one is recorded. Whatever
dies on the way, the folder still holds the curve and the ledger knows that it is not decided.

Canaries, curves of our own whose truth is known, go the same way in the same batches up to their verdict. There they
are set apart, once: nothing that is recorded, counted or announced ever holds one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from daemon.formats.base import AWAY
from daemon.formats.text_rule import TextRule
from daemon.judging import (
    Decision,
    FileMark,
    Judge,
    Judged,
    canaries_apart,
    classify,
    decide,
    identity_of,
    with_compact_copy,
)
from daemon.judging.judge import Serving
from daemon.judging.sentinel import Dispute, Sentinel
from daemon.ledger import Ledger, NotRecorded
from daemon.metrics import Metrics
from daemon.publish import Publisher
from daemon.reading import FileReading, Reading
from daemon.reading.pool import ReaderPool
from daemon.sources import Arrival, Source
from deploy.serving import Model, Scored
from models.raster import RasterProfile

#: Batches in the readers' hands at once: one being read while the one before is classified.
READ_AHEAD_BATCHES = 2
#: A share that is away for a moment in the middle of a map is given this long to come back: half a minute in all.
_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0, 5.0, 5.0)


class Backlog:
    """What is finished but not decided yet: files ready in their sources, and portions of maps that are open already.

    Nothing here is the only copy of anything: after a crash the folders are scanned again. A map of ten thousand curves
    must not hold up the single curve that the person at the microscope waits for, so its portions go last.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = deque(sources)
        self._portions: deque[Arrival] = deque()
        self._resting: list[tuple[float, Arrival]] = []  # portions to be tried again, and when
        self._tries: Counter[Path] = Counter()
        self._is_closed = False

    def take(self, limit: int, large: int) -> list[Arrival]:
        """At most ``limit`` arrivals, at most ``large`` of them large: finished files, then portions of maps.

        Each source is the first to be asked in its turn: no flood of one holds up the other.
        """
        taken: list[Arrival] = []
        if self._is_closed:
            return taken
        self._wake_portions()
        for source in self._sources:
            taken += source.take(limit - len(taken), large - sum(one.is_large for one in taken))
        self._sources.rotate()
        room = min(limit - len(taken), large - sum(one.is_large for one in taken))
        while room > 0 and self._portions:
            taken.append(self._portions.popleft())
            room -= 1
        return taken

    def add_portion(self, arrival: Arrival) -> None:
        """The rest of a map, from ``arrival.first`` on; before others, each of which would have to be opened anew."""
        self._tries.pop(arrival.file, None)
        self._portions.appendleft(arrival)

    def later(self, arrival: Arrival, reason: str) -> None:
        """Not whole yet: its source offers it again later.

        The rest of a map that is open already is asked for here again. Its curves have been counted and some are
        decided, so each of the others gets its answer too, in the end the reason why it could not be had.
        """
        if not arrival.first:
            arrival.later(reason)
            return
        if reason == AWAY or self._is_unwell(arrival.folder):  # a share that is unmounted looks as if all were deleted
            self._resting.append((time.monotonic() + _RETRY_S[-1], arrival))
            return
        tries = self._tries[arrival.file]
        self._tries[arrival.file] += 1
        is_last = tries + 1 >= len(_RETRY_S)
        self._resting.append((time.monotonic() + _RETRY_S[tries], replace(arrival, final=is_last)))

    def done(self, arrival: Arrival, ignored: str | None = None) -> None:
        """Decided and on disk, or no curve, for the reason ``ignored``: its source may forget it."""
        self._tries.pop(arrival.file, None)
        arrival.done(ignored)

    def close(self) -> None:
        """Take nothing more: the service is ending, and the next start finds the rest in the folders."""
        self._is_closed = True

    def ready(self) -> int:
        """Arrivals that could be taken now."""
        if self._is_closed:
            return 0
        return sum(source.ready() for source in self._sources) + len(self._portions) + len(self._resting)

    def _is_unwell(self, folder: str | None) -> bool:
        healths = (health for source in self._sources for health in source.health())
        return folder is not None and any(one.name == folder and not one.ok for one in healths)

    def _wake_portions(self) -> None:
        now_s = time.monotonic()
        self._portions += [arrival for due_s, arrival in self._resting if due_s <= now_s]
        self._resting = [one for one in self._resting if one[0] > now_s]


@dataclass(frozen=True, slots=True)
class Pace:
    """How a batch is gathered: a lone curve is never held back longer than ``wait_s``."""

    largest_batch: int
    wait_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """With the classifier, or back from it."""

    files: list[FileReading]
    readings: list[Reading]  # curves that nobody had decided
    judge: Judge
    profile: RasterProfile
    scored: Future[list[Scored | None]]


class Pipeline:
    """The body of the main loop. Everything it works with is given to it; it owns the order of things.

    ``observe(judged, canaries)`` is shown every batch that was judged, before anything is recorded; it raises nothing,
    and keeps the loop no longer than some microseconds a curve.
    """

    def __init__(
        self,
        backlog: Backlog,
        reader: ReaderPool,
        serving: Serving,
        ledger: Ledger,
        publisher: Publisher,
        metrics: Metrics,
        *,
        bell: threading.Event,
        pace: Pace,
        rules: Sequence[TextRule] = (),
        sentinel: Sentinel,
        dispute: Dispute,
        observe: Callable[[Sequence[Judged], Sequence[Judged]], None],
    ) -> None:
        self.backlog, self._reader, self._bell = backlog, reader, bell
        self._ledger, self._publisher, self._metrics = ledger, publisher, metrics
        self.sentinel, self._dispute, self._observe = sentinel, dispute, observe
        self._classifier = ThreadPoolExecutor(1, "classifier")
        self._batches: deque[_Batch] = deque()  # two at most: one being judged, one waiting for it
        self._unrecorded: tuple[list[Decision], list[FileReading]] | None = None  # only while the disk is full
        self._serving = serving
        self.swap(serving.model, serving.judge, pace, rules)

    def turn(self, wait_s: float) -> list[Decision]:
        """One turn of the loop, waiting at most ``wait_s`` for something to do.

        Raises NotRecorded while the disk is full; the next turn then tries the same decisions again.
        """
        if self._unrecorded is not None:
            return self._record(*self._unrecorded)
        if not self._batches:
            self._begin(self._collect(wait_s))
        if self._reader.ready >= self._pace.largest_batch:  # a small one would only cost the classifier its pace
            self._begin(self._collected())
        return self._finish(self._batches.popleft()) if self._batches else []

    def swap(self, model: Model, judge: Judge, pace: Pace, rules: Sequence[TextRule] = ()) -> None:
        """Another model, other thresholds, pace or rules for text from the next batch on; called between two turns.

        What is under way is judged to its end by the old ones: on return nothing works with them any more.
        """
        wait([batch.scored for batch in self._batches])
        self._serving.model, self._serving.judge, self._pace = model, judge, pace
        self._reader.profile, self._reader.rules = model.bundle.profile, rules

    @property
    def is_held(self) -> bool:
        """Whether what is decided cannot be recorded, and everything behind it waits."""
        return self._unrecorded is not None

    def idle(self) -> bool:
        """Nothing finished is waiting anywhere on the line."""
        under_way = self._batches or self._unrecorded is not None
        return not under_way and self._reader.in_flight == 0 and self.backlog.ready() == 0

    def _feed(self) -> None:
        """Hand finished files to the readers, never more than keeps them busy."""
        while True:
            room, large = self._reader.room(READ_AHEAD_BATCHES * self._pace.largest_batch)
            if room <= 0 or not (arrivals := self.backlog.take(room, large)):
                return
            self._reader.submit(arrivals)

    def _collected(self) -> list[FileReading]:
        """What the readers have done by now."""
        self._feed()
        return self._reader.collect()

    def _collect(self, wait_s: float) -> list[FileReading]:
        """What the readers have done; a little more is awaited only while more is on its way."""
        if not (files := self._collected()):
            self._bell.wait(wait_s)  # rung by a source with something finished, or by a reader that is done
            self._bell.clear()
            files = self._collected()
        deadline_s = time.monotonic() + self._pace.wait_s
        while files and self._reader.in_flight and sum(len(file.readings) for file in files) < self._pace.largest_batch:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            files += self._reader.collect(left_s)
        return files

    def _begin(self, files: list[FileReading]) -> None:
        """Hand a batch to the classifier."""
        if not files:
            return
        readings, model, judge = self._undecided(files), self._serving.model, self._serving.judge
        self._feed()  # the readers work on while this batch is classified
        scored = self._classifier.submit(classify, readings, model, judge.thresholds, self.sentinel.wary_of)
        self._batches.append(_Batch(files, readings, judge, model.bundle.profile, scored))

    def _finish(self, batch: _Batch) -> list[Decision]:
        """Decide a batch, once it is judged, and record it: all but the canaries, whose way ends here."""
        scored = batch.scored.result()
        decided = zip(batch.readings, scored, decide(batch.readings, scored, batch.judge), strict=True)
        judged, canaries = canaries_apart([Judged(*one) for one in decided])
        judged = self._dispute.look_at(judged)
        self._observe(judged, canaries)
        for one in judged:
            if one.reading.curve is not None:
                self.sentinel.observe(one.reading.sign_from, one.decision.reasons)
        past = self._ledger.past(batch.judge.pipeline)
        decisions = [with_compact_copy(one.decision, one.reading, batch.profile, past) for one in judged]
        return self._record(decisions, batch.files)

    def _undecided(self, files: Sequence[FileReading]) -> list[Reading]:
        """The curves that nobody has decided yet, or is about to; the unfinished go back to their source."""
        fresh: dict[str, Reading] = {}
        readings = [reading for file in files for reading in self._opened(file)]
        known = self._ledger.known([identity_of(reading) for reading in readings])
        known |= {identity_of(reading) for batch in self._batches for reading in batch.readings}
        for reading in readings:
            identity = identity_of(reading)
            if identity in known or identity in fresh:
                self._metrics.accounts.duplicate(1)
            else:
                fresh[identity] = reading
        return list(fresh.values())

    def _opened(self, file: FileReading) -> tuple[Reading, ...]:
        arrival = file.arrival
        if file.outcome == "unfinished":
            self.backlog.later(arrival, file.reason or "truncated")
            return ()
        if file.outcome == "unclaimed":
            if arrival.claimed and arrival.first == 0:
                self._metrics.accounts.unseen(arrival.source)
            self.backlog.done(arrival, file.reason or "unclaimed")
            return ()
        if arrival.first == 0:  # only now is it known how many curves the file holds
            self._metrics.accounts.seen(arrival.source, file.total - (1 if arrival.claimed else 0))
        return file.readings

    def _record(self, decisions: list[Decision], files: list[FileReading]) -> list[Decision]:
        """On disk first, announced second, forgotten by the sources third."""
        opened = [file for file in files if file.outcome == "curves"]
        whole = [file for file in opened if _reaches_the_end(file)]
        try:
            if opened:
                self._ledger.record(decisions, [_mark(file) for file in whole if _may_be_forgotten(file)])
        except NotRecorded:
            self._unrecorded = (decisions, files)
            raise
        self._unrecorded = None
        self._publisher.poke()
        self._metrics.recorded(decisions, self._ledger.commit_s)
        for file in opened:
            if file in whole:
                self.backlog.done(file.arrival)
            else:
                self.backlog.add_portion(_rest(file))
        return decisions


def _may_be_forgotten(file: FileReading) -> bool:
    """Whether a restart need not open it: not what could not be opened at all, which may come back as it was."""
    return file.arrival.source == "watch" and file.readings[0].reason not in ("vanished", "no_permission")


def _reaches_the_end(file: FileReading) -> bool:
    return file.arrival.first + len(file.readings) >= file.total


def _rest(file: FileReading) -> Arrival:
    return file.arrival.portion(file.arrival.first + len(file.readings), file.readings[0].sha256, file.total)


def _mark(file: FileReading) -> FileMark:
    arrival = file.arrival
    folder, sha256 = arrival.folder or "", file.readings[0].sha256
    return FileMark(folder, arrival.path, arrival.size_bytes, arrival.mtime_ns, sha256, file.total, arrival.looked_ns)
