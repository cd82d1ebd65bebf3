"""How screens are put out: their colours, the printer for standard output, and a picture of their lines.

Nobody can tell whether a terminal is dark or light. So the colours lie between: each has a contrast of four or more
both on black and on white, which no terminal's own yellow, green or grey has. Where there are sixteen colours only,
the nearest of them is taken.

The picture is an SVG that looks the same in every browser and viewer. Drawings (braille dots, bars, rules) become
shapes and each word stands at its own place, because fonts disagree about the width of such characters. Text stays
text: it can be searched and copied.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from html import escape

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

KEEP, REVIEW, ALARM = "color(28)", "color(130)", "color(160)"
QUIET = "color(243)"  # what explains; a discard
BARS = "color(31)"
BAD, WARN = f"bold {ALARM}", f"bold {REVIEW}"
VERDICTS = {"keep": KEEP, "review": REVIEW, "discard": QUIET}


class Printer(Console):
    """A rich console for lines of any length; a reader that has gone away (`| head`) is for our caller to handle."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(highlight=False, soft_wrap=True, stderr=stderr)

    def on_broken_pipe(self) -> None:
        """Called while the BrokenPipeError is handled; rich itself would end the process with 1."""
        raise  # noqa: PLE0704 - the one that rich is handling


_CELL_W, _CELL_H, _FONT_PX, _MARGIN, _HEAD = 8.4, 18.0, 14.0, 16.0, 38.0
_PAPER, _INK = "#16181d", "#d7dae0"
_COLOURS = {
    KEEP: "#7fd06b",
    REVIEW: "#f0b84a",
    ALARM: "#ff6b68",
    BARS: "#57b6d9",
    QUIET: "#7d838f",
}
_FONT = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def svg(lines: Sequence[Text], title: str) -> str:
    """A window with ``lines`` in it, all of the same width."""
    columns = max((line.cell_len for line in lines), default=0)
    width, height = columns * _CELL_W + 2 * _MARGIN, len(lines) * _CELL_H + _HEAD + _MARGIN
    shapes = [shape for row, line in enumerate(lines) for shape in _line(line, row)]
    buttons = "".join(
        f'<circle cx="{_MARGIN + 6 + 20 * place}" cy="19" r="6" fill="{colour}"/>'
        for place, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">\n'
        f"<title>{escape(title)}</title>\n"
        f'<rect width="100%" height="100%" rx="9" fill="{_PAPER}"/>{buttons}\n'
        f'<g font-family="{_FONT}" font-size="{_FONT_PX:g}" fill="{_INK}">\n'
        f'<text x="{width / 2:.0f}" y="24" text-anchor="middle" opacity="0.6">{escape(title)}</text>\n'
        + "\n".join(shapes)
        + "\n</g>\n</svg>\n"
    )


def _line(line: Text, row: int) -> Iterator[str]:
    """The shapes of one line: backgrounds, words, drawings."""
    paper = Console(file=io.StringIO(), width=1000, color_system="truecolor", force_terminal=True)
    x, y = _MARGIN, _HEAD + row * _CELL_H
    for segment in Text.assemble(line).render(paper):  # a style of the whole line becomes one of its parts
        style, width = segment.style or Style(), cell_len(segment.text) * _CELL_W
        colour = _COLOURS.get(style.color.name, _INK) if style.color else _INK
        if style.reverse:
            yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_CELL_H:g}" fill="{colour}"/>'
            colour = _PAPER
        weight = ' font-weight="bold"' if style.bold else ""
        path = ""
        for part in re.finditer(r"[\u2800-\u28ff\u2581-\u2588─━│┬]|[^\s\u2800-\u28ff\u2581-\u2588─━│┬]+", segment.text):
            left = x + cell_len(segment.text[: part.start()]) * _CELL_W
            if drawn := _shape(part[0], left, y):
                path += drawn
            elif part[0].strip("\u2800"):
                yield (
                    f'<text x="{left:.1f}" y="{y + 13.2:.1f}" fill="{colour}"{weight}'
                    f' textLength="{cell_len(part[0]) * _CELL_W:.1f}">{escape(part[0])}</text>'
                )
        if path:
            yield f'<path fill="{colour}" d="{path}"/>'
        x += width


def _shape(char: str, x: float, y: float) -> str:
    """The path of a character that draws, else "": a box each for bars and rules, a dot each for braille."""
    middle, centre = y + _CELL_H / 2, x + _CELL_W / 2
    if "\u2801" <= char <= "\u28ff":
        bits = ord(char) - 0x2800
        places = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
        dots = [place for bit, place in enumerate(places) if bits >> bit & 1]
        w, h = _CELL_W / 2, _CELL_H / 4
        return "".join(_box(x + column * w + 0.6, y + row * h + 0.6, w - 1.0, h - 1.0) for column, row in dots)
    if "\u2581" <= char <= "\u2588":
        high = _CELL_H * (ord(char) - 0x2580) / 8
        return _box(x, y + _CELL_H - high, _CELL_W - 0.8, high)
    boxes = {
        "─": _box(x, middle, _CELL_W, 1),
        "━": _box(x, middle - 1.5, _CELL_W, 3),
        "│": _box(centre, y, 1, _CELL_H),
        "┬": _box(x, middle, _CELL_W, 1) + _box(centre, middle, 1, _CELL_H / 2),
    }
    return boxes.get(char, "")


def _box(x: float, y: float, width: float, height: float) -> str:
    return f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h{-width:.1f}z"
