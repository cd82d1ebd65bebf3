"""An instrument to rehearse with: real files written into a folder as one writes them, or files of curves of our own.

``rename`` writes under a temporary name and renames, as sync tools do; ``grow`` writes pieces over some hundred
milliseconds under the final name, as most instruments do; ``burst`` writes several files back to back, each at once.

``pack`` makes a curve a ``.jpk-force`` file, because every lab program opens those. The layout is that of single curves
of 2016 (format version 0.12): one folder a segment, each with its own channel description, deflection stored as raw
detector volts with the chain volts → distance → force beside it. The zip holds fixed dates, so equal curves give equal
bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import secrets
import struct
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as counting
from pathlib import Path
from typing import Literal

import numpy as np

from daemon.common import ending
from daemon.common.errors import BAD_DATA, UserError
from daemon.formats import NAMES, find_reader
from daemon.formats.base import Blob, Unfinished, Unreadable
from models.curve import Curve, Samples

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


_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold
_TIME_STAMP = "2026-01-01 00:00:00.000 +0000"
_SENSITIVITY_M_PER_V = 5e-8  # for volts of a curve whose own sensitivity is not known: it cancels out
_STEPS = 2**31 - 1  # of the positive half of the 32-bit encoder
Lines = Iterator[str]


def pack(curve: Curve) -> bytes:
    """The file of one curve: its approach, where it has one, and its retract.

    ValueError for a curve that the format cannot say: without a force unit, in newtons without spring constant, or
    with fewer than two samples.
    """
    if curve.force_unit is None or (curve.force_unit == "N" and curve.spring_constant_n_per_m is None):
        raise ValueError("a .jpk-force file needs the force unit, and for newtons the spring constant")
    if len(curve) < 2:
        raise ValueError("a .jpk-force file needs at least two samples")
    duration_s = curve.duration_s or 1.0
    segments = []
    height = _height(curve)
    if curve.approach_force is not None:
        way_in = None if height is None else _resampled(height[::-1], len(curve.approach_force))
        segments.append(("extend", curve.approach_force, way_in))
    segments.append(("retract", curve.force, height))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as container:
        _add(container, "header.properties", "\n".join(_series_header(len(segments), duration_s)).encode())
        _add(container, "segments/", b"")
        for number, (style, force, distance) in enumerate(segments):
            channels = _channels(curve, force, distance)
            folder = f"segments/{number}/"
            _add(container, folder, b"")
            lines = [*_segment_header(style, len(force), duration_s, distance), *_channel_headers(curve, channels)]
            _add(container, folder + "segment-header.properties", "\n".join(lines).encode())
            _add(container, folder + "channels/", b"")
            for name, samples in channels.items():
                stored = np.rint((samples - _offset(samples)) / _step(samples)).astype(">i4")
                _add(container, f"{folder}channels/{name}.dat", stored.tobytes())
    return target.getvalue()


def _height(curve: Curve) -> Samples | None:
    """Piezo height, growing away from the surface; a separation is turned back into the travel it came from."""
    if curve.distance is None or curve.distance_kind != "separation":
        return curve.distance
    stiffness, sensitivity = curve.spring_constant_n_per_m, curve.sensitivity_m_per_v
    if curve.force_unit == "N" and stiffness:
        return curve.distance + curve.force / stiffness
    if curve.force_unit == "V" and sensitivity:
        return curve.distance + curve.force * sensitivity
    return curve.distance + curve.force if curve.force_unit == "m" else None


def _resampled(samples: Samples, count: int) -> Samples:
    return np.interp(np.linspace(0.0, len(samples) - 1.0, count), np.arange(len(samples)), samples)


def _channels(curve: Curve, force: Samples, height: Samples | None) -> dict[str, Samples]:
    """Channel name -> samples in the unit of its encoder. In these files repulsion is positive."""
    sensitivity = curve.sensitivity_m_per_v or _SENSITIVITY_M_PER_V
    volts_per_unit = {"N": 1.0 / sensitivity / (curve.spring_constant_n_per_m or 1.0), "m": 1.0 / sensitivity, "V": 1.0}
    channels = {} if height is None else {"height": height, "measuredHeight": height}
    return channels | {"vDeflection": -force * volts_per_unit[str(curve.force_unit)]}


def _span(samples: Samples) -> float:
    low, high = float(samples.min()), float(samples.max())
    return max(high - low, 1e-9 * abs(low), 1e-30)


def _offset(samples: Samples) -> float:
    """Below the lowest sample: a row of stored zeros would read as an end that was never written."""
    return float(samples.min()) - 0.05 * _span(samples)


def _step(samples: Samples) -> float:
    return 1.1 * _span(samples) / _STEPS


def _add(container: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, _DATE)
    member.compress_type = zipfile.ZIP_DEFLATED if content else zipfile.ZIP_STORED
    member.create_system = 0
    container.writestr(member, content)


def _series_header(segments: int, duration_s: float) -> Lines:
    series = "force-scan-series."
    yield "jpk-data-file=spm-forcefile"
    yield "file-format-version=0.12"
    yield "type=force-scan-series"
    yield f"{series}force-segments.count={segments}"
    yield f"{series}header.type=xy-position-force-scan-series-header"
    yield f"{series}header.position.x=0.0"
    yield f"{series}header.position.y=0.0"
    yield f"{series}header.position-index=0"
    yield f"{series}header.force-settings.type=relative-force-settings"
    yield f"{series}header.force-settings.extend-scan-time={duration_s!r}"
    yield f"{series}header.force-settings.retract-scan-time={duration_s!r}"
    yield f"{series}description.instrument=simulated"
    yield f"{series}description.source-software=afm-triage"


def _segment_header(style: str, points: int, duration_s: float, height: Samples | None) -> Lines:
    own, settings = "force-segment-header.", "force-segment-header.settings.segment-settings."
    start, end = (0.0, 0.0) if height is None else (float(height[0]), float(height[-1]))
    yield f"{own}type=xy-position-segment-header"
    yield f"{own}approach-id=simulated-00000"
    yield f"{own}duration={duration_s!r}"
    yield f"{own}num-points={points}"
    yield f"{own}time-stamp={_TIME_STAMP}"
    yield f"{own}name.name={style}-spm"
    yield f"{own}position-index=0"
    yield f"{own}settings.style={style}"
    yield f"{own}settings.feedback-mode.name=contact"
    yield f"{settings}type=z-{style}"
    yield f"{settings}style={style}"
    yield f"{settings}duration={duration_s!r}"
    yield f"{settings}num-points={points}"
    yield f"{settings}z-start={start!r}"
    yield f"{settings}z-end={end!r}"


def _channel_headers(curve: Curve, channels: dict[str, Samples]) -> Lines:
    yield f"channels.list={' '.join(channels)}"
    for name, samples in channels.items():
        data, unit = f"channel.{name}.data.", "V" if name == "vDeflection" else "m"
        yield f"{data}file.name=channels/{name}.dat"
        yield f"{data}file.format=raw"
        yield f"{data}type=integer"
        yield f"{data}encoder.type=signedinteger"
        yield f"{data}encoder.scaling.type=linear"
        yield f"{data}encoder.scaling.style=offsetmultiplier"
        yield f"{data}encoder.scaling.offset={_offset(samples)!r}"
        yield f"{data}encoder.scaling.multiplier={_step(samples)!r}"
        yield f"{data}encoder.scaling.unit.type=metric-unit"
        yield f"{data}encoder.scaling.unit.unit={unit}"
        yield f"{data}num-points={len(samples)}"
        yield f"channel.{name}.channel.name={name}"
        yield from _conversions(f"channel.{name}.conversion-set.", _slots(curve, name))


def _slots(curve: Curve, channel: str) -> list[tuple[str, str, float]]:
    """(slot, unit, multiplier) of each calibration after the stored one, in order."""
    if channel != "vDeflection":
        return [("nominal", "m", 1.0), ("calibrated", "m", 1.0)]
    slots = [("distance", "m", curve.sensitivity_m_per_v or _SENSITIVITY_M_PER_V)]
    if curve.force_unit == "V":
        return []
    return [*slots, ("force", "N", curve.spring_constant_n_per_m or 1.0)] if curve.force_unit == "N" else slots


def _conversions(prefix: str, slots: list[tuple[str, str, float]]) -> Lines:
    names = [name for name, _, _ in slots]
    yield f"{prefix}conversions.list={' '.join(names)}"
    yield f"{prefix}conversions.default={names[-1] if names else 'volts'}"
    yield f"{prefix}conversions.base=volts"
    for before, (name, unit, multiplier) in zip(["volts", *names], slots, strict=False):
        key = f"{prefix}conversion.{name}."
        yield f"{key}name={name.capitalize()}"
        yield f"{key}defined=true"
        yield f"{key}type=simple"
        yield f"{key}base-calibration-slot={before}"
        yield f"{key}calibration-slot={name}"
        yield f"{key}scaling.type=linear"
        yield f"{key}scaling.style=offsetmultiplier"
        yield f"{key}scaling.offset=0.0"
        yield f"{key}scaling.multiplier={multiplier!r}"
        yield f"{key}scaling.unit.type=metric-unit"
        yield f"{key}scaling.unit.unit={unit}"
