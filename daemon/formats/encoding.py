"""Bytes to text: byte order marks, UTF-16 of Windows, and the older code pages of Europe, China and Japan.

Digits are the same in all of them but UTF-16, so a wrong guess can only spoil names; the encoding under which most
names are words that force curves use is taken.
"""

from __future__ import annotations

import codecs
import zlib

from daemon.formats import limits
from daemon.formats.columns import count_known_words
from daemon.reading import Unfinished, Unreadable

GZIP_SUFFIX = ".gz"
_GZIP_MAGIC = b"\x1f\x8b"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CODE_PAGES = ("cp1252", "gb18030", "shift_jis", "mac_roman")
_LOOKED_AT_BYTES = 4096
_SIGNS = {"\u2212": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\uff0c": ",", "\uff1b": ";"}


def decode(content: bytes) -> str:
    """Never fails. Minus signs and blanks of typesetters become those of a keyboard."""
    return _plain(_decoded(content))


def _plain(text: str) -> str:
    for sign, usual in () if text.isascii() else _SIGNS.items():
        text = text.replace(sign, usual)  # ten times as fast as one translation
    return text


def _decoded(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    start = content[:_LOOKED_AT_BYTES]
    if (wide := _wide(start)) is not None:
        return content.decode(wide, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(content) - 3 and error.reason == "unexpected end of data":  # cut inside a character
            return content[: error.start].decode("utf-8")
    best = max(_CODE_PAGES, key=lambda page: count_known_words(_plain(start.decode(page, "replace"))))
    return content.decode(best, "replace")


def _wide(start: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of plain text is zero."""
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if len(start) < 8 or max(even, odd) < 0.4 * len(start) // 2 or min(even, odd) > 0.02 * len(start):
        return None
    return "utf-16-le" if odd > even else "utf-16-be"


def is_gzip(head: bytes) -> bool:
    return head.startswith(_GZIP_MAGIC)


def unzip_head(head: bytes) -> bytes:
    """The first bytes of what a gzip file holds; empty where nothing can be made of it."""
    try:
        return zlib.decompressobj(wbits=31).decompress(head, limits.HEAD_BYTES)
    except zlib.error:
        return b""


def unzip(content: bytes, most_bytes: int) -> bytes:
    """All of it. Raises ``Unfinished("truncated")`` without its end, ``Unreadable("bomb")`` above ``most_bytes``."""
    parts, left = [], most_bytes
    while content:
        member = zlib.decompressobj(wbits=31)
        try:
            part = member.decompress(content, left + 1)
        except zlib.error as error:
            raise Unreadable("unreadable") from error
        left -= len(part)
        if left < 0:
            raise Unreadable("bomb")
        if not member.eof:
            raise Unfinished("truncated")
        parts.append(part)
        content = member.unused_data.lstrip(b"\0")
    return b"".join(parts)
