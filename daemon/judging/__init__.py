"""The judging: the curves of a batch through the model, and one verdict on each, with everything an event says of it.

``classify`` has them scored; ``decide`` is a pure function of what was scored.

The rule that everything rests on: only a score may discard. A curve without a score, or one with a reason that puts it
outside what the model was made for, is at least `review`; and so is every curve while a certificate is required that
the model does not have.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Literal, TypeVar

from msgspec import Meta, Struct

from daemon.formats.afmcurve import compact_copy_of
from daemon.judging.audit import Band, Chance, Past, chance_of, is_drawn
from daemon.reading import Reading
from deploy.classifier import EngineId
from deploy.serving import Model, Scored, is_discard
from models.certificate import Promise
from models.curve import Curve, ForceUnit, Prepared, ToldRupture
from models.frontend import axes_of, with_flipped
from models.raster import PreviewAxes, RasterProfile
from models.ruptures import prepare_to_tell, with_ruptures
from models.steps import second_opinion

Verdict = Literal["keep", "review", "discard"]
VERDICTS: tuple[Verdict, ...] = ("keep", "review", "discard")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """``score >= keep`` is keep, ``score <= discard`` is discard, between is review."""

    discard: Annotated[float, Meta(ge=0, le=1)]
    keep: Annotated[float, Meta(ge=0, le=1)]

    @property
    def both(self) -> tuple[float, float]:
        """The scores at which the verdict changes, the lower one first."""
        return self.discard, self.keep


class CutOrigin(Struct, frozen=True):
    """Where the discard threshold comes from."""

    origin: Annotated[
        Literal["shipped", "adapted", "configured"],
        Meta(description="with the model, from events that people have confirmed, or from the configuration"),
    ]
    events: Annotated[
        int, Meta(ge=0, description="that it was chosen on: simulated ones where it was shipped; 0 where configured")
    ]


@dataclass(frozen=True, slots=True)
class Judge:
    """What judged: the part of an event that is the same for every curve of a batch."""

    model: str
    pipeline: str  # "raster:…|model:…|calib:…|thr:…", see deploy/decisions
    engine: EngineId
    thresholds: Thresholds
    score_basis: Literal["simulation", "labels"]
    prevalence: float
    certificate: Promise | None = None  # what an event says of it; None also where a threshold leaves it
    require_certificate: bool = False
    cut: CutOrigin = field(default_factory=partial(CutOrigin, "shipped", 0))
    band: Band | None = None  # what a raised cut discards and the one before it did not: audited more at first

    def on(self, engine: EngineId | None) -> Judge:
        """The same judge where another engine had to compute: its verdicts are the same (deploy.serving)."""
        return self if engine is None or engine == self.engine else replace(self, engine=engine)

    @property
    def may_discard(self) -> bool:
        """Whether the laboratory lets this judge discard, or has every would-be discard looked at."""
        return self.certificate is not None or not self.require_certificate


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """One curve's verdict, ready for the ledger. ``seq`` does not exist before the commit."""

    identity: str  # as identity_of makes it: "sha256#index", "ingest:id#0" over ZeroMQ, else what was found
    source: str
    path: str
    curve: int
    sha256: str | None
    verdict: Verdict
    score: float | None
    reasons: tuple[str, ...]
    judge: Judge
    force_unit: ForceUnit | None
    noticed_s: float  # time.monotonic() of Arrival.noticed_s: latency_s.total is counted from here
    folder: str | None = None  # the watched or scored folder, absolute, that ``path`` is relative to
    acquired_s: float | None = None  # when it was measured, in s since 1970; None where not even its file has a time
    latency_s: Mapping[str, float] = field(default_factory=dict)  # read, raster, infer
    preview: str | None = None  # base64 of uint8 (2, W): lower and upper edge of each column, for consoles
    preview_axes: PreviewAxes | None = None  # what its numbers stand for
    compact_copy: bytes | None = None  # of the curve, .afmcurve bytes: where a person may be asked to look at it
    steps: float | None = None  # how far its strongest step stands out (models.steps); None: it has no signal
    ruptures: tuple[ToldRupture, ...] | None = None  # in order of place; None: no forces, or nobody has looked
    is_disputed: bool = False  # a discard in which the second opinion sees a rupture (daemon.judging.sentinel)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A curve, what the model said of it and the verdict: all that whoever watches the line may want to know.

    ``reading.arrival`` says where it comes from, and whether it is a canary. ``scored`` is None exactly where
    ``reading.curve`` is.
    """

    reading: Reading
    scored: Scored | None
    decision: Decision


def canaries_apart(judged: Iterable[Judged]) -> tuple[list[Judged], list[Judged]]:
    """The curves of the laboratory, and the canaries that were judged among them."""
    found: tuple[list[Judged], list[Judged]] = [], []
    for one in judged:
        found[one.reading.arrival.is_canary].append(one)
    return found


@dataclass(frozen=True, slots=True)
class FileMark:
    """A file all of whose curves are decided: after a restart it need not be opened again."""

    folder: str  # the watched one; "" for none
    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str | None
    curves: int
    looked_ns: int = 0  # time.time_ns() when it was as it is told here; 0: not known


def decide(readings: Sequence[Reading], scored: Sequence[Scored | None], judge: Judge) -> list[Decision]:
    """One decision a reading, in order; ``scored[i]`` is None exactly where ``readings[i].curve`` is None."""
    told = zip(readings, scored, _second_opinion(scored), strict=True)
    return [_decide(reading, score, steps, judge) for reading, score, steps in told]


def _second_opinion(scored: Sequence[Scored | None]) -> list[float | None]:
    """Of the way of each that holds; it never changes a verdict."""
    signals = [None if one is None or one.prepared is None else one.prepared.signal for one in scored]
    told = iter(second_opinion([signal for signal in signals if signal is not None]).tolist())
    return [None if signal is None else round(next(told), 3) for signal in signals]


def _decide(reading: Reading, scored: Scored | None, steps: float | None, judge: Judge) -> Decision:
    curve, arrival = reading.curve, reading.arrival
    reasons: tuple[str, ...]
    if curve is None or scored is None:
        score, reasons, preview = None, (reading.reason or "unreadable",), None
        latency_s = {"read": reading.read_s}
    else:
        score, preview = scored.score, scored.preview
        reasons = ("score", *scored.reasons) if score is not None else scored.reasons
        latency_s = {"read": reading.read_s, "raster": scored.raster_s, "infer": scored.infer_s}
        judge = judge.on(scored.engine)
    verdict, reasons = final_verdict(score, reasons, judge)
    return Decision(
        identity=identity_of(reading),
        source=arrival.source,
        path=arrival.path,
        curve=reading.index,
        sha256=reading.sha256,
        verdict=verdict,
        score=score,
        reasons=reasons,
        judge=judge,
        force_unit=curve.force_unit if curve is not None else None,
        noticed_s=arrival.noticed_s,
        folder=arrival.folder,
        acquired_s=_acquired_s(reading),
        latency_s=latency_s,
        preview=preview,
        preview_axes=_axes(curve, scored),
        steps=steps,
        ruptures=None if scored is None or scored.prepared is None else scored.prepared.ruptures,
    )


def _axes(curve: Curve | None, scored: Scored | None) -> PreviewAxes | None:
    if curve is None or scored is None or scored.preview is None or scored.prepared is None or scored.profile is None:
        return None
    return axes_of(curve, scored.prepared, scored.profile)


def _acquired_s(reading: Reading) -> float | None:
    """The measurement's own time, else that of its file."""
    if reading.acquired_s is not None:
        return reading.acquired_s
    return reading.arrival.mtime_ns / 1e9 if reading.arrival.mtime_ns else None


def verdict_of(score: float | None, reasons: Sequence[str], thresholds: Thresholds) -> Verdict:
    """The two thresholds, with the floor of `review` under everything doubtful."""
    if score is None or math.isnan(score):  # no score may ever discard
        return "review"
    if score >= thresholds.keep:
        return "keep"
    return "discard" if is_discard(score, reasons, thresholds.discard) else "review"


def final_verdict(score: float | None, reasons: tuple[str, ...], judge: Judge) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, and the reasons with what was in the way of a discard."""
    verdict = verdict_of(score, reasons, judge.thresholds)
    if verdict == "discard" and not judge.may_discard:
        return "review", (*reasons, "no_certificate")
    return verdict, reasons


def identity_of(reading: Reading) -> str:
    """What makes this curve itself, wherever its file lies (deploy/decisions/0001, Identity)."""
    arrival = reading.arrival
    if arrival.known_curve is not None:
        return f"ingest:{arrival.known_curve}#{reading.index}"
    if reading.sha256 is None:  # not a byte could be read: only the finding itself can be named
        return f"none#{arrival.path}@{arrival.size_bytes}:{arrival.mtime_ns}"
    if reading.curve is None:  # two empty files have the same bytes and are two findings
        return f"{reading.sha256}#{reading.index}@{arrival.path}"
    return f"{reading.sha256}#{reading.index}"


T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)

FAILED = Scored(None, ("engine_fault",))
_WAITING = 2  # batches between whoever makes them and the classifier


def classify(
    readings: Sequence[Reading], model: Model, thresholds: Thresholds, wary_of: Collection[str] = ()
) -> list[Scored | None]:
    """One answer a reading, in order; None where the reading holds no curve.

    Would-be discards of the formats ``wary_of`` are all looked at upside down, as far as their samples are there.
    """
    profile = model.bundle.profile

    def judge(some: Sequence[Reading]) -> list[Scored]:
        prepared = [prepared_for(reading, profile, is_wary=reading.sign_from in wary_of) for reading in some]
        return model.judge_prepared(prepared, thresholds.both)

    scored = iter(shielded([reading for reading in readings if reading.curve is not None], judge, FAILED))
    return [None if reading.curve is None else next(scored) for reading in readings]


def prepared_for(reading: Reading, profile: RasterProfile, *, is_wary: bool) -> Prepared:
    """As the reader did it; here only where it knew no profile, or that of the model before, or is not wary enough."""
    curve, prepared = reading.curve, reading.prepared
    assert curve is not None
    if prepared is None or reading.profile != profile:
        prepared = prepare_to_tell([curve], profile)[0]
    if is_wary and prepared.flipped is None and len(curve):
        return with_ruptures(with_flipped(prepared, curve, profile), curve, profile)
    return prepared


def with_compact_copy(decision: Decision, reading: Reading, profile: RasterProfile, past: Past) -> Decision:
    """Every curve that a person may be asked to look at has a copy of its own, because its file may go away.

    These are the kept, the flagged and the discards that are drawn for audit; ``past``: what the same pipeline has
    discarded before this batch, as the ledger counts it. The copy holds what this verdict rests on.
    """
    if reading.curve is None or not _may_be_looked_at(decision, past):
        return decision
    prepared = None
    with suppress(Exception):  # the front-end failed on it, which the log says already
        prepared = prepared_for(reading, profile, is_wary="flipped" in decision.reasons)
    return replace(decision, compact_copy=compact_copy_of(reading.curve, profile, prepared))


def _may_be_looked_at(decision: Decision, past: Past) -> bool:
    return decision.verdict != "discard" or is_drawn(decision.identity, chance_in(decision, past))


def chance_in(decision: Decision, past: Past) -> Chance:
    """With which a discard is drawn for audit. The ledger, which notes it, and the copy both ask here."""
    return chance_of(decision.score, decision.judge.band, past, is_disputed=decision.is_disputed)


def shielded(items: Sequence[T], judge: Callable[[Sequence[T]], list[R]], failed: R) -> list[R]:
    """What ``judge`` says of each; where it raises, each is tried alone, and ``failed`` stands for what it cannot."""
    if not items:
        return []
    try:
        return judge(items)
    except Exception as error:
        if len(items) == 1:
            log.error("the classifier failed on one curve, which goes to review: %s", error)
            return [failed]
        log.error("the classifier failed on %d curves, which are tried one by one: %s", len(items), error)
    return [shielded([item], judge, failed)[0] for item in items]


def overlap(batches: Iterable[T], work: Callable[[T], R]) -> Iterator[tuple[T, R]]:
    """Each batch with what ``work`` makes of it, in order; ``work`` runs on one other thread, one batch at a time.

    While it works on one, the next is made and the one before written down.
    """
    executor = ThreadPoolExecutor(1, "classifier")
    pending: deque[tuple[T, Future[R]]] = deque()
    try:
        for batch in batches:
            pending.append((batch, executor.submit(work, batch)))
            while len(pending) > _WAITING or (pending and pending[0][1].done()):
                done, future = pending.popleft()
                yield done, future.result()
        while pending:
            done, future = pending.popleft()
            yield done, future.result()
    finally:
        executor.shutdown(cancel_futures=True)
