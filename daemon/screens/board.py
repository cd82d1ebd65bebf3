"""The board: what a console knows of a service, put together from its events and its answers to ``status``.

No drawing, no sockets: events go in, numbers come out, so that the same board feeds the live view, the plain
lines and a test. A status is the truth of its moment; decisions that came after it are added on top.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Self

import msgspec

from daemon.client.feed import SILENCE_S, Feed, ask_status
from daemon.client.service_file import find
from daemon.client.status import advice, session_words, troubles, unseen
from daemon.common import ending
from daemon.common.text import clean
from daemon.config import Config
from daemon.judging import VERDICTS
from daemon.labels.curve_name import name_of
from daemon.ledger import events, wire
from daemon.sources import COMPANION, heard, words
from models.clock import since_1970
from models.raster import PreviewAxes

#: Kept and flagged decisions that are held to be paged through.
MOST_MARKED = 5_000
#: How far back rates and the row of bars look.
WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision as the board shows it; every text is safe to print."""

    seq: int
    time_s: float  # seconds since 1970
    verdict: str
    score: float | None
    path: str
    curve: int
    reasons: tuple[str, ...]
    latency_s: float | None
    preview: str | None
    axes: PreviewAxes | None = None  # of the preview; None where an older service says nothing of them
    acquired_s: float | None = None  # seconds since 1970
    folder: str = ""  # that the path is relative to; "" for ingest
    model: str = ""

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what is no decision."""
        data, score, preview = dict(event["data"]), event["data"]["score"], event["data"].get("preview")
        acquired, axes = data.get("acquired"), data.get("preview_axes")
        latency_s = dict(data.get("latency_s") or {}).get("total")
        if data["verdict"] not in VERDICTS:
            raise ValueError(data["verdict"])
        return cls(
            seq=int(event["seq"]),
            time_s=since_1970(event["time"]),
            verdict=data["verdict"],
            score=None if score is None else float(score),
            path=clean(str(data["path"])),
            curve=int(data["curve"]),
            reasons=tuple(clean(str(reason)) for reason in data.get("reasons", ())),
            latency_s=None if latency_s is None else float(latency_s),
            preview=preview if isinstance(preview, str) else None,
            axes=axes_of(axes),
            acquired_s=since_1970(acquired) if acquired else None,
            folder=clean(str(data.get("folder") or "")),
            model=clean(str(data.get("model", ""))),
        )

    @property
    def label(self) -> str:
        """Its name, as events print it."""
        return name_of(self.path, self.curve)

    @property
    def full_name(self) -> str:
        """With the folder, where it has one: what a person can copy."""
        return f"{self.folder.rstrip('/')}/{self.label}" if self.folder else self.label

    @property
    def why(self) -> str:
        """The reasons that say more than "the score did"."""
        return ", ".join(reason for reason in self.reasons if reason != "score")


def axes_of(told: object) -> PreviewAxes | None:
    """None also for what another version may have made of them: a drawing without a scale is still one."""
    try:
        return None if told is None else msgspec.convert(told, PreviewAxes)
    except msgspec.MsgspecError:
        return None


#: What a screen shows: the overview, the selected curve large, or all that is not well.
View = Literal["all", "one", "alarms"]


class Board:
    """Everything one screen shows. Not locked: one thread feeds and draws it."""

    def __init__(self, now: Callable[[], float] = time.time, keep: int = 400) -> None:
        self.now = now
        self.status: Mapping[str, Any] = {}
        self.is_linked = False
        self.link_text = "waiting for the service"
        self.recent: deque[Entry] = deque(maxlen=keep)  # newest first
        self.marked: deque[Entry] = deque()  # kept and flagged only: the rare ones stay in view, back to the first
        self.version = 0  # grows with every change, so that an idle screen need not be drawn
        self.heard_s: float | None = None  # when the service last gave a sign of life, as ``now``
        self.view: View = "all"
        self.selected: Entry | None = None  # that a person is about to label
        self.labels: dict[int, str] = {}  # seq -> what was said of it at this screen
        self.told = ""  # what came of the last key
        self.learning = ""  # how the teaching of the network stands
        self._since_status: Counter[str] = Counter()
        self._status_seq = 0
        self._times: deque[tuple[float, str]] = deque()

    def take_status(self, event: Mapping[str, Any]) -> None:
        """A status event, or the answer to the request for one."""
        data = event.get("data")
        if not isinstance(data, dict):
            return
        stream = event.get("stream") or data.get("stream")
        if self.status and stream != self.status.get("stream"):
            self._forget()  # another ledger: its numbers have nothing to do with these
        self.status = {**data, "stream": stream}
        self.note_heard()
        self._status_seq = int(data.get("last_seq", 0))
        # Decisions the status does not count yet are still ours to add.
        self._since_status = Counter(entry.verdict for entry in self.recent if entry.seq > self._status_seq)
        self.version += 1

    def take_decision(self, event: Mapping[str, Any]) -> Entry | None:
        """The entry when it is news, None for one seen before or one that makes no sense."""
        try:
            entry = Entry.of(event)
        except (KeyError, TypeError, ValueError):
            return None
        if self.recent and entry.seq <= self.recent[0].seq:
            return None
        self.recent.appendleft(entry)
        if entry.verdict != "discard" and (not self.marked or entry.seq > self.marked[0].seq):
            self.marked.appendleft(entry)
            while len(self.marked) > MOST_MARKED:
                self.marked.pop()
        if entry.seq > self._status_seq:
            self._since_status[entry.verdict] += 1
        self._times.append((entry.time_s, entry.verdict))
        while self._times and self._times[0][0] < self.now() - WINDOW_S:
            self._times.popleft()
        self.version += 1
        return entry

    def take_older(self, entries: Sequence[Entry]) -> None:
        """Kept and flagged decisions from before those that are here, the newest first."""
        known = self.marked[-1].seq if self.marked else None
        self.marked.extend(one for one in entries if known is None or one.seq < known)
        self.version += 1

    def note_heard(self) -> None:
        """The service gave a sign of life."""
        self.heard_s = self.now()

    def show(self, view: View) -> None:
        """Turn to another view; the one of a curve shows the newest that was kept or flagged, if none is selected."""
        if view == "one" and self.selected is None:
            self.select(1, marked=True)
        self.view = view if view != "one" or self.selected is not None else "all"
        self.version += 1

    def take_link(self, is_linked: bool, text: str) -> None:
        """Whether the service answers, in words."""
        if (is_linked, text) != (self.is_linked, self.link_text):
            self.is_linked, self.link_text = is_linked, text
            self.version += 1

    def select(self, step: int, *, marked: bool) -> None:
        """The next older (1) or newer (-1) decision, of all or of those kept and flagged; it stays the one selected."""
        entries = list(self.marked if marked else self.recent)
        if not entries:
            return
        if self.selected is None:
            self.selected = entries[0]
        else:
            beyond = [
                one for one in entries if (one.seq < self.selected.seq if step > 0 else one.seq > self.selected.seq)
            ]
            self.selected = (beyond[0] if step > 0 else beyond[-1]) if beyond else self.selected
        self.tell("")

    def select_seq(self, seq: int) -> None:
        """The decision of this number, if it is still here."""
        self.selected = next((one for one in (*self.recent, *self.marked) if one.seq == seq), self.selected)

    def go_back(self) -> None:
        """One view back; from the overview the newest decisions are looked at again."""
        if self.view == "all":
            self.selected = None
        self.view = "all"
        self.tell("")

    def note_label(self, seq: int, word: str | None) -> None:
        """What holds of a curve now, as far as it was said here."""
        self.labels.pop(seq, None)
        if word is not None:
            self.labels[seq] = word

    def tell(self, text: str) -> None:
        """One line for whoever is at the keyboard."""
        self.told = clean(text)
        self.version += 1

    def _forget(self) -> None:
        self.selected, self.told, self.view = None, "", "all"
        self.labels.clear()
        self.recent.clear()
        self.marked.clear()
        self._times.clear()

    @property
    def instrument(self) -> str:
        return clean(str(self.status.get("instrument", "")))

    @property
    def counts(self) -> dict[str, int]:
        """Decisions by verdict since the ledger began."""
        known = self.status.get("counts") or {}
        return {verdict: int(known.get(verdict, 0)) + self._since_status[verdict] for verdict in VERDICTS}

    @property
    def session(self) -> tuple[int, dict[str, int]] | None:
        """The number of the run that goes on, and its decisions by verdict."""
        told = self.status.get("current_session")
        if not isinstance(told, dict):
            return None
        known = told.get("counts") or {}
        number = int(told.get("number") or 0)
        return number, {one: int(known.get(one, 0)) + self._since_status[one] for one in VERDICTS}

    @property
    def session_words(self) -> str:
        """``3, titin, tip OMCL, for 2 h 13 min``; "" where none goes on."""
        told = self.status.get("current_session")
        return session_words(told) if isinstance(told, dict) else ""

    @property
    def messages_to(self) -> str:
        """To whom a message goes when something is wrong; "" where to nobody."""
        told = self.status.get("messages")
        return clean(", ".join(map(str, told.get("to") or ()))) if isinstance(told, dict) else ""

    @property
    def goal(self) -> str:
        """How long until enough are kept, in words; "" where the service says nothing of it."""
        told = self.status.get("goal")
        return clean(str(told.get("text") or "")) if isinstance(told, dict) else ""

    @property
    def guard(self) -> Mapping[str, Any]:
        """What is being missed, and how the tip is; {} where the service does not say."""
        return self.status.get("guard") or {}

    @property
    def ignored(self) -> str:
        """Files passed over since the service began, in words; companions of pairs alone are not worth one."""
        kinds = heard(self.status.get("ignored"))
        return clean(words(kinds)) if any(kind != COMPANION for kind in kinds) else ""

    @property
    def review_queue(self) -> int:
        return int(self.status.get("review_queue") or 0) + self._since_status["review"]

    def rate_per_s(self, verdict: str | None = None) -> float:
        """Decisions per second over the last minute, or since the service began."""
        window_s = min(WINDOW_S, max(float(self.status.get("uptime_s") or WINDOW_S), 2.0))
        oldest_s = self.now() - window_s
        return sum(1 for time_s, one in self._times if time_s >= oldest_s and verdict in (None, one)) / window_s

    def history(self, bins: int) -> list[float]:
        """Decisions in each of ``bins`` equal parts of the last minute, oldest first."""
        counts, now_s, step_s = [0.0] * bins, self.now(), WINDOW_S / bins
        for time_s, _ in self._times:
            place = bins - 1 - int((now_s - time_s) / step_s)
            if 0 <= place < bins:
                counts[place] += 1
        return counts

    def latency_s(self) -> tuple[float | None, float | None]:
        """p50 and p99 of file noticed -> on disk: the service's own, else of the decisions seen here."""
        told = self.status.get("latency_s") or {}
        if told.get("p50") is not None:
            return told.get("p50"), told.get("p99")
        seen = sorted(entry.latency_s for entry in self.recent if entry.latency_s is not None)
        return (seen[len(seen) // 2], seen[min(len(seen) - 1, len(seen) * 99 // 100)]) if seen else (None, None)

    def troubles(self) -> list[str]:
        """What is not well, in words; empty when all is."""
        found = [f"{one.get('name')}: {one.get('text')}" for one in troubles(self.status)]
        messages = self.status.get("messages")
        if isinstance(messages, dict) and messages.get("trouble"):
            found.append(f"messages: {messages['trouble']}")
        return [clean(one) for one in found + self._unseen()]

    def _unseen(self) -> list[str]:
        """Folders that were not seen lately; of a service that does not answer nobody knows what it sees."""
        return unseen(self.status, self.now()) if self.is_linked else []

    @property
    def advice(self) -> list[str]:
        """What to look at, on tip and run, though the service is well."""
        return advice(self.status)

    @property
    def last_curve_s(self) -> float | None:
        """Seconds since 1970."""
        told, decided = self.status.get("last_curve_s"), [entry.time_s for entry in list(self.recent)[:1]]
        return max([float(told), *decided] if isinstance(told, int | float) else decided, default=None)

    @property
    def oldest_pending_s(self) -> float | None:
        """Age of the oldest finished file that had no verdict when the status was told."""
        told = self.status.get("oldest_pending_s")
        return float(told) if isinstance(told, int | float) else None

    def folders(self) -> list[tuple[bool, str, float | None]]:
        """Of each watched folder or socket: whether it is well, its name, and when its last curve came."""
        gone = " ".join(self._unseen())
        found = []
        for one in self.status.get("sources") or []:
            name, came_s = str(one.get("name")), one.get("last_curve_s")
            is_up = bool(one.get("ok")) and f"source {name}:" not in gone
            found.append((is_up, clean(name), float(came_s) if isinstance(came_s, int | float) else None))
        return found


# The attachment: a board kept up to date with a running service, through its restarts.

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
        event = ask_status(where.replay, timeout_s=0.5, key=where.key)
        if event is None or not self._is_wanted(event):
            ending.pause(begun_s + timeout_s - time.monotonic())
            is_news = self._board.link_text != LOST
            return [self._lost()] if is_news else []
        with suppress(KeyError, TypeError, ValueError):
            self._board.take_status(event)
        head, known = int(event["data"]["last_seq"]), self._board.recent[0].seq if self._board.recent else 0
        since, stream = max(head - self._history, known, 0), str(event["stream"])
        self._feed = Feed(where.publish, where.replay, since=since, stream=stream, key=where.key)
        self._attached_s = time.monotonic()
        self._board.note_heard()
        self._board.take_link(True, "")
        return [("attached", f"to {self._board.instrument}, {head} decided so far")]

    def _is_wanted(self, event: wire.Event) -> bool:
        origins = self._config.origins
        return "instrument" not in origins or event["data"].get("instrument") == self._config.instrument

    def _lost(self) -> Notice:
        self._board.take_link(False, LOST)
        return "lost", LOST

    def _take(self, event: wire.Event) -> Entry | Notice | None:
        self._board.note_heard()
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
        why = f" ({data['why']})" if data.get("why") else ""
        return clean(f"{data.get('model')} on {data.get('engine')}{why}")
    return clean(f"{data.get('result')} {data.get('reason') or ', '.join(data.get('changed') or {}) or ''}").strip()
