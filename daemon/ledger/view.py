"""The ledger as others see it: read-only, beside a running service or without one."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from daemon.common.ending import Closing
from daemon.common.errors import UserError
from daemon.ledger import events
from daemon.ledger.file import checksum, damaged, explain, open_for_reading, text

#: The most decisions one replay answer holds.
REPLAY_LIMIT = 5_000


class Row(NamedTuple):
    """One decision as it lies in the ledger."""

    seq: int
    verdict: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Flagged:
    """One entry of the review queue; its compact copy is fetched by ``seq``."""

    seq: int
    path: str
    curve: int
    sha256: str | None
    score: float | None
    reasons: tuple[str, ...]
    time: str


class LedgerView(Closing):
    """A read-only connection; each thread opens its own. Reads are short, so they never hold up a checkpoint.

    Raises UserError 69 when there is no ledger, 74 when it is damaged or newer than this program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = open_for_reading(path)

    def close(self) -> None:
        self._connection.close()

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
                rows.append(self._sound(*stored))
            except UserError:
                if not rows:
                    raise
                break
        return rows

    def bodies_since(self, seq: int, limit: int = REPLAY_LIMIT) -> list[tuple[int, bytes]]:
        return [(row.seq, row.body) for row in self.since(seq, limit)]

    def last(self, count: int) -> list[events.Event]:
        """The last ``count`` decisions, oldest first."""
        return [events.decode(row.body) for row in self.since(max(self.last_seq - count, 0), count)]

    def verdict_counts(self) -> dict[str, int]:
        return dict(self._select("select verdict, curves from tally"))

    def review_count(self) -> int:
        """Curves that were ever flagged, labelled or not."""
        return self.verdict_counts()["review"]

    def unlabelled_count(self, labels: Path) -> int:
        """Flagged curves on which nobody has said a word yet; ``labels``: the labels.sqlite beside the ledger."""
        labelled = """select count(*) from (
            select reviews.seq from labels.labels as said join reviews using (sha256, curve)
            union select reviews.seq from labels.labels as said join reviews using (path, curve)
            where said.sha256 is null)"""
        flagged = self.review_count()
        if not labels.is_file() or labels.stat().st_size == 0:
            return flagged
        try:
            self._connection.execute("attach database ? as labels", (f"{labels.absolute().as_uri()}?mode=ro",))
            return flagged - int(self._connection.execute(labelled).fetchone()[0])
        except sqlite3.DatabaseError:  # being made, or written for long: rather too many than no answer
            return flagged
        finally:
            with contextlib.suppress(sqlite3.DatabaseError):
                self._connection.execute("detach database labels")

    def queue(self, after: int = 0, limit: int = 1_000) -> list[Flagged]:
        """Flagged curves with a greater ``seq``, oldest first."""
        query = """select seq, verdict, body, checksum from decisions
                   where seq in (select seq from reviews where seq > ? order by seq limit ?) order by seq"""
        return [_flagged(self._sound(*row)) for row in self._select(query, after, limit)]

    def find_flagged(self, curve: int, *, sha256: str | None = None, path: str | None = None) -> list[int]:
        """``seq`` of the flagged curves of this content (or, where none is given, of this path), oldest first."""
        column, value = ("sha256", sha256) if sha256 else ("path", text(path or ""))
        query = f"select seq from reviews where {column} = ? and curve = ? order by seq"
        return [seq for (seq,) in self._select(query, value, curve)]

    def flagged(self, seq: int) -> Flagged | None:
        """One entry of the queue; None when that decision was no review."""
        return next((entry for entry in self.queue(seq - 1, 1) if entry.seq == seq), None)

    def compact_copy(self, seq: int) -> bytes | None:
        """The compact copy (.afmcurve bytes) of a flagged curve; None when it could not be read at all."""
        rows = self._select("select keepsake from reviews where seq = ?", seq)
        return rows[0][0] if rows else None

    def is_decided(self, identity: str) -> bool:
        return bool(self._select("select 1 from decisions where identity = ?", text(identity)))

    def _select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise explain(error, self.path) from error

    def _sound(self, seq: int, verdict: str, body: bytes, stored: int) -> Row:
        if checksum(seq, verdict, body) != stored:
            raise damaged(self.path, f"decision {seq} does not match its checksum")
        return Row(seq, verdict, body)


def _flagged(row: Row) -> Flagged:
    event = events.decode(row.body)
    data = event["data"]
    return Flagged(
        row.seq, data["path"], data["curve"], data["sha256"], data["score"], tuple(data["reasons"]), event["time"]
    )
