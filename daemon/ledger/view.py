"""What others read in the ledger, beside a running service or without one."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from daemon.common.ending import Closing
from daemon.common.errors import UNREACHABLE, UserError
from daemon.judging import VERDICTS, Verdict
from daemon.ledger import wire
from daemon.ledger.file import (
    DRAWS_SINCE,
    LOOKS_SINCE,
    NAMES_SINCE,
    TIMES_SINCE,
    damaged,
    explain,
    names_of,
    open_for_reading,
)
from daemon.ledger.span import ALL, EVER, PAGE, Asked, Seqs, Span, Verdicts
from daemon.ledger.wire import Audited, Draw, Flagged, Look, Named, Row, StreamScores, checksum, text

#: The views of this process. SQLite shares what it maps of a file among all connections of a process, so that after
#: its ``-wal`` was taken away all of them have to be opened anew.
_VIEWS: weakref.WeakSet[LedgerView] = weakref.WeakSet()
_OPENING = threading.RLock()
#: The most decisions one replay answer holds.
REPLAY_LIMIT = 5_000
#: Seconds to look for a name among decisions whose names are not noted yet.
_LOOK_THROUGH_S = 5.0
#: Numbers in one question.
_AT_ONCE = 500
_LAST = 2**63 - 1
_BY_IDENTITY = "select seq from decisions where identity = ?"
_BY_NAME = "select seq from names where path = ? and curve = ? order by seq"


@contextlib.contextmanager
def nobody_reading(path: Path) -> Iterator[None]:
    """No view of this process has the file open as long as the block lasts; each opens it anew when it is asked."""
    with _OPENING, contextlib.ExitStack() as held:
        for view in [view for view in _VIEWS if view.path == path]:
            held.enter_context(view._lock)
            view.release()
        yield


class LedgerView(Closing):
    """A read-only connection, for any thread. Reads are short, so they never hold up a checkpoint.

    Raises UserError 69 when there is no ledger, 74 when it is damaged or newer than this program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._is_closed = False
        self._connection: sqlite3.Connection | None = None
        with _OPENING:
            self._open()
            _VIEWS.add(self)

    def close(self) -> None:
        self._is_closed = True
        self.release()

    def release(self) -> None:
        """Let go of the file; the next question opens it anew."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def is_in_place(self) -> bool:
        """Whether the names of the ledger still are those of the files that are open here."""
        return self._names == names_of(self.path)

    def _open(self) -> sqlite3.Connection:
        """The connection; held by whoever has the lock."""
        if self._connection is None:
            if self._is_closed:
                raise UserError(UNREACHABLE, f"{self.path} has been closed")
            self._connection = open_for_reading(self.path)
            self._names = names_of(self.path)
            (version,) = self._connection.execute("pragma user_version").fetchone()
            self._version = version  # an old one where no service has run since the program was renewed
        return self._connection

    @property
    def stream(self) -> str:
        return str(self._select("select stream from ledger")[0][0])

    @property
    def last_seq(self) -> int:
        return int(self._select("select coalesce(max(seq), 0) from decisions")[0][0])

    def since(self, seq: int, limit: int = REPLAY_LIMIT) -> list[Row]:
        """Decisions with a greater ``seq``, in order, up to the first damaged one.

        Raises UserError 74 when the very next one is damaged: it is not handed out, and nothing behind it is.
        """
        query = "select seq, verdict, body, checksum from decisions where seq > ? order by seq limit ?"
        rows: list[Row] = []
        for stored in self._select(query, seq, limit):
            try:
                rows.append(_sound(self.path, *stored))
            except UserError:
                if not rows:
                    raise
                break
        return rows

    def bodies_since(self, seq: int, limit: int = REPLAY_LIMIT) -> list[tuple[int, bytes]]:
        return [(row.seq, row.body) for row in self.since(seq, limit)]

    def last(self, count: int) -> list[wire.Event]:
        """The last ``count`` decisions, oldest first."""
        return [wire.decode(row.body) for row in self.since(max(self.last_seq - count, 0), count)]

    def within(
        self,
        span: Span = EVER,
        *,
        verdicts: Verdicts = VERDICTS,
        min_score: float | None = None,
        session: Seqs = ALL,
    ) -> Iterator[wire.Event]:
        """The decisions of a span, in the order in which their curves were measured; each is checked.

        ``session``: only those from its first to its last ``seq`` (None: it goes on). Streams, a thousand at a
        time. Raises UserError 74 where one is damaged.
        """
        asked, untimed = self._asked(span, verdicts, min_score, session)
        keys = asked.keys(self._select, untimed)
        while seqs := [seq for _, seq in islice(keys, PAGE)]:
            found = self.decisions(seqs)
            yield from (found[seq] for seq in seqs if seq in found)

    def count_within(
        self,
        span: Span = EVER,
        *,
        verdicts: Verdicts = VERDICTS,
        min_score: float | None = None,
        session: Seqs = ALL,
    ) -> int:
        """How many ``within`` yields; some 0.2 s for a million."""
        asked, untimed = self._asked(span, verdicts, min_score, session)
        return asked.counts(self._select, untimed)

    def _asked(self, span: Span, verdicts: Verdicts, min_score: float | None, session: Seqs) -> tuple[Asked, int]:
        """What is wanted, and up to which decision ``times`` says nothing yet."""
        last, span = self.last_seq, span.of_seqs(*session)
        asked = Asked(span, last if span.last is None else min(span.last, last), verdicts, min_score)
        if not self._is_of(TIMES_SINCE):
            return asked, last
        chore = self._select("select seq from chores where chore = 'times'")
        return asked, int(chore[0][0]) if chore else 0

    def verdict_counts(self) -> dict[str, int]:
        return dict(self._select("select verdict, curves from tally"))

    def review_count(self) -> int:
        """Curves that were ever flagged, labelled or not."""
        return self.verdict_counts()["review"]

    def unlabelled_count(self, labels: Path) -> int:
        """Flagged curves on which nobody has said a word yet; ``labels``: the labels.sqlite beside the ledger."""
        flagged = self.review_count()
        if not labels.is_file() or labels.stat().st_size == 0:
            return flagged
        with self._lock:
            return _without_labelled(self._open(), flagged, labels)

    def queue(self, after: int = 0, limit: int = 1_000) -> list[Flagged]:
        """Flagged curves with a greater ``seq``, oldest first."""
        query = """select seq, verdict, body, checksum from decisions
                   where seq in (select seq from reviews where seq > ? order by seq limit ?) order by seq"""
        return [_flagged(_sound(self.path, *row)) for row in self._select(query, after, limit)]

    def find_flagged(self, curve: int, *, sha256: str | None = None, path: str | None = None) -> list[int]:
        """``seq`` of the flagged curves of this content (or, where none is given, of this path), oldest first."""
        column, value = ("sha256", sha256) if sha256 else ("path", text(path or ""))
        query = f"select seq from reviews where {column} = ? and curve = ? order by seq"
        return [seq for (seq,) in self._select(query, value, curve)]

    def flagged(self, seq: int) -> Flagged | None:
        """One entry of the queue; None when that decision was no review."""
        return next((entry for entry in self.queue(seq - 1, 1) if entry.seq == seq), None)

    def compact_copy(self, seq: int) -> bytes | None:
        """The compact copy (.afmcurve bytes) of a curve that may be looked at; None where there is none.

        That is where it could not be read at all, and of kept curves from before version 3.
        """
        rows = self._select("select keepsake from reviews where seq = ?", seq)
        if not rows and self._version >= LOOKS_SINCE:
            rows = self._select("select copy from looks where seq = ?", seq)
        return rows[0][0] if rows else None

    def looks(
        self,
        verdict: Verdict,
        *,
        after: int = 0,
        until: int | None = None,
        order: Literal["score", "seq", "newest"] = "score",
        between: tuple[float, float] | None = None,
        limit: int = 1_000,
        offset: int = 0,
    ) -> list[Look]:
        """Curves that may be looked at, with ``after`` < ``seq`` <= ``until``, and ``between`` (low, high] in score.

        By score the highest comes first, and those without any last, the oldest first; ``seq`` is the oldest first.
        Raises UserError 69 where the ledger is of an earlier version, and no service has run on it since.
        """
        ordered = {"score": "score desc, seq", "seq": "seq", "newest": "seq desc"}[order]
        where, values = self._where_looks(verdict, after, until, between)
        query = f"select seq, verdict, score, probability from looks where {where} order by {ordered} limit ? offset ?"
        return [Look(*row) for row in self._select(query, *values, limit, offset)]

    def count_looks(
        self, verdict: Verdict, after: int = 0, until: int | None = None, between: tuple[float, float] | None = None
    ) -> int:
        """How many ``looks`` there are. Raises as it does."""
        where, values = self._where_looks(verdict, after, until, between)
        return int(self._select(f"select count(*) from looks where {where}", *values)[0][0])

    def _where_looks(
        self, verdict: Verdict, after: int, until: int | None, between: tuple[float, float] | None
    ) -> tuple[str, tuple[object, ...]]:
        if not self._is_of(LOOKS_SINCE):
            raise UserError(UNREACHABLE, f"{self.path} is of an earlier version: start the service once, it renews it")
        where, values = "verdict = ? and seq > ? and seq <= ?", (verdict, after, _LAST if until is None else until)
        return (where, values) if between is None else (f"{where} and score > ? and score <= ?", (*values, *between))

    def _is_of(self, version: int) -> bool:
        """Whether the ledger is of this version, or a later one."""
        with self._lock:
            self._open()
            if self._version < version:  # a service may have brought it up to date by now
                self.release()
                self._open()
            return bool(self._version >= version)

    def audits(self, pipeline: str | None = None) -> list[Audited]:
        """What this pipeline (None: any) decided night by night, since version 4; of a ledger from before nothing."""
        query = """select number, night, steps, discards, in_band, disputed from audits
                   where ?1 is null or pipeline = ?1 order by night, number"""
        return [Audited(*row) for row in self._select(query, pipeline)] if self._is_of(DRAWS_SINCE) else []

    def draws(self, audits: Iterable[int]) -> list[Draw]:
        """The discards that were drawn in these audits, in order."""
        if not self._is_of(DRAWS_SINCE):
            return []
        query = f"""select audit, stratum, seq, place, probability from draws join looks using (seq)
                    where audit in ({",".join(str(int(one)) for one in audits)}) order by seq"""
        return [Draw(*row) for row in self._select(query)]

    def disputed(self, after: int = 0, until: int | None = None) -> list[int]:
        """Discards that the second opinion disputes, with ``after`` < ``seq`` <= ``until``, in order."""
        query = "select seq from draws where stratum = 'steps' and seq > ? and seq <= ? order by seq"
        until = _LAST if until is None else until
        return [seq for (seq,) in self._select(query, after, until)] if self._is_of(DRAWS_SINCE) else []

    def steps(self, seqs: Iterable[int]) -> dict[int, tuple[Verdict, float | None]]:
        """Verdict and second opinion of these decisions; some microseconds each."""
        return {row.seq: wire.steps_of(row.body) for row in self._of(seqs)}

    def decisions(self, seqs: Iterable[int]) -> dict[int, wire.Event]:
        """The events of these decisions, each checked; those that are not there are left out.

        Raises UserError 74 where one is damaged.
        """
        return {row.seq: wire.decode(row.body) for row in self._of(seqs)}

    def _of(self, seqs: Iterable[int]) -> Iterator[Row]:
        wanted = list(seqs)
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            query = f"select seq, verdict, body, checksum from decisions where seq in ({','.join('?' * len(some))})"
            for row in self._select(query, *some):
                yield _sound(self.path, *row)

    def stream_scores(self, after: int = 0, until: int | None = None, last: int = 20_000) -> StreamScores:
        """The last so many decisions with ``after`` < ``seq`` <= ``until``, in order; 20,000 take some 0.2 s.

        Raises UserError 74 where one is damaged.
        """
        until = self.last_seq if until is None else min(until, self.last_seq)
        start = max(after, until - last)
        query = "select seq, verdict, body, checksum from decisions where seq > ? and seq <= ? order by seq"
        found: list[tuple[int, str, float | None, str]] = []
        for first in range(start, until, REPLAY_LIMIT):  # short reads: they never hold up a checkpoint
            rows = [_sound(self.path, *row) for row in self._select(query, first, min(first + REPLAY_LIMIT, until))]
            found += [(row.seq, row.verdict, *wire.score_of(row.body)) for row in rows]
        seqs, verdicts, scores, pipelines = zip(*found, strict=True) if found else ((), (), (), ())
        return StreamScores(
            np.array(seqs, np.int64),
            np.array(scores, np.float64),  # None becomes NaN
            np.array(verdicts, object),
            np.array(pipelines, object),
        )

    def find_copy(self, curve: int, *, sha256: str | None = None, path: str | None = None) -> bytes | None:
        """The compact copy of the curve of this content (or, where none is given, of this path), if there is one."""
        if sha256:
            seqs = [seq for (seq,) in self._select(_BY_IDENTITY, f"{sha256}#{curve}")]
        elif self._version >= NAMES_SINCE:
            seqs = [seq for (seq,) in self._select(_BY_NAME, text(path or ""), curve)]
        else:
            seqs = []
        seqs += self.find_flagged(curve, sha256=sha256, path=path)
        return next((copy for copy in map(self.compact_copy, seqs) if copy is not None), None)

    def decided(self, identity: str) -> Named | None:
        """The decision on the curve of this identity."""
        query = "select seq, verdict, body, checksum from decisions where identity = ?"
        for row in self._select(query, text(identity)):
            data = _data(_sound(self.path, *row))
            return Named(row[0], data.get("folder") or "", data["path"], data["curve"], data["sha256"], row[1])
        return None

    def is_decided(self, identity: str) -> bool:
        return bool(self._select("select 1 from decisions where identity = ?", text(identity)))

    def finished(self, folder: str, path: str, *, of_any: bool = True) -> tuple[int, int, int] | None:
        """(size_bytes, mtime_ns, looked_ns) with which this file of a watched folder was decided, whole; some 10 µs.

        ``of_any``: believe marks from before version 2 too, which do not say of which folder they are. Of a ledger that
        cannot be read None: a file that is read once more is not decided once more.
        """
        mark = "select size_bytes, mtime_ns"
        try:
            rows = self._select(f"{mark}, looked_ns from files where folder = ? and path = ?", text(folder), text(path))
            if not rows and of_any:
                rows = self._select(f"{mark}, 0 from files_of_any_folder where path = ?", text(path))
        except UserError:
            return None
        return rows[0] if rows else None

    def has_files(self, folder: str) -> bool:
        """Whether any file of this watched folder was ever finished; of one from before the folder is not known."""
        if self._select("select 1 from files where folder = ? limit 1", text(folder)):
            return True
        before = "select 1 from files_of_any_folder where not exists (select 1 from files) limit 1"
        return bool(self._select(before))

    def named(self, path: str, curve: int | None = None, folder: str | None = None) -> list[Named]:
        """The decisions on ``path#curve`` (None: on each of its curves), oldest first.

        With ``folder`` only those that may be of it. Raises UserError 69 where nothing is found in time, while the
        names of a ledger from before are still being noted.
        """
        query = f"""select seq, names.folder, names.path, names.curve, verdict, body, checksum
                    from names join decisions using (seq)
                    where names.path = ? {"" if curve is None else "and names.curve = ?"} order by seq"""
        values = (text(path),) if curve is None else (text(path), curve)
        rows = self._select(query, *values) if (self._version >= NAMES_SINCE) else []
        found = [
            Named(seq, its, name, number, _data(_sound(self.path, seq, *rest))["sha256"], rest[0])
            for seq, its, name, number, *rest in rows
        ]
        found = [*self._unnoted(path, curve, is_needed=not found), *found]
        return [one for one in found if folder is None or one.folder in (text(folder), "")]

    def _unnoted(self, path: str, curve: int | None, *, is_needed: bool) -> list[Named]:
        """Decisions on a path among those whose names are not noted yet: looked through, for a while."""
        last = self.last_seq
        if self._version >= NAMES_SINCE:
            chore = self._select("select seq from chores where chore = 'names'")
            last = chore[0][0] if chore else 0
        query = """select seq, verdict, body, checksum from decisions
                   where seq <= ? and instr(body, ?) order by seq"""
        told = wire.encode({"path": path})[1:-1]
        deadline_s = time.monotonic() + _LOOK_THROUGH_S
        try:
            with self._lock:
                connection = self._open()
                connection.set_progress_handler(lambda: time.monotonic() > deadline_s, 1_000)
                try:
                    rows = connection.execute(query, (last, told)).fetchall()
                finally:
                    connection.set_progress_handler(None, 0)
        except sqlite3.OperationalError as error:
            if not is_needed:  # something of this name is known, and most likely all of it
                return []
            said = f"the names of {last:,} decisions are still being noted: try again in some minutes"
            raise UserError(UNREACHABLE, f"{self.path}: {said}") from error
        found = [(row[0], row[1], _data(_sound(self.path, *row))) for row in rows]
        return [
            Named(seq, data.get("folder") or "", data["path"], data["curve"], data["sha256"], verdict)
            for seq, verdict, data in found
            if data["path"] == path and curve in (None, data["curve"])
        ]

    def _select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._open().execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise explain(error, self.path) from error


def _sound(path: Path, seq: int, verdict: str, body: bytes, stored: int) -> Row:
    """A decision that is as it was written. Raises UserError 74 for any other."""
    if checksum(seq, verdict, body) != stored:
        raise damaged(path, f"decision {seq} does not match its checksum")
    return Row(seq, verdict, body)


def _without_labelled(connection: sqlite3.Connection, flagged: int, labels: Path) -> int:
    try:
        connection.execute("attach database ? as labels", (f"{labels.absolute().as_uri()}?mode=ro",))
        (version,) = connection.execute("pragma labels.user_version").fetchone()
        holds = "labels.labels" if version < 2 else "labels.current where is_last and removed_by is null"
        labelled = f"""with said as materialized (select sha256, path, curve from {holds}) select count(*) from (
            select reviews.seq from said join reviews using (sha256, curve)
            union select reviews.seq from said join reviews using (path, curve)
            where said.sha256 is null)"""
        return flagged - int(connection.execute(labelled).fetchone()[0])
    except sqlite3.DatabaseError:  # being made, or written for long: rather too many than no answer
        return flagged
    finally:
        with contextlib.suppress(sqlite3.DatabaseError):
            connection.execute("detach database labels")


def _data(row: Row) -> dict[str, Any]:
    data: dict[str, Any] = wire.decode(row.body)["data"]
    return data


def _flagged(row: Row) -> Flagged:
    event = wire.decode(row.body)
    data = event["data"]
    return Flagged(
        row.seq, data["path"], data["curve"], data["sha256"], data["score"], tuple(data["reasons"]), event["time"]
    )
