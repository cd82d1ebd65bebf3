"""Paths that need no look: the stamp each was settled with, kept by directory so that one listing prunes one entry."""

from __future__ import annotations

from collections.abc import Container, Iterable

from daemon.sources.scan import ODDITIES, Listing, Stamp, join, split

#: The stamp of a name that is never looked at: temporary, unclaimed, half of a pair.
IGNORED: Stamp = (-2, -2)


class Settled:
    """About 250 bytes a file; what is gone from its directory is forgotten at the next listing."""

    def __init__(self) -> None:
        self._directories: dict[str, dict[str, Stamp]] = {}
        self._unread: dict[str, set[str]] = {}  # of these, the files that no reader wanted

    def get(self, path: str) -> Stamp | None:
        """The stamp of ``path``; None when nothing is known of it."""
        directory, name = split(path)
        return self._directories.get(directory, {}).get(name)

    def put(self, path: str, stamp: Stamp) -> None:
        """Remember."""
        directory, name = split(path)
        self._directories.setdefault(directory, {})[name] = stamp

    def pop(self, path: str) -> Stamp | None:
        """Forget; the stamp of a settled file, None where there was none."""
        directory, name = split(path)
        stamp = self._directories.get(directory, {}).pop(name, None)
        self._unread.get(directory, set()).discard(name)
        return None if stamp == IGNORED or stamp in ODDITIES else stamp

    def has(self, directory: str) -> Container[str]:
        """The names that are known in a directory, whatever they are."""
        return self._directories.get(directory, {})

    def mark_unread(self, path: str) -> bool:
        """No reader wanted what is settled at ``path``; False where that is known of an earlier content of it."""
        directory, name = split(path)
        names = self._unread.setdefault(directory, set())
        is_news = name not in names
        names.add(name)
        return is_news

    def paths(self) -> list[str]:
        """Everything a sweep has to stat."""
        inside = ((d, name, stamp) for d, names in self._directories.items() for name, stamp in names.items())
        return [join(directory, name) for directory, name, stamp in inside if stamp != IGNORED]

    def reconcile(self, listing: Listing) -> tuple[list[str], list[str]]:
        """Forget what has left a directory; returns the names that are new in it: (files, odd things)."""
        known = self._directories.setdefault(listing.directory, {})
        for name in known.keys() - listing.files - listing.odd:
            del known[name]
            self._unread.get(listing.directory, set()).discard(name)
        return list(listing.files - known.keys()), list(listing.odd - known.keys())

    def keep_only(self, directories: Iterable[str]) -> None:
        """Forget directories that are gone; ``directories`` are all there are."""
        there = set(directories)
        for directory in [one for one in self._directories if one not in there]:
            del self._directories[directory]
            self._unread.pop(directory, None)
