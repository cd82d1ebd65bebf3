"""The labeller: what a person at the console says of the curve that is selected, and the keys with which it is said.

A label is on disk before the screen says so; what cannot be stored is told in one line and nothing has changed. Other
programs may hold the labels for a moment: a screen waits less long for them than a verb does.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from daemon.common.errors import UNREACHABLE, UserError
from daemon.common.text import clean
from daemon.config import Config
from daemon.labels import Label, Labels, Word
from daemon.labels.sessions import Sessions
from daemon.ledger.view import LedgerView
from daemon.screens.board import Board, Entry
from models.clock import utc_now

#: Key -> what it says of the selected curve.
WORDS: Mapping[str, Word] = {"k": "keep", "d": "discard", "u": "unsure"}
#: What a label that is given here is stored with, as one from a queue is with the queue's name.
QUEUE = "console"
_PATIENCE_S = 1.0
_KEYS = re.compile(r"\x1b[\[O]([A-D])|(.)", re.DOTALL)
_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}


def keys_of(typed: str) -> Iterator[str]:
    """``up down left right``, or the character; of what a terminal sends."""
    for arrow, char in _KEYS.findall(typed):
        yield _ARROWS[arrow] if arrow else char.lower()


def rater_of(given: str | None) -> str:
    """Who labels: as given, else whoever is logged in; "" where nobody knows."""
    try:
        return (getpass.getuser() if given is None else given).strip()
    except (OSError, KeyError, ImportError):  # a container without a name for its user
        return ""


class Labeller:
    """Takes keys for a board. Never raises for what cannot be stored: ``board.told`` says it."""

    def __init__(self, config: Config, board: Board, rater: str) -> None:
        self._config, self._board, self._rater = config, board, rater
        self._given: list[tuple[Label, Label | None]] = []  # and what the rater had said before

    def take(self, typed: str) -> None:
        """What was typed since the last time."""
        for key in keys_of(typed):
            if key in ("up", "down"):
                self._board.select(1 if key == "down" else -1, marked=False)
            elif key in ("left", "right"):
                self._board.select(1 if key == "right" else -1, marked=True)
            elif key == "\x1b":
                self._board.unselect()
            elif key == "z":
                self._attempt(None)
            elif key in WORDS:
                self._attempt(WORDS[key])

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
        return Labels(self._config.state / "labels.sqlite", patience_s=_PATIENCE_S)

    def _label(self, entry: Entry, word: Word, labels: Labels) -> Label:
        """Raises UserError 69 where the curve is none of the ledger in the state folder."""
        with LedgerView(self._config.state / "ledger.sqlite") as ledger:
            event = ledger.decisions([entry.seq]).get(entry.seq)
            if event is None or event["stream"] != self._board.status.get("stream"):
                raise UserError(
                    UNREACHABLE, f"{self._config.state} is not the state folder of this service: give its --state"
                )
        session = Sessions(labels).of(entry.seq)
        return Labels.of_event(event, word, self._rater, queue=QUEUE, session=session.number if session else None)
