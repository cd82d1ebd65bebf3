r"""Bruker NanoScope ramps and force volumes (versions 6 to 9, 16 and 32 bit samples).

Every ``*Ciao force image list`` is one channel: a block of little-endian integers at ``Data offset``. A block holds,
curve after curve, two halves of equal room: first the approach, **stored from contact outwards**, then the retract in
time order. Of ``Samps/line: 1024 881`` the second number counts the valid samples of the approach. A value is the
stored number times hard scale times sensitivity (NanoScale World thread 991), also where 32 bits are stored. Raw
sign: repulsion positive; Z grows towards the surface.

The text header is lists of ``\key: value`` lines, one list a section, padded to a fixed size. Ciao parameters read
``\@4:Z scale: V [Sens. DeflSens] (0.0003750000 V/LSB) 2.500000 V``: a soft scale in brackets, a hard scale in
parentheses, a hard value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from daemon.formats import dates, limits, samples
from daemon.formats.base import Blob, Format, NotACurve, Unfinished, Unreadable
from models.curve import Curve, DistanceKind, ForceUnit, Samples

_MAGICS = (b"\\*Force file list", b"\\*File list")  # of a ramp; of a force volume and of an image
_CHANNEL = b"\n\\*Ciao force image list"
_VERSION_32_BIT = 0x09200000
_END = b"\\*File list end"
_MOST_HEADER_BYTES = 1 << 20
_CIAO = re.compile(
    r"(?:\[(?P<soft>[^\]]*)\])?\s*(?:\((?P<hard>[-+\d.eE]+)[^)]*\))?\s*(?P<value>[-+]?[\d.]+(?:[eE][-+]?\d+)?)?"
)
_SENSITIVITY = re.compile(r"V\s+(?P<value>[-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(?P<unit>\S*)")
_METRES = {"nm/V": 1e-9, "pm/V": 1e-12, "um/V": 1e-6, "µm/V": 1e-6, "~m/V": 1e-6}


class NanoscopeReader:
    format = Format(
        name="nanoscope",
        instrument="Bruker NanoScope (MultiMode, PicoForce, Dimension)",
        files="`.000` … `.NNN`, `.NNNN`, `.spm`, without suffix; single ramps and force volumes; also text exports",
        shared_suffixes=(".NNN", ".NNNN", ".spm"),
        unread_suffixes=(".pfc",),
    )

    def claims(self, name: str, head: bytes) -> bool:
        return head.startswith(_MAGICS) or (head.startswith(b"\\") and _CHANNEL in head)

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> NanoscopeFile:
        return NanoscopeFile(blob)


class NanoscopeFile:
    """The curves of one ramp or force volume."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._sections = parse(blob.read(0, min(blob.size_bytes, 1 << 20)), blob.size_bytes)
        is_ramp = self._sections[0].title == "Force file list" if self._sections else False
        images = [s for s in self._sections if s.title == "Ciao force image list"]
        if not images and not is_ramp and any(s.title == "Ciao image list" for s in self._sections):
            raise NotACurve("image")
        blocks = [
            (s.integers("Data offset"), s.integers("Data length"))
            for s in self._sections
            if s.get("Data offset") is not None
        ]
        if not images or not all(offset and length for offset, length in blocks):
            raise Unreadable("unreadable")
        if max(offset[0] + length[0] for offset, length in blocks) > blob.size_bytes:
            raise Unfinished("truncated")
        self._force_list = next((s for s in self._sections if s.title == "Ciao force list"), Section(""))
        self._acquired_s = dates.moment(self._sections[0].get("Date") or "")  # when it was written
        deflection = _first_named(images, "defl")
        if deflection is None:
            raise Unreadable("no_force_channel")
        self._deflection = self._channel(deflection)
        sensor = _first_named(images, "sensor") or _first_named(images, "height")
        self._sensor = self._channel(sensor) if sensor else None
        if not self._deflection.retract:
            raise Unreadable("no_retract")

    def __len__(self) -> int:
        return self._deflection.curves

    def curve(self, index: int) -> Curve:
        approach, retract = self._halves(self._deflection, index)
        samples.check_written(retract)
        unit, factor, k, sensitivity = self._calibration()
        distance = self._measured_distance(index)
        if distance is None:
            distance = self._swept_distance()
        kind: DistanceKind | None = None if distance is None else "piezo"
        return Curve(
            force=retract * -factor,
            force_unit=unit,
            distance=distance,
            distance_kind=kind,
            approach_force=approach[::-1] * -factor if approach.size else None,
            spring_constant_n_per_m=k,
            sensitivity_m_per_v=sensitivity,
            duration_s=self._duration_s(),
            acquired_s=self._acquired_s,
        )

    def _calibration(self) -> tuple[ForceUnit, float, float | None, float | None]:
        """Unit, that unit per stored step, spring constant and sensitivity."""
        section = self._deflection.section
        scale = section.ciao("Z scale")
        volts = self._deflection.volts_per_step()
        k = limits.plausible_spring_constant(section.number("Spring Constant"))
        soft = scale.soft if scale else ""
        sensitivity = limits.plausible_sensitivity(sensitivity_m_per_v(self._sections, soft))
        return *samples.calibrated("V", volts, sensitivity, k), k, sensitivity

    def _measured_distance(self, index: int) -> Samples | None:
        if self._sensor is None or index >= self._sensor.curves:
            return None
        scale = self._sensor.section.ciao("Z scale")
        sensitivity = sensitivity_m_per_v(self._sections, scale.soft) if scale else None
        approach, stored = self._halves(self._sensor, index)
        if sensitivity is None or stored.size != self._deflection.retract or not (approach.any() or stored.any()):
            return None
        samples.check_written(stored)
        return samples.outward(stored * -(self._sensor.volts_per_step() * sensitivity))

    def _swept_distance(self) -> Samples | None:
        """Without a sensor the axis is the ramp that was asked for."""
        ramp = self._deflection.section.ciao("Ramp size")
        sensitivity = sensitivity_m_per_v(self._sections, ramp.soft) if ramp else None
        if ramp is None or sensitivity is None:
            return None
        return np.linspace(0.0, abs(ramp.value * sensitivity), self._deflection.retract)

    def _duration_s(self) -> float | None:
        rate = self._force_list.number("Scan rate") or self._force_list.number("Scan Rate")
        return 0.5 / rate if rate and rate > 0 else None

    def _channel(self, section: Section) -> _Channel:
        """Where and how the samples of a channel lie.

        The width of a sample is never taken from ``Bytes/pixel`` (version 9.2 says 2 and stores 4): a ramp is one
        curve, so it follows from the length of the block; a force volume follows the version of the program.
        """
        start, length = section.integers("Data offset")[0], section.integers("Data length")[0]
        lengths = [n for n in section.integers("Samps/line") or self._force_list.integers("Samps/line") if n >= 0]
        if not lengths:
            raise Unreadable("unreadable")
        retract, approach = lengths[0], lengths[-1]
        room = max(retract, approach)
        samples.check_points(room)
        is_volume = any(s.title == "Ciao image list" for s in self._sections)
        width = self._volume_width() if is_volume else length // (2 * room) if room else 0
        if width not in (2, 4) or length < 2 * room * width:
            raise Unreadable("unreadable")
        curves = length // (2 * room * width)
        if curves > limits.CURVES or (not is_volume and curves != 1):
            raise Unreadable("unreadable")
        return _Channel(section, start, room, approach, retract, curves, np.dtype(f"<i{width}"))

    def _volume_width(self) -> int:
        try:
            version = int(self._sections[0].get("Version") or "0", 16)
        except ValueError:
            version = 0
        return 4 if version >= _VERSION_32_BIT else 2

    def _halves(self, channel: _Channel, index: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Stored numbers of approach (contact outwards) and retract (time order)."""
        step = 2 * channel.room * channel.dtype.itemsize
        both = np.frombuffer(self._blob.read(channel.start + index * step, step), channel.dtype)
        return both[: channel.approach], both[channel.room : channel.room + channel.retract]


@dataclass(frozen=True)
class _Channel:
    section: Section
    start: int  # of its block in the file
    room: int  # samples reserved for each half
    approach: int  # valid samples of the approach
    retract: int
    curves: int
    dtype: np.dtype[Any]

    def volts_per_step(self) -> float:
        scale = self.section.ciao("Z scale")
        if scale is None or scale.hard <= 0:
            raise Unreadable("unreadable")
        return scale.hard


def _first_named(images: list[Section], word: str) -> Section | None:
    for section in images:
        parameters = section.parameters()
        name = next((v for k, v in parameters if k.endswith(":Image Data") and k.startswith("@4")), "")
        if word in name.lower():
            return section
    return None


@dataclass(frozen=True)
class Ciao:
    """One ``@`` parameter: name of its soft scale, hard scale per stored step, hard value."""

    soft: str
    hard: float
    value: float


@dataclass
class Section:
    """One list of the header. Its lines stay as they are: of some 800, twenty are ever asked for."""

    title: str
    lines: list[str] = field(default_factory=list)

    def get(self, key: str) -> str | None:
        """The value of a key, the first one where it stands twice; None when it is missing."""
        start, end = "\\" + key, len(key) + 1
        for line in self.lines:
            if line.startswith(start) and line[end : end + 1] in ("", ":"):
                return line[end + 1 :].strip()
        return None

    def integers(self, key: str) -> list[int]:
        """All whole numbers of a value; empty when it is missing or none."""
        return [int(word) for word in (self.get(key) or "").split() if word.lstrip("-").isdigit()]

    def number(self, key: str) -> float | None:
        try:
            return float((self.get(key) or "").split()[0])
        except (ValueError, IndexError):
            return None

    def parameters(self) -> Iterator[tuple[str, str]]:
        """Key and value of every ``@`` parameter."""
        return (_split(line[1:]) for line in self.lines if line.startswith("\\@"))

    def ciao(self, ending: str) -> Ciao | None:
        """The ``@`` parameter whose name ends so; versions differ in number prefix and capitals."""
        ending = ending.lower()
        return next((_parse_ciao(value) for key, value in self.parameters() if key.lower().endswith(ending)), None)


def parse(head: bytes, size_bytes: int) -> list[Section]:
    """The sections of a header.

    Raises ``Unfinished("truncated")`` when the file ends before the header does, ``Unreadable`` when there is no end.
    """
    end = head.find(_END)
    if end < 0:
        if len(head) >= min(size_bytes, _MOST_HEADER_BYTES) and size_bytes > _MOST_HEADER_BYTES:
            raise Unreadable("unreadable")
        raise Unfinished("truncated")
    lines = head[:end].decode("latin-1").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("\\*")]
    bounds = pairwise([*starts, len(lines)])
    return [Section(lines[start][2:].strip(), lines[start + 1 : stop]) for start, stop in bounds]


def sensitivity_m_per_v(sections: list[Section], soft: str) -> float | None:
    """The sensitivity a soft scale names, in m/V; None when it is not there or was never calibrated.

    Some versions write it without a unit: then it is in nm/V, except 1.000000, which means "never set".
    """
    for section in sections:
        text = section.get(f"@{soft}")
        found = _SENSITIVITY.search(text) if text else None
        if found:
            value, unit = float(found["value"]), found["unit"]
            if unit in _METRES:
                return value * _METRES[unit]
            return value * 1e-9 if not unit and value != 1.0 else None
    return None


def _split(line: str) -> tuple[str, str]:
    """Key and value of a parameter; in ``@4:Z scale: V …`` the first colon belongs to the key."""
    if line[1:3].rstrip(":").isdigit() and ":" in line[:4]:
        head, _, rest = line.partition(":")
        key, _, value = rest.partition(":")
        return f"{head}:{key}", value.strip()
    key, _, value = line.partition(":")
    return key, value.strip()


def _parse_ciao(text: str) -> Ciao | None:
    found = _CIAO.match(text.lstrip("VCS").lstrip())
    if not found or found["value"] is None:
        return None
    try:
        return Ciao(found["soft"] or "", float(found["hard"] or 0), float(found["value"]))
    except ValueError:
        return None
