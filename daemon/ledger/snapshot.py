"""The snapshot: what of a state cannot be made again, as a folder that is a state itself.

Ledger, labels, the guard's logbook and the laboratory's models, taken beside the running service. It is written under
another name, read through, and gets its name last: so what has the name of a snapshot is whole, and was sound when it
was taken. To restore one is to move the state away and to copy the snapshot to its place. A service that starts there
begins a new stream, since decisions after the snapshot may have been announced.

Not in it: engines, which are built again, reports, and curves that came over ZeroMQ (their folder is copied as it is).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import pwd
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from daemon import __version__
from daemon.common.errors import ALREADY_RUNNING, INPUT_OUTPUT, UNREACHABLE, UserError
from daemon.common.locks import lock_where_possible
from daemon.common.mounts import planned_mount
from daemon.common.sqlite_file import connect_to_read, ensure_file, is_damaged, trouble
from daemon.common.text import clean, size
from daemon.config.origin import LEDGER_FILE
from daemon.ledger.care import look_through
from daemon.ledger.file import VERSIONS
from daemon.ledger.space import LABELS, free_bytes
from models.clock import rfc3339, stamp
from models.files import (
    copy_synced,
    remove_abandoned,
    remove_folder,
    replace_folder,
    sync_file,
    sync_folder,
    write_synced,
)

#: Where snapshots lie when no other place is given, in the state folder.
HOME = "snapshots"
MANIFEST = "snapshot.json"
#: Of a snapshot's name: when it was taken, UTC. In order they are the oldest first.
_LIKE = "????-??-??T??????Z"
#: Databases, those that name decisions of the ledger before the ledger itself.
_DATABASES = ("guard.sqlite", LABELS, LEDGER_FILE)
_MODELS, _ALSO = "models", ("served-models.jsonl",)
#: Files from this size on are never changed in place: weights.
_LARGE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


class Content(Struct, frozen=True):
    """One file."""

    bytes: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What a snapshot holds, and of what."""

    format: Literal[1] = 1
    instrument: str
    taken: str  # UTC, RFC 3339
    version: str  # of the program
    stream: str
    last_seq: int
    files: dict[str, Content]  # by their path in the folder

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.files.values())


class Damaged(Exception):
    """A snapshot that cannot be restored; the text says why."""


class Newer(Damaged):
    """By this program; the one that took it can."""


def home_of(state: Path, to: Path | None, instrument: str) -> Path:
    """The folder of an instrument's snapshots: in its state, or in a folder that several may share."""
    return state / HOME if to is None else to / instrument


def known(home: Path) -> list[Path]:
    """Every snapshot there that is whole, the oldest first."""
    return sorted(one for one in home.glob(_LIKE) if (one / MANIFEST).is_file())


def newest_s(home: Path) -> float:
    """When the last one was taken, since 1970; NaN where there is none. It is not looked into."""
    names = [one.name for one in known(home)]
    return datetime.strptime(f"{names[-1]}+0000", "%Y-%m-%dT%H%M%SZ%z").timestamp() if names else math.nan


def take(state: Path, home: Path, instrument: str, *, keep: int, wall_s: float) -> tuple[Path, Manifest]:
    """Take one, whole or not at all; of those before the newest stay, ``keep`` in all.

    Raises UserError: 69 without a ledger, 73 while another one is taken, 74 for a disk that has no room or a damaged
    ledger. What was there is untouched then.
    """
    if not (ledger := state / LEDGER_FILE).is_file():
        raise UserError(UNREACHABLE, f"no ledger at {ledger}: start the service, or name the right --state")
    try:
        with _held(home):
            remove_abandoned(home)
            _see_to_room(state, home)
            while (folder := home / stamp(wall_s)).exists():
                wall_s += 1.0  # two in one second
            fresh = home / f".{folder.name}.{os.getpid()}.tmp"
            fresh.mkdir()
            try:
                manifest = _fill(fresh, state, instrument, wall_s, known(home))
                replace_folder(fresh, folder)
                sync_folder(home)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
            # The one just taken stays; a later name than its own is of a clock that went wrong, and goes first.
            others = sorted(set(known(home)) - {folder}, key=lambda one: (one.name < folder.name, one.name))
            for old in others[: len(others) + 1 - keep]:
                remove_folder(old)
            return folder, manifest
    except OSError as error:
        why = f"{home}: {error.strerror or error}"
        raise UserError(INPUT_OUTPUT, f"no snapshot was taken, {why}; {_way_out(error, home, instrument)}") from error


def _way_out(error: OSError, home: Path, instrument: str) -> str:
    """What to do about it, by what the system says."""
    place, other = home if home.is_dir() else home.parent, "or name another place (--to, snapshot_to in [space])"
    if error.errno == errno.EROFS:
        unit = f"sudo systemctl edit afm-triage-snapshot@{instrument}: [Service] and ReadWritePaths={place}"
        return f"mount it writable; if only the nightly one meets this, open the place to it ({unit}), {other}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"let the user {_user()} write there (sudo chown {_user()} {place}), {other}"
    if error.errno == errno.ENOENT:
        return f"make the folder {place}, {other}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"make room there, {other}"
    return f"see to that disk or share, {other}"


def _user() -> str:
    """Who we are; a number where the system knows no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def verify(folder: Path) -> Manifest:
    """That of a snapshot all of which is there, as it was written. Raises Damaged."""
    try:
        manifest = _manifest_of(folder)
        for name, expected in manifest.files.items():
            found = folder / name
            if not found.resolve().is_relative_to(folder.resolve()):
                raise Damaged(f"names {name}, which lies outside of it")
            if found.exists() and not found.is_file():
                raise Damaged(f"{name} is no regular file")
            if found.stat().st_size != expected.bytes:
                raise Damaged(f"{name} has {found.stat().st_size:,} bytes instead of {expected.bytes:,}: it is cut off")
            if _sha256(found) != expected.sha256:
                raise Damaged(f"{name} is not as it was written")
        if LEDGER_FILE not in manifest.files:
            raise Damaged(f"holds no {LEDGER_FILE}")
        return manifest
    except OSError as error:
        raise Damaged(f"{Path(error.filename or folder).name}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError) as error:  # ValueError: no text, or a name that no file can have
        raise Damaged(f"{MANIFEST} is none: {error}") from error


class _Format(Struct):
    format: int
    version: str = "?"


def _manifest_of(folder: Path) -> Manifest:
    """OSError, msgspec.MsgspecError, ValueError; Newer."""
    content = (folder / MANIFEST).read_bytes()
    if (found := msgspec.json.decode(content, type=_Format)).format > 1:
        raise Newer(f"taken by a newer afm-triage ({clean(found.version)}), which can read it")
    return msgspec.json.decode(content, type=Manifest)


def newest_whole(home: Path) -> Path | None:
    """The last one that verifies."""
    for folder in reversed(known(home)):
        with contextlib.suppress(Damaged):
            verify(folder)
            return folder
    return None


@contextlib.contextmanager
def _held(home: Path) -> Iterator[None]:
    """The folder of snapshots, made where its own folder is there; one process at a time. OSError, UserError."""
    if (point := planned_mount(home)) is not None:
        raise UserError(
            INPUT_OUTPUT, f"nothing is mounted at {point}, where the snapshots lie: mount it (mount {point})"
        )
    home.mkdir(exist_ok=True)
    held = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            lock_where_possible(held)
        except BlockingIOError:
            raise UserError(ALREADY_RUNNING, f"another snapshot is being taken into {home}: wait for it") from None
        yield
    finally:
        os.close(held)


def _see_to_room(state: Path, home: Path) -> None:
    """Before anything is written: a disk that is full stops the service too."""
    files = (state / f"{name}{of}" for name in _DATABASES for of in ("", "-wal"))
    needed = sum(file.stat().st_size for file in files if file.exists())
    free = free_bytes(home)
    if needed * 1.1 > free:
        raise UserError(
            INPUT_OUTPUT,
            f"no snapshot was taken: {home} has {size(free)} free, and it takes {size(needed)}; make room there, keep "
            "fewer of them (--keep), or name another place (--to)",
        )


def _fill(fresh: Path, state: Path, instrument: str, wall_s: float, before: list[Path]) -> Manifest:
    for source in _small_and_models(state):
        name = source.relative_to(state)
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        _copy(source, fresh / name, before[-1] / name if before else None)
    for database in _DATABASES:
        if (state / database).is_file() and (state / database).stat().st_size:
            _copy_database(state / database, fresh / database)
    stream, last_seq = _stream_of(fresh / LEDGER_FILE)
    # As if one more had been announced: whoever goes on from here begins another stream (daemon.ledger).
    write_synced(fresh / f"{LEDGER_FILE}-announced", f"{stream} {last_seq + 1:020d}\n".encode())
    paths = sorted(one for one in fresh.rglob("*") if one.is_file())
    files = {str(one.relative_to(fresh)): Content(one.stat().st_size, _sha256(one)) for one in paths}
    manifest = Manifest(
        instrument=instrument,
        taken=rfc3339(wall_s, "seconds"),
        version=__version__,
        stream=stream,
        last_seq=last_seq,
        files=files,
    )
    write_synced(fresh / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")
    for folder in {one.parent for one in paths} | {fresh}:
        sync_folder(folder)
    return manifest


def _small_and_models(state: Path) -> Iterator[Path]:
    """Files that are there whole or not at all; what is being written now has the name of something unfinished."""
    yield from (state / name for name in _ALSO if (state / name).is_file())
    for folder, inner, names in os.walk(state / _MODELS):
        inner[:] = [one for one in inner if not one.endswith((".tmp", ".new", ".old"))]
        yield from (Path(folder, one) for one in names if not one.endswith((".tmp", ".new")))


def _copy(source: Path, path: Path, before: Path | None) -> None:
    """Large files never change: the same one as in the snapshot before, or in the state, where one disk holds both."""
    with contextlib.suppress(OSError):
        if source.stat().st_size >= _LARGE_BYTES:
            is_same = before is not None and before.exists() and before.stat().st_size == source.stat().st_size
            if is_same and before is not None and _sha256(before) == _sha256(source):
                os.link(before, path)
            else:
                os.link(source, path)
            return
    if source.is_file():
        copy_synced(source, path)


def _copy_database(source: Path, path: Path) -> None:
    """As it is at one moment, beside whoever writes it, and without a ``-wal``. Raises UserError 74.

    In one step: the reader's mark keeps the pages as they were, and no writer waits for it, nor begins it anew.
    """
    try:
        check = VERSIONS.of if source.name == LEDGER_FILE else lambda database, path: None
        # Nobody else knows of the new file: it needs no locks, which some shares do not have, and is synced at the end.
        copy = sqlite3.connect(f"{ensure_file(path).absolute().as_uri()}?nolock=1", uri=True, isolation_level=None)
        with contextlib.closing(connect_to_read(source, check)) as database, contextlib.closing(copy):
            copy.execute("pragma synchronous = off")
            database.backup(copy)
    except sqlite3.DatabaseError as error:
        why = "is damaged" if is_damaged(error) else trouble(error, path)
        raise UserError(INPUT_OUTPUT, f"no snapshot was taken of {source}: {why} ({error})") from error
    with path.open("r+b") as file:  # it has no -wal, so that it can be read where nothing may be written
        os.pwrite(file.fileno(), b"\1\1", 18)  # the two versions of sqlite.org/fileformat.html, 1.3.3: 2 is WAL
    sync_file(path)
    word, finding = look_at(path)
    if word != "sound":
        why = f"{source} is {word} ({finding})"
        raise UserError(INPUT_OUTPUT, f"no snapshot was taken, as {why}: `afm-triage ledger verify` says what to do")


def look_at(database: Path) -> tuple[str, str]:
    """One word, and what was found: sound, damaged, altered (a decision is not as it was written), or unknown."""
    try:
        if database.name == LEDGER_FILE:
            word, _, finding = look_through(database).partition(" ")
            return word, finding or "every decision was read"
        with contextlib.closing(connect_to_read(database, lambda opened, path: None)) as opened:
            (found,) = opened.execute("pragma quick_check(1)").fetchone()
        return ("sound", "its tables were read") if found == "ok" else ("damaged", str(found))
    except (sqlite3.Error, OSError) as error:
        is_bad = isinstance(error, sqlite3.Error) and is_damaged(error)
        return "damaged" if is_bad else "unknown", str(error)


def _stream_of(ledger: Path) -> tuple[str, int]:
    """Stream and last decision."""
    with contextlib.closing(connect_to_read(ledger, VERSIONS.of)) as database:
        (stream,) = database.execute("select stream from ledger").fetchone()
        (last_seq,) = database.execute("select coalesce(max(seq), 0) from decisions").fetchone()
    return str(stream), int(last_seq)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(_CHUNK_BYTES))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
