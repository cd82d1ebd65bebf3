"""The labels: what people say of curves, in a database of their own beside the ledger.

``labels.sqlite`` has its own writers (`labels add`, `labels import`, the page, the console), so that the ledger keeps
its one. A curve has one label a rater; a later one supersedes it and the earlier one stays as history. One that is
taken back gets a tombstone, a row that says who took it back, when and why; a later label, or the removal of the
tombstone, brings it to life again. `ambiguous`, a word of published collections, reads as `unsure`.

Beside the labels stands what a rater was shown. Answers to hidden questions (known curves, silent repeats) stay there:
they say how good the rater is, and never what a curve is.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from daemon.common.ending import Closing
from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.common.sqlite_file import ensure_file, is_damaged, is_locked, locked, trouble
from daemon.config.origin import LEDGER_FILE
from daemon.labels.schema import MIGRATIONS, VERSIONS, migrate
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import text
from models.clock import utc_now

Word = Literal["keep", "discard", "unsure"]
WORDS: tuple[Word, ...] = get_args(Word)
_READS_AS: Mapping[str, Word] = {**{word: word for word in WORDS}, "ambiguous": "unsure"}
#: Why a curve was shown: for a label, as a question whose answer is known, once more, or it was passed over.
Kind = Literal["plain", "golden", "repeat", "skip"]

_COLUMNS = ("path", "curve", "sha256", "label", "rater", "reason", "time", "extra", "removed_by")
#: Of the decision and of how its curve was chosen; two labels that differ in these alone are the same.
_DECISION = ("stream", "seq", "model", "pipeline", "verdict", "score", "queue", "weight", "session")
_NUMBERED = (
    f"number, path, curve, label, rater, time, reason, sha256, extra, folder, removed_by, {', '.join(_DECISION)}"
)
#: What is said of a curve now: the last word of each rater, unless it was taken back.
_CURRENT = f"select {_NUMBERED} from current where is_last and removed_by is null order by time, number"


def read_word(word: str) -> Word:
    """Raises ValueError for what is no label."""
    try:
        return _READS_AS[word.strip().lower()]
    except KeyError:
        raise ValueError(f'"{word}" is no label; write keep, discard or unsure') from None


@dataclass(frozen=True, slots=True)
class Label:
    """One person's word on one curve; ``time`` is UTC, RFC 3339."""

    path: str
    curve: int
    label: Word
    rater: str
    time: str
    reason: str = ""
    sha256: str | None = None  # of the file; without it the path is the identity
    extra: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None  # the watched one that ``path`` is relative to, where that is known
    removed_by: str | None = None  # who took it back, at ``time`` and for ``reason``: no label, but a tombstone
    stream: str | None = None  # the ledger that ``seq`` counts in
    seq: int | None = None  # of the decision, as all of these are of what was decided when the label was given
    model: str | None = None
    pipeline: str | None = None
    verdict: str | None = None
    score: float | None = None
    queue: str | None = None  # through which the curve came before the rater
    weight: float | None = None  # 1 / probability with which it was drawn; None: it was chosen, not drawn
    session: int | None = None  # number of the session that the curve is of, where the label was given

    @property
    def identity(self) -> tuple[str, int]:
        """What the label is of, whoever gave it."""
        place = self.path if self.folder is None else f"{self.folder}/{self.path}"
        return (self.sha256 or f"path {place}", self.curve)

    def on(self, event: Mapping[str, Any], session: int | None = None) -> Label:
        """The same with what the decision event of its curve says. Raises KeyError for what is no decision."""
        decided = {name: event["data"][name] for name in ("model", "pipeline", "verdict", "score")}
        return replace(self, stream=event["stream"], seq=event["seq"], session=session, **decided)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a rater was shown, and the answer to it where that is no label."""

    rater: str
    seq: int
    kind: Kind
    queue: str
    time: str  # UTC, RFC 3339
    answer: Word | None = None
    expected: Word | None = None  # of a golden curve: what is known; of a repeat: what the rater said first


_Key = tuple[tuple[str, int], str]  # identity and rater


class Labels(Closing):
    """The labels of one state folder, for any thread.

    Several processes may write; each waits for the others, at most ``patience_s``. Raises UserError 69 when there is no
    such folder, 74 when the file cannot be read or written: Locked while another program holds it, Full when the disk
    is. ``is_reading``: nothing is ever written, and there must be a file of this version already.
    """

    def __init__(self, path: Path, *, patience_s: float = 5.0, is_reading: bool = False) -> None:
        self.path, self.ledger_file = path, path.with_name(LEDGER_FILE)
        self._lock = threading.RLock()
        self._ledger: tuple[tuple[int, int, int] | None, str | None] = (None, None)  # its file, and its identity
        self._last: dict[_Key, Label] = {}  # the last word of each rater on each curve, tombstones too
        self._of_seq: dict[int, dict[_Key, None]] = {}
        self._words: dict[int, dict[str, Word]] = {}
        self._read_to, self._undone, self._read_of = 0, 0, ""  # up to which row, and in which state of the rest
        if not path.parent.is_dir():
            raise UserError(UNREACHABLE, f"no state folder {path.parent}: start the service once, or give --state")
        name = f"{path.absolute().as_uri()}{'?mode=ro' if is_reading else ''}"
        if not is_reading:
            ensure_file(path)
        try:
            self._connection = sqlite3.connect(
                name, timeout=patience_s, isolation_level=None, check_same_thread=False, uri=True
            )
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error
        try:
            self._connection.row_factory = sqlite3.Row
            if is_reading and VERSIONS.of(self._connection, path) < len(MIGRATIONS):
                raise UserError(INPUT_OUTPUT, f"{path} is of an earlier version: whoever writes a label renews it")
            if not is_reading:  # a rollback journal, not WAL: the file is small, and may be copied while nobody writes
                self._connection.execute("pragma journal_mode = delete")
                self._migrate()
        except BaseException as error:
            self._connection.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise self._explain(error) from error
            raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @staticmethod
    def of_event(
        event: Mapping[str, Any],
        word: Word,
        rater: str,
        reason: str = "",
        *,
        queue: str | None = None,
        weight: float | None = None,
        session: int | None = None,
        time: str | None = None,
    ) -> Label:
        """A label on the curve of a decision event, given now. Raises KeyError for what is none."""
        data, now = event["data"], time or utc_now()
        label = Label(data["path"], data["curve"], word, rater, now, reason, data["sha256"], folder=data.get("folder"))
        return replace(label.on(event, session), queue=queue, weight=weight)

    def add(self, labels: Iterable[Label]) -> int:
        """All of them or none; how many were new. One that is there already, in every detail, is not added."""
        with self.together():
            added = 0
            for one in map(_storable, labels):
                if not self._has(one):
                    self._insert(one)
                    added += 1
            return added

    def say(self, labels: Iterable[Label]) -> list[Label]:
        """What raters say now, all of it or none; the labels that hold, in the same order.

        What a rater has said already, in the same words, is stored once: whoever does not know whether a label arrived
        may send it again. The later word wins, whatever a clock says.
        """
        held = []
        with self.together():
            for one in map(_storable, labels):
                self._look()
                last = self._last.get((one.identity, one.rater))
                if (
                    last is not None
                    and last.removed_by is None
                    and (last.label, last.reason) == (one.label, one.reason)
                ):
                    held.append(last)
                    continue
                held.append(one if last is None else replace(one, time=max(one.time, last.time)))
                self._insert(held[-1])
        return held

    def _has(self, one: Label) -> bool:
        same = f"select 1 from labels where {' and '.join(f'{name} is ?' for name in _COLUMNS)}"  # null is null, too
        return self._connection.execute(same, _row(one)).fetchone() is not None

    def _insert(self, one: Label) -> None:
        names = (*_COLUMNS, "folder", *_DECISION)
        insert = f"insert into labels ({', '.join(names)}) values ({', '.join('?' * len(names))})"
        self._connection.execute(insert, (*_row(one), one.folder, *(getattr(one, name) for name in _DECISION)))

    def remove(self, labels: Iterable[Label], *, by: str, reason: str, time: str) -> None:
        """Take back labels that hold: each gets a tombstone, and all that was said stays as history."""
        self.add(replace(one, removed_by=by, reason=reason, time=max(time, one.time)) for one in labels)

    def undo_removal(self, identity: tuple[str, int], rater: str | None, *, time: str) -> list[Label]:
        """Take back the last tombstones of a curve; the labels that hold again."""
        query = f"select {_NUMBERED} from current where is_last and removed_by is not null and curve = ?"
        with self.together():
            of_curve = self._connection.execute(query, (identity[1],)).fetchall()
            found = [(row[0], label) for row in of_curve if (label := _label(row)).identity == identity]
            found = [(number, label) for number, label in found if rater in (None, label.rater)]
            for number, _ in found:
                self._connection.execute("update labels set undone = ? where number = ?", (time, number))
        raters = {label.rater for _, label in found}
        return [one for one in self.current() if one.identity == identity and one.rater in raters]

    def current(self) -> Iterator[Label]:
        """The last word of each rater on each curve, in the order in which it was given."""
        yield from map(_label, self.select(_CURRENT))

    def history(self) -> Iterator[Label]:
        """Every label ever given, and every tombstone that holds."""
        yield from map(
            _label, self.select(f"select {_NUMBERED} from labels where undone is null order by time, number")
        )

    def labelled(self, seqs: Collection[int] | None = None) -> dict[int, list[Label]]:
        """What holds of the decisions of this ledger (None: of all that have a label), each rater's last word.

        Some microseconds a decision, whatever has been labelled: the file is read once, and then what is new in it.
        """
        with self._lock:
            self._look()
            found: dict[int, list[Label]] = {}
            for seq in self._of_seq if seqs is None else seqs:
                last = (self._last[key] for key in self._of_seq.get(seq, ()))
                if words := [one for one in last if one.removed_by is None]:
                    found[seq] = words if len(words) == 1 else sorted(words, key=lambda one: one.time)
            return found

    def words(self) -> dict[int, dict[str, Word]]:
        """The last word of each rater on each decision of this ledger that has a label, the first labelled first.

        Some milliseconds for 10,000s, for it is kept up to date; only the outer dictionary is the caller's own.
        """
        with self._lock:
            self._look()
            return {seq: said for seq, said in self._words.items() if said}

    # What a rater was shown.

    def note_shown(
        self,
        rater: str,
        seq: int,
        queue: str,
        kind: Kind,
        *,
        answer: Word | None = None,
        expected: Word | None = None,
        time: str | None = None,
    ) -> None:
        """Once a rater, curve and kind: the first answer stands, and of a curve passed over the last time.

        ``seq`` below 0 may stand for a known curve that no ledger has.
        """
        insert = """insert into shown (rater, stream, seq, kind, queue, time, answer, expected)
                    values (?, ?, ?, ?, ?, ?, ?, ?)
                    on conflict do update set time = excluded.time where kind = 'skip'"""
        with self.together():
            row = (text(rater), self.stream or "", seq, kind, queue, time or utc_now(), answer, expected)
            self._connection.execute(insert, row)

    def forget_shown(self, rater: str, seq: int) -> None:
        """The rater took it back, and may be shown the curve again."""
        with self.together():
            delete = "delete from shown where rater = ? and stream = ? and seq = ?"
            self._connection.execute(delete, (text(rater), self.stream or "", seq))

    def shown(self, rater: str | None = None, kind: Kind | None = None) -> list[Shown]:
        """What was noted of this ledger's curves, in the order of time."""
        query = """select rater, seq, kind, queue, time, answer, expected from shown
                   where stream = ?1 and (?2 is null or rater = ?2) and (?3 is null or kind = ?3) order by time, seq"""
        return [Shown(*row) for row in self.select(query, self.stream or "", rater, kind)]

    def skipped_by(self, rater: str) -> list[int]:
        """The curves that a rater has passed over and not labelled since, the longest ago first."""
        passed = [one.seq for one in self.shown(rater, "skip")]
        labelled = self.labelled(passed)
        return [seq for seq in passed if not any(one.rater == rater for one in labelled.get(seq, ()))]

    # The file.

    @property
    def stream(self) -> str | None:
        """Identity of the ledger beside the labels; None while there is none that can be read."""
        with self._lock:
            name = None
            with contextlib.suppress(OSError):  # an inode by itself may be that of a ledger that was removed
                stat = self.ledger_file.stat()
                name = (stat.st_dev, stat.st_ino, stat.st_mtime_ns)
            if name != self._ledger[0] or name is None:
                stream = None
                with contextlib.suppress(UserError), LedgerView(self.ledger_file) as view:
                    stream = view.stream
                self._ledger = (name if stream else None, stream)
            return self._ledger[1]

    def _look(self) -> None:
        """Read what is new in the file; all of it where a tombstone was taken back, or the ledger is another."""
        (undone,) = self.select("select count(*) from labels where undone is not null")[0]
        stream = self.stream or ""
        if (undone, stream) != (self._undone, self._read_of):
            self._last, self._of_seq, self._words, self._read_to = {}, {}, {}, 0
            self._undone, self._read_of = undone, stream
        query = f"select {_NUMBERED} from labels where number > ? and undone is null order by number"
        rows = self.select(query, self._read_to)
        new: dict[_Key, Label] = {}
        for row in rows:
            label = _label(row)
            key = (label.identity, label.rater)
            last = new.get(key) or self._last.get(key)
            if last is None or label.time >= last.time:
                new[key] = label
        seqs = {key: label.seq for key, label in new.items() if (label.seq and label.stream == stream) or not stream}
        if elsewhere := [key for key in new if key not in seqs]:
            with contextlib.suppress(UserError), LedgerView(self.ledger_file) as view:
                seqs |= {key: _seq_of(new[key], view) for key in elsewhere}
        self._last |= new
        for key, seq in seqs.items():
            if seq is not None:
                self._of_seq.setdefault(seq, {})[key] = None
                holding = [last for one in self._of_seq[seq] if (last := self._last[one]).removed_by is None]
                self._words[seq] = {one.rater: one.label for one in holding}
        self._read_to = rows[-1][0] if rows else self._read_to

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All changes of the block or none."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            try:
                self._connection.execute("begin immediate")
                yield
                self._connection.execute("commit")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("rollback")
                if self._read_to:  # what was not written may have been read
                    self._last, self._of_seq, self._words, self._read_to = {}, {}, {}, 0
                if isinstance(error, sqlite3.DatabaseError):
                    raise self._explain(error) from error
                raise

    def select(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Rows of any table of the file. Raises UserError 74."""
        try:
            with self._lock:
                return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def change(self, statement: str, *values: object) -> int:
        """One statement on any table of the file; the number of the row that it made. Raises UserError 74."""
        with self.together():
            return self._connection.execute(statement, values).lastrowid or 0

    def _migrate(self) -> None:
        """Bring the file up to date; another process may be about to do the same."""
        if VERSIONS.of(self._connection, self.path) < len(MIGRATIONS):
            with self.together():
                migrate(self._connection, self.path)

    def _explain(self, error: sqlite3.DatabaseError) -> UserError:
        if is_locked(error):
            return Locked(f"{locked(self.path)}, then repeat")
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            return Full(f"{self.path}: the disk is full; make room on it, then repeat")
        if is_damaged(error):
            remedy = "put a backup copy of it back, or move it away to begin with no labels"
            return UserError(INPUT_OUTPUT, f"{self.path} is damaged ({error}): {remedy}")
        return UserError(INPUT_OUTPUT, trouble(error, self.path))


class Locked(UserError):
    """Another program holds the labels for longer than anyone waits (74)."""

    def __init__(self, message: str) -> None:
        super().__init__(INPUT_OUTPUT, message)


class Full(UserError):
    """There is no room on the disk for another label (74)."""

    def __init__(self, message: str) -> None:
        super().__init__(INPUT_OUTPUT, message)


def _storable(one: Label) -> Label:
    """The same as a file of SQLite can hold it, where a name or a word has bytes that are not UTF-8."""
    texts = {
        "path": one.path,
        "rater": one.rater,
        "reason": one.reason,
        "folder": one.folder,
        "removed_by": one.removed_by,
    }
    changed = {name: text(value) for name, value in texts.items() if value is not None and text(value) != value}
    return replace(one, **changed) if changed else one  # type: ignore[arg-type]  # all of these are texts


def _row(one: Label) -> tuple[object, ...]:
    """The values of ``_COLUMNS``."""
    what = (one.path, one.curve, one.sha256, one.label)
    return (*what, one.rater, one.reason, one.time, json.dumps({**one.extra}), one.removed_by)


def _label(row: Sequence[Any]) -> Label:
    """Of the columns ``_NUMBERED``."""
    extra = {} if row[8] == "{}" else json.loads(row[8])
    cells: tuple[Any, ...] = (*row[1:8], extra, *row[9:])
    return Label(*cells)


def _seq_of(label: Label, view: LedgerView) -> int | None:
    """The decision on its curve, of a label that does not say it, or says one of another ledger."""
    with contextlib.suppress(UserError):
        if label.sha256 is not None:
            found = view.decided(f"{label.sha256}#{label.curve}")
            return found.seq if found else None
        named = view.named(label.path, label.curve, label.folder)
        return named[-1].seq if named else None
    return None


def unanimous(words: Iterable[Word]) -> Word:
    """What several raters say of one curve together: their word when it is the same, else unsure."""
    distinct = set(words)
    return distinct.pop() if len(distinct) == 1 else "unsure"
