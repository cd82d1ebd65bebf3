"""Park Systems force curves, ``.tiff``: a picture of the surface with curves in private tags; all other TIFF is images.

Tag 50438 describes up to eight channels and how many curves there are, tag 50439 holds them: curve after curve, channel
after channel, the way there and the way back, in time order, half of the samples each. A ramp that ends early at its
force limit repeats its last sample to the end of its half. Raw sign: repulsion positive; Z grows away from the surface.
The layout is that of Gwyddion's documentation of the format, checked on one file of the XE software.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from daemon.formats import dates, limits, samples
from daemon.formats.base import Blob, Format, NotACurve, Unfinished, Unreadable
from models.curve import Curve, ForceUnit, Samples

_TIFF = b"II*\0"  # little-endian, as Park writes
_IMAGES = (b"MM\0*", b"II+\0", b"MM\0+")  # big-endian, or of more than 4 GiB
_ENTRY_BYTES, _MOST_ENTRIES = 12, 4096
_MAGIC, _HEADER, _CURVES_HEADER, _CURVES = 50432, 50435, 50438, 50439
_DATE, _DATE_BYTES = 306, 20  # of TIFF itself
_PRIVATE = frozenset(range(50432, 50442))
_PARK = 0x0E031301
_SPECTROSCOPY = 2
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_CHANNEL = struct.Struct("<64s16sdii")  # name, unit, gain, is of the x axis, is of the y axis
_MOST_CHANNELS = 8
_COUNTS = struct.Struct("<5i")  # channels, averages, samples, curves, driving channel
_COUNTS_AT, _CALIBRATION_AT, _KIND_AT, _DATA_TYPE_AT = 768, 976, 1052, 1108
_CALIBRATION = struct.Struct("<dd")  # spring constant in N/m, sensitivity in V/µm
_NO_FORCE = (3, 5, 6, 7)  # kinds of spectroscopy: current over voltage, photocurrent, current over distance, thermal
_DATA_TYPES = {0: "<i2", 1: "<i4", 2: "<f4"}
_METRES = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "nm": 1e-9, "pm": 1e-12}
_FORCES = {"N": 1.0, "mN": 1e-3, "uN": 1e-6, "µN": 1e-6, "μN": 1e-6, "nN": 1e-9, "pN": 1e-12}
_DEFLECTIONS: dict[ForceUnit, dict[str, float]] = {"m": _METRES, "V": {"V": 1.0, "mV": 1e-3}}
_SECONDS = {"s": 1.0, "sec": 1.0, "msec": 1e-3, "ms": 1e-3, "usec": 1e-6, "us": 1e-6}
_SAME_PLACE = 0.1  # of the whole way: farther apart are the end of the way there and the beginning of the way back not


class ParkReader:
    format = Format(
        name="park",
        instrument="Park",
        files="force curves in `.tiff`, single ones and maps",
        shared_suffixes=(".tiff",),
        image_suffixes=(".tif",),
        unread_suffixes=(".ps-ppt",),
    )

    def claims(self, name: str, head: bytes) -> bool:
        return self.format.is_named(name) or head.startswith((_TIFF, *_IMAGES))

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> ParkFile:
        tags = _tags(blob)
        if not _PRIVATE & tags.keys():
            raise NotACurve("image")
        if _first_number(tags.get(_MAGIC)) != _PARK:
            raise Unreadable("unreadable")
        header = _content(blob, tags, _HEADER)
        if _CURVES not in tags and struct.unpack_from("<i", header) != (_SPECTROSCOPY,):
            raise NotACurve("image")
        if _CURVES not in tags or _CURVES_HEADER not in tags:
            raise Unreadable("unreadable")
        return ParkFile(blob, _content(blob, tags, _CURVES_HEADER), tags[_CURVES], _date(blob, tags))


@dataclass(frozen=True)
class _Tag:
    start: int
    size_bytes: int
    value: bytes  # the four bytes that hold the value, or say where it lies


@dataclass(frozen=True)
class _Channel:
    number: int
    name: str
    unit: str
    gain: float

    def factor(self, units: dict[str, float]) -> float | None:
        """From the stored number to the SI unit; None when the channel is in no unit of these."""
        return self.gain * units[self.unit] if self.unit in units else None


class ParkFile:
    """The curves of one file, in stored order."""

    def __init__(self, blob: Blob, header: bytes, curves: _Tag, date: str) -> None:
        self._blob, self._start = blob, curves.start
        self._acquired_s = dates.moment(date)
        count, _, self._samples, self._count, driving = _COUNTS.unpack_from(header, _COUNTS_AT)
        if not 0 < count <= _MOST_CHANNELS or not 0 < self._count <= limits.CURVES or self._samples < 2:
            raise Unreadable("unreadable")
        samples.check_points(self._samples)
        self._channels = [_channel(header, number) for number in range(count)]
        self._dtype = _data_type(header, curves.size_bytes, count * self._samples * self._count)
        if _integer(header, _KIND_AT) in _NO_FORCE:
            raise Unreadable("no_force_channel")
        self._k, self._sensitivity = _calibration(header)
        self._force, self._unit, self._factor = self._find_force()
        heights = [channel for channel in self._channels if _is_height(channel)]
        measured = [channel for channel in heights if "detector" in channel.name.lower()]
        swept = [channel for channel in heights if channel.number == driving]
        self._heights = measured + swept + [channel for channel in heights if channel not in measured + swept]
        self._clock = next((channel for channel in self._channels if "time" in channel.name.lower()), None)

    def __len__(self) -> int:
        return int(self._count)

    def curve(self, index: int) -> Curve:
        there, back = self._halves(index)
        stored = back[self._force.number]
        samples.check_written(stored)
        if not back[:, -1].any():
            raise Unfinished("zero_tail")  # not even a time stamp: never written
        valid, before = _without_repeats(back), _without_repeats(there)
        height = next((channel for channel in self._heights if np.ptp(back[channel.number]) > 0), None)
        distance = None
        if height is not None:
            distance = samples.outward(valid[height.number] * (height.factor(_METRES) or 0.0))
        return Curve(
            force=valid[self._force.number] * -self._factor,
            force_unit=self._unit,
            distance=distance,
            distance_kind=None if distance is None else "piezo",
            approach_force=before[self._force.number] * -self._factor,
            spring_constant_n_per_m=self._k,
            sensitivity_m_per_v=self._sensitivity,
            duration_s=self._duration_s(valid),
            acquired_s=self._acquired_s,
            notes=() if height is None or _turns_between(there, back, height.number) else ("columns_assumed",),
        )

    def _halves(self, index: int) -> tuple[Samples, Samples]:
        """(channels, samples) of the way there and of the way back, as stored."""
        size = len(self._channels) * self._samples * self._dtype.itemsize
        with np.errstate(invalid="ignore"):  # damaged samples may be numbers that no processor likes
            numbers = np.frombuffer(self._blob.read(self._start + index * size, size), self._dtype).astype(np.float64)
        both = numbers.reshape(len(self._channels), self._samples)
        return both[:, : self._samples // 2], both[:, self._samples // 2 :]

    def _find_force(self) -> tuple[_Channel, ForceUnit, float]:
        """The channel that shows the force best, the unit it can be had in, and the factor to that."""
        vertical = [c for c in self._channels if not re.search("lateral|friction|lfm", c.name, re.IGNORECASE)]
        for channel in vertical:
            if "force" in channel.name.lower() and (factor := channel.factor(_FORCES)) is not None:
                return channel, "N", factor
        for channel in vertical:
            if re.search(r"defl|vertical|a-b", channel.name, re.IGNORECASE):
                for unit, units in _DEFLECTIONS.items():
                    if (factor := channel.factor(units)) is not None:
                        return channel, *samples.calibrated(unit, factor, self._sensitivity, self._k)
        raise Unreadable("no_force_channel")

    def _duration_s(self, valid: Samples) -> float | None:
        factor = None if self._clock is None else self._clock.factor(_SECONDS)
        if self._clock is None or factor is None:
            return None
        return float(np.ptp(valid[self._clock.number])) * factor or None


def _tags(blob: Blob) -> dict[int, _Tag]:
    """Tag -> where its content lies, of the first directory: only there does Park write."""
    head = blob.read(0, min(blob.size_bytes, 8))
    if head[:4] in _IMAGES:
        raise NotACurve("image")
    if not head.startswith(_TIFF[: len(head)]):
        raise Unreadable("unreadable") if head.strip(b"\0") else Unfinished("zero_tail")
    if len(head) < 8:
        raise Unfinished("truncated")
    (at,) = struct.unpack_from("<I", head, 4)
    (count,) = struct.unpack("<H", blob.read(at, 2))
    if not count:
        raise Unfinished("zero_tail")
    if count > _MOST_ENTRIES:
        raise Unreadable("unreadable")
    entries = blob.read(at + 2, count * _ENTRY_BYTES)
    tags: dict[int, _Tag] = {}
    for number in range(count):
        tag, kind, items = struct.unpack_from("<HHI", entries, number * _ENTRY_BYTES)
        if not kind:
            raise Unfinished("zero_tail")  # the directory itself was not written to its end
        value = entries[number * _ENTRY_BYTES + 8 : (number + 1) * _ENTRY_BYTES]
        size = items * _TYPE_BYTES.get(kind, 1)
        start = at + 2 + number * _ENTRY_BYTES + 8 if size <= 4 else struct.unpack("<I", value)[0]
        tags.setdefault(tag, _Tag(start, size, value))
    return tags


def _date(blob: Blob, tags: dict[int, _Tag]) -> str:
    """``2022:11:30 15:26:47``, when the file was written; empty where no such tag lies in it."""
    tag = tags.get(_DATE)
    if tag is None or tag.size_bytes != _DATE_BYTES or tag.start + tag.size_bytes > blob.size_bytes:
        return ""
    return blob.read(tag.start, tag.size_bytes).decode("latin-1").strip(" \0")


def _first_number(tag: _Tag | None) -> int | None:
    return None if tag is None else int(struct.unpack("<I", tag.value)[0])


def _content(blob: Blob, tags: dict[int, _Tag], number: int) -> bytes:
    """The bytes of a small tag. ``Unfinished("truncated")`` while the file ends before one of the private tags does."""
    if number not in tags or tags[number].size_bytes > limits.HEADER_BYTES:
        raise Unreadable("unreadable")
    for private in (_HEADER, _CURVES_HEADER, _CURVES):
        if private in tags and tags[private].start + tags[private].size_bytes > blob.size_bytes:
            raise Unfinished("truncated")
    return blob.read(tags[number].start, tags[number].size_bytes)


def _channel(header: bytes, number: int) -> _Channel:
    name, unit, gain, _, _ = _CHANNEL.unpack_from(header, number * _CHANNEL.size)
    return _Channel(number, _text(name), _text(unit), gain)


def _text(content: bytes) -> str:
    return content.decode("utf-16-le", "replace").partition("\0")[0].strip()


def _integer(header: bytes, at: int) -> int | None:
    """None where the header of an older version ends before."""
    return int(struct.unpack_from("<i", header, at)[0]) if at + 4 <= len(header) else None


def _data_type(header: bytes, size: int, samples: int) -> np.dtype[Any]:
    """How a sample is stored; the size of the block must agree."""
    dtype = np.dtype(_DATA_TYPES.get(_integer(header, _DATA_TYPE_AT) or 0, "V1"))
    if size != samples * dtype.itemsize:
        raise Unreadable("unreadable")
    return dtype


def _calibration(header: bytes) -> tuple[float | None, float | None]:
    """Spring constant in N/m and sensitivity in m/V, where the version has them."""
    if len(header) < _CALIBRATION_AT + _CALIBRATION.size:
        return None, None
    k, volts_per_um = _CALIBRATION.unpack_from(header, _CALIBRATION_AT)
    sensitivity = limits.plausible_sensitivity(1e-6 / volts_per_um if volts_per_um else None)
    return limits.plausible_spring_constant(k), sensitivity


def _is_height(channel: _Channel) -> bool:
    return channel.name.lower().startswith(("z ", "z-", "zscan", "height")) and channel.factor(_METRES) is not None


def _without_repeats(half: Samples) -> Samples:
    """One direction without the copies of its last sample at the end."""
    differs = np.flatnonzero((half != half[:, -1:]).any(axis=0))
    return half[:, : int(differs[-1]) + 2] if differs.size else half


def _turns_between(there: Samples, back: Samples, height: int) -> bool:
    """Whether the way back begins where the way there has ended, and leads away from it."""
    way = max(float(np.ptp(there[height])), float(np.ptp(back[height])))
    gap = abs(float(there[height, -1] - back[height, 0]))
    return gap <= _SAME_PLACE * way <= abs(float(back[height, -1] - back[height, 0]))
