"""The decision: one verdict on one curve, with everything an event says about it. Pure functions of what was scored.

The rule that everything rests on: only a score may discard. A curve without a score, or one with a reason that puts it
outside what the model was made for, is at least `review`; and so is every curve while a certificate is required that
the model does not have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from msgspec import Meta

from daemon.reading import Reading
from deploy.classifier import EngineId
from deploy.serving import Scored, is_discard
from models.certificate import Promise
from models.curve import ForceUnit

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

    identity: str  # "sha256#index", "sha256#path" for an unreadable file, "ingest:id#0" over ZeroMQ
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
    latency_s: Mapping[str, float] = field(default_factory=dict)  # read, raster, infer
    preview: str | None = None  # base64 of uint8 (2, W): lower and upper edge of each column, for consoles
    compact_copy: bytes | None = None  # compact copy of the curve (.afmcurve bytes), kept with every review


@dataclass(frozen=True, slots=True)
class FileMark:
    """A file all of whose curves are decided: after a restart it need not be opened again."""

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str | None
    curves: int


def decide(readings: Sequence[Reading], scored: Sequence[Scored | None], judge: Judge) -> list[Decision]:
    """One decision a reading, in order; ``scored[i]`` is None exactly where ``readings[i].curve`` is None."""
    return [_decide(reading, score, judge) for reading, score in zip(readings, scored, strict=True)]


def _decide(reading: Reading, scored: Scored | None, judge: Judge) -> Decision:
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
        latency_s=latency_s,
        preview=preview,
    )


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
