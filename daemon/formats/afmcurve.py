"""Our own file of one curve, ``.afmcurve``: for curves that came over the network, and for exports.

One line of JSON, then the arrays it lists, little-endian, one after the other. The line holds the SHA-256 of the bytes
after it and how many there are, so the file shows its own end and every flipped bit. Force is stored as the program
sees it: pulling positive, distance away from the surface.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from daemon.formats import dates, limits, samples
from daemon.formats.base import Format
from daemon.formats.blob import Blob
from daemon.formats.errors import Unfinished, Unreadable
from models.curve import Curve, Samples

SUFFIX = ".afmcurve"
_MAGIC = b'{"afmcurve": 1, '
_ARRAYS = ("force", "distance", "approach_force")
_NUMBERS = ("spring_constant_n_per_m", "sensitivity_m_per_v", "duration_s", "acquired_s")
_MOST_HEADER_BYTES = 1 << 20
#: Of a compact copy. Enough to look at and to train on: the raster averages to far fewer. 32 KB with its distance axis.
MOST_POINTS = 4096


class PackedReader:
    format = Format(
        name="afmcurve",
        instrument="[your own software](#from-your-own-software)",
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
        try:
            samples.check_written(self._curve.force)
        except Unfinished as error:  # the file is whole, by its digest: waiting would not mend it
            raise Unreadable(error.reason) from None
        return self._curve


def pack(curve: Curve, meta: Mapping[str, Any] | None = None, dtype: Literal["<f4", "<f8"] = "<f4") -> bytes:
    """The bytes of a file; ``meta`` is any JSON that shall travel with the curve."""
    arrays = {name: value for name in _ARRAYS if (value := getattr(curve, name)) is not None}
    payload = b"".join(np.ascontiguousarray(value, dtype=dtype).tobytes() for value in arrays.values())
    header = {
        "arrays": {name: {"dtype": dtype, "points": int(value.shape[0])} for name, value in arrays.items()},
        "payload_bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "force_unit": curve.force_unit,
        "distance_unit": "m",
        "distance_kind": curve.distance_kind,
        **{name: getattr(curve, name) for name in _NUMBERS},
        "notes": list(curve.notes),
        "meta": dict(meta or {}),
    }
    line = json.dumps(header, separators=(", ", ": "), allow_nan=False)
    return _MAGIC + line[1:].encode() + b"\n" + payload


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
    curve = Curve(
        force=arrays["force"],
        force_unit=unit,
        distance=distance,
        distance_kind=kind if distance is not None else None,
        approach_force=arrays.get("approach_force"),
        spring_constant_n_per_m=limits.plausible_spring_constant(fields["spring_constant_n_per_m"]),
        sensitivity_m_per_v=limits.plausible_sensitivity(fields["sensitivity_m_per_v"]),
        duration_s=fields["duration_s"],
        acquired_s=dates.plausible(fields["acquired_s"]),
        notes=notes,
    )
    return curve, meta


def _arrays(payload: bytes, layout: Mapping[str, tuple[np.dtype[Any], int]]) -> dict[str, Samples]:
    arrays: dict[str, Samples] = {}
    at = 0
    for name, (dtype, points) in layout.items():
        if name not in _ARRAYS or dtype.str not in ("<f4", "<f8") or points < 0:
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


def compact_copy_of(curve: Curve) -> bytes:
    """A compact copy of a flagged curve, kept in the ledger because the instrument's file may go away.

    The bytes of an ``.afmcurve`` file: the retract in single precision, averaged down to ``MOST_POINTS``.
    """
    force, distance = compact(curve.force), curve.distance
    notes = (*curve.notes, "averaged") if force.shape != curve.force.shape else curve.notes
    small = replace(
        curve,
        force=force,
        distance=None if distance is None else compact(distance),
        approach_force=None,
        notes=notes,
    )
    return pack(small)


def compact(samples: Samples) -> Samples:
    """(n,) -> (m,), m <= MOST_POINTS: means of neighbours; NaN stays where it was."""
    n = samples.shape[0]
    if n <= MOST_POINTS:
        return samples
    edges = np.arange(MOST_POINTS) * n // MOST_POINTS
    means: Samples = np.add.reduceat(samples, edges) / np.diff(edges, append=n)
    return means
