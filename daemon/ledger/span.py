"""A span of decisions: from when until when, as people write it, and which decisions of a ledger lie in it.

People ask by the time of acquisition, and a decision may come days after it: a folder of last month is judged when it
is first watched, a computer's clock is wrong, another is set back. So the ledger notes of every decision when its curve
was measured (table ``times``), in that order; a night is found among a million decisions in some milliseconds.

Whoever collects decisions elsewhere has to know which of them it has: that is noted here too, in stretches.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from heapq import merge
from itertools import pairwise
from typing import Any

from daemon.common.errors import USAGE, UserError
from daemon.judging import VERDICTS, Verdict
from daemon.ledger import wire
from models.clock import CLOCK, day_and_minute, rfc3339, since_1970

#: What people may write for a moment, wherever a verb asks for one.
WHEN = "today, yesterday, a day (2026-11-27), a time (2026-11-27T22:00), how long ago (12h, 30d) or a decision's number"
_AGO = re.compile(r"(\d{1,5})([hd])", re.ASCII)
_AGO_S = {"h": 3600.0, "d": 86_400.0}
#: Decisions that are named in one read, so that none of them holds up a checkpoint.
PAGE = 1_000
#: Decisions from the first to the last ``seq``; None: it goes on.
Seqs = tuple[int, int | None]
ALL: Seqs = (1, None)
Verdicts = Collection[Verdict]
_Select = Callable[..., list[tuple[Any, ...]]]
_Since = Callable[[int, int], list[wire.Row]]


@dataclass(frozen=True, slots=True)
class Span:
    """``since_s`` <= acquired < ``until_s`` (seconds since 1970), and ``after`` < seq <= ``last`` (None: no end)."""

    since_s: float = -math.inf
    until_s: float = math.inf
    after: int = 0
    last: int | None = None

    @classmethod
    def parse(cls, since: str | None = None, until: str | None = None, now_s: float | None = None) -> Span:
        """What ``--since`` and ``--until`` say, in this computer's time; ``now_s``: the moment that `today` holds.

        A day as ``until`` is in it to its end; ``12h`` and ``30d`` are so long before now, to the second. A bare number
        is a decision: since the one behind it, as `events` takes it, or until that one. Raises UserError 64 for
        nonsense, and where the end lies before the beginning.
        """
        now_s = CLOCK.wall_s() if now_s is None else now_s
        span = cls()
        if since is not None:
            begin = _read("--since", since, now_s, is_end=False)
            span = replace(span, after=begin) if isinstance(begin, int) else replace(span, since_s=begin)
        if until is not None:
            end = _read("--until", until, now_s, is_end=True)
            span = replace(span, last=end) if isinstance(end, int) else replace(span, until_s=end)
        if span.until_s <= span.since_s or (span.last is not None and span.last <= span.after):
            raise UserError(USAGE, f"--since {since} is not before --until {until}: exchange them")
        return span

    def of_seqs(self, first: int, last: int | None) -> Span:
        """What of it lies in a stretch of decisions, as that of a session; ``last`` None: it goes on."""
        ends = [end for end in (self.last, last) if end is not None]
        return replace(self, after=max(self.after, first - 1), last=min(ends, default=None))

    def holds(self, acquired_s: float, seq: int) -> bool:
        """Whether a decision lies in it."""
        is_seq = self.after < seq and (self.last is None or seq <= self.last)
        return is_seq and self.since_s <= acquired_s < self.until_s

    @property
    def text(self) -> str:
        """In words, in this computer's time: ``since 2026-11-27 12:00, until 2026-11-28 12:00``."""
        said = [] if self.since_s == -math.inf else [f"since {_minute(self.since_s)}"]
        said += [f"behind decision {self.after:,}"] if self.after else []
        said += [] if self.until_s == math.inf else [f"until {_minute(self.until_s)}"]
        said += [] if self.last is None else [f"up to decision {self.last:,}"]
        return ", ".join(said) or "since the ledger began"


EVER = Span()


def _minute(wall_s: float) -> str:
    return day_and_minute(rfc3339(wall_s, "seconds"))


def _read(option: str, written: str, now_s: float, *, is_end: bool) -> float | int:
    """A number of a decision (int), or seconds since 1970 (float)."""
    word = written.strip()
    if word.isascii() and word.isdigit() and len(word) <= 18:
        return int(word)
    if ago := _AGO.fullmatch(word.lower()):
        return now_s - int(ago[1]) * _AGO_S[ago[2]]
    try:
        today = datetime.fromtimestamp(now_s).date()
        days = {"today": today, "yesterday": today - timedelta(days=1)}
        if (day := days.get(word.lower()) or _day(word)) is not None:
            return datetime.combine(day + timedelta(days=is_end), time()).timestamp()
        return datetime.fromisoformat(word).timestamp()  # without a zone it is this computer's
    except (ValueError, OverflowError, OSError):
        raise UserError(USAGE, f'{option} "{written}": write {WHEN}') from None


def _day(word: str) -> date | None:
    return date.fromisoformat(word) if len(word) == len("2026-11-27") else None


def dated_before(
    since: _Since,
    count_within: Callable[..., int],
    last_seq: int,
    span: Span,
    verdicts: Verdicts = VERDICTS,
    min_score: float | None = None,
) -> tuple[int, int] | None:
    """How many were judged in the time of a span and are dated before it, and behind which decision they begin.

    None where there are none, or no time was named. The order of decisions is that in which they were judged.
    The first three are those of a LedgerView.
    """
    if not math.isfinite(span.since_s):
        return None
    end = last_seq if span.last is None else min(span.last, last_seq)
    after = _judged_before(since, span.since_s, span.after, end)
    last = end if span.until_s == math.inf else _judged_before(since, span.until_s, after, end)
    before = Span(until_s=span.since_s, after=after, last=last)
    count = count_within(before, verdicts=verdicts, min_score=min_score) if verdicts and last > after else 0
    return (count, after) if count else None


def _judged_before(since: _Since, wall_s: float, low: int, high: int) -> int:
    """The last decision between these two that was made before a moment; ``low`` where none was."""
    while low < high:
        middle = (low + high) // 2
        (row,) = since(middle, 1)
        if since_1970(wire.decode(row.body)["time"]) < wall_s:
            low = middle + 1
        else:
            high = middle
    return low


@dataclass(frozen=True, slots=True)
class Asked:
    """Which decisions are wanted: of a span, up to ``last``, with these verdicts, with no lower score."""

    span: Span
    last: int
    verdicts: Verdicts
    min_score: float | None = None

    def keys(self, select: _Select, unnoted: int) -> Iterator[tuple[float, int]]:
        """(acquired, seq) of each, in the order of acquisition.

        ``select`` asks the ledger. Decisions up to ``unnoted`` stand in no table yet: those are looked through, which
        takes some seconds a million, and 16 bytes of memory for each that is wanted.
        """
        noted = self._noted(select, unnoted)
        return merge(self._unnoted(select, unnoted), noted) if unnoted > self.span.after else noted

    def counts(self, select: _Select, unnoted: int) -> int:
        """How many there are."""
        where, values = self._where(unnoted)
        (count,) = select(f"select count(*) from times where {where}", *values)[0] if where else (0,)
        return int(count) + sum(1 for _ in self._looked_through(select, unnoted))

    def _noted(self, select: _Select, unnoted: int) -> Iterator[tuple[float, int]]:
        where, values = self._where(unnoted)
        query = f"""select acquired_s, seq from times where (acquired_s, seq) > (?, ?) and {where}
                    order by acquired_s, seq limit {PAGE}"""
        place = (self.span.since_s, -1)
        while where and (rows := select(query, *place, *values)):
            yield from rows
            place = rows[-1]

    def _where(self, unnoted: int) -> tuple[str, list[object]]:
        """Nothing where no decision can be of it."""
        span, verdicts = self.span, sorted(self.verdicts)
        if self.last <= unnoted:
            return "", []
        which = f"seq > ? and seq <= ? and verdict in ({','.join('?' * len(verdicts))})"
        where = f"acquired_s >= ? and acquired_s < ? and {which}"
        values: list[object] = [span.since_s, span.until_s, max(span.after, unnoted), self.last, *verdicts]
        if self.min_score is not None:
            where, values = f"{where} and score >= ?", [*values, self.min_score]
        return where, values

    def _unnoted(self, select: _Select, unnoted: int) -> Iterator[tuple[float, int]]:
        times, seqs = array("d"), array("q")
        for acquired_s, seq in self._looked_through(select, unnoted):
            times.append(acquired_s)
            seqs.append(seq)
        for place in sorted(range(len(seqs)), key=times.__getitem__):
            yield times[place], seqs[place]

    def _looked_through(self, select: _Select, unnoted: int) -> Iterator[tuple[float, int]]:
        span = self.span
        last = min(unnoted, self.last)
        query = "select seq, body from decisions where seq > ? and seq <= ? order by seq"
        for first in range(span.after, last, PAGE):
            for seq, body in select(query, first, min(first + PAGE, last)):
                with suppress(ValueError, KeyError):  # one that cannot be read: the check of the ledger tells of it
                    one = wire.timed(body)
                    if self._wants(one):
                        yield one.acquired_s, seq

    def _wants(self, one: wire.Timed) -> bool:
        if not self.span.since_s <= one.acquired_s < self.span.until_s or one.verdict not in self.verdicts:
            return False
        return self.min_score is None or (one.score is not None and one.score >= self.min_score)


# Which decisions somebody has.


class Known:
    """Which decisions a collector's tables hold: of each stream the instrument, and the stretches of its numbers.

    As a stream is told without a gap, one stretch is all there is, unless something was lost.
    """

    def __init__(self) -> None:
        self._of: dict[str, tuple[str, list[list[int]]]] = {}
        self._at: dict[str, str] = {}  # instrument -> stream of what came last
        self._changed: set[str] = set()
        self.came, self._coming = 0, 0  # decisions that were new, in the tables by now and on their way there

    def take(self, instrument: str, stream: str, seq: int) -> bool:
        """Whether it is new; then it is known from now on."""
        owner, stretches = self._of.setdefault(stream, (instrument, []))
        if any(first <= seq <= last for first, last in reversed(stretches)):
            return False
        if stretches and stretches[-1][1] == seq - 1:
            stretches[-1][1] = seq
        else:
            stretches.append([seq, seq])
        self._at[owner] = stream
        self._changed.add(stream)
        self._coming += 1
        return True

    def learn(self, instrument: str, stream: str, stretches: Iterable[Sequence[int]]) -> None:
        """What the tables say; of an instrument's streams the one that came last is learnt last."""
        self._of[stream] = (instrument, sorted([first, last] for first, last in stretches))
        self._at[instrument] = stream

    def owner(self, stream: str) -> str | None:
        """The instrument that a stream is of."""
        return self._of[stream][0] if stream in self._of else None

    def last(self, stream: str) -> int:
        """Its last number; 0 where it is not known."""
        return max((last for _, last in self._of[stream][1]), default=0) if stream in self._of else 0

    def at(self, instrument: str | None) -> tuple[str | None, int]:
        """Stream and number behind which an instrument goes on; None: the one that there is."""
        if instrument is None and len(self._at) == 1:
            (instrument,) = self._at
        stream = self._at.get(instrument or "")
        return stream, 0 if stream is None else self.last(stream)

    def missing(self) -> int:
        """Numbers between the stretches of a stream: what was told and is not in the tables."""
        of_all = (sorted(stretches) for _, stretches in self._of.values())
        return sum(two[0] - one[1] - 1 for all_ in of_all for one, two in pairwise(all_))

    def notes(self) -> dict[str, Any]:
        """What has changed since it was ``noted``, for the note of a commit."""
        changed = {stream: self._of[stream] for stream in self._changed}
        at = {f"at {owner}": self._at[owner] for owner, _ in changed.values()}
        return at | {f"stream {stream}": list(of) for stream, of in changed.items()}

    def noted(self) -> None:
        """What has changed is in the tables."""
        self._changed.clear()
        self.came, self._coming = self.came + self._coming, 0

    @classmethod
    def read(cls, noted: Mapping[str, Any]) -> Known:
        """What ``notes`` have said."""
        known = cls()
        for key, value in noted.items():
            if key.startswith("stream "):
                known.learn(value[0], key.removeprefix("stream "), value[1])
        known._at |= {key.removeprefix("at "): value for key, value in noted.items() if key.startswith("at ")}
        return known
