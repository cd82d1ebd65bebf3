"""The raster: from signals to the picture that the network sees.

Each column holds the smallest and the largest value of its samples and of the last sample before it, which joins
the polyline; each pixel then gets the length of that interval inside it. So the picture is connected and
antialiased, a spike of one sample survives, and because only gathers, minima, maxima and single elementwise
steps are used it has the same bits alone, in a batch, in training and in service.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# The raster profile: the frozen, versioned value that says how a retract becomes a picture.
#
# It is stored with every model and named in every event, because a verdict is only as comparable as the picture
# it was made from. Change any number here and it is another profile, with another id.

Scale = Literal["sigma", "pn"]
#: Units in which people are shown a force: pN, else a deflection.
ForceLabel = Literal["pN", "nm", "mV", ""]


@dataclass(frozen=True, slots=True)
class RasterProfile:
    """Columns are position along the retract, rows are asinh of force in ``scale`` units.

    ``scale`` "sigma" divides by the noise of the curve's own baseline and so needs no calibration; "pn" is
    piconewton and sends a curve without spring constant to review (reason ``no_calibration``).
    """

    name: str = "sigma"
    version: int = 1
    scale: Scale = "sigma"
    columns: int = 256
    rows: int = 128
    samples_per_column: int = 2  # the retract is averaged down to this many, so that noise does not grow with points
    lead: float = 0.1  # at most this share of the columns shows the push before contact ends
    softness: float = 4.0  # asinh is linear below and logarithmic above, in scale units
    lowest: float = -40.0  # pushing, in scale units: the bottom edge
    highest: float = 1000.0  # pulling, in scale units: the top edge
    thickness: float = 1.0  # rows that a noiseless line covers
    noise_low_pn: float = 0.2  # calibrated curves with less or more noise are outside what the model was made for
    noise_high_pn: float = 300.0

    def __post_init__(self) -> None:
        if self.scale not in ("sigma", "pn"):
            raise ValueError(f"raster profile: scale is {self.scale!r}, not sigma or pn")
        sizes = (self.columns, self.rows, self.samples_per_column, self.version)
        if any(not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 4096 for size in sizes):
            raise ValueError(
                "raster profile: columns, rows, samples_per_column and version are whole numbers, 1 to 4096"
            )
        numbers = [getattr(self, field.name) for field in fields(self) if field.type == "float"]
        if not all(math.isfinite(number) for number in numbers) or min(self.softness, self.thickness) <= 0:
            raise ValueError("raster profile: softness and thickness are above zero, every number is finite")
        if not 0 <= self.lead < 1:
            raise ValueError("raster profile: lead is 0 or more and below 1")
        if not self.lowest < self.highest or not 0 <= self.noise_low_pn < self.noise_high_pn:
            raise ValueError("raster profile: lowest < highest and noise_low_pn < noise_high_pn")

    @property
    def id(self) -> str:
        """Readable, and different for every difference: ``sigma-v1-256x128-1a2b3c4d``."""
        return _id_of(self)

    @property
    def samples(self) -> int:
        """The most samples a prepared signal has."""
        return self.columns * self.samples_per_column

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> RasterProfile:
        """The inverse of :meth:`to_json`; ValueError for a key that is missing, unknown or of the wrong kind."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(f"raster profile: keys differ: {sorted(set(values) ^ names)}")
        converted: dict[str, Any] = {}
        for field in fields(cls):
            value = values[field.name]
            wanted = str if field.type in ("str", "Scale") else (int if field.type == "int" else (int, float))
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise ValueError(f"raster profile: {field.name} has the wrong kind: {value!r}")
            converted[field.name] = float(value) if field.type == "float" else value
        return cls(**converted)


@lru_cache(maxsize=16)  # it is asked for with every curve
def _id_of(profile: RasterProfile) -> str:
    digest = hashlib.sha256(profile.to_json().encode()).hexdigest()[:8]
    return f"{profile.name}-v{profile.version}-{profile.columns}x{profile.rows}-{digest}"


Floats = NDArray[np.float32]


def envelope(signals: Sequence[Floats], profile: RasterProfile) -> Floats:
    """B signals of at least W samples each -> (B, 2, W), lower and upper edge of each column, in signal units."""
    width = profile.columns
    if not signals:
        return np.zeros((0, 2, width), np.float32)
    sizes = np.array([signal.shape[0] for signal in signals], np.int64)
    if int(sizes.min()) < width:
        raise ValueError(f"a signal of {int(sizes.min())} samples has fewer than the {width} columns")
    samples = np.concatenate(signals).astype(np.float32, copy=False)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    column = np.arange(width, dtype=np.int64)
    first = (starts[:, None] + (column[None] * sizes[:, None] + width - 1) // width).reshape(-1)
    before = samples[np.maximum(first - 1, np.repeat(starts, width))]
    lower = np.minimum(np.minimum.reduceat(samples, first), before)
    upper = np.maximum(np.maximum.reduceat(samples, first), before)
    return np.stack((lower.reshape(-1, width), upper.reshape(-1, width)), axis=1)


def to_rows(edges: Floats, profile: RasterProfile) -> Floats:
    """Signal units -> rows, 0 at the bottom edge, H at the top: asinh, then clipped to the picture."""
    soft = np.float32(profile.softness)
    bottom = np.arcsinh(np.float32(profile.lowest) / soft)
    top = np.arcsinh(np.float32(profile.highest) / soft)
    rows = (np.arcsinh(edges / soft) - bottom) * (np.float32(profile.rows) / (top - bottom))
    clipped: Floats = np.clip(rows, np.float32(0), np.float32(profile.rows)).astype(np.float32, copy=False)
    return clipped


def coverage(edges: Floats, profile: RasterProfile) -> Floats:
    """(B, 2, W) in signal units -> (B, 1, H, W) in [0, 1]; row 0 is the strongest push."""
    rows = to_rows(np.ascontiguousarray(edges, np.float32), profile)
    half = np.float32(profile.thickness / 2)
    lower, upper = rows[:, 0] - half, rows[:, 1] + half  # (B, W)
    edge = np.arange(profile.rows, dtype=np.float32)[:, None]  # (H, 1)
    images = np.empty((len(rows), 1, profile.rows, profile.columns), np.float32)
    above = np.empty_like(images[0, 0]) if len(rows) else None
    for place in range(len(rows)):  # one by one: 128 KB at a time stays in the caches, whatever the batch
        picture = images[place, 0]
        np.minimum(upper[place], edge + 1, out=picture)
        picture -= np.maximum(lower[place], edge, out=above)
        np.clip(picture, np.float32(0), np.float32(1), out=picture)
    return images


@dataclass(frozen=True, slots=True)
class PreviewAxes:
    """What the numbers of a preview stand for: force above the baseline, and piezo travel from the surface.

    A level v of 0 ... 255 is ``softness * sinh(a + v / 255 * (b - a))`` in ``unit``, where a and b are
    ``asinh(low / softness)`` and ``asinh(high / softness)``: near the baseline it is linear, far above logarithmic.
    Columns lie evenly between ``from_nm`` and ``to_nm``.
    """

    unit: ForceLabel  # "" where the file names none
    softness: float
    low: float  # of the bottom edge, which pushes
    high: float  # of the top edge
    from_nm: float | None  # None where the file has no distance
    to_nm: float | None

    def force(self, level: float) -> float:
        """Of a level of 0 to 255, in ``unit``."""
        bottom, top = math.asinh(self.low / self.softness), math.asinh(self.high / self.softness)
        return self.softness * math.sinh(bottom + level / 255 * (top - bottom))

    def level(self, force: float) -> float:
        """The inverse of :meth:`force`."""
        bottom, top = math.asinh(self.low / self.softness), math.asinh(self.high / self.softness)
        return 255 * (math.asinh(force / self.softness) - bottom) / (top - bottom)


def previews(edges: Floats, profile: RasterProfile) -> list[str]:
    """(B, 2, W) in signal units -> for each, base64 of uint8 (2, W): what an event carries, 255 at the top edge."""
    scaled = to_rows(np.ascontiguousarray(edges, np.float32), profile) * np.float32(255 / profile.rows)
    return [base64.b64encode(one.tobytes()).decode("ascii") for one in np.rint(scaled).astype(np.uint8)]
