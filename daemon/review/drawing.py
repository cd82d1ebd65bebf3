"""The drawing: a curve as the page shows it, in real units where the file knows them, with what was found on it.

Force is above its baseline, in pN where the spring constant is known, else in nm or mV of deflection, else in the
file's own numbers. Distance is from the surface, in nm: the separation of tip and surface where the deflection is known
in metres (the travel of the piezo less the bend of the cantilever), else what the file has; a file without a distance
axis is drawn over shares of its retract. What was taken is said beside it, so that nobody takes one for another.

The heat along it is where the network that judged it looked. That needs torch, which takes seconds to load and hundreds
of megabytes: nothing of it before a person has opened the page.
"""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from daemon.judging.registry import Registry
from daemon.review.request import Refused
from models.bundle import BadBundle, Bundle, read
from models.curve import Curve, Prepared, Samples
from models.frontend import FAR_END, LARGEST, OPEN, first_shown, force_scale, prepare, turned
from models.raster import ForceLabel, RasterProfile, coverage, envelope
from models.ruptures import approach_nm, positions_nm, ruptures
from models.steps import Fall, strongest_step

if TYPE_CHECKING:
    from models.network import ResNet18

DistanceLabel = Literal["separation", "piezo", "distance", "share"]

#: Points that are sent; more than that no screen shows. Of a longer curve the lowest and highest of each stretch.
MOST_POINTS = 4096
#: Ruptures that are marked, the highest; more would hide the curve.
MOST_RUPTURES = 24
_PROFILE = RasterProfile()
#: More of the free curve than this share, that far below a tilted line: the line is no baseline. A push whose end was
#: not found lies below too, but is short.
_MOST_BELOW, _BELOW_NOISE = 0.25, 5.0


@dataclass(frozen=True, slots=True)
class Rupture:
    """Where the force falls at once, as models.ruptures has it, in the units of the axes."""

    x: float  # of the last sample before it, so that a mark there lies on the curve
    force: float  # just before it, against the baseline
    drop: float  # by how much it falls


@dataclass(frozen=True, slots=True)
class Baseline:
    """What nothing pulls at. ``level`` is where it is drawn: 0, as force is counted from it."""

    level: float
    noise: float | None  # rms, as the force axis, of the averaged curve
    line: tuple[tuple[float, float], tuple[float, float]]  # its two ends


@dataclass(frozen=True, slots=True)
class Disputed:
    """The strongest step, up or down, that the second opinion saw beyond the surface."""

    x: float  # of the last sample before it, as the axis
    force: float  # of that sample, as the axis
    rise: float  # as the force axis; negative: it falls
    t: float

    def words(self, force_unit: str, distance_unit: str) -> str:
        """What is to be looked at."""
        way = "rise" if self.rise > 0 else "fall"
        what = f"the force {way} by {abs(self.rise):.3g} {force_unit}".rstrip()
        turned = ", which is a rupture if the sign is wrong" if self.rise > 0 else ""
        return f"the second opinion sees {what} at {self.x:.3g} {distance_unit}{turned}"


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A curve ready to be drawn; x and y are (n,) each, the approach (m,)."""

    force_unit: ForceLabel
    distance_unit: Literal["nm", "%"]
    distance_kind: DistanceLabel
    x: Samples
    y: Samples  # NaN where the file holds no finite number
    approach: tuple[Samples, Samples] | None
    baseline: Baseline | None  # None where no level was found
    contact: float | None  # where the push ends, as the x axis; None where none was found
    ruptures: tuple[Rupture, ...]
    step: Disputed | None
    samples: NDArray[np.int64]  # (n,) of the retract, that x and y are of

    def plain(self) -> dict[str, Any]:
        """As JSON takes it; numbers of a line are little-endian single precision in base64."""
        baseline = self.baseline
        return {
            "force_unit": self.force_unit,
            "distance_unit": self.distance_unit,
            "distance_kind": self.distance_kind,
            "retract": {"x": packed(self.x), "y": packed(self.y)},
            "approach": None if self.approach is None else dict(zip("xy", map(packed, self.approach), strict=True)),
            "baseline": baseline and {"level": baseline.level, "noise": baseline.noise, "line": baseline.line},
            "contact": self.contact,
            "ruptures": [{"x": one.x, "force": one.force, "drop": one.drop} for one in self.ruptures],
        }


def packed(values: Samples) -> str:
    """Numbers as base64 of little-endian single precision; what is too large for it is not finite there."""
    with np.errstate(over="ignore"):
        return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def draw(curve: Curve) -> Drawing:
    """The drawing of any curve, also of one that no score could be made of."""
    prepared = prepare([curve], _PROFILE)[0]
    level = 0.0 if prepared.level is None else prepared.level
    factor, force_unit = force_scale(curve)
    force = _finite(curve.force) - level
    x, kind = _distance(curve, prepared)
    broken = _ruptures(curve, x, prepared)
    step = _step(force, x, factor, prepared)
    chosen = thin(force, [one for one, _ in broken] + ([] if step is None else [step[0]]))
    approach = _approach(curve, prepared)
    return Drawing(
        force_unit=force_unit,
        distance_unit="%" if kind == "share" else "nm",
        distance_kind=kind,
        x=x[chosen],
        y=factor * force[chosen],
        approach=None if approach is None else (approach[0], factor * approach[1]),
        baseline=None if prepared.level is None else _baseline(force, prepared, factor, x),
        contact=None if prepared.contact is None else 0.0,
        ruptures=tuple(rupture for _, rupture in broken),
        step=None if step is None else step[1],
        samples=chosen,
    )


def _finite(values: Samples) -> Samples:
    return np.where(np.abs(values) < LARGEST, values, np.nan)


def _distance(curve: Curve, prepared: Prepared) -> tuple[Samples, DistanceLabel]:
    """The axis, from the surface, and what it is of."""
    x, kind = positions_nm(curve, prepared)
    return (np.linspace(0.0, 100.0, len(curve)), "share") if x is None else (x, kind or "distance")


def _approach(curve: Curve, prepared: Prepared) -> tuple[Samples, Samples] | None:
    """The approach over the same range."""
    approach = curve.approach_force
    if approach is None or approach.shape[0] < 2:
        return None
    force = _finite(approach) - (prepared.level or 0.0)
    x = approach_nm(curve, prepared)
    x = np.linspace(100.0, 0.0, force.shape[0]) if x is None else x
    chosen = thin(force)
    return x[chosen], force[chosen]


def _baseline(force: Samples, prepared: Prepared, factor: float, x: Samples) -> Baseline | None:
    """Tilted as the front-end has found it, if that describes the far end better than a level line does.

    It takes the tilt from slopes in short stretches, and a slow wave has those too. None where the tilted line runs
    above much of the free curve: a molecule only pulls, so that a baseline lies along its curve or below.
    """
    far = force[-max(int(FAR_END * force.shape[0]), 2) :]
    n, tilt = far.shape[0], prepared.tilt or 0.0
    tilted = tilt * (np.arange(n) - (n - 1)) / force.shape[0]
    with np.errstate(invalid="ignore"):
        is_tilted = np.median(np.abs(far - tilted)) < 0.8 * np.median(np.abs(far))
    noise = None if prepared.noise is None else factor * prepared.noise
    if is_tilted and prepared.noise is not None:
        free = force[round((prepared.contact or 0.0) * force.shape[0]) :]
        line = tilt * np.linspace(-free.shape[0] / force.shape[0], 0.0, free.shape[0])
        with np.errstate(invalid="ignore"):
            if np.mean(free < line - _BELOW_NOISE * prepared.noise) > _MOST_BELOW:
                return None
    start = -factor * tilt if is_tilted else 0.0
    return Baseline(0.0, noise, ((float(x[0]), start), (float(x[-1]), 0.0)))


def _ruptures(curve: Curve, x: Samples, prepared: Prepared) -> list[tuple[int, Rupture]]:
    """(sample, rupture) in the order of the curve; of many the highest."""
    highest = sorted(ruptures(curve, prepared), key=lambda one: -one.force)[:MOST_RUPTURES]
    told = [(one.index, Rupture(float(x[one.index]), one.force, one.drop)) for one in highest]
    return sorted(told, key=lambda one: one[0])


def _step(force: Samples, x: Samples, factor: float, prepared: Prepared) -> tuple[int, Disputed] | None:
    """(sample, what was seen there), of the signal as the network has it."""
    if prepared.signal is None or not np.isfinite(force).all() or (seen := strongest_step(prepared.signal)) is None:
        return None
    first = first_shown(force.shape[0], prepared.contact or 0.0, _PROFILE)
    n, way = force.shape[0] - first, 1.0 if seen.rise < 0 else -1.0
    at, drop = _place(way * force, Fall(first + round(seen.share * n), max(round(seen.width * n), 1), seen.t))
    return at, Disputed(float(x[at]), factor * float(force[at]), -way * factor * drop, seen.t)


def _place(force: Samples, fall: Fall) -> tuple[int, float]:
    """The last sample before a fall, on the curve as it was recorded, and how deep the fall is.

    The detector sees averages; among the samples behind them the fall is where the means of a few on each side differ
    most, and the mark stands on the highest of those just before it.
    """
    n, reach, few = force.shape[0], max(fall.width // 2, 1), max(fall.width // 4, 1)
    start, stop = max(fall.sample - reach, few), min(fall.sample + reach, n - few)
    total = np.concatenate(([0.0], np.cumsum(force)))
    cut = np.arange(start, max(stop, start) + 1)
    drop = (2 * total[cut] - total[cut - few] - total[np.minimum(cut + few, n)]) / few
    first = int(cut[drop.argmax()]) - few
    return first + int(force[first : first + few + 1].argmax()), float(drop.max())


def thin(values: Samples, needed: list[int] | None = None, most: int = MOST_POINTS) -> NDArray[np.int64]:
    """The samples to draw: of many, the lowest and the highest of each stretch, both ends, and what is ``needed``."""
    n = values.shape[0]
    if n <= most:
        return np.arange(n)
    edges = np.linspace(0, n, most // 2).astype(np.int64)
    filled = np.nan_to_num(values)
    low = [start + int(filled[start:stop].argmin()) for start, stop in pairwise(edges)]
    high = [start + int(filled[start:stop].argmax()) for start, stop in pairwise(edges)]
    return np.unique(np.array([0, n - 1, *low, *high, *(needed or [])], np.int64))


_WARM = 3  # models; a night has one, and two where the cut has moved


@dataclass(frozen=True, slots=True, eq=False)
class _Warm:
    bundle: Bundle
    network: ResNet18


class Heats:
    """Of models that are kept warm. Methods may be called from any thread; one heat is computed at a time."""

    def __init__(self, state: Path) -> None:
        self._registry = Registry(state / "models")
        self._models: OrderedDict[str, _Warm] = OrderedDict()
        self._lock = threading.Lock()
        self._warming: threading.Thread | None = None

    def warm(self, model: str) -> None:
        """Load this model in the background, once; that it cannot be found is told to who asks for a heat."""
        if self._warming is None:
            self._warming = threading.Thread(target=self._load, args=(model,), name="heat", daemon=True)
            self._warming.start()

    def of(self, curve: Curve, model: str) -> Samples:
        """(n,) one value a sample of the retract, 0 to 1; NaN where the picture does not show it.

        Raises Refused 404 where no score could be made of the curve, or the model is gone.
        """
        with self._lock:
            warm = self._warm(model)
            from models.network import look, place_of

            ways = [curve, turned(curve)] if OPEN in curve.notes else [curve]
            seen: list[tuple[float, Curve, Prepared, Samples]] = []
            for way in ways:
                (prepared,) = prepare([way], warm.bundle.profile)
                if prepared.signal is not None:
                    heat = look(
                        warm.network, coverage(envelope([prepared.signal], warm.bundle.profile), warm.bundle.profile)
                    )
                    seen.append((float(heat.logits[0]), way, prepared, heat.along[0].astype(np.float64)))
        if not seen:
            raise Refused(404, "no score could be made of this curve: the network has not seen it")
        _, way, prepared, along = max(seen, key=lambda one: one[0])
        return place_of(way, prepared, warm.bundle.profile).spread(along)

    def _load(self, model: str) -> None:
        with self._lock, suppress(Refused):
            self._warm(model)

    def _warm(self, model: str) -> _Warm:
        if model not in self._models:
            from models.network import load

            try:
                bundle = read(self._registry.find(model))
            except BadBundle as error:
                raise Refused(404, f"the model that judged this curve cannot be read: {error}") from None
            self._models[model] = _Warm(bundle, load(bundle.width, bundle.weights))
            while len(self._models) > _WARM:
                self._models.popitem(last=False)
        self._models.move_to_end(model)
        return self._models[model]
