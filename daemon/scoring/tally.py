"""What a run of `score` has done, in one line."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from daemon.ignored import Ignored
from daemon.judging import VERDICTS
from daemon.scoring import Judged
from daemon.sentinel import Sentinel


@dataclass(slots=True)
class Tally:
    """Curves by verdict, and how long they took."""

    verdicts: Counter[str] = field(default_factory=Counter)
    kept: int = 0  # curves judged by an earlier run
    ignored: Ignored = field(default_factory=Ignored)  # files that held no curve
    begun_s: float = field(default_factory=time.monotonic)
    sentinel: Sentinel = field(default_factory=Sentinel)

    def count(self, judged: Judged) -> None:
        """One more curve."""
        self.verdicts[judged.decision.verdict] += 1
        self.sentinel.observe(judged.format, judged.decision.reasons)

    @property
    def curves(self) -> int:
        return self.verdicts.total()

    def report(self, engine: str) -> str:
        """``12000 curves in 10.1 s, 1188 curves/s, torch-cpu-bf16``; ``nothing new; 12000 judged before``."""
        if self.kept and not self.curves:
            return f"nothing new; {self.kept} judged before"
        elapsed_s = max(time.monotonic() - self.begun_s, 1e-9)
        rate = self.curves / elapsed_s
        before = f"; {self.kept} judged before" if self.kept else ""
        return f"{self.curves} curves in {elapsed_s:.1f} s, {rate:.0f} curves/s, {engine}{before}"

    def summary(self) -> str:
        """A line a verdict."""
        return "\n".join(f"{verdict:<8} {self.verdicts[verdict]}" for verdict in VERDICTS)
