"""Charts and the page they stand in: one HTML file that needs no other, runs no code, and reads well everywhere.

A chart is a small drawing as SVG, with axes or of one curve, in the page's own colours, so that a dark screen, a light
one and paper hold. It knows nothing of ledgers and models: numbers go in, a picture comes out. Every chart has one
size, so that its words have one size on every page. Text that a page is given is escaped here. A picture is enlarged by
a click: a link to itself, as a style sheet alone can do it; a path is selected whole by a click.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray

from daemon.common.text import clean
from models.curve import Curve

#: Room beside the axes, in pixels: for ticks and their words.
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
_LETTER = 6.5  # how wide a letter is, in pixels; rather too wide


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
            half = _LETTER * len(name) / 2
            at = min(max(px, half), self.width - half)  # the first and the last word stay in the frame
            parts.append(f'<text x="{at:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{escape(name)}</text>')
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


def apart(names: Sequence[str]) -> list[int]:
    """The places of so many of the words, evenly over all, as stand below a chart without touching each other."""
    most = int((400 - LEFT - RIGHT) // (_LETTER * max(map(len, names), default=1) + 10)) or 1
    return list(range(0, len(names), -(-len(names) // most))) if names else []


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
    least = max(1e-6 * abs(base), 1e-30)  # of a flat line: what numbers of its size can tell apart
    rise = max(top - base, 4 * float(np.median(upper[far] - lower[far])), least)
    bottom = max(float(lower.min()), base - 0.5 * rise) - 0.05 * rise
    top = bottom + (max(top, base + rise) - bottom) / (1 - _HEAD)
    shares = [
        np.clip((edge - bottom) / (top - bottom), 0.0, 1.0).tolist() for edge in _thick(lower, upper, top - bottom)
    ]
    scale, unit = _UNITS.get(drawn.unit, _UNITS[None])
    # Where ruptures are marked, their forces are told beside the picture: against another baseline than this one.
    force = "" if drawn.places else f"{short(rise * scale)} {unit}"
    size = " over ".join(filter(None, [force, "" if drawn.travel_nm is None else f"{drawn.travel_nm:.0f} nm"]))
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


# The page.

STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7b; --line: #d5dde5; --paper: #ffffff; --band: #f2f6fa;
  --event: #0b7a75; --none: #9a6a00; --mark: #b3261e }
@media (prefers-color-scheme: dark) { :root { --ink: #e4eaf0; --soft: #9fb0c0; --line: #33414f; --paper: #12181f;
  --band: #1b242e; --event: #4fc3b8; --none: #e0b050; --mark: #ff8a80 } }
@page { size: A4 landscape; margin: 12mm }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper) }
h1 { font-size: 1.6rem; line-height: 1.25; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
h1, p, li { overflow-wrap: anywhere }
p, ul { max-width: 60rem } small, .soft { color: var(--soft); font-weight: 400 }
.lead { font-size: 1.1rem }
.warning { border-left: 4px solid var(--mark); background: var(--band); padding: .6rem 1rem }
.well { border-left: 4px solid var(--event); background: var(--band); padding: .6rem 1rem }
code { font: .85em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; user-select: all; -webkit-user-select: all;
  background: var(--band); border-radius: .2rem; padding: 0 .2rem }
nav { display: flex; flex-wrap: wrap; gap: .4rem .8rem; margin: 1rem 0 } nav a { color: var(--event) }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; font-size: .84rem }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left; overflow-wrap: break-word; min-width: 7rem; max-width: 30rem }
th { vertical-align: bottom; color: var(--soft); line-height: 1.25 }
th.group { text-align: center } td.words, th.words { text-align: left; overflow-wrap: break-word }
td small { display: block; font-size: .78rem }
tr.strong { font-weight: 600; background: var(--band) } td.bad { color: var(--mark); font-weight: 600 }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.2rem 0 }
.tile { background: var(--band); border-radius: .5rem; padding: .6rem 1rem }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2 } .tile small { display: block; line-height: 1.35 }
.diagrams { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem }
.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 34rem)) }
.thumbnails { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: 1rem }
.thumbnails figure { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem }
figure { margin: 0; min-width: 0 } figcaption { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere }
figcaption b { color: var(--ink) } figure a { display: block; color: inherit; text-decoration: none; cursor: zoom-in }
figure a.back { display: none }
figure:target { position: fixed; inset: 0; z-index: 1; overflow: auto; margin: 0; padding: 1rem 4vw; border: 0;
  border-radius: 0; background: var(--paper) }
figure:target svg { max-height: 82vh } figure:target svg text { font-size: 7px }
.thumbnails figure:target svg text { font-size: 4px } figure:target figcaption { font-size: 1rem }
figure:target > a { cursor: default } figure:target a.back { display: block; float: right; padding: .2rem .8rem;
  background: var(--band); border: 1px solid var(--line); border-radius: .3rem; cursor: zoom-out }
.keep { color: var(--event); font-weight: 600 } .review { color: var(--none); font-weight: 600 }
.discard { color: var(--mark); font-weight: 600 }
svg { width: 100%; height: auto; display: block } svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg text.axis { fill: var(--ink) }
svg .grid, svg .rule, svg .curve, svg .threshold { vector-effect: non-scaling-stroke }
svg .grid { stroke: var(--line); fill: none; stroke-width: 1 }
svg .rule { stroke: var(--soft); fill: none; stroke-dasharray: 3 3 }
svg .curve { stroke: var(--event); fill: none; stroke-width: 2 }
svg .whisker { stroke: var(--event); fill: none; opacity: .5 }
svg .point { fill: var(--event) } svg .rest { fill: var(--line) }
svg .event { fill: var(--event) } svg .none { fill: var(--none) } svg .mark { fill: var(--mark) }
svg .threshold { stroke: var(--mark); fill: none; stroke-width: 1.5 } svg .trace { fill: var(--ink) }
@media (max-width: 30rem) { th, td { padding: .25rem .3rem } th:first-child, td:first-child { min-width: 0 } }
@media (max-width: 56rem) { table.cards, .cards tbody, .cards tr, .cards td { display: block } .cards thead { display:
  none } .cards tr { border: 1px solid var(--line); border-radius: .5rem; padding: .3rem .6rem; margin: .6rem 0 }
  .cards td { border: 0; padding: .1rem 0; text-align: right; overflow: hidden } .cards td:first-child { font-weight:
  600; text-align: left }
  .cards td:not(:first-child)::before { content: attr(data-head); float: left; color: var(--soft); font-weight: 400;
  margin-right: 1rem } .cards td.words { text-align: right } .cards td.empty { display: none } }
@media print { nav { display: none } }
@media print { :root { --ink: #000; --soft: #444; --line: #bbb; --paper: #fff; --band: #eee; --event: #0b7a75;
  --none: #9a6a00; --mark: #b3261e } body { margin: 0; font-size: 10pt } figure, tr { break-inside: avoid }
  h2 { break-after: avoid } table { font-size: 7.5pt } figure:target { position: static; padding: .5rem }
  figure:target a.back { display: none } .thumbnails { grid-template-columns: repeat(4, 1fr) }
  .diagrams { grid-template-columns: repeat(2, 1fr) } .wide { overflow: visible } }
"""


#: So many columns fit on a telephone, of cells no longer than this.
_FEW, _LONG = 5, 16


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page; ``parts`` are made by the functions here."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
    body = "\n".join([f"<h1>{_text(title)}</h1>", *parts])
    head += f"<title>{_text(title)}</title>"
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def heading(text: str, mark: str = "") -> str:
    """``mark``: what a link of this page may lead to."""
    at = f' id="{_text(mark)}"' if mark else ""
    return f"<h2{at}>{_text(text)}</h2>"


def places(some: Iterable[tuple[str, str]]) -> str:
    """(words, mark of a heading): links to places of this page."""
    told = (f'<a href="#{_text(mark)}">{_text(words)}</a>' for words, mark in some)
    return f"<nav>{''.join(told)}</nav>"


def paragraph(text: str, kind: str = "") -> str:
    """``kind``: lead, soft, warning or well. What stands between `backticks` is a command to copy."""
    return f'<p class="{kind}">{_with_code(text)}</p>' if kind else f"<p>{_with_code(text)}</p>"


def listed(lines: Iterable[str], kind: str = "") -> str:
    """Lines with a dot before each, as paragraphs are."""
    return f'<ul class="{kind}">{"".join(f"<li>{_with_code(line)}</li>" for line in lines)}</ul>'


def copied(text: str) -> str:
    """A path or command that a click selects whole."""
    return f"<p><code>{_text(text)}</code></p>"


@dataclass(frozen=True, slots=True)
class Tile:
    """A number before its evidence."""

    name: str
    value: str
    says: str


def tiles(some: Iterable[Tile]) -> str:
    told = (
        f'<div class="tile">{_text(one.name)}<b>{_text(one.value)}</b><small>{_text(one.says)}</small></div>'
        for one in some
    )
    return f'<div class="tiles">{"".join(told)}</div>'


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table; ``kind``: bad, words for one that begins at its left edge, path for one to copy."""

    text: str
    small: str = ""
    kind: str = ""


def table(heads: Sequence[str | tuple[str, str]], rows: Sequence[Sequence[str | Cell]], strong: int = 0) -> str:
    """Rows under a head, the first ``strong`` of them emphasised; on a narrow screen each row of a wide one is a card.

    A head of two texts is a group of columns and the one's name in it; neighbours of one group share its head.
    """
    names = [("", one) if isinstance(one, str) else one for one in heads]
    filled_rows = [[one if isinstance(one, Cell) else Cell(one) for one in row] for row in rows]
    body = []
    for number, cells in enumerate(filled_rows):
        filled = "".join(_cell(cell, name) for cell, name in zip(cells, names, strict=True))
        body.append(f'<tr class="strong">{filled}</tr>' if number < strong else f"<tr>{filled}</tr>")
    is_text = [any(cells[place].kind == "words" for cells in filled_rows) for place in range(len(names))]
    is_wide = len(names) > _FEW or any(len(cell.text) > _LONG for cells in filled_rows for cell in cells)
    lines, kind = "\n".join(body), ' class="cards"' if is_wide else ""
    return (
        f'<div class="wide"><table{kind}><thead>{_head(names, is_text)}</thead><tbody>\n{lines}\n</tbody></table></div>'
    )


def _head(names: Sequence[tuple[str, str]], is_text: Sequence[bool]) -> str:
    groups = [group for group, _ in names]
    kinds = [' class="words"' if one else "" for one in is_text]
    second = "".join(f"<th{kind}>{_text(name)}</th>" for kind, (_, name) in zip(kinds, names, strict=True))
    if not any(groups):
        return f"<tr>{second}</tr>"
    first, place = [], 0
    while place < len(groups):
        wide = 1
        while groups[place] and place + wide < len(groups) and groups[place + wide] == groups[place]:
            wide += 1
        first.append(f'<th class="group" colspan="{wide}">{_text(groups[place])}</th>')
        place += wide
    return f"<tr>{''.join(first)}</tr><tr>{second}</tr>"


def _cell(cell: Cell, name: tuple[str, str]) -> str:
    kinds = " ".join(filter(None, [cell.kind, "" if cell.text else "empty"]))
    kind = f' class="{kinds}"' if kinds else ""
    small = f"<small>{_text(cell.small)}</small>" if cell.small else ""
    told = ", ".join(filter(None, name))
    text = f"<code>{_text(cell.text)}</code>" if cell.kind == "path" else _text(cell.text)
    return f'<td{kind} data-head="{_text(told)}">{text}{small}</td>'


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG and what is told below it: a name, a word with the class of its verdict, and more lines."""

    svg: str
    caption: str = ""
    name: str = ""
    verdict: str = ""
    beside: str = ""  # behind the verdict
    path: str = ""  # to copy


def pictures(some: Iterable[Picture], kind: str, prefix: str) -> str:
    """``kind``: diagrams, "diagrams two" for two columns, or thumbnails. ``prefix``: of their marks, each once."""
    figures = (_figure(one, f"{prefix}{number}") for number, one in enumerate(some))
    return f'<div class="{kind}">{"".join(figures)}</div>'


def _figure(one: Picture, mark: str) -> str:
    lines = []
    if one.name:
        lines.append(f"<b>{_text(one.name)}</b>")
    if one.verdict:
        lines.append(f'<span class="{_text(one.verdict)}">{_text(one.verdict)}</span> {_text(one.beside)}')
    if one.caption:
        lines.append(_text(one.caption))
    if one.path:
        lines.append(f"<code>{_text(one.path)}</code>")
    return (
        f'<div id="{mark}-at"><figure id="{mark}"><a class="back" href="#{mark}-at">close</a>'
        f'<a href="#{mark}">{one.svg}</a><figcaption>{"<br>".join(lines)}</figcaption></figure></div>'
    )


def _with_code(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _text(text: str) -> str:
    return escape(clean(text))
