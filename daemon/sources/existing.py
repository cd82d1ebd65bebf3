"""Curve files in folders: for the verbs that read what is there instead of waiting for what comes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from daemon.formats import NAMES
from daemon.formats.names import event_path
from daemon.sources import Arrival, Ignored


class Found:
    """The arrivals of some files and folders, in sorted order.

    After an iteration ``ignored`` counts what was passed over unopened, ``link`` is the first link to a folder among
    it, and ``unlisted`` names the folders that could not be looked into.
    """

    def __init__(self, paths: Iterable[Path | str], source: str = "score") -> None:
        self._paths = [Path(path) for path in paths]
        self._source = source
        self._begin()

    def _begin(self) -> None:
        self.ignored, self.unlisted = Ignored(), list[Path]()
        self.link: Path | None = None

    def __iter__(self) -> Iterator[Arrival]:
        self._begin()
        for path in self._paths:
            if path.is_dir():
                for file, other in self._files(path):
                    yield self._arrival(file, file.relative_to(path).as_posix(), other, os.path.abspath(path))
            else:
                other = NAMES.find_other(path) if NAMES.is_first_half(path.name) else None
                yield self._arrival(path, str(path), other)

    def _files(self, folder: Path) -> Iterator[tuple[Path, Path | None]]:
        """All files below a folder that may be curves, in the order of their paths, each with its other half.

        Hidden folders are passed over, and links to folders, which could lead round in circles.
        """
        try:
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            self.unlisted.append(folder)
            return
        names = frozenset(entry.name for entry in ordered if entry.is_file())
        for entry in ordered:
            path = Path(entry.path)
            if not entry.is_dir():
                reason = self._why_ignored(entry)
                if reason is None:
                    other = NAMES.pick_other(entry.name, names) if NAMES.is_first_half(entry.name) else None
                    yield path, None if other is None else path.with_name(other)
                else:
                    self.ignored.note(reason, entry.name)
            elif entry.is_symlink():
                self.ignored.note("link")
                self.link = self.link or path
            elif not entry.name.startswith("."):
                yield from self._files(path)

    def _why_ignored(self, entry: os.DirEntry[str]) -> str | None:
        if (reason := NAMES.why_ignored(entry.name)) is not None:
            return reason
        return None if entry.is_file() or entry.is_symlink() else "not_regular"

    def _arrival(self, file: Path, shown: str, companion: Path | None, folder: str | None = None) -> Arrival:
        try:
            stat = file.stat()
            size_bytes, mtime_ns = stat.st_size, stat.st_mtime_ns
        except OSError:
            size_bytes = mtime_ns = 0  # the reader says what is wrong with it
        return Arrival(
            source=self._source,
            path=event_path(shown),
            file=file,
            companion=companion,
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            folder=folder,
            noticed_s=time.monotonic(),
            claimed=NAMES.claim(file.name) is True,
            final=True,
        )


def find(paths: Iterable[Path | str], source: str = "score") -> Found:
    """Every file under ``paths`` that is a curve file, or may be one: paths relative to the folder they were found in.

    Halves of Asylum pairs are joined. Iterate over the result; then its ``ignored`` says what was passed over.
    """
    return Found(paths, source)
