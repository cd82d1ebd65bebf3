"""Curve files in folders: for the verbs that read what is there instead of waiting for what comes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from daemon.arrival import Arrival
from daemon.formats.asylum import companion_name
from daemon.formats.names import claim


class Found:
    """The arrivals of some files and folders, in sorted order.

    After an iteration ``skipped`` counts the files that are no curves by name, and ``unlisted`` names the folders that
    could not be looked into.
    """

    def __init__(self, paths: Iterable[Path | str], source: str = "score") -> None:
        self._paths = [Path(path) for path in paths]
        self._source = source
        self.skipped, self.unlisted = 0, list[Path]()

    def __iter__(self) -> Iterator[Arrival]:
        self.skipped, self.unlisted = 0, []
        for path in self._paths:
            if path.is_dir():
                for file in self._files(path):
                    yield from self._arrival(file, file.relative_to(path).as_posix())
            else:
                yield from self._arrival(path, str(path), is_asked_for=True)

    def _files(self, folder: Path) -> Iterator[Path]:
        """All files below a folder, in the order of their paths; hidden folders and links are passed over."""
        try:
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            self.unlisted.append(folder)
            return
        for entry in ordered:
            if not entry.is_dir():
                yield Path(entry.path)
            elif not entry.name.startswith(".") and not entry.is_symlink():
                yield from self._files(Path(entry.path))

    def _arrival(self, file: Path, shown: str, *, is_asked_for: bool = False) -> Iterator[Arrival]:
        claimed = claim(file.name)
        if claimed is False and not is_asked_for:
            self.skipped += 1
            return
        partner = companion_name(file.name)
        companion = file.with_name(partner) if partner else None
        try:
            stat = file.stat()
            size_bytes, mtime_ns = stat.st_size, stat.st_mtime_ns
        except OSError:
            size_bytes = mtime_ns = 0  # the reader says what is wrong with it
        yield Arrival(
            source=self._source,
            path=shown,
            file=file,
            companion=companion if companion and companion.exists() else None,
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            noticed_s=time.monotonic(),
            claimed=claimed is True,
            final=True,
        )


def find(paths: Iterable[Path | str], source: str = "score") -> Found:
    """Every file under ``paths`` that is a curve file, or may be one: paths relative to the folder they were found in.

    Halves of Asylum pairs are joined. Iterate over the result; then its ``skipped`` says how many were passed over.
    """
    return Found(paths, source)
