"""A guard on a state of its own, and curves to show it: what the tests of the guard share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from ledgerhelp import JUDGE, decision

from daemon.config import GuardConfig
from daemon.guard import Guard
from daemon.guard.canaries import CanarySource, PathWatch
from daemon.judging import Judge, Judged
from daemon.judging.judge import Serving
from daemon.judging.sentinel import Dispute
from daemon.ledger import Ledger, LedgerView
from daemon.ledger.events import Level
from daemon.metrics import Metrics
from daemon.reading import Reading
from daemon.service.health import Health
from daemon.sources import Arrival
from models.bundle import SHIPPED, read
from models.tip import TipState


class Clock:
    """Steady seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Heard(Health):
    """The service's health, with what it announced: name, level and text."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Level, str]] = []
        super().__init__(lambda one: self.said.append((one.name, one.level, one.text)))

    def take(self, guard: Guard) -> list[tuple[str, Level, str]]:
        """What a look at the guard, as the service has it once a second, brings."""
        for one in guard.findings():
            self.report(one.name, one.level, one.text, is_advice=one.is_advice)
        news, self.said = self.said, []
        return news


def serving(judge: Judge = JUDGE) -> Serving:
    return Serving(cast("Any", SimpleNamespace(bundle=read(SHIPPED))), judge)


@contextmanager
def a_guard(state: Path, judge: Judge = JUDGE, **changes: Any) -> Iterator[Guard]:
    """Beside a ledger, which is made where there is none; its thread does not run."""
    state.mkdir(exist_ok=True)
    if not (state / "ledger.sqlite").exists():
        Ledger(state / "ledger.sqlite", "afm1").close()
    path = PathWatch(CanarySource(state / "canaries", GuardConfig()), Metrics(), state)
    with LedgerView(state / "ledger.sqlite") as view:
        guard = Guard(state, view, serving(judge), Dispute(), **{"path": path, **changes})
        try:
            yield guard
        finally:
            guard.stop()


def judged(number: int, tip: TipState | None = None, **changes: Any) -> Judged:
    """A curve of the watched folder; ``changes`` are of its decision."""
    arrival = Arrival("watch", f"run7/curve-{number:04d}.jpk-force", Path("/nowhere"))
    reading = Reading(arrival, 0, f"{number:064x}", cast("Any", object()), format="JPK", tip=tip)
    return Judged(reading, None, replace(decision(number), **changes))


def a_tip(noise: float = 1e-11, **changes: float) -> TipState:
    """A tip with a noise of 10 pN."""
    return replace(TipState(noise, 0.0, 1e-12, 0.05, 1e-9, 2_000), **changes)
