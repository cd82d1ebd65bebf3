"""`console`: a live view of a running service, in a process of its own, connected over ZeroMQ.

Start and leave as many as you like: the service does not notice. Without a terminal it prints one plain
line a decision.

With its keys a person opens and labels the curve that is selected, and pages through all that was ever kept or flagged.
A label is on disk before the screen says so; what cannot be stored is told in one line and nothing has changed. Other
programs may hold the labels for a moment: a screen waits less long for them than a verb does.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from rich.console import Console, Group
from rich.live import Live

from daemon.client.feed import PATIENCE, SilenceLimit, patience_of
from daemon.client.folders import refuse_watched
from daemon.client.service_file import find
from daemon.client.status import learned_in_short, learning_of
from daemon.common.errors import UNREACHABLE, USAGE, UserError, need_folder
from daemon.common.options import Option, this_user
from daemon.common.text import clean, duration, latency, score
from daemon.config import Config, Flags, Keys, load
from daemon.labels import Label, Labels, Word
from daemon.labels.sessions import Sessions
from daemon.ledger.view import LedgerView
from daemon.screens import svg
from daemon.screens.board import MOST_MARKED, Attachment, Board, Entry
from daemon.screens.opener import Opener
from daemon.screens.screen import KEYS, frame
from models.clock import time_of_day, utc_now

#: Key -> direction (1: older), how many curves, and whether only among those kept or flagged.
_STEPS: Mapping[str, tuple[int, int, bool]] = {
    "up": (-1, 1, False),
    "down": (1, 1, False),
    "left": (-1, 1, True),
    "right": (1, 1, True),
    "page up": (-1, 10, True),
    "page down": (1, 10, True),
}
#: Kept and flagged curves that are fetched from the ledger at once.
FETCHED = 60
#: Key -> what it says of the selected curve.
WORDS: Mapping[str, Word] = {"k": "keep", "d": "discard", "u": "unsure"}
#: What a label that is given here is stored with, as one from a queue is with the queue's name.
QUEUE = "console"
_LABELS_S = 1.0  # for whoever holds the labels locked
_KEYS = re.compile(r"\x1b(?:[\[O]([A-DFH])|\[([0-9;]*)[~A-Za-z])|(.)", re.DOTALL)
_NAMED = {"A": "up", "B": "down", "C": "right", "D": "left", "5": "page up", "6": "page down"}


def _size(text: str) -> tuple[int, int]:
    columns, _, rows = text.partition("x")
    if columns.isdecimal() and rows.isdecimal() and 40 <= int(columns) <= 500 and 12 <= int(rows) <= 200:
        return int(columns), int(rows)
    raise argparse.ArgumentTypeError(f"{text!r}: give columns x rows, 40x12 to 500x200, like 120x36")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument", "publish", "replay", "key")]
    patience: Annotated[float | None, PATIENCE] = None
    rater: Annotated[
        str | None, Option("whose labels the keys k, d and u give", "NAME", unless="whoever is logged in")
    ] = None
    plain: Annotated[bool, Option("one line a decision, as without a terminal")] = False
    snapshot: Annotated[Path | None, Option("one picture of it, then leave", "FILE.svg")] = None
    size: Annotated[tuple[int, int], Option("of the picture", "COLUMNSxROWS", parse=_size, unless="120x36")] = (120, 36)


def run(options: Options) -> int:
    """Until q or Ctrl-C. Exit 69 without a service: at once for a picture, else once its patience is at its end."""
    config = load(options.service)
    if options.rater is not None and not options.rater.strip():
        raise UserError(USAGE, "--rater must name somebody")
    has_terminal = sys.stdout.isatty()  # colour variables of the environment do not make one
    if options.snapshot is not None:
        need_folder("--snapshot", options.snapshot)
        refuse_watched({"--snapshot": options.snapshot}, config)
        if not snapshot(config, options.snapshot, *options.size):
            raise UserError(UNREACHABLE, "no service answered; start one, or name it with --state or --config")
    elif options.plain or not has_terminal or os.environ.get("TERM", "") in ("", "dumb"):
        if not options.plain and has_terminal:
            print(
                "afm-triage: TERM names no terminal to draw on: one line a decision, q or Ctrl-C leaves",
                file=sys.stderr,
            )
        plain(config, patience_of(options.patience))
    else:
        live(config, patience_of(options.patience), rater_of(options.rater))
    return 0


def keys_of(typed: str) -> Iterator[str]:
    """``up down left right``, ``page up`` and ``page down``, ``enter``, or the character; of what a terminal sends."""
    for letter, number, char in _KEYS.findall(typed):
        if char:
            yield "enter" if char in "\r\n" else char.lower()
        elif name := _NAMED.get(letter or number):
            yield name


def rater_of(given: str | None) -> str:
    """Who labels: as given, else whoever is logged in; "" where nobody knows."""
    return (this_user() if given is None else given).strip()


class Past:
    """Kept and flagged decisions from before the screen began, of the ledger in the service's state folder."""

    def __init__(self, config: Config, board: Board) -> None:
        self._file, self._board = config.ledger_file, board
        self._whole_of = ""  # the stream of which there is nothing older than what the board has

    def fetch(self, count: int) -> None:
        """At most so many more; none where the ledger cannot be read: then what the events brought is all there is."""
        stream = self._board.status.get("stream")
        if not count or self._whole_of == stream or len(self._board.marked) >= MOST_MARKED:
            return
        oldest = self._board.marked[-1].seq if self._board.marked else None
        with suppress(UserError), LedgerView(self._file) as ledger:
            if ledger.stream != stream:
                return
            until = None if oldest is None else oldest - 1
            looks = [
                look.seq
                for verdict in ("keep", "review")
                for look in ledger.looks(verdict, until=until, order="newest", limit=count)
            ]
            seqs = sorted(looks, reverse=True)[:count]
            events = ledger.decisions(seqs)
            self._whole_of = ledger.stream if len(looks) < count else ""
            self._board.take_older([Entry.of(events[seq]) for seq in seqs if seq in events])


class Labeller:
    """Takes keys for a board. Never raises for what cannot be stored: ``board.told`` says it."""

    def __init__(self, config: Config, board: Board, rater: str) -> None:
        self._config, self._board, self._rater = config, board, rater
        self._given: list[tuple[Label, Label | None]] = []  # and what the rater had said before
        self.past, self.opener = Past(config, board), Opener(config, board)

    def take(self, typed: str) -> None:
        """What was typed since the last time."""
        board = self._board
        for key in keys_of(typed):
            if key in _STEPS:
                step, times, marked = _STEPS[key]
                self._select(step, times, marked=marked or board.view == "one")
            elif key == "\x1b":
                board.go_back()
            elif key == "enter":
                board.show("all" if board.view == "one" else "one")
            elif key == "!":
                board.show("all" if board.view == "alarms" else "alarms")
            elif key == "?":
                board.tell(KEYS)
            elif key == "e":
                self.opener.explain()
            elif key == "o":
                self.opener.open_page()
            elif key == "z":
                self._attempt(None)
            elif key in WORDS:
                self._attempt(WORDS[key])

    def _select(self, step: int, times: int, *, marked: bool) -> None:
        """Older or newer; at the oldest that is here more of them come from the ledger."""
        if self._board.view == "alarms":
            return
        for _ in range(times):
            selected = self._board.selected
            if marked and step > 0 and selected is not None and selected.seq <= self._board.marked[-1].seq:
                self.past.fetch(FETCHED)
            self._board.select(step, marked=marked)

    def _attempt(self, word: Word | None) -> None:
        try:
            self._board.tell(self._undo() if word is None else self._say(word))
        except (UserError, OSError) as error:
            self._board.tell(f"not stored: {error}")

    def _say(self, word: Word) -> str:
        entry = self._board.selected
        if entry is None:
            return "select a curve with the arrows first"
        if not self._rater:
            return "not stored: nobody knows who you are; start it again with --rater NAME"
        with self._labels() as labels:
            label = self._label(entry, word, labels)
            before = next(
                (one for one in labels.labelled([entry.seq]).get(entry.seq, ()) if one.rater == self._rater), None
            )
            (held,) = labels.say([label])
        if held != before:
            self._given.append((held, before))
        self._board.note_label(entry.seq, held.label)
        self._board.select(1, marked=entry.verdict != "discard")
        return f"{entry.label}: {held.label} ({self._rater}); z takes it back"

    def _undo(self) -> str:
        if not self._given:
            return "nothing to take back: no label was given here"
        label, before = self._given[-1]
        with self._labels() as labels:
            if before is None:
                labels.remove([label], by=self._rater, reason="undone at the console", time=utc_now())
            else:
                labels.say([replace(before, time=utc_now())])
        self._given.pop()
        self._board.note_label(label.seq or 0, before.label if before else None)
        self._board.select_seq(label.seq or 0)
        again = f"{before.label} holds again" if before else "it has no label now"
        return f"{clean(label.path)}#{label.curve}: {label.label} taken back, {again}"

    def _labels(self) -> Labels:
        return Labels(self._config.state / "labels.sqlite", patience_s=_LABELS_S)

    def _label(self, entry: Entry, word: Word, labels: Labels) -> Label:
        """Raises UserError 69 where the curve is none of the ledger in the state folder."""
        with LedgerView(self._config.ledger_file) as ledger:
            event = ledger.decisions([entry.seq]).get(entry.seq)
            if event is None or event["stream"] != self._board.status.get("stream"):
                raise UserError(
                    UNREACHABLE, f"{self._config.state} is not the state folder of this service: give its --state"
                )
        session = Sessions(labels).of(entry.seq)
        return Labels.of_event(event, word, self._rater, queue=QUEUE, session=session.number if session else None)


class Keyboard:
    """Single keys. ``pressed()`` is what was typed since the last call; "" when standard input is no terminal."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @property
    def is_there(self) -> bool:
        """Whether somebody may type."""
        return self._descriptor is not None

    def pressed(self) -> str:
        if self._descriptor is None or not select.select([self._descriptor], [], [], 0)[0]:
            return ""
        typed = os.read(self._descriptor, 64)
        if not typed:  # the terminal is gone
            self._descriptor = None
        return typed.decode("utf-8", "replace")


@contextmanager
def keys() -> Iterator[Keyboard]:
    """Keys for the time of a ``with`` block."""
    if not sys.stdin.isatty():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


FRAME_S = 0.25  # 4 frames a second are enough for an eye, and cost little
KEY_S = 0.05  # whoever types goes on typing
_LOOK_S = 0.25  # between two looks for a key beside plain lines
IDLE_FRAME_S = 1.0  # nothing new: only clocks and rates move
PATIENCE_S = 3.0  # a service that is there has answered by then
WORTH_A_HINT_S = 10.0  # who waits less long is told at the end
LEARNED_S = 60.0  # between two looks at labels and the gate's log, which change by night
HISTORY = 1000  # decisions from before the console came, for rates and drawings


def live(config: Config, patience_s: float = math.inf, rater: str = "") -> None:
    """Draw until q, Ctrl-C or SIGTERM, then give the terminal back as it was. Raises UserError 69 as ``plain`` does.

    ``rater``: whose labels the keys give.
    """
    board, terminal = Board(), Console(highlight=False)
    attachment = Attachment(config, board, HISTORY)
    silence, labeller = _limit(patience_s, config), Labeller(config, board, rater)
    drawn, drawn_s, learned_s, has_past = -1, 0.0, -math.inf, False
    try:
        with keys() as keyboard, Live(console=terminal, screen=True, auto_refresh=False) as view:
            while "q" not in (typed := keyboard.pressed()).lower():
                labeller.take(typed)
                labeller.opener.look()
                if board.is_linked and time.monotonic() - learned_s > LEARNED_S:
                    learned_s = time.monotonic()
                    note_learning(config, board)
                if not has_past and _is_complete(board):  # what the events bring stands before it
                    has_past = True
                    labeller.past.fetch(max(FETCHED - len(board.marked), 0))
                age_s = time.monotonic() - drawn_s
                if typed or age_s >= (FRAME_S if board.version != drawn else IDLE_FRAME_S):
                    drawn, drawn_s = board.version, time.monotonic()
                    view.update(Group(*frame(board, *terminal.size)), refresh=True)
                attachment.turn(KEY_S if typed else FRAME_S)
                silence.note(heard=board.is_linked)
    except KeyboardInterrupt:
        pass
    finally:
        labeller.opener.close()
        attachment.close()


def note_learning(config: Config, board: Board) -> None:
    """What labels and the gate's log tell, where the state folder is that of the service."""
    told = learning_of(config)
    board.learning = learned_in_short(told) if told["stream"] == board.status.get("stream") else ""


def plain(config: Config, patience_s: float) -> None:
    """One line a decision from now on, and one for every other thing worth a word; until q, Ctrl-C or SIGTERM.

    Raises UserError 69 once no service has answered for ``patience_s``, from the start or in between.
    """
    board = Board()
    attachment = Attachment(config, board, history=0)
    silence = _limit(patience_s, config)
    hint_s = time.monotonic() + PATIENCE_S if patience_s > WORTH_A_HINT_S else math.inf
    try:
        with keys() as keyboard:
            while "q" not in keyboard.pressed().lower():
                if not board.is_linked and time.monotonic() > hint_s:
                    print(_hint(config, patience_s), file=sys.stderr, flush=True)
                    hint_s = math.inf
                for news in attachment.turn(min(_LOOK_S if keyboard.is_there else 1.0, patience_s)):
                    print(_entry_line(news) if isinstance(news, Entry) else _notice_line(*news), flush=True)
                silence.note(heard=board.is_linked)
    except KeyboardInterrupt:
        pass
    finally:
        attachment.close()


def _limit(patience_s: float, config: Config) -> SilenceLimit:
    place = find(config)
    return SilenceLimit(patience_s, place.replay, place.key)


def _hint(config: Config, patience_s: float) -> str:
    waiting = "waiting for it" if patience_s == math.inf else f"waiting {duration(patience_s)} for it"
    place = find(config).publish
    return f"afm-triage: no service answers at {place}; start one with: afm-triage run --watch DIR ({waiting})"


def snapshot(config: Config, file: Path, width: int, height: int, patience_s: float = PATIENCE_S) -> bool:
    """What the console shows now, as an SVG picture; False when no service answered in time."""
    board = Board()
    attachment = Attachment(config, board, HISTORY)
    deadline_s = time.monotonic() + patience_s
    try:
        while time.monotonic() < deadline_s and not _is_complete(board):
            attachment.turn(0.1)
    finally:
        attachment.close()
    if board.is_linked:
        note_learning(config, board)
        Past(config, board).fetch(FETCHED)
        file.write_text(svg(frame(board, width, height), "afm-triage console"), encoding="utf-8")
    return board.is_linked


def _is_complete(board: Board) -> bool:
    last_seq = int(board.status.get("last_seq", 0))
    return board.is_linked and (last_seq == 0 or (bool(board.recent) and board.recent[0].seq >= last_seq))


def _entry_line(entry: Entry) -> str:
    clock = time_of_day(entry.time_s)
    why = f"  ({entry.why})" if entry.why else ""
    took = latency(entry.latency_s)
    return f"{clock} {entry.verdict:<8} {score(entry.score)} {took:>7}  {entry.path}#{entry.curve}{why}"


def _notice_line(kind: str, text: str) -> str:
    return f"{time_of_day()} {kind:<8} {text}"
