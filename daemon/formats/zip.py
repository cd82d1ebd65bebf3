"""A zip file read from a ``Blob``: its directory as a plain dict, its members counted while they unpack.

Written by hand because the standard library makes one object a member (a quantitative image has 0.9 million),
keeps the file open, and trusts declared sizes. Zip64 is read, encryption and disks are not. Format: PKWARE APPNOTE 6.3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

try:
    from isal import isal_zlib as deflate  # ISA-L: the same bytes in half the time
except ImportError:  # a machine for which there is no wheel of it
    import zlib as deflate  # type: ignore[no-redef]  # the same functions

from daemon.formats import limits
from daemon.formats.base import Blob, Unfinished, Unreadable

_END = struct.Struct("<4s4H2LH")  # end of central directory
_END64_AT = struct.Struct("<4sLQL")  # where the zip64 end record lies
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4x2H4x3L3H8xL")  # of one member in the central directory, what is used
_LOCAL = struct.Struct("<4s22x2H")  # of the same member in front of its bytes: the lengths of its name and extra field
_COMMENT_BYTES = 65535
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1
_BROKEN: type[Exception] = deflate.error  # type: ignore[assignment]  # a type, whatever its stub says
_WIDE = 0xFFFFFFFF  # the figure stands in the extra field, with 64 bits


class Member(NamedTuple):
    start: int  # of the local header
    packed_bytes: int
    bytes: int
    method: int
    crc32: int


class ZipFile:
    """The members whose names ``wanted`` accepts.

    Raises ``Unfinished("truncated")`` while the directory at the end is missing, ``Unreadable`` when the file
    contradicts itself or would unpack to more than the limits.
    """

    def __init__(self, blob: Blob, wanted: Callable[[bytes], bool]) -> None:
        self._blob = blob
        self._shift, self.members = _directory(blob, wanted)

    def read(self, name: bytes, most: int) -> bytes:
        """The bytes of one member, at most ``most`` of them; KeyError when there is no such member."""
        member = self.members[name]
        if member.bytes > most:
            raise Unreadable("bomb")
        at = member.start + self._shift
        mark, name_bytes, extra_bytes = _LOCAL.unpack(self._blob.read(at, _LOCAL.size))
        if mark != b"PK\x03\x04":
            raise Unreadable("unreadable")
        packed = self._blob.read(at + _LOCAL.size + name_bytes + extra_bytes, member.packed_bytes)
        content = packed if member.method == _STORED else _inflate(packed, member.bytes)
        if len(content) != member.bytes or deflate.crc32(content) != member.crc32:
            raise Unreadable("unreadable")
        return content


def _inflate(packed: bytes, expected: int) -> bytes:
    """Unpack, never to more than one byte above what was declared."""
    machine = deflate.decompressobj(-deflate.MAX_WBITS)
    try:
        content = machine.decompress(packed, expected + 1)
    except _BROKEN as error:
        raise Unreadable("unreadable") from error
    if len(content) > expected:
        raise Unreadable("bomb")
    return content


def _directory(blob: Blob, wanted: Callable[[bytes], bool]) -> tuple[int, dict[bytes, Member]]:
    count, length, start, end = _end_record(blob)
    if count > limits.MEMBERS:
        raise Unreadable("bomb")
    shift = end - length - start  # bytes in front of the zip, 0 in an honest one
    if shift < 0 or length < count * _ENTRY.size:
        raise Unreadable("unreadable")
    directory = blob.read(start + shift, length)
    members: dict[bytes, Member] = {}
    at = packed_total = 0
    for _ in range(count):
        if at + _ENTRY.size > length:
            raise Unreadable("unreadable")
        mark, flags, method, crc32, packed, size, n, x, c, offset = _ENTRY.unpack_from(directory, at)
        if mark != b"PK\x01\x02":
            raise Unreadable("unreadable")
        at += _ENTRY.size
        name = directory[at : at + n]
        if _WIDE in (packed, size, offset):
            size, packed, offset = _zip64_sizes(directory[at + n : at + n + x], size, packed, offset)
        at += n + x + c
        packed_total += packed
        if wanted(name):
            if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
                raise Unreadable("unreadable")
            members[name] = Member(offset, packed, size, method, crc32)
    if packed_total > blob.size_bytes:  # members that share bytes: an overlap bomb
        raise Unreadable("bomb")
    return shift, members


def _end_record(blob: Blob) -> tuple[int, int, int, int]:
    """Number of members, length and start of the directory, and where it ends."""
    for longest_comment in (0, _COMMENT_BYTES):  # hardly any zip has one
        tail_bytes = min(blob.size_bytes, _END.size + longest_comment)
        tail_at = blob.size_bytes - tail_bytes
        tail = blob.read(tail_at, tail_bytes)
        found = tail.rfind(b"PK\x05\x06")
        if found == 0:
            break
    if found < 0 or found + _END.size > len(tail):
        head = blob.head[:4]
        if not b"PK\x03\x04".startswith(head) and any(head):  # waiting does not make a zip of it
            raise Unreadable("unreadable")
        raise Unfinished("truncated")
    _, _, _, _, count, length, start, _ = _END.unpack_from(tail, found)
    end = tail_at + found
    locator_at = end - _END64_AT.size
    if locator_at >= 0 and (count == 0xFFFF or 0xFFFFFFFF in (length, start)):
        mark, _, end64, _ = _END64_AT.unpack(blob.read(locator_at, _END64_AT.size))
        if mark == b"PK\x06\x07" and end64 + _END64.size <= locator_at:
            fields = _END64.unpack(blob.read(end64, _END64.size))
            if fields[0] == b"PK\x06\x06":
                return fields[7], fields[8], fields[9], end64
    return count, length, start, end


def _zip64_sizes(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The 64-bit figures that stand in an extra field for those that are 0xFFFFFFFF."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            values = [next(wide, -1) if value == 0xFFFFFFFF else value for value in (size, packed, offset)]
            if min(values) < 0:
                break
            return values[0], values[1], values[2]
        at += 4 + length
    raise Unreadable("unreadable")
