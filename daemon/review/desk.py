"""The desk: what the page's requests are answered from, and where its answers go. All of it may wait on the disk.

The ledger is only read. Samples of a curve come from the ledger's copy, else from its file, if that lies in a watched
folder and still holds what was judged; nothing else is ever opened.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from daemon.client.folders import watched_folders
from daemon.common.ending import Closing
from daemon.common.errors import UserError
from daemon.common.mounts import resolve
from daemon.common.sqlite_file import file_of
from daemon.config import Config
from daemon.formats.afmcurve import unpack
from daemon.formats.base import Unfinished, Unreadable
from daemon.labels import Full, Kind, Label, Labels, Shown, Word, unanimous
from daemon.labels.curve_name import is_there
from daemon.labels.raters import Past
from daemon.labels.schema import MIGRATIONS
from daemon.labels.sessions import Sessions, Stretches
from daemon.labels.sheets import Sheets
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event
from daemon.reading.ahead import find as find_files
from daemon.reading.pool import ReaderPool
from daemon.review.queues import BLIND, QUEUES, Aims, Item, Portion, QueueName, portion, queue, stretches
from daemon.review.request import Refused, Said
from models.clock import utc_now
from models.curve import Curve

_FOLDERS_HOLD_S = 10.0
_WRITING_S = 6.0  # for the labels before these; a locked file is waited for 5 s
_READING_S = 3.0  # for the file before this one
_REMEMBERED = 50_000  # items of all raters that were handed out
_ASKED_AGAIN = 200  # of a queue, to find out what an answer is to
_PAGES_AT_ONCE = 4  # raters and queues in one list of answers; a page has one of each


@dataclass(frozen=True, slots=True)
class Stored:
    """One answer as it lies on the disk, whether it was a label or the answer to a question."""

    id: str
    word: Word
    rater: str
    time: str
    reason: str = ""


T = TypeVar("T")


class Held(Generic[T]):
    """A value that takes long to get: asked for by one thread at a time, and held for a while.

    ``holds_s``: how long a value is as good as a new one; what ``get`` raises is not held.
    """

    def __init__(self, get: Callable[[], T], holds_s: float) -> None:
        self._get, self._holds_s = get, holds_s
        self._lock = threading.Lock()
        self._value: list[T] = []
        self._since_s = 0.0
        self._forgotten = 0  # times

    def value(self) -> T:
        """At most ``holds_s`` old, and got after it was last forgotten."""
        with self._lock:
            if not self._value or time.monotonic() - self._since_s > self._holds_s:
                forgotten = self._forgotten
                self._value = [self._get()]
                self._since_s = time.monotonic() if forgotten == self._forgotten else -math.inf
            return self._value[0]

    def forget(self) -> None:
        """It has changed: one that is being got now is not held either."""
        self._forgotten += 1
        self._since_s = -math.inf

    def renew(self) -> T:
        """A new one."""
        self.forget()
        return self.value()

    def peek(self) -> T | None:
        """The last one, however old; None where there has been none."""
        value = self._value
        return value[0] if value else None


class Desk(Closing):
    """Methods may be called from any thread. They raise Refused with what the page is told."""

    def __init__(self, config: Config, found: Sequence[int] | None = None) -> None:
        self.config, self.found = config, found  # decisions of a list that somebody wants looked at
        self._view: LedgerView | None = None
        self._labels: Labels | None = None
        self._labels_name: tuple[int, int] | None = None
        self._readers: ReaderPool | None = None
        self._opening, self._opening_labels = threading.Lock(), threading.RLock()
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._handed_out: OrderedDict[tuple[str, int], Item] = OrderedDict()
        self._folders = Held(lambda: watched_folders(config), _FOLDERS_HOLD_S)

    def close(self) -> None:
        with ExitStack() as closing:
            for one in (self._view, self._labels, self._readers):
                if one is not None:
                    closing.enter_context(one)

    @property
    def ledger(self) -> LedgerView:
        """Raises Refused 503 where there is none, or it cannot be read."""
        with self._opening, told():
            if self._view is None:
                self._view = LedgerView(self.config.ledger_file)
            elif not self._view.is_in_place():  # a service came or went, or a backup was put back
                self._view.release()
            return self._view

    @property
    def labels(self) -> Labels:
        """The labels that lie there now; the file is made where there is none. Raises Refused 503, 507."""
        file = self.config.state / "labels.sqlite"
        if not self._opening_labels.acquire(timeout=_WRITING_S):
            raise Refused(503, f"{file.name} is held by another program: try again")
        try:
            with told():
                if self._labels is not None and self._labels_name != file_of(file):
                    self._labels.close()
                    self._labels = None
                if self._labels is None:
                    self._labels = Labels(file)
                    self._labels_name = file_of(file)
                labels = self._labels
        finally:
            self._opening_labels.release()
        with told():
            if labels.select("pragma user_version")[0][0] != len(MIGRATIONS):
                raise Refused(503, f"another version of afm-triage has renewed {file.name}: start the page again")
        return labels

    # Curves by the id of their decision, STREAM:SEQ.

    def decision(self, id: str) -> Event:
        """Raises Refused 404."""
        return self.decisions([id])[0]

    def decisions(self, ids: Sequence[str]) -> list[Event]:
        """Those of these ``ids``, in their order. Raises Refused 404 for one that there is not."""
        unknown = Refused(404, "no such curve: this ledger has no decision of this id")
        ledger = self.ledger
        with told():
            stream, seqs = ledger.stream, list[int]()
            for id in ids:
                its, _, seq = id.rpartition(":")
                if its != stream or not (seq.isascii() and seq.isdecimal() and len(seq) < 19 and seq[0] != "0"):
                    raise unknown
                seqs.append(int(seq))
            found = ledger.decisions(dict.fromkeys(seqs))
        if not found.keys() >= set(seqs):
            raise unknown
        return [found[seq] for seq in seqs]

    def events(self, seqs: Sequence[int]) -> list[Event]:
        """The decisions of these numbers that there are, in their order."""
        ledger = self.ledger
        with told():
            found = ledger.decisions(seqs)
        return [found[seq] for seq in seqs if seq in found]

    def within(self, which: str) -> Stretches | None:
        """The decisions of ``current``, ``all`` or session N. Raises Refused 404 for a session that there is not."""
        try:
            with told():
                sessions = Sessions(self.labels)
                if which == "all":
                    return None
                return stretches(sessions, "current" if which == "current" else int(which[:9]))
        except (LookupError, ValueError):
            raise Refused(404, "there is no such session: say current, all, or its number") from None

    def session_of(self, seq: int) -> int | None:
        with told():
            session = Sessions(self.labels).of(seq)
        return None if session is None else session.number

    # What a rater is asked, and what they answer.

    def queue(
        self,
        name: QueueName,
        rater: str,
        limit: int,
        within: Stretches | None,
        aims: Aims,
        *,
        is_blind: bool,
        is_dealt: bool = False,
    ) -> list[Item]:
        """What this rater is asked next."""
        ledger, labels = self.ledger, self.labels
        with told():
            if name == "found":
                found = [Item(one["seq"], one["id"], name, None) for one in self.events(self.listed(rater)[:limit])]
            else:
                found = queue(ledger, labels, name, rater, limit, within, aims, is_blind=is_blind, is_dealt=is_dealt)
        for item in found:
            self._handed_out[rater, item.seq] = item
            self._handed_out.move_to_end((rater, item.seq))
        while len(self._handed_out) > _REMEMBERED:
            self._handed_out.popitem(last=False)
        return found

    def listed(self, rater: str | None) -> list[int]:
        """What this rater (None: anybody) has not answered of the list, in its order; what was passed over comes last.

        No chance put it there, so that no answer to it has a weight.
        """
        past = None if rater is None else Past.of(self.labels, rater)
        done = self.labels.words().keys() if past is None else past.seen - set(past.skipped)
        left = [seq for seq in self.found or () if seq not in done]
        return left if past is None else sorted(left, key=set(past.skipped).__contains__)

    def portion(self, within: Stretches | None) -> Portion:
        """Where the pile stands, and whether enough of it was looked at."""
        ledger, labels = self.ledger, self.labels
        with told():
            return portion(ledger, labels, within)

    def say(self, said: Sequence[Said]) -> list[Stored]:
        """All of them or none. What a rater has said already in the same words is stored once."""
        events = self.decisions([one.id for one in said])
        self._ask_again(said, events)
        with self._one_writer(), told():
            labels = self.labels
            sessions = Sessions(labels)
            stored = []
            with labels.together():
                for one, event in zip(said, events, strict=True):
                    stored.append(self._say(labels, sessions, one, event))
            if labels is not self.labels:  # a backup was put back just now: what was written is in no file any more
                raise Refused(503, "the labels were replaced meanwhile: send it again")
        return stored

    def _say(self, labels: Labels, sessions: Sessions, said: Said, event: Event) -> Stored:
        seq, item = event["seq"], self._handed_out.get((said.rater, event["seq"]))
        is_of_sheet = item is not None and item.queue == "sheet" and item.kind == "plain"
        noted = None if is_of_sheet else _question(labels, said.rater, seq)  # a sheet asks whatever was asked before
        is_sent_again = noted is not None and (noted.kind == "golden" or noted.answer == said.word)
        if noted is not None and is_sent_again:
            return Stored(said.id, noted.answer or said.word, said.rater, noted.time, said.reason or "")
        is_question = noted is None and item is not None and item.kind in ("golden", "repeat")
        expected = _expected(labels, item.kind, said.rater, seq) if item is not None and is_question else None
        if item is not None and expected is not None:  # else what it asked for was taken back meanwhile
            now = utc_now()
            labels.note_shown(said.rater, seq, item.queue, item.kind, answer=said.word, expected=expected, time=now)
            return Stored(said.id, said.word, said.rater, now, said.reason or "")
        session, reason = sessions.of(seq), said.reason
        if reason is None:
            own = [one for one in labels.labelled([seq]).get(seq, []) if one.rater == said.rater]
            reason = next((one.reason for one in own if one.label == said.word), "")
        label = Labels.of_event(
            event,
            said.word,
            said.rater,
            reason,
            queue=item.queue if item else said.queue,
            weight=item.weight if item else None,
            session=session.number if session else None,
        )
        (held,) = labels.say([label])
        if is_of_sheet and (sheet := Sheets(labels).current()) is not None:
            Sheets(labels).note(sheet, seq, said.rater)
        return Stored(said.id, held.label, held.rater, held.time, held.reason)

    def is_asking(self, rater: str, seq: int) -> bool:
        """Whether a rater has this curve before them as a question, or on a sheet, and has not answered yet."""
        item = self._handed_out.get((rater, seq))
        if item is None or (item.kind == "plain" and item.queue != "sheet"):
            return False
        labels = self.labels
        with told():
            if item.kind != "plain":
                return _question(labels, rater, seq) is None
            sheet = Sheets(labels).current()
            return sheet is not None and Sheets(labels).is_open(sheet, seq)

    def is_disputed(self, seq: int) -> bool:
        """Whether it is a discard in which the second opinion sees a rupture."""
        with told():
            return bool(self.ledger.disputed(seq - 1, seq))

    def is_of(self, rater: str, seq: int, queue: QueueName) -> bool:
        """Whether a rater was last asked about this curve in this queue."""
        item = self._handed_out.get((rater, seq))
        return item is not None and item.queue == queue

    def _ask_again(self, said: Sequence[Said], events: Sequence[Event]) -> None:
        """What curves were asked for, where the page has them from a server before this one."""
        unknown = [
            one
            for one, event in zip(said, events, strict=True)
            if one.queue in QUEUES and (one.rater, event["seq"]) not in self._handed_out
        ]
        for rater, asked in [*dict.fromkeys((one.rater, one.queue) for one in unknown)][:_PAGES_AT_ONCE]:
            for name in QUEUES:
                if name == asked:
                    for which in ("all", "current"):  # what the page looks at by itself has the last word
                        self.queue(name, rater, _ASKED_AGAIN, self.within(which), Aims(), is_blind=name in BLIND)

    def skip(self, id: str, rater: str, queue: str) -> None:
        """Note that a rater has passed a curve over."""
        event = self.decision(id)
        is_gone = queue == "sheet" and self._is_gone(event)
        with self._one_writer(), told():
            labels = self.labels
            if is_gone and (sheet := Sheets(labels).current()) is not None:
                Sheets(labels).note(sheet, event["seq"], "")
            labels.note_shown(rater, event["seq"], queue, "skip")

    def _is_gone(self, event: Event) -> bool:
        try:
            self.curve(event)
        except Refused:
            return True
        return False

    def undo(self, id: str, rater: str | None) -> None:
        """Take back the answer on a curve. Raises Refused 404 where there is none, 409 where it may be another's."""
        seq = self.decision(id)["seq"]
        with self._one_writer(), told():
            labels = self.labels
            if rater is not None and _question(labels, rater, seq) is not None:
                labels.forget_shown(rater, seq)
                return
            own = [one for one in labels.labelled([seq]).get(seq, []) if rater in (None, one.rater)]
            if len(own) > 1:
                raise Refused(409, "several raters have labelled this curve: say whose label goes, ?rater=NAME")
            if own:
                labels.remove(own, by=own[0].rater, reason="undone on the page", time=utc_now())
                self._handed_out.pop((own[0].rater, seq), None)  # it may have been about to come again, as a repeat
                return
            if rater is not None and any(one.seq == seq for one in labels.shown(rater, "skip")):
                labels.forget_shown(rater, seq)
                return
        raise Refused(404, "this curve has no label of this rater" if rater else "this curve has no label")

    def labels_on(self, seq: int) -> list[Label]:
        """What holds of a decision, the first said first."""
        labels = self.labels
        with told():
            return labels.labelled([seq]).get(seq, [])

    def has_labels(self) -> bool:
        """Whether anybody has labelled a curve, as far as can be told; looking makes no file."""
        with suppress(Refused, UserError):
            return (self.config.state / "labels.sqlite").is_file() and bool(self.labels.words())
        return False

    @contextmanager
    def _one_writer(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=_WRITING_S):
            raise Refused(503, "another label is still being written: try again")
        try:
            yield
        finally:
            self._writing.release()

    # Samples.

    def curve(self, event: Event) -> tuple[Curve, bool]:
        """The samples of a judged curve, and whether they are those of a copy. Raises Refused 404."""
        ledger = self.ledger
        with told():
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
        folder, path, index = data.get("folder"), data["path"], data["curve"]
        if not folder or data.get("sha256") is None:
            raise gone
        file = resolve(Path(folder, path))
        if not any(file.is_relative_to(one) for one in self._folders.value()):
            raise Refused(404, "the folder of this curve is not watched any more, and the ledger has no copy of it")
        if os.path.islink(file) or not is_there(file):
            raise gone
        if not self._reading.acquire(timeout=_READING_S):  # so that a share which hangs does not take every thread
            raise Refused(503, "another file is still being read: try again")
        try:
            if self._readers is None:
                self._readers = ReaderPool(1, rules=self.config.text)
            (arrival,) = find_files([file])
            part = self._readers.read(arrival)
            if part.outcome == "curves" and len(part.readings) <= index < part.total:
                part = self._readers.read(arrival.portion(index, part.readings[0].sha256, part.total))
        finally:
            self._reading.release()
        reading = next((one for one in part.readings if one.index == index), None)
        if reading is None or reading.sha256 != data["sha256"]:
            raise Refused(404, "the file of this curve holds something else by now, and the ledger has no copy of it")
        if reading.curve is None:
            raise Refused(404, "this curve cannot be read, and there is nothing to draw")
        return reading.curve


def _question(labels: Labels, rater: str, seq: int) -> Shown | None:
    """What was noted of a question that this rater has answered on this curve."""
    asked = [*labels.shown(rater, "golden"), *labels.shown(rater, "repeat")]
    return next((one for one in asked if one.seq == seq), None)


def _expected(labels: Labels, kind: Kind, rater: str, seq: int) -> Word | None:
    """The answer that is known: what the others say together, or what the rater said before."""
    said = labels.labelled([seq]).get(seq, [])
    words = [one.label for one in said if (one.rater == rater) == (kind == "repeat")]
    return unanimous(words) if words else None


@contextmanager
def told() -> Iterator[None]:
    """What is wrong with the ledger or the labels is told with the status of a server that cannot now."""
    try:
        yield
    except Full as error:
        raise Refused(507, str(error)) from error
    except UserError as error:
        raise Refused(503, str(error)) from error
    except sqlite3.Error as error:
        raise Refused(503, f"{error}: try again") from error
