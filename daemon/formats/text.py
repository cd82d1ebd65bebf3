"""Curves as text: which dialect a file is, and the numbers in it.

Text does not show its own end, so a file must rest and must have the rows its header promises. Without a line end after
its last row it must rest longer; that row is not used, and where it is shorter than the others the file was broken off.
What nobody can make numbers of (a note, a log, a list of labels) is nobody's.
"""

from __future__ import annotations

import re

from daemon.formats import afmformats_table, limits, shape, text_bare, text_jpk, text_named
from daemon.formats.base import CurveFile
from daemon.formats.blob import Blob
from daemon.formats.numbers import decode, is_numeric
from daemon.reading import UNENDED, Unfinished, Unreadable
from models.curve import Curve

_MOST_BYTES = 64 * limits.MIB
_OF_NUMBERS = re.compile(rb"[0-9.,+\-eE\s\x00]")
_NOT_OURS = re.compile(r"^\s*[{<\[]|^#!|^(?:path|file)[,;\t]curve", re.IGNORECASE)
_LINES_LOOKED_AT = 400
_TAIL_CHARACTERS, _ROWS_LOOKED_AT = 65536, 100
_WORDS, _OF_A_ROW = re.compile(r"[^\s;,]+"), re.compile(r"[0-9.,;+\-\seEnNaAiIfF]*")
_NEVER_WRITTEN = bytes(4)  # UTF-16 has a zero beside each digit, and never two
_LINE_ENDS = (b"\n", b"\r", b"\n\x00", b"\r\x00")  # the last two in UTF-16


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
        text = decode(content)
        if content.endswith(_LINE_ENDS):
            return ReadCurves(_dialect(text).read(text))
        if content.endswith(_NEVER_WRITTEN):
            raise Unfinished("zero_tail")
        if _is_cut(text):
            raise Unfinished("truncated")
        if not blob.is_final:
            raise Unfinished(UNENDED)
        return ReadCurves(_read_unended(text))


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


def _is_cut(text: str) -> bool:
    """Whether the last row shows that more was to come: fewer numbers than the rows before it, or a shorter last one.

    Of a file that was broken off the end of the curve is missing, so it is not enough to leave the row out.
    """
    *before, last = text[-_TAIL_CHARACTERS:].splitlines()
    rows = [_WORDS.findall(line) for line in before[1:] if is_numeric(line)][-_ROWS_LOOKED_AT:]
    if not rows or not _OF_A_ROW.fullmatch(last):  # a footer, after the last row
        return False
    words = _WORDS.findall(last)
    return bool(words) and (len(words) < len(rows[-1]) or len(words[-1]) < min(len(row[-1]) for row in rows))


def _read_unended(text: str) -> list[Curve]:
    """Without the last row: its last number may have been cut, and 1.2 is not 1.2e-9.

    A header that promises so many rows counts this one too; there the row before it stands in its place.
    """
    rows = text.splitlines(keepends=True)
    whole = "".join(rows[:-1])
    try:
        return _dialect(text).read(whole)
    except Unfinished:
        return _dialect(text).read(whole + "".join(rows[-2:-1]))


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
