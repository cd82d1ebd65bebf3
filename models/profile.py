"""The raster profile: the frozen, versioned value that says how a retract becomes a picture.

It is stored with every model and named in every event, because a verdict is only as comparable as the picture it
was made from. Change any number here and it is another profile, with another id.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Scale = Literal["sigma", "pn"]


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
        digest = hashlib.sha256(self.to_json().encode()).hexdigest()[:8]
        return f"{self.name}-v{self.version}-{self.columns}x{self.rows}-{digest}"

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
