"""The ledger: every decision, once, on disk before anybody hears of it.

One process holds the one read-write connection; readers use :class:`daemon.ledger.file.LedgerView`. A batch of
decisions, their event bodies and ``seq``, the review queue and the marks of finished files are one transaction with
``synchronous=FULL``: after a crash or a power cut either all of it is there or none of it.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from daemon.judging import Decision, FileMark
from daemon.ledger import events
from daemon.ledger.file import LedgerView, checksum, explain, open_for_writing, text
from models.clock import CLOCK, Clock, rfc3339

__all__ = ["Ledger", "LedgerFull", "LedgerView"]

#: The disk's fault, which may pass: space can be freed, a remount repaired.
_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


class LedgerFull(Exception):
    """The disk took nothing: the ledger is as it was, and the same batch can be recorded later."""


class Ledger:
    """The only writer. Methods may be called from any thread; one transaction runs at a time.

    Raises UserError 74 when the file is damaged, newer than this program, or cannot be written.
    """

    def __init__(self, path: Path, instrument: str, *, clock: Clock = CLOCK) -> None:
        self.path = path
        self.instrument = instrument
        self.commit_s = 0.0  # how long the last commit took
        self._clock = clock
        self._lock = threading.Lock()
        self._connection = open_for_writing(path)
        self._inode = _inode(path)
        self.stream = self._open_stream()

    @property
    def last_seq(self) -> int:
        """0 while the ledger is empty."""
        with self._lock:
            return self._last_seq()

    def record(self, decisions: Sequence[Decision], marks: Sequence[FileMark] = ()) -> list[int | None]:
        """Commit a batch; the ``seq`` of each decision, None where its identity had been decided before.

        ``latency_s.total`` in the event counts from ``noticed_s`` to the filling of this transaction plus the
        duration of the commit before this one: the event is part of the commit, so its own cannot be known.

        Raises LedgerFull when the disk takes nothing, or the file has been moved or deleted; then nothing has changed
        and no ``seq`` is used up.
        """
        if not decisions and not marks:
            return []
        if _inode(self.path) != self._inode:  # SQLite would go on writing into a file that has no name any more
            raise LedgerFull(f"{self.path} was moved or deleted: put it back, or restart the service for a new one")
        with self._lock:
            try:
                self._connection.execute("begin immediate")
                seqs = self._insert(decisions)
                self._mark(marks)
                began_s = self._clock.steady_s()
                self._connection.execute("commit")
                self.commit_s = self._clock.steady_s() - began_s
                return seqs
            except BaseException as error:
                self._roll_back()
                if isinstance(error, sqlite3.DatabaseError):
                    raise self._translate(error) from error
                raise

    def known(self, identities: Sequence[str]) -> set[str]:
        """Those that have been decided."""
        stored = {text(identity): identity for identity in identities}
        return {stored[row[0]] for row in self._select_in("select identity from decisions where identity in", stored)}

    def verdict_counts(self) -> dict[str, int]:
        """Decisions by verdict since the ledger began."""
        with self._lock:
            return dict(self._connection.execute("select verdict, curves from tally"))

    def review_count(self) -> int:
        """Curves that were ever flagged, labelled or not."""
        return self.verdict_counts()["review"]

    def view(self) -> LedgerView:
        """A reader of its own for another thread."""
        return LedgerView(self.path)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _open_stream(self) -> str:
        """The identity of this ledger. Written at every start, so that a disk that takes nothing is found at once."""
        now = rfc3339(self._clock.wall_s())
        write = "insert into ledger values (1, ?, ?) on conflict (only) do update set opened = excluded.opened"
        began_s = self._clock.steady_s()
        try:
            self._connection.execute(write, (str(uuid.uuid4()), now))
        except sqlite3.DatabaseError as error:
            raise explain(error, self.path) from error
        self.commit_s = self._clock.steady_s() - began_s
        return str(self._connection.execute("select stream from ledger").fetchone()[0])

    def _last_seq(self) -> int:
        return int(self._connection.execute("select coalesce(max(seq), 0) from decisions").fetchone()[0])

    def _insert(self, decisions: Sequence[Decision]) -> list[int | None]:
        seqs: list[int | None] = []
        fresh: Counter[str] = Counter()
        seq = self._last_seq() + 1  # asked anew each time: nothing in memory can disagree with the disk
        for decision in decisions:
            if self._insert_one(decision, seq):
                fresh[decision.verdict] += 1
                seqs.append(seq)
                seq += 1
            else:
                seqs.append(None)
        tally = [(count, verdict) for verdict, count in fresh.items()]
        self._connection.executemany("update tally set curves = curves + ? where verdict = ?", tally)
        return seqs

    def _insert_one(self, decision: Decision, seq: int) -> bool:
        event = events.decision_event(
            decision,
            instrument=self.instrument,
            stream=self.stream,
            seq=seq,
            wall_s=self._clock.wall_s(),
            total_s=self._clock.steady_s() - decision.noticed_s + self.commit_s,
        )
        body = events.encode(event)
        row = (seq, text(decision.identity), decision.verdict, body, checksum(seq, decision.verdict, body))
        insert = "insert into decisions values (?, ?, ?, ?, ?) on conflict (identity) do nothing"
        if self._connection.execute(insert, row).rowcount == 0:
            return False
        name = (text(decision.path), decision.curve, seq, text(decision.folder or ""))
        self._connection.execute("insert into names values (?, ?, ?, ?)", name)
        if decision.verdict == "review":
            review = (seq, text(decision.path), decision.curve, decision.sha256, decision.compact_copy)
            self._connection.execute("insert into reviews values (?, ?, ?, ?, ?)", review)
        return True

    def _mark(self, marks: Iterable[FileMark]) -> None:
        self._connection.executemany(
            "insert or replace into files values (?, ?, ?, ?, ?, ?)",
            [
                (text(mark.folder), text(mark.path), mark.size_bytes, mark.mtime_ns, mark.sha256, mark.curves)
                for mark in marks
            ],
        )

    def _select_in(self, query: str, values: Iterable[str]) -> list[tuple[str]]:
        wanted, found = list(values), []
        with self._lock:
            for start in range(0, len(wanted), 500):
                portion = wanted[start : start + 500]
                found += self._connection.execute(f"{query} ({','.join('?' * len(portion))})", portion).fetchall()
        return found

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            if self._connection.in_transaction:
                self._connection.execute("rollback")

    def _translate(self, error: sqlite3.DatabaseError) -> Exception:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK:
            return LedgerFull(f"{self.path}: {error}: free some space, or mend the disk")
        return explain(error, self.path) if not isinstance(error, sqlite3.IntegrityError) else error


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
