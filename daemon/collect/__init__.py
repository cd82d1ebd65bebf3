"""Handing over: which of the judged curves are wanted, where each of them is now, and what was done with it.

A curve is found again by its file, if that still holds what was judged (its sha256), else by the compact copy that the
ledger keeps of what was kept or flagged. ``table`` writes what was handed over as CSV, ``copies`` puts files or links
into a folder; an archive is written here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import merge
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from daemon.common.errors import BAD_DATA, UserError
from daemon.common.mounts import resolve
from daemon.formats import NAMES
from daemon.formats.afmcurve import SUFFIX, unpack
from daemon.formats.base import Unfinished, Unreadable
from daemon.formats.names import event_path
from daemon.formats.text_rule import TextRule
from daemon.judging import Verdict
from daemon.labels import Label, Labels, Word, unanimous
from daemon.labels.curve_name import is_there, sha256_of
from daemon.labels.sessions import Session, Sessions
from daemon.ledger.span import EVER, Span
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event
from daemon.reading.ahead import Job, Piece, read_ahead
from daemon.sources.existing import find
from deploy.cpu import usable_cores
from models.clock import since_1970
from models.curve import Curve

Identity = str
#: Of the instrument's file, of the ledger's compact copy, or nothing of it is left.
ContentKind = Literal["file", "compact copy", "gone"]
#: Of a file that is not handed over: it is gone, holds something else, or the curve was sent by a program.
Fate = Literal["", "gone", "changed", "sent"]


def identity_of(data: Mapping[str, Any], event: str) -> Identity:
    """By its content, where that is known: a curve that is judged again, by a new ledger, is the same curve."""
    return f"{data['sha256']}#{data['curve']}" if data["sha256"] else event


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which curves. ``words``: what people say, which counts before the verdict; without any the verdict alone does."""

    verdicts: Collection[Verdict]
    words: Collection[Word] = ()
    span: Span = EVER
    min_score: float | None = None
    session: Session | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """One curve that is wanted: its decision, the run that it is of, and what people say of it."""

    event: Event
    session: Session | None
    labels: Sequence[Label]

    @property
    def data(self) -> Mapping[str, Any]:
        """Of the event."""
        data: Mapping[str, Any] = self.event["data"]
        return data

    @property
    def order(self) -> tuple[float, int]:
        """Curves stand in the order in which they were measured."""
        return measured(self.event)

    @property
    def identity(self) -> Identity:
        """The same for the same content."""
        return identity_of(self.data, self.event["id"])


def choose(view: LedgerView, labels: Labels | None, wanted: Wanted) -> Iterator[Chosen]:
    """The curves, in the order in which they were measured. Raises UserError 74 where ledger or labels are damaged."""
    sessions = [] if labels is None else Sessions(labels).all()
    ours = [one for one in sessions if one.stream in (view.stream, "")]
    said = {} if labels is None else labels.labelled()
    stretch = (1, None) if wanted.session is None else (wanted.session.first_seq, wanted.session.last_seq)
    span = wanted.span.of_seqs(*stretch)
    events = view.within(span, verdicts=wanted.verdicts, min_score=wanted.min_score) if wanted.verdicts else iter(())
    if wanted.words:
        words = {seq: unanimous(one.label for one in some) for seq, some in said.items()}
        by_people = view.decisions(seq for seq, word in words.items() if word in wanted.words)
        inside = [event for event in by_people.values() if _is_within(event, span, wanted.min_score)]
        events = merge(
            sorted(inside, key=measured), (event for event in events if event["seq"] not in words), key=measured
        )
    for event in events:
        seq = event["seq"]
        session = next((one for one in reversed(ours) if one.holds(seq)), None)
        yield Chosen(event, session, said.get(seq, ()))


def measured(event: Event) -> tuple[float, int]:
    """When, in s since 1970, or where nobody knows when it was judged, and its number: what curves are ordered by."""
    return since_1970(event["data"].get("acquired") or event["time"]), event["seq"]


def _is_within(event: Event, span: Span, min_score: float | None) -> bool:
    score = event["data"]["score"]
    acquired_s, seq = measured(event)
    is_high = min_score is None or (score is not None and score >= min_score)
    return is_high and span.holds(acquired_s, seq)


@dataclass(frozen=True, slots=True)
class Content:
    """What there is of a curve. ``file`` holds what was judged; else ``copy`` are the bytes of an ``.afmcurve``."""

    kind: ContentKind
    file: Path | None = None
    other: Path | None = None  # the second half of a pair
    copy: bytes | None = None
    fate: Fate = ""

    def name(self, one: Chosen) -> str:
        """Where it belongs below the folder that it is handed over to: never outside of it."""
        data = one.data
        parts = [part for part in PurePosixPath(data["path"]).parts if part not in ("/", "..", ".")]
        path = "/".join(parts) or "curve"
        if self.kind == "file" and self.file is not None:
            return f"{os.path.dirname(path)}/{self.file.name}".lstrip("/")
        number = f"-{data['curve']}" if data["curve"] or data.get("source") != "ingest" else ""
        return path if path.endswith(SUFFIX) and not number else f"{path}{number}{SUFFIX}"


class Contents:
    """Looks for the content of curves; of a file with many it is looked at once.

    ``silent``: folders whose share does not answer, which are not touched.
    """

    def __init__(self, view: LedgerView, watched: Sequence[Path], silent: Sequence[Path] = ()) -> None:
        self._view, self._watched, self._silent = view, watched, silent
        self._last: tuple[object, Content | None] = (None, None)

    def of(self, one: Chosen) -> Content:
        """Never raises for what is wrong with a file."""
        key = (one.data.get("folder"), one.data["path"], one.data["sha256"])
        if self._last[0] != key:
            self._last = key, self._file_of(one)
        found = self._last[1]
        if found is not None and found.kind == "file":
            return found
        fate: Fate = "gone" if found is None else found.fate
        copy = self._view.compact_copy(one.event["seq"])
        return Content("gone", fate=fate) if copy is None else Content("compact copy", copy=copy, fate=fate)

    def _file_of(self, one: Chosen) -> Content | None:
        data = one.data
        if data.get("source") == "ingest":
            return Content("gone", fate="sent")
        folders = [Path(data["folder"])] if data.get("folder") else [*self._watched, Path()]
        is_other = False
        for file in (Path(folder, data["path"]) for folder in folders):
            if any(resolve(file).is_relative_to(one) for one in self._silent) or not (there := _spelt(file)):
                continue
            if data["sha256"] is not None and sha256_of(there) == data["sha256"]:
                other = NAMES.find_other(there) if NAMES.is_first_half(there.name) else None
                return Content("file", there, other)
            is_other = True
        return Content("gone", fate="changed") if is_other else None


def _spelt(file: Path) -> Path | None:
    """The file that events call so, where it is there: bytes of its name that are no UTF-8 are a mark in theirs."""
    if is_there(file):
        return file
    if "\ufffd" in file.name:
        with suppress(OSError):
            names = (name for name in os.listdir(file.parent) if event_path(name) == file.name)
            return next((file.with_name(name) for name in names), None)
    return None


def read(
    found: Iterable[tuple[Chosen, Content]], rules: Sequence[TextRule] = ()
) -> Iterator[tuple[Chosen, Content, Curve | None]]:
    """The curves with their samples, those of one file together; None where nothing of one can be read.

    Files are read by processes of their own, as the service does it. ``rules``: what the laboratory says of text.
    """
    waiting: dict[str, dict[int, tuple[Chosen, Content]]] = {}
    for one, content in found:
        if content.file is None:
            yield one, content, _of_copy(content.copy)
        else:
            waiting.setdefault(str(content.file), {})[one.data["curve"]] = (one, content)
    if not waiting:
        return
    for item in read_ahead(map(Job, find(list(waiting))), max(1, min(2, usable_cores())), rules=rules):
        if not isinstance(item, Piece):
            continue
        reading, of_file = item.reading, waiting.get(str(item.reading.arrival.file), {})
        if (wanted := of_file.get(reading.index)) and reading.sha256 == wanted[0].data["sha256"]:
            yield *of_file.pop(reading.index), reading.curve
    for some in waiting.values():  # a file that has changed since it was looked at
        yield from ((one, content, None) for one, content in some.values())


def _of_copy(copy: bytes | None) -> Curve | None:
    if copy is not None:
        with suppress(Unreadable, Unfinished):
            return unpack(copy)[0]
    return None


def session_of(labels: Labels | None, word: str) -> Session:
    """``current``, ``last`` or a number. Raises UserError 65 where there is no such session."""
    every = [] if labels is None else Sessions(labels).all()
    ours = [one for one in every if labels is not None and one.stream in (labels.stream or "", "")]
    going_on = [one for one in ours if one.ended is None]
    found = {"current": going_on[-1:], "last": ours[-1:]}.get(word, [one for one in ours if str(one.number) == word])
    if not found:
        known = ", ".join(str(one.number) for one in ours[-5:]) or "none yet"
        raise UserError(BAD_DATA, f"--session {word}: there is no such session in this ledger; there are: {known}")
    return found[0]
