"""JPK NanoWizard, ForceRobot and CellHesion files: single curves, maps and quantitative images.

One zip holds ``header.properties``, a folder a segment (``segments/M`` or, in maps, ``index/N/segments/M``) and usually
``shared-data/header.properties``. Segments are told apart by their style, not their number: there may be
pauses and modulations between approach and retract. Raw sign: repulsion positive; height grows away from the surface.

Headers are Java properties. A channel is stored as big-endian numbers. An *encoder* (integers only) makes volts or
metres of them; from that base a chain of *conversions* leads, slot by slot, to the force. Newer files keep what all
curves share in ``shared-data/header.properties`` and point there with ``key.*=N``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from daemon.formats import dates, limits, samples
from daemon.formats.base import Blob, Format, NotACurve, Unfinished, Unreadable
from daemon.formats.zip import ZipFile
from models.curve import Curve, ForceUnit, Samples

_MAPS = (".jpk-force-map", ".jpk-qi-data", ".jpk-qi-series")
_SEGMENT = re.compile(rb"^(?:index/(\d+)/)?segments/(\d+)/segment-header\.properties$")
_FIRST_MEMBER = re.compile(
    rb"^PK\x03\x04.{26}(?:header\.properties|segments/|index/|shared-data/|data-image\.jpk)", re.DOTALL
)
_SHARED = b"shared-data/header.properties"
_SERIES = b"header.properties"
_ENDED = "force-segment-header.time-stamp"  # of the segment; the times of a zip's own members are no dates
_SIMULATED = ("force-scan-series.description.instrument", "simulated")  # as daemon.instrument has it
#: Best first: the measured position of the piezo, then the position it was asked for.
HEIGHTS = (
    "measuredHeight",
    "capacitiveSensorHeight",
    "strainGaugeHeight",
    "height",
    "head-height",
    "cellhesion-height",
)
_WANTED = (b"segment-header.properties", *(f"/{name}.dat".encode() for name in ("vDeflection", *HEIGHTS)))
_KEPT_SEGMENTS = 8
_FORCES: tuple[tuple[str, ForceUnit], ...] = (("force", "N"), ("distance", "m"))
_STORED = {
    "signedshort": ">i2",
    "unsignedshort": ">u2",
    "signedinteger": ">i4",
    "unsignedinteger": ">u4",
    "signedlong": ">i8",
    "float-data": ">f4",
    "float": ">f4",
    "double-data": ">f8",
    "double": ">f8",
}
_LONGEST_CHAIN = 8
_MOST_SLOTS = 64  # of one channel; real ones have ten at most


class Properties:
    """The keys and values of a ``.properties`` file, searched for: of its 70 to 600 lines a curve needs a dozen.

    Of a key that stands there twice the last one holds. Escapes are left alone: no value that we use has any. Keys
    that are asked for begin with a letter, and hold no mark of equality.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = f"\n{text}\n"

    def about(self, beginning: str) -> str:
        """The lines from the first to the last of the keys that begin so."""
        mark = f"\n{beginning}"
        last = self._text.rfind(mark)
        return "" if last < 0 else self._text[self._text.index(mark) + 1 : self._text.index("\n", last + 1)]

    def get(self, key: str, default: str = "") -> str:
        """The value of ``key``, up to the end of its line."""
        at = self._text.rfind(f"\n{key}=")
        if at < 0:
            return default
        start = at + len(key) + 2
        value = self._text[start : self._text.index("\n", start)]
        return value.partition("\r")[0] if "\r" in value else value

    def __contains__(self, key: str) -> bool:
        return f"\n{key}=" in self._text

    def number(self, key: str) -> float | None:
        """A value as a float, or None where it is missing or not a number."""
        try:
            return float(self.get(key))
        except ValueError:
            return None


class JpkReader:
    format = Format(
        name="jpk",
        instrument="JPK / Bruker NanoWizard",
        files="`.jpk-force`, `.jpk-force.zip`, `.jpk-force-map`, `.jpk-qi-data`, `.jpk-qi-series`, `.jpk`; "
        "also text exports",
        suffixes=(".jpk-force", ".jpk-force.zip", *_MAPS),
        shared_suffixes=(".jpk",),  # of curves (a zip), and to this day of images (a TIFF)
        image_suffixes=(".jpk-qi-image",),
        map_suffixes=_MAPS,
    )

    def claims(self, name: str, head: bytes) -> bool:
        return self.format.is_named(name) or _FIRST_MEMBER.match(head) is not None

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> JpkFile:
        if self.format.is_image(name):
            raise NotACurve("image")
        return JpkFile(blob)


class JpkFile:
    """The retract segments of one file, in stored order."""

    def __init__(self, blob: Blob) -> None:
        self.zip = ZipFile(blob, _is_wanted)
        found = [(int(m[1] or 0), int(m[2]), name) for name in self.zip.members if (m := _SEGMENT.match(name))]
        if not found:
            raise Unreadable("no_retract" if self.zip.members else "unreadable")
        series: dict[int, list[bytes]] = {}
        for curve, _, name in sorted(found):
            series.setdefault(curve, []).append(name)
        self._series = list(series.values())
        is_shared = _SHARED in self.zip.members
        self.shared = _header(self.zip, _SHARED) if is_shared else Properties()
        self._notes = self._find_notes()
        self._scalings: dict[str, Scaling] = {}
        self._segments: dict[bytes, _Segment] = {}
        self._retracts = self._find_retracts()
        if not self._retracts:
            raise Unreadable("no_retract")

    def __len__(self) -> int:
        return len(self._retracts)

    def curve(self, index: int) -> Curve:
        series, position = self._retracts[index]
        names = self._series[series]
        segments = [self._segment(name) for name in names[: position + 1]]
        retract = segments[-1]
        if retract.style != "retract":
            raise Unreadable("no_retract")
        approach = next((s for s in reversed(segments[:-1]) if s.style == "extend" and s.points), None)
        unit, force, scaling = retract.deflection()
        distance = retract.distance()
        return Curve(
            force=-force,
            force_unit=unit,
            distance=None if distance is None else samples.outward(distance),
            distance_kind=None if distance is None else "piezo",
            approach_force=None if approach is None else approach.force_in(unit),
            spring_constant_n_per_m=limits.plausible_spring_constant(scaling.factor("force", "distance")),
            sensitivity_m_per_v=limits.plausible_sensitivity(scaling.factor("distance", scaling.base)),
            duration_s=retract.properties.number("force-segment-header.duration"),
            acquired_s=None if self._notes else dates.moment(retract.properties.get(_ENDED).replace("\\", "")),
            notes=self._notes,
        )

    def shared_scaling(self, link: str) -> Scaling:
        """The scaling that channels of many segments point to."""
        if link not in self._scalings:
            prefix = f"lcd-info.{link}."
            self._scalings[link] = scaling_of(self.shared.about(prefix), prefix)
        return self._scalings[link]

    def _find_notes(self) -> tuple[str, ...]:
        """``simulated`` for what `simulate` wrote: such a curve may teach, and is no evidence of anything."""
        if _SERIES not in self.zip.members:
            return ()
        try:
            series = _header(self.zip, _SERIES)
        except (Unreadable, Unfinished):  # nothing else is read from it
            return ()
        key, value = _SIMULATED
        return ("simulated",) if series.get(key) == value else ()

    def _find_retracts(self) -> list[tuple[int, int]]:
        """(series, position of the segment) of every retract.

        In a map all series are alike: the first and last are looked at, and the rest only where they differ in length.
        """
        ends = self._series if len(self._series) == 1 else (self._series[0], self._series[-1])
        kinds = {len(names): self._retracts_among(names) for names in ends}
        found = []
        for series, names in enumerate(self._series):
            if len(names) not in kinds:
                kinds[len(names)] = self._retracts_among(names)
            positions = kinds[len(names)] or ([len(names) - 1] if len(self._series) > 1 else [])
            found += [(series, position) for position in positions]
        return found

    def _retracts_among(self, names: list[bytes]) -> list[int]:
        return [i for i, name in enumerate(names) if self._segment(name).style == "retract"]

    def _segment(self, name: bytes) -> _Segment:
        """One segment; the last few are kept, because a single curve's are asked for more than once."""
        if name not in self._segments:
            if len(self._segments) >= _KEPT_SEGMENTS:
                self._segments.clear()
            self._segments[name] = _Segment(self, name)
        return self._segments[name]


class _Segment:
    """One movement of the piezo: its header, and its channels when asked for."""

    def __init__(self, file: JpkFile, name: bytes) -> None:
        self._file = file
        self._folder = name.rpartition(b"/")[0]
        self.properties = _header(file.zip, name)
        self.points = int(self.properties.number("force-segment-header.num-points") or 0)
        self.style = _style(self.properties, file)

    def deflection(self) -> tuple[ForceUnit, Samples, Scaling]:
        """The best calibrated deflection, repulsion positive: newtons, else metres, else volts."""
        stored, scaling = self._channel("vDeflection")
        numbers = stored.astype(np.float64)
        samples.check_written(numbers)
        unit = scaling.best_unit
        return unit, _in_unit(numbers, scaling, unit), scaling

    def force_in(self, unit: ForceUnit) -> Samples | None:
        """The deflection of an approach, pulling positive, in the unit of its retract; None where it has none."""
        try:
            stored, scaling = self._channel("vDeflection")
            return -_in_unit(stored.astype(np.float64), scaling, unit) if scaling.best_unit == unit else None
        except Unreadable:
            return None

    def distance(self) -> Samples | None:
        """The height channel that is nearest to a measurement, known in metres, and connected (not constant)."""
        for name in HEIGHTS:
            if f"channel.{name}.data.file.name" not in self.properties:
                continue
            stored, scaling = self._channel(name)
            steps = scaling.default_chain
            if steps is not None and scaling.unit(scaling.default) == "m" and _moves(stored):
                return scaled(stored.astype(np.float64), scaling, steps)
        return None

    def _channel(self, name: str) -> tuple[np.ndarray[Any, np.dtype[Any]], Scaling]:
        prefix = f"channel.{name}."
        if (key := prefix + "data.file.name") not in self.properties:
            raise Unreadable("no_force_channel")
        file_name = self.properties.get(key)
        points = int(self.properties.number(prefix + "data.num-points") or self.points)
        samples.check_points(points)
        if (key := prefix + "lcd-info.*") in self.properties:
            scaling = self._file.shared_scaling(self.properties.get(key))
        else:
            scaling = scaling_of(self.properties.about(prefix), prefix)
        try:
            content = self._file.zip.read(self._folder + b"/" + file_name.encode("latin-1"), limits.MEMBER_BYTES)
        except KeyError:
            raise Unreadable("no_force_channel") from None
        return decode(content, points, scaling), scaling


def _header(file: ZipFile, name: bytes) -> Properties:
    return Properties(file.read(name, limits.HEADER_BYTES).decode("latin-1"))


def _is_wanted(name: bytes) -> bool:
    """Whether a member can matter: a map has a dozen more channels a curve, and their names would fill the memory."""
    return name.endswith(_WANTED) or name in (_SHARED, _SERIES)


def _style(properties: Properties, file: JpkFile) -> str:
    """extend, retract, pause, … wherever this version of the program put it."""
    own = "force-segment-header."
    for key in (own + "settings.style", own + "settings.segment-settings.style", own + "style"):
        if key in properties:
            return properties.get(key)
    link = properties.get(own + "force-segment-header-info.*")
    there = f"force-segment-header-info.{link}.settings."
    return file.shared.get(there + "style") or file.shared.get(there + "segment-settings.style")


def _moves(stored: np.ndarray[Any, np.dtype[Any]]) -> bool:
    """Whether not all of them are the same; the ends of a ramp tell at once."""
    return bool(stored.size and (stored[-1] != stored[0] or np.any(stored != stored[0])))


def _in_unit(numbers: Samples, scaling: Scaling, unit: ForceUnit) -> Samples:
    slot = {"N": "force", "m": "distance", "V": scaling.base}[unit]
    return scaled(numbers, scaling, scaling.chain(slot) or [])


@dataclass(frozen=True)
class Step:
    slot: str
    unit: str
    multiplier: float
    offset: float


@dataclass(frozen=True)
class Scaling:
    """How one channel is stored and every unit its numbers can be taken to."""

    dtype: np.dtype[np.generic]
    base_unit: str
    encoder: Step | None
    slots: dict[str, Step]
    parents: dict[str, str]
    base: str
    default: str

    def chain(self, slot: str) -> list[Step] | None:
        """The steps from the stored base to ``slot``, in order; None when one of them is not defined."""
        steps: list[Step] = []
        while slot != self.base:
            if slot not in self.slots or len(steps) > _LONGEST_CHAIN:
                return None
            steps.append(self.slots[slot])
            slot = self.parents[slot]
        return steps[::-1]

    def factor(self, slot: str, parent: str) -> float | None:
        """What one unit of ``parent`` is in ``slot``, where the one follows directly from the other."""
        return self.slots[slot].multiplier if slot in self.slots and self.parents[slot] == parent else None

    def unit(self, slot: str) -> str:
        return self.base_unit if slot == self.base else self.slots[slot].unit

    @cached_property
    def best_unit(self) -> ForceUnit:
        """That a plausible calibration leads to. Raises Unreadable for what is not even volts."""
        for slot, unit in _FORCES:
            steps = self.chain(slot)
            if not steps or self.unit(slot) != unit:
                continue
            k, sensitivity = self.factor("force", "distance"), self.factor("distance", self.base)
            if sensitivity is not None and limits.plausible_sensitivity(sensitivity) is None:
                continue
            if unit == "m" or limits.plausible_spring_constant(k) is not None:
                return unit
        if self.base_unit != "V":
            raise Unreadable("no_force_channel")
        return "V"

    @cached_property
    def default_chain(self) -> list[Step] | None:
        return self.chain(self.default)


def decode(content: bytes, points: int, scaling: Scaling) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    """The stored numbers of a channel, unscaled; shape (points,)."""
    if len(content) < points * scaling.dtype.itemsize:
        raise Unfinished("truncated")
    if len(content) > points * scaling.dtype.itemsize:
        raise Unreadable("unreadable")
    return np.frombuffer(content, scaling.dtype, points)


def scaled(numbers: Samples, scaling: Scaling, steps: list[Step]) -> Samples:
    """(n,) stored numbers, scaled where they lie; step by step, as the vendor does, so that the last bits agree."""
    for step in ([scaling.encoder] if scaling.encoder else []) + steps:
        numbers *= step.multiplier
        numbers += step.offset
    return numbers


@lru_cache(maxsize=16)  # the curves of a session have the same few
def scaling_of(lines: str, prefix: str) -> Scaling:
    """What ``lines`` of a header, its own or the shared one, say of the channel whose keys begin with ``prefix``."""
    properties = Properties(lines)
    at = prefix + "data." if prefix + "data.type" in properties else prefix
    kind = properties.get(at + "encoder.type") or properties.get(at + "type")
    if kind not in _STORED:
        raise Unreadable("unreadable")
    sets = prefix + "conversion-set."
    slots, parents = {}, {}
    base = properties.get(sets + "conversions.base", "volts")
    for slot in properties.get(sets + "conversions.list").split()[:_MOST_SLOTS]:
        key = f"{sets}conversion.{slot}."
        step = _step(properties, slot, key + "scaling.")
        if step and properties.get(key + "defined") == "true":
            slots[slot] = step
            parents[slot] = properties.get(key + "base-calibration-slot", base)
    encoder = _step(properties, "encoder", at + "encoder.scaling.")
    if encoder is None and not kind.startswith(("float", "double")):
        raise Unreadable("unreadable")
    unit = encoder.unit if encoder else properties.get(at + "unit.unit")
    default = properties.get(sets + "conversions.default", base)
    return Scaling(np.dtype(_STORED[kind]), unit, encoder, slots, parents, base, default)


def _step(properties: Properties, slot: str, key: str) -> Step | None:
    multiplier, offset = properties.number(key + "multiplier"), properties.number(key + "offset")
    if multiplier is None or offset is None:
        return None
    unit = properties.get(key + "unit.unit") or properties.get(key + "unit")
    return Step(slot, unit, multiplier, offset)
