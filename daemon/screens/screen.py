"""The screen: the board as lines of exactly the terminal's size.

From the top: the service, blocks of numbers, what is not well, and below them two views of curves. On the left every
decision, newest first; on the right the kept and flagged ones, larger, because they are rare and would otherwise scroll
away among the discards. A wider or higher terminal gets more and larger drawings. Two other views take the place of
all that: one curve large, and everything that is not well.

When the service is gone its numbers stay, for they are the last that are known, but all of it is pale and the first
line says since when.
"""

from __future__ import annotations

from itertools import zip_longest

from rich.text import Text

from daemon.client.status import promises, remembered, second_in_short, trends
from daemon.common.text import MARKS, bars, clean, duration, latency, rate, share
from daemon.screens import BAD, BARS, KEEP, QUIET, REVIEW, VERDICTS, WARN
from daemon.screens.board import Board
from daemon.screens.curves import beside, fit, gallery, one_large, tail, tape, wrapped
from models.clock import time_of_day

_STATES = {"ready": KEEP, "degraded": REVIEW, "paused": REVIEW, "starting": BARS, "stopping": BARS}
_BLANK = Text()
#: Seconds without a sign of life after which the first line says so; heartbeats come at most 5 s apart.
_QUIET_S = 6.0
_WITH_AIR = 32  # lines from which on blank ones stand around the numbers
_SMALL = 30  # with fewer, what can wait makes room for what is wrong
#: What the keys do, for `?`.
KEYS = (
    "↑ ↓ select · ← → kept or flagged · Enter opens · k keep · d discard · u unsure · z takes back · "
    "e picture · o page · ! what is wrong · Esc back · q leaves"
)

_KEYS_OF_ONE = "← newer · → older · k d u answer · z undo · e picture · o page · Esc back"

_KEYS_OF_ONE = "← newer · → older · k d u answer · z undo · e picture · o page · Esc back"


def frame(board: Board, width: int, height: int) -> list[Text]:
    """Exactly ``height`` lines of exactly ``width`` cells."""
    view = {"one": _one, "alarms": _alarms, "all": _overview}[board.view]
    lines = [fit(line, width) for line in view(board, width, height)[:height]]
    lines += [fit(_BLANK, width) for _ in range(height - len(lines))]
    if not board.is_linked and board.status:
        for line in lines[1:]:
            line.stylize("dim")
    return lines


def _overview(board: Board, width: int, height: int) -> list[Text]:
    numbers, has_judge = _numbers(board, width, has_air=height >= _WITH_AIR)
    learning = [Text.assemble((" learns  ", QUIET), board.learning)] if board.learning else []
    head = [
        _header(board, width),
        *numbers,
        *([] if has_judge else [_judge_line(board)]),
        *_session(board, width),
        *_guard(board, width),
        *(learning if height >= _SMALL or not _unwell(board) else []),
        _folders(board),
    ]
    hand = _hand(board, width)
    head += [*_health(board, max(height // 3, height - len(head) - len(hand) - 7), width), *hand]
    room = height - len(head) - 1
    tape_width = width - 2 if width < 72 else max(37, min(70, int(width * 0.36)))
    gallery_width = width - tape_width - 5
    left = tape(board, tape_width, room)
    if gallery_width < 24:
        body = [_titles(("last decisions", width)), *(beside((_BLANK, 1), (line, width - 1)) for line in left)]
    else:
        right = gallery(board, gallery_width, room)
        wall = Text("│", QUIET)
        body = [_titles(("last decisions", tape_width + 2), ("kept and flagged", width - tape_width - 2), knot="┬")]
        for one, other in zip_longest(left, right, fillvalue=_BLANK):
            body.append(beside((_BLANK, 1), (one, tape_width + 1), (wall, 2), (other, gallery_width + 1)))
    return head + body


def _one(board: Board, width: int, height: int) -> list[Text]:
    """The selected curve; what is wrong stays in sight."""
    entry = board.selected
    if entry is None:
        return [_header(board, width)]
    head = [_header(board, width), *_health(board, max(height // 4, 2), width, is_short=True)]
    foot = [*_told(board, width), _key_line(_KEYS_OF_ONE, width)]
    return [*head, *one_large(board, entry, width, height - len(head) - len(foot)), *foot]


def _alarms(board: Board, width: int, height: int) -> list[Text]:
    """All that is not well, whole, and what was told before."""
    lines = [_header(board, width), _titles(("what is wrong", width))]
    for style, text in _unwell(board):
        lines += wrapped(Text(f" ▲ {text}", style), width)
    if len(lines) == 2:
        lines.append(Text(" ✓ nothing: all is well" if board.is_linked else " nobody knows: no service answers", KEEP))
    if before := remembered(board.guard, is_running=True):
        lines += [_BLANK, _titles(("what was told before, and is over", width))]
        for _, name, text in before:
            lines += wrapped(Text(f"   {name}{name and ': '}{text}", QUIET), width)
    if board.ignored:
        lines += [_BLANK, *wrapped(Text(f"   ignored: {board.ignored}", QUIET), width)]
    if to := board.messages_to:
        lines += wrapped(Text(f"   messages go to {to}", QUIET), width)
    foot = _key_line("Esc back", width)
    if len(lines) > height - 1:
        more = Text(f" … {len(lines) - height + 2:,} more lines: `afm-triage status` tells them all", QUIET)
        lines = [*lines[: height - 2], more]
    return [*lines, *[_BLANK] * (height - 1 - len(lines)), foot]


def _key_line(keys: str, width: int) -> Text:
    return fit(Text(f" {keys}", QUIET), width)


def _right(text: Text, rest: Text, width: int) -> Text:
    """``text`` at the left, ``rest`` at the right edge; the left one gives way."""
    return beside((text, width - rest.cell_len - 1), (Text(" "), 1), (rest, rest.cell_len))


def _titles(*parts: tuple[str, int], knot: str = "") -> Text:
    line = Text()
    for number, (title, width) in enumerate(parts):
        start = (knot if number else "─") + "─ "
        line.append(start, QUIET).append(title, "bold")
        line.append(" " + "─" * (width - len(start) - len(title) - 1), QUIET)
    return line


def _header(board: Board, width: int) -> Text:
    state = clean(str(board.status.get("state", "")))
    parts = [(" afm-triage ", "bold reverse"), (f" {board.instrument or '?'} ", "bold")]
    heard_s = board.heard_s
    silent_s = 0.0 if heard_s is None else board.now() - heard_s
    if board.is_linked and silent_s < _QUIET_S:
        watched = clean(", ".join(map(str, board.status.get("watch") or ())))
        parts += [(f"● {state or 'running'}", _STATES.get(state, "")), (f"  {watched}", QUIET)]
    elif heard_s is None:
        parts.append((f"○ {board.link_text}", BAD))
    else:
        what = f"▲ no answer for {duration(silent_s)}, as of {time_of_day(heard_s)}"
        parts.append((f" {what} ", f"{BAD} reverse"))
    age = f"up {duration(float(board.status.get('uptime_s') or 0))} · " if board.is_linked else ""
    return _right(Text.assemble(*parts), Text(f"{age}? keys · q leaves ", QUIET), width)


def _told(board: Board, width: int) -> list[Text]:
    return wrapped(Text(f" {board.told}", "bold"), width) if board.told else []


def _hand(board: Board, width: int) -> list[Text]:
    """What the keys would do to the selected curve, and what came of the last one."""
    one, told = board.selected, _told(board, width)
    if one is None:
        return told
    where = Text.assemble((" ▸ ", "bold"), (f"#{one.seq:,} ", QUIET), tail(one.label, 40))
    keys = "Enter opens · k keep · d discard · u unsure · z undo " if width >= 110 else "Enter · k d u · z "
    return [*told, _right(where, Text(keys, QUIET), width)]  # the last one answered, then the next one: a line each


def _numbers(board: Board, width: int, *, has_air: bool) -> tuple[list[Text], bool]:
    """Blocks of four lines, of which a narrow terminal keeps the first ones; and whether the third is there."""
    first = min(width - 2, _verdicts_width(board, width))
    blocks, left = [(_verdicts(board, first), first)], width - first - 4
    if left >= 22:
        second = min(left, 44) if left < 56 else min(left - 33, 44)
        blocks.append((_flow(board, second), second))
        left -= second + 3
    if left >= 30:
        blocks.append((_judge(board, left), left))
    widths = [room + 3 for _, room in blocks[:-1]] + [blocks[-1][1]]
    rows = zip(*(block for block, _ in blocks), strict=True)
    lines = [beside((_BLANK, 1), *zip(row, widths, strict=True)) for row in rows]
    return [Text(), *lines, Text()] if has_air else lines, len(blocks) == 3


def _verdicts_width(board: Board, width: int) -> int:
    plain = 36 if board.session is None else 52
    return plain + (min(width - 130, 40) if width >= 140 else 0)  # and a bar of the shares


def _verdicts(board: Board, width: int) -> list[Text]:
    """All time, and beside it the session that goes on: counts and shares."""
    counts, session = board.counts, board.session
    total = sum(counts.values())
    its = None if session is None else session[1]
    now = "" if session is None else f"{'session ' + clean(str(session[0])):>16}"
    lines = [Text.assemble((f"{'':<10}{now}{'all time':>15}{'a minute':>9}", QUIET))]
    for verdict, count in counts.items():
        parts = [(f"{MARKS[verdict]} {verdict:<8}", VERDICTS[verdict])]
        if its is not None:
            parts += [(f"{its[verdict]:>9,}", "bold"), (f"{share(its[verdict], sum(its.values())):>7}", "")]
        parts += [(f"{count:>8,}", "bold" if its is None else ""), (f"{share(count, total):>7}", QUIET)]
        parts.append((f"{_a_minute(board.rate_per_s(verdict)):>9}  ", QUIET))
        room = width - sum(len(text) for text, _ in parts)
        shown = counts if its is None else its
        whole = sum(shown.values())
        filled = round(room * shown[verdict] / whole) if room > 4 and whole else 0
        lines.append(Text.assemble(*parts, ("━" * filled, VERDICTS[verdict])))
    return lines


def _a_minute(per_s: float) -> str:
    return f"{60 * per_s:,.0f}" if per_s > 0 else "–"


def _flow(board: Board, width: int) -> list[Text]:
    session = board.status.get("session") or {}
    backlog, queue, (p50, p99) = int(session.get("backlog") or 0), board.review_queue, board.latency_s()
    room = min(width - 18, 30)
    history = bars(board.history(room), room) if room >= 6 else ""
    return [
        Text.assemble(("rate     ", QUIET), (f"{rate(board.rate_per_s()):<8}", "bold"), (history, BARS)),
        Text.assemble(("backlog  ", QUIET), (f"{backlog:,}", f"bold {REVIEW}" if backlog > 50 else "bold")),
        Text.assemble(("review   ", QUIET), (f"{queue:,}", "bold"), (" left" if width >= 24 else "", QUIET)),
        Text.assemble(("p50 ", QUIET), (latency(p50), "bold"), ("  p99 ", QUIET), (latency(p99), "bold")),
    ]


def _judge(board: Board, width: int) -> list[Text]:
    model = board.status.get("model") or {}
    name, basis = clean(str(model.get("id", "–"))), clean(f"  calibrated on {model.get('score_basis')}")
    is_told = bool(model) and 8 + len(name + basis) <= width
    between = (model.get("thresholds") or {}).get
    said = [f"{value:.2g}" if isinstance(value, float) else "–" for value in (between("keep"), between("discard"))]
    return [
        Text.assemble(("model   ", QUIET), name, (basis if is_told else "", QUIET)),
        Text.assemble(("engine  ", QUIET), clean(str(board.status.get("engine") or "–"))),
        Text.assemble(("keep    ", QUIET), f"from {said[0]}"),
        Text.assemble(("discard ", QUIET), f"to {said[1]}"),
    ]


def _judge_line(board: Board) -> Text:
    """The same in short, where there is no room for a block."""
    name = clean(str((board.status.get("model") or {}).get("id", "–")))
    return Text.assemble((" judges  ", QUIET), name, (" on ", QUIET), clean(str(board.status.get("engine") or "–")))


def _session(board: Board, width: int) -> list[Text]:
    """The run that goes on, and how long until enough are kept."""
    told = Text.assemble((" session ", QUIET), board.session_words) if board.session_words else Text()
    goal = Text.assemble((" goal    ", QUIET), board.goal) if board.goal else Text()
    if told and goal and told.cell_len + goal.cell_len < width:
        return [told.append("   goal ", QUIET).append(board.goal)]
    if goal.cell_len > width:  # what is likeliest goes first: half of it on a line of its own says nothing
        goal = Text.assemble((" goal    ", QUIET), board.goal.partition(", likely ")[0])
    return [line for one in (told, goal) if one for line in wrapped(one, width, 9)]


def _guard(board: Board, width: int) -> list[Text]:
    """What is being missed, in three numbers that never merge, and how the tip has been; on one line if it fits."""
    said = [Text(text, BAD if text.startswith("▲") else "") for text in promises(board.guard)]
    numbers = Text.assemble((" missed  ", QUIET), Text(" · ").join(said))
    charts = Text()
    for name, value, row in trends(board.guard, 16):
        charts.append(f"  {name} ", QUIET).append(row, BARS).append(f" {value} ")
    second = Text(f"   {second_in_short(board.guard)}".rstrip(), QUIET)
    if said and numbers.cell_len + second.cell_len < width:
        numbers.append(second)
    if said and charts and numbers.cell_len + charts.cell_len >= width:
        return [numbers, Text(" tip   ", QUIET).append(charts)]
    return [_right(numbers if said else Text(), charts, width)] if said or charts else []


def _folders(board: Board) -> Text:
    """When the last curve came, what waits, and a mark for each watched folder; what is not well comes first."""
    last_s, oldest_s = board.last_curve_s, board.oldest_pending_s
    came = "no curve yet" if last_s is None else f"last curve {duration(board.now() - last_s)} ago"
    line = Text.assemble((f" {came}", "bold"))
    if oldest_s is not None:
        line.append(f" · the oldest waits {duration(oldest_s)}", WARN if oldest_s >= 60 else QUIET)
    for is_up, name, curve_s in sorted(board.folders(), key=lambda one: one[0]):
        mark, style = ("✓", KEEP) if is_up else ("▲", BAD)
        age = "" if curve_s is None else f" {duration(board.now() - curve_s)}"
        line.append(f"   {mark} ", style).append(tail(name, 24)).append(age, QUIET)
    return line


def _unwell(board: Board) -> list[tuple[str, str]]:
    """(style, words): what the service calls a trouble, then what to look at on tip and run."""
    return [(BAD, one) for one in board.troubles()] + [(WARN, one) for one in board.advice]


def _health(board: Board, most: int, width: int, *, is_short: bool = False) -> list[Text]:
    """What is not well, each of it whole: what to do stands at its end. What does not fit is counted, and `!` tells it.

    ``most``: lines. The first is told whole in any case. ``is_short``: nothing is said when all is well.
    """
    unwell = _unwell(board)
    ignored = Text(f"   ignored: {board.ignored}" if board.ignored else "", QUIET)
    if not unwell:
        return [] if is_short else [Text(" ✓ all well" if board.is_linked else "", KEEP).append(ignored)]
    lines: list[Text] = []
    for number, (style, text) in enumerate(unwell):
        told = wrapped(Text(f" ▲ {text}", style), width)
        is_last = number == len(unwell) - 1
        if lines and len(lines) + len(told) + (not is_last) > most:
            more = Text(f" ▲ {len(unwell) - number} more: press ! to read", style)
            return [*lines, more]
        lines += told
    return [*lines, *([ignored] if ignored and not is_short else [])]
