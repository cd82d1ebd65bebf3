"""The attachment: a board kept up to date with a running service, through its restarts."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from daemon import ending
from daemon.clean import clean
from daemon.config import Config
from daemon.console.board import Board, Entry
from daemon.feed import Feed
from daemon.ledger import events
from daemon.silence import SILENCE_S
from daemon.status.inquiry import ask_status
from daemon.status.whereabouts import find

LOST = "service not reachable, retrying"
#: A notice that a plain console prints beside decisions: (kind, text).
Notice = tuple[str, str]


class Attachment:
    """``history``: how many decisions from before to begin with. Never raises because the service is away."""

    def __init__(self, config: Config, board: Board, history: int) -> None:
        self._config, self._board, self._history = config, board, history
        self._feed: Feed | None = None
        self._attached_s = 0.0

    def turn(self, timeout_s: float) -> list[Entry | Notice]:
        """Wait at most ``timeout_s`` (a little longer while nobody answers) and return what is new."""
        if self._feed is None:
            return self._attach(timeout_s)
        news = [one for event in self._feed.read(timeout_s) if (one := self._take(event)) is not None]
        heard_s = max(self._feed.heard_s or 0.0, self._attached_s)
        if time.monotonic() - heard_s > SILENCE_S:
            self.close()
            news.append(self._lost())
        return news

    def close(self) -> None:
        """Let go of the service; the next turn looks for it anew."""
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _attach(self, timeout_s: float) -> list[Entry | Notice]:
        where = find(self._config)  # a restarted service may speak elsewhere
        begun_s = time.monotonic()
        event = ask_status(where.replay, timeout_s=0.5)
        if event is None or not self._is_wanted(event):
            ending.pause(begun_s + timeout_s - time.monotonic())
            is_news = self._board.link_text != LOST
            return [self._lost()] if is_news else []
        with suppress(KeyError, TypeError, ValueError):
            self._board.take_status(event)
        head, known = int(event["data"]["last_seq"]), self._board.recent[0].seq if self._board.recent else 0
        since, stream = max(head - self._history, known, 0), str(event["stream"])
        self._feed = Feed(where.publish, where.replay, since=since, stream=stream)
        self._attached_s = time.monotonic()
        self._board.take_link(True, "")
        return [("attached", f"to {self._board.instrument}, {head} decided so far")]

    def _is_wanted(self, event: events.Event) -> bool:
        origins = self._config.origins
        return "instrument" not in origins or event["data"].get("instrument") == self._config.instrument

    def _lost(self) -> Notice:
        self._board.take_link(False, LOST)
        return "lost", LOST

    def _take(self, event: events.Event) -> Entry | Notice | None:
        kind, data = events.kind_of(event), event["data"]
        if kind == "decision":
            return self._board.take_decision(event)
        if kind == "status":
            with suppress(TypeError, ValueError):
                self._board.take_status(event)
        return (kind, _words(kind, data)) if kind in ("alarm", "config", "model") else None


def _words(kind: str, data: dict[str, Any]) -> str:
    if kind == "alarm":
        return clean(f"{'cleared: ' if data.get('ok') else ''}{data.get('name')}: {data.get('text')}")
    if kind == "model":
        return clean(f"{data.get('model')} on {data.get('engine')}")
    return clean(f"{data.get('result')} {data.get('reason') or ', '.join(data.get('changed') or {}) or ''}").strip()
