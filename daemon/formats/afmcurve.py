"""Our own file of one curve, ``.afmcurve``: for curves that came over the network, and for exports.

One line of JSON, then the arrays it lists, little-endian, one after the other. The line holds the SHA-256 of the bytes
after it and how many there are, so the file shows its own end and every flipped bit. Force is stored as the program
sees it: pulling positive, distance away from the surface.

A compact copy has fewer samples than the curve had, so it also carries what the front-end made of the curve itself, for
the raster profile that judged it: the copy gets the same score, verdict and reasons, bit for bit. For another profile
it is prepared from its own samples, as good as they are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from daemon.formats import dates, limits, samples
from daemon.formats.base import Blob, Format, Unfinished, Unreadable
from models.curve import Curve, Original, Prepared, Samples, describe, restore
from models.raster import RasterProfile
from models.reasons import REASONS

SUFFIX = ".afmcurve"
_MAGIC = b'{"afmcurve": 1, '
_ARRAYS = ("force", "distance", "approach_force")
_SIGNALS = ("prepared", "flipped")  # of the front-end, float32
_NUMBERS = ("spring_constant_n_per_m", "sensitivity_m_per_v", "duration_s", "acquired_s")
_MOST_HEADER_BYTES = 1 << 20
_LINE = json.JSONEncoder(allow_nan=False)
#: Of a compact copy. Enough to look at and to train on: the raster averages to far fewer. 32 KB with its distance axis.
MOST_POINTS = 4096
MOST_APPROACH_POINTS = 1024  # it is only looked at, and asked for its level far away


class PackedReader:
    format = Format(
        name="afmcurve",
        instrument="[your own software](programs.md#from-your-own-software)",
        files="`.afmcurve`, one curve a file, as `labels export --curves` writes them; or over ZeroMQ",
        suffixes=(SUFFIX,),
    )

    def claims(self, name: str, head: bytes) -> bool:
        return self.format.is_named(name) or head.startswith(_MAGIC)

    def open(self, blob: Blob, name: str, companion: Blob | None = None) -> PackedFile:
        return PackedFile(unpack(blob.whole())[0])


class PackedFile:
    def __init__(self, curve: Curve) -> None:
        self._curve = curve

    def __len__(self) -> int:
        return 1

    def curve(self, index: int) -> Curve:
        if self._curve.original is not None:  # somebody has judged it: nothing of it was never written
            return self._curve
        try:
            samples.check_written(self._curve.force)
        except Unfinished as error:  # the file is whole, by its digest: waiting would not mend it
            raise Unreadable(error.reason) from None
        return self._curve


def pack(curve: Curve, meta: Mapping[str, Any] | None = None, dtype: Literal["<f4", "<f8"] = "<f4") -> bytes:
    """The bytes of a file; ``meta`` is any JSON that shall travel with the curve."""
    arrays: dict[str, NDArray[Any]] = {name: value for name in _ARRAYS if (value := getattr(curve, name)) is not None}
    original: dict[str, Any] | None = None
    types: dict[str, str] = dict.fromkeys(arrays, dtype)
    if curve.original is not None:
        found, signals = describe(curve.original.prepared)
        original = {"profile": curve.original.profile, **found}
        types |= dict.fromkeys(signals, "<f4")
        arrays |= signals
    with np.errstate(over="ignore"):  # a damaged number may be none of single precision
        parts = [np.ascontiguousarray(arrays[name], dtype=kind).tobytes() for name, kind in types.items()]
    payload = b"".join(parts)
    header = {
        "arrays": {name: {"dtype": kind, "points": arrays[name].shape[0]} for name, kind in types.items()},
        "payload_bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "force_unit": curve.force_unit,
        "distance_unit": "m",
        "distance_kind": curve.distance_kind,
        **{name: getattr(curve, name) for name in _NUMBERS},
        "notes": list(curve.notes),
        "original": original,
        "meta": dict(meta or {}),
    }
    return b"".join((_MAGIC, _LINE.encode(header)[1:].encode(), b"\n", payload))


def unpack(content: bytes) -> tuple[Curve, dict[str, Any]]:
    """Curve and meta; raises ``Unfinished`` without the end, ``Unreadable`` when the bytes are not those written."""
    line, newline, payload = content.partition(b"\n")
    if not newline:
        raise Unreadable("unreadable") if len(content) > _MOST_HEADER_BYTES else Unfinished("truncated")
    try:
        header = json.loads(line)
        layout = {str(k): (np.dtype(v["dtype"]), int(v["points"])) for k, v in header["arrays"].items()}
        payload_bytes, digest = int(header["payload_bytes"]), header["sha256"]
        meta = dict(header.get("meta", {}))
        fields = {name: _number(header.get(name)) for name in _NUMBERS}
        notes = tuple(map(str, header.get("notes", ())))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable("unreadable") from error
    if len(payload) < payload_bytes:
        raise Unfinished("truncated")
    if hashlib.sha256(payload).hexdigest() != digest:
        raise Unreadable("unreadable")
    arrays = _arrays(payload, layout)
    unit, kind = header.get("force_unit"), header.get("distance_kind")
    if "force" not in arrays or unit not in ("N", "m", "V", None) or kind not in ("piezo", "separation", None):
        raise Unreadable("no_force_channel")
    distance = arrays.get("distance")
    if distance is not None and distance.shape != arrays["force"].shape:
        raise Unreadable("unreadable")
    force, said = arrays["force"], header.get("original")
    known = _known(said, arrays) if isinstance(said, dict) else None
    curve = Curve(
        force=force,
        force_unit=unit,
        distance=distance,
        distance_kind=kind if distance is not None else None,
        approach_force=arrays.get("approach_force"),
        spring_constant_n_per_m=limits.plausible_spring_constant(fields["spring_constant_n_per_m"]),
        sensitivity_m_per_v=limits.plausible_sensitivity(fields["sensitivity_m_per_v"]),
        duration_s=fields["duration_s"],
        acquired_s=dates.plausible(fields["acquired_s"]),
        notes=notes,
        original=None if known is None else Original(str(said.get("profile")), known, force),
    )
    return curve, meta


def _known(said: Mapping[str, Any], arrays: Mapping[str, Samples]) -> Prepared | None:
    """What the front-end made of the original; None where the header says no such thing, and the samples must do."""
    signals = {name: arrays[name].astype(np.float32) for name in _SIGNALS if name in arrays}
    try:
        known = restore(said, signals)
        ways = [way for way in (known, known and known.flipped) if way is not None]
        is_sound = all(REASONS.keys() >= set(way.reasons) for way in ways)
    except (KeyError, TypeError, ValueError):
        return None
    numbers = (number for way in ways for number in (way.noise, way.level, way.tilt, way.contact))
    return known if is_sound and all(number is None or _number(number) is not None for number in numbers) else None


def _arrays(payload: bytes, layout: Mapping[str, tuple[np.dtype[Any], int]]) -> dict[str, Samples]:
    arrays: dict[str, Samples] = {}
    at = 0
    for name, (dtype, points) in layout.items():
        if name not in _ARRAYS + _SIGNALS or dtype.str not in ("<f4", "<f8") or points < 0:
            raise Unreadable("unreadable")
        samples.check_points(points)
        if at + points * dtype.itemsize > len(payload):
            raise Unreadable("unreadable")
        arrays[name] = np.frombuffer(payload, dtype, points, at).astype(np.float64)
        at += points * dtype.itemsize
    if at != len(payload):
        raise Unreadable("unreadable")
    return arrays


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def compact_copy_of(curve: Curve, profile: RasterProfile, prepared: Prepared | None) -> bytes:
    """A compact copy of a curve, because the instrument's file may go away; one of every flagged curve is kept.

    The bytes of an ``.afmcurve`` file: the retract in single precision, averaged down to ``MOST_POINTS``, and what the
    front-end made of the curve for ``profile``; None where it failed.
    """
    force, distance, approach = compact(curve.force), curve.distance, curve.approach_force
    notes = (*curve.notes, "averaged") if force.shape != curve.force.shape else curve.notes
    small = replace(
        curve,
        force=force,
        distance=None if distance is None else compact(distance),
        approach_force=None if approach is None else compact(approach, MOST_APPROACH_POINTS),
        notes=notes,
        original=None if prepared is None else Original(profile.id, prepared, force),
    )
    return pack(small)


def compact(samples: Samples, most: int = MOST_POINTS) -> Samples:
    """(n,) -> (m,), m <= ``most``: means of neighbours; NaN stays where it was."""
    n = samples.shape[0]
    if n <= most:
        return samples
    edges, sizes = _neighbours(n, most)
    means: Samples = np.add.reduceat(samples, edges) / sizes
    return means


@lru_cache(maxsize=64)  # curves of one instrument have few lengths
def _neighbours(n: int, most: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each of ``most`` means begins among ``n`` samples, and of how many it is; (most,) each."""
    edges = np.arange(most, dtype=np.intp) * n // most
    return edges, np.diff(edges, append=n)
