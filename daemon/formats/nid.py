r"""Nanosurf spectroscopy, ``.nid``: one curve or a map, beside images and derived channels in the same file.

An INI header, ``#!``, then one block of integers for every frame that ``[DataSet]`` lists, in its order; so the header
says how long the file is. A value is ``Dim2Min + Dim2Range`` times where the number lies between the smallest and the
largest of its kind. A line of ``Spec forward`` is the approach in time order, one of ``Spec backward`` the retract;
both lie by position, from far away to contact, so the retract lies backwards. Of a line ``LineDim…Points`` are valid.
Raw sign: repulsion positive; Z grows towards the surface. Checked on a file of 100 curves (NSFopen, MIT).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from daemon.formats import dates, limits, samples
from daemon.formats.base import Blob, Format, NotACurve, Unfinished, Unreadable
from models.curve import Curve, ForceUnit, Samples

_FIRST_LINE = b"[DataSet]"
_MOST_HEADER_BYTES = 32 * limits.MIB  # a map of 128 x 128 lists the ends of each line in every frame: 26 MiB
_MOST_FRAMES = 4096
_DATA = re.compile(rb"\n#!")
_SECTION = re.compile(rb"^\[([^\]\r\n]{1,200})\][^\n]*$", re.MULTILINE)
_FRAME = re.compile(rb"^Gr\d+-Ch\d+=(DataSet-\d+:\d+)", re.MULTILINE)
_SPECTRA = re.compile(rb"^Gr\d+-Name=Spec", re.MULTILINE)  # a file that lists curves is no image
_FRAME_SECTION = re.compile(rb"^DataSet-\d+:\d+$")
_LINE_POINTS = re.compile(rb"^LineDim(\d{1,9})Points=(\d{1,9})\s*$", re.MULTILINE)
_LINE_RANGE = re.compile(rb"^LineDim(\d{1,9})Range=([-+.\deE]{1,30})\s*$", re.MULTILINE)
_CANTILEVER = re.compile(rb"D\[([-+.\deE]+)\]\*\[N/m\]")
_INPUT = re.compile(rb"^In\d+=[^,\r\n]*,[^,\r\n]*,Deflection,(\w+),([-+.\deE]+)", re.MULTILINE)
_UNITS: tuple[ForceUnit, ...] = ("N", "m", "V")  # best first
_CLEAR = 6.0  # times the noise: this much deflection is contact
_SIDES = {"forward": "forward", "fwd": "forward", "backward": "backward", "bwd": "backward"}


class NidReader:
    format = Format(
        name="nid",
        instrument="Nanosurf",
        files="`.nid`, single spectroscopies and maps",
        shared_suffixes=(".nid",),
        unread_suffixes=(".nhf",),
    )

    def claims(self, name: str, head: bytes) -> bool:
        return self.format.is_named(name) or head.startswith(_FIRST_LINE)

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> NidFile:
        return NidFile(blob)


@dataclass(frozen=True, eq=False)
class _Frame:
    """One channel of one direction: a block of integers, ``lines`` times ``points``."""

    body: bytes  # its section of the header
    start: int  # of its block in the file
    points: int
    lines: int
    dtype: np.dtype[Any]

    def text(self, key: str) -> str:
        return _value(self.body, key)

    def number(self, key: str) -> float:
        return float(self.text(key))

    @property
    def line_bytes(self) -> int:
        return self.points * self.dtype.itemsize

    @property
    def stop(self) -> int:
        return self.start + self.lines * self.line_bytes

    @property
    def side(self) -> str | None:
        """``forward`` or ``backward`` for a frame of curves; None for images, pauses and what was computed of them."""
        words = self.text("Frame").lower().split()
        return _SIDES.get(words[1]) if len(words) == 2 and words[0].startswith("spec") else None

    def stored(self, blob: Blob, line: int, points: int) -> np.ndarray[Any, np.dtype[Any]]:
        content = blob.read(self.start + line * self.line_bytes, points * self.dtype.itemsize)
        return np.frombuffer(content, self.dtype)

    def scaled(self, stored: np.ndarray[Any, np.dtype[Any]]) -> Samples:
        """In the unit that the header gives."""
        steps = 2.0 ** (8 * self.dtype.itemsize)
        least = -steps / 2 if self.dtype.kind == "i" else 0.0
        samples: Samples = (stored - least) / steps * self.number("Dim2Range") + self.number("Dim2Min")
        return samples

    def valid_points(self) -> dict[int, int]:
        """Line -> valid samples, for the lines that say so."""
        return {int(line): int(points) for line, points in _LINE_POINTS.findall(self.body)}


class _Side(NamedTuple):
    """One direction of all curves."""

    deflection: _Frame
    sensor: _Frame | None
    points: dict[int, int]

    def length(self, line: int) -> int:
        points = self.points.get(line, self.deflection.points)
        if points > self.deflection.points:
            raise Unreadable("unreadable")
        return points


class NidFile:
    """The curves of one file, line by line."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        header, start = _header(blob)
        sections = _sections(header)
        frames = _frames(sections, start)
        sides = {side: [f for f in frames if f.side == side] for side in ("forward", "backward")}
        if not any(sides.values()):
            raise Unreadable("unreadable") if _SPECTRA.search(sections.get(b"DataSet", b"")) else NotACurve("image")
        whole = max(frame.stop for frame in frames)
        if blob.size_bytes != whole:
            raise Unfinished("truncated") if blob.size_bytes < whole else Unreadable("unreadable")
        if not sides["backward"]:
            raise Unreadable("no_retract")
        unit = next((unit for unit in _UNITS if _deflection(sides["backward"], unit)), None)
        backward = _side(sides["backward"], unit)
        if backward is None or unit is None:
            raise Unreadable("no_force_channel")
        self._unit: ForceUnit = unit
        self._backward, self._forward = backward, _side(sides["forward"], self._unit)
        self._k, self._sensitivity = _calibration(sections)
        said = sections.get(b"DataSet-Info", b"")
        self._acquired_s = dates.moment(f"{_value(said, 'Date')} {_value(said, 'Time')}")
        self._lines = self._measured()
        if not self._lines:
            raise Unreadable("no_retract")

    def __len__(self) -> int:
        return len(self._lines)

    def curve(self, index: int) -> Curve:
        line = self._lines[index]
        retract, distance = self._channels(self._backward, line)
        approach, before = self._channels(self._forward, line) if self._forward else (None, None)
        if approach is not None and before is not None and _is_pulled_first(approach, before):
            retract, distance, approach, before = approach, before, retract, distance
            is_known = True
            if _lies_backwards(retract, distance, approach, before):
                approach = approach[::-1]
        else:
            # Z that falls on the way to a surface that is not felt: measured the other way round, or pulled first?
            is_known = approach is None or before is None or bool(before[-1] >= before[0]) or _pushes(approach)
            if _lies_backwards(approach, before, retract, distance):
                retract, distance = retract[::-1], None if distance is None else distance[::-1]
        unit, factor = samples.calibrated(self._unit, 1.0, self._sensitivity, self._k)
        if distance is None:
            distance = self._swept(line, retract.shape[0])
        return Curve(
            force=retract * -factor,
            force_unit=unit,
            distance=None if distance is None else samples.outward(-distance),
            distance_kind=None if distance is None else "piezo",
            approach_force=None if approach is None else approach * -factor,
            spring_constant_n_per_m=self._k,
            sensitivity_m_per_v=self._sensitivity,
            acquired_s=self._acquired_s,
            notes=() if is_known else ("columns_assumed",),
        )

    def _channels(self, side: _Side, line: int) -> tuple[Samples, Samples | None]:
        """Deflection and Z of one line, as they lie."""
        points = side.length(line)
        stored = side.deflection.stored(self._blob, line, points)
        samples.check_written(stored)
        sensor = None
        if side.sensor is not None:
            raw = side.sensor.stored(self._blob, line, points)
            if raw.any():  # else the sensor was not connected
                samples.check_written(raw)
                sensor = side.sensor.scaled(raw)
        return side.deflection.scaled(stored), sensor

    def _swept(self, line: int, points: int) -> Samples | None:
        """Without a sensor the axis is the way that was asked for, towards the surface positive."""
        frame = self._backward.deflection
        found = dict(_LINE_RANGE.findall(frame.body)).get(b"%d" % line)
        way_m = abs(float(found) if found else frame.number("Dim0Range"))
        return np.linspace(0.0, -way_m, points) if frame.text("Dim0Unit") == "m" and way_m > 0 else None

    def _measured(self) -> list[int]:
        """The lines that were measured: of a map that was ended early the rest stays empty."""
        side = self._backward
        reached = side.deflection.text("CurLine")
        last = int(reached) if reached.isdigit() else side.deflection.lines - 1
        lines = []
        for line in range(side.deflection.lines):
            points = side.length(line)
            if points and (line <= last or side.deflection.stored(self._blob, line, points).any()):
                lines.append(line)
        return lines


def _header(blob: Blob) -> tuple[bytes, int]:
    """The text, and where the numbers begin."""
    head, most = b"", min(blob.size_bytes, _MOST_HEADER_BYTES)
    count = min(limits.MIB, most)
    while True:
        head = blob.read(0, count)
        found = _DATA.search(head)
        if found:
            return head[: found.start()], found.end()
        if count == most:
            break
        count = min(4 * count, most)
    if not head.startswith(_FIRST_LINE) and not _FIRST_LINE.startswith(head):
        raise Unreadable("unreadable") if head.strip(b"\0") else Unfinished("zero_tail")
    raise Unfinished("truncated") if blob.size_bytes < _MOST_HEADER_BYTES else Unreadable("too_large")


def _sections(header: bytes) -> dict[bytes, bytes]:
    """Section -> its lines; the first where a name stands twice."""
    found = list(_SECTION.finditer(header))
    sections: dict[bytes, bytes] = {}
    for number, match in enumerate(found):
        stop = found[number + 1].start() if number + 1 < len(found) else len(header)
        sections.setdefault(match[1], header[match.end() : stop])
    return sections


def _frames(sections: dict[bytes, bytes], start: int) -> list[_Frame]:
    """Every block of the file, in the order in which they lie."""
    listed = list(dict.fromkeys(_FRAME.findall(sections.get(b"DataSet", b""))))
    names = [name for name in listed if name in sections] or [name for name in sections if _FRAME_SECTION.match(name)]
    if not names or len(names) > _MOST_FRAMES:
        raise Unreadable("unreadable")
    frames = []
    for name in names:
        body = sections[name]
        bits, kind = _value(body, "SaveBits"), "u" if _value(body, "SaveSign") == "Unsigned" else "i"
        if _value(body, "SaveMode") != "Binary" or bits not in ("8", "16", "32"):
            raise Unreadable("unreadable")
        order = ">" if _value(body, "SaveOrder") == "Motorola" else "<"
        points, lines = int(_value(body, "Points")), int(_value(body, "Lines"))
        samples.check_points(points)
        if not 0 <= lines <= limits.CURVES or points < 1:
            raise Unreadable("unreadable")
        frames.append(_Frame(body, start, points, lines, np.dtype(f"{order}{kind}{int(bits) // 8}")))
        start = frames[-1].stop
    return frames


def _value(body: bytes, key: str) -> str:
    """The value of a key, empty where it is missing; keys of a frame stand before its many lines, or after them."""
    found = re.search(rb"^%b=([^\r\n]*)" % re.escape(key.encode()), body, re.MULTILINE)
    return found[1].decode("latin-1").strip() if found else ""


def _deflection(frames: list[_Frame], unit: ForceUnit) -> _Frame | None:
    named = [f for f in frames if re.search("deflection|force", f.text("Dim2Name"), re.IGNORECASE)]
    named = [f for f in named if not re.search("lateral|friction", f.text("Dim2Name"), re.IGNORECASE)]
    return next((f for f in named if f.text("Dim2Unit") == unit), None)


def _side(frames: list[_Frame], unit: ForceUnit | None) -> _Side | None:
    """The channels of one direction; None where it has no deflection in that unit, or was swept by something else."""
    deflection = None if unit is None else _deflection(frames, unit)
    if deflection is None or deflection.text("Dim0Unit") in ("V", "Hz", "A"):
        return None
    is_alike = [f for f in frames if (f.points, f.lines) == (deflection.points, deflection.lines)]
    heights = [f for f in is_alike if f.text("Dim2Unit") == "m" and f.text("Dim2Name").lower().startswith("z")]
    measured = [f for f in heights if "sensor" in f.text("Dim2Name").lower()]
    sensor = next(iter(measured or heights), None)
    return _Side(deflection, sensor, deflection.valid_points())


def _calibration(sections: dict[bytes, bytes]) -> tuple[float | None, float | None]:
    """Spring constant in N/m and sensitivity in m/V; the input in metres and the one in volts have one full scale."""
    found = _CANTILEVER.search(sections.get(rb"DataSet\Calibration\Cantilever", b""))
    k = limits.plausible_spring_constant(float(found[1]) if found else None)
    full = {unit: float(scale) for unit, scale in _INPUT.findall(sections.get(rb"DataSet\Calibration\Scanhead", b""))}
    metres, volts = full.get(b"m"), full.get(b"V")
    return k, limits.plausible_sensitivity(metres / volts if metres and volts else None)


def _is_pulled_first(approach: Samples, before: Samples) -> bool:
    """Whether ``Spec forward`` is the retract: it goes away from the surface, and it is there that it pushes."""
    return bool(before[-1] < before[0]) and _pushes(approach[::-1])


def _pushes(deflection: Samples) -> bool:
    """Whether a line ends in contact, clearly."""
    part = max(deflection.shape[0] // 20, 1)
    noise = float(np.median(np.abs(np.diff(deflection)))) if deflection.shape[0] > 1 else 0.0
    return bool(deflection[-part:].mean() - deflection[:part].mean() > _CLEAR * noise)


def _lies_backwards(
    approach: Samples | None, before: Samples | None, retract: Samples, distance: Samples | None
) -> bool:
    """Whether a retract lies from far away to contact: then its end, not its beginning, is where the approach ended."""
    ends, other = (approach, retract) if before is None or distance is None else (before, distance)
    if ends is None:
        return True
    return bool(abs(ends[-1] - other[-1]) <= abs(ends[-1] - other[0]))
