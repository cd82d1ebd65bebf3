"""The ledger's file: its tables, how it is opened, checked and brought up to date, and how trouble with it is said.

A migration makes tables and columns and nothing else, so that a start takes no longer with a million decisions than
with none. What has to go through all of them stands in ``chores``, and is done beside the running service.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.common.sqlite_file import Versions, connect_to_read, ensure_file, file_of, is_damaged, is_locked, trouble
from daemon.judging import Decision, audit, chance_in
from daemon.judging.audit import Past, Stratum
from daemon.ledger import wire
from daemon.ledger.wire import checksum, text
from models.clock import night_of

#: One script a version.
MIGRATIONS = (
    """
    create table ledger (only integer primary key check (only = 1), stream text not null, opened text) strict;
    create table decisions (
        seq      integer primary key,
        identity text not null unique,
        verdict  text not null check (verdict in ('keep', 'review', 'discard')),
        body     blob not null,      -- the event, as it is sent
        checksum integer not null    -- of seq, verdict and body: a flipped bit is found, not served
    ) strict;
    create table reviews (
        seq      integer primary key references decisions (seq),
        path     text not null,
        curve    integer not null,
        sha256   text,
        keepsake blob                -- a compact copy of the curve as .afmcurve; the instrument's file may go away
    ) strict;
    create index reviews_by_content on reviews (sha256, curve);
    create index reviews_by_path on reviews (path, curve);
    create table files (
        path       text not null unique,
        size_bytes integer not null,
        mtime_ns   integer not null,
        sha256     text,
        curves     integer not null
    ) strict;
    create table tally (verdict text primary key, curves integer not null) strict;
    insert into tally values ('keep', 0), ('review', 0), ('discard', 0);
    """,
    # Two watched folders may hold the same relative path. Files that were finished before are of any folder.
    """
    alter table files rename to files_of_any_folder;
    create table files (
        folder     text not null,
        path       text not null,
        size_bytes integer not null,
        mtime_ns   integer not null,
        sha256     text,
        curves     integer not null,
        looked_ns  integer not null,  -- time.time_ns() of the look that these are of; 0: not known
        primary key (folder, path)
    ) strict, without rowid;
    create table names (             -- path#curve of every decision, to find it by
        path   text not null,
        curve  integer not null,
        seq    integer not null,
        folder text not null,        -- '': none, or a decision from before
        primary key (path, curve, seq)
    ) strict, without rowid;
    create table chores (chore text primary key, seq integer not null) strict;
    insert into chores select 'names', max(seq) from decisions where true having max(seq) is not null;
    """,
    # What a person may be asked to look at: every kept and flagged curve, and the discards that were drawn for audit.
    """
    create table looks (
        seq         integer primary key references decisions (seq),
        verdict     text not null check (verdict in ('keep', 'review', 'discard')),
        score       real,
        probability real not null check (probability > 0 and probability <= 1),  -- with which it was drawn
        copy        blob             -- a compact copy, as in reviews, where that of a flagged curve stays
    ) strict;
    create index looks_by_score on looks (verdict, score desc, seq, probability);
    create index looks_by_seq on looks (verdict, seq, score, probability);
    create table bands (             -- discards between an old and a raised cut, which are audited more at first
        pipeline text primary key,
        curves   integer not null
    ) strict, without rowid;
    insert into chores select 'looks', max(seq) from decisions where true having max(seq) is not null;
    """,
    # How the discards were drawn: out of how many of one pipeline in one night, and why with the chance that looks has.
    """
    create table audits (
        number   integer primary key,
        pipeline text not null,
        night    text not null,          -- local date at its noon, from which it lasts to the next, '' from before
        steps    integer not null,       -- decisions of any verdict on which there is a second opinion
        discards integer not null,
        scores   real not null,          -- the sum of theirs
        in_band  integer not null,       -- of the discards, and not disputed
        disputed integer not null,       -- of the discards
        unique (pipeline, night)
    ) strict;
    create table draws (
        audit   integer not null references audits (number),
        stratum text not null check (stratum in ('score', 'band', 'steps')),
        seq     integer not null references looks (seq),
        place   integer not null,        -- among the discards of its audit and stratum, drawn or not, from 1
        primary key (audit, stratum, seq)
    ) strict, without rowid;
    insert into audits (pipeline, night, steps, discards, scores, in_band, disputed)
        select pipeline, '', 0, 0, 0.0, curves, 0 from bands;
    drop table bands;
    """,
    # When each curve was measured: people ask for a night, and a curve may be judged days later, or by another clock.
    """
    create table times (
        acquired_s real not null,        -- since 1970; where nobody knows it, when it was decided
        seq        integer not null references decisions (seq),
        verdict    text not null,
        score      real,
        primary key (acquired_s, seq)
    ) strict, without rowid;
    insert into chores select 'times', max(seq) from decisions where true having max(seq) is not null;
    """,
)
#: The version from which on the name of every new decision is noted in ``names``.
NAMES_SINCE = 2
#: The version from which on what may be looked at stands in ``looks``.
LOOKS_SINCE = 3
#: The version from which on it is known out of how many discards a draw was made.
DRAWS_SINCE = 4
#: The version from which on ``times`` says when each curve was measured.
TIMES_SINCE = 5


#: The application is "AFMT".
VERSIONS = Versions(0x41464D54, MIGRATIONS, "is no ledger of afm-triage: name another --state folder")


def past_of(connection: sqlite3.Connection, pipeline: str) -> Past:
    """What this pipeline has discarded so far."""
    sums = "total(discards), total(scores), total(in_band), total(disputed)"
    row = connection.execute(f"select {sums} from audits where pipeline = ?", (pipeline,)).fetchone()
    return Past(int(row[0]), row[1], int(row[2]), int(row[3]))


class Audit:
    """What one batch decides by one pipeline: how much of it is discarded, and what of that is to be looked at."""

    def __init__(self, pipeline: str, past: Past) -> None:
        self._pipeline, self._past = pipeline, past
        self._steps, self._scores = 0, 0.0
        self._discards: Counter[Stratum] = Counter()
        self._drawn: list[tuple[Stratum, int, int]] = []  # of which stratum, seq, the how-many-th of the batch

    def note(self, decision: Decision, seq: int) -> float | None:
        """Count it; with which probability it was to be looked at, None where it is not."""
        self._steps += decision.steps is not None
        if decision.verdict != "discard":
            return 1.0
        chance = chance_in(decision, self._past)
        self._discards[chance.stratum] += 1
        self._scores += decision.score or 0.0
        if not audit.is_drawn(decision.identity, chance):
            return None
        self._drawn.append((chance.stratum, seq, self._discards[chance.stratum]))
        return chance.probability

    def write(self, connection: sqlite3.Connection, wall_s: float) -> None:
        """Add it to the night of this moment, within the caller's transaction."""
        new = self._discards
        if not self._steps and not new:
            return
        add = """insert into audits (pipeline, night, steps, discards, scores, in_band, disputed)
                 values (?, ?, ?, ?, ?, ?, ?) on conflict (pipeline, night) do update set
                 steps = steps + excluded.steps, discards = discards + excluded.discards,
                 scores = scores + excluded.scores, in_band = in_band + excluded.in_band,
                 disputed = disputed + excluded.disputed returning number, discards, in_band, disputed"""
        row = (self._steps, new.total(), self._scores, new["band"], new["steps"])
        number, discards, in_band, disputed = connection.execute(
            add, (self._pipeline, night_of(wall_s), *row)
        ).fetchone()
        now: Mapping[Stratum, int] = {"score": discards - in_band - disputed, "band": in_band, "steps": disputed}
        draws = [(number, name, seq, now[name] - new[name] + place) for name, seq, place in self._drawn]
        connection.executemany("insert into draws values (?, ?, ?, ?)", draws)


# What a migration has left to do: the row of a decision that cannot be read is left out, and the check tells of it.


def _name(seq: int, identity: str, verdict: str, body: bytes) -> Iterator[tuple[object, ...]]:
    with contextlib.suppress(ValueError, KeyError):
        data = wire.decode(body)["data"]
        yield text(data["path"]), data["curve"], seq, text(data.get("folder") or "")


def _look(seq: int, identity: str, verdict: str, body: bytes) -> Iterator[tuple[object, ...]]:
    """As when it is decided now; only there is no copy of what was not flagged, and no cut had been raised."""
    probability = audit.AUDIT_SHARE if verdict == "discard" else 1.0
    if audit.draw(identity) < probability:
        with contextlib.suppress(ValueError, KeyError):
            yield seq, verdict, wire.decode(body)["data"]["score"], probability, None


def _time(seq: int, identity: str, verdict: str, body: bytes) -> Iterator[tuple[object, ...]]:
    with contextlib.suppress(ValueError, KeyError):
        one = wire.timed(body)
        yield one.acquired_s, seq, one.verdict, one.score


#: Chore -> what it makes of a decision, and where it goes.
CHORES: Mapping[str, tuple[Callable[[int, str, str, bytes], Iterator[tuple[object, ...]]], str]] = {
    "names": (_name, "insert or ignore into names values (?, ?, ?, ?)"),
    "looks": (_look, "insert or ignore into looks values (?, ?, ?, ?, ?)"),
    "times": (_time, "insert or ignore into times values (?, ?, ?, ?)"),
}


#: Decisions that a chore works through in one small transaction.
_AT_ONCE = 200


def do_chore(connection: sqlite3.Connection) -> bool:
    """A portion of the first chore, the newest decisions first, in the caller's transaction; whether there is more."""
    chore, last = connection.execute("select chore, seq from chores order by chore desc").fetchone()
    query = "select seq, identity, verdict, body from decisions where seq <= ? order by seq desc limit ?"
    rows = connection.execute(query, (last, _AT_ONCE)).fetchall()
    left = rows[-1][0] - 1 if rows else 0
    rows_of, insert = CHORES[chore]
    connection.executemany(insert, [made for row in rows for made in rows_of(*row)])
    if left > 0:
        connection.execute("update chores set seq = ? where chore = ?", (left, chore))
    else:
        connection.execute("delete from chores where chore = ?", (chore,))
    return bool(connection.execute("select exists (select 1 from chores)").fetchone()[0])


#: 16 MiB of WAL before SQLite folds it back: fewer slow commits, and still far from the 64 MiB limit.
_CHECKPOINT_PAGES, _WAL_LIMIT_BYTES = 4096, 64 << 20
#: At the start another program's lock is waited for this long; later it is told of, and waited for as long as it lasts.
PATIENCE_S, LOCKED_S = 30.0, 1.0
_WORTH = 0.05  # of a ledger that are free pages: below that it is not written anew
#: Decisions that are looked at before the first new one is written.
TAIL = 1_000
#: What views of this process have found damaged in a file.
FINDINGS: dict[Path, str] = {}


def open_for_writing(path: Path, patience_s: float = LOCKED_S) -> sqlite3.Connection:
    """The one read-write connection. Raises UserError 74 for a damaged, foreign or newer file, or a full disk."""
    try:
        connection = sqlite3.connect(
            ensure_file(path), timeout=patience_s, isolation_level=None, check_same_thread=False
        )
        is_new = VERSIONS.of(connection, path) == 0
        if is_new:  # so that what is pruned can be given back to the disk; says nothing to a file that has tables
            connection.execute("pragma auto_vacuum = incremental")
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")
        connection.execute(f"pragma wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute(f"pragma journal_size_limit = {_WAL_LIMIT_BYTES}")
        if not is_new:
            _check_tail(connection, path)
        VERSIONS.bring_up(connection)
        return connection
    except sqlite3.DatabaseError as error:
        raise explain(error, path) from error


def compact(path: Path) -> None:
    """Give free pages back to the disk, of a ledger that nobody has open, as far as there is room to do it in.

    One from before is written anew, once: from then on it gives back what is pruned. Raises UserError 74.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            pages, free = (database.execute(f"pragma {one}_count").fetchone()[0] for one in ("page", "freelist"))
            (page_bytes,) = database.execute("pragma page_size").fetchone()
            (mode,) = database.execute("pragma auto_vacuum").fetchone()
            if (
                mode == 0
                and free > pages * _WORTH
                and 2.2 * (pages - free) * page_bytes < shutil.disk_usage(path.parent).free
            ):
                database.execute("pragma auto_vacuum = incremental")
                database.execute("vacuum")
            elif mode:
                database.executescript("pragma incremental_vacuum")
            database.execute("pragma wal_checkpoint(truncate)")
    except sqlite3.DatabaseError as error:
        raise explain(error, path) from error


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A read-only connection, beside a running service or without one. Raises UserError 69 when there is no ledger."""
    if not path.is_file():
        raise UserError(UNREACHABLE, f"no ledger at {path}: start the service, or name the right --state folder")
    try:
        return connect_to_read(path, VERSIONS.of)
    except sqlite3.DatabaseError as error:
        raise explain(error, path) from error


def names_of(path: Path) -> tuple[tuple[int, int] | None, ...]:
    """Which files the names of a ledger are: itself, its ``-wal``, its ``-shm``; None where there is none."""
    return tuple(file_of(path.with_name(path.name + suffix)) for suffix in ("", "-wal", "-shm"))


def damaged(path: Path, finding: str) -> UserError:
    """What is wrong, and what to do about it; the writer of the ledger, if it is in this process, hears of it too."""
    FINDINGS[path] = finding
    return UserError(
        INPUT_OUTPUT,
        f"{path} is damaged ({finding}): put a backup copy of it back, or move {path.name}* away to begin a new "
        "ledger, which judges the files in the watched folders again",
    )


def explain(error: sqlite3.DatabaseError, path: Path) -> UserError:
    """The same trouble as one line that says what to do."""
    if is_damaged(error):
        return damaged(path, str(error))
    return UserError(INPUT_OUTPUT, f"{trouble(error, path)}{', then start again' if is_locked(error) else ''}")


def _check_tail(connection: sqlite3.Connection, path: Path) -> None:
    """The last decisions are whole, numbered without a gap, and as many as were counted; quick however many there are.

    The rest is looked at beside the running service. Raises UserError 74.
    """
    query = "select seq, verdict, body, checksum from decisions order by seq desc limit ?"
    rows = connection.execute(query, (TAIL,)).fetchall()
    seq = rows[0][0] if rows else 0
    counted = connection.execute("select sum(curves) from tally").fetchone()[0]
    if counted != seq:
        raise damaged(path, f"it ends at decision {seq} and counts {counted}")
    for number, row in zip(range(seq, 0, -1), rows, strict=False):
        if row[0] != number:
            raise damaged(path, f"decision {number} is not there")
        if checksum(*row[:3]) != row[3]:
            raise damaged(path, f"decision {number} does not match its checksum")
