"""The decision: one verdict on one curve, with everything an event says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Verdict = Literal["keep", "review", "discard"]
VERDICTS: tuple[Verdict, ...] = ("keep", "review", "discard")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """``score >= keep`` is keep, ``score <= discard`` is discard, between is review."""

    discard: float
    keep: float

    @property
    def both(self) -> tuple[float, float]:
        """The scores at which the verdict changes, the lower one first."""
        return self.discard, self.keep


@dataclass(frozen=True, slots=True)
class Judge:
    """What judged: the part of an event that is the same for every curve of a batch."""

    model: str
    pipeline: str  # "raster:…|model:…|calib:…|thr:…", see deploy/decisions
    engine: str  # e.g. "torch-cpu-bf16"
    thresholds: Thresholds
    score_basis: Literal["simulation", "labels"]
    prevalence: float
    certificate: Mapping[str, Any] | None = None  # what an event says of it; None also where a threshold leaves it
    require_certificate: bool = False

    def on(self, engine: str | None) -> Judge:
        """The same judge where another engine had to compute: its verdicts are the same (deploy.serving)."""
        return self if engine in (None, self.engine) else replace(self, engine=str(engine))

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
    force_unit: str | None
    noticed_s: float  # time.monotonic() of Arrival.noticed_s: latency_s.total is counted from here
    latency_s: Mapping[str, float] = field(default_factory=dict)  # read, raster, infer
    preview: str | None = None  # base64 of uint8 (2, W): lower and upper edge of each column, for consoles
    keepsake: bytes | None = None  # compact copy of the curve (.afmcurve bytes), kept with every review


@dataclass(frozen=True, slots=True)
class FileMark:
    """A file all of whose curves are decided: after a restart it need not be opened again."""

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str | None
    curves: int
