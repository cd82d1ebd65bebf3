"""The collector: the events of many instruments become one set of tables, each decision once.

A folder of tables holds ``decisions`` (a :class:`daemon.tables.dataset.Dataset`, divided by day), ``labels`` and
``sessions``: of each instrument one Parquet file, ``labels/instrument=NAME/labels.parquet``, which is replaced whole. A
file of DuckDB holds tables of these three names.

How far each instrument is collected is read from the tables themselves, and grows in the commit that brings the
decisions: whatever is killed, nothing is left out and nothing comes twice. A decision is known by its stream and its
number in it, so that a ledger that was restored, and tells its history again, doubles nothing.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from daemon.client.feed import SILENCE_S, Feed, SilenceLimit, Silent, ask, why_deaf
from daemon.client.service_file import Place
from daemon.common import ending
from daemon.common.ending import Closing
from daemon.common.errors import ALREADY_RUNNING, BAD_DATA, INPUT_OUTPUT, UserError
from daemon.common.locks import hold
from daemon.common.sockets import allow_many
from daemon.common.stdio import say, working
from daemon.config.origin import LEDGER_FILE
from daemon.labels.sessions import Said, answers_of
from daemon.ledger.events import instrument_of, kind_of
from daemon.ledger.span import Known
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event, as_plain, decode
from daemon.tables import DECISIONS, need, rows, said_rows, schema
from daemon.tables.dataset import Dataset, today, write_part
from models.files import remove_abandoned, sync_folder, unfinished

if TYPE_CHECKING:
    import duckdb
    import pyarrow

#: Decisions in one commit, at most: some 100 MB until then.
PORTION = 20_000
#: Between two looks at the services that are followed; a decision is in the tables seconds later anyway.
_ROUND_S = 0.2
_ANSWERS_AT_ONCE = 4  # on their way, each of up to 5,000 decisions
_ASK_S = 15.0  # between two questions for labels and sessions
#: Until what cannot be written is tried again: while somebody reads the file, and while the disk is full.
_READ_S, _FULL_S = 0.5, 5.0
#: So long a reader of the file is waited for in silence, and by whoever ends then.
_PATIENCE_S = 30.0
_LAST_COMMIT_S = 10.0  # that the end may take

_Said = Mapping[str, "pyarrow.Table"]  # rows of labels and sessions


class FolderTables(Closing):
    """Tables of Parquet in a folder, written by this process alone. Raises UserError as a Dataset does."""

    def __init__(self, folder: Path) -> None:
        self.path, self.said = folder, dict[str, _Said]()  # instrument -> what people have said there, in this run
        self.every_s = 10.0  # between two commits: each is a small file for all instruments, and many become one
        self._decisions = Dataset(folder / DECISIONS, schema(), ("day",))
        try:
            self.known = Known.read(self._decisions.noted)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            self._decisions.close()
            raise UserError(BAD_DATA, f"{folder}: what is noted there is damaged; name another folder") from error
        self._tidied: date | None = None

    def add(self, events: Sequence[Event]) -> None:
        """New decisions, which are known already, and how far they have come."""
        order = [(name, "ascending") for name in ("instrument", "stream", "seq")]
        self._decisions.commit(rows(events).sort_by(order), self.known.notes())
        self.known.noted()

    def replace(self, instrument: str, said: _Said) -> None:
        """What people have said there, now. UserError 74."""
        from pyarrow import ArrowException, parquet

        for what, table in said.items():
            file = self.path / what / f"instrument={quote(instrument, safe='')}" / f"{what}.parquet"
            plain = table.drop_columns(["instrument"])
            with suppress(OSError, ArrowException):
                if parquet.ParquetFile(file).read().equals(plain):
                    continue
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                remove_abandoned(file.parent)
                with unfinished(file) as fresh:
                    write_part(plain, fresh)
                sync_folder(file.parent)
            except OSError as error:
                why = os.strerror(error.errno or 0)
                raise UserError(INPUT_OUTPUT, f"{file}: {why}; make room there, or let this user write") from error
        self.said[instrument] = said

    def tidy(self) -> None:
        """Few large files of the days that are over; once a day."""
        if self._tidied != today():
            self._decisions.merge(today())
            self._tidied = today()

    def close(self) -> None:
        self._decisions.close()


class FileTables(Closing):
    """Tables in one file of DuckDB, which is open only while it is written: meanwhile others may read it.

    Raises UserError 73 while another collector has it, 65 for another kind of file, 74 where it cannot be written, and
    InUse where somebody has it open for too long.
    """

    def __init__(self, file: Path) -> None:
        self.path, self.said, self.every_s = file, dict[str, _Said](), 5.0
        try:  # beside it, as it is opened anew for each commit, and whatever link leads to it
            self._lock = hold(file.resolve().with_name(f".{file.resolve().name}.lock"))
        except BlockingIOError:
            raise UserError(ALREADY_RUNNING, f"another collector writes {file}: one is enough") from None
        except OSError as error:
            raise UserError(INPUT_OUTPUT, f"{file}: {error.strerror}; name one in a folder of yours") from None
        try:
            _patiently(self._begin)
        except BaseException:
            os.close(self._lock)
            raise

    def _begin(self) -> None:
        with self._open() as database:
            for name, table in {DECISIONS: rows(()), **said_rows("")}.items():
                _bring_up(database, name, table)
            self.known = _known_in(database)

    def add(self, events: Sequence[Event]) -> None:
        """New decisions, which are known already."""
        with self._open() as database:
            _insert(database, DECISIONS, rows(events))
        self.known.noted()

    def replace(self, instrument: str, said: _Said) -> None:
        """What people have said there, now."""
        with self._open() as database:
            for what, table in said.items():
                database.execute(f"delete from {what} where instrument = ?", [instrument])
                _insert(database, what, table)
        self.said[instrument] = said

    def tidy(self) -> None:
        """DuckDB does."""

    def close(self) -> None:
        os.close(self._lock)

    @contextmanager
    def _open(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction, and then the file is free again."""
        import duckdb

        try:
            file = self.path.absolute()  # a bare name may be an address to DuckDB: md:x, :memory:
            with closing(duckdb.connect(file, config={"threads": 1, "memory_limit": "1GB"})) as database:
                database.begin()
                yield database
                database.commit()
        except duckdb.Error as error:
            raise self._explained(str(error).splitlines()[0]) from error

    def _explained(self, text: str) -> UserError:
        if "Could not set lock" in text:
            return InUse(INPUT_OUTPUT, f"{self.path} is open in another program: it is written once that is closed")
        if "not a valid DuckDB" in text:
            return UserError(BAD_DATA, f"{self.path} is no file of DuckDB: name another one")
        return UserError(INPUT_OUTPUT, f"{self.path}: {text}; make room there, or let this user write")


class InUse(UserError):
    """Somebody reads the file, and nobody can write it meanwhile (74)."""


def _patiently(work: Callable[[], None], patience_s: float = _PATIENCE_S) -> None:
    """Whoever reads the file is waited for, for a while. InUse."""
    ends_s = time.monotonic() + patience_s
    while True:
        try:
            return work()
        except InUse:
            if time.monotonic() >= ends_s:
                raise
            time.sleep(_READ_S)


Tables = FolderTables | FileTables


def _insert(database: duckdb.DuckDBPyConnection, name: str, table: pyarrow.Table) -> None:
    database.register("fresh", table)
    database.execute(f"insert into {name} by name select * from fresh")


def _bring_up(database: duckdb.DuckDBPyConnection, name: str, table: pyarrow.Table) -> None:
    """A table with the columns of ``table``, some of which may have come since the file was made."""
    database.register("fresh", table)
    database.execute(f"create table if not exists {name} as select * from fresh limit 0")
    there = {row[0] for row in database.execute(f"describe {name}").fetchall()}
    for column, kind, *_ in database.execute("describe select * from fresh").fetchall():
        if column not in there:
            database.execute(f'alter table {name} add column "{column}" {kind}')


def _known_in(database: duckdb.DuckDBPyConnection) -> Known:
    """What the decisions themselves say."""
    known = Known()
    counted = """select min(instrument), stream, min(seq), max(seq), count(*) from decisions
                 group by stream order by max(time), max(seq)"""
    apart = """select min(seq), max(seq) from (
                   select seq, seq - row_number() over (order by seq) as stretch from decisions where stream = ?
               ) group by stretch"""
    for instrument, stream, first, last, count in database.execute(counted).fetchall():
        is_whole = count == last - first + 1
        known.learn(instrument, stream, [(first, last)] if is_whole else database.execute(apart, [stream]).fetchall())
    return known


def bring_up_to_date(tables: Path, state: Path) -> int:
    """Bring what is new in the ledger and the labels of ``state`` into the folder ``tables``; how many decisions came.

    The folder is made if need be, and without a service. Raises UserError 69 where there is no ledger or pyarrow, 73
    while another process writes these tables, 74 where they cannot be written.
    """
    need("find", "tables", "pyarrow")
    with LedgerView(state / LEDGER_FILE) as view, FolderTables(tables) as into:
        take_stored(into, view, state / "labels.sqlite")
        return into.known.came


def take_stored(into: Tables, view: LedgerView, labels: Path) -> None:
    """The same of a ledger and its labels into tables that are open; what is there already stays as it is."""
    last, instrument = into.known.last(view.stream), ""
    with working("reading the ledger", max(view.last_seq - last, 0)) as done:
        while stored := view.since(last, PORTION):
            events = [decode(row.body) for row in stored]
            last, instrument = stored[-1].seq, instrument_of(events[-1])
            if new := [one for one in events if into.known.take(instrument_of(one), one["stream"], one["seq"])]:
                into.add(new)
            for _ in stored:
                done()
    if instrument := instrument or next(map(instrument_of, view.last(1)), ""):
        said, answers = Said(), answers_of(labels)
        said.update(lambda what, number: as_plain(answers[what](number)))
        into.replace(instrument, said_rows(instrument, said.labels(), said.sessions))
    into.tidy()


class _Line(Closing):
    """One instrument that is followed: its decisions, and, asked from another thread, what people have said."""

    def __init__(self, place: Place, known: Known) -> None:
        self.place, self._known = place, known
        stream, seq = known.at(place.name)
        self.feed = Feed(place.publish, place.replay, since=seq, stream=stream, key=place.key)
        self._began_s, self._is_another = time.monotonic(), False
        self.due_s, self.told, self.instrument = 0.0, "", place.name or ""
        self._said = Said()

    def new_of(self, events: Iterable[Event]) -> Iterator[Event]:
        """Those of them that are decisions, and not in the tables yet."""
        for event in events:
            if kind_of(event) != "decision" or self._is_of_another(event):
                continue
            if self.place.name is not None:
                event["source"] = f"/{self.place.name}"
            if self._known.take(instrument_of(event), event["stream"], event["seq"]):
                yield event

    def _is_of_another(self, event: Event) -> bool:
        owner = self._known.owner(event["stream"]) if self.place.name else None
        if owner not in (None, self.place.name) and not self._is_another:
            self._is_another = True
            say(
                f"{self.place}: its decisions are in the tables as those of {owner}; correct its name, or its addresses"
            )
        return self._is_another

    def silent_s(self) -> float:
        """How long nothing has been heard."""
        return time.monotonic() - (self.feed.heard_s or self._began_s)

    def why(self) -> str:
        """Why nothing is heard."""
        return why_deaf(self.place.replay, self.place.key) or f"nothing answers at {self.place.replay}"

    def ask(self) -> _Said | None:
        """What people have said by now; None where it is as before, or not told: an older service does not know it."""
        with suppress(ValueError, KeyError, TypeError):
            if self._said.update(self._tell):
                return said_rows(self.instrument, self._said.labels(), self._said.sessions)
        return None

    def _tell(self, what: str, number: int) -> Mapping[str, Any]:
        answer = ask(self.place.replay, what.encode(), b"%d" % number, timeout_s=3.0, key=self.place.key)
        event = decode(answer[0]) if answer else {}
        if kind_of(event) != what:
            raise ValueError(f"{what} are not told")
        self.instrument = self.place.name or instrument_of(event)
        data: Mapping[str, Any] = event["data"]
        return data

    def close(self) -> None:
        self.feed.close()


class _Asker(threading.Thread, Closing):
    """Asks service after service what people have said, and looks why one is silent; decisions wait for none of it."""

    def __init__(self, lines: Sequence[_Line]) -> None:
        super().__init__(name="asker", daemon=True)
        self._lines, self._ending = lines, threading.Event()
        self.found: deque[tuple[str, _Said]] = deque()

    def run(self) -> None:
        while not self._ending.wait(_ROUND_S):
            for line in self._lines:
                is_back = line.told and line.silent_s() < SILENCE_S
                if not self._ending.is_set() and (is_back or time.monotonic() >= line.due_s):
                    self._look(line)

    def _look(self, line: _Line) -> None:
        if line.feed.heard_s is not None and line.silent_s() < SILENCE_S:
            if line.told:
                say(f"{line.place} is heard again")
            if (said := line.ask()) is not None:
                self.found.append((line.instrument, said))
            line.told, line.due_s = "", time.monotonic() + _ASK_S
        elif line.place.name and line.silent_s() >= SILENCE_S:
            if (why := line.why()) != line.told:
                say(f"{line.place}: {why}; the others go on")
            line.told, line.due_s = why, time.monotonic() + SILENCE_S

    def close(self) -> None:
        self._ending.set()
        self.join(5.0)


class Collector(Closing):
    """Brings what the services at ``places`` tell into ``tables``, which are the caller's to close."""

    def __init__(self, tables: Tables, places: Sequence[Place]) -> None:
        allow_many(3 * len(places))
        self._tables, self._pending = tables, list[Event]()
        self._said: dict[str, _Said] = {}
        self._lines = deque(_Line(place, tables.known) for place in places)
        self._due_s, self._failing_s, self._is_told = math.inf, math.inf, False

    def close(self) -> None:
        for line in self._lines:
            line.close()

    def catch_up(self) -> dict[str, str]:
        """Bring what there is; instrument -> why its service was not heard, of those that were not."""
        silent = {}
        for line in list(self._lines):
            try:
                for event in line.new_of(line.feed.history()):
                    self._pending.append(event)
                    if len(self._pending) >= PORTION:
                        self._write_now()
                if (said := line.ask()) is not None:
                    self._said[line.instrument] = said
            except Silent:
                silent[str(line.place)] = line.why()
        self._write_now()  # once for many: each commit is a file
        return silent

    def follow(self, silence: SilenceLimit | None = None) -> None:
        """For ever: KeyboardInterrupt ends it, or ``silence``, where nothing is heard for too long (UserError 69)."""
        ending.allow(_LAST_COMMIT_S)
        try:
            with _Asker(list(self._lines)) as asker:
                asker.start()
                while True:
                    began_s = time.monotonic()
                    is_heard = self._look()
                    if silence is not None:
                        silence.note(heard=is_heard)
                    while asker.found:
                        instrument, self._said[instrument] = asker.found.popleft()
                    if self._pending or self._said:
                        self._due_s = min(self._due_s, time.monotonic() + self._tables.every_s)
                    if time.monotonic() >= self._due_s:
                        self._try_to_write()
                    ending.pause(_ROUND_S - (time.monotonic() - began_s))
        finally:
            self._write_now(_LAST_COMMIT_S / 2)

    def _look(self) -> bool:
        """One look at each; whether any was heard. What does not fit into one commit waits for the next."""
        asking = sum(line.feed.is_asking and line.silent_s() < SILENCE_S for line in self._lines)
        is_heard = False
        for line in list(self._lines):
            if len(self._pending) >= PORTION:
                self._due_s = self._due_s if math.isfinite(self._failing_s) else 0.0
                break
            was_asking = line.feed.is_asking
            line.feed.is_held = not was_asking and asking >= _ANSWERS_AT_ONCE
            found = line.feed.read(0.0)
            asking += line.feed.is_asking - was_asking
            is_heard = is_heard or bool(found)
            self._pending += line.new_of(found)
            self._lines.rotate(-1)  # the next look begins behind the last one that was looked at
        return is_heard

    def _write(self) -> None:
        """All that has come. UserError."""
        if self._pending:
            self._tables.add(self._pending)
            self._pending.clear()
        while self._said:
            instrument, said = next(iter(self._said.items()))
            self._tables.replace(instrument, said)
            del self._said[instrument]
        self._tables.tidy()

    def _try_to_write(self) -> None:
        """What the disk, or who reads the file, does not let us write now is kept, and tried again."""
        now_s, self._due_s = time.monotonic(), math.inf
        try:
            self._write()
        except UserError as error:
            if error.exit_code != INPUT_OUTPUT:
                raise
            is_read = isinstance(error, InUse)
            self._failing_s = min(self._failing_s, now_s)
            self._due_s = now_s + (_READ_S if is_read else _FULL_S)
            if not self._is_told and (not is_read or now_s - self._failing_s > _PATIENCE_S):
                self._is_told = say(f"{error}; {len(self._pending):,} decisions wait")
        else:
            if self._is_told:
                say(f"{self._tables.path} is written again")
            self._failing_s, self._is_told = math.inf, False

    def _write_now(self, patience_s: float = _PATIENCE_S) -> None:
        """All that has come; who reads the file is waited for, for a while. Raises UserError 74."""
        _patiently(self._write, patience_s)
