"""What a file's name alone says: a curve, half a curve, a sentinel, or nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["file", "companion", "sentinel", "temporary", "unclaimed"]

#: Copying programs and editors write under these names and rename when done.
_TEMPORARY_PREFIXES = (".", "~")
_TEMPORARY_SUFFIXES = (
    "~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".swp", ".swx", ".lock"
)  # fmt: skip
_SENTINEL = ".done"
#: Asylum saves one curve as two waves; everything hangs on the first.
_HALVES = (("Defl.ibw", "ZSnsr.ibw"), ("defl.ibw", "zsnsr.ibw"), ("DEFL.IBW", "ZSNSR.IBW"))
#: One of these holds hundreds of curves and may take minutes to write.
_MAPS = (".jpk-force-map", ".jpk-qi-data", ".jpk-qi-series")


@dataclass(frozen=True, slots=True)
class Naming:
    """The readers' word on names: ``claim(name)`` True, False (never ours) or None (look inside); ``quiet_s(name)``."""

    claim: Callable[[str], bool | None]
    quiet_s: Callable[[str], float]

    def kind(self, name: str) -> Kind:
        """What to do with a file of this name."""
        if is_temporary(name):
            return "temporary"
        if main_half(name) is not None:
            return "companion"
        if sentinel_target(name) is not None:
            return "sentinel"
        return "unclaimed" if self.claim(name) is False else "file"


def is_temporary(name: str) -> bool:
    """A name under which something else is still writing."""
    return name.startswith(_TEMPORARY_PREFIXES) or name.lower().endswith(_TEMPORARY_SUFFIXES)


def companion_of(name: str) -> str | None:
    """``XDefl.ibw`` -> ``XZSnsr.ibw``; None for any other name."""
    return next((name[: -len(main)] + other for main, other in _HALVES if name.endswith(main)), None)


def main_half(name: str) -> str | None:
    """``XZSnsr.ibw`` -> ``XDefl.ibw``; None for any other name."""
    return next((name[: -len(other)] + main for main, other in _HALVES if name.endswith(other)), None)


def sentinel_target(name: str) -> str | None:
    """``X.done`` -> ``X``, the file it declares finished; None for any other name."""
    return name[: -len(_SENTINEL)] if name.endswith(_SENTINEL) and len(name) > len(_SENTINEL) else None


def is_map(name: str) -> bool:
    """A file of many curves by its suffix: written over minutes."""
    return name.lower().endswith(_MAPS)


def event_path(path: str) -> str:
    """A relative path as events carry it: always valid UTF-8, whatever bytes the name is made of."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
