"""The ledger: every decision, once, on disk before anybody hears of it.

One process holds the one read-write connection; readers use :class:`daemon.ledger.view.LedgerView`. A batch of
decisions, their event bodies and ``seq``, what may be looked at and the marks of finished files are one transaction
with ``synchronous=FULL``: after a crash or a power cut either all of it is there or none of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sqlite3
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from daemon.common.ending import Closing
from daemon.common.errors import UserError
from daemon.common.sqlite_file import is_damaged, is_locked, locked
from daemon.judging import Decision, FileMark
from daemon.judging.audit import Past
from daemon.ledger import events, wire
from daemon.ledger.file import (
    FINDINGS,
    LOCKED_S,
    PATIENCE_S,
    Audit,
    damaged,
    do_chore,
    explain,
    names_of,
    open_for_writing,
    past_of,
)
from daemon.ledger.view import LedgerView, nobody_reading
from daemon.ledger.wire import checksum, text
from daemon.sources import CANARY
from models.clock import CLOCK, Clock, rfc3339, since_1970

__all__ = ["Ledger", "LedgerView", "NotRecorded", "Soundness"]

_log = logging.getLogger(__name__)

#: The disk's fault, which may pass: space can be freed, a remount repaired.
_DISK = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
T = TypeVar("T")


class NotRecorded(Exception):
    """Nothing was taken: the ledger is as it was, and the same batch can be recorded later.

    ``condition``: whose fault it is, the ``disk``'s or that of the ``ledger``'s files.
    """

    def __init__(self, text: str, condition: Literal["disk", "ledger"] = "ledger") -> None:
        super().__init__(text)
        self.condition: Literal["disk", "ledger"] = condition


@dataclass(frozen=True, slots=True)
class Soundness:
    """How the ledger is, in words; ``is_held``: nothing is recorded until that has changed."""

    is_well: bool
    is_held: bool
    text: str


class Ledger(Closing):
    """The only writer. Methods may be called from any thread; one transaction runs at a time.

    Raises UserError 74 when the file is damaged, newer than this program, or cannot be written.
    """

    def __init__(self, path: Path, instrument: str, *, clock: Clock = CLOCK) -> None:
        self.path = path
        self.instrument = instrument
        self.commit_s = 0.0  # how long the last commit took
        self._clock = clock
        self._lock = threading.RLock()
        self._held = ""  # why nothing can be recorded now, as the last try found
        self._damage = ""  # what a check or a write has found of the tables
        self._altered = ""  # a decision that is not as it was written
        self._is_cut = ""  # which file lost its end
        self._is_folded = False  # what only a -wal without a name held is in the ledger
        self._checked = ""  # when, and that it was sound
        self._is_checking = False
        self.wants_check = False
        FINDINGS.pop(path, None)
        self._connection = open_for_writing(path, PATIENCE_S)
        self._lost = ""  # what was announced and is not in the file any more
        self._announced = os.open(
            path.with_name(f"{path.name}-announced"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        self.stream = self._open_stream()
        self._begin_anew_where_lost()
        self._connection.execute(f"pragma busy_timeout = {LOCKED_S * 1000:.0f}")
        self._note_place()

    @property
    def last_seq(self) -> int:
        """0 while the ledger is empty. Raises UserError 74 where it cannot be read."""
        with self._lock:
            try:
                return self._last_seq()
            except sqlite3.DatabaseError as error:
                raise explain(error, self.path) from error

    def record(self, decisions: Sequence[Decision], marks: Sequence[FileMark] = ()) -> list[int | None]:
        """Commit a batch; the ``seq`` of each decision, None where its identity had been decided before.

        ``latency_s.total`` in the event counts from ``noticed_s`` to the filling of this transaction plus the
        duration of the commit before this one: the event is part of the commit, so its own cannot be known.

        Raises NotRecorded when the disk takes nothing, another program holds the ledger, it is damaged, or its files
        are not where they were; then no ``seq`` is used up. ValueError for a canary, which is no curve of anybody's.
        """
        if not decisions and not marks:
            return []
        if any(decision.source == CANARY for decision in decisions):
            raise ValueError("a canary is no decision")
        with self._lock:
            try:
                self._see_to_place()
                seqs = self._commit(decisions, marks)
                self._see_to_place()  # what lies in a file without a name is on no disk, and not announced
            except NotRecorded as error:
                self._held = "" if error.condition == "disk" else str(error)
                raise
            self._held = ""
            self._note_announced(max((seq for seq in seqs if seq), default=0))
            return seqs

    def look(self) -> Soundness:
        """How the ledger is; called every second, also when there is nothing to record. What can be mended is."""
        with self._lock:
            try:
                self._see_to_place()
            except NotRecorded as error:
                return Soundness(is_well=False, is_held=True, text=str(error))
            if (finding := FINDINGS.get(self.path)) and not self._is_checking:
                self.wants_check = True
            if self._held:
                return Soundness(is_well=False, is_held=True, text=self._held)
            if found := self._damage or self._altered or finding:
                return Soundness(is_well=False, is_held=bool(self._damage), text=str(damaged(self.path, found)))
            if self._lost:
                return Soundness(is_well=False, is_held=False, text=self._lost)
            text = self._checked or "the end of the ledger is sound, the rest is being looked at"
            return Soundness(is_well=True, is_held=False, text=text)

    def begin_check(self) -> None:
        """The whole file is about to be looked through (daemon.ledger.care)."""
        self._is_checking, self.wants_check = True, False
        FINDINGS.pop(self.path, None)

    def end_check(self, word: str, finding: str) -> None:
        """What it came to: sound, damaged, altered, or unknown and why."""
        with self._lock:
            self._is_checking = False
            if word != "unknown":
                self._damage = finding if word == "damaged" else ""
                self._altered = finding if word == "altered" else ""
            if word == "sound":
                FINDINGS.pop(self.path, None)
                self._checked = f"every decision was looked at and is sound, {rfc3339(self._clock.wall_s(), 'seconds')}"
            elif word == "unknown":
                _log.warning("the ledger could not be looked through: %s", finding)

    def do_chore(self) -> bool:
        """Note of some decisions from before what this version notes of each; whether there are more. NotRecorded."""
        with self._lock:
            (is_any,) = self._connection.execute("select exists (select 1 from chores)").fetchone()
            return bool(is_any) and self.tend(do_chore)

    def tend(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What ``work`` makes of the ledger in one transaction, all of it or nothing. Raises NotRecorded."""
        with self._lock:
            self._see_to_place()
            with self._transaction():
                done = work(self._connection)
            self._note_sizes()
            return done

    def known(self, identities: Sequence[str]) -> set[str]:
        """Those that have been decided, as far as the ledger can be read; ``record`` takes none of them twice."""
        stored = {text(identity): identity for identity in identities}
        return {stored[row[0]] for row in self._select_in("select identity from decisions where identity in", stored)}

    def past(self, pipeline: str) -> Past:
        """What this pipeline has discarded, as far as it is on disk; nothing where the ledger cannot be read."""
        with self._lock, contextlib.suppress(sqlite3.DatabaseError):
            return past_of(self._connection, pipeline)
        return Past()

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
        """What is committed is folded back into the file, if that still has its name.

        If not, the connection is left to the end of the process: SQLite would delete by its name a ``-wal`` that may
        belong to what was put there instead.
        """
        with self._lock:
            try:
                self._see_to_place()
            except NotRecorded:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
            else:
                with nobody_reading(self.path):
                    self._connection.close()
                os.close(self._announced)

    # Is what was opened still what the names say? Looked at before a commit, after it, and every second.

    def _note_place(self) -> None:
        self._names = names_of(self.path)
        self._note_sizes()

    def _note_sizes(self) -> None:
        """Only this process changes the files, in a commit."""
        with contextlib.suppress(OSError):
            self._sizes_bytes, self._mtime_ns = _sizes_of(self.path), self.path.stat().st_mtime_ns

    def _see_to_place(self) -> None:
        """Raises NotRecorded where the files are not those that were opened, and that cannot be mended."""
        if self._is_cut:  # for good: what SQLite remembers of it is not true any more
            raise NotRecorded(str(damaged(self.path, self._is_cut)))
        if self._damage:
            raise NotRecorded(str(damaged(self.path, self._damage)))
        names = names_of(self.path)
        if names[0] != self._names[0]:
            what = "was moved or deleted" if names[0] is None else "is another file than the one that was opened"
            raise NotRecorded(f"{self.path} {what}: put it back, or restart the service to go on with what is there")
        if names != self._names:
            self._save()
        for name, before, now in zip(("", "-wal"), self._sizes_bytes, _sizes_of(self.path), strict=True):
            if now < before:
                self._is_cut = f"{self.path.name}{name} was cut from {before:,} to {now:,} bytes"
                raise NotRecorded(str(damaged(self.path, self._is_cut)))
        if self.path.stat().st_mtime_ns != self._mtime_ns:  # another hand was in it
            self._note_sizes()
            self.wants_check = True

    def _save(self) -> None:
        """The ``-wal`` or ``-shm`` was taken away: bring what only they hold into the ledger, and make new ones."""
        lost = f"the -wal or -shm of {self.path} was moved or deleted"
        try:
            if not self._is_folded:
                is_busy, frames, folded = self._connection.execute("pragma wal_checkpoint(full)").fetchone()
                if is_busy or frames != folded:
                    raise NotRecorded(f"{lost}, and another program reads the ledger: end that program")
                self._is_folded = True
            with nobody_reading(self.path):
                self._connection.close()
                for suffix in ("-wal", "-shm"):  # of programs that came in between; none of them may write
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                self._connection = open_for_writing(self.path)
                self._open_stream()
        except (sqlite3.DatabaseError, OSError, UserError) as error:
            raise NotRecorded(f"{lost}, and what they held cannot be saved ({error})") from error
        self._is_folded = False
        self._note_place()
        FINDINGS.pop(self.path, None)
        self.wants_check = True
        _log.error("%s; what they held is saved in the ledger, and nothing is lost", lost)

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

    # How far this stream has been announced is also noted beside the ledger, without waiting for the disk: where a copy
    # of it was put back, or its -wal taken away while nobody had it open, numbers that are known must not come again.

    def _note_announced(self, seq: int) -> None:
        if seq:
            with contextlib.suppress(OSError):
                os.pwrite(self._announced, f"{self.stream} {seq:020d}\n".encode(), 0)

    def _begin_anew_where_lost(self) -> None:
        """A new stream, from the next number on, where the ledger ends before what was announced of this one."""
        stream, _, seq = os.pread(self._announced, 128, 0).decode(errors="replace").strip().partition(" ")
        last = self._last_seq()
        if stream != self.stream or not seq.isdigit() or int(seq) <= last:
            return
        self.stream = str(uuid.uuid4())
        self._connection.execute("update ledger set stream = ?", (self.stream,))
        self._note_announced(last)
        is_known = int(seq) > last + 1  # a snapshot says one more than it has, as it does not know
        which = f"{last + 1} to {int(seq)} were" if is_known else f"after {last} may have been"
        self._lost = (
            f"decisions {which} announced and are not in {self.path}: an older copy was put back, or its -wal was "
            "removed; their curves are judged again, as another stream"
        )
        _log.error(self._lost)

    def _last_seq(self) -> int:
        return int(self._connection.execute("select coalesce(max(seq), 0) from decisions").fetchone()[0])

    def _commit(self, decisions: Sequence[Decision], marks: Sequence[FileMark]) -> list[int | None]:
        with self._transaction():
            seqs = self._insert(decisions)
            self._mark(marks)
        self._note_sizes()  # a commit may have folded the -wal back
        return seqs

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing; trouble with the disk, the files or other programs becomes NotRecorded."""
        try:
            self._connection.execute("begin immediate")
            yield
            began_s = self._clock.steady_s()
            self._connection.execute("commit")
            self.commit_s = self._clock.steady_s() - began_s
        except BaseException as error:
            self._roll_back()
            if isinstance(error, sqlite3.DatabaseError):
                raise self._translate(error) from error
            raise

    def _insert(self, decisions: Sequence[Decision]) -> list[int | None]:
        seqs: list[int | None] = []
        fresh: Counter[str] = Counter()
        pipelines = {one.judge.pipeline for one in decisions}
        audits = {one: Audit(one, past_of(self._connection, one)) for one in pipelines}
        seq = self._last_seq() + 1  # asked anew each time: nothing in memory can disagree with the disk
        for decision in decisions:
            if self._insert_one(decision, seq, audits[decision.judge.pipeline]):
                fresh[decision.verdict] += 1
                seqs.append(seq)
                seq += 1
            else:
                seqs.append(None)
        tally = [(count, verdict) for verdict, count in fresh.items()]
        self._connection.executemany("update tally set curves = curves + ? where verdict = ?", tally)
        for audit in audits.values():
            audit.write(self._connection, self._clock.wall_s())
        return seqs

    def _insert_one(self, decision: Decision, seq: int, audit: Audit) -> bool:
        event = events.decision_event(
            decision,
            instrument=self.instrument,
            stream=self.stream,
            seq=seq,
            wall_s=self._clock.wall_s(),
            total_s=self._clock.steady_s() - decision.noticed_s + self.commit_s,
        )
        body = wire.encode(event)
        row = (seq, text(decision.identity), decision.verdict, body, checksum(seq, decision.verdict, body))
        insert = "insert into decisions values (?, ?, ?, ?, ?) on conflict (identity) do nothing"
        if self._connection.execute(insert, row).rowcount == 0:
            return False
        name = (text(decision.path), decision.curve, seq, text(decision.folder or ""))
        self._connection.execute("insert into names values (?, ?, ?, ?)", name)
        when = (since_1970(event.data.acquired or event.time), seq, decision.verdict, decision.score)
        self._connection.execute("insert into times values (?, ?, ?, ?)", when)
        if decision.verdict == "review":
            review = (seq, text(decision.path), decision.curve, decision.sha256, decision.compact_copy)
            self._connection.execute("insert into reviews values (?, ?, ?, ?, ?)", review)
        self._note_look(decision, seq, audit)
        return True

    def _note_look(self, decision: Decision, seq: int, audit: Audit) -> None:
        """What a person may be asked to look at: all that is not discarded, and of the discards a sample."""
        probability = audit.note(decision, seq)
        if probability is not None:
            copy = None if decision.verdict == "review" else decision.compact_copy  # that lies where it always lay
            look = (seq, decision.verdict, decision.score, probability, copy)
            self._connection.execute("insert into looks values (?, ?, ?, ?, ?)", look)

    def _mark(self, marks: Iterable[FileMark]) -> None:
        self._connection.executemany(
            "insert or replace into files values (?, ?, ?, ?, ?, ?, ?)",
            [
                (text(one.folder), text(one.path), one.size_bytes, one.mtime_ns, one.sha256, one.curves, one.looked_ns)
                for one in marks
            ],
        )

    def _select_in(self, query: str, values: Iterable[str]) -> list[tuple[str]]:
        wanted, found = list(values), []
        with self._lock, contextlib.suppress(sqlite3.DatabaseError):
            for start in range(0, len(wanted), 500):
                portion = wanted[start : start + 500]
                found += self._connection.execute(f"{query} ({','.join('?' * len(portion))})", portion).fetchall()
        return found

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            if self._connection.in_transaction:
                self._connection.execute("rollback")

    def _translate(self, error: sqlite3.DatabaseError) -> Exception:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DISK:
            return NotRecorded(f"{self.path}: {error}: free some space, or mend the disk", "disk")
        if is_locked(error):
            return NotRecorded(locked(self.path))
        if is_damaged(error):
            self._damage = str(error)
            return NotRecorded(str(damaged(self.path, self._damage)))
        return explain(error, self.path) if not isinstance(error, sqlite3.IntegrityError) else error


def _sizes_of(path: Path) -> tuple[int, int]:
    """Of the ledger and its ``-wal``; 0 for what is not there."""
    sizes_bytes = []
    for suffix in ("", "-wal"):
        try:
            sizes_bytes.append(path.with_name(path.name + suffix).stat().st_size)
        except OSError:
            sizes_bytes.append(0)
    return sizes_bytes[0], sizes_bytes[1]
