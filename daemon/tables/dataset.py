"""A dataset: a folder of Parquet files that grows by whole commits, each with a note of what was done.

Whoever reads needs nothing of ours: ``read_parquet('DIR/**/*.parquet')`` in DuckDB, ``pandas.read_parquet('DIR')``.
The first columns a dataset is divided by are the names of its folders (Hive: ``instrument=afm1/day=2026-11-20``).

A commit is on the disk before it counts: its parts are written under names that no reader takes, then its note, then
the parts get their names. What was noted is done, also when the process is killed between the two: whoever opens the
dataset next gives the parts their names. What was not noted has never been.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict
from urllib.parse import quote, unquote

import msgspec

from daemon.common.ending import Closing
from daemon.common.errors import ALREADY_RUNNING, BAD_DATA, INPUT_OUTPUT, UserError
from daemon.common.locks import lock_where_possible
from models.clock import CLOCK
from models.files import UNFINISHED, put_in_place, sync_file, sync_folder, write_whole

if TYPE_CHECKING:
    import pyarrow

NOTES = "_notes"  # readers of folders pass over names that begin so
VERSION = 1
_NULL = "__HIVE_DEFAULT_PARTITION__"
_MOST_NOTES = 256  # before they become one
_MOST_PARTS = 16  # of about the same size in one folder, before they become one
_SMALLEST_BYTES = 1 << 16
_LARGEST_BYTES = 1 << 27  # a part of this size is left as it is
_ROW_GROUP = 1 << 16
_AT_CWD, _EXCHANGE = -100, 2  # of renameat2


class _Part(TypedDict):
    staged: str
    place: str
    rows: int


class _Note(TypedDict):
    number: int
    rows: int
    parts: list[_Part]
    noted: dict[str, Any]
    is_whole: NotRequired[bool]


class Dataset(Closing):
    """One dataset, held by this process alone.

    ``noted``: what the notes of all commits say, key by key, the later ones before the earlier. ``number``: of the last
    commit. ``rows``: in all of them. Raises UserError 73 while another process has it, 65 for a folder that holds
    something else, 74 where it cannot be written.
    """

    def __init__(self, folder: Path, schema: pyarrow.Schema, by: Sequence[str], *, fresh: bool = False) -> None:
        self.folder, self.schema, self.by = folder, schema, tuple(by)
        self.noted: dict[str, Any] = {}
        self.number = self.rows = 0
        self._waiting: list[_Part] = []  # parts of the last commit that may not have their names yet
        self._may_merge = True
        self._damaged: set[str] = set()  # folders with a part that cannot be read: they are not merged
        self._sizes: defaultdict[str, dict[str, int]] = defaultdict(dict)  # folder -> its parts -> bytes
        self._held = _hold(folder)
        try:
            self._begin(fresh)
        except OSError as error:
            os.close(self._held)
            raise self._failure(error) from error
        except BaseException:
            os.close(self._held)
            raise

    def commit(self, table: pyarrow.Table | None, noted: Mapping[str, Any] | None = None) -> None:
        """Add rows, and say what they are the result of: all of it or nothing. UserError 74 where the disk is full.

        ``noted``: JSON values by their keys; they take the place of earlier ones, None takes a key away. After a
        failure nothing was added, and the same may be tried again.
        """
        number, parts = self.number + 1, list[_Part]()
        try:
            self._name_parts()
            for place, piece in self._divided(table):
                staged = self._staging / f"{number:09d}-{len(parts)}"
                parts.append({"staged": staged.name, "place": place, "rows": piece.num_rows})
                write_part(piece, staged)
                (self.folder / place).mkdir(parents=True, exist_ok=True)
            sync_folder(self._staging)
            rows = self.rows + sum(part["rows"] for part in parts)
            note = _Note(number=number, rows=rows, parts=parts, noted=dict(noted or {}))
            self._write_note(note)
        except OSError as error:
            for part in parts:
                (self._staging / part["staged"]).unlink(missing_ok=True)
            raise self._failure(error) from error
        self._take_note(note)
        with suppress(OSError):  # they are noted: the next commit, or whoever opens the dataset next, gives them names
            self._name_parts()
            self._fold_notes()
            for place in {part["place"] for part in parts}:
                self._merge_alike(place)

    def merge(self, before: date) -> int:
        """Make few large parts of the many small ones of days before; how many folders that were.

        A dataset without days is merged whole. On file systems that cannot exchange two folders at once, as network
        shares, all stays as it is: no reader shall ever see a row twice, or miss one.
        """
        merged = 0
        try:
            self._name_parts()
            for place in [place for place in sorted(self._sizes) if _is_before(place, before)]:
                small = [name for name, size in self._sizes[place].items() if size < _LARGEST_BYTES // 2]
                merged += len(small) > 1 and self._replace_by_one(place, small)
        except OSError as error:
            raise self._failure(error) from error
        return merged

    def parts(self) -> Iterator[Path]:
        """The files, as :func:`parts_of`."""
        return parts_of(self.folder)

    def read(self, columns: Sequence[str] | None = None, **where: Any) -> Iterator[pyarrow.Table]:
        """The rows, file by file; ``where``: only of these folders (``day=date(2026, 11, 20)``)."""
        for path in self.parts():
            values = values_of(path.relative_to(self.folder))
            if all(values.get(name) == (None if value is None else str(value)) for name, value in where.items()):
                yield self.read_part(path, columns)

    def replace(self, part: Path, table: pyarrow.Table) -> None:
        """Other rows in the place of a part's, at once. UserError 74."""
        staged = self._staging / "replaced"
        try:
            before = self.read_part(part, []).num_rows
            place = str(part.parent.relative_to(self.folder))
            if table.num_rows:
                write_part(table.drop_columns(list(self.by)), staged)
                put_in_place(staged, part)
                self._sizes[place][part.name] = part.stat().st_size
            else:
                part.unlink()
                sync_folder(part.parent)
                self._sizes[place].pop(part.name, None)
            self.rows += table.num_rows - before
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        os.close(self._held)

    # What is in the folder.

    @property
    def _notes(self) -> Path:
        return self.folder / NOTES

    @property
    def _staging(self) -> Path:
        return self._notes / "staging"

    @property
    def _beside(self) -> Path:
        """Where folders are made that take others' places: no reader of this one looks there."""
        folder = self.folder.resolve()  # which has a name, also where "." was given
        return folder.with_name(f".{folder.name}.merging")

    def _begin(self, fresh: bool) -> None:
        about = {"what": "afm-triage dataset", "version": VERSION, "by": list(self.by)}
        found = read_about(self.folder)
        begun = (self._notes, self._staging, *self._notes.glob(f".*{UNFINISHED}"))  # by one that was killed at once
        if found is None and any(one not in begun for one in self.folder.rglob("*")):
            raise UserError(BAD_DATA, f"{self.folder}: holds something else; name another folder")
        if found is not None and found != about:
            other = f"is a table divided by {found.get('by')}, of version {found.get('version')}"
            raise UserError(BAD_DATA, f"{self.folder}: {other}; name another folder")
        if fresh:
            _empty(self.folder)
        self._staging.mkdir(parents=True, exist_ok=True)
        if found is None or fresh:
            write_whole(self._notes / "about.json", json.dumps(about).encode(), is_synced=True)
        for note in _notes_of(self.folder):
            self._take_note(note)
        self._name_parts()
        _empty(self._staging)
        shutil.rmtree(self._beside, ignore_errors=True)
        for path in self.parts():
            self._sizes[str(path.parent.relative_to(self.folder))][path.name] = path.stat().st_size

    def _take_note(self, note: _Note) -> None:
        self.number, self.rows, self._waiting = note["number"], note["rows"], list(note["parts"])
        self.noted.update(note["noted"])
        for key in [key for key, value in note["noted"].items() if value is None]:
            del self.noted[key]

    def _write_note(self, note: _Note) -> None:
        write_whole(self._notes / f"{note['number']:09d}.json", json.dumps(note).encode(), is_synced=True)
        sync_folder(self._notes)

    def _name_parts(self) -> None:
        """Give the parts of the last commit their names, where they have not got them."""
        for part in self._waiting:
            staged, place = self._staging / part["staged"], self.folder / part["place"]
            if staged.exists():
                place.mkdir(parents=True, exist_ok=True)
                named = place / f"part-{part['staged']}.parquet"
                put_in_place(staged, named)
                self._sizes[part["place"]][named.name] = named.stat().st_size
        self._waiting = []

    def _fold_notes(self) -> None:
        """Many notes become one."""
        if self.number % _MOST_NOTES:
            return
        self._write_note(_Note(number=self.number, rows=self.rows, parts=[], noted=self.noted, is_whole=True))
        for path in _note_files(self.folder)[:-1]:
            path.unlink()

    def _divided(self, table: pyarrow.Table | None) -> Iterator[tuple[str, pyarrow.Table]]:
        """The rows of each folder, in their order, without the columns that its name tells."""
        if table is None or not table.num_rows:
            return
        rows: defaultdict[str, list[int]] = defaultdict(list)
        names = [table.column(name).to_pylist() for name in self.by]
        for number, values in enumerate(zip(*names, strict=True) if names else [()] * table.num_rows):
            told = zip(self.by, values, strict=True)
            rows["/".join(f"{name}={_word(value)}" for name, value in told) or "."].append(number)
        plain = table.drop_columns(list(self.by))
        for place, numbers in rows.items():
            yield place, plain if len(rows) == 1 else plain.take(numbers)

    def read_part(self, path: Path, columns: Sequence[str] | None = None) -> pyarrow.Table:
        """Of one file, in the order of the schema; columns that it lacks are null. UserError 65, 74."""
        import pyarrow as pa
        from pyarrow import parquet

        wanted = self.schema.names if columns is None else columns
        try:
            with _whole(path), parquet.ParquetFile(path) as file:
                there = set(file.schema_arrow.names)
                table = file.read([name for name in wanted if name in there] or file.schema_arrow.names[:1])
        except OSError as error:
            raise self._failure(error) from error
        values = values_of(path.relative_to(self.folder))
        made = []
        for name in wanted:
            kind = self.schema.field(name).type
            if name in self.by:
                one = pa.array([values[name]], pa.string()).cast(kind)[0]
                made.append(pa.repeat(one, table.num_rows))
            else:
                made.append(table.column(name) if name in there else pa.nulls(table.num_rows, kind))
        if not made:
            return table.select([])
        return pa.Table.from_arrays(made, schema=pa.schema([self.schema.field(name) for name in wanted]))

    # Few large parts.

    def _merge_alike(self, place: str) -> None:
        """Where there are many parts of about one size, they become one."""
        alike: defaultdict[int, list[str]] = defaultdict(list)
        for name, size in self._sizes[place].items():
            alike[int(math.log(max(size / _SMALLEST_BYTES, 1), _MOST_PARTS))].append(name)
        for level in sorted(alike):
            names = alike[level]
            total = sum(self._sizes[place][name] for name in names)
            if self._may_merge and len(names) >= _MOST_PARTS and total < 2 * _LARGEST_BYTES:
                self._may_merge = self._replace_by_one(place, names) or place in self._damaged

    def _replace_by_one(self, place: str, names: Sequence[str]) -> bool:
        """Whether these parts of a folder are one now. Where one is damaged all stay, and whoever reads is told."""
        try:
            return self._make_one(place, names)
        except UserError:
            self._damaged.add(place)
            shutil.rmtree(self._beside, ignore_errors=True)
            return False

    def _make_one(self, place: str, names: Sequence[str]) -> bool:
        """The folder is exchanged for one that is made beside it."""
        from pyarrow import parquet

        old, new, names = self.folder / place, self._beside / "folder", sorted(names)
        if place == "." or place in self._damaged:
            return False  # the dataset's own folder is not exchanged
        shutil.rmtree(self._beside, ignore_errors=True)
        try:
            new.mkdir(parents=True)
        except OSError:  # the folder above is not ours to write
            return False
        merged = new / names[-1]
        with _whole(old / names[-1]):
            schema = parquet.read_schema(old / names[-1])
        with parquet.ParquetWriter(merged, schema, compression="zstd") as writer:
            for name in names:
                with _whole(old / name), parquet.ParquetFile(old / name) as file:
                    for batch in file.iter_batches(_ROW_GROUP):
                        writer.write_batch(batch.cast(schema) if batch.schema != schema else batch)
        sync_file(merged)
        for name in self._sizes[place].keys() - set(names):
            os.link(old / name, new / name)
        sync_folder(new)
        is_done = _exchange(new, old)
        if is_done:
            sync_folder(old.parent)
            kept = {name: size for name, size in self._sizes[place].items() if name not in names}
            self._sizes[place] = {**kept, names[-1]: (old / names[-1]).stat().st_size}
        shutil.rmtree(self._beside, ignore_errors=True)
        return is_done

    def _failure(self, error: OSError) -> UserError:
        why = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        text = f"{self.folder}: {why}; what is written holds, the same command goes on from there"
        return UserError(INPUT_OUTPUT, text)


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """UserError 65 where pyarrow finds a file of Parquet damaged; an OSError with a number is of the disk."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise _damaged(path) from error


def write_part(table: pyarrow.Table, path: Path) -> None:
    """One Parquet file, on the disk when this returns. OSError."""
    from pyarrow import parquet

    parquet.write_table(table, path, compression="zstd", row_group_size=_ROW_GROUP)
    sync_file(path)


def read_about(folder: Path) -> dict[str, Any] | None:
    """What a dataset says of itself; None for a folder that is none. UserError 65 for one that is damaged."""
    path = folder / NOTES / "about.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(BAD_DATA, f"{path}: is damaged; name another folder") from error


def noted_in(folder: Path) -> dict[str, Any]:
    """What the notes of a dataset say, for whoever only reads; empty where there is none."""
    noted: dict[str, Any] = {}
    for note in _notes_of(folder):
        noted.update(note["noted"])
    return {key: value for key, value in noted.items() if value is not None}


def parts_of(folder: Path) -> Iterator[Path]:
    """The files of a dataset, in the order of their folders and numbers. A merge may take one away meanwhile."""
    return (path for path in sorted(folder.rglob("*.parquet")) if NOTES not in path.relative_to(folder).parts)


def values_of(path: Path) -> dict[str, str | None]:
    """What the folders' names in a path say: ``instrument=afm1/day=2026-11-20/…`` -> texts, None for null."""
    told = (part.partition("=") for part in path.parts if "=" in part and not part.endswith(".parquet"))
    return {name: None if value == _NULL else unquote(value) for name, _, value in told}


def _word(value: Any) -> str:
    return _NULL if value is None else quote(str(value), safe="")


def _is_before(place: str, day: date) -> bool:
    told = values_of(Path(place)).get("day")
    return told is None or told < str(day)


def _note_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / NOTES).glob("*.json") if path.stem.isdigit())


def _damaged(path: Path) -> UserError:
    return UserError(BAD_DATA, f"{path}: is damaged; put the folder back from a copy, or begin anew")


def _notes_of(folder: Path) -> list[_Note]:
    """The notes that hold, in order. UserError 65 for one that is damaged."""
    notes: list[_Note] = []
    for path in _note_files(folder):
        try:
            note = msgspec.json.decode(path.read_bytes(), type=_Note)
            if note.get("is_whole"):
                notes.clear()
            notes.append(note)
        except FileNotFoundError:  # it became part of a later one
            continue
        except ValueError as error:
            raise _damaged(path) from error
    return notes


def _hold(folder: Path) -> int:
    """The open folder, made if need be, locked for this process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(INPUT_OUTPUT, f"{folder}: {error.strerror}; name a folder that can be written") from error
    try:
        lock_where_possible(held)
    except BlockingIOError as error:
        os.close(held)
        raise UserError(ALREADY_RUNNING, f"{folder}: another run is writing it; wait until it has ended") from error
    return held


def _empty(folder: Path) -> None:
    """All that is in it goes, its notes last: it is a dataset as long as anything is left."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == NOTES):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _exchange(one: Path, other: Path) -> bool:
    """Whether two folders have each other's names now, at once; False where the file system cannot do that."""
    with suppress(AttributeError, OSError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        return bool(rename(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _EXCHANGE) == 0)
    return False


def today() -> date:
    """In UTC, as days are in a table."""
    return datetime.fromtimestamp(CLOCK.wall_s(), UTC).date()


__all__ = ["Dataset", "noted_in", "parts_of", "read_about", "today", "values_of", "write_part"]
