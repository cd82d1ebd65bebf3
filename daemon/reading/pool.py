"""The reader pool: files in, curves or reasons out, parsed in child processes that may be killed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from daemon.common import ending
from daemon.common.ending import Closing
from daemon.common.errors import UNREACHABLE, UserError
from daemon.common.mounts import Table
from daemon.formats import limits
from daemon.formats.base import AWAY
from daemon.formats.text_rule import TextRule, rule_for
from daemon.processes import frames
from daemon.processes.lanes import Task
from daemon.processes.worker_pool import WorkerPool, WorkersBroken
from daemon.reading import FileReading, Reading
from daemon.sources import Arrival
from models.raster import RasterProfile
from models.tip import TipState

_MOST_LARGE = 2  # large files in the readers' hands: one in work, and the next
_MOUNTS_HOLD_S = 1.0
_SLOW_S = 0.3  # a file that takes longer holds back no other
#: Of files that are read in a moment several go to a process at once, and their answers come back at once. One that
#: takes so long may be held up by any of them: each is then asked for alone.
_GROUP_FILES, _GROUP_FILE_BYTES, _GROUP_LIMIT_S = 4, 256 << 10, 1.0
#: That a reader may take without a sign of progress: 10 s, and what the parsing of so many bytes takes.
_LIMIT_S, _LIMIT_BYTES_PER_S = 10.0, 50e6


class ReaderBroken(UserError):
    """Reader processes cannot be started: the installation is broken or the machine is out of memory (exit 69)."""

    def __init__(self, why: str) -> None:
        super().__init__(UNREACHABLE, f"no file can be read: {why}")


class ReaderPool(Closing):
    """Reads files in ``workers`` child processes. Safe to use from one thread, plus ``close`` from any.

    ``wake()`` is called, from another thread, whenever ``collect`` has something new. ``limit_s`` replaces the time
    limit that follows from a file's size. Curves of what is submitted while there is a ``profile`` are prepared for it;
    ``bare`` ones then come without their samples. ``rules`` are what the configuration says of text files; what was
    read by others than those in force when it is collected is read again. ``is_live``: small files wait neither for
    large or slow ones nor for a share that does not answer, whose files come back "unfinished", as ``AWAY``.
    """

    def __init__(
        self,
        workers: int = 2,
        wake: Callable[[], None] = lambda: None,
        limit_s: float | None = None,
        profile: RasterProfile | None = None,
        bare: bool = False,
        rules: Sequence[TextRule] = (),
        is_live: bool = False,
    ) -> None:
        self.profile, self.rules, self._bare, self._limit_s = profile, rules, bare, limit_s
        self._pool = WorkerPool(
            "daemon.reading.worker", workers, name="reader", slow_s=_SLOW_S, has_lanes=is_live, wake=wake
        )
        self._shares, self._is_live, self._workers = _Shares(), is_live, workers

    @property
    def in_flight(self) -> int:
        """Arrivals submitted whose reading has not been collected."""
        return self._pool.in_flight

    def room(self, most: int) -> tuple[int, int]:
        """How many more arrivals keep the readers busy, and how many of them may be large; ``most`` are ahead.

        What waits for a slow file or for a share that does not answer takes no room.
        """
        small = most - self._pool.small_in_flight
        return small, min(small, _MOST_LARGE - self._pool.large_in_flight)

    @property
    def ready(self) -> int:
        """Of these, how many ``collect`` would give at once."""
        return self._pool.ready

    def submit(self, arrivals: Iterable[Arrival]) -> None:
        """Queue files; later portions of maps wait behind every whole file."""
        self._pool.submit(self._grouped([self._task(arrival) for arrival in arrivals]))

    def collect(self, timeout_s: float = 0.0) -> list[FileReading]:
        """Everything that is done; waits up to ``timeout_s`` for the first. Raises ``ReaderBroken``."""
        try:
            done = [task for task in self._pool.collect(timeout_s) if isinstance(task, _FileTask)]
        except WorkersBroken as error:
            raise ReaderBroken(str(error)) from error
        found: list[FileReading] = []
        for task in done:
            if task.failure is not None and task.others:
                self._pool.submit(self._task(file.arrival) for file in task.files)
            else:
                found += self._found(task)
        return found

    def _found(self, task: _FileTask) -> Iterator[FileReading]:
        """What became of the files of a task; those that were read by another rule than holds now are read again."""
        if task.answer is None:
            readings = [_lost(task)]
        else:
            headers, arrays = task.answer.get("files", [task.answer]), iter(task.arrays)
            readings = [_reading(*one, arrays) for one in zip(task.files, headers, strict=True)]
        for file, reading in zip(task.files, readings, strict=True):
            if file.text_rule == self._rule_of(file.arrival):
                yield reading
            else:
                self.submit([file.arrival])

    def read(self, arrival: Arrival) -> FileReading:
        """One file or portion at once, for a pool with nothing else in flight. Raises ``ReaderBroken``."""
        self.submit([arrival])
        while not (done := self.collect(ending.LOOK_S)):
            ending.check()
        return done[0]

    def close(self) -> None:
        """End the child processes; what was under way is forgotten (the folder still has it)."""
        self._pool.close()

    def _rule_of(self, arrival: Arrival) -> TextRule | None:
        return rule_for(arrival.file, self.rules) if self.rules else None

    def _grouped(self, tasks: list[_FileTask]) -> list[_FileTask]:
        """Small files of one kind and one place together, as far as every process still has four groups to do."""
        most = min(_GROUP_FILES, len(tasks) // (4 * self._workers))
        grouped: list[_FileTask] = []
        open_groups: dict[tuple[str, str], _FileTask] = {}
        for task in tasks:
            if most < 2 or not task.may_be_grouped:
                grouped.append(task)
                continue
            group = open_groups.get(kind := (task.kin, task.place))
            if group is None or group.counts >= most:
                grouped.append(task)
                open_groups[kind] = task
            else:
                group.take_in(task)
        return grouped

    def _task(self, arrival: Arrival) -> _FileTask:
        rule = self._rule_of(arrival)
        parsed_bytes = min(arrival.size_bytes, limits.WHOLE_BYTES)
        limit_s = _LIMIT_S + parsed_bytes / _LIMIT_BYTES_PER_S if self._limit_s is None else self._limit_s
        share = self._shares.of(arrival.file)
        return _FileTask(
            {
                "file": str(arrival.file),
                "companion": str(arrival.companion) if arrival.companion else None,
                "name": arrival.file.name,
                "first": arrival.first,
                "count": limits.PORTION_CURVES,
                "final": arrival.final,
                "waits": self._is_live,
                "sha256": arrival.sha256 if arrival.first else None,
                "total": arrival.total,
                "size_bytes": arrival.size_bytes,
                "profile": _as_json(self.profile) if self.profile else None,
                "bare": self._bare,
                "text_rule": None if rule is None else asdict(rule),
            },
            limit_s,
            again={"careful": True},
            comes_last=arrival.first > 0,
            is_large=arrival.is_large,
            size_bytes=arrival.size_bytes,
            kin=arrival.file.suffix.lower(),
            place=share or arrival.folder or "",
            is_remote=share is not None,
            arrival=arrival,
            profile=self.profile,
            text_rule=rule,
        )


@dataclass(slots=True, eq=False, kw_only=True)
class _FileTask(Task):
    """A portion of a file to be read, for this profile and by this rule, and with it perhaps other small files."""

    arrival: Arrival
    profile: RasterProfile | None
    text_rule: TextRule | None
    others: list[_FileTask] = field(default_factory=list)

    @property
    def files(self) -> list[_FileTask]:
        return [self, *self.others]

    @property
    def may_be_grouped(self) -> bool:
        """Whether it is read in a moment, as far as can be told: a share, or a large file, may hold up the others."""
        return not (self.comes_last or self.is_remote) and 0 < self.size_bytes <= _GROUP_FILE_BYTES

    def take_in(self, other: _FileTask) -> None:
        """The file of another task too; if anything goes wrong nobody is to blame until each was asked for alone."""
        if not self.others:
            self.request, self.tries = {"files": [self.request]}, 1
            self.limit_s = min(self.limit_s, _GROUP_LIMIT_S)
        self.request["files"].append(other.request)
        self.others.append(other)
        self.counts, self.size_bytes = self.counts + 1, max(self.size_bytes, other.size_bytes)


class _Shares:
    """Which share a file lies on, by the kernel's own list; no file is touched for it."""

    def __init__(self) -> None:
        self._table = Table(())
        self._found: dict[Path, str | None] = {}  # folder -> mount point, None on a local disk
        self._looked_s = -math.inf

    def of(self, file: Path) -> str | None:
        """Its mount point; None for what lies on a local disk."""
        now_s = time.monotonic()
        if now_s - self._looked_s > _MOUNTS_HOLD_S:
            self._table, self._looked_s = Table.read(), now_s
            self._found.clear()
        if (folder := file.parent) not in self._found:
            mount = self._table.under(self._table.resolve(folder))
            self._found[folder] = mount.point if mount.is_network else None
        return self._found[folder]


@lru_cache(maxsize=2)
def _as_json(profile: RasterProfile) -> str:
    return profile.to_json()


def _reading(file: _FileTask, header: frames.Header, arrays: Iterator[frames.Array]) -> FileReading:
    """What a process said of a file, as the stages after this one know it; its arrays are the next ones."""
    arrival, format = file.arrival, header.get("format")
    curves = header.get("curves", ())
    share_s = header["read_s"] / max(len(curves), 1)
    readings = []
    for entry in curves:
        curve, prepared = frames.restore(entry, arrays) if "samples" in entry else (None, None)
        origin = (arrival, entry["index"], header["sha256"])
        acquired_s = None if curve is None else curve.acquired_s
        reason, told = entry.get("reason"), entry.get("tip")
        tip = None if told is None else TipState(*told)
        readings.append(Reading(*origin, curve, reason, share_s, prepared, file.profile, format, acquired_s, tip))
    total, reason = header.get("total", 0), header.get("reason")
    return FileReading(arrival, header["outcome"], tuple(readings), total, reason, format)


def _lost(task: _FileTask) -> FileReading:
    """A task that took its processes with it: one reason for each curve that was asked for."""
    arrival = task.arrival
    if task.failure == "away":
        return FileReading(arrival, "unfinished", reason=AWAY)
    spent_s = time.monotonic() - task.head_since_s
    stop = min(arrival.first + limits.PORTION_CURVES, arrival.total)
    sha256 = task.noted or arrival.sha256
    readings = tuple(Reading(arrival, i, sha256, None, task.failure, spent_s) for i in range(arrival.first, stop))
    return FileReading(arrival, "curves", readings, arrival.total)
