"""The desk: what the page's requests are answered from, and where labels go. All of it may wait on the disk.

The ledger is only read. Samples of a curve come from the ledger's copy, else from its file, if that lies in a watched
folder and still holds what was judged; nothing else is ever opened.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from daemon.client.feed import ask_status
from daemon.client.service_file import find as find_service
from daemon.client.status import watched_folders
from daemon.common.ending import Closing
from daemon.common.errors import UserError
from daemon.common.mounts import resolve
from daemon.config import Config
from daemon.formats.afmcurve import unpack
from daemon.formats.errors import Unfinished, Unreadable
from daemon.labels import Label, Labels, Word
from daemon.labels.curve_name import is_there
from daemon.ledger import wire
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event
from daemon.reading.pool import ReaderPool
from daemon.review.drawing import Drawing, draw
from daemon.review.security import Refused
from daemon.sources.existing import find as find_files
from models.clock import utc_now
from models.curve import Curve

T = TypeVar("T")

_STATE_HOLDS_S = 1.0  # one question to the service, however many pages ask
_FOLDERS_HOLD_S = 10.0
_WRITING_S = 6.0  # for the label before this one; a locked file is waited for 5 s
#: Decisions among which a queue looks.
LOOKED_AT = 5_000


@dataclass(frozen=True, slots=True)
class Said:
    """One label as a page sends it, checked."""

    id: str
    word: Word
    rater: str
    reason: str = ""
    queue: str | None = None
    kind: str = "plain"


class Desk(Closing):
    """Methods may be called from any thread. They raise Refused with what the page is told."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.labels_file = config.state / "labels.sqlite"
        self._view: LedgerView | None = None
        self._readers: ReaderPool | None = None
        self._opening, self._writing, self._reading = threading.Lock(), threading.Lock(), threading.Lock()
        self._status = _Held(self._ask, _STATE_HOLDS_S)
        self._folders = _Held(lambda: watched_folders(config), _FOLDERS_HOLD_S)

    def close(self) -> None:
        if self._view is not None:
            self._view.close()
        if self._readers is not None:
            self._readers.close()

    @property
    def ledger(self) -> LedgerView:
        """Raises Refused 503 where there is none, or it cannot be read."""
        with self._opening, _told():
            if self._view is None:
                self._view = LedgerView(self.config.state / "ledger.sqlite")
            elif not self._view.is_in_place():  # a service came or went, or a backup was put back
                self._view.release()
            return self._view

    def decision(self, id: str) -> Event:
        """The decision of this ``id``, STREAM:SEQ. Raises Refused 404."""
        return self.decisions([id])[0]

    def decisions(self, ids: Sequence[str]) -> list[Event]:
        """Those of these ``ids``, in their order. Raises Refused 404 for one that there is not."""
        ledger = self.ledger
        found: list[Event] = []
        with _told():
            stream, last = ledger.stream, ledger.last_seq
            for id in ids:
                its, _, seq = id.rpartition(":")
                if its != stream or not (seq.isascii() and seq.isdecimal() and len(seq) < 19 and 0 < int(seq) <= last):
                    raise Refused(404, "no such curve: this ledger has no decision of this id")
                found.append(wire.decode(ledger.since(int(seq) - 1, 1)[0].body))
        return found

    def last(self, count: int = LOOKED_AT) -> list[Event]:
        """The last decisions, newest first."""
        ledger = self.ledger
        with _told():
            return ledger.last(count)[::-1]

    @contextmanager
    def labels(self, *, writes: bool = False) -> Iterator[Labels | None]:
        """None where nobody has said anything yet, and nobody is about to: looking makes no file."""
        with _told():
            if not writes and not self.labels_file.is_file():
                yield None
                return
            with Labels(self.labels_file) as labels:
                yield labels

    def current(self) -> list[Label]:
        """What is said now, by whom."""
        with self.labels() as labels:
            return [] if labels is None else list(labels.current())

    def add(self, said: Sequence[Said]) -> list[Label]:
        """All of them or none; what a rater says already of a curve is stored once."""
        decisions = self.decisions([one.id for one in said])
        with self._one_writer(), self.labels(writes=True) as labels:
            assert labels is not None
            held = {(one.identity, one.rater): one for one in labels.current()}
            fresh: list[Label] = []
            answer: list[Label] = []
            for one, event in zip(said, decisions, strict=True):
                label = _label_of(event, one)
                before = held.get((label.identity, label.rater))
                if before is not None and before.label == label.label:
                    label = before
                else:
                    fresh.append(label)
                    held[label.identity, label.rater] = label
                answer.append(label)
            labels.add(fresh)
        return answer

    def remove(self, id: str, rater: str | None) -> None:
        """Take back the label on a curve. Raises Refused 404 where there is none, 409 where it may be another's."""
        identity = _label_of(self.decision(id), Said(id, "unsure", "")).identity
        with self._one_writer(), self.labels() as labels:
            holding = [one for one in labels.current() if one.identity == identity] if labels else []
            own = [one for one in holding if rater in (None, one.rater)]
            if labels is None or not own:
                raise Refused(404, "this curve has no label of this rater" if rater else "this curve has no label")
            if len(own) > 1:
                raise Refused(409, "several raters have labelled this curve: say whose label goes, ?rater=NAME")
            labels.remove(own, by=own[0].rater, reason="undone on the page", time=utc_now())

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=_WRITING_S):
            raise Refused(503, "another label is still being written: try again")
        try:
            yield
        finally:
            self._writing.release()

    def drawing(self, event: Event) -> tuple[Drawing, Curve, bool]:
        """The drawing of a curve, the curve, and whether it is a copy. Raises Refused 404 where it is gone."""
        curve, is_compact = self.curve(event)
        return draw(curve), curve, is_compact

    def curve(self, event: Event) -> tuple[Curve, bool]:
        """The samples of a judged curve, and whether they are those of a copy. Raises Refused 404."""
        ledger = self.ledger
        with _told():
            copy = ledger.compact_copy(event["seq"])
        if copy is not None:
            try:
                return unpack(copy)[0], True
            except (Unreadable, Unfinished) as error:
                raise Refused(404, f"the ledger's copy of this curve is damaged ({error.reason})") from None
        return self._of_file(event["data"]), False

    def _of_file(self, data: Mapping[str, Any]) -> Curve:
        """From the instrument's file, read by a process of its own."""
        gone = Refused(404, "the file of this curve is gone or does not answer, and the ledger has no copy of it")
        folder = data.get("folder")
        if not folder or data.get("sha256") is None:
            raise gone
        file = resolve(Path(folder, data["path"]))
        if not any(file.is_relative_to(one) for one in self._folders.value()):
            raise Refused(404, "the folder of this curve is not watched any more, and the ledger has no copy of it")
        if os.path.islink(file) or not is_there(file):
            raise gone
        with self._reading:
            if self._readers is None:
                self._readers = ReaderPool(1, rules=self.config.text)
            (arrival,) = find_files([file])
            part = self._readers.read(arrival)
            index = data["curve"]
            if part.outcome == "curves" and len(part.readings) <= index < part.total:
                part = self._readers.read(arrival.portion(index, part.readings[0].sha256, part.total))
        reading = next((one for one in part.readings if one.index == index), None)
        if reading is None or reading.sha256 != data["sha256"]:
            raise Refused(404, "the file of this curve holds something else by now, and the ledger has no copy of it")
        if reading.curve is None:
            raise Refused(404, "this curve cannot be read, and there is nothing to draw")
        return reading.curve

    def _ask(self) -> Event | None:
        where = find_service(self.config)  # waiting for an answer takes a second: only where somebody may give one
        return ask_status(where.replay) if where.is_alive or "replay" in self.config.origins else None

    def status(self) -> dict[str, Any]:
        """What the running service says of itself; {} where none answers, or that of another ledger."""
        event = self._status.value()
        if event is None:
            return {}
        try:
            is_ours = event.get("stream") == self.ledger.stream
        except (Refused, UserError):
            is_ours = False
        data: dict[str, Any] = event["data"]
        return data if is_ours else {}


def _label_of(event: Event, said: Said) -> Label:
    data = event["data"]
    return Label(
        path=data["path"],
        curve=data["curve"],
        label=said.word,
        rater=said.rater,
        time=utc_now(),
        reason=said.reason,
        sha256=data["sha256"],
        folder=data.get("folder"),
    )


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with the ledger or the labels is told with the status of a server that cannot now."""
    try:
        yield
    except UserError as error:
        cause = error.__cause__
        is_full = (
            isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        )
        raise Refused(507 if is_full else 503, str(error)) from error
    except sqlite3.Error as error:
        raise Refused(503, f"{error}: try again") from error


class _Held(Generic[T]):
    """A value that takes long to get, asked for by one thread at a time and held for a while."""

    def __init__(self, get: Callable[[], T], holds_s: float) -> None:
        self._get, self._holds_s = get, holds_s
        self._lock = threading.Lock()
        self._value: list[T] = []
        self._since_s = 0.0

    def value(self) -> T:
        with self._lock:
            if not self._value or time.monotonic() - self._since_s > self._holds_s:
                self._value = [self._get()]
                self._since_s = time.monotonic()
            return self._value[0]
