"""A night in a ledger with scores of chosen logits, and people's words on it: what the tests of `adapt` start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ledgerhelp import decision

from daemon.config import Config
from daemon.judging import Judge, Thresholds
from daemon.labels import Labels, Word
from daemon.ledger import Ledger
from daemon.ledger.view import LedgerView
from deploy.classifier import EngineId
from models.bundle import SHIPPED, Bundle, read

#: Logits of the events of a series on chromosomes, and of curves that hold none but resemble weak ones.
EVENTS = (3.04, 3.45, 3.45, 3.66, 3.71, 4.82, 4.95, 4.99, 5.55)
EVENT_FREE = (-0.88, -0.28, -0.27, -0.21, -0.15, -0.06, 0.21, 0.24, 0.26, 0.34, 0.39, 0.55, 0.85, 0.9, 1.1)


@dataclass(slots=True)
class Night:
    """One state; every curve gets the next ``seq``."""

    state: Path
    base: Bundle = field(default_factory=lambda: read(SHIPPED))
    count: int = 0

    def __post_init__(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)

    @property
    def config(self) -> Config:
        return Config(state=self.state)

    def judge(self, precision: str = "fp32", pipeline: str | None = None) -> Judge:
        thresholds = Thresholds(self.base.discard, self.base.keep)
        engine = EngineId("torch", "cpu", precision)  # type: ignore[arg-type]
        return Judge(self.base.id, pipeline or self.base.pipeline, engine, thresholds, "simulation", 0.02)

    def decide(
        self, logits: Sequence[float | None], judge: Judge | None = None, *reasons: str, copy: bytes | None = None
    ) -> list[int]:
        """Record curves of these logits; their ``seq``. ``copy``: what the ledger keeps of each that is reviewed."""
        judge = judge or self.judge()
        made = []
        for logit in logits:
            self.count += 1
            score = None if logit is None else float(self.base.calibration.score(np.array([logit]))[0])
            verdict = "review"
            if score is not None and not reasons:
                low, high = judge.thresholds.both
                verdict = "keep" if score >= high else "discard" if score <= low else "review"
            said = {"score": score, "verdict": verdict, "judge": judge, "reasons": ("score", *reasons)}
            made.append(decision(self.count, **said, compact_copy=copy))
        ledger = Ledger(self.state / "ledger.sqlite", "afm1")
        try:
            return [seq for seq in ledger.record(made) if seq is not None]
        finally:
            ledger.close()

    def say(self, word: Word, seqs: Sequence[int], rater: str = "ada") -> None:
        with LedgerView(self.state / "ledger.sqlite") as view, Labels(self.state / "labels.sqlite") as labels:
            events = view.decisions(seqs)
            labels.say([Labels.of_event(events[seq], word, rater) for seq in seqs])


def chromosomes(state: Path, events: int = 5, times: int = 20) -> Night:
    """A stream of which 85 % is pile, and some of its events, not yet labelled: they have the first numbers."""
    night = Night(state)
    night.decide(EVENTS[:events])
    night.decide(EVENT_FREE * times)
    return night
