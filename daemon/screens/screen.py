"""The screen: the board as lines of exactly the terminal's size.

From the top: the service, three blocks of numbers, what is not well, and below them two views of curves. On the left
every decision, newest first; on the right the kept and flagged ones, larger, because they are rare and would
otherwise scroll away among the discards. A wider or higher terminal gets more and larger drawings.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import zip_longest
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from daemon.client.status import promises, second_in_short, trends
from daemon.common.text import MARKS, bars, clean, duration, latency, rate, score, share
from daemon.screens.board import Board, Entry

# The sketch: a curve in a few characters, from the column envelope that its event carries.
#
# Braille characters have 2 x 4 dots, so a drawing of 24 x 3 characters shows 48 columns of 12 dots: enough to see
# a sawtooth. Each dot column spans its lower to its upper edge, so a spike of one sample stays visible.

#: Bit of each dot of a braille character, by row and column (Unicode block U+2800).
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
#: A curve that rises less above its baseline (of 255) is drawn flat instead of as magnified noise.
_LEAST_RISE = 56


@lru_cache(maxsize=512)
def sketch(preview: str | None, width: int, height: int) -> tuple[str, ...]:
    """``height`` rows of ``width`` characters, the surface at the left, pulling up; blank when there is no curve.

    ``preview``: base64 of uint8 (2, W), lower and upper edge of each column, 255 at the top.
    """
    edges = _edges(preview)
    if edges is None or width < 1 or height < 1:
        return (" " * width,) * height
    lower, upper = _resample(edges, 2 * width)
    floor, ceiling = _range(lower, upper)
    dots = 4 * height
    scale = (dots - 1) / (ceiling - floor)
    bottom = np.rint((lower - floor) * scale).astype(int)
    top = np.rint((upper - floor) * scale).astype(int)
    row = np.arange(dots)[::-1, None]  # (dots, 1), the highest first
    inked = (row >= bottom) & (row <= top)  # (dots, 2 * width)
    cells = inked.reshape(height, 4, width, 2).transpose(0, 2, 1, 3)  # (height, width, 4, 2)
    codes = 0x2800 + (cells * _DOTS).sum(axis=(2, 3))
    return tuple("".join(map(chr, line)) for line in codes)


def _range(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> tuple[float, float]:
    """What the drawing shows: all of the pull, and of the push at the surface only as much as leaves it room."""
    far = slice(2 * lower.size // 3, None)
    baseline = float(np.median((lower[far] + upper[far]) / 2))
    ceiling = max(float(upper.max()), baseline + _LEAST_RISE)
    return max(float(lower.min()), baseline - 0.5 * (ceiling - baseline)), ceiling


def _edges(preview: str | None) -> NDArray[np.float64] | None:
    try:
        raw = base64.b64decode(preview or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) < 4 or len(raw) % 2:
        return None
    return np.frombuffer(raw, np.uint8).reshape(2, -1).astype(float)


def _resample(edges: NDArray[np.float64], columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2, W) -> lower and upper edge of ``columns`` columns; joined columns keep the outermost of their edges."""
    width = edges.shape[1]
    if width < columns:
        place = np.arange(columns) * width // columns
        return edges[0, place], edges[1, place]
    starts = np.arange(columns) * width // columns
    return np.minimum.reduceat(edges[0], starts), np.maximum.reduceat(edges[1], starts)


# The picture: lines of a screen as an SVG that looks the same in every browser and viewer.
#
# Drawings (braille dots, bars, rules) become shapes and each word stands at its own place, because fonts disagree
# about the width of such characters. Text stays text: it can be searched and copied.

_CELL_W, _CELL_H, _FONT_PX, _MARGIN, _HEAD = 8.4, 18.0, 14.0, 16.0, 38.0
_PAPER, _INK = "#16181d", "#d7dae0"
_COLOURS = {
    "green": "#7fd06b",
    "yellow": "#f0b84a",
    "red": "#ff6b68",
    "cyan": "#57b6d9",
    "white": _INK,
    "bright_black": "#7d838f",
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
        colour = _COLOURS.get(style.color.name if style.color else "white", _INK)
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


_STYLES = {"keep": "green", "review": "yellow", "discard": "bright_black"}
_STATES = {"ready": "green", "degraded": "yellow", "paused": "yellow", "starting": "cyan", "stopping": "cyan"}
_QUIET = "bright_black"
_BLANK = Text()


def frame(board: Board, width: int, height: int) -> list[Text]:
    """Exactly ``height`` lines of exactly ``width`` cells."""
    head = [
        _header(board, width),
        *_numbers(board, width),
        *_session(board, width),
        *_guard(board, width),
        *([Text.assemble((" learns  ", _QUIET), board.learning)] if board.learning else []),
        _folders(board),
        *_health(board, 3 if height >= 40 else 1, width),
        *_hand(board, width),
    ]
    room = height - len(head) - 1
    tape_width = width - 2 if width < 72 else max(37, min(70, int(width * 0.36)))
    gallery_width = width - tape_width - 5
    tape = _tape(board, tape_width, room)
    if gallery_width < 24:
        body = [_titles(("last decisions", width)), *(_beside(((_BLANK, 1), (line, width - 1))) for line in tape)]
    else:
        gallery = _gallery(board, gallery_width, room)
        wall = Text("│", _QUIET)
        body = [_titles(("last decisions", tape_width + 2), ("kept and flagged", width - tape_width - 2), knot="┬")]
        for left, right in zip_longest(tape, gallery, fillvalue=_BLANK):
            body.append(_beside(((_BLANK, 1), (left, tape_width + 1), (wall, 2), (right, gallery_width + 1))))
    lines = [_fit(line, width) for line in (head + body)[:height]]
    return lines + [_fit(_BLANK, width) for _ in range(height - len(lines))]


def _fit(line: Text, width: int) -> Text:
    fitted = line.copy()
    fitted.no_wrap = True
    fitted.truncate(max(width, 0), overflow="ellipsis", pad=True)
    return fitted


def _beside(cells: Sequence[tuple[Text, int]]) -> Text:
    return Text.assemble(*(_fit(text, width) for text, width in cells))


def _right(text: Text, rest: Text, width: int) -> Text:
    """``text`` at the left, ``rest`` at the right edge; the left one gives way."""
    return _beside(((text, width - rest.cell_len - 1), (Text(" "), 1), (rest, rest.cell_len)))


def _titles(*parts: tuple[str, int], knot: str = "") -> Text:
    line = Text()
    for number, (title, width) in enumerate(parts):
        start = (knot if number else "─") + "─ "
        line.append(start, _QUIET).append(title, "bold")
        line.append(" " + "─" * (width - len(start) - len(title) - 1), _QUIET)
    return line


def _header(board: Board, width: int) -> Text:
    state = clean(str(board.status.get("state", "")))
    parts = [(" afm-triage ", "bold reverse"), (f" {board.instrument or '?'} ", "bold")]
    if board.is_linked:
        watched = clean(", ".join(map(str, board.status.get("watch") or ())))
        parts += [(f"● {state or 'running'}", _STATES.get(state, "white")), (f"  {watched}", _QUIET)]
    else:
        parts.append((f"○ {board.link_text}", "bold red"))
    age = f"up {duration(float(board.status.get('uptime_s') or 0))} · " if board.is_linked else ""
    keys = "" if board.selected else "↓ → select · "
    return _right(Text.assemble(*parts), Text(f"{age}{keys}q leaves ", _QUIET), width)


def _hand(board: Board, width: int) -> list[Text]:
    """What the keys would do to the selected curve, and what came of the last one."""
    one = board.selected
    told = _wrapped(Text(f" {board.told}", "bold"), width) if board.told else []
    if one is None:
        return told
    where = Text.assemble((" ▸ ", "bold"), (f"#{one.seq:,} ", _QUIET), tail(one.label, 40))
    keys = "k keep · d discard · u unsure · z undo " if width >= 100 else "k d u · z "
    return [*told, _right(where, Text(keys, _QUIET), width)]  # the last one answered, then the next one: a line each


def _numbers(board: Board, width: int) -> list[Text]:
    """Three blocks of three lines; a narrow terminal keeps the first ones."""
    blocks = [
        (_verdicts(board, first := max(33, int(width * 0.36))), first),
        (_flow(board, second := max(20, int(width * 0.26))), second),
        (_judge(board, third := max(20, width - first - second - 5)), third),
    ]
    shown = blocks if width >= 80 else blocks[: 2 if width >= 60 else 1]
    widths = [1] + [room + 2 for _, room in shown[:-1]] + [shown[-1][1]]
    rows = zip(*(block for block, _ in shown), strict=True)
    lines = [_beside(list(zip((_BLANK, *row), widths, strict=True))) for row in rows]
    return [Text(), *lines, Text()]


def _verdicts(board: Board, width: int) -> list[Text]:
    counts = board.counts
    total, lines = sum(counts.values()), []
    for verdict, count in counts.items():
        filled = round((width - 36) * count / total) if total else 0
        parts = (
            (f"{MARKS[verdict]} {verdict:<8}", _STYLES[verdict]),
            (f"{count:>8,}", "bold"),
            f"{share(count, total):>7}",
            (f"{rate(board.rate_per_s(verdict)):>8} ", _QUIET),
            ("━" * filled, _STYLES[verdict]),
        )
        lines.append(Text.assemble(*parts))
    return lines


def _flow(board: Board, width: int) -> list[Text]:
    session = board.status.get("session") or {}
    backlog, queue = int(session.get("backlog") or 0), board.review_queue
    room = min(width - 18, 30)
    history = bars(board.history(room), room) if room >= 6 else ""
    to_review = " to review" if 19 + len(f"{queue:,}") <= width else ""
    return [
        Text.assemble(("rate     ", _QUIET), (f"{rate(board.rate_per_s()):<8}", "bold"), (history, "cyan")),
        Text.assemble(("backlog  ", _QUIET), (f"{backlog:,}", "bold yellow" if backlog > 50 else "bold")),
        Text.assemble(("flagged  ", _QUIET), (f"{queue:,}", "bold"), (to_review, _QUIET)),
    ]


def _judge(board: Board, width: int) -> list[Text]:
    model, (p50, p99) = board.status.get("model") or {}, board.latency_s()
    name, basis = clean(str(model.get("id", "–"))), clean(f"  calibrated on {model.get('score_basis')}")
    is_told = bool(model) and 6 + len(name + basis) <= width
    return [
        Text.assemble(("p50 ", _QUIET), (latency(p50), "bold"), ("  p99 ", _QUIET), (latency(p99), "bold")),
        Text.assemble(("model ", _QUIET), name, (basis if is_told else "", _QUIET)),
        Text.assemble(("engine ", _QUIET), clean(str(board.status.get("engine") or "–"))),
    ]


def _session(board: Board, width: int) -> list[Text]:
    """The run that goes on, beside the numbers of all time."""
    if board.session is None:
        return []
    words, counts = board.session
    beside = Text.assemble(*((f"  {MARKS[verdict]} {count:,}", _STYLES[verdict]) for verdict, count in counts.items()))
    return [_right(Text.assemble((" session ", _QUIET), words), beside, width)]


def _guard(board: Board, width: int) -> list[Text]:
    """What is being missed, in three numbers that never merge, and how the tip has been; on one line if it fits."""
    said = [Text(text, "bold red" if text.startswith("▲") else "") for text in promises(board.guard)]
    numbers = Text.assemble((" missed  ", _QUIET), Text(" · ").join(said))
    charts = Text()
    for name, value, row in trends(board.guard, 16):
        charts.append(f"  {name} ", _QUIET).append(row, "cyan").append(f" {value} ")
    second = Text(f"   {second_in_short(board.guard)}".rstrip(), _QUIET)
    if said and numbers.cell_len + second.cell_len < width:
        numbers.append(second)
    if said and charts and numbers.cell_len + charts.cell_len >= width:
        return [numbers, Text(" tip   ", _QUIET).append(charts)]
    return [_right(numbers if said else Text(), charts, width)] if said or charts else []


def _folders(board: Board) -> Text:
    """When the last curve came, what waits, and a mark for each watched folder; what is not well comes first."""
    last_s, oldest_s = board.last_curve_s, board.oldest_pending_s
    came = "no curve yet" if last_s is None else f"last curve {duration(board.now() - last_s)} ago"
    line = Text.assemble((f" {came}", "bold"))
    if oldest_s is not None:
        line.append(f" · the oldest waits {duration(oldest_s)}", "bold yellow" if oldest_s >= 60 else _QUIET)
    for is_up, name, curve_s in sorted(board.folders(), key=lambda one: one[0]):
        mark, style = ("✓", "green") if is_up else ("▲", "bold red")
        age = "" if curve_s is None else f" {duration(board.now() - curve_s)}"
        line.append(f"   {mark} ", style).append(tail(name, 24)).append(age, _QUIET)
    return line


def _health(board: Board, most: int, width: int) -> list[Text]:
    lines = [Text(f" ▲ {trouble}", "bold red") for trouble in board.troubles()]
    lines += [Text(f" ▲ {one}", "bold yellow") for one in board.advice]
    ignored = Text(f"   ignored: {board.ignored}" if board.ignored else "", _QUIET)
    if not lines:
        return [Text(" ✓ all well" if board.is_linked else "", "green").append(ignored)]
    shown = [*_wrapped(lines[0], width), *lines[1:most]]
    if len(lines) > most:
        more = Text(f"(+{len(lines) - most} more) ", lines[most].style)
        shown[-1] = _right(shown[-1], more, width)
    return [*shown, *([ignored] if ignored else [])]


def _wrapped(line: Text, width: int) -> list[Text]:
    """In at most two lines: what to do stands at the end of what is told."""
    first, *others = line.wrap(Console(file=io.StringIO()), width)
    return [first, Text(" ").join([Text("  "), *others])] if others else [first]


def _tape(board: Board, width: int, height: int) -> list[Text]:
    """Every decision, two or three lines each, with a drawing in as many characters as there is room for."""
    each = 2 if height < 26 else 3
    drawing = 14 if width < 50 else 26
    lines: list[Text] = []
    for entry in _around(board, board.recent, height // each):
        beside = [_verdict(entry), _name(board, entry, width - drawing - 1), _footnote(entry)]
        for row, words in zip(_drawing(entry, drawing, min(each, 3)), beside, strict=False):
            lines.append(_beside(((row, drawing + 1), (words, width - drawing - 1))))
    return lines or [Text("no curve has come yet", _QUIET)]


def _around(board: Board, entries: Sequence[Entry], count: int) -> list[Entry]:
    """As many as there is room for: the newest, or down to the selected one."""
    selected = board.selected
    older = 0 if selected is None else sum(one.seq >= selected.seq for one in entries)
    first = max(older - count, 0)
    return list(entries)[first : first + count]


def _name(board: Board, entry: Entry, width: int) -> Text:
    """The curve, marked when it is selected, and what a person has said of it here."""
    said = f" ✎ {board.labels[entry.seq]}" if entry.seq in board.labels else ""
    name = tail(entry.label, width - len(said))
    return Text.assemble((name, "reverse" if board.selected == entry else ""), (said, "bold"))


def _verdict(entry: Entry) -> Text:
    style, note = _STYLES[entry.verdict], entry.why or latency(entry.latency_s)
    mark = (f"{MARKS[entry.verdict]} {entry.verdict:<7} ", style)
    return Text.assemble(mark, (score(entry.score), "bold"), (f" {note}", _QUIET))


def _footnote(entry: Entry) -> Text:
    return Text(f"#{entry.seq:,}  {latency(entry.latency_s)}", _QUIET)


def _drawing(entry: Entry, width: int, height: int) -> list[Text]:
    if entry.preview is None:
        return [Text("no curve".center(width) if row == height // 2 else "", _QUIET) for row in range(height)]
    return [Text(row, _STYLES[entry.verdict]) for row in sketch(entry.preview, width, height)]


def _gallery(board: Board, width: int, height: int) -> list[Text]:
    """Kept and flagged curves as cards, in as many columns and rows as fit."""
    columns = max(1, (width + 2) // 40)
    card_width = (width + 2) // columns - 2
    rows = max(1, round(height / max(6, min(10, card_width // 4))))
    card_height = height // rows
    cards = [_card(board, entry, card_width, card_height) for entry in _around(board, board.marked, rows * columns)]
    if not cards:
        return [Text("none kept or flagged yet", _QUIET)]
    lines: list[Text] = []
    for start in range(0, len(cards), columns):
        for parts in zip(*cards[start : start + columns], strict=True):
            lines.append(Text("  ").join([_fit(part, card_width) for part in parts]))
    return lines


def _card(board: Board, entry: Entry, width: int, height: int) -> list[Text]:
    """One caption, then the drawing, then a line of air."""
    mark = f"{MARKS[entry.verdict]} {score(entry.score)} "
    caption = Text.assemble((mark, f"bold {_STYLES[entry.verdict]}"), _name(board, entry, width - len(mark) - 1))
    why = [Text(f"  {entry.why}", _QUIET)] if entry.why else []
    drawing = _drawing(entry, width, max(1, height - 2 - len(why)))
    return [caption, *why, *drawing, Text()]


def tail(label: str, width: int) -> str:
    """The end of a name, where its number stands; without ``#0``, which may be left out, where it is too long."""
    for whole in (label, label.removesuffix("#0")):
        if Text(whole).cell_len <= width:
            return whole
    label = label.removesuffix("#0")
    while label and Text(label).cell_len > width - 1:
        label = label[1:]
    return "…" + label
