"""What a format is to the rest: the names of its files, a reader that knows them, and an opened file of curves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Protocol

from daemon.formats.blob import Blob
from models.curve import Curve


@dataclass(frozen=True, slots=True)
class Pair:
    """One recording in two files, told by the endings of their names; everything hangs on the first.

    What copies such files may change the case of a name, and not of both halves alike. So any mix of case makes a half,
    and what stands before must be the same.
    """

    first: str  # the half that is read, together with
    second: str  # the one that is no curve by itself

    def is_first(self, name: str) -> bool:
        return name.lower().endswith(self.first.lower())

    def is_second(self, name: str) -> bool:
        return name.lower().endswith(self.second.lower())

    def other_names(self, name: str) -> Iterator[str]:
        """Every name that the other half of this one may have, the usual one first; none for what is no half."""
        own = self.first if self.is_first(name) else self.second if self.is_second(name) else ""
        if own:
            other = self.second if own == self.first else self.first
            stem, ending = name[: -len(own)], name[-len(own) :]
            yield from (stem + spelled for spelled in _spellings(other, ending))


@lru_cache(maxsize=512)  # there are 2^7 spellings of Asylum's first half and 2^8 of its second
def _spellings(other: str, ending: str) -> tuple[str, ...]:
    """``other`` as its program writes it, or all in the case of ``ending``; then every other mix."""
    alike = other.lower() if ending.islower() else other.upper() if ending.isupper() else other
    mixes = ("".join(letters) for letters in product(*({letter.lower(), letter.upper()} for letter in other)))
    return tuple(dict.fromkeys((alike, other, other.lower(), other.upper(), *sorted(mixes))))


@dataclass(frozen=True, slots=True)
class Format:
    """What is told of a format, once: whatever watches, walks or counts files asks for it here.

    Suffixes are in lower case; an ``N`` in one is any digit.
    """

    name: str  # in events and metrics
    instrument: str = ""  # the row of README's table: who writes such files,
    files: str = ""  # and which of them are read
    suffixes: tuple[str, ...] = ()  # nobody else's: such a file is counted as a curve before it is opened
    shared_suffixes: tuple[str, ...] = ()  # of curves, and of images or anything else: the first bytes must tell
    image_suffixes: tuple[str, ...] = ()  # of images as a rule: looked into, but an empty file is no curve to come
    unread_suffixes: tuple[str, ...] = ()  # other formats of the same maker, never opened
    map_suffixes: tuple[str, ...] = ()  # of the above those of many curves, written over minutes
    pair: Pair | None = None
    quiet_s: float = 0.0  # how long a file must rest before it is worth opening; 0 where it shows its own end

    def is_named(self, name: str) -> bool:
        """Whether a file of this name may be of the format, by its suffix."""
        return any_of(self.suffixes + self.shared_suffixes + self.image_suffixes).search(name) is not None

    def is_image(self, name: str) -> bool:
        return any_of(self.image_suffixes).search(name) is not None


@lru_cache(maxsize=256)
def any_of(suffixes: tuple[str, ...]) -> re.Pattern[str]:
    """What is found at the end of a name that has one of these suffixes, in any case."""
    choices = "|".join(re.escape(suffix).replace("N", r"\d") for suffix in suffixes)
    return re.compile(rf"(?:{choices})$" if suffixes else r"(?!)", re.IGNORECASE)


class CurveFile(Protocol):
    """An opened file: curves by number, in stored order, each parsed only when asked for."""

    def __len__(self) -> int:
        """How many retracts the file holds."""

    def curve(self, index: int) -> Curve:
        """One retract; raises ``Unreadable`` or ``Unfinished`` for this curve alone."""


class Reader(Protocol):
    """Reads one format, which it declares."""

    format: Format

    def claims(self, name: str, head: bytes) -> bool:
        """Whether a file of this name that begins with ``head`` is this format's, whole or not."""

    def open(self, blob: Blob, name: str, companion: Blob | None) -> CurveFile:
        """Raises ``Unfinished`` (not whole yet), ``Unreadable`` (never will be) or ``NotACurve`` (nobody's curve)."""
