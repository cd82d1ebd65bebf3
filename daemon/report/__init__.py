"""The report: what happened since a moment, as the files of a state tell it, with a service beside them or without one.

What was kept and where, how much came by the hour of *measurement* and by folder, what waits for a person, what was
thrown away that a person should see, how many events can have been missed at the most, and whether everything was well.
Nothing is written, and no watched folder is touched: pictures are drawn from the copies in the ledger.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from daemon.client.service_file import find
from daemon.common.errors import UserError
from daemon.common.text import many
from daemon.config import Config
from daemon.guard.logbook import NAME as LOGBOOK
from daemon.guard.logbook import LogbookView, Run
from daemon.guard.unseen import unseen
from daemon.judging import VERDICTS
from daemon.labels import Label, Labels
from daemon.labels.raters import agreements
from daemon.labels.sessions import Session, Sessions
from daemon.ledger.numbers import Told, Unseen
from daemon.ledger.span import Span, dated_before
from daemon.ledger.view import LedgerView
from daemon.report.decisions import SILENT_S, Shown, Silence, Tally, bars_of, pictures, when, word_of
from models.clock import rfc3339, since_1970

#: Blocks of the tip watch that are looked at.
_MOST_BLOCKS = 20_000
_PATIENCE_S = 1.0  # for whoever holds the labels locked


@dataclass(frozen=True, slots=True)
class Bar:
    """Curves of one hour, day or month, as ``start`` is long: "2026-11-27T22", of this computer's time."""

    start: str
    keep: int
    review: int
    discard: int

    @property
    def curves(self) -> int:
        return self.keep + self.review + self.discard


@dataclass(frozen=True, slots=True)
class Place:
    """Curves of one folder. Times are UTC, RFC 3339."""

    folder: str  # absolute, where its watched folder is known
    keep: int
    review: int
    discard: int
    first: str
    last: str

    @property
    def curves(self) -> int:
        return self.keep + self.review + self.discard


@dataclass(frozen=True, slots=True)
class Served:
    """A model that judged in this span; times of measurement, UTC, RFC 3339."""

    model: str
    curves: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Gap:
    """No curve was measured; UTC, RFC 3339. ``ran``: whether the service ran all the time; None: not known."""

    since: str
    until: str
    seconds: float
    ran: bool | None


@dataclass(frozen=True, slots=True)
class TipHours:
    """Medians of 50 curves each, in the order of ``times`` (UTC, RFC 3339, of measurement); None: not told."""

    unit: str | None
    times: tuple[str, ...]
    noise: tuple[float | None, ...]
    adhesion: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Missed:
    """What can have been missed in this span: three numbers that never merge.

    ``canaries`` by result are simulated events and say whether the line works; ``confirmed`` are real events that
    people named, and what was decided on them; ``unseen`` bounds the events among the discards, model by model.
    """

    canaries: Mapping[str, int]  # of whole hours,
    counted_since: str | None  # the first of which began here, before the span; None: with it
    confirmed: Mapping[str, int]  # verdict -> confirmed events
    discards: int  # of this span,
    of_nights: int  # and of the whole nights that it is of, which the bound is made from
    at_most: int | None  # of this span; None: nobody has looked blind
    looked_at: int
    disputed: int
    disputed_looked_at: int
    unseen: tuple[Unseen, ...]


@dataclass(frozen=True, slots=True)
class Older:
    """Curves that were judged in this time and are dated before it: an old folder, or a clock that was set back."""

    curves: int
    keep: int
    after: int  # they are behind this decision


@dataclass(frozen=True, slots=True)
class Spoken:
    """What one person said of curves of this span."""

    rater: str
    keep: int
    discard: int
    unsure: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is told; times are UTC, RFC 3339, unless said otherwise."""

    instrument: str
    state_dir: str
    running: bool  # the service, now
    stream: str
    since: str | None
    until: str | None
    after: int  # only decisions behind this one,
    last_seq: int | None  # and up to this one; None: no end
    made: str
    counts: Mapping[str, int]
    first: str | None
    last: str | None
    per_hour: float | None  # kept an hour, without the silences; None: of less than a quarter of an hour
    kept_but_not: int  # kept, and people say that they hold no event
    waiting: int  # flagged, and nobody has said a word
    bars: tuple[Bar, ...]
    folders: tuple[Place, ...]
    sessions: tuple[Mapping[str, Any], ...]
    reasons: Mapping[str, Mapping[str, int]]
    models: tuple[Served, ...]
    engines: Mapping[str, int]
    latency_s: Mapping[str, float | None]
    alarms: tuple[Told, ...]
    silences: tuple[Gap, ...]
    runs: tuple[Run, ...]
    ran_s: float | None  # so long the service ran in this time; None: not known
    asked_s: float | None  # so long this time is; None: since the ledger began
    ignored: Mapping[str, int]
    tip: TipHours | None
    missed: Missed
    raters: tuple[Spoken, ...]
    agreement: tuple[str, ...]
    kept: tuple[Shown, ...]
    flagged: tuple[Shown, ...]
    discarded: tuple[Shown, ...]  # confirmed by people, then what the second opinion disputes
    older: Older | None
    last_before: str | None  # of a span without curves: when the last one before it was measured
    notes: tuple[str, ...]  # what the files do not tell, and why

    @property
    def curves(self) -> int:
        return sum(self.counts.values())


def plain(report: Report) -> dict[str, Any]:
    """As JSON takes it."""
    told: dict[str, Any] = msgspec.to_builtins(report, enc_hook=lambda _: None)  # traces are for pictures
    for group in ("kept", "flagged", "discarded"):
        for one in told[group]:
            one.pop("trace")
    return told


def gather(config: Config, span: Span, *, is_drawn: bool = False, now_s: float | None = None) -> Report:
    """The report of a span. ``is_drawn``: with curves, for a page.

    Raises UserError 69 where there is no ledger, 74 where it is damaged; labels and logbook that cannot be read are
    told in ``notes``.
    """
    now_s = time.time() if now_s is None else now_s
    notes: list[str] = []
    with ExitStack() as closing:
        view = closing.enter_context(LedgerView(config.ledger_file))
        labels = _opened(config.state / "labels.sqlite", closing, notes)
        book = _book(config.state / LOGBOOK, closing, notes)
        tally = Tally()
        for event in view.within(span):
            tally.add(event)
        said = _said(labels, tally)
        night = _Night(tally, span, now_s)
        is_running = find(config).is_alive
        every = _runs(book, now_s, goes_on=is_running)
        runs = [one for one in every if _end_of(one) >= night.since and one.began < night.until]
        return Report(
            instrument=config.instrument,
            state_dir=str(config.state),
            running=is_running,
            stream=view.stream,
            since=_written(span.since_s),
            until=_written(span.until_s),
            after=span.after,
            last_seq=span.last,
            made=rfc3339(now_s, "seconds"),
            counts={verdict: tally.all[verdict] for verdict in VERDICTS},
            first=_written(tally.all.first_s),
            last=_written(tally.all.last_s),
            per_hour=_per_hour(tally),
            kept_but_not=sum(word_of(said.get(seq)) == "discard" for seq in tally.seqs_of("keep")),
            waiting=sum(seq not in said for seq in tally.seqs_of("review")),
            bars=tuple(Bar(start, one["keep"], one["review"], one["discard"]) for start, one in bars_of(tally.hours)),
            folders=tuple(_folders(tally)),
            sessions=tuple(_sessions(labels, view.stream, tally)),
            reasons={reason: dict(counts) for reason, counts in _often_first(tally.reasons) if reason != "score"},
            models=tuple(
                Served(name, one.curves, when(one.first_s), when(one.last_s)) for name, one in tally.models.items()
            ),
            engines=dict(tally.engines.most_common()),
            latency_s={"p50": tally.latency_s(0.5), "p99": tally.latency_s(0.99)},
            alarms=tuple(one for one in (book.told(night.since) if book else []) if one.since < night.until),
            silences=tuple(sorted(_gaps(tally, every), key=lambda one: -one.seconds)),
            runs=tuple(runs),
            ran_s=night.ran_s(runs) if book else None,
            asked_s=None if span.since_s == -math.inf else min(span.until_s, now_s) - span.since_s,
            ignored=dict(book.ignored(night.since[:13], night.until)) if book and runs else {},
            tip=_tip(book, tally, night) if book and tally.seqs else None,
            missed=_missed(view, labels, book if runs else None, tally, said, night),
            raters=tuple(_raters(said)),
            agreement=tuple(one.words() for one in agreements(label for some in said.values() for label in some)),
            older=_older(view, span),
            last_before=None if tally.seqs else _last_before(view, span),
            notes=(*notes, *_doubts(tally)),
            **pictures(view, tally, said, is_drawn=is_drawn),
        )


def _runs(book: LogbookView | None, now_s: float, *, goes_on: bool) -> list[Run]:
    """Of the service, oldest first; one that goes on was seen just now."""
    every = book.runs() if book else []
    if goes_on and every and every[-1].ended is None:
        every[-1] = every[-1]._replace(seen=max(every[-1].seen, rfc3339(now_s)))
    return every


class _Night:
    """From when until when the service's own notes belong to a span: as asked, or as its decisions were made.

    A folder of last month that is judged tonight was measured then and decided now: so both count.
    """

    def __init__(self, tally: Tally, span: Span, now_s: float) -> None:
        first_s, last_s = tally.decided if tally.seqs else (math.inf, -math.inf)
        since_s = min(span.since_s if span.since_s > -math.inf else math.inf, first_s)
        until_s = max(span.until_s if span.until_s < math.inf else now_s, last_s + 1.0)
        self.since = rfc3339(since_s) if since_s < math.inf else ""
        self.until = rfc3339(until_s)
        is_inside = math.isfinite(span.since_s) and span.since_s % 3600 != 0
        self.counted_since = f"{self.since[:13]}:00:00Z" if is_inside else None

    def ran_s(self, runs: Sequence[Run]) -> float:
        """How long the service ran of it."""
        stretches = ((max(one.began, self.since), min(_end_of(one), self.until)) for one in runs)
        return sum(max(since_1970(end) - since_1970(begin), 0.0) for begin, end in stretches)


def _end_of(one: Run) -> str:
    return one.ended or one.seen


def _opened(file: Path, closing: ExitStack, notes: list[str]) -> Labels | None:
    if not file.is_file():  # looking must not make it
        return None
    try:
        return closing.enter_context(Labels(file, patience_s=_PATIENCE_S, is_reading=True))
    except UserError as error:
        notes.append(f"what people said is not told: {error}")
        return None


def _book(file: Path, closing: ExitStack, notes: list[str]) -> LogbookView | None:
    try:
        book = closing.enter_context(LogbookView(file))
        for read in (book.told, book.runs, book.ignored, book.tallies, book.blocks):  # damage may lie in any of it
            read()
        return book
    except UserError as error:
        notes.append(f"alarms, restarts and the tip are not told: {error}")
        return None


def _said(labels: Labels | None, tally: Tally) -> dict[int, list[Label]]:
    if labels is None:
        return {}
    every = labels.labelled()
    return {seq: every[seq] for seq in sorted(tally.holds(every))}


def _written(wall_s: float) -> str | None:
    return rfc3339(wall_s, "seconds") if math.isfinite(wall_s) else None


def _per_hour(tally: Tally) -> float | None:
    busy_s = tally.busy_s()
    return tally.all["keep"] / busy_s * 3600 if busy_s >= 900 else None


def _often_first(reasons: Mapping[str, Counter[str]]) -> list[tuple[str, Counter[str]]]:
    return sorted(reasons.items(), key=lambda one: -one[1].total())


def _folders(tally: Tally) -> Iterator[Place]:
    ordered = sorted(tally.folders.items(), key=lambda one: one[1].first_s)
    for (folder, part), one in ordered:
        name = os.path.join(folder, part) or "."
        yield Place(name, one["keep"], one["review"], one["discard"], when(one.first_s), when(one.last_s))


def _sessions(labels: Labels | None, stream: str, tally: Tally) -> Iterator[dict[str, Any]]:
    if labels is None or not tally.seqs:
        return
    first, last = min(tally.seqs), max(tally.seqs)
    for one in Sessions(labels).all():
        if one.stream in ("", stream) and one.first_seq <= last and (one.last_seq is None or one.last_seq >= first):
            yield _session(one, tally)


def _session(one: Session, tally: Tally) -> dict[str, Any]:
    verdicts = Counter(verdict for verdict in VERDICTS for seq in tally.seqs_of(verdict) if one.holds(seq))
    names = ("number", "name", "sample", "tip", "operator", "goal", "note", "began", "ended")
    return {**{name: getattr(one, name) for name in names}, "counts": dict(verdicts)}


def _gaps(tally: Tally, runs: Sequence[Run]) -> Iterator[Gap]:
    """None from before the service ever ran: what was measured then says when files were copied, not what stood."""
    first_s = since_1970(runs[0].began) if runs else -math.inf
    for one in tally.silences():
        since_s = max(one.since_s, first_s)
        if one.until_s - since_s >= SILENT_S:
            yield _gap(replace(one, since_s=since_s), runs)


def _gap(one: Silence, runs: Sequence[Run]) -> Gap:
    since, until = when(one.since_s), when(one.until_s)
    ran = None
    if runs and runs[0].began <= since:
        ran = any(run.began <= since and _end_of(run) >= until for run in runs)
    return Gap(since, until, one.seconds, ran)


def _tip(book: LogbookView, tally: Tally, night: _Night) -> TipHours | None:
    blocks = [(point, unit) for point, unit in book.blocks(night.since, _MOST_BLOCKS) if point.time < night.until]
    if not blocks:
        return None
    unit, _ = Counter(unit for _, unit in blocks).most_common(1)[0]
    points = [point for point, its in blocks if its == unit]
    return TipHours(
        unit,
        tuple(when(tally.measured_s(one.seq)) for one in points),
        tuple(one.noise for one in points),
        tuple(one.adhesion for one in points),
    )


def _missed(
    view: LedgerView,
    labels: Labels | None,
    book: LogbookView | None,
    tally: Tally,
    said: Mapping[int, Sequence[Label]],
    night: _Night,
) -> Missed:
    confirmed = {seq for seq, words in said.items() if word_of(words) == "keep"}
    disputed = tally.holds(view.disputed(min(tally.seqs) - 1, max(tally.seqs)) if tally.seqs else [])
    bounds = tuple(unseen(view, labels, pipeline, nights) for pipeline, nights in tally.nights.items())
    known = [one.at_most for one in bounds if one.at_most is not None]
    discards, of_nights = tally.all["discard"], sum(one.discards for one in bounds)
    at_most = sum(known) + sum(one.discards for one in bounds if one.at_most is None) if known else None
    return Missed(
        canaries=dict(book.tallies(night.since[:13], night.until)) if book else {},
        counted_since=night.counted_since,
        confirmed={
            verdict: sum(seq in confirmed for seq in tally.seqs_of(verdict))
            for verdict in ("keep", "review", "discard")
        },
        discards=discards,
        of_nights=of_nights,
        at_most=None if at_most is None else min(at_most + max(discards - of_nights, 0), discards),
        looked_at=sum(one.looked_at for one in bounds),
        disputed=len(disputed),
        disputed_looked_at=len(disputed & said.keys()),
        unseen=bounds,
    )


def _raters(said: Mapping[int, Sequence[Label]]) -> Iterator[Spoken]:
    words: dict[str, Counter[str]] = {}
    for some in said.values():
        for one in some:
            words.setdefault(one.rater, Counter())[one.label] += 1
    for rater, counts in sorted(words.items(), key=lambda one: -one[1].total()):
        yield Spoken(rater, counts["keep"], counts["discard"], counts["unsure"])


def _doubts(tally: Tally) -> Iterator[str]:
    if tally.untimed:
        yield f"{many(tally.untimed, 'curve')} without a time of measurement: counted when they were decided"
    if tally.ahead:
        ahead = f"{many(tally.ahead, 'curve')} measured after the verdict, by the times that the files tell"
        yield f"{ahead}: is the clock of the instrument, or of this computer, right?"


def _older(view: LedgerView, span: Span) -> Older | None:
    if (every := dated_before(view.since, view.count_within, view.last_seq, span)) is None:
        return None
    kept = dated_before(view.since, view.count_within, view.last_seq, span, [one for one in VERDICTS if one == "keep"])
    return Older(every[0], kept[0] if kept else 0, every[1])


def _last_before(view: LedgerView, span: Span) -> str | None:
    """When the last curve before an empty span was measured, as far as the last decisions tell."""
    before = [told for event in view.last(200) if (told := event["data"].get("acquired") or event["time"])]
    past = [one for one in before if since_1970(one) < span.until_s]
    return max(past, default=None)
