"""An instrument to rehearse with: real files written into a folder as one writes them.

``rename`` writes under a temporary name and renames, as sync tools do; ``grow`` writes pieces over some hundred
milliseconds under the final name, as most instruments do; ``burst`` writes several files back to back, each at once.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as counting
from pathlib import Path
from typing import Literal

from daemon.common import ending
from daemon.common.errors import BAD_DATA, UserError
from daemon.formats import NAMES, find_reader
from daemon.formats.base import Blob, Unfinished, Unreadable

# Another recording of the same curve: other bytes, hence another identity, but every number in it the same.
#
# What is changed is what no reader looks at: the comment of a JPK file, the padding behind a NanoScope header,
# the dates of an Igor wave, a line of the text before Nanosurf's numbers, white space behind the last line of a
# text, bytes behind the end of an HDF5 or TIFF file.

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
        return _jpk(content, mark)
    if content.startswith(_HDF5):
        return content + mark
    if content.startswith(_NANOSCOPE):
        return _nanoscope(content, mark)
    if content.startswith(_NID) and (numbers := content.find(_NID_NUMBERS)) > 0:
        return content[:numbers] + b"\n-- %s --=\r" % mark.hex().encode() + content[numbers:]
    if content[:2] in (b"\x05\x00", b"\x00\x05") and len(content) >= _WAVE_HEADER_BYTES:
        return _igor(content, mark)
    return content + mark if b"\0" in content[:4096] else content + _blank(mark)


def _jpk(content: bytes, mark: bytes) -> bytes:
    """The comment of a zip is the last field of its last record."""
    end = content.rfind(_ARCHIVE_END)
    if end < 0:
        return content + mark  # not a zip after all
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


Writer = Literal["rename", "grow", "burst"]
_BURST = 8  # files back to back
_PIECES = 6  # of a growing file
_GROW_S = 0.3  # from its first piece to its last, less where the rate asks for it


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording to play: one file, or the two of an Asylum pair."""

    files: tuple[Path, ...]
    folder: Path  # where it is put below the target folder


def recordings(sources: Sequence[Path]) -> list[Recording]:
    """What ``sources`` (files, or folders with all below them) hold that a reader knows, in order of their names.

    Raises UserError (65) when a source is missing or there is nothing to play.
    """
    found: dict[Path, Recording] = {}
    for source in sources:
        if not source.exists():
            raise UserError(BAD_DATA, f"{source}: no such file or folder")
        for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if not NAMES.is_second_half(file.name) and file.is_file() and (file == source or _is_readable(file)):
                folder = file.parent.relative_to(source) if source.is_dir() else Path()
                found.setdefault(file.resolve(), Recording(_with_companion(file), folder))
    if not found:
        raise UserError(BAD_DATA, f"no force curve in {', '.join(map(str, sources))}; name files that `score` can read")
    return list(found.values())


def _is_readable(file: Path) -> bool:
    if NAMES.claim(file.name) is False:
        return False
    try:
        return find_reader(file.name, Blob(file)) is not None
    except (Unfinished, Unreadable):
        return True  # some lab's broken file: the service has an answer to it


def _with_companion(file: Path) -> tuple[Path, ...]:
    other = NAMES.find_other(file) if NAMES.is_first_half(file.name) else None
    return (file,) if other is None else (file, other)


def play(
    found: Sequence[Recording],
    into: Path,
    *,
    rate: float,
    writer: Writer,
    count: int | None = None,
    fresh: bool = False,
) -> Iterator[Path]:
    """Write recordings at ``rate`` a second, and yield the path of each once its writer has closed it.

    Without ``count`` each is written once, byte for byte. With it they are repeated until there are so many: from the
    second time on under a fresh name, with bytes of their own and the same curve; if ``fresh``, from the first.
    """
    write = {"rename": _renamed, "grow": _grown, "burst": _at_once}[writer]
    group = _BURST if writer == "burst" else 1
    run = secrets.token_hex(8)
    begun_s = time.monotonic()
    for number in range(len(found) if count is None else count):
        cycle, which = divmod(number, len(found))
        due_s = begun_s + number // group * group / rate
        ending.pause(due_s - time.monotonic())
        recording = found[which]
        paths = _places(recording, into, cycle)
        grow_s = min(_GROW_S, 0.6 / rate / len(paths))
        for source, path in zip(recording.files, paths, strict=True):
            content = source.read_bytes()
            write(path, variant(content, f"{run}/{number}") if cycle or fresh else content, grow_s)
        yield paths[0]


def _places(recording: Recording, into: Path, cycle: int) -> list[Path]:
    """Names that are free; the tag goes first, because readers look at how a name ends."""
    folder = into / recording.folder
    folder.mkdir(parents=True, exist_ok=True)
    for tag in counting(cycle + 1):
        paths = [folder / (file.name if tag == 1 else f"r{tag:03d}-{file.name}") for file in recording.files]
        if not any(os.path.lexists(path) for path in paths):
            return paths
    raise AssertionError("numbers do not end")


def _renamed(path: Path, content: bytes, grow_s: float) -> None:
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_bytes(content)
    os.rename(unfinished, path)


def _at_once(path: Path, content: bytes, grow_s: float) -> None:
    with open(path, "xb", buffering=0) as file:
        file.write(content)


def _grown(path: Path, content: bytes, grow_s: float) -> None:
    step = -(-len(content) // _PIECES) or 1
    with open(path, "xb", buffering=0) as file:
        for start in range(0, len(content), step):
            if start:
                ending.pause(grow_s / (_PIECES - 1))
            file.write(content[start : start + step])
