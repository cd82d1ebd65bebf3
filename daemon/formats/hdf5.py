"""HDF5 files: those of afmformats (one group a curve, one dataset a column), and of others by the names in them.

h5py is loaded when the first such file comes and works on the bytes in memory, so nothing is locked. Nothing that lies
in another file is ever opened.

Of an unknown program a curve is the smallest group under which there are a force and a distance: ``Force LF/Force 1x``
beside ``Distance/Distance 1`` (Bluelake), ``curve_7/force`` beside ``curve_7/z``, or one such group a side. What the
names do not settle is guessed, and said: ``columns_assumed`` keeps a curve from being discarded. The sign is never
stated.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from daemon.formats import dates, limits, samples
from daemon.formats.base import Blob, CurveFile, Format, NotACurve, Unfinished, Unreadable
from daemon.formats.text import afmformats_curve
from models.curve import Curve, DistanceKind, ForceUnit, Samples

_MAGIC = b"\x89HDF\r\n\x1a\n"
_COLUMNS = ("force", "height (measured)", "height (piezo)", "segment")
_METADATA = ("spring constant", "sensitivity", "rate retract", "speed retract", "point count", "curve id")
Side = Literal["approach", "retract"]

_MOST_OBJECTS = 100_000  # groups and datasets that are looked at
_MOST_DEPTH = 12
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_FORCE = {"force", "forces", "load", "kraft", "fz"}
_DEFLECTION = {"deflection", "defl", "vdeflection"}
_SEPARATION = {"separation", "tss", "extension"}
_DISTANCE = _SEPARATION | {
    *("distance", "distances", "displacement", "height", "piezo", "z", "zsnsr", "zsensor", "zpos", "position"),
}
#: Words of datasets that go along with a measurement and are none themselves.
_BESIDE = {
    *("time", "times", "timestamp", "lateral", "friction", "std", "sd", "error", "err", "sem", "fit", "residual"),
    *("sum", "calibration", "offset", "trigger", "constant", "setpoint", "limit", "frequency", "temperature", "index"),
}
_SIDES: dict[str, Side] = {
    **dict.fromkeys(("approach", "extend", "ext", "trace", "forward", "fwd", "appr", "loading"), "approach"),
    **dict.fromkeys(("retract", "ret", "withdraw", "retrace", "backward", "bwd", "retr", "unloading", "rt"), "retract"),
}
_FORCES = {"N": 1.0, "mN": 1e-3, "uN": 1e-6, "µN": 1e-6, "nN": 1e-9, "pN": 1e-12, "fN": 1e-15}
_METRES = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "nm": 1e-9, "pm": 1e-12, "Å": 1e-10}
_VOLTS = {"V": 1.0, "mV": 1e-3}
_UNIT_ATTRIBUTES = ("unit", "units", "Unit", "Units")
_UNIT_IN_NAME = re.compile(r"(?:[\[(]\s*|[_\s])([munpfµ]?N|[munpµ]?m|Å|m?V)\s*[\])]?$")
#: Attributes of a dataset, its groups or its file that say when it was measured.
_TIMES = ("acquired", "acquisition time", "acquisition date", "date", "datetime", "timestamp", "measured", "recorded")
_BEGAN_NS = "Start time (ns)"  # Bluelake, since 1970
_VENDOR, _VENDOR_UNITS = "Bluelake version", {"force": "pN", "distance": "um"}  # lumicks.com: units of its exports


class Hdf5Reader:
    format = Format(
        name="hdf5",
        instrument="HDF5 (`.h5`, `.hdf5`)",
        files="of afmformats; of others (Bluelake among them) where the names of the datasets tell force from distance",
        shared_suffixes=(".h5", ".hdf5"),
        image_suffixes=(".h5-jpk",),
        quiet_s=0.5,
    )

    def claims(self, name: str, head: bytes) -> bool:
        return head.startswith(_MAGIC) or (self.format.is_named(name) and not any(head[: len(_MAGIC)]))

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> CurveFile:
        if self.format.is_image(name):
            raise NotACurve("image")
        import h5py

        try:
            file = h5py.File(io.BytesIO(blob.whole()), "r")
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise Unfinished("truncated") from error  # h5py says "truncated file" among much else
        groups = _groups_of_afmformats(file)
        return Hdf5File(file, groups) if groups else ForeignFile(file)


def _groups_of_afmformats(file: Any) -> list[str]:
    """The groups that hold a curve in the vocabulary of afmformats, by number; empty where a file has none."""
    try:
        with_force = [key for key in file if "force" in file[key]]
        if not any(_is_of_afmformats(file[key]) for key in with_force):
            return []
    except Exception:  # h5py passes on whatever the damaged file makes HDF5 say
        return []
    return sorted(with_force, key=lambda key: (len(key), key))


def _is_of_afmformats(group: Any) -> bool:
    """Whether a group with a force has a further column, or a figure about it, in that vocabulary."""
    return any(name in group for name in _COLUMNS[1:]) or any(name in group.attrs for name in _METADATA)


class Hdf5File:
    """The curves of one file of afmformats, by group number."""

    def __init__(self, file: Any, groups: list[str]) -> None:
        self._file, self._groups = file, groups
        if len(groups) > limits.CURVES:
            raise Unreadable("bomb")

    def __len__(self) -> int:
        return len(self._groups)

    def curve(self, index: int) -> Curve:
        try:
            group = self._file[self._groups[index]]
            for name in _COLUMNS:
                if name in group:
                    _check_dataset(group[name])
            columns = {name: np.asarray(group[name][()], dtype=np.float64) for name in _COLUMNS if name in group}
            metadata = dict(group.attrs)
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable("unreadable") from error
        curve = afmformats_curve(columns, metadata)
        samples.check_written(curve.force)
        return curve


def _check_dataset(dataset: Any) -> None:
    """One column of sane length, whose samples lie in this file and not, by reference, in another."""
    if dataset.ndim != 1 or dataset.external or dataset.is_virtual:
        raise Unreadable("unreadable")
    samples.check_points(dataset.shape[0])


@dataclass(frozen=True)
class _Column:
    path: str
    points: int
    quantity: Literal["force", "deflection", "distance"]
    side: Side | None
    unit: str | None

    @property
    def group(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_separation(self) -> bool:
        return bool(_SEPARATION.intersection(_words(self.name)))


@dataclass(frozen=True)
class _Pair:
    """A force, its distance, and what of that was guessed."""

    force: _Column
    distance: _Column | None
    is_guess: bool

    @property
    def side(self) -> Side | None:
        return self.force.side or (self.distance.side if self.distance else None)


class ForeignFile:
    """The curves of one file, in the order of their paths."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._times: dict[str, float | None] = {}
        try:
            columns = _columns(file)
        except Unreadable:
            raise
        except Exception as error:  # h5py passes on whatever the damaged file makes HDF5 say
            raise Unreadable("unreadable") from error
        pairs = [pair for group in _groups(columns) for pair in _pairs(group)]
        if not pairs:
            raise Unreadable("foreign_hdf5")
        self._curves = _joined(pairs)
        if not self._curves:
            raise Unreadable("no_retract")

    def __len__(self) -> int:
        return len(self._curves)

    def curve(self, index: int) -> Curve:
        pair, before = self._curves[index]
        force, distance = self._read(pair)
        approach = None if before is None else self._read(before)[0]
        is_guess = pair.is_guess or pair.distance is None
        if pair.side is None:
            turn = None if distance is None else samples.turnaround(distance)
            if turn is not None and distance is not None:
                approach, force, distance = force[: turn[0]], force[turn[1] :], distance[turn[1] :]
            else:
                is_guess = True  # one way only: there or back?
        unit, factor = _force_unit(pair.force)
        is_known, metres = _metres(pair.distance)
        sign = _pulling(force)
        if distance is not None and is_known:
            distance = samples.outward(distance * metres)
        kind: DistanceKind = "separation" if pair.distance is not None and pair.distance.is_separation else "piezo"
        notes = ("sign_assumed", *(("columns_assumed",) if is_guess or unit is None else ()))
        return Curve(
            force=force * (sign * factor),
            force_unit=unit,
            distance=distance if is_known else None,
            distance_kind=kind if distance is not None and is_known else None,
            approach_force=None if approach is None else approach * (sign * factor),
            acquired_s=self._acquired_s(pair.force.path),
            notes=notes,
        )

    def _acquired_s(self, path: str) -> float | None:
        """By the nearest of a dataset, its groups and the file that says so."""
        if path not in self._times:
            try:
                own = _time_of(self._file[path or "/"].attrs)
            except Exception:  # h5py passes on whatever the damaged file makes HDF5 say
                own = None
            self._times[path] = self._acquired_s(path.rpartition("/")[0]) if own is None and path else own
        return self._times[path]

    def _read(self, pair: _Pair) -> tuple[Samples, Samples | None]:
        force = self._samples(pair.force)
        samples.check_written(force)
        return force, None if pair.distance is None else self._samples(pair.distance)

    def _samples(self, column: _Column) -> Samples:
        samples.check_points(column.points)
        try:
            return np.asarray(self._file[column.path][()], dtype=np.float64)
        except Exception as error:
            raise Unreadable("unreadable") from error


def _time_of(attributes: Any) -> float | None:
    if not len(attributes):
        return None
    if _BEGAN_NS in attributes:
        return dates.plausible(float(attributes[_BEGAN_NS]) / 1e9)
    said = {str(key).lower().replace("_", " "): attributes[key] for key in attributes}
    texts = {key: value.decode("latin-1") if isinstance(value, bytes) else str(value) for key, value in said.items()}
    for key in _TIMES:
        stated = texts.get(key, "")
        when = dates.moment(stated) or dates.moment(f"{stated} {texts.get('time', '')}")
        if when is not None:
            return when
    return None


def _columns(file: Any) -> list[_Column]:
    """Every column of numbers whose name says force, deflection or distance; links to other places are not followed."""
    import h5py

    is_of_vendor = _VENDOR in file.attrs
    found: list[_Column] = []
    waiting = [("", file)]
    seen = 0
    while waiting:
        path, group = waiting.pop()
        if path.count("/") > _MOST_DEPTH:
            raise Unreadable("bomb")
        for key in group:
            seen += 1
            if seen > _MOST_OBJECTS:
                raise Unreadable("bomb")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            item, place = group[key], f"{path}/{key}"
            if isinstance(item, h5py.Group):
                waiting.append((place, item))
            elif isinstance(item, h5py.Dataset) and (column := _column(place, item, is_of_vendor)):
                found.append(column)
    return sorted(found, key=lambda column: _natural(column.path))


def _column(path: str, dataset: Any, is_of_vendor: bool) -> _Column | None:
    if dataset.ndim != 1 or dataset.dtype.kind not in "fiu" or dataset.shape[0] < 2:
        return None
    if dataset.external or dataset.is_virtual:
        return None
    *folders, name = path.strip("/").split("/")
    words = _words(_UNIT_IN_NAME.sub("", name))
    if _BESIDE.intersection(words):
        return None
    quantity: Literal["force", "deflection", "distance"]
    if _FORCE.intersection(words) or words == ["f"]:
        quantity = "force"
    elif _DEFLECTION.intersection(words):
        quantity = "deflection"
    elif _DISTANCE.intersection(words):
        quantity = "distance"
    else:
        return None
    sides = [_SIDES[word] for part in (name, *reversed(folders)) for word in _words(part) if word in _SIDES]
    unit = _unit(dataset, name) or (_VENDOR_UNITS.get(quantity) if is_of_vendor else None)
    return _Column(path, int(dataset.shape[0]), quantity, next(iter(sides), None), unit)


def _words(name: str) -> list[str]:
    """``"ForceRetract_pN"`` -> ``["force", "retract", "p", "n"]``."""
    return [word.lower() for word in _WORD.findall(name)]


def _natural(path: str) -> list[tuple[int, str]]:
    """So that ``curve10`` comes after ``curve9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d{1,18})", path) if part]


def _unit(dataset: Any, name: str) -> str | None:
    for key in _UNIT_ATTRIBUTES:
        value = dataset.attrs.get(key)
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(text, str):
            return text.strip().strip("[]()").replace("μ", "µ")
    found = _UNIT_IN_NAME.search(name.replace("μ", "µ"))
    return found[1] if found else None


def _groups(columns: list[_Column]) -> Iterable[list[_Column]]:
    """The columns of each smallest group that holds a force and a distance; forces without one stand by themselves."""
    forces = {place for column in columns if column.quantity != "distance" for place in _places(column)}
    distances = {place for column in columns if column.quantity == "distance" for place in _places(column)}
    complete = forces & distances
    by_group: dict[str, list[_Column]] = {}
    for column in columns:
        home = next((place for place in _places(column) if place in complete), None)
        if home is not None:
            by_group.setdefault(home, []).append(column)
        elif column.quantity != "distance":
            by_group.setdefault(column.group, []).append(column)
    return by_group.values()


def _places(column: _Column) -> list[str]:
    """The groups in which a column lies, the nearest first."""
    parts = column.group.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _pairs(columns: list[_Column]) -> list[_Pair]:
    """One pair for each side that the names tell apart, or one for the whole group."""
    pairs = []
    for side in ("approach", "retract", None):
        forces = [c for c in columns if c.side == side and c.quantity == "force"]
        forces = forces or [c for c in columns if c.side == side and c.quantity == "deflection"]
        if not forces:
            continue
        distances = [c for c in columns if c.side in (side, None) and c.quantity == "distance"]
        fitting = [(f, d) for f in forces for d in distances if f.points == d.points]
        matching = [(f, d) for f, d in fitting if d.side == side] or fitting
        matching = [(f, d) for f, d in matching if not d.is_separation] or matching  # of both, that of the piezo
        is_guess = len(forces) > 1 or len(matching) != 1
        force, distance = matching[0] if matching else (forces[0], None)
        pairs.append(_Pair(force, distance, is_guess))
    return pairs


def _joined(pairs: list[_Pair]) -> list[tuple[_Pair, _Pair | None]]:
    """(retract, its approach or None): the approach is the one that lies beside it."""
    approaches = [pair for pair in pairs if pair.side == "approach"]
    retracts = [pair for pair in pairs if pair.side != "approach"]
    beside: dict[str, list[_Pair]] = {}
    for pair in approaches:
        beside.setdefault(_stem(pair), []).append(pair)
    return [(pair, found[0] if len(found := beside.get(_stem(pair), [])) == 1 else None) for pair in retracts]


def _stem(pair: _Pair) -> str:
    """The path of a force without the words that name a side: the same for both sides of a curve."""
    words = (word for word in re.split(r"(/|\d+)|[^A-Za-z0-9]+", pair.force.path) if word)
    return " ".join(word.lower() for part in words for word in (_words(part) or [part]) if word.lower() not in _SIDES)


def _force_unit(column: _Column) -> tuple[ForceUnit | None, float]:
    if column.quantity == "force":
        return ("N", _FORCES[column.unit]) if column.unit in _FORCES else (None, 1.0)
    if column.unit in _METRES:
        return "m", _METRES[column.unit]
    return ("V", _VOLTS[column.unit]) if column.unit in _VOLTS else (None, 1.0)


def _metres(column: _Column | None) -> tuple[bool, float]:
    """Whether a distance is in a unit we know, and how many metres that is."""
    unit = None if column is None else column.unit
    return (True, _METRES[unit]) if unit in _METRES else (False, 1.0)


def _pulling(force: Samples) -> float:
    """1 where pulling seems positive, else -1: a retract begins in the push against the surface, or shows one pull."""
    known = force[np.isfinite(force)]
    if known.shape[0] < 8:
        return 1.0
    far = known[-max(known.shape[0] // 5, 2) :]
    level, noise = float(np.median(far)), float(np.median(np.abs(np.diff(far))))
    start = float(np.median(known[: max(known.shape[0] // 100, 2)])) - level
    if abs(start) > 10 * noise:
        return -1.0 if start > 0 else 1.0
    return 1.0 if known.max() - level >= level - known.min() else -1.0
