"""Small drawings as SVG inside a page: axes, lines, dots. Colours are the page's, so that dark mode and print hold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40


@dataclass(frozen=True, slots=True)
class Axis:
    """What one axis shows; ``logit`` stretches both ends of 0…1, where probabilities crowd."""

    label: str
    low: float = 0.0
    high: float = 1.0
    ticks: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    logit: bool = False

    def share(self, value: float) -> float:
        """Where a value lies along the axis, 0 to 1; values beyond its ends lie at them."""
        value = min(max(value, self.low), self.high)
        if not self.logit:
            return (value - self.low) / (self.high - self.low)
        low, here, high = (math.log(p / (1 - p)) for p in (self.low, value, self.high))
        return (here - low) / (high - low)


@dataclass(slots=True)
class Drawing:
    """One diagram with axes, in pixels."""

    title: str
    x: Axis
    y: Axis
    width: int = 360
    height: int = 300
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
        for tick in self.x.ticks:
            px = self.place(tick, self.y.low)[0]
            parts.append(f'<path class="grid" d="M{px:.1f} {top:.1f}V{bottom:.1f}"/>')
            parts.append(f'<text x="{px:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{tick:g}</text>')
        for tick in self.y.ticks:
            py = self.place(self.x.low, tick)[1]
            parts.append(f'<path class="grid" d="M{left:.1f} {py:.1f}H{right:.1f}"/>')
            parts.append(f'<text x="{left - 6:.1f}" y="{py + 4:.1f}" text-anchor="end">{abs(tick):g}</text>')
        middle = (top + bottom) / 2
        parts.append(
            f'<text class="axis" x="{(left + right) / 2:.1f}" y="{bottom + 33:.1f}" text-anchor="middle">'
            f"{escape(self.x.label)}</text>"
            f'<text class="axis" transform="translate(12 {middle:.1f}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y.label)}</text>"
        )
        return parts


def outline(lower: Sequence[float], upper: Sequence[float], width: float, height: float) -> str:
    """Two edges of equal length, 0 to 1 upwards -> the d of a closed path over the whole of ``width``."""
    step = width / max(len(lower) - 1, 1)
    forth = [f"{place * step:.1f} {(1 - value) * height:.1f}" for place, value in enumerate(upper)]
    back = [f"{place * step:.1f} {(1 - value) * height:.1f}" for place, value in enumerate(lower)]
    return "M" + "L".join([*forth, *reversed(back)]) + "Z"
