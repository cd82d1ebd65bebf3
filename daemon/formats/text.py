"""Curves as text: which dialect a file is, and the numbers in it.

Text does not show its own end, so a file must rest, must end in a newline and must have the rows its header promises.
What nobody can make numbers of (a note, a log, a list of labels) is nobody's.
"""

from __future__ import annotations

import re

from daemon.formats import afmformats_table, limits, shape, text_bare, text_jpk, text_named
from daemon.formats.base import CurveFile
from daemon.formats.blob import Blob
from daemon.formats.numbers import decode, is_numeric
from daemon.reading import Unfinished, Unreadable
from models.curve import Curve

_MOST_BYTES = 64 * limits.MIB
_OF_NUMBERS = re.compile(rb"[0-9.,+\-eE\s\x00]")
_NOT_OURS = re.compile(r"^\s*[{<\[]|^#!|^(?:path|file)[,;\t]curve", re.IGNORECASE)
_LINES_LOOKED_AT = 400


class TextReader:
    name = "text"
    quiet_s = 2.0

    def claims(self, name: str, head: bytes) -> bool:
        text = decode(head)
        if _dialect(text) is not text_bare:
            return True
        lines = [line for line in text.splitlines() if line.strip()][:_LINES_LOOKED_AT]
        if len(head) >= limits.HEAD_BYTES:
            lines = lines[:-1]  # cut in the middle
        numeric = sum(map(is_numeric, lines))
        # Damaged numbers are still somebody's curve: they are claimed, and found unreadable.
        is_mostly_numbers = 2 * numeric >= len(lines) or 5 * len(_OF_NUMBERS.findall(head)) >= 4 * len(head)
        return numeric >= 2 and is_mostly_numbers and not _NOT_OURS.match(text)

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> CurveFile:
        if blob.size_bytes > _MOST_BYTES:
            raise Unreadable("too_large")
        content = blob.whole()
        if not content.endswith((b"\n", b"\r")):
            raise Unfinished("truncated")
        text = decode(content)
        return ReadCurves(_dialect(text).read(text))


class ReadCurves:
    """Curves that had to be read together."""

    def __init__(self, curves: list[Curve]) -> None:
        if not curves:
            raise Unreadable("no_retract")
        self._curves = curves

    def __len__(self) -> int:
        return len(self._curves)

    def curve(self, index: int) -> Curve:
        shape.check_written(self._curves[index].force)
        return self._curves[index]


def _dialect(text: str) -> text_bare.Dialect:
    """The module that reads this text, told by its first lines; by more than one mark, for one may be damaged."""
    start = text[:4096].lstrip("\ufeff \r\n")
    if start.startswith("# TEXT EXPORT") or "\n# segmentIndex:" in text[: limits.HEAD_BYTES]:
        return text_jpk
    if start.startswith("# afmformats") or "\n# END METADATA" in start:
        return afmformats_table
    if text_named.is_named(start) or '"\\*Ciao force image list"' in text[: limits.HEAD_BYTES]:
        return text_named
    return text_bare
