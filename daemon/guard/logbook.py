"""The logbook: what the guard remembers over a restart, in ``guard.sqlite`` beside the ledger.

Tallies of canaries and of ignored files by the hour, how far each watch has come, the blocks of the tip watch, alarms
and advice with the times they began and ended, when the service ran, and what later networks said of confirmed events.
What is older than a year and a month is forgotten. The service is its one writer, on one
thread; others read. Nothing here is the only copy of a verdict, so it may never be in the way: a file that is damaged
is set aside, one that is of a newer version, locked, or on a full disk is told of, and what was to be written waits in
memory.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from daemon.common.ending import Closing
from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.common.sqlite_file import Versions, connect_to_read, ensure_file, file_of, is_damaged, trouble
from daemon.labels.confirmed import Said
from daemon.ledger.numbers import BLOCKS_SHOWN, QUANTITIES, TipPoint, Told
from models.clock import rfc3339
from models.files import set_aside

log = logging.getLogger(__name__)

NAME = "guard.sqlite"
_SCRIPTS = (
    """
    create table states (            -- how far a watch has come
        watch text not null,
        key   text not null,         -- of what: a pipeline, or ''
        state text not null,         -- JSON
        primary key (watch, key)
    ) strict, without rowid;
    create table tallies (           -- canaries that came out
        hour     text not null,      -- UTC, RFC 3339, its beginning
        pipeline text not null,
        result   text not null,
        canaries integer not null,
        primary key (hour, pipeline, result)
    ) strict, without rowid;
    create table blocks (            -- of the tip watch
        number integer primary key,
        stream text not null,        -- the ledger that seq counts in
        seq    integer not null,
        time   text not null,        -- UTC, RFC 3339
        unit   text,
        noise real, tilt real, slope real, adhesion real, wave real
    ) strict;
    create index blocks_by_time on blocks (time);
    create table scores (            -- of confirmed events that another network decided
        stream  text not null,
        network text not null,
        seq     integer not null,
        score   real,
        reasons text not null,       -- JSON
        primary key (stream, network, seq)
    ) strict, without rowid;
    create table told (              -- alarms and advice
        since text not null,         -- UTC, RFC 3339
        name  text not null,
        level text not null,         -- degraded or alarm
        text  text not null,
        ended text,                  -- when it was over
        left  text,                  -- when the service ended that had told it, where it stood then
        primary key (since, name)
    ) strict, without rowid;
    """,
    """
    create table runs (              -- of the service
        began   text primary key,    -- UTC, RFC 3339
        seen    text not null,       -- when it was last known to run
        ended   text,                -- in order; null: it was killed, or it runs
        version text not null,
        engine  text not null        -- the last one
    ) strict, without rowid;
    create table ignored (           -- files that were passed over
        hour  text not null,         -- UTC, RFC 3339, its beginning
        kind  text not null,
        files integer not null,
        primary key (hour, kind)
    ) strict, without rowid;
    """,
)
#: The application is "AFMG".
VERSIONS = Versions(0x41464D47, _SCRIPTS, "is no logbook of afm-triage: move it away")
#: From this version on it says when the service ran, and what was ignored.
_RUNS_SINCE = 2
#: What is older is forgotten at a start; so are alarms beyond so many.
_KEPT_S, _MOST_TOLD = 400 * 86_400.0, 20_000
#: So long another program's lock is waited for; then the same is tried again later.
PATIENCE_S = 0.2
#: A file that cannot be opened is tried again this often.
_AGAIN_S = 10.0
#: Changes that wait while nothing can be written; more are forgotten, the oldest first.
_MOST = 10_000
#: Blocks that are kept: two months of day and night at a curve a second.
_BLOCKS = 100_000
_CLEAN_EVERY = 1_000
_BLOCK = f"seq, time, unit, {', '.join(QUANTITIES)}"
_LAST_BLOCKS = 4 * BLOCKS_SHOWN  # of all units
_TOLD = ("since", "name", "level", "text", "ended", "left")
_RUN = ("began", "seen", "ended", "version", "engine")
_HELD = f"select {', '.join(_TOLD)} from told where coalesce(ended, left, '9') >= ? order by since, name"


class Run(NamedTuple):
    """One run of the service; times are UTC, RFC 3339."""

    began: str
    seen: str  # when it was last known to run
    ended: str | None  # in order; None: it was killed, or it runs
    version: str
    engine: str


class Logbook(Closing):
    """For one thread, of the service. Nothing is raised: ``trouble`` says what is in the way, "" when all is well.

    What is noted is written by :meth:`write`, all of it or nothing; until then it waits in memory.
    """

    def __init__(self, path: Path, stream: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self.path, self.stream, self.trouble = path, stream, ""
        self._now, self._due_s = now, 0.0
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._states: dict[tuple[str, str], str] = {}
        self._tallies: Counter[tuple[str, str, str]] = Counter()
        self._waiting: deque[tuple[str, tuple[object, ...]]] = deque(maxlen=_MOST)
        self._written = 0  # blocks since the old ones were last cleared away
        self._open()

    def close(self) -> None:
        """What waits is written, if it can be."""
        self.write()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def keep(self, watch: str, key: str, state: Mapping[str, Any]) -> None:
        """How far a watch has come; the last word counts."""
        self._states[watch, key] = json.dumps(state)

    def kept(self, watch: str) -> dict[str, dict[str, Any]]:
        """What was kept of a watch, by key; nothing where it cannot be read."""
        rows = self._select("select key, state from states where watch = ?", watch)
        found = {key: state for key, state in rows}
        found |= {key: state for (its, key), state in self._states.items() if its == watch}
        made = {}
        for key, state in found.items():
            with suppress(ValueError):
                made[key] = json.loads(state)
        return made

    def count(self, hour: str, pipeline: str, result: str, canaries: int = 1) -> None:
        """Canaries that came to this result in an hour (UTC, RFC 3339, its beginning)."""
        self._tallies[hour, pipeline, result] += canaries

    def ignore(self, hour: str, kind: str, files: int) -> None:
        """Files of this kind that were passed over in an hour (UTC, RFC 3339, its beginning)."""
        insert = """insert into ignored values (?, ?, ?)
                    on conflict do update set files = files + excluded.files"""
        self._waiting.append((insert, (hour, kind, files)))

    def note_run(self, run: Run) -> None:
        """How a run of the service stands."""
        self._waiting.append(("insert or replace into runs values (?, ?, ?, ?, ?)", tuple(run)))

    def forget_old(self, now_s: float) -> None:
        """What is too old to be asked about."""
        for table, column in (("tallies", "hour"), ("ignored", "hour"), ("runs", "began"), ("told", "since")):
            self._waiting.append((f"delete from {table} where {column} < ?", (rfc3339(now_s - _KEPT_S),)))
        last = "(select since from told order by since desc limit 1 offset ?)"
        self._waiting.append((f"delete from told where since < {last}", (_MOST_TOLD,)))

    def note_block(self, point: TipPoint, unit: str | None) -> None:
        values = (self.stream, point.seq, point.time, unit, *(getattr(point, name) for name in QUANTITIES))
        columns = f"stream, seq, time, unit, {', '.join(QUANTITIES)}"
        marks = ", ".join("?" * len(values))
        self._waiting.append((f"insert into blocks ({columns}) values ({marks})", values))

    def blocks(self) -> list[tuple[TipPoint, str | None]]:
        """The last blocks that were noted of this ledger, the oldest first, each with its unit."""
        query = f"select {_BLOCK} from blocks where stream = ? order by number desc limit ?"
        return [_point(row) for row in reversed(self._select(query, self.stream, _LAST_BLOCKS))]

    def note_told(self, told: Told) -> None:
        """That it began, what has become of it, or that it is over."""
        values = (told.since, told.name, told.level, told.text, told.ended, told.left)
        self._waiting.append(("insert or replace into told values (?, ?, ?, ?, ?, ?)", values))

    def leave(self, left: str) -> None:
        """The service ends, or was killed before this one: what stands is not over for that."""
        self._waiting.append(("update told set left = ? where ended is null and left is null", (left,)))

    def told(self, since: str) -> list[Told]:
        """As :meth:`LogbookView.told`, of what is written down."""
        return [Told(**dict(zip(_TOLD, row, strict=True))) for row in self._select(_HELD, since)]

    def note_said(self, network: str, seq: int, said: Said) -> None:
        """What a network said of a confirmed event that another one had decided."""
        insert = "insert or replace into scores values (?, ?, ?, ?, ?)"
        self._waiting.append((insert, (self.stream, network, seq, said.score, json.dumps(said.reasons))))

    def said(self, network: str) -> dict[int, Said]:
        """What was noted of this ledger's events."""
        query = "select seq, score, reasons from scores where stream = ? and network = ?"
        return {seq: _said(score, reasons) for seq, score, reasons in self._select(query, self.stream, network)}

    def write(self) -> None:
        """Put down what waits. Cheap when nothing does."""
        if self._connection is not None and file_of(self.path) != self._file:  # somebody has taken it away
            self._connection.close()
            self._connection, self._due_s = None, 0.0
        if self._connection is None and self._now() >= self._due_s:
            self._open()
        if self._connection is None or not (self._states or self._tallies or self._waiting):
            return
        try:
            self._write(self._connection)
        except sqlite3.DatabaseError as error:
            self._fail(error)
            return
        self._states.clear()
        self._tallies.clear()
        self._waiting.clear()
        self.trouble = ""

    def _write(self, connection: sqlite3.Connection) -> None:
        insert = "insert or replace into states values (?, ?, ?)"
        count = """insert into tallies values (?, ?, ?, ?)
                   on conflict do update set canaries = canaries + excluded.canaries"""
        connection.execute("begin immediate")
        try:
            connection.executemany(insert, [(*key, state) for key, state in self._states.items()])
            connection.executemany(count, [(*key, canaries) for key, canaries in self._tallies.items()])
            for statement, values in self._waiting:
                connection.execute(statement, values)
            self._written += len(self._waiting)
            if self._written > _CLEAN_EVERY:
                oldest = "(select max(number) from blocks) - ?"
                connection.execute(f"delete from blocks where number <= {oldest}", (_BLOCKS,))
                self._written = 0
            connection.execute("commit")
        except BaseException:
            with suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("rollback")
            raise

    def _select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        if self._connection is None:
            return []
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            self._fail(error)
            return []

    def _open(self) -> None:
        """Anew where the file is damaged: nothing in it is the only copy of a verdict."""
        for is_last in (False, True):
            try:
                self._connection = _connect(self.path)
                self._file = file_of(self.path)
                self.trouble = ""
                return
            except (sqlite3.DatabaseError, UserError, OSError) as error:
                self._due_s = self._now() + _AGAIN_S
                self._say(error)
                if is_last or not _is_damaged(error) or not self._set_aside(error):
                    return

    def _fail(self, error: sqlite3.DatabaseError) -> None:
        self._say(error)
        if _is_damaged(error) and self._connection is not None:  # the next write opens it anew, or makes another
            self._connection.close()
            self._connection, self._due_s = None, 0.0

    def _set_aside(self, error: Exception) -> bool:
        try:
            other = set_aside(self.path)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        except OSError as found:
            self.trouble = f"{self.trouble}, and cannot be moved away ({found.strerror})"
            return False
        log.warning("%s was damaged (%s) and is %s now; a new one begins", self.path, error, other.name)
        return True

    def _say(self, error: Exception) -> None:
        self.trouble = str(error) if isinstance(error, UserError) else trouble(error, self.path)


class LogbookView(Closing):
    """For readers in any process, beside a running service or without one; one thread at a time.

    Raises UserError 69 where there is no logbook, 74 where it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(UNREACHABLE, f"no logbook at {path}: start the service, or name the right --state folder")
        try:
            self._connection = connect_to_read(path, VERSIONS.of)
            self._version = VERSIONS.of(self._connection, path)
        except sqlite3.DatabaseError as error:
            raise UserError(INPUT_OUTPUT, f"{path}: {error}") from error

    def close(self) -> None:
        self._connection.close()

    def tallies(self, since: str = "", until: str = "9") -> Counter[str]:
        """Canaries by result, of the hours from ``since`` on and before ``until`` (UTC, RFC 3339)."""
        query = "select result, sum(canaries) from tallies where hour >= ? and hour < ? group by result"
        return Counter(dict(self._select(query, since, until)))

    def kept(self, watch: str, key: str) -> dict[str, Any] | None:
        """What was kept of a watch; None where nothing was."""
        rows = self._select("select state from states where watch = ? and key = ?", watch, key)
        with suppress(ValueError):
            return dict(json.loads(rows[0][0])) if rows else None
        return None

    def ignored(self, since: str = "", until: str = "9") -> Counter[str]:
        """Files that were passed over by kind, of the hours from ``since`` on and before ``until`` (UTC, RFC 3339)."""
        query = "select kind, sum(files) from ignored where hour >= ? and hour < ? group by kind"
        return Counter(dict(self._select(query, since, until))) if self._version >= _RUNS_SINCE else Counter()

    def runs(self, since: str = "") -> list[Run]:
        """Those that were known to run at any time from ``since`` on (UTC, RFC 3339), the oldest first."""
        query = f"select {', '.join(_RUN)} from runs where coalesce(ended, seen) >= ? order by began"
        return [Run(*row) for row in self._select(query, since)] if self._version >= _RUNS_SINCE else []

    def blocks(self, since: str = "", last: int = _LAST_BLOCKS) -> list[tuple[TipPoint, str | None]]:
        """The last blocks of the tip watch from ``since`` on, the oldest first, each with its unit."""
        query = f"select {_BLOCK} from blocks where time >= ? order by number desc limit ?"
        return [_point(row) for row in reversed(self._select(query, since, last))]

    def told(self, since: str = "") -> list[Told]:
        """Alarms and advice that stood at any time from ``since`` on (UTC, RFC 3339), the oldest first."""
        return [Told(**dict(zip(_TOLD, row, strict=True))) for row in self._select(_HELD, since)]

    def _select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise UserError(INPUT_OUTPUT, f"{self.path}: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(ensure_file(path), timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
    try:
        VERSIONS.of(connection, path)
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = normal")
        VERSIONS.bring_up(connection)
        connection.execute("select count(*) from states").fetchone()
        (finding,) = connection.execute("pragma quick_check(1)").fetchone()
        if finding != "ok":
            damage = sqlite3.DatabaseError(finding)
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage
    except BaseException:
        connection.close()
        raise
    return connection


def _is_damaged(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and is_damaged(error)


def _point(row: tuple[Any, ...]) -> tuple[TipPoint, str | None]:
    seq, time, unit, *values = row
    return TipPoint(seq=seq, time=time, **dict(zip(QUANTITIES, values, strict=True))), unit


def _said(score: float | None, reasons: str) -> Said:
    return Said(score, tuple(json.loads(reasons)))
