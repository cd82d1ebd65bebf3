"""The labels: what people say of curves, in a database of their own beside the ledger.

``labels.sqlite`` has its own writers (`labels add`, `labels import`), so that the ledger keeps its
one. A curve has one label a rater; a later one supersedes it and the earlier one stays as history. `ambiguous`, a word
of published collections, reads as `unsure`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from daemon.common.ending import Closing
from daemon.common.errors import INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.ledger.file import text

Word = Literal["keep", "discard", "unsure"]
WORDS: tuple[Word, ...] = get_args(Word)
_READS_AS: Mapping[str, Word] = {**{word: word for word in WORDS}, "ambiguous": "unsure"}

_SCHEMA = """
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
"""


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

    @property
    def identity(self) -> tuple[str, int]:
        """What the label is of, whoever gave it."""
        return (self.sha256 or f"path {self.path}", self.curve)


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
            self._connection.executescript(f"pragma journal_mode = delete; {_SCHEMA}")
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def close(self) -> None:
        self._connection.close()

    def add(self, labels: Iterable[Label]) -> int:
        """All of them or none; how many were new. One that is there already, in every detail, is not added."""
        columns = ("path", "curve", "sha256", "label", "rater", "reason", "time", "extra")
        insert = f"insert into labels ({', '.join(columns)}) values (?, ?, ?, ?, ?, ?, ?, ?)"
        same = f"select 1 from labels where {' and '.join(f'{name} is ?' for name in columns)}"  # null is null, too
        try:
            self._connection.execute("begin immediate")
            added = 0
            for one in labels:
                extra = json.dumps({**one.extra})
                row = (text(one.path), one.curve, one.sha256, one.label, one.rater, one.reason, one.time, extra)
                if self._connection.execute(same, row).fetchone() is None:
                    self._connection.execute(insert, row)
                    added += 1
            self._connection.execute("commit")
            return added
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            if isinstance(error, sqlite3.DatabaseError):
                raise self._explain(error) from error
            raise

    def current(self) -> Iterator[Label]:
        """The last word of each rater on each curve, in the order in which it was given."""
        yield from self._select("select * from current where is_last order by time, number")

    def history(self) -> Iterator[Label]:
        """Every label ever given."""
        yield from self._select("select *, 1 from labels order by time, number")

    def _select(self, query: str) -> Iterator[Label]:
        try:
            for _, path, curve, sha256, label, rater, reason, time, extra, _ in self._connection.execute(query):
                yield Label(path, curve, label, rater, time, reason, sha256, json.loads(extra))
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def _explain(self, error: sqlite3.DatabaseError) -> UserError:
        return UserError(INPUT_OUTPUT, f"{self.path}: {error}; check free space and permissions, or restore a copy")


def unanimous(words: Iterable[Word]) -> Word:
    """What several raters say of one curve together: their word when it is the same, else unsure."""
    distinct = set(words)
    return distinct.pop() if len(distinct) == 1 else "unsure"
