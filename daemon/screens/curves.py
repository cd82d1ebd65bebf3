"""Curves on a screen: a drawing in braille characters, in rows of the last decisions, as cards, and one large.

Braille characters have 2 x 4 dots, so a drawing of 24 x 3 characters shows 48 columns of 12 dots: enough to see a
sawtooth. Each dot column spans its lower to its upper edge, so a spike of one sample stays visible. Force is drawn as
the network sees it, linear near the baseline and logarithmic far above: so the ticks of its scale are not even.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from daemon.common.text import MARKS, latency, score
from daemon.screens import QUIET, VERDICTS
from daemon.screens.board import Board, Entry
from models.clock import minute_of, rfc3339, time_of_day
from models.raster import PreviewAxes, RasterProfile
from models.reasons import REASONS

#: Bit of each dot of a braille character, by row and column (Unicode block U+2800).
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
#: A curve that rises less above its baseline (of 255) is drawn flat instead of as magnified noise.
_LEAST_RISE = 56
#: At most this share of the columns is left out so that the pull has room: more of the push no raster shows.
_MOST_PUSH = RasterProfile().lead
_GUTTER = 9  # cells of the force scale, left of a drawing
_LEAST_SCALED = 26  # cells that a drawing with scales is wide, at least

Edges = NDArray[np.float64]
_PAPER = Console(file=io.StringIO())


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """A drawing of ``height`` rows of ``width`` characters, and what part of the preview it shows."""

    rows: tuple[str, ...]
    floor: float  # level, of 255, of the lowest row of dots
    ceiling: float  # of the highest
    first: float  # share of the columns that is left out, before

    def row_of(self, level: float) -> int:
        """In which line a level lies, 0 the highest; outside of the drawing beyond its ends."""
        dots = 4 * len(self.rows) - 1
        return (dots - round((level - self.floor) / (self.ceiling - self.floor) * (dots - 1))) // 4


@lru_cache(maxsize=512)
def sketch(preview: str | None, width: int, height: int) -> Sketch | None:
    """The surface at the left, pulling up, with air above its highest dot; None where there is no curve.

    ``preview``: base64 of uint8 (2, W), lower and upper edge of each column, 255 at the top.
    """
    edges = edges_of(preview)
    if edges is None or width < 1 or height < 1:
        return None
    first, floor, ceiling = _range(edges)
    lower, upper = _resample(edges[:, first:], 2 * width)
    dots = 4 * height
    scale = (dots - 2) / (ceiling - floor)  # the highest row of dots stays free: drawings below each other never touch
    bottom = np.rint((lower - floor) * scale).astype(int)
    top = np.rint((upper - floor) * scale).astype(int)
    row = np.arange(dots)[::-1, None]  # (dots, 1), the highest first
    inked = (row >= bottom) & (row <= top)  # (dots, 2 * width)
    cells = inked.reshape(height, 4, width, 2).transpose(0, 2, 1, 3)  # (height, width, 4, 2)
    codes = 0x2800 + (cells * _DOTS).sum(axis=(2, 3))
    return Sketch(tuple("".join(map(chr, line)) for line in codes), floor, ceiling, first / edges.shape[1])


def _range(edges: Edges) -> tuple[int, float, float]:
    """First column, lowest and highest level to draw: all of the pull, and of the push what leaves it room."""
    lower, upper = edges
    width = lower.size
    far = slice(2 * width // 3, None)
    baseline = float(np.median((lower[far] + upper[far]) / 2))
    ceiling = max(float(upper.max()), baseline + _LEAST_RISE)
    floor = baseline - 0.5 * (ceiling - baseline)
    deep = np.flatnonzero(lower < floor)
    first = next((place for place in range(width) if place >= deep.size or deep[place] != place), width)
    first = min(first, int(_MOST_PUSH * width))
    return first, min(float(lower[first:].min()), floor), ceiling


def edges_of(preview: str | None) -> Edges | None:
    """(2, W), 0 to 255, of what an event carries; None where that is no drawing."""
    try:
        raw = base64.b64decode(preview or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) < 4 or len(raw) % 2:
        return None
    return np.frombuffer(raw, np.uint8).reshape(2, -1).astype(float)


def _resample(edges: Edges, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2, W) -> lower and upper edge of ``columns`` columns; joined columns keep the outermost of their edges."""
    width = edges.shape[1]
    if width < columns:
        place = np.arange(columns) * width // columns
        return edges[0, place], edges[1, place]
    starts = np.arange(columns) * width // columns
    return np.minimum.reduceat(edges[0], starts), np.maximum.reduceat(edges[1], starts)


def drawing(entry: Entry, width: int, height: int) -> list[Text]:
    """``height`` lines, without a scale."""
    drawn = sketch(entry.preview, width, height)
    if drawn is None:
        return [Text("no curve".center(width) if row == height // 2 else "", QUIET) for row in range(height)]
    return [Text(row, VERDICTS[entry.verdict]) for row in drawn.rows]


def scaled(entry: Entry, width: int, height: int) -> list[Text]:
    """``height`` lines with the scales of force and distance, where the event tells them and there is room."""
    axes = entry.axes
    if axes is None or height < 4 or width < _LEAST_SCALED + _GUTTER:
        return drawing(entry, width, height)
    drawn = sketch(entry.preview, width - _GUTTER, height - 1)
    if drawn is None:
        return drawing(entry, width, height)
    ticks = _force_ticks(axes, drawn)
    lines = []
    for number, row in enumerate(drawn.rows):
        told = ticks.get(number, "")
        edge = "┤" if told else "│"
        lines.append(Text.assemble((f"{told:>{_GUTTER - 1}}{edge}", QUIET), (row, VERDICTS[entry.verdict])))
    return [*lines, Text(" " * (_GUTTER - 1) + _distance_scale(axes, drawn, width - _GUTTER), QUIET)]


def _force_ticks(axes: PreviewAxes, drawn: Sketch) -> dict[int, str]:
    """Line -> the force there: 0, the largest round number, and between them what has a line of its own."""
    top = axes.force(drawn.ceiling)
    if not 0 < top < math.inf:
        return {}
    ticks = {drawn.row_of(axes.level(0.0)): "0"}
    power = math.floor(math.log10(top))
    for value in (digit * 10.0**exponent for exponent in (power, power - 1, power - 2) for digit in (5, 2, 1)):
        row = drawn.row_of(axes.level(value))
        if value <= top and all(abs(row - other) > 1 for other in ticks):
            ticks[row] = _number(value)
    highest = min(ticks)
    return {**ticks, highest: f"{ticks[highest]} {axes.unit}".rstrip()} if len(ticks) > 1 else ticks


def _distance_scale(axes: PreviewAxes, drawn: Sketch, width: int) -> str:
    """``└┴────┴────┴─``'s numbers: round distances below their places, the last with its unit."""
    if axes.from_nm is None or axes.to_nm is None or axes.to_nm <= axes.from_nm:
        return "└" + "─" * width
    start = axes.from_nm + drawn.first * (axes.to_nm - axes.from_nm)
    step = _round_step((axes.to_nm - start) / max(width // 12, 1))
    line, free = [" "] * (width + 1), 0
    values = [step * number for number in range(math.ceil(start / step), math.floor(axes.to_nm / step) + 1)]
    for value in values:
        told = f"{_number(value)} nm" if value == values[-1] else _number(value)
        place = 1 + round((value - start) / (axes.to_nm - start) * (width - 1))
        begin = min(max(place - len(told) // 2, 0), width + 1 - len(told))
        if begin >= free:
            line[begin : begin + len(told)] = told
            free = begin + len(told) + 1
    return "".join(line)


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, not below ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= least * (1 - 1e-9))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1 or value == 0 else f"{value:.2g}"


def range_in_words(entry: Entry) -> str:
    """``210 pN, 810 nm``: how high and how wide the drawing is."""
    axes, drawn = entry.axes, sketch(entry.preview, 14, 2)
    if axes is None or drawn is None:
        return ""
    height = f"{_two_digits(axes.force(drawn.ceiling))} {axes.unit}".rstrip()
    return height if axes.to_nm is None else f"{height}, {_two_digits(axes.to_nm)} nm"


def _two_digits(value: float) -> str:
    return _number(float(f"{value:.2g}"))


def when(entry: Entry, now_s: float, *, is_short: bool = False) -> str:
    """The time of its measurement, else of its decision: ``14:05:09`` (``14:05``) today, else with its day."""
    time_s = entry.time_s if entry.acquired_s is None else entry.acquired_s
    told = minute_of(rfc3339(time_s), now_s)
    return told if is_short or " " in told else time_of_day(time_s)


def why_in_words(entry: Entry) -> Iterator[str]:
    """The reasons that say more than "the score did", each as people say it."""
    for reason in entry.reasons:
        if reason != "score":
            yield REASONS[reason].text if reason in REASONS else reason


def around(board: Board, entries: Sequence[Entry], count: int) -> list[Entry]:
    """As many as there is room for: the newest, or down to the selected one."""
    selected = board.selected
    older = 0 if selected is None else sum(one.seq >= selected.seq for one in entries)
    first = max(older - count, 0)
    return list(entries)[first : first + count]


def tape(board: Board, width: int, height: int) -> list[Text]:
    """Every decision, two or three lines each, with a drawing in as many characters as there is room for."""
    each = 2 if height < 26 else 3
    drawn = 14 if width < 50 else 26
    lines: list[Text] = []
    for entry in around(board, board.recent, height // each):
        words = [
            _verdict(board, entry, width - drawn - 1),
            _name(board, entry, width - drawn - 1),
            _footnote(entry, width - drawn - 1),
        ]
        for row, said in zip(drawing(entry, drawn, each), words, strict=False):
            lines.append(beside((row, drawn + 1), (said, width - drawn - 1)))
    return lines or [Text("no curve has come yet", QUIET)]


def _name(board: Board, entry: Entry, width: int) -> Text:
    """The curve, marked when it is selected, and what a person has said of it here."""
    said = f" ✎ {board.labels[entry.seq]}" if entry.seq in board.labels else ""
    name = tail(entry.label, width - len(said))
    return Text.assemble((name, "reverse" if board.selected == entry else ""), (said, "bold"))


def _verdict(board: Board, entry: Entry, width: int) -> Text:
    """Mark, score and time; the verdict's name and its reasons where there is room."""
    name = f"{entry.verdict:<7} " if width >= 26 else ""
    line = Text.assemble((f"{MARKS[entry.verdict]} {name}", VERDICTS[entry.verdict]), (score(entry.score), "bold"))
    line.append(f" {when(entry, board.now())}", QUIET)
    return line.append(f"  {entry.why}", QUIET) if entry.why and line.cell_len + 4 < width else line


def _footnote(entry: Entry, width: int) -> Text:
    told = f"#{entry.seq:,}"
    for part in (range_in_words(entry), latency(entry.latency_s)):
        told += f"  {part}" if part and len(told) + 2 + len(part) <= width else ""
    return Text(told, QUIET)


def gallery(board: Board, width: int, height: int) -> list[Text]:
    """Kept and flagged curves as cards, in as many columns and rows as fit."""
    columns = max(1, (width + 2) // 40)
    card_width = (width + 2) // columns - 2
    rows = max(1, round(height / max(6, min(10, card_width // 4))))
    card_height = height // rows
    cards = [_card(board, entry, card_width, card_height) for entry in around(board, board.marked, rows * columns)]
    if not cards:
        return [Text("none kept or flagged yet", QUIET)]
    lines: list[Text] = []
    for start in range(0, len(cards), columns):
        for parts in zip(*cards[start : start + columns], strict=True):
            lines.append(Text("  ").join([fit(part, card_width) for part in parts]))
    return lines


def _card(board: Board, entry: Entry, width: int, height: int) -> list[Text]:
    """One caption, then the drawing, then a line of air."""
    mark = f"{MARKS[entry.verdict]} {score(entry.score)} "
    told = f" {when(entry, board.now(), is_short=width < 44)}"
    name = _name(board, entry, width - len(mark) - len(told))
    gap = " " * max(width - len(mark) - name.cell_len - len(told), 0)
    caption = Text.assemble((mark, f"bold {VERDICTS[entry.verdict]}"), name, gap, (told, QUIET))
    why = [Text(f"  {entry.why}", QUIET)] if entry.why and height >= 6 else []
    return [caption, *why, *scaled(entry, width, max(1, height - 2 - len(why))), Text()]


def one_large(board: Board, entry: Entry, width: int, height: int) -> list[Text]:
    """The curve that was opened, with all that its event tells, over ``height`` lines."""
    place = next((number for number, one in enumerate(board.marked, 1) if one.seq == entry.seq), None)
    whole = max(board.counts["keep"] + board.counts["review"], len(board.marked))
    among = "" if place is None else f"{place:,} of {whole:,} kept and flagged, the newest first"
    verdict = f" {MARKS[entry.verdict]} {entry.verdict} {score(entry.score).strip()}  "
    said = f"  ✎ {board.labels[entry.seq]}" if entry.seq in board.labels else ""
    head = Text.assemble((verdict, f"bold {VERDICTS[entry.verdict]}"), (when(entry, board.now()), "bold"))
    head.append(f"  #{entry.seq:,}  {among}", QUIET).append(said, "bold")
    facts = [Text(f" {entry.full_name}", "bold")]
    facts += [Text(f"   {one}", QUIET) for one in why_in_words(entry)]
    facts.append(Text(f"   judged by {entry.model}, {latency(entry.latency_s)} after its file was complete", QUIET))
    lines = [line for one in (head, *facts) for line in wrapped(one, width)]
    room = max(height - len(lines) - 1, 4)
    large = (beside((Text(" "), 1), (one, width - 1)) for one in scaled(entry, width - 2, room))
    return [*lines[: max(height - room - 1, 1)], Text(), *large]


def wrapped(line: Text, width: int, indent: int = 3) -> list[Text]:
    """In as many lines as it takes, those after the first indented."""
    first, *others = line.wrap(_PAPER, width)
    if not others:
        return [first]
    for one in others:
        one.rstrip()
    rest = Text(" ").join(others)
    return [first, *(Text.assemble(" " * indent, one) for one in rest.wrap(_PAPER, max(width - indent, 1)))]


def beside(*cells: tuple[Text, int]) -> Text:
    return Text.assemble(*(fit(text, width) for text, width in cells))


def fit(line: Text, width: int) -> Text:
    """Exactly ``width`` cells."""
    fitted = line.copy()
    fitted.no_wrap = True
    fitted.truncate(max(width, 0), overflow="ellipsis", pad=True)
    return fitted


def tail(label: str, width: int) -> str:
    """The end of a name, where its number stands; without ``#0``, which may be left out, where it is too long."""
    for whole in (label, label.removesuffix("#0")):
        if Text(whole).cell_len <= width:
            return whole
    label = label.removesuffix("#0")
    while label and Text(label).cell_len > width - 1:
        label = label[1:]
    return "…" + label
