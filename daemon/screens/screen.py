"""The screen: the board as lines of exactly the terminal's size.

From the top: the service, three blocks of numbers, what is not well, and below them two views of curves. On the left
every decision, newest first; on the right the kept and flagged ones, larger, because they are rare and would
otherwise scroll away among the discards. A wider or higher terminal gets more and larger drawings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from rich.text import Text

from daemon.common.text import MARKS, clean, duration, latency, rate, score, share
from daemon.screens.board import Board, Entry
from daemon.screens.drawing import bars, sketch

_STYLES = {"keep": "green", "review": "yellow", "discard": "bright_black"}
_STATES = {"ready": "green", "degraded": "yellow", "paused": "yellow", "starting": "cyan", "stopping": "cyan"}
_QUIET = "bright_black"
_BLANK = Text()


def frame(board: Board, width: int, height: int) -> list[Text]:
    """Exactly ``height`` lines of exactly ``width`` cells."""
    head = [_header(board, width), *_numbers(board, width), *_health(board, 3 if height >= 40 else 1)]
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
    return _right(Text.assemble(*parts), Text(f"{age}q leaves ", _QUIET), width)


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
    return [
        Text.assemble(("rate     ", _QUIET), (f"{rate(board.rate_per_s()):<8}", "bold"), (history, "cyan")),
        Text.assemble(("backlog  ", _QUIET), (f"{backlog:,}", "bold yellow" if backlog > 50 else "bold")),
        Text.assemble(("flagged  ", _QUIET), (f"{queue:,}", "bold"), (" to review", _QUIET)),
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


def _health(board: Board, most: int) -> list[Text]:
    troubles, ignored = board.troubles(), board.ignored
    if not troubles:
        well = Text(" ✓ all well", "green") if board.is_linked else Text()
        return [well.append(f"   ignored: {ignored}", _QUIET) if ignored else well]
    lines = [Text(f" ▲ {trouble}", "bold red") for trouble in troubles[:most]]
    if len(troubles) > most:
        lines[-1].append(f"  (+{len(troubles) - most} more)")
    return [*lines, Text(f"   ignored: {ignored}", _QUIET)] if ignored else lines


def _tape(board: Board, width: int, height: int) -> list[Text]:
    """Every decision, two or three lines each, with a drawing in as many characters as there is room for."""
    each = 2 if height < 26 else 3
    drawing = 14 if width < 50 else 26
    lines: list[Text] = []
    for entry in list(board.recent)[: height // each]:
        beside = [_verdict(entry), Text(tail(entry.label, width - drawing - 1)), _footnote(entry)]
        for row, words in zip(_drawing(entry, drawing, min(each, 3)), beside, strict=False):
            lines.append(_beside(((row, drawing + 1), (words, width - drawing - 1))))
    return lines or [Text("no curve has come yet", _QUIET)]


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
    cards = [_card(entry, card_width, card_height) for entry in list(board.marked)[: rows * columns]]
    if not cards:
        return [Text("none kept or flagged yet", _QUIET)]
    lines: list[Text] = []
    for start in range(0, len(cards), columns):
        for parts in zip(*cards[start : start + columns], strict=True):
            lines.append(Text("  ").join([_fit(part, card_width) for part in parts]))
    return lines


def _card(entry: Entry, width: int, height: int) -> list[Text]:
    """One caption, then the drawing, then a line of air."""
    mark = f"{MARKS[entry.verdict]} {score(entry.score)} "
    caption = Text.assemble((mark, f"bold {_STYLES[entry.verdict]}"), tail(entry.label, width - len(mark) - 1))
    why = [Text(f"  {entry.why}", _QUIET)] if entry.why else []
    drawing = _drawing(entry, width, max(1, height - 2 - len(why)))
    return [caption, *why, *drawing, Text()]


def tail(label: str, width: int) -> str:
    """The end of a path, where its number stands."""
    cut = Text(label)
    if cut.cell_len <= width:
        return label
    while label and Text(label).cell_len > width - 1:
        label = label[1:]
    return "…" + label
