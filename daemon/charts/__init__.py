"""Charts: small drawings as SVG inside a page, with axes or of one curve, in the page's own colours.

They know nothing of ledgers and models: numbers go in, a picture comes out. Every chart has one size, so that its words
have one size on every page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray

from models.curve import Curve

#: Room beside the axes, in pixels: for ticks and their words.
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40


@dataclass(frozen=True, slots=True)
class Axis:
    """What one axis shows; ``logit`` stretches both ends of 0…1, where probabilities crowd.

    ``names``: the words at the ticks, in place of their numbers.
    """

    label: str
    low: float = 0.0
    high: float = 1.0
    ticks: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    logit: bool = False
    names: tuple[str, ...] = ()

    def share(self, value: float) -> float:
        """Where a value lies along the axis, 0 to 1; values beyond its ends lie at them."""
        value = min(max(value, self.low), self.high)
        if not self.logit:
            return (value - self.low) / (self.high - self.low)
        low, here, high = (math.log(p / (1 - p)) for p in (self.low, value, self.high))
        return (here - low) / (high - low)

    def named(self) -> list[tuple[float, str]]:
        """Each tick and what stands at it."""
        return list(zip(self.ticks, self.names or [f"{abs(tick):g}" for tick in self.ticks], strict=True))


@dataclass(slots=True)
class Drawing:
    """One diagram with axes, in pixels."""

    title: str
    x: Axis
    y: Axis
    width: int = 400
    height: int = 280
    _parts: list[str] = field(default_factory=list)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Values -> pixels."""
        wide, tall = self.width - LEFT - RIGHT, self.height - TOP - BOTTOM
        return LEFT + self.x.share(x) * wide, TOP + (1 - self.y.share(y)) * tall

    def line(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """A polyline of class ``kind``."""
        told = " ".join(f"{px:.1f},{py:.1f}" for px, py in (self.place(*point) for point in points))
        self._parts.append(f'<polyline class="{kind}" points="{told}"/>')

    def dot(self, x: float, y: float, radius: float, kind: str, says: str) -> None:
        """A dot that says what it is when pointed at."""
        px, py = self.place(x, y)
        self._parts.append(
            f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}">'
            f"<title>{escape(says)}</title></circle>"
        )

    def box(self, x: tuple[float, float], y: tuple[float, float], kind: str, says: str) -> None:
        """A filled rectangle between two corners."""
        (left, bottom), (right, top) = self.place(x[0], y[0]), self.place(x[1], y[1])
        shape = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        self._parts.append(f'<rect class="{kind}" {shape}><title>{escape(says)}</title></rect>')

    def note(self, x: float, y: float, text: str, anchor: str = "start", shift: tuple[int, int] = (4, 4)) -> None:
        """Words beside a point."""
        px, py = self.place(x, y)
        at = f'x="{px + shift[0]:.1f}" y="{py + shift[1]:.1f}" text-anchor="{anchor}"'
        self._parts.append(f"<text {at}>{escape(text)}</text>")

    def __str__(self) -> str:
        frame = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title)}">'
        return "".join([frame, *self._grid(), *self._parts, "</svg>"])

    def _grid(self) -> list[str]:
        (left, bottom), (right, top) = self.place(self.x.low, self.y.low), self.place(self.x.high, self.y.high)
        parts = []
        for tick, name in self.x.named():
            px = self.place(tick, self.y.low)[0]
            parts.append(f'<path class="grid" d="M{px:.1f} {top:.1f}V{bottom:.1f}"/>')
            parts.append(f'<text x="{px:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{escape(name)}</text>')
        for tick, name in self.y.named():
            py = self.place(self.x.low, tick)[1]
            parts.append(f'<path class="grid" d="M{left:.1f} {py:.1f}H{right:.1f}"/>')
            parts.append(f'<text x="{left - 6:.1f}" y="{py + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        middle = (top + bottom) / 2
        parts.append(
            f'<text class="axis" x="{(left + right) / 2:.1f}" y="{bottom + 33:.1f}" text-anchor="middle">'
            f"{escape(self.x.label)}</text>"
            f'<text class="axis" transform="translate(12 {middle:.1f}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y.label)}</text>"
        )
        return parts


def even_ticks(high: float, most: int = 6) -> tuple[float, ...]:
    """From 0 to the first round number that is no smaller than ``high``, in even steps of 1, 2 or 5 times ten."""
    high = high if high > 0 and math.isfinite(high) else 1.0
    size = 10.0 ** math.floor(math.log10(high / most))
    step = next(one * size for one in (1, 2, 5, 10, 20) if math.ceil(high / (one * size)) <= most)
    return tuple(round(place * step, 12) for place in range(max(math.ceil(high / step - 1e-9), 1) + 1))


def short(value: float) -> str:
    """Three digits, and no power of ten where people would write none: ``0.0417``, ``31.2``, ``4,090``."""
    return f"{float(f'{value:.3g}'):,.0f}" if 1_000 <= abs(value) < 1e6 else f"{value:.3g}"


def round_up(number: int) -> float:
    """A round number that is no smaller: 1, 2, 5, 10, 20 and so on."""
    size = 10 ** math.floor(math.log10(max(number, 1)))
    return float(next(step * size for step in (1, 2, 5, 10) if step * size >= number))


def outline(lower: Sequence[float], upper: Sequence[float], width: float, height: float) -> str:
    """Two edges of equal length, 0 to 1 upwards -> the d of a closed path over the whole of ``width``."""
    step = width / max(len(lower) - 1, 1)
    forth = [f"{place * step:.1f} {(1 - value) * height:.1f}" for place, value in enumerate(upper)]
    back = [f"{place * step:.1f} {(1 - value) * height:.1f}" for place, value in enumerate(lower)]
    return "M" + "L".join([*forth, *reversed(back)]) + "Z"


# A force curve as it was measured, small enough to stand among many.

#: Columns of a small curve.
COLUMNS = 150
_WIDTH, _HEIGHT = 220, 110
_HEAD = 0.16  # share of the height that the words above the curve have to themselves
_UNITS = {"N": (1e12, "pN"), "m": (1e9, "nm deflection"), "V": (1.0, "V"), None: (1.0, "as stored")}


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Lower and upper edge of the force in each column, pulling up, the surface at the left."""

    edges: NDArray[np.float32]  # (2, W), in force_unit
    unit: str | None
    travel_nm: float | None  # along the whole curve, where the file says
    places: tuple[float, ...] = ()  # to be marked: shares of the curve, 0 to 1


def trace(curve: Curve, columns: int = COLUMNS, samples: Sequence[int] = ()) -> Trace | None:
    """At most ``columns`` columns, with a mark at each of ``samples``; None for a curve that cannot be drawn."""
    force = curve.force
    if len(curve) < 2 or not np.isfinite(force).all():
        return None
    columns = min(columns, len(curve) // 2) or 1
    starts = np.arange(columns) * len(curve) // columns
    edges = np.stack((np.minimum.reduceat(force, starts), np.maximum.reduceat(force, starts)))
    travel = None if curve.distance is None else float(np.ptp(curve.distance)) * 1e9
    travel = travel if travel and np.isfinite(travel) else None
    places = tuple(sample / (len(curve) - 1) for sample in samples)
    return Trace(edges.astype(np.float32), curve.force_unit, travel, places)


def draw_trace(drawn: Trace | None) -> str:
    """The retract, pulling up, surface at the left; of the push only as much as leaves the pull its room."""
    if drawn is None:
        return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}"><text x="10" y="20">cannot be drawn</text></svg>'
    lower, upper = drawn.edges.astype(float)
    far = slice(2 * lower.size // 3, None)
    base = float(np.median((lower[far] + upper[far]) / 2))
    top = float(upper.max())
    rise = max(top - base, 4 * float(np.median(upper[far] - lower[far])), 1e-30)
    bottom = max(float(lower.min()), base - 0.5 * rise) - 0.05 * rise
    top = bottom + (max(top, base + rise) - bottom) / (1 - _HEAD)
    shares = [
        np.clip((edge - bottom) / (top - bottom), 0.0, 1.0).tolist() for edge in _thick(lower, upper, top - bottom)
    ]
    scale, unit = _UNITS.get(drawn.unit, _UNITS[None])
    size = f"{short(rise * scale)} {unit}" + ("" if drawn.travel_nm is None else f" over {drawn.travel_nm:.0f} nm")
    level = (1 - (base - bottom) / (top - bottom)) * _HEIGHT
    marks = "".join(
        f'<path class="threshold" d="M{share * _WIDTH:.1f} {_HEAD * _HEIGHT:.1f}v8"/>' for share in drawn.places
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="force curve, {escape(size)}">'
        f'<path class="grid" d="M0 {level:.1f}H{_WIDTH}"/>'
        f'<path class="trace" d="{outline(shares[0], shares[1], _WIDTH, _HEIGHT)}"/>{marks}'
        f'<text x="{_WIDTH - 4}" y="12" text-anchor="end">{escape(size)}</text></svg>'
    )


def _thick(
    lower: NDArray[np.float64], upper: NDArray[np.float64], span: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Joined to the neighbour, and at least about a pixel high."""
    joined = np.minimum(lower, np.append(upper[0], upper[:-1])), np.maximum(upper, np.append(lower[0], lower[:-1]))
    thin = 0.006 * span
    return joined[0] - thin, joined[1] + thin
