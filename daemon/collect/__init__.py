"""Handing over: which of the judged curves are wanted, where each of them is now, and the table of what was done.

A curve is found again by its file, if that still holds what was judged (its sha256), else by the compact copy that the
ledger keeps of what was kept or flagged. ``copies`` puts files or links into a folder; an archive is written here.

The table has one row a curve, as spreadsheets and pandas open it: CSV in UTF-8 with a byte-order mark and CRLF, with
commas, or with semicolons and a decimal comma. A text that begins like a formula gets an apostrophe in front, so that
no spreadsheet runs it; :func:`as_written` takes it away. A table that is there already only grows: what a person has
sorted, marked or written beside it stays.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from heapq import merge
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from daemon.common.errors import ALREADY_RUNNING, BAD_DATA, INPUT_OUTPUT, USAGE, UserError
from daemon.common.mounts import resolve
from daemon.formats import NAMES, event_path
from daemon.formats.afmcurve import SUFFIX, unpack
from daemon.formats.base import Unfinished, Unreadable
from daemon.formats.text_rule import TextRule
from daemon.judging import Verdict
from daemon.labels import Label, Labels, Word, unanimous
from daemon.labels.curve_name import is_there, sha256_of
from daemon.labels.sessions import Session, Sessions
from daemon.labels.table import SEPARATORS, read_csv, read_index
from daemon.ledger.span import EVER, Span
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event
from daemon.reading.ahead import Job, Piece, find, read_ahead
from deploy.classifier import usable_cores
from models.clock import day_and_second, since_1970
from models.curve import Curve
from models.files import write_whole
from models.frontend import OPEN
from models.ruptures import Rupture, pulling, ruptures

Identity = str
#: Of the instrument's file, of the ledger's compact copy, or nothing of it is left.
ContentKind = Literal["file", "compact copy", "gone"]
#: Of a file that is not handed over: it is gone, holds something else, or the curve was sent by a program.
Fate = Literal["", "gone", "changed", "sent"]


def identity_of(data: Mapping[str, Any], event: str) -> Identity:
    """By its content, where that is known: a curve that is judged again, by a new ledger, is the same curve."""
    return f"{data['sha256']}#{data['curve']}" if data["sha256"] else event


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which curves. ``words``: what people say, which counts before the verdict; without any the verdict alone does.

    ``seqs``: these and no others, whatever the rest says.
    """

    verdicts: Collection[Verdict]
    words: Collection[Word] = ()
    span: Span = EVER
    min_score: float | None = None
    session: Session | None = None
    seqs: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """One curve that is wanted: its decision, the run that it is of, and what people say of it."""

    event: Event
    session: Session | None
    labels: Sequence[Label]

    @property
    def data(self) -> Mapping[str, Any]:
        """Of the event."""
        data: Mapping[str, Any] = self.event["data"]
        return data

    @property
    def order(self) -> tuple[float, int]:
        """Curves stand in the order in which they were measured."""
        return measured(self.event)

    @property
    def identity(self) -> Identity:
        """The same for the same content."""
        return identity_of(self.data, self.event["id"])


def choose(view: LedgerView, labels: Labels | None, wanted: Wanted) -> Iterator[Chosen]:
    """The curves, in the order in which they were measured. Raises UserError 74 where ledger or labels are damaged."""
    sessions = [] if labels is None else Sessions(labels).all()
    ours = [one for one in sessions if one.stream in (view.stream, "")]
    said = {} if labels is None else labels.labelled()
    if wanted.seqs is not None:
        named = sorted(view.decisions(wanted.seqs).values(), key=measured)
        yield from (Chosen(event, _run_of(event["seq"], ours), said.get(event["seq"], ())) for event in named)
        return
    stretch = (1, None) if wanted.session is None else (wanted.session.first_seq, wanted.session.last_seq)
    span = wanted.span.of_seqs(*stretch)
    events = view.within(span, verdicts=wanted.verdicts, min_score=wanted.min_score) if wanted.verdicts else iter(())
    if wanted.words:
        words = {seq: unanimous(one.label for one in some) for seq, some in said.items()}
        by_people = view.decisions(seq for seq, word in words.items() if word in wanted.words)
        inside = [event for event in by_people.values() if _is_within(event, span, wanted.min_score)]
        events = merge(
            sorted(inside, key=measured), (event for event in events if event["seq"] not in words), key=measured
        )
    for event in events:
        seq = event["seq"]
        yield Chosen(event, _run_of(seq, ours), said.get(seq, ()))


def _run_of(seq: int, sessions: Sequence[Session]) -> Session | None:
    return next((one for one in reversed(sessions) if one.holds(seq)), None)


def measured(event: Event) -> tuple[float, int]:
    """When, in s since 1970, or where nobody knows when it was judged, and its number: what curves are ordered by."""
    return since_1970(event["data"].get("acquired") or event["time"]), event["seq"]


def _is_within(event: Event, span: Span, min_score: float | None) -> bool:
    score = event["data"]["score"]
    acquired_s, seq = measured(event)
    is_high = min_score is None or (score is not None and score >= min_score)
    return is_high and span.holds(acquired_s, seq)


@dataclass(frozen=True, slots=True)
class Content:
    """What there is of a curve. ``file`` holds what was judged; else ``copy`` are the bytes of an ``.afmcurve``."""

    kind: ContentKind
    file: Path | None = None
    other: Path | None = None  # the second half of a pair
    copy: bytes | None = None
    fate: Fate = ""

    def name(self, one: Chosen) -> str:
        """Where it belongs below the folder that it is handed over to: never outside of it."""
        data = one.data
        parts = [part for part in PurePosixPath(data["path"]).parts if part not in ("/", "..", ".")]
        path = "/".join(parts) or "curve"
        if self.kind == "file" and self.file is not None:
            return f"{os.path.dirname(path)}/{self.file.name}".lstrip("/")
        number = f"-{data['curve']}" if data["curve"] or data.get("source") != "ingest" else ""
        return path if path.endswith(SUFFIX) and not number else f"{path}{number}{SUFFIX}"


class Contents:
    """Looks for the content of curves; of a file with many it is looked at once.

    ``silent``: folders whose share does not answer, which are not touched.
    """

    def __init__(self, view: LedgerView, watched: Sequence[Path], silent: Sequence[Path] = ()) -> None:
        self._view, self._watched, self._silent = view, watched, silent
        self._last: tuple[object, Content | None] = (None, None)

    def of(self, one: Chosen) -> Content:
        """Never raises for what is wrong with a file."""
        key = (one.data.get("folder"), one.data["path"], one.data["sha256"])
        if self._last[0] != key:
            self._last = key, self._file_of(one)
        found = self._last[1]
        if found is not None and found.kind == "file":
            return found
        fate: Fate = "gone" if found is None else found.fate
        copy = self._view.compact_copy(one.event["seq"])
        return Content("gone", fate=fate) if copy is None else Content("compact copy", copy=copy, fate=fate)

    def _file_of(self, one: Chosen) -> Content | None:
        data = one.data
        if data.get("source") == "ingest":
            return Content("gone", fate="sent")
        folders = [Path(data["folder"])] if data.get("folder") else [*self._watched, Path()]
        is_other = False
        for file in (Path(folder, data["path"]) for folder in folders):
            if any(resolve(file).is_relative_to(one) for one in self._silent) or not (there := _spelt(file)):
                continue
            if data["sha256"] is not None and sha256_of(there) == data["sha256"]:
                other = NAMES.find_other(there) if NAMES.is_first_half(there.name) else None
                return Content("file", there, other)
            is_other = True
        return Content("gone", fate="changed") if is_other else None


def _spelt(file: Path) -> Path | None:
    """The file that events call so, where it is there: bytes of its name that are no UTF-8 are a mark in theirs."""
    if is_there(file):
        return file
    if "\ufffd" in file.name:
        with suppress(OSError):
            names = (name for name in os.listdir(file.parent) if event_path(name) == file.name)
            return next((file.with_name(name) for name in names), None)
    return None


def read(
    found: Iterable[tuple[Chosen, Content]], rules: Sequence[TextRule] = ()
) -> Iterator[tuple[Chosen, Content, Curve | None]]:
    """The curves with their samples, those of one file together; None where nothing of one can be read.

    Files are read by processes of their own, as the service does it. ``rules``: what the laboratory says of text.
    """
    waiting: dict[str, dict[int, tuple[Chosen, Content]]] = {}
    for one, content in found:
        if content.file is None:
            yield one, content, _of_copy(content.copy)
        else:
            waiting.setdefault(str(content.file), {})[one.data["curve"]] = (one, content)
    if not waiting:
        return
    for item in read_ahead(map(Job, find(list(waiting))), max(1, min(2, usable_cores())), rules=rules):
        if not isinstance(item, Piece):
            continue
        reading, of_file = item.reading, waiting.get(str(item.reading.arrival.file), {})
        if (wanted := of_file.get(reading.index)) and reading.sha256 == wanted[0].data["sha256"]:
            yield *of_file.pop(reading.index), reading.curve
    for some in waiting.values():  # a file that has changed since it was looked at
        yield from ((one, content, None) for one, content in some.values())


def _of_copy(copy: bytes | None) -> Curve | None:
    if copy is not None:
        with suppress(Unreadable, Unfinished):
            return unpack(copy)[0]
    return None


def session_of(labels: Labels | None, word: str) -> Session:
    """``current``, ``last`` or a number. Raises UserError 65 where there is no such session."""
    every = [] if labels is None else Sessions(labels).all()
    ours = [one for one in every if labels is not None and one.stream in (labels.stream or "", "")]
    going_on = [one for one in ours if one.ended is None]
    found = {"current": going_on[-1:], "last": ours[-1:]}.get(word, [one for one in ours if str(one.number) == word])
    if not found:
        known = ", ".join(str(one.number) for one in ours[-5:]) or "none yet"
        raise UserError(BAD_DATA, f"--session {word}: there is no such session in this ledger; there are: {known}")
    return found[0]


Decimal = Literal["point", "comma"]
Cells = Mapping[str, object]

#: ``acquired`` is as events say it, ``acquired_local`` in the time of this computer, as spreadsheets read it.
#: ``rupture_deflections_nm`` stands in the place of forces where the file says no spring constant. ``file`` is where
#: the curve lies now: below the folder of the table where it was handed over with it.
COLUMNS = (
    "folder",
    "path",
    "curve",
    "acquired",
    "acquired_local",
    "session",
    "sample",
    "tip",
    "verdict",
    "score",
    "reasons",
    "model",
    "label",
    "rater",
    "n_ruptures",
    "max_rupture_force_pn",
    "rupture_forces_pn",
    "rupture_deflections_nm",
    "rupture_positions_nm",
    "content",
    "file",
    "event",
    "sha256",
)
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_BOM = "\ufeff"


def cells_of(one: Chosen, found: Sequence[Rupture] | None, content: str, file: str) -> Cells:
    """A row. ``found`` None: the curve could not be read; ``content``: of the file, a compact copy, or gone."""
    data, session = one.data, one.session
    forces = [] if found is None else [rupture.force_pn for rupture in found]
    known = [force for force in forces if math.isfinite(force)]  # all of a curve, or none
    deflections = [rupture.force for rupture in found or () if rupture.unit == "nm"]
    return {
        "folder": data.get("folder") or "",
        "path": data["path"],
        "curve": data["curve"],
        "acquired": data.get("acquired") or "",
        "acquired_local": day_and_second(data["acquired"]) if data.get("acquired") else "",
        "session": "" if session is None else session.number,
        "sample": "" if session is None else session.sample,
        "tip": "" if session is None else session.tip,
        "verdict": data["verdict"],
        "score": "" if data["score"] is None else round(float(data["score"]), 6),
        "reasons": " ".join(data["reasons"]),
        "model": data["model"],
        "label": unanimous(label.label for label in one.labels) if one.labels else "",
        "rater": ", ".join(dict.fromkeys(label.rater for label in one.labels)),
        "n_ruptures": "" if found is None else len(found),
        "max_rupture_force_pn": round(max(known), 2) if known else "",
        "rupture_forces_pn": [round(force, 2) for force in known],
        "rupture_deflections_nm": [round(deflection, 3) for deflection in deflections],
        "rupture_positions_nm": [] if found is None else [round(rupture.position_nm, 2) for rupture in found],
        "content": content,
        "file": file,
        "event": one.event["id"],
        "sha256": data["sha256"] or "",
    }


def with_spring(curve: Curve, n_per_m: float | None) -> Curve:
    """With this spring constant, where its file says none; what a file says is never replaced."""
    is_said = n_per_m is None or curve.force_unit == "N" or curve.spring_constant_n_per_m
    return curve if is_said else replace(curve, spring_constant_n_per_m=n_per_m)


def ruptures_of(curve: Curve) -> tuple[Rupture, ...]:
    """The right way up, where the file does not say which that is."""
    return ruptures(pulling(curve) if OPEN in curve.notes else curve)


class Table:
    """One CSV file, as it is, and the rows that come to it. Raises UserError 65 for a file that holds something else.

    ``decimal`` None: as the file has it, else a point.
    """

    def __init__(self, path: Path, decimal: Decimal | None = None) -> None:
        self.path, self._rows = path, list[tuple[tuple[float, int], Cells]]()
        self._before = _content_of(path)
        self._columns: tuple[str, ...] = COLUMNS
        self.known: dict[Identity, str] = {}  # and where each was handed over
        self.decimal: Decimal = decimal or "point"
        self._separator = ";" if decimal == "comma" else ","
        if self._before:
            self._take(decimal)

    def add(self, one: Chosen, row: Cells) -> None:
        """In the file after :meth:`save`; once."""
        self.known[one.identity] = str(row["file"])
        self._rows.append((one.order, row))

    def save(self) -> None:
        """The whole file with what has come, or as it was. Raises UserError 74, and 73 where somebody else wrote it."""
        if self._before and not self._rows:
            return
        if _content_of(self.path) != self._before:  # another run, or a person who has saved it meanwhile
            what = f"{self.path} was written by somebody else meanwhile, and stays as it is"
            raise UserError(ALREADY_RUNNING, f"{what}: give the same command again")
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter=self._separator, lineterminator="\r\n")
        if not self._before:
            writer.writerow(self._columns)
        rows = [row for _, row in sorted(self._rows, key=itemgetter(0))]
        writer.writerows([[self._cell(row.get(name, "")) for name in self._columns] for row in rows])
        head = self._before or _BOM.encode()
        joint = b"\r\n" if self._before and not self._before.endswith(b"\n") else b""
        try:
            write_whole(self.path, head + joint + out.getvalue().encode("utf-8", "replace"))
        except OSError as error:
            raise UserError(INPUT_OUTPUT, f"{self.path}: {error.strerror}; nothing was written into it") from None

    def _take(self, decimal: Decimal | None) -> None:
        head = self._before.partition(b"\n")[0].decode("utf-8", "replace")
        self._separator = max(SEPARATORS, key=head.count)
        is_comma: Decimal = "comma" if self._separator == ";" else "point"
        try:
            if self._before[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise ValueError("is Unicode text; save it as CSV UTF-8")
            table = read_csv(self._before)
            if not {"path", "curve", "event", "sha256"} <= set(table.columns):
                raise ValueError("holds something else than curves that were handed over")
            for _, row in table.rows:
                self.known[_identity(row)] = as_written(row.get("file", ""))
        except ValueError as error:
            raise UserError(BAD_DATA, f"{self.path}: {error}; name another file") from None
        if decimal not in (None, is_comma):
            raise UserError(USAGE, f"{self.path} has a decimal {is_comma}: name another file for --decimal {decimal}")
        self._columns, self.decimal = table.columns, is_comma

    def _cell(self, value: object) -> str:
        if isinstance(value, list):
            return " ".join(self._number(one) for one in value)
        return self._number(value) if isinstance(value, int | float) else safe(str(value))

    def _number(self, value: float) -> str:
        """NaN, where the file does not say what makes it a number of this unit, as pandas reads it."""
        text = "nan" if math.isnan(value) else str(value)
        return text.replace(".", ",") if self.decimal == "comma" else text


def _content_of(path: Path) -> bytes:
    """Nothing where there is no file, or one to be written into, like a pipe."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{path}: {error.strerror}; name another file") from None


def _identity(row: Mapping[str, str]) -> Identity:
    return identity_of({"curve": read_index(row["curve"]), "sha256": row["sha256"]}, row["event"])


def safe(text: str) -> str:
    """What no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def as_written(cell: str) -> str:
    """The text that :func:`safe` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell
