"""The spool: curves that came over the network, each a file of its own, on disk before anybody is told.

``<folder>/YYYY-MM-DD/<first half of the SHA-256 of the id>.afmcurve``, and in each day's folder a list of the decided
ones. The list may lag behind: a curve offered twice is decided once, by its id.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".afmcurve"
_UNFINISHED = ".tmp"
_DECIDED = "decided.txt"


class Spool:
    """Written by one thread. Raises OSError where the disk does not take a curve."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, str] = {}  # file name without suffix -> day

    def open(self) -> list[Path]:
        """Take stock; returns the files that are not known to be decided, oldest first."""
        self._folder.mkdir(parents=True, exist_ok=True)
        waiting: list[Path] = []
        for day in sorted(entry.name for entry in os.scandir(self._folder) if entry.is_dir()):
            waiting += self._open_day(day)
        return waiting

    def _open_day(self, day: str) -> Iterator[Path]:
        folder = self._folder / day
        decided = folder / _DECIDED
        done = set(decided.read_text("ascii", "replace").split()) if decided.exists() else set()
        found = sorted((entry.stat().st_mtime_ns, entry.name) for entry in os.scandir(folder))
        for _, name in found:
            if name.endswith(_UNFINISHED):  # the sender was never answered, and sends it again
                (folder / name).unlink(missing_ok=True)
            elif name.endswith(SUFFIX):
                stem = name.removesuffix(SUFFIX)
                self._names[stem] = day
                if stem not in done:
                    yield folder / name

    def find(self, identity: str) -> Path | None:
        """The file of this id's curve, decided or not; None for an id that is new."""
        stem = _stem(identity)
        day = self._names.get(stem)
        return None if day is None else self._folder / day / (stem + SUFFIX)

    def write(self, identity: str, content: bytes) -> Path:
        """Put one curve on disk, for good only after ``sync``."""
        day = time.strftime("%Y-%m-%d")
        folder = self._folder / day
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            _sync_folder(self._folder)
        stem = _stem(identity)
        path, unfinished = folder / (stem + SUFFIX), folder / (stem + _UNFINISHED)
        try:
            with open(unfinished, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(unfinished, path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        self._names[stem] = day
        return path

    def forget(self, identity: str) -> None:
        """It may not be on disk after all: take it anew when it is sent again."""
        self._names.pop(_stem(identity), None)

    def sync(self, paths: list[Path]) -> None:
        """Make the names of ``paths`` last."""
        for folder in {path.parent for path in paths}:
            _sync_folder(folder)

    def settle(self, paths: list[Path]) -> None:
        """Remember that these are decided."""
        days: dict[Path, list[str]] = {}
        for path in paths:
            days.setdefault(path.parent, []).append(path.name.removesuffix(SUFFIX))
        for folder, stems in days.items():
            with open(folder / _DECIDED, "a", encoding="ascii") as file:
                file.write("".join(stem + "\n" for stem in stems))


def _stem(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
