"""Tables: one decision is one row, in columns that a physicist can ask without us, and nothing of it is lost.

A row is made of an event, or of a line of ``score --out``, and :func:`event_of` and :func:`data_of` give them back as
they were: what a column cannot hold exactly (a file name that is not UTF-8, a field of a newer service) stands in the
column ``rest`` as JSON. Columns are only ever added. Forces are in pN, lengths in nm, times in UTC.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from daemon.common.errors import UNREACHABLE, UserError
from daemon.ledger.wire import text
from models.clock import CLOCK, moment, rfc3339, since_1970

if TYPE_CHECKING:
    import pyarrow

#: What a collector's tables are called.
DECISIONS, LABELS, SESSIONS = "decisions", "labels", "sessions"
#: Name of a column -> what it holds; the last words of a table's own documentation.
COLUMNS = {
    "instrument": "text; null: a row of `score`",
    "stream": "text; the ledger, null: a row of `score`",
    "seq": "whole; the decision's number in its stream",
    "id": "text; of the event",
    "time": "moment; of the decision",
    "folder": 'text; watched or scored, "": a file by itself, ingest, an archive',
    "path": "text; below the folder",
    "curve": "whole; of the file, from 0",
    "acquired": "moment; when it was measured, null: unknown",
    "day": "date; UTC, of acquired, else of time",
    "sha256": "text; of the file, null: it could not be read",
    "verdict": "text",
    "score": "number; null: none could be made",
    "discard_at": "number; scores up to here are discarded",
    "keep_at": "number; scores from here on are kept",
    "cut_origin": "text; where discard_at comes from",
    "cut_events": "whole; that it was chosen on",
    "reasons": "texts; words of models/reasons.py",
    "model": "text",
    "pipeline": "text",
    "score_basis": "text",
    "prevalence": "number",
    "force_unit": "text; N, m (deflection) or V, null: unknown",
    "engine": "text",
    "certificate": "record; what is promised of missed events, null: nothing",
    "latency_s": "record; read, raster, infer, total",
    "source": "text; kind of source: watch, ingest, score",
    "preview": "bytes; uint8 (2, W): lower and upper edge of each column of the drawing",
    "preview_axes": "record; what its numbers stand for",
    "steps": "number; how far the strongest step stands out",
    "ruptures": "records; null: forces are not known",
    "strongest_rupture_pn": "number; null: no rupture was found",
    "size_bytes": "whole; of the file, in rows of `score`",
    "mtime_ns": "whole; the same, since 1970",
    "curves": "whole; the same: how many it has",
    "rest": "text; JSON of what no column holds exactly, null: nothing",
}
#: The fields of records, and what they hold.
RECORDS = {
    "certificate": {
        "max_miss": "number",
        "bound": "number",
        "confidence": "number",
        "events": "whole",
        "missed": "whole",
        "data": "texts",
    },
    "latency_s": {"read": "number", "raster": "number", "infer": "number", "total": "number"},
    "preview_axes": {
        "unit": "text",
        "softness": "number",
        "low": "number",
        "high": "number",
        "from_nm": "number",
        "to_nm": "number",
    },
    "ruptures": {"force_pn": "number", "drop_pn": "number", "position_nm": "number", "position_kind": "text"},
}
LONGEST_FOLDER = 200  # bytes of its name in a path; a longer one is shortened in its column

Row = Mapping[str, Any]  # as pyarrow's to_pylist and DuckDB's fetch give it


def need(verb: str, extra: str, *modules: str) -> None:
    """UserError 69 where a package of an extra is not installed: ``need("find", "tables", "duckdb")``."""
    if any(find_spec(module) is None for module in modules):
        how = f".venv/bin/pip install 'afm-triage[{extra}]'"
        raise UserError(UNREACHABLE, f"{verb} needs the extra {extra}: {how}")


@cache
def schema() -> pyarrow.Schema:
    """The columns of a row, in order."""
    import pyarrow as pa

    plain = {
        "text": pa.string(),
        "texts": pa.list_(pa.string()),
        "whole": pa.int64(),
        "number": pa.float64(),
        "bytes": pa.binary(),
        "date": pa.date32(),
        "moment": pa.timestamp("ms", tz="UTC"),
    }

    def kind(name: str, word: str) -> pyarrow.DataType:
        if word not in ("record", "records"):
            return plain[word]
        record = pa.struct([(field, plain[kind]) for field, kind in RECORDS[name].items()])
        return pa.list_(record) if word == "records" else record

    return pa.schema([(name, kind(name, about.partition(";")[0])) for name, about in COLUMNS.items()])


def rows(said: Iterable[Mapping[str, Any]]) -> pyarrow.Table:
    """A row each of decision events, or of lines of ``score``, in order."""
    import pyarrow as pa

    now = datetime.fromtimestamp(int(CLOCK.wall_s()), UTC)
    cells: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for one in said:
        row = _row(one, now)
        for name, column in cells.items():
            column.append(row.get(name))
    return pa.Table.from_arrays([pa.array(cells[field.name], field.type) for field in schema()], schema=schema())


def data_of(row: Row) -> dict[str, Any]:
    """The ``data`` of the event, or the line of ``score``, that the row was made of: equal to its JSON."""
    rest = json.loads(row["rest"]) if row["rest"] else {}
    data = _known_data(row)
    for name in rest.get("absent", ()):
        del data[name]
    return {**data, **rest.get("data", {})}


def event_of(row: Row) -> dict[str, Any]:
    """The whole decision event; of a row of ``score`` KeyError."""
    if row["stream"] is None:
        raise KeyError("a row of score is no event")
    rest = json.loads(row["rest"]) if row["rest"] else {}
    data = data_of(row)
    return {**_known_head(row, data), **rest.get("event", {}), "data": data}


# One row.


class _Rest(NamedTuple):
    """What no column holds: fields of the data and of the event, and which of the data are not there at all."""

    data: dict[str, Any]
    event: dict[str, Any]
    absent: list[str]

    def written(self) -> str | None:
        said = {name: part for name, part in self._asdict().items() if part}
        return json.dumps(said, separators=(",", ":")) if said else None


def _row(one: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    is_event = isinstance(one.get("data"), dict)
    data = one["data"] if is_event else one
    rest = _Rest({}, {}, [])
    row: dict[str, Any] = {"time": now, "folder": "", "path": ""}
    for name, value in data.items():
        take = _TAKERS.get(name)
        cells = None if take is None else take(value)
        if cells is None:
            rest.data[name] = value
            cells = _nearest(name, value)
        row.update(cells)
    rest.absent.extend(name for name in _NULLABLE if name not in data)
    if is_event:
        _take_head(one, row, rest, data)
    row["day"] = (row.get("acquired") or row["time"]).date()
    found = row.get("ruptures")
    row["strongest_rupture_pn"] = max((f for one in found or () if (f := one["force_pn"]) is not None), default=None)
    row["rest"] = rest.written()
    return row


def _take_head(event: Mapping[str, Any], row: dict[str, Any], rest: _Rest, data: Mapping[str, Any]) -> None:
    """The event around the data."""
    source = event.get("source")
    if isinstance(source, str) and source.startswith("/"):
        row["instrument"] = text(source[1:])
    for name, fits in (("stream", _is_text), ("seq", _is_whole), ("id", _is_text)):
        if fits(event.get(name)):
            row[name] = event[name]
    row.setdefault("stream", "")
    row["time"] = _moment(event.get("time")) or row["time"]
    known = _known_head(row, data)
    rest.event.update({name: value for name, value in event.items() if name != "data" and known.get(name) != value})


def _known_head(row: Row, data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": "org.afmtriage.decision.v1",
        "id": row.get("id"),
        "source": f"/{row.get('instrument')}",
        "subject": f"{data.get('path')}#{data.get('curve')}",
        "time": rfc3339(row["time"].timestamp()),
        "stream": row.get("stream"),
        "seq": row.get("seq"),
    }


def _known_data(row: Row) -> dict[str, Any]:
    """As far as the columns know it; fields that may be null are null where they are not there."""
    data: dict[str, Any] = {name: row[name] for name in _PLAIN}
    data["folder"] = row["folder"] or None
    data["reasons"] = None if row["reasons"] is None else list(row["reasons"])
    data["acquired"] = None if row["acquired"] is None else moment(row["acquired"].timestamp())
    data["thresholds"] = {"discard": row["discard_at"], "keep": row["keep_at"]}
    data["certificate"], data["preview_axes"] = row["certificate"], row["preview_axes"]
    data["preview"] = None if row["preview"] is None else base64.b64encode(row["preview"]).decode("ascii")
    data["ruptures"] = row["ruptures"]
    told = row["latency_s"] or {}
    data["latency_s"] = {stage: seconds for stage, seconds in told.items() if seconds is not None}
    if row["source"] is not None:
        data["source"] = row["source"]
    if row["cut_origin"] is not None:
        data["cut"] = {"origin": row["cut_origin"], "events": row["cut_events"]}
    if row["size_bytes"] is not None:
        data["file"] = {name: row[name] for name in _OF_FILE}
    return data


# What a column holds exactly: the cells of a field's value, or None where they would not give it back.

_Cells = dict[str, Any]
_PLAIN = (
    *("path", "curve", "sha256", "verdict", "score", "model", "pipeline", "score_basis", "prevalence", "force_unit"),
    *("engine", "steps"),
)
_OF_FILE = ("size_bytes", "mtime_ns", "curves")
#: Fields that give null when their columns are null: of those that a line has not, this is noted.
_NULLABLE: tuple[str, ...] = (
    *_PLAIN,
    *("folder", "reasons", "acquired", "thresholds", "certificate", "preview_axes", "preview", "ruptures", "latency_s"),
)


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:  # bytes of a file name that is not UTF-8
        return False


def _is_whole(value: Any) -> bool:
    return type(value) is int and -(1 << 63) <= value < 1 << 63


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and float(value) == value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_FITS: dict[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "whole": _is_whole,
    "number": _is_number,
    "texts": _is_texts,
}


def _fits(value: Any, fields: Mapping[str, str], *, whole: bool = True) -> bool:
    """Whether it is a record of these fields, all of them where ``whole``."""
    if not isinstance(value, dict) or not value.keys() <= fields.keys() or (whole and len(value) < len(fields)):
        return False
    return all((whole and one is None) or _FITS[fields[name]](one) for name, one in value.items())


def _plainly(name: str) -> Callable[[Any], _Cells | None]:
    fits = _FITS[COLUMNS[name].partition(";")[0]]
    return lambda value: {name: value} if value is None or fits(value) else None


def _record(name: str) -> Callable[[Any], _Cells | None]:
    fields = RECORDS[name]
    return lambda value: {name: value} if value is None or _fits(value, fields) else None


def _take_ruptures(value: Any) -> _Cells | None:
    fields = RECORDS["ruptures"]
    fits = value is None or (isinstance(value, list) and all(_fits(one, fields) for one in value))
    return {"ruptures": value} if fits else None


def _take_latency(value: Any) -> _Cells | None:
    return {"latency_s": value} if _fits(value, RECORDS["latency_s"], whole=False) else None


def _take_folder(value: Any) -> _Cells | None:
    if value is None:
        return {"folder": ""}
    return {"folder": value} if value and _is_text(value) and len(quote(value, safe="")) <= LONGEST_FOLDER else None


def _take_thresholds(value: Any) -> _Cells | None:
    fits = _fits(value, {"discard": "number", "keep": "number"})
    return {"discard_at": value["discard"], "keep_at": value["keep"]} if fits else None


def _take_cut(value: Any) -> _Cells | None:
    fits = _fits(value, {"origin": "text", "events": "whole"}) and value["origin"] is not None
    return {"cut_origin": value["origin"], "cut_events": value["events"]} if fits else None


def _take_source(value: Any) -> _Cells | None:
    return {"source": value} if _is_text(value) else None


def _take_file(value: Any) -> _Cells | None:
    fits = _fits(value, dict.fromkeys(_OF_FILE, "whole")) and value["size_bytes"] is not None
    return dict(value) if fits else None


def _take_acquired(value: Any) -> _Cells | None:
    when = _moment(value)
    fits = value is None or (when is not None and moment(when.timestamp()) == value)
    return {"acquired": when} if fits else None


def _take_preview(value: Any) -> _Cells | None:
    if value is None:
        return {"preview": None}
    try:
        content = base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return None
    return {"preview": content} if base64.b64encode(content).decode("ascii") == value else None


_TAKERS: dict[str, Callable[[Any], _Cells | None]] = {
    **{name: _plainly(name) for name in (*_PLAIN, "reasons")},
    **{name: _record(name) for name in ("certificate", "preview_axes")},
    "ruptures": _take_ruptures,
    "latency_s": _take_latency,
    "folder": _take_folder,
    "thresholds": _take_thresholds,
    "cut": _take_cut,
    "source": _take_source,
    "file": _take_file,
    "acquired": _take_acquired,
    "preview": _take_preview,
}


def _nearest(name: str, value: Any) -> _Cells:
    """What stands in the columns of a value that they cannot hold: a text as it can be written, else nothing."""
    if name == "acquired":
        return {"acquired": _moment(value)}
    if name in COLUMNS and isinstance(value, str) and COLUMNS[name].startswith("text") and name != "rest":
        written = text(value)
        return {name: f"{written[: LONGEST_FOLDER // 6]}…" if name == "folder" and value else written}
    return {}


def _moment(written: Any) -> datetime | None:
    """What a time says, as far as milliseconds hold it; None for what is none."""
    try:
        return datetime.fromtimestamp(round(since_1970(written), 3), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


# What people have said: labels and sessions, in tables beside.

#: Name of a table -> its columns, as above; each has the instrument before them.
SAID_COLUMNS: Mapping[str, Mapping[str, str]] = {
    LABELS: {
        **{"path": "text", "folder": "text", "curve": "whole", "sha256": "text"},
        **dict.fromkeys(("label", "rater", "reason"), "text"),
        **{"time": "moment", "stream": "text", "seq": "whole", "model": "text", "pipeline": "text"},
        **{"verdict": "text", "score": "number", "queue": "text", "weight": "number", "session": "whole"},
        **{"number": "whole", "extra": "text"},
    },
    SESSIONS: {
        **{"number": "whole", "name": "text", "tip": "text", "sample": "text", "operator": "text", "note": "text"},
        **{"goal": "text", "origin": "text", "began": "moment", "ended": "moment", "stream": "text"},
        **{"first_seq": "whole", "last_seq": "whole"},
    },
}


def said_rows(
    instrument: str, labels: Iterable[Mapping[str, Any]] = (), sessions: Iterable[Mapping[str, Any]] = ()
) -> dict[str, pyarrow.Table]:
    """Name of a table -> a row each of what was told of an instrument (daemon.labels.sessions.Said)."""
    import pyarrow as pa

    kinds = {"text": "path", "whole": "curve", "number": "score", "moment": "time"}
    made = {}
    for (name, columns), told in zip(SAID_COLUMNS.items(), (list(labels), list(sessions)), strict=True):
        cells = {"instrument": pa.array([instrument] * len(told), pa.string())}
        for column, kind in columns.items():
            values = [_said_cell(one.get(column), kind) for one in told]
            cells[column] = pa.array(values, schema().field(kinds[kind]).type)
        made[name] = pa.table(cells)
    return made


def _said_cell(value: Any, kind: str) -> Any:
    if kind == "moment":
        return _moment(value)
    return json.dumps(value) if isinstance(value, dict) else value


__all__ = ["COLUMNS", "RECORDS", "SAID_COLUMNS", "data_of", "event_of", "need", "rows", "said_rows", "schema"]
__all__ += ["DECISIONS", "LABELS", "SESSIONS"]
