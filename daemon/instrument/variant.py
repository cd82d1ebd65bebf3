"""Another recording of the same curve: other bytes, hence another identity, but every number in it the same.

What is changed is what no reader looks at: the comment of a JPK archive, the padding behind a NanoScope header, the
dates of an Igor wave, a line of the text before Nanosurf's numbers, white space behind the last line of a text, bytes
behind the end of an HDF5 or TIFF file.
"""

from __future__ import annotations

import hashlib
import re
import struct

TOKEN_BYTES = 12
_ARCHIVE, _ARCHIVE_END, _HDF5, _NANOSCOPE = b"PK\x03\x04", b"PK\x05\x06", b"\x89HDF\r\n\x1a\n", b"\\*F"
_NID, _NID_NUMBERS = b"[DataSet]", b"\n#!"
_DATA_OFFSET = re.compile(rb"\\Data offset: *(\d+)")
_HEADER_END = b"\\*File list end"
_WAVE_HEADER_BYTES = 384  # of Igor's version 5: BinHeader5 and WaveHeader5
_WAVE_DATES = slice(68, 76)  # creationDate and modDate, seconds; read by nobody here
_WAVE_CHECKSUM = slice(2, 4)


def variant(content: bytes, token: str) -> bytes:
    """The file with ``token`` worked into it; the same token gives the same bytes."""
    mark = hashlib.sha256(token.encode()).digest()[:TOKEN_BYTES]
    if content.startswith(_ARCHIVE):
        return _archive(content, mark)
    if content.startswith(_HDF5):
        return content + mark
    if content.startswith(_NANOSCOPE):
        return _nanoscope(content, mark)
    if content.startswith(_NID) and (numbers := content.find(_NID_NUMBERS)) > 0:
        return content[:numbers] + b"\n-- %s --=\r" % mark.hex().encode() + content[numbers:]
    if content[:2] in (b"\x05\x00", b"\x00\x05") and len(content) >= _WAVE_HEADER_BYTES:
        return _igor(content, mark)
    return content + mark if b"\0" in content[:4096] else content + _blank(mark)


def _archive(content: bytes, mark: bytes) -> bytes:
    """The archive's comment is the last field of its last record."""
    end = content.rfind(_ARCHIVE_END)
    if end < 0:
        return content + mark  # not an archive after all
    comment = mark.hex().encode()
    return content[: end + 20] + struct.pack("<H", len(comment)) + comment


def _nanoscope(content: bytes, mark: bytes) -> bytes:
    """Between the end of the header and the first block of samples lie thousands of unused bytes."""
    offsets = [int(offset) for offset in _DATA_OFFSET.findall(content[: 1 << 20]) if int(offset)]
    end = content.find(_HEADER_END)
    room = min(offsets, default=0) - (end + len(_HEADER_END))
    if end < 0 or room < len(mark) + 16:
        return content + mark
    first = min(offsets)
    return content[: first - len(mark)] + mark + content[first:]


def _igor(content: bytes, mark: bytes) -> bytes:
    """Other dates; the header's 16-bit words still add up to what they did."""
    order = "<" if content[:2] == b"\x05\x00" else ">"
    header = bytearray(content[:_WAVE_HEADER_BYTES])
    before = _sum(header, order)
    header[_WAVE_DATES] = mark[:8]
    (checksum,) = struct.unpack(order + "H", header[_WAVE_CHECKSUM])
    header[_WAVE_CHECKSUM] = struct.pack(order + "H", (checksum + before - _sum(header, order)) & 0xFFFF)
    return bytes(header) + content[_WAVE_HEADER_BYTES:]


def _sum(header: bytearray, order: str) -> int:
    words: tuple[int, ...] = struct.unpack(f"{order}{len(header) // 2}H", header)
    return sum(words) & 0xFFFF


def _blank(mark: bytes) -> bytes:
    """The mark in blank lines: an empty one is 0, one with a space is 1."""
    bits = f"{int.from_bytes(mark[:8], 'big'):064b}"
    return b"\n" + b"".join(b" \n" if bit == "1" else b"\n" for bit in bits)
