"""Files that are there whole or not at all, whatever dies while they are written.

The unfinished file lies beside its place, under a name that no watched folder takes for a curve.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".tmp"  # how its name ends; a dot begins it, and the process's number makes it this process's own


def write_whole(path: Path, content: bytes, *, is_synced: bool = False) -> None:
    """All of it or nothing, under its name; what is no regular file (a pipe, /dev/stdout) is written into instead.

    ``is_synced``: on the disk before it has its name, so that not even a power failure leaves a part.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    with unfinished(path) as fresh:
        if is_synced:
            write_synced(fresh, content)
        else:
            fresh.write_bytes(content)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Where to write what shall stand at ``path``: it gets its name when the block ends, and goes when it raises."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """What processes left behind there that died while writing; only where nobody can be writing now."""
    for fresh in folder.rglob(f".*{UNFINISHED}"):
        fresh.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """As :func:`remove_unfinished`, at any time: what lies in the folder itself of processes that are no more."""
    for path in folder.glob(".*.*"):
        found = re.fullmatch(rf"\..+\.(\d+)(?:-\d+)?(?:{re.escape(UNFINISHED)}|\.new)", path.name)
        if found is None or Path(f"/proc/{found[1]}").exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Give a damaged file another name beside its own, so that a new one can be begun; that name. OSError."""
    number = 1
    while (other := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(other)
    return other


def write_synced(path: Path, content: bytes) -> None:
    """The content is on the disk when this returns; the name may not be (see :func:`sync_folder`)."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """What somebody else has written is on the disk when this returns."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def append_line(path: Path, line: bytes) -> None:
    """One line more, on the disk when this returns; what a crash left of the last one stays a line of its own."""
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        is_torn = end > 0 and file.read(1) != b"\n"
        file.write(b"\n" * is_torn + line + b"\n")
        file.flush()
        os.fsync(file.fileno())


def copy_synced(source: Path, path: Path) -> None:
    """Its content under another name, on the disk when this returns."""
    write_synced(path, source.read_bytes())


def link_or_copy(source: Path, path: Path) -> None:
    """The same file under a second name; a copy where the file system has no such thing, or does not allow it.

    Only for what is never changed in place: whoever writes into one of them changes both.
    """
    try:
        os.link(source, path)
    except OSError:
        copy_synced(source, path)


def sync_folder(folder: Path) -> None:
    """The names in it are on the disk when this returns."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put_in_place(fresh: Path, path: Path) -> None:
    """Give a file that is on the disk its name; the name is there too when this returns."""
    fresh.replace(path)
    sync_folder(path.parent)


def replace_folder(fresh: Path, folder: Path) -> None:
    """``fresh`` becomes ``folder``. What stood there goes, or stands there again where that fails: OSError."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """First its name, so that nobody takes what is half gone for the whole. OSError where it stays."""
    gone = folder.with_name(f".{folder.name}.{os.getpid()}{UNFINISHED}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
