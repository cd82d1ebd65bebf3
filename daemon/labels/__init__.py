"""The labels: what people say of curves, in a database of their own beside the ledger.

``labels.sqlite`` has its own writers (`labels add`, `labels import`), so that the ledger keeps its
one. A curve has one label a rater; a later one supersedes it and the earlier one stays as history. One that is taken
back gets a tombstone, a row that says who took it back, when and why; a later label, or the removal of the tombstone,
brings it to life again. `ambiguous`, a word of published collections, reads as `unsure`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from daemon.common.ending import Closing
from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.ledger.wire import text

Word = Literal["keep", "discard", "unsure"]
WORDS: tuple[Word, ...] = get_args(Word)
_READS_AS: Mapping[str, Word] = {**{word: word for word in WORDS}, "ambiguous": "unsure"}

#: PRAGMA application_id ("AFML").
_APPLICATION = 0x41464D4C

#: One script a schema version, forward only; PRAGMA user_version counts those applied. Files of before there were
#: versions have what the first makes.
MIGRATIONS = (
    """
    create table if not exists labels (
        number integer primary key,
        path   text not null,
        curve  integer not null,
        sha256 text,
        label  text not null check (label in ('keep', 'discard', 'unsure')),
        rater  text not null,
        reason text not null,
        time   text not null,           -- UTC, RFC 3339: sorts as text
        extra  text not null            -- JSON: the other columns of an imported table
    ) strict;
    create index if not exists labels_by_path on labels (path, curve);
    create index if not exists labels_by_content on labels (sha256, curve);
    create view if not exists current as
        select *, row_number() over (partition by coalesce(sha256, 'path ' || path), curve, rater
                                     order by time desc, number desc) = 1 as is_last from labels;
    """,
    # Tombstones, and the folder of a curve that is known by its path alone.
    """
    alter table labels add column folder text;
    alter table labels add column removed_by text;   -- who took the label back: the row is a tombstone
    alter table labels add column undone text;       -- when the tombstone itself was taken back, UTC
    drop view current;
    create view current as
        select *, row_number() over (
            partition by coalesce(sha256, 'path ' || coalesce(folder || '/', '') || path), curve, rater
            order by time desc, number desc
        ) = 1 as is_last from labels where undone is null;
    """,
)
#: What is said of a curve now: the last word of each rater, unless it was taken back.
_CURRENT = "select * from current where is_last and removed_by is null order by time, number"


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

    @property
    def identity(self) -> tuple[str, int]:
        """What the label is of, whoever gave it."""
        place = self.path if self.folder is None else f"{self.folder}/{self.path}"
        return (self.sha256 or f"path {place}", self.curve)


class Labels(Closing):
    """The labels of one state folder. Several processes may write; each waits up to 5 s for the others.

    Raises UserError 69 when there is no such folder, 74 when the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.parent.is_dir():
            raise UserError(UNREACHABLE, f"no state folder {path.parent}: start the service once, or give --state")
        try:
            # A rollback journal, not WAL: the file is small, written seldom, and may be copied while nobody writes.
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
            self._connection.execute("pragma journal_mode = delete")
            self._migrate()
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def close(self) -> None:
        self._connection.close()

    def add(self, labels: Iterable[Label]) -> int:
        """All of them or none; how many were new. One that is there already, in every detail, is not added."""
        columns = ("path", "curve", "sha256", "label", "rater", "reason", "time", "extra", "removed_by")
        insert = f"insert into labels ({', '.join(columns)}, folder) values ({', '.join('?' * (len(columns) + 1))})"
        same = f"select 1 from labels where {' and '.join(f'{name} is ?' for name in columns)}"  # null is null, too
        with self._transaction():
            added = 0
            for one in labels:
                extra = json.dumps({**one.extra})
                what = (text(one.path), one.curve, one.sha256, one.label)
                row = (*what, one.rater, one.reason, one.time, extra, one.removed_by)
                if self._connection.execute(same, row).fetchone() is None:
                    self._connection.execute(insert, (*row, None if one.folder is None else text(one.folder)))
                    added += 1
            return added

    def remove(self, labels: Iterable[Label], *, by: str, reason: str, time: str) -> None:
        """Take back labels that hold: each gets a tombstone, and all that was said stays as history."""
        self.add(replace(one, removed_by=by, reason=reason, time=max(time, one.time)) for one in labels)

    def undo_removal(self, identity: tuple[str, int], rater: str | None, *, time: str) -> list[Label]:
        """Take back the last tombstones of a curve; the labels that hold again."""
        query = "select * from current where is_last and removed_by is not null and curve = ?"
        of_curve = self._connection.execute(query, (identity[1],)).fetchall()
        found = [(row[0], label) for row in of_curve if (label := _label(row)).identity == identity]
        found = [(number, label) for number, label in found if rater in (None, label.rater)]
        with self._transaction():
            for number, _ in found:
                self._connection.execute("update labels set undone = ? where number = ?", (time, number))
        raters = {label.rater for _, label in found}
        return [one for one in self.current() if one.identity == identity and one.rater in raters]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._connection.execute("begin immediate")
            yield
            self._connection.execute("commit")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            if isinstance(error, sqlite3.DatabaseError):
                raise self._explain(error) from error
            raise

    def current(self) -> Iterator[Label]:
        """The last word of each rater on each curve, in the order in which it was given."""
        yield from self._select(_CURRENT)

    def history(self) -> Iterator[Label]:
        """Every label ever given, and every tombstone that holds."""
        yield from self._select("select *, 1 from labels where undone is null order by time, number")

    def _select(self, query: str) -> Iterator[Label]:
        try:
            for row in self._connection.execute(query):
                yield _label(row)
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def _migrate(self) -> None:
        """Bring the file up to date; another process may be about to do the same."""
        if self._version() == len(MIGRATIONS):
            return
        with self._transaction():
            version = self._version()
            for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
                for statement in script.split(";"):
                    self._connection.execute(statement)
                self._connection.execute(f"pragma application_id = {_APPLICATION}")
                self._connection.execute(f"pragma user_version = {number}")

    def _version(self) -> int:
        version = int(self._connection.execute("pragma user_version").fetchone()[0])
        (application,) = self._connection.execute("pragma application_id").fetchone()
        if application not in (0, _APPLICATION):
            raise UserError(INPUT_OUTPUT, f"{self.path} holds no labels of afm-triage: name another --state folder")
        if version > len(MIGRATIONS):
            newer = f"(schema {version}, this one knows {len(MIGRATIONS)}): install that version again"
            raise UserError(INPUT_OUTPUT, f"{self.path} was written by a newer afm-triage {newer}")
        return version

    def _explain(self, error: sqlite3.DatabaseError) -> UserError:
        return UserError(INPUT_OUTPUT, f"{self.path}: {error}; check free space and permissions, or restore a copy")


def _label(row: Sequence[Any]) -> Label:
    """Of a row of the view ``current``, or of the table with one column more."""
    _, path, curve, sha256, label, rater, reason, time, extra, folder, removed_by, *_ = row
    return Label(path, curve, label, rater, time, reason, sha256, json.loads(extra), folder, removed_by)


def unanimous(words: Iterable[Word]) -> Word:
    """What several raters say of one curve together: their word when it is the same, else unsure."""
    distinct = set(words)
    return distinct.pop() if len(distinct) == 1 else "unsure"
