"""The reader pool: files in, curves or reasons out, parsed in child processes that may be killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

from daemon.common import ending
from daemon.common.ending import Closing
from daemon.common.errors import UNREACHABLE, UserError
from daemon.formats import limits
from daemon.formats.text_rule import TextRule, rule_for
from daemon.processes import frames
from daemon.processes.worker_pool import Task, WorkerPool, WorkersBroken
from daemon.reading import FileReading, Reading
from daemon.sources import Arrival
from models.raster import RasterProfile

_SLOW_S = 0.3  # a file that takes longer holds back no other
_LIMIT_S, _LIMIT_BYTES_PER_S = 10.0, 50e6  # for one file: 10 s, and what its size takes on a slow network


class ReaderBroken(UserError):
    """Reader processes cannot be started: the installation is broken or the machine is out of memory (exit 69)."""

    def __init__(self, why: str) -> None:
        super().__init__(UNREACHABLE, f"no file can be read: {why}")


class ReaderPool(Closing):
    """Reads files in ``workers`` child processes. Safe to use from one thread, plus ``close`` from any.

    ``wake()`` is called, from another thread, whenever ``collect`` has something new. ``limit_s`` replaces the time
    limit that follows from a file's size. Curves of what is submitted while there is a ``profile`` are prepared for it;
    ``bare`` ones then come without their samples. ``rules`` are what the configuration says of text files; what was
    read by others than those in force when it is collected is read again.
    """

    def __init__(
        self,
        workers: int = 2,
        wake: Callable[[], None] = lambda: None,
        limit_s: float | None = None,
        profile: RasterProfile | None = None,
        bare: bool = False,
        rules: Sequence[TextRule] = (),
    ) -> None:
        self.profile, self.rules, self._bare, self._limit_s = profile, rules, bare, limit_s
        self._pool = WorkerPool("daemon.reading.worker", workers, name="reader", slow_s=_SLOW_S, wake=wake)

    @property
    def in_flight(self) -> int:
        """Arrivals submitted whose reading has not been collected."""
        return self._pool.in_flight

    @property
    def ready(self) -> int:
        """Of these, how many ``collect`` would give at once."""
        return self._pool.ready

    def submit(self, arrivals: Iterable[Arrival]) -> None:
        """Queue files; later portions of maps wait behind every whole file."""
        self._pool.submit([self._task(arrival) for arrival in arrivals])

    def collect(self, timeout_s: float = 0.0) -> list[FileReading]:
        """Everything that is done; waits up to ``timeout_s`` for the first. Raises ``ReaderBroken``."""
        try:
            done = [task for task in self._pool.collect(timeout_s) if isinstance(task, _FileTask)]
        except WorkersBroken as error:
            raise ReaderBroken(str(error)) from error
        if stale := [task.arrival for task in done if not self._holds(task)]:
            self.submit(stale)
        return [_reading(task) for task in done if self._holds(task)]

    def read(self, arrival: Arrival) -> FileReading:
        """One file or portion at once, for a pool with nothing else in flight. Raises ``ReaderBroken``."""
        self.submit([arrival])
        while not (done := self.collect(ending.LOOK_S)):
            ending.check()
        return done[0]

    def close(self) -> None:
        """End the child processes; what was under way is forgotten (the folder still has it)."""
        self._pool.close()

    def _holds(self, task: _FileTask) -> bool:
        """Whether a file was read as the rules of now would have it."""
        return task.text_rule == self._rule_of(task.arrival)

    def _rule_of(self, arrival: Arrival) -> TextRule | None:
        return rule_for(arrival.file, self.rules) if self.rules else None

    def _task(self, arrival: Arrival) -> _FileTask:
        rule = self._rule_of(arrival)
        limit_s = _LIMIT_S + arrival.size_bytes / _LIMIT_BYTES_PER_S if self._limit_s is None else self._limit_s
        return _FileTask(
            {
                "file": str(arrival.file),
                "companion": str(arrival.companion) if arrival.companion else None,
                "name": arrival.file.name,
                "first": arrival.first,
                "count": limits.PORTION_CURVES,
                "final": arrival.final,
                "sha256": arrival.sha256 if arrival.first else None,
                "total": arrival.total,
                "profile": _as_json(self.profile) if self.profile else None,
                "bare": self._bare,
                "text_rule": None if rule is None else asdict(rule),
            },
            limit_s,
            comes_last=arrival.first > 0,
            arrival=arrival,
            profile=self.profile,
            text_rule=rule,
        )


@dataclass(slots=True, eq=False, kw_only=True)
class _FileTask(Task):
    """A portion of a file to be read, for this profile and by this rule."""

    arrival: Arrival
    profile: RasterProfile | None
    text_rule: TextRule | None


@lru_cache(maxsize=2)
def _as_json(profile: RasterProfile) -> str:
    return profile.to_json()


def _reading(task: _FileTask) -> FileReading:
    """What became of a task, as the stages after this one know it."""
    header = task.answer
    if header is None:
        return _lost(task)
    arrays, format = iter(task.arrays), header.get("format")
    curves = header.get("curves", ())
    share_s = header["read_s"] / max(len(curves), 1)
    readings = []
    for entry in curves:
        curve, prepared = frames.restore(entry, arrays) if "samples" in entry else (None, None)
        origin = (task.arrival, entry["index"], header["sha256"])
        acquired_s = None if curve is None else curve.acquired_s
        reason = entry.get("reason")
        readings.append(Reading(*origin, curve, reason, share_s, prepared, task.profile, format, acquired_s))
    total, reason = header.get("total", 0), header.get("reason")
    return FileReading(task.arrival, header["outcome"], tuple(readings), total, reason, format)


def _lost(task: _FileTask) -> FileReading:
    """A task that took its processes with it: one reason for each curve that was asked for."""
    arrival = task.arrival
    spent_s = time.monotonic() - task.head_since_s
    stop = min(arrival.first + limits.PORTION_CURVES, arrival.total)
    sha256 = task.noted or arrival.sha256
    readings = tuple(Reading(arrival, i, sha256, None, task.failure, spent_s) for i in range(arrival.first, stop))
    return FileReading(arrival, "curves", readings, arrival.total)
