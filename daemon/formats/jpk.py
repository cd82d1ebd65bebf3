"""JPK NanoWizard, ForceRobot and CellHesion archives: single curves, maps and quantitative images.

One zip holds ``header.properties``, a folder a segment (``segments/M`` or, in maps, ``index/N/segments/M``) and usually
``shared-data/header.properties``. Segments are told apart by their style, not their number: there may be
pauses and modulations between approach and retract. Raw sign: repulsion positive; height grows away from the surface.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from daemon.formats import limits, shape
from daemon.formats.archive import Archive
from daemon.formats.blob import Blob
from daemon.formats.jpk_header import Properties, Scaling, apply, decode, lines_of, number, parse, scaling_of
from daemon.reading import NotACurve, Unfinished, Unreadable
from models.curve import Curve, ForceUnit, Samples

SUFFIXES = (".jpk-force", ".jpk-force-map", ".jpk-qi-data", ".jpk-qi-series", ".jpk-force.zip")
_OLD_SUFFIX = ".jpk"  # of curves (a zip), and to this day of images (a TIFF)
_IMAGE_SUFFIX = ".jpk-qi-image"
_SEGMENT = re.compile(rb"^(?:index/(\d+)/)?segments/(\d+)/segment-header\.properties$")
_FIRST_MEMBER = re.compile(
    rb"^PK\x03\x04.{26}(?:header\.properties|segments/|index/|shared-data/|data-image\.jpk)", re.DOTALL
)
_SHARED = b"shared-data/header.properties"
_SERIES = b"header.properties"
_SIMULATED = ("force-scan-series.description.instrument", "simulated")  # as daemon.instrument.jpk_writer has it
#: Best first: the measured position of the piezo, then the position it was asked for.
_HEIGHTS = (
    "measuredHeight",
    "capacitiveSensorHeight",
    "strainGaugeHeight",
    "height",
    "head-height",
    "cellhesion-height",
)
_WANTED = (b"segment-header.properties", *(f"/{name}.dat".encode() for name in ("vDeflection", *_HEIGHTS)))
_KEPT_SEGMENTS = 8
_FORCES: tuple[tuple[str, ForceUnit], ...] = (("force", "N"), ("distance", "m"))


class JpkReader:
    name = "jpk"
    quiet_s = 0.0

    def claims(self, name: str, head: bytes) -> bool:
        return name.lower().endswith((*SUFFIXES, _OLD_SUFFIX, _IMAGE_SUFFIX)) or _FIRST_MEMBER.match(head) is not None

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> JpkFile:
        if name.lower().endswith(_IMAGE_SUFFIX):
            raise NotACurve("image")
        return JpkFile(blob)


class JpkFile:
    """The retract segments of one archive, in stored order."""

    def __init__(self, blob: Blob) -> None:
        self.archive = Archive(blob, _is_wanted)
        found = [(int(m[1] or 0), int(m[2]), name) for name in self.archive.members if (m := _SEGMENT.match(name))]
        if not found:
            raise Unreadable("no_retract" if self.archive.members else "unreadable")
        series: dict[int, list[bytes]] = {}
        for curve, _, name in sorted(found):
            series.setdefault(curve, []).append(name)
        self._series = list(series.values())
        self._shared: list[str] = []
        if _SHARED in self.archive.members:
            self._shared = lines_of(self.archive.read(_SHARED, limits.HEADER_BYTES))
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
            distance=None if distance is None else shape.outward(distance),
            distance_kind=None if distance is None else "piezo",
            approach_force=None if approach is None else approach.force_in(unit),
            spring_constant_n_per_m=limits.plausible_spring_constant(scaling.factor("force", "distance")),
            sensitivity_m_per_v=limits.plausible_sensitivity(scaling.factor("distance", scaling.base)),
            duration_s=number(retract.properties, "force-segment-header.duration"),
            notes=self._notes,
        )

    def shared(self, beginning: str) -> Properties:
        """What all segments share under keys that begin so; of some 200 lines a curve needs 40."""
        return parse(self._shared, beginning)

    def shared_scaling(self, link: str) -> Scaling:
        """The scaling that channels of many segments point to."""
        if link not in self._scalings:
            prefix = f"lcd-info.{link}."
            self._scalings[link] = scaling_of(self.shared(prefix), prefix)
        return self._scalings[link]

    def _find_notes(self) -> tuple[str, ...]:
        """``simulated`` for what `simulate` wrote: such a curve may teach, and is no evidence of anything."""
        if _SERIES not in self.archive.members:
            return ()
        try:
            series = self.archive.read(_SERIES, limits.HEADER_BYTES)
        except (Unreadable, Unfinished):  # nothing else is read from it
            return ()
        key, value = _SIMULATED
        return ("simulated",) if key.encode() in series and parse(lines_of(series)).get(key) == value else ()

    def _find_retracts(self) -> list[tuple[int, int]]:
        """(series, position of the segment) of every retract.

        In a map all series are alike: the first and last are looked at, and the rest only where they differ in length.
        """
        kinds = {len(names): self._retracts_among(names) for names in (self._series[0], self._series[-1])}
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
        self.properties = parse(lines_of(file.archive.read(name, limits.HEADER_BYTES)))
        self.points = int(number(self.properties, "force-segment-header.num-points") or 0)
        self.style = _style(self.properties, file)

    def deflection(self) -> tuple[ForceUnit, Samples, Scaling]:
        """The best calibrated deflection, repulsion positive: newtons, else metres, else volts."""
        stored, scaling = self._channel("vDeflection")
        shape.check_written(stored)
        unit = _best_unit(scaling)
        return unit, _in_unit(stored, scaling, unit), scaling

    def force_in(self, unit: ForceUnit) -> Samples | None:
        """The deflection of an approach, pulling positive, in the unit of its retract; None where it has none."""
        try:
            stored, scaling = self._channel("vDeflection")
            return -_in_unit(stored, scaling, unit) if _best_unit(scaling) == unit else None
        except Unreadable:
            return None

    def distance(self) -> Samples | None:
        """The height channel that is nearest to a measurement, known in metres, and connected (not constant)."""
        for name in _HEIGHTS:
            if f"channel.{name}.data.file.name" not in self.properties:
                continue
            stored, scaling = self._channel(name)
            steps = scaling.default_chain
            if steps is not None and scaling.unit(scaling.default) == "m" and np.any(stored != stored[:1]):
                return apply(stored, scaling, steps)
        return None

    def _channel(self, name: str) -> tuple[np.ndarray[Any, np.dtype[Any]], Scaling]:
        prefix = f"channel.{name}."
        file_name = self.properties.get(prefix + "data.file.name")
        if file_name is None:
            raise Unreadable("no_force_channel")
        points = int(number(self.properties, prefix + "data.num-points") or self.points)
        shape.check_points(points)
        link = self.properties.get(prefix + "lcd-info.*")
        scaling = scaling_of(self.properties, prefix) if link is None else self._file.shared_scaling(link)
        try:
            content = self._file.archive.read(self._folder + b"/" + file_name.encode("latin-1"), limits.MEMBER_BYTES)
        except KeyError:
            raise Unreadable("no_force_channel") from None
        return decode(content, points, scaling), scaling


def _is_wanted(name: bytes) -> bool:
    """Whether a member can matter: a map has a dozen more channels a curve, and their names would fill the memory."""
    return name.endswith(_WANTED) or name in (_SHARED, _SERIES)


def _style(properties: Properties, file: JpkFile) -> str:
    """extend, retract, pause, … wherever this version of the program put it."""
    own = "force-segment-header."
    for key in (own + "settings.style", own + "settings.segment-settings.style", own + "style"):
        if key in properties:
            return properties[key]
    link = properties.get(own + "force-segment-header-info.*")
    there = f"force-segment-header-info.{link}.settings."
    shared = file.shared(there)
    return shared.get(there + "style") or shared.get(there + "segment-settings.style", "")


def _best_unit(scaling: Scaling) -> ForceUnit:
    for slot, unit in _FORCES:
        steps = scaling.chain(slot)
        if not steps or scaling.unit(slot) != unit:
            continue
        k, sensitivity = scaling.factor("force", "distance"), scaling.factor("distance", scaling.base)
        if sensitivity is not None and limits.plausible_sensitivity(sensitivity) is None:
            continue
        if unit == "m" or limits.plausible_spring_constant(k) is not None:
            return unit
    if scaling.base_unit != "V":
        raise Unreadable("no_force_channel")
    return "V"


def _in_unit(stored: np.ndarray[Any, np.dtype[Any]], scaling: Scaling, unit: ForceUnit) -> Samples:
    slot = {"N": "force", "m": "distance", "V": scaling.base}[unit]
    return apply(stored, scaling, scaling.chain(slot) or [])
