"""The space on the disk of a state: when it is full at the present rate, what takes how much, and what goes first.

Only what nobody waits for goes: the compact copy or the spooled file of a discard that nobody has labelled, that the
second opinion does not dispute, and that was not drawn for audit within a month. The oldest go first. A decision never
goes, nor the copy of a kept or flagged curve.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from daemon.common.errors import INPUT_OUTPUT, UserError
from daemon.common.sqlite_file import trouble
from daemon.common.text import duration, many, size
from daemon.config import Config
from daemon.config.origin import LEDGER_FILE
from daemon.config.rule import SpaceConfig
from daemon.formats.afmcurve import SUFFIX
from daemon.ledger import Ledger, NotRecorded
from daemon.ledger.file import DRAWS_SINCE, LOOKS_SINCE
from daemon.ledger.numbers import Disk
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import text
from daemon.sources.ingest import prune as prune_files
from daemon.sources.message import name_and_id
from models.clock import night_of, since_1970

_log = logging.getLogger(__name__)

#: The free space is looked at so often.
LOOK_S = 10.0
#: It is compared over each of these times; one that was looked back on is believed for so many of it.
_WINDOWS_S, _BELIEVED = (60.0, 600.0, 3600.0, 10_800.0), 8
#: Beside the ledger in a state.
LABELS, SPOOL = "labels.sqlite", "ingest"
_MONTH_S = 30 * 86400.0
#: Budgets are looked at so often, or more rarely where that takes long; between two portions others have their turn.
_PRUNE_S, _SHARE, _REST_S, _GONE_S = 600.0, 1e-2, 0.02, 1.0
#: Nor is a day of the spool, all of which stays, read again before that.
_AGAIN_S = 86_400.0
_PORTION, _PAGES_AT_ONCE = 200, 2_000
#: A warning goes when there has been no cause for it for so long: what writes in bursts shall not raise it each time.
_QUIET_S = 900.0


class DiskWatch:
    """When a disk is full, from how its free space went; times are of a steady clock.

    The least free space is compared over three windows one after the other, and the slower of the two steps is the
    rate. So a program that writes files and deletes them again is no rate, however much it is, nor is one large copy.
    From three minutes it is told what comes within minutes, from nine hours what comes within a day.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=2 + int(3 * _WINDOWS_S[-1] / LOOK_S))

    def note(self, now_s: float, free_bytes: int) -> None:
        """So much is free now; called every ``LOOK_S``, or more rarely."""
        self._seen.append((now_s, free_bytes))

    def full_s(self) -> float:
        """Seconds until nothing is free; infinite where it does not fill, or that is not known yet."""
        if not self._seen:
            return math.inf
        now_s, free_bytes = self._seen[-1]
        soonest_s = math.inf
        for window_s in _WINDOWS_S:
            rate = self._rate(now_s, window_s)
            if rate is None:
                break  # longer ones have not been looked back on yet either
            left_s = free_bytes / rate if rate > 0 else math.inf
            if left_s <= _BELIEVED * window_s or window_s == _WINDOWS_S[-1]:
                soonest_s = min(soonest_s, left_s)
        return soonest_s

    def _rate(self, now_s: float, window_s: float) -> float | None:
        """Bytes a second that go, by the least free space of two windows; None where they are not known."""
        if self._seen[0][0] > now_s - 3 * window_s + LOOK_S:
            return None
        least = [math.inf] * 3
        for when_s, free in self._seen:
            if (place := int((now_s - when_s) / window_s)) < 3:
                least[place] = min(least[place], free)
        latest, before, first = least
        return min(before - latest, first - before) / window_s if math.isfinite(sum(least)) else 0.0


class FullWarning:
    """Whether to warn of a full disk: at once, and until there has been no cause for a while, or much room was made."""

    def __init__(self) -> None:
        self._cause_s, self._free_bytes = -math.inf, 0  # when there was last a cause, and what was free then
        self.full_s: float | None = None  # as it was told then; None: nothing to warn of

    def observe(self, now_s: float, disk: Disk, warn_s: float) -> None:
        """``warn_s``: a disk that is full within so long is a cause; 0: never."""
        if disk.full_s is not None and disk.full_s < warn_s:
            self._cause_s, self._free_bytes, self.full_s = now_s, disk.free_bytes, disk.full_s
        elif not warn_s or now_s - self._cause_s >= _QUIET_S or disk.free_bytes >= 1.5 * self._free_bytes:
            self.full_s = None


@dataclass(frozen=True, slots=True)
class Awaited:
    """Discards that must not go, as they were known at one moment; those decided later may be among them too."""

    seqs: set[int]
    last_seq: int
    labels: tuple[int, ...]  # differs when a label has come since

    def __contains__(self, seq: int) -> bool:
        return seq > self.last_seq or seq in self.seqs


def _changes_of(database: Path) -> tuple[int, ...]:
    """Other numbers after each transaction."""
    found: list[int] = []
    for file in (database, database.with_name(f"{database.name}-wal")):
        with contextlib.suppress(OSError):
            its = file.stat()
            found += (its.st_ino, its.st_size, its.st_mtime_ns)
    return tuple(found)


class SpaceView(LedgerView):
    """What can be pruned of a ledger, and what must not be."""

    def copies_bytes(self) -> int:
        """Of all compact copies."""
        sums = (
            "select coalesce(sum(length(keepsake)), 0) from reviews",
            "select coalesce(sum(length(copy)), 0) from looks",
        )
        return sum(int(self._select(one)[0][0]) for one in sums[: 2 if self._is_of(LOOKS_SINCE) else 1])

    def free_in_file_bytes(self) -> int:
        """That the next decisions take before the file grows."""
        page, free = (int(self._select(f"pragma {name}")[0][0]) for name in ("page_size", "freelist_count"))
        return page * free

    def awaited(self, labels: Path) -> Awaited:
        """Discards that stay: labelled, disputed, or drawn for audit within a month; and whoever came after this look.

        Raises UserError where that cannot be known.
        """
        last, state = self.last_seq, _changes_of(labels)  # before the looks: what they miss stays
        since = night_of(time.time() - _MONTH_S)
        drawn = "select seq from draws join audits on number = audit where stratum = 'steps' or night >= ?"
        found = {seq for (seq,) in self._select(drawn, since)} if self._is_of(DRAWS_SINCE) else set()
        if labels.is_file() and labels.stat().st_size:
            with self._lock:
                found |= _labelled(self._open(), labels)
        return Awaited(found, last, state)

    def idle_copies(self, after: int, limit: int) -> list[tuple[int, int]]:
        """``seq`` and bytes of discards with a copy, the oldest with a greater ``seq`` first."""
        query = """select seq, length(copy) from looks indexed by looks_by_seq
                   where verdict = 'discard' and seq > ? and copy is not null order by seq limit ?"""
        return self._select(query, after, limit) if self._is_of(LOOKS_SINCE) else []

    def verdict_of(self, identity: str) -> tuple[int, str] | None:
        """``seq`` and verdict of the curve of this identity; None: not decided."""
        rows = self._select("select seq, verdict from decisions where identity = ?", text(identity))
        return rows[0] if rows else None


def _labelled(connection: sqlite3.Connection, labels: Path) -> set[int]:
    """Rather too many than too few: all of a curve's name, its content, and the decision that a label is on."""
    try:
        connection.execute("attach database ? as labels", (f"{labels.absolute().as_uri()}?mode=ro",))
        (version,) = connection.execute("pragma labels.user_version").fetchone()
        holds = "labels.labels" if version < 2 else "labels.current where is_last and removed_by is null"
        seqs = "union select seq from labels.labels where seq is not null" if version > 2 else ""
        query = f"""with said as materialized (select sha256, path, curve from {holds})
            select decisions.seq from said join decisions on identity = sha256 || '#' || curve
            union select names.seq from said join names using (path, curve) {seqs}"""
        return {seq for (seq,) in connection.execute(query)}
    except sqlite3.DatabaseError as error:
        raise UserError(INPUT_OUTPUT, f"{trouble(error, labels)}; nothing is pruned until it can be read") from error
    finally:
        with contextlib.suppress(sqlite3.DatabaseError):
            connection.execute("detach database labels")


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, or would go."""

    curves: int = 0
    freed_bytes: int = 0  # of copies, or of files
    left_bytes: int = 0  # that there are still


class Pruner:
    """Keeps the copies and the spool of a state within their budgets.

    ``rest`` is called between two portions, which take some milliseconds each; it ends the work by True.
    """

    def __init__(self, state: Path, ledger: Ledger | None, rest: Callable[[], bool] = lambda: False) -> None:
        """Without a ``ledger`` to write nothing goes, and it is told what would."""
        self.view, self._ledger, self._rest = SpaceView(state / LEDGER_FILE), ledger, rest
        self._labels, self._spool = state / LABELS, state / SPOOL
        self._looked: dict[str, tuple[int, float]] = {}  # day -> files that stayed when it was looked through, and when

    def copies(self, budget_bytes: int) -> Pruned:
        """Compact copies go until all together take no more than that. Raises NotRecorded, UserError."""
        left, curves, freed, after = self.view.copies_bytes(), 0, 0, 0
        awaited = None
        while left > budget_bytes and (found := self.view.idle_copies(after, _PORTION)):
            awaited = self._awaited(awaited)
            after, some = found[-1][0], []
            for seq, count_bytes in found:
                if seq not in awaited and left > budget_bytes:
                    some.append(seq)
                    left, freed = left - count_bytes, freed + count_bytes
            curves += len(some)
            if some and self._ledger is not None:
                self._ledger.tend(partial(_drop, some))
            if self._rest():
                break
        return Pruned(curves, freed, left)

    def spool(self, budget_bytes: int) -> Pruned:
        """Files of the ingest spool go until all together take no more than that. Raises OSError, UserError."""
        days = _days(self._spool)
        left, curves, freed = sum(sum(sizes.values()) for sizes in days.values()), 0, 0
        awaited = None
        for day, sizes in days.items():
            if left <= budget_bytes:
                break
            stayed, when_s = self._looked.get(day, (0, 0.0))
            if stayed == len(sizes) and time.monotonic() - when_s < _AGAIN_S:
                continue
            for some in _portions(sizes):
                awaited = self._awaited(awaited)
                idle = [path for path in some if left > budget_bytes and self._is_idle(path, awaited)]
                went_bytes = sum(sizes[path] for path in idle)
                curves, left, freed = curves + len(idle), left - went_bytes, freed + went_bytes
                if idle and self._ledger is not None:
                    prune_files(idle)
                if self._rest():
                    return Pruned(curves, freed, left)
            if left > budget_bytes:
                self._looked[day] = len(_files(self._spool / day)), time.monotonic()
        return Pruned(curves, freed, left)

    def _awaited(self, before: Awaited | None) -> Awaited:
        """As it is now: people label while we are at it."""
        is_new = before is not None and before.labels == _changes_of(self._labels)
        return before if is_new and before is not None else self.view.awaited(self._labels)

    def _is_idle(self, path: Path, awaited: Awaited) -> bool:
        """Whether it is a decided discard that nobody waits for; a file that cannot be read stays."""
        try:
            _, identity = name_and_id(path)
        except Exception as error:  # whatever is in the file
            _log.debug("%s stays in the spool: %s", path, error)
            return False
        found = self.view.verdict_of(f"ingest:{identity}#0")
        return found is not None and found[1] == "discard" and found[0] not in awaited


def _drop(seqs: Sequence[int], connection: sqlite3.Connection) -> None:
    """Their copies, and the pages that these leave: to the disk, else (a ledger from before) to the next decisions."""
    connection.execute(f"update looks set copy = null where seq in ({','.join(map(str, seqs))})")
    (free,) = connection.execute("pragma freelist_count").fetchone()
    for _ in range(min(free, _PAGES_AT_ONCE)):  # one a statement: Python takes but the first step of each
        connection.execute("pragma incremental_vacuum(1)")


def _days(spool: Path) -> dict[str, dict[Path, int]]:
    """Of each day the files and their bytes, the oldest first."""
    with contextlib.suppress(FileNotFoundError):
        return {day: _files(spool / day) for day in sorted(one.name for one in os.scandir(spool) if one.is_dir())}
    return {}


def _files(day: Path) -> dict[Path, int]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for one in os.scandir(day):
            with contextlib.suppress(FileNotFoundError):
                if one.name.endswith(SUFFIX):
                    found.append((one.stat().st_mtime_ns, Path(one.path), one.stat().st_size))
    return {path: count_bytes for _, path, count_bytes in sorted(found)}


def _portions(paths: Mapping[Path, int]) -> Iterator[list[Path]]:
    waiting = list(paths)
    for start in range(0, len(waiting), _PORTION):
        yield waiting[start : start + _PORTION]


class SpaceCare(threading.Thread):
    """Looks at the disk of the running service, and keeps its budgets.

    ``count(what, curves)`` hears of what went.
    """

    def __init__(self, config: Config, ledger: Ledger, count: Callable[[str, int], None]) -> None:
        super().__init__(name="space", daemon=True)
        self._settings, self.disk = config.space, Disk(free_bytes=free_bytes(config.state), full_s=None)
        self._state, self._ledger, self._count = config.state, ledger, count
        self._watch, self._warning, self._ending = DiskWatch(), FullWarning(), threading.Event()
        self._pruner = Pruner(config.state, ledger, self._rest)
        self.text = ""  # what to warn of; "": nothing
        self._due_s = 0.0  # when the budgets are looked at again, by time.monotonic()

    def run(self) -> None:
        while not self._ending.wait(LOOK_S):
            self.look(time.monotonic())
            if time.monotonic() >= self._due_s:
                began_s = time.monotonic()
                self._due_s = math.inf
                self.keep_budgets()
                now_s = time.monotonic()
                self._due_s = min(self._due_s, now_s + max((now_s - began_s) / _SHARE, _PRUNE_S))

    def adopt(self, settings: SpaceConfig) -> None:
        """Other budgets, from the next look on."""
        self._settings, self._due_s = settings, 0.0

    def stop(self) -> None:
        self._ending.set()
        if self.is_alive():
            self.join(_GONE_S)

    def look(self, now_s: float) -> None:
        """How the disk is now, by a steady clock."""
        try:
            free = free_bytes(self._state)
        except OSError:
            return  # moved away, which others tell of
        self._watch.note(now_s, free)
        full_s = self._watch.full_s()
        self.disk = Disk(free_bytes=free, full_s=None if math.isinf(full_s) else round(full_s, 1))
        self._warning.observe(now_s, self.disk, self._settings.full_s)
        self.text = self._words(free, self._warning.full_s) if self._warning.full_s is not None else ""

    def _words(self, free: int, full_s: float) -> str:
        return (
            f"the disk of {self._state} is full in {duration(full_s)} at the present rate, {size(free)} are free: make "
            "room; `afm-triage ledger size` says what of it is ours, and [space] sets limits"
        )

    def _rest(self) -> bool:
        return self._ending.wait(_REST_S)

    def keep_budgets(self) -> None:
        """What is above a limit goes now."""
        pruner = self._pruner
        for what, prune, budget_bytes in (
            ("copies", pruner.copies, self._settings.copies_bytes),
            ("spool", pruner.spool, self._settings.spool_bytes),
        ):
            if not budget_bytes:
                continue
            try:
                went = prune(budget_bytes)
            except (NotRecorded, UserError, OSError) as error:
                _log.warning("the %s cannot be pruned now: %s", what, error)
                continue
            self._count(what, went.curves)
            if went.curves:
                _log.info(
                    "%s of the %s went, %s are free of them", many(went.curves, "curve"), what, size(went.freed_bytes)
                )


def free_bytes(state: Path) -> int:
    """On the disk of a folder that is there; for us, without what is root's alone. OSError."""
    found = os.statvfs(state)
    return found.f_bavail * found.f_frsize


@dataclass(frozen=True, slots=True)
class Taken:
    """What a state takes on its disk."""

    bytes: dict[str, int]  # by what it is
    free_bytes: int
    growth_bytes_per_day: int
    looked_back_s: float  # over which that was


#: What lies in a state folder beside the ledger: what it is -> its files and folders.
_PLACES = {
    "spool": (SPOOL,),
    "labels": (LABELS,),
    "guard": ("guard.sqlite",),
    "models": ("models",),
    "engines": ("engines",),
    "reports": ("reports",),
    "snapshots": ("snapshots",),
}
_WEEK_S, _HOUR_S = 7 * 86_400.0, 3600.0


def taken(state: Path) -> Taken:
    """Beside a running service or without one. Raises UserError 69 where there is no ledger, 74 where it is damaged."""
    with SpaceView(state / LEDGER_FILE) as view:
        files = _size_of(state / LEDGER_FILE, state / f"{LEDGER_FILE}-wal", state / f"{LEDGER_FILE}-shm")
        copies, free = view.copies_bytes(), view.free_in_file_bytes()
        found = {"decisions": max(files - copies - free, 0), "copies": copies, "room in the ledger": free}
        found |= {what: _size_of(*(state / name for name in names)) for what, names in _PLACES.items()}
        found["other"] = max(_size_of(state) - sum(found.values()), 0)
        now_s, last = time.time(), view.last_seq
        since = _first_since(view, now_s - _WEEK_S, last)
        looked_back_s = min(max(now_s - _decided_s(view, since), _HOUR_S), _WEEK_S) if since <= last else _WEEK_S
        grown = (found["decisions"] + copies) * (last - since + 1) / last if last else 0.0
        recent = (one for files_of in _days(state / SPOOL).values() for one in files_of.items())
        grown += sum(count for path, count in recent if path.stat().st_mtime >= now_s - looked_back_s)
    per_day = int(grown * 86_400 / looked_back_s)
    return Taken(found, free_bytes(state), per_day, looked_back_s)


def _decided_s(view: SpaceView, seq: int) -> float:
    return since_1970(str(view.decisions([seq])[seq]["time"]))


def _first_since(view: SpaceView, since_s: float, last: int) -> int:
    """The first decision made since then, by halves; ``last`` + 1 where there is none."""
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _decided_s(view, middle) >= since_s else (middle + 1, high)
    return low


def _size_of(*places: Path) -> int:
    total = 0
    for place in places:
        with contextlib.suppress(OSError):
            total += place.stat().st_size
            if place.is_dir():
                total += sum(_size_of(Path(one.path)) for one in os.scandir(place) if not one.is_symlink())
    return total
