"""What a file's name alone says: a curve, half a curve, a sentinel, or nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from daemon.formats.pair import is_second_half

#: Copying programs and editors write under these names and rename when done.
_TEMPORARY_PREFIXES = (".", "~")
_TEMPORARY_SUFFIXES = (
    "~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".swp", ".swx", ".lock"
)  # fmt: skip
_SENTINEL = ".done"
#: One of these holds hundreds of curves and may take minutes to write.
_MAPS = (".jpk-force-map", ".jpk-qi-data", ".jpk-qi-series")


@dataclass(frozen=True, slots=True)
class Naming:
    """The readers' word on names: ``claim(name)`` True, False (never ours) or None (look inside); ``quiet_s(name)``.

    ``why(name)``: for what is never ours, one of the reasons of ``daemon.ignored``.
    """

    claim: Callable[[str], bool | None]
    quiet_s: Callable[[str], float]
    why: Callable[[str], str] = lambda name: "unclaimed"

    def passes_over(self, name: str) -> str | None:
        """Why a file of this name is not looked at; None for one that may be a curve."""
        if is_temporary(name):
            return "temporary"
        if is_second_half(name):
            return "companion"
        if sentinel_target(name) is not None:
            return "sentinel"
        return self.why(name) if self.claim(name) is False else None


def is_temporary(name: str) -> bool:
    """A name under which something else is still writing."""
    return name.startswith(_TEMPORARY_PREFIXES) or name.lower().endswith(_TEMPORARY_SUFFIXES)


def sentinel_target(name: str) -> str | None:
    """``X.done`` -> ``X``, the file it declares finished; None for any other name."""
    return name[: -len(_SENTINEL)] if name.endswith(_SENTINEL) and len(name) > len(_SENTINEL) else None


def is_map(name: str) -> bool:
    """A file of many curves by its suffix: written over minutes."""
    return name.lower().endswith(_MAPS)


def event_path(path: str) -> str:
    """A relative path as events carry it: always valid UTF-8, whatever bytes the name is made of."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
