"""The engine cache: compiled engines, built on this machine by this user, kept until something they depend on changes.

Loading an engine is running code, so nothing is taken from elsewhere: the folder is this user's alone, every entry and
file in it too, and each file's SHA-256 stands beside it, which also finds a write that a power failure cut short.

One entry is one folder, named by the digest of its key: the files that the maker wrote, and ``entry.json`` with the key
in words and the digests. It appears by one rename, whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from models.files import replace_folder

KEPT = 6  # entries, the last used: an engine or two for each of the last models
ENTRY = "entry.json"
_STALE_S = 3600.0  # an unfinished entry of a process that died

Key = Mapping[str, str]
Writer = Callable[[Path], None]  # puts its files into the folder that it is given


class UnsafeCache(Exception):
    """Others could have put an engine there; the text says what to do."""


class EngineCache:
    """Engines by key, under one private folder. OSError where the disk refuses; UnsafeCache where the folder does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(folder)
        folder.chmod(0o700)

    def get(self, key: Key) -> Path | None:
        """The folder of the entry for exactly this key; None when there is none. One that is damaged is removed."""
        folder = self._place(key)
        if not os.path.lexists(folder):
            return None
        if folder.lstat().st_uid != os.geteuid():  # not ours to remove, and never to be used
            raise UnsafeCache(f"{folder} belongs to another user; remove it")
        if not _is_whole(folder, key):
            self.drop(key)
            return None
        os.utime(folder)
        return folder

    def put(self, key: Key, writer: Writer) -> Path:
        """The folder of a new entry with what ``writer`` writes; an entry of the same key is replaced."""
        fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))  # mode 0700
        try:
            writer(fresh)
            digests = {path.name: _sync_and_digest(path) for path in sorted(fresh.iterdir())}
            entry = fresh / ENTRY
            entry.write_text(json.dumps({"key": dict(key), "sha256": digests}, indent=1, sort_keys=True) + "\n")
            _sync_and_digest(entry)
            self.drop(key)
            replace_folder(fresh, self._place(key))
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        self._prune()
        return self._place(key)

    def drop(self, key: Key) -> None:
        """Forget the entry for this key: it could not be loaded after all."""
        folder = self._place(key)
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _place(self, key: Key) -> Path:
        return self._folder / hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]

    def _prune(self) -> None:
        """All but the last used entries go, and what processes left behind that died while writing."""
        found = [(path.stat().st_mtime, path) for path in self._folder.iterdir() if path.is_dir()]
        entries = sorted((item for item in found if not item[1].name.startswith(".")), reverse=True)
        stale = [item for item in found if item[1].name.startswith(".new-") and time.time() - item[0] > _STALE_S]
        for _, path in entries[KEPT:] + stale:
            shutil.rmtree(path, ignore_errors=True)


def _check(folder: Path) -> None:
    """UnsafeCache unless the folder is a folder, this user's, and nobody else's to write in."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeCache(f"{folder} is no folder; move it away, compiled engines are kept there")
    if found.st_uid != os.geteuid():
        raise UnsafeCache(f"{folder} belongs to another user; compiled engines are loaded from one's own folder alone")
    if found.st_mode & 0o022:
        raise UnsafeCache(f"{folder} can be written by others; remove what is in it, then: chmod 700 {folder}")


def _is_whole(folder: Path, key: Key) -> bool:
    """Whether every file is ours, is named in entry.json with its digest, and the key is the one asked for."""
    try:
        _check(folder)
        files = {path.name: path for path in folder.iterdir()}
        if any(not _is_own_file(path) for path in files.values()):
            return False
        entry = json.loads(files.pop(ENTRY).read_bytes())
        digests = {name: _digest(path) for name, path in files.items()}
        return bool(entry == {"key": dict(key), "sha256": digests})
    except (OSError, ValueError, KeyError, RecursionError, UnsafeCache):
        return False


def _is_own_file(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _sync_and_digest(path: Path) -> str:
    """The digest of a file that now lies on the disk and is this user's alone."""
    path.chmod(0o600)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
