"""Sessions: runs of an instrument with one tip on one sample, in the labels' file.

A session is a range of decisions: from the first one after it was begun to the last one before it ended, or before
the next one began. A person begins one (`session begin`), or a new day folder does; a folder never ends what a person
began. The sessions of one sample are a group: its confirmed events move one cut.

What programs are told of sessions and labels, when they ask the service, is made here too.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from daemon.common.errors import USAGE, UserError
from daemon.judging import VERDICTS
from daemon.labels import Label, Labels
from daemon.ledger.numbers import ToldLabel, ToldLabels, ToldSession, ToldSessions
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import text
from models.clock import utc_now
from models.goal import WANTED

Origin = Literal["person", "folder"]
#: Stretches of decisions: the first and the last ``seq`` of each, oldest first; None: it goes on.
Stretches = Sequence[tuple[int, int | None]]
#: What a person may say of a session, and the most characters of each.
FIELDS = ("name", "tip", "sample", "operator", "note", "goal")
LONGEST = 2_000
_DATES = (
    re.compile(r"(?<!\d)(?P<y>(?:19|20)\d\d)([-_. ]?)(?P<m>\d\d)\2(?P<d>\d\d)(?:\d{4}|\d{6})?(?!\d)"),
    re.compile(r"(?<!\d)(?P<d>\d\d)([-_.])(?P<m>\d\d)\2(?P<y>(?:19|20)\d\d)(?!\d)"),
)


@dataclass(frozen=True, slots=True)
class Session:
    """One run. ``began`` and ``ended`` are UTC, RFC 3339; ``last_seq`` and ``ended`` are None while it goes on."""

    number: int
    name: str
    tip: str
    sample: str
    operator: str
    note: str
    goal: str
    origin: Origin
    began: str
    ended: str | None
    first_seq: int
    last_seq: int | None
    stream: str = ""  # the ledger that the numbers count in; "": there was none yet
    before: Mapping[str, int] = field(default_factory=dict)  # decisions by verdict, before its first
    after: Mapping[str, int] | None = None  # the same up to its last

    def holds(self, seq: int) -> bool:
        """Whether a decision of its ledger is one of its own."""
        return self.first_seq <= seq and (self.last_seq is None or seq <= self.last_seq)

    @property
    def seconds(self) -> float:
        """From its beginning to its end, or until now."""
        began, ended = map(datetime.fromisoformat, (self.began, self.ended or utc_now()))
        return round(max((ended - began).total_seconds(), 0.0), 1)

    def counts(self, now: Mapping[str, int]) -> dict[str, int]:
        """Its decisions by verdict; ``now``: those of the whole ledger, at this moment."""
        until = now if self.after is None else self.after
        return {verdict: max(count - self.before.get(verdict, 0), 0) for verdict, count in until.items()}


class Sessions:
    """The sessions of one state folder, oldest first. Raises UserError 74 as the labels do."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels

    def begin(
        self,
        *,
        name: str = "",
        tip: str = "",
        sample: str = "",
        operator: str = "",
        note: str = "",
        goal: str = "",
        origin: Origin = "person",
        before: Mapping[str, int] | None = None,
    ) -> Session:
        """End what goes on, and begin with the next decision.

        ``before``: decisions by verdict until then, unless those of this moment. Raises UserError 64 for a text that is
        too long.
        """
        said = dict(zip(FIELDS, (name, tip, sample, operator, note, goal), strict=True))
        for one, value in said.items():
            if len(value) > LONGEST:
                raise UserError(USAGE, f"--{one} has {len(value):,} characters; {LONGEST:,} are the most")
        known = self.counted() if before is None else before
        now, told = utc_now(), json.dumps(dict(known))
        insert = f"""insert into sessions ({", ".join(FIELDS)}, origin, began, stream, first_seq, before)
                     values ({", ".join("?" * 11)})"""
        values = (*(text(value.strip()) for value in said.values()), origin, now, self.labels.stream or "")
        with self.labels.together():
            self._end(now, known)
            number = self.labels.change(insert, *values, sum(known.values()) + 1, told)
        return next(one for one in self.all() if one.number == number)

    def end(self, before: Mapping[str, int] | None = None) -> Session | None:
        """End what goes on, with the last decision; None where nothing did."""
        going_on = self.current()
        if going_on is None:
            return None
        with self.labels.together():
            self._end(utc_now(), self.counted() if before is None else before)
        return next(one for one in self.all() if one.number == going_on.number)

    def current(self) -> Session | None:
        """The one that goes on."""
        last = self.all()[-1:]
        return last[0] if last and last[0].ended is None else None

    def present(self) -> Session | None:
        """The one that goes on, or has ended and nothing was decided since: what people look at the morning after."""
        last = self.all()[-1:]
        if not last or last[0].ended is None:
            return last[0] if last else None
        is_latest = self._is_ours(last[0]) and last[0].last_seq == sum(self.counted().values())
        return last[0] if is_latest else None

    def of(self, seq: int) -> Session | None:
        """The one that a decision of this ledger belongs to."""
        for one in reversed(self.all()):
            if self._is_ours(one) and one.holds(seq):
                return one
        return None

    def groups_of(self, seqs: Iterable[int]) -> dict[int, str]:
        """The group of each of these decisions of this ledger; "" of what was decided outside of any session."""
        ours = [(self.group(one), one) for one in reversed(self.all()) if self._is_ours(one)]
        return {seq: next((group for group, one in ours if one.holds(seq)), "") for seq in seqs}

    def all(self) -> list[Session]:
        """Every one, oldest first; one that went on when its ledger was taken away ended before its first curve."""
        every = [_session(row) for row in self.labels.select("select * from sessions order by number")]
        return [
            one
            if one.ended or self._is_ours(one)
            else replace(one, ended=one.began, last_seq=one.first_seq - 1, after=one.before)
            for one in every
        ]

    @staticmethod
    def group(session: Session | None) -> str:
        """What its confirmed events are counted with: its sample; "" where none was given."""
        return "" if session is None else group_of(session.sample)

    def here(self) -> tuple[str, Stretches]:
        """The group of the present session, and where the decisions of that group stand, as ``seqs_of`` has it."""
        group = self.group(self.present())
        return group, self.seqs_of(group)

    def seqs_of(self, group: str) -> list[tuple[int, int | None]]:
        """First and last decision of each session of a group in this ledger; None: it goes on.

        What was decided outside of any session is of the group "".
        """
        ours = [one for one in self.all() if self._is_ours(one)]
        found: list[tuple[int, int | None]] = []
        at = 1
        for one in ours:
            if not group and one.first_seq > at:
                found.append((at, one.first_seq - 1))
            if self.group(one) == group and (one.last_seq is None or one.last_seq >= one.first_seq):
                found.append((one.first_seq, one.last_seq))
            if one.last_seq is None:
                return found
            at = one.last_seq + 1
        return [*found, (at, None)] if not group else found

    def counted(self) -> dict[str, int]:
        """Decisions by verdict in the ledger beside the labels.

        Raises UserError 74 where it cannot be read: a session begun there would hold all that a backup brings back.
        """
        if not self.labels.ledger_file.is_file():
            return dict.fromkeys(VERDICTS, 0)
        with LedgerView(self.labels.ledger_file) as view:
            return view.verdict_counts()

    def _is_ours(self, session: Session) -> bool:
        """Whether its numbers count in the ledger of now: whoever begins a new ledger begins with no session."""
        return session.stream in (self.labels.stream or "", "")

    def _end(self, now: str, counts: Mapping[str, int]) -> None:
        stream, told = self.labels.stream or "", json.dumps(dict(counts))
        update = """update sessions set ended = ?1, last_seq = ?2, after = ?3, stream = ?4
                    where ended is null and stream in (?4, '')"""
        self.labels.change(update, now, sum(counts.values()), told, stream)
        update = "update sessions set ended = ?, last_seq = first_seq - 1, after = before where ended is null"
        self.labels.change(update, now)  # of a ledger that is not there any more


def _session(row: Any) -> Session:
    said = {name: row[name] for name in Session.__dataclass_fields__ if name not in ("before", "after")}
    after = row["after"]
    return Session(**said, before=json.loads(row["before"]), after=None if after is None else json.loads(after))


def wanted_of(goal: str) -> int:
    """How many curves are to be kept, where a goal begins with it (``50``, ``200 events``); else the usual number."""
    found = _WANTED.match(goal.strip())
    return max(int(found[1]), 1) if found else WANTED


_WANTED = re.compile(r"(\d{1,6})\s*(?:$|kept\b|events?\b|ruptures?\b|unfoldings?\b|unbindings?\b)", re.IGNORECASE)


def group_of(sample: str) -> str:
    """The group of a sample, however it is written."""
    return " ".join(sample.split()).casefold()


def is_within(seq: int, stretches: Stretches) -> bool:
    """Whether a decision lies in one of them."""
    return any(first <= seq and (last is None or seq <= last) for first, last in stretches)


def day_of(path: str) -> tuple[str, date] | None:
    """The day folder of a file: the first part of its path below the watched folder that holds a date, and that day."""
    for part in path.split("/")[:-1]:
        for found in (match for pattern in _DATES for match in pattern.finditer(part)):
            with suppress(ValueError):  # month 13
                return part, date(int(found["y"]), int(found["m"]), int(found["d"]))
    return None


# What programs are told of sessions and labels.

#: In one answer.
MOST_TOLD = 1_000
#: The service's other answers wait meanwhile.
_PATIENCE_S = 0.1


def answers_of(file: Path) -> dict[str, Callable[[int], ToldLabels | ToldSessions]]:
    """What can be asked of the labels' ``file`` -> what is told of what lies behind a number."""
    return {"labels": partial(told_labels, file), "sessions": partial(told_sessions, file)}


def told_sessions(file: Path, after: int) -> ToldSessions:
    """Those of the labels' ``file`` with a greater number. Raises UserError 74 where it cannot be read now."""
    if not file.is_file():
        return ToldSessions(sessions=())
    with Labels(file, patience_s=_PATIENCE_S, is_reading=True) as labels:
        found = [one for one in Sessions(labels).all() if one.number > after][:MOST_TOLD]
        ours = labels.stream or ""
    return ToldSessions(sessions=tuple(_told_session(one, ours) for one in found))


def told_labels(file: Path, after: int) -> ToldLabels:
    """Those of the labels' ``file`` with a greater number. Raises UserError 74 where it cannot be read now."""
    if not file.is_file():
        return ToldLabels(labels=(), before="", undone=0)
    with Labels(file, patience_s=_PATIENCE_S, is_reading=True) as labels:
        (undone,) = labels.select("select count(*) from labels where undone is not null")[0]
        rows = labels.select("select * from labels where number > ? order by number limit ?", after, MOST_TOLD)
        before = [_told_label(row) for row in labels.select("select * from labels where number = ?", after)]
    name = name_of(before[0]) if before else ""
    return ToldLabels(labels=tuple(map(_told_label, rows)), before=name, undone=undone)


def name_of(label: ToldLabel) -> str:
    """A short name of what was said, by which it is seen whether the file is still the one that was read."""
    said = (label.path, label.curve, label.sha256, label.label, label.rater, label.time, label.removed_by)
    return f"{label.number}-{zlib.crc32(repr(said).encode()):08x}"


def _told_session(one: Session, ours: str) -> ToldSession:
    said = {name: getattr(one, name) for name in ToldSession.__struct_fields__}
    return ToldSession(**said | {"stream": one.stream or ours})


def _told_label(row: Any) -> ToldLabel:
    return ToldLabel(**{name: row[name] for name in ToldLabel.__struct_fields__} | {"extra": json.loads(row["extra"])})


class Said:
    """What people have said at one instrument, as far as its service was asked: the client's half of ``answers_of``."""

    def __init__(self) -> None:
        self.sessions: list[dict[str, Any]] = []
        self._labels: list[dict[str, Any]] = []
        self._undone, self._before = 0, ""

    def update(self, tell: Callable[[str, int], Mapping[str, Any]]) -> bool:
        """Ask for what is new; whether anything is. ``tell``: the data of an answer; what it raises ends it half way.

        An answer that brings what was not asked for is told as ValueError.
        """
        count, answer = len(self._labels), tell("labels", self._number)
        was_changed = (answer["undone"], answer["before"]) != (self._undone, self._before)
        if was_changed:
            self._labels, self._before, self._undone = [], "", answer["undone"]
            answer = tell("labels", 0)
        while answer["labels"]:
            if answer["labels"][0]["number"] <= self._number:
                raise ValueError("labels come out of order")
            self._labels += answer["labels"]
            answer = tell("labels", self._number)
            self._before = answer["before"]
        sessions: list[dict[str, Any]] = []
        while found := tell("sessions", sessions[-1]["number"] if sessions else 0)["sessions"]:
            if sessions and found[0]["number"] <= sessions[-1]["number"]:
                raise ValueError("sessions come out of order")
            sessions += found
        is_new = was_changed or len(self._labels) != count or sessions != self.sessions
        self.sessions = sessions
        return is_new

    def labels(self) -> list[dict[str, Any]]:
        """What holds: the last word of each rater on each curve, unless it was taken back, in the order of time."""
        last: dict[tuple[tuple[str, int], str], dict[str, Any]] = {}
        for one in sorted(self._labels, key=lambda one: (one["time"], one["number"])):
            if one["undone"] is None:
                path, curve, sha256 = one["path"], one["curve"], one["sha256"]
                label = Label(path, curve, "unsure", "", "", sha256=sha256, folder=one["folder"])
                last[label.identity, one["rater"]] = one
        return sorted((one for one in last.values() if one["removed_by"] is None), key=lambda one: int(one["number"]))

    @property
    def _number(self) -> int:
        return int(self._labels[-1]["number"]) if self._labels else 0
