"""The rows that the ledger hands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.judging import Verdict


class Row(NamedTuple):
    """One decision as it lies in the ledger."""

    seq: int
    verdict: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Flagged:
    """One entry of the review queue; its compact copy is fetched by ``seq``."""

    seq: int
    path: str
    curve: int
    sha256: str | None
    score: float | None
    reasons: tuple[str, ...]
    time: str


@dataclass(frozen=True, slots=True)
class Named:
    """One decision on a curve of some name; ``folder`` is "" where none was noted."""

    seq: int
    folder: str
    path: str
    curve: int
    sha256: str | None
    verdict: str


class Look(NamedTuple):
    """A curve that a person may be asked to look at, and the probability with which it was drawn to be."""

    seq: int
    verdict: Verdict
    score: float | None
    probability: float


class StreamScores(NamedTuple):
    """Decisions in order, an array a field; ``scores`` is NaN where none could be made."""

    seqs: NDArray[np.int64]
    scores: NDArray[np.float64]
    verdicts: NDArray[np.object_]
    pipelines: NDArray[np.object_]
