"""Search: curves by physics, over all nights and instruments that a set of tables holds.

DuckDB looks once through the narrow columns of every decision, notes where each match lies, and reads the wide ones
(picture, path, reasons) only of those that are shown. Force and place are asked of one and the same rupture; verdict,
score, time and session of its curve. A curve whose ruptures nobody knows matches no such question: how many there are
is told with what was found.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daemon.common.ending import Closing
from daemon.common.errors import ALREADY_RUNNING, BAD_DATA, INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.common.options import Range
from daemon.common.text import first_line
from daemon.judging import VERDICTS, Verdict
from daemon.labels import Word
from daemon.ledger.span import EVER, Span
from daemon.tables import DECISIONS, LABELS, SESSIONS, data_of, schema
from daemon.tables.dataset import parts_of, read_about
from models.clock import rfc3339

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Order = Literal["newest", "strongest"]
_PAGE = 1_000  # matches whose wide columns are read at once
_MOST = 1 << 62  # that DuckDB takes for a limit
_TRIES = 3
_HELD_S = 5.0  # a file of DuckDB is waited for, while a collector writes into it
_NEEDED = {"time", "verdict", "score", "acquired", "ruptures", "strongest_rupture_pn"}
_WHEN = "coalesce(acquired, time)"
_ORDERS: Mapping[Order, str] = {
    "newest": "moment_us desc, seq desc",
    "strongest": "strongest desc nulls last, moment_us desc, seq desc",
}
#: Names of folders are texts, also that of an instrument called 2.
_READING = "hive_partitioning=true, hive_types_autocast=false, filename=true, file_row_number=true"
_OF_SESSION = ("number", "name", "tip", "sample")
_NOT_LAST = "false as is_last"


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked for; what is not said narrows nothing.

    ``force`` (pN) and ``place`` (nm from the surface) are of one and the same rupture, and ``ruptures`` counts those
    that are so. ``length`` (nm) is where the last rupture of a curve lies: how far out something held. Of tips and
    samples ``*`` stands for any text, and capitals do not matter.
    """

    force: Range | None = None
    place: Range | None = None
    ruptures: Range | None = None
    length: Range | None = None
    score: Range | None = None
    verdicts: tuple[Verdict, ...] = ()
    words: tuple[Word, ...] = ()  # what people say, all of them together
    span: Span = EVER
    instruments: tuple[str, ...] = ()
    session: int | Literal["current", "last"] | None = None
    tips: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()

    @property
    def is_of_ruptures(self) -> bool:
        """Whether a curve whose ruptures nobody knows can be no match."""
        return any((self.force, self.place, self.ruptures, self.length))

    def is_meant(self, rupture: Mapping[str, Any]) -> bool:
        """Whether a rupture has the force and the place that are looked for."""
        asked = ((self.force, "force_pn"), (self.place, "position_nm"))
        return all(one is None or one.holds(rupture[name]) for one, name in asked)


@dataclass(frozen=True, slots=True)
class Hit:
    """One curve that was found: its decision, the run that it is of, and what people say of it."""

    instrument: str
    stream: str
    seq: int | None  # None: a row of `score`, which is no decision of a ledger
    id: str  # of its event
    time: str  # of its decision, UTC, RFC 3339
    data: Mapping[str, Any]  # of its event
    session: Mapping[str, Any] | None  # number, name, tip, sample
    word: Word | None
    raters: str

    @property
    def ruptures(self) -> Sequence[Mapping[str, Any]]:
        """In order of place; none also where nobody knows them."""
        return self.data.get("ruptures") or ()

    def plain(self) -> dict[str, Any]:
        """For JSON: an event's head and data, with its session and what people say."""
        head = {name: getattr(self, name) for name in ("id", "instrument", "stream", "seq", "time", "session")}
        return {**head, "label": self.word, "rater": self.raters or None, "data": self.data}


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a search, before anything of it is shown.

    ``looked``: curves of the time, verdicts, scores and instruments that were asked for. ``unknown``: those of them
    whose ruptures nobody knows, where ruptures were asked for: their file does not say what makes it a force, or they
    were judged before ruptures were noted.
    """

    counts: Mapping[Verdict, int]
    by_instrument: Mapping[str, int]
    looked: int
    unknown: int

    @property
    def total(self) -> int:
        """Matches, of every verdict."""
        return sum(self.counts.values())


class Tables(Closing):
    """A folder of tables, or a file of DuckDB, to be searched.

    Raises UserError 69 where there are none, 65 for something else, 73 while a collector holds the file of DuckDB for
    longer than it should, 74 where they cannot be read.
    """

    def __init__(self, place: Path) -> None:
        self.place = self._root = place
        self._connection = _connect(place)
        self._held: int | None = None
        try:
            if place.is_dir() and "=" in str(place.absolute()):  # a name above it is no column of these tables
                self._held = os.open(place, os.O_DIRECTORY | os.O_CLOEXEC)
                self._root = Path(f"/proc/self/fd/{self._held}")
            self._look_round()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._connection.close()
        if self._held is not None:
            os.close(self._held)

    def _look_round(self) -> None:
        decisions = self._table(DECISIONS)
        if decisions is None:
            how = "`afm-triage events --follow --to parquet --out DIR` makes them"
            raise UserError(UNREACHABLE, f"{self.place} holds no tables of decisions: {how}")
        if missing := sorted(_NEEDED - decisions.columns):
            raise UserError(BAD_DATA, f"{self.place} holds tables of something else: they have no column {missing[0]}")
        self._decisions, self._sessions, self._labels = decisions, self._table(SESSIONS), self._table(LABELS)

    def find(self, asked: Asked, order: Order = "newest", limit: int | None = None) -> Found:
        """``limit``: so many of the matches are there for :meth:`hits`; None: all of them.

        Raises UserError 65 where a session, a label or an instrument is asked for and these tables know of none.
        """
        for _ in range(_TRIES - 1):
            try:
                return self._find(asked, order, limit)
            except _Moved:  # small parts became a large one meanwhile: all is looked for where it lies now
                self._look_round()
        return self._find(asked, order, limit)

    def _find(self, asked: Asked, order: Order, limit: int | None) -> Found:
        curves = " and ".join(_of_curves(asked, self._decisions.columns)) or "true"
        self._match(asked, curves)
        counts: dict[Verdict, int] = dict.fromkeys(VERDICTS, 0)
        by_instrument: Counter[str] = Counter()
        unknown = 0
        told = "select verdict, instrument, is_match, count(*) from hit group by all order by all"
        for verdict, instrument, is_match, count in self._ask(told):
            if is_match:
                counts[verdict] += count
                by_instrument[instrument or ""] += count
            else:
                unknown += count
        ((looked,),) = self._ask(f"select count(*) from {self._decisions.sql} where {curves}")
        if not looked:
            self._check_instruments(asked)
        until = "" if limit is None else f"limit {min(limit, _MOST)}"
        self._ask(
            f"""create or replace temp table shown as select *, row_number() over () as place from (
                    select * from hit where is_match order by {_ORDERS[order]} {until})"""
        )
        return Found(counts, by_instrument, looked, unknown)

    def _check_instruments(self, asked: Asked) -> None:
        """Raises UserError 65 for a name that nothing in these tables has, with those that are there."""
        names = f"select distinct instrument from {self._decisions.sql} where instrument <> '' order by all"
        known = [name for (name,) in self._ask(names)]
        if lost := ", ".join(sorted(set(asked.instruments).difference(known))):
            raise UserError(BAD_DATA, f"{self.place} knows no instrument {lost}; it has {', '.join(known) or 'none'}")

    def _match(self, asked: Asked, curves: str) -> None:
        """Fill the table ``hit``: where each match lies, what it is ordered by, its session and its label.

        Those whose ruptures nobody knows are there too, where ruptures are asked for, and are no match.
        """
        matches, strongest = _of_ruptures(asked)
        is_unknown = "ruptures is null" if asked.is_of_ruptures else "false"
        wanted = " and ".join([*self._of_session(asked), *self._of_words(asked)]) or "true"
        runs, of_run = _with_sessions(self._sessions)
        labels, said = _with_labels(self._labels)
        self._ask(
            f"""create or replace temp table hit as
                with narrow as (
                    select {", ".join(f"{one} as {name}" for name, one in self._decisions.key.items())},
                           instrument, stream, seq, verdict, epoch_us({_WHEN}) as moment_us,
                           {strongest} as strongest, not {is_unknown} as is_match
                    from {self._decisions.sql} where {curves} and ({matches} or {is_unknown})),
                ran as (select narrow.*, {of_run} from narrow {runs})
                select ran.* exclude (ended, is_last), {said} from ran {labels} where {wanted}"""
        )

    def hits(self) -> Iterator[Hit]:
        """What :meth:`find` found last, in the order that was asked for; a thousand are in memory at once."""
        ((count,),) = self._ask("select count(*) from shown")
        for first in range(0, count, _PAGE):
            yield from self._page(first)

    def _page(self, first: int) -> list[Hit]:
        source, key = self._decisions.sql, self._decisions.key
        within = f"place > {first} and place <= {first + _PAGE}"
        if "its_file" in key:  # no other file is opened
            source = _of_files([row[0] for row in self._ask(f"select distinct its_file from shown where {within}")])
        same = " and ".join(f"wide.{one} = shown.{name}" for name, one in key.items())
        rows = self._ask_by_name(
            f"""select wide.*, {", ".join(f"shown.{one}" for one in (*_OF_SESSION, "word", "raters", "place"))}
                from {source} wide join shown on {same} where {within} order by place"""
        )
        return [_hit(row) for row in rows]

    def _of_session(self, asked: Asked) -> Iterator[str]:
        """Conditions on the run that a curve is of. Raises UserError 65 where none is known."""
        is_asked = asked.session is not None or asked.tips or asked.samples
        if is_asked and (self._sessions is None or not self._ask(f"select 1 from {self._sessions.sql} limit 1")):
            how = "`afm-triage session begin` begins one"
            raise UserError(BAD_DATA, f"{self.place} knows of no session, tip or sample: {how}")
        if asked.session in ("current", "last"):
            yield "is_last"
        if asked.session == "current":
            yield "ended is null"
        elif isinstance(asked.session, int):
            yield f"number = {asked.session}"
        for column, names in (("tip", asked.tips), ("sample", asked.samples)):
            if names:
                yield _any_of([f"lower({column}) glob {_text(_folded(name))}" for name in names])

    def _of_words(self, asked: Asked) -> Iterator[str]:
        """Conditions on what people say."""
        if asked.words:
            if self._labels is None:
                raise UserError(BAD_DATA, f"{self.place} knows of no label: people say them in `afm-triage review`")
            yield _any_of([f"word = {_text(word)}" for word in asked.words])

    def _table(self, name: str) -> _Table | None:
        """None where there is no such table, or no file of it."""
        if self.place.is_file():
            known = "select column_name from information_schema.columns where table_name = ? and table_schema = 'main'"
            columns = frozenset(row[0] for row in self._ask(known, name))
            return _Table(name, {"its_row": "rowid"}, columns) if columns else None
        folder = self._root / name
        folder = folder if folder.is_dir() or name != DECISIONS else self._root
        files = [str(file) for file in parts_of(folder)]
        if not files:
            return None if name != DECISIONS or read_about(folder) is None else self._nothing()
        sql = _of_files(files)
        columns = frozenset(row[0] for row in self._ask(f"describe select * from {sql}"))
        return _Table(sql, {"its_file": "filename", "its_row": "file_row_number"}, columns)

    def _nothing(self) -> _Table:
        """Of decisions that are yet to come."""
        self._connection.register("nothing", schema().empty_table())
        return _Table("nothing", {"its_row": "seq"}, frozenset(schema().names))

    def _ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        import duckdb

        try:
            return self._connection.execute(query, values or None).fetchall()
        except duckdb.Error as error:
            raise _explained(error, self.place) from None

    def _ask_by_name(self, query: str) -> list[dict[str, Any]]:
        rows = self._ask(query)
        names = [column[0] for column in self._connection.description or ()]
        return [dict(zip(names, row, strict=True)) for row in rows]


@dataclass(frozen=True, slots=True)
class _Table:
    """One table as SQL takes it. ``key``: what tells one row from all others, under a name of ours."""

    sql: str
    key: Mapping[str, str]
    columns: frozenset[str]


class _Moved(UserError):
    """A file of a table is not there any more: it became a part of a larger one."""


def _connect(place: Path) -> DuckDBPyConnection:
    import duckdb

    until_s = time.monotonic() + _HELD_S
    while True:
        try:
            is_file = place.is_file()
            connection = duckdb.connect(str(place), read_only=True) if is_file else duckdb.connect()
            break
        except duckdb.Error as error:
            if "lock" not in str(error).lower():
                raise _explained(error, place) from None
            if time.monotonic() > until_s:
                held = f"{place} is being written by another program"
                raise UserError(ALREADY_RUNNING, f"{held}: try again in a moment") from None
            time.sleep(0.1)
    for setting in ("TimeZone = 'UTC'", "parquet_metadata_cache = true", "autoinstall_known_extensions = false"):
        connection.execute(f"set {setting}")
    return connection


def _explained(error: Exception, place: Path) -> UserError:
    """In one line: damaged or not ours (65), or not to be read (74)."""
    import duckdb

    if isinstance(error, duckdb.IOException) and "not a valid" not in str(error):
        if "No such file" in str(error) or "No files found" in str(error):
            return _Moved(INPUT_OUTPUT, f"{place} was changed by its collector meanwhile: ask again")
        return UserError(INPUT_OUTPUT, f"{place} cannot be read: {first_line(error)}")
    return UserError(BAD_DATA, f"{place} holds no tables of afm-triage: {first_line(error)}")


def _of_files(files: Sequence[str]) -> str:
    listed = ", ".join(map(_text, files))
    return f"read_parquet([{listed}], {_READING})"


def _text(value: str) -> str:
    """As SQL takes it."""
    return "'" + value.replace("'", "''") + "'"


def _number(value: float) -> str:
    """As SQL takes it, infinite ones too."""
    return repr(float(value)) if math.isfinite(value) else f"'{value}'::double"


def _between(column: str, one: Range) -> str:
    """Both ends always stand, as not-a-number lies above every number."""
    return f"{column} between {_number(one.low)} and {_number(one.high)}"


def _any_of(conditions: Sequence[str]) -> str:
    return f"({' or '.join(conditions)})"


def _folded(name: str) -> str:
    """A name as it is compared; of what a glob knows only ``*`` is meant."""
    return re.sub(r"([?\[\]])", r"[\1]", " ".join(name.split()).lower())


def _with_sessions(table: _Table | None) -> tuple[str, str]:
    """A join to the run that each curve is of, and the columns that it brings; both as SQL."""
    columns = (*_OF_SESSION, "ended")
    if table is None:
        return "", ", ".join(["null::bigint as number", *(f"null::text as {one}" for one in columns[1:]), _NOT_LAST])
    held = "narrow.seq <= run.last_seq"
    join = f"""asof left join (
                   select stream, first_seq, coalesce(last_seq, 9223372036854775807) as last_seq, {", ".join(columns)},
                          number = max(number) over (partition by stream) as is_last
                   from {table.sql}) run on narrow.stream = run.stream and narrow.seq >= run.first_seq"""
    return join, ", ".join(f"if({held}, run.{one}, null) as {one}" for one in (*columns, "is_last"))


def _with_labels(table: _Table | None) -> tuple[str, str]:
    """A join to what people say of each curve, and the columns that it brings; both as SQL."""
    if table is None:
        return "", "null::text as word, null::text as raters"
    join = f"""left join (
                   select stream, seq, string_agg(distinct rater, ', ' order by rater) as raters,
                          case when count(distinct label) = 1 then any_value(label) else 'unsure' end as word
                   from {table.sql} group by stream, seq) said on ran.stream = said.stream and ran.seq = said.seq"""
    return join, "word, raters"


def _of_curves(asked: Asked, columns: frozenset[str]) -> Iterator[str]:
    """Conditions on a curve that its own row answers, those first by which whole files are passed over."""
    span = asked.span
    if asked.instruments:
        yield _any_of([f"instrument = {_text(name)}" for name in asked.instruments])
    for moment_s, sign in ((span.since_s, ">="), (span.until_s, "<")):
        if math.isfinite(moment_s):
            if "day" in columns:
                yield f"day::date {sign[0]}= '{datetime.fromtimestamp(moment_s, UTC):%Y-%m-%d}'::date"
            yield f"epoch_us({_WHEN}) {sign} {math.ceil(moment_s * 1e6)}"
    if span.after:
        yield f"seq > {span.after}"
    if span.last is not None:
        yield f"seq <= {span.last}"
    if asked.verdicts:
        yield _any_of([f"verdict = {_text(verdict)}" for verdict in asked.verdicts])
    if asked.score is not None:
        yield _between("score", asked.score)


def _of_ruptures(asked: Asked) -> tuple[str, str]:
    """A condition on the ruptures of a curve, and the force of the strongest that is meant, in pN; both as SQL."""
    one = [_between("one.force_pn", asked.force)] if asked.force else []
    one += [_between("one.position_nm", asked.place)] if asked.place else []
    meant = f"list_filter(ruptures, lambda one: {' and '.join(one)})" if one else "ruptures"
    conditions = []
    is_one_needed = asked.ruptures is None or asked.ruptures.low > 0
    if asked.force is not None and asked.force.low > -math.inf and is_one_needed:
        conditions.append(f"strongest_rupture_pn >= {_number(asked.force.low)}")  # most curves end here
    if one or asked.ruptures:
        conditions.append(_between(f"len({meant})", asked.ruptures or Range(low=1)))
    if asked.length is not None:
        conditions.append(_between("list_max(list_transform(ruptures, lambda one: one.position_nm))", asked.length))
    strongest = f"list_max(list_transform({meant}, lambda one: one.force_pn))" if one else "strongest_rupture_pn"
    return " and ".join(conditions) or "true", strongest


def _hit(row: Mapping[str, Any]) -> Hit:
    session = {name: row[name] for name in _OF_SESSION} if row["number"] is not None else None
    return Hit(
        instrument=row["instrument"] or "",
        stream=row["stream"] or "",
        seq=row["seq"],
        id=row["id"] or "",
        time=rfc3339(row["time"].timestamp()),
        data=data_of(row),
        session=session,
        word=row["word"],
        raters=row["raters"] or "",
    )
