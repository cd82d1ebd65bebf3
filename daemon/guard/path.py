"""The path: whether the live line works, told by what became of the canaries.

An alarm when more simulated events are missed than the served cut misses by itself, or when a canary does not come out
at all. It says whether the line works, and nothing about real events: where those are misread, simulated ones are found
all the same.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from daemon.guard.canaries import BURST, CanarySource, Outcome
from daemon.judging import Judge, Judged
from daemon.judging.judge import Serving
from daemon.judging.loss import Counting, Nulls, SimulatedLoss
from daemon.ledger import numbers
from daemon.metrics import CanaryResult, Metrics
from models.anytime import Alarm, burst_limit, recall_lower_bound
from models.certificate import percent_down
from models.clock import CLOCK, Clock, minute_of, rfc3339

#: A configured cut that discards more of the simulated events than this is told of.
_MOST_BY_ITSELF = 0.10
_RAISED = "lower `discard` in [thresholds] and reload"
_LOOK = "look at the engine; `models rollback` takes back the last model or cut"


class PathWatch:
    """Whether the line works, told by what became of the canaries. May be asked from any thread.

    One pipeline at a time: a model, its calibration and its cut. Where too many are missed, and when that is over, the
    counts begin anew: what came before says nothing of now.
    """

    def __init__(self, source: CanarySource, metrics: Metrics, state: Path, clock: Clock = CLOCK) -> None:
        self.source = source
        self._metrics, self._state, self._clock = metrics, state, clock
        self._lock = threading.Lock()
        self._counting = Counting()
        self._loss: SimulatedLoss | None = None
        self._told: object = None  # what is in force, as last seen
        self.pipeline, self._is_bold = "", False
        self._burst = self._burst_missed = 0
        self._counts, self._fresh = Counter[CanaryResult](), Counter[CanaryResult]()  # the latter since last asked for
        self._begin(Nulls())

    # The loop's.

    def observe(self, canaries: Sequence[Judged], curves: int = 0, noticed_s: float = 0.0) -> list[Outcome]:
        """As the source; the outcomes of ``yours``, which are for others."""
        outcomes = self.source.observe(canaries, curves, noticed_s)
        for one in outcomes:
            self._note(one)
        return [one for one in outcomes if one.canary.kind == "yours"]

    def burst(self) -> None:
        """Send many at once: something has changed."""
        with self._lock:
            self._burst, self._burst_missed = self.source.burst(), 0

    # The guard's thread's.

    def look(self, serving: Serving, session: int | None, kept: Callable[[str], Mapping[str, Any] | None]) -> None:
        """See what is lost and what has changed; once a second. ``kept``: of a pipeline, :attr:`state` of before."""
        for one in self.source.lost():
            self._note(one)
        if not self.source.settings.canaries:
            return
        judge, model = serving.judge, serving.model
        if judge.pipeline != self.pipeline:
            self._loss = SimulatedLoss(self._state, model.bundle)
            state = None if self.pipeline else kept(judge.pipeline)
            self._serve(judge, Nulls.of(self._loss, judge), state)
        if self._told != (told := (judge.pipeline, serving.engine, session)):
            self._told = told
            self.burst()
        if self.source.is_at_rest and self._loss is not None and self._counting.look(self._loss):
            self._serve(judge, replace(Nulls.of(self._loss, judge), is_awaited=False), self.state)
            self.burst()

    def results(self) -> dict[CanaryResult, int]:
        """How many came to what since the last call, by the pipeline that serves."""
        with self._lock:
            found, self._fresh = dict(self._fresh), Counter()
            return found

    def stop(self) -> None:
        """End what it has begun."""
        self.source.stop()
        self._counting.stop()

    # Anybody's.

    def numbers(self) -> numbers.Path | None:
        """All of it, for status, console and page; None where canaries are switched off."""
        if not self.source.settings.canaries:
            return None
        with self._lock:
            counts, bound, trouble = self._counts, self._lower_bound(), self._finding()
            return numbers.Path(
                canaries=counts["found"] + counts["missed"],
                missed=counts["missed"],
                lost=counts["lost"],
                event_free=counts["quiet"] + counts["false_kept"],
                false_kept=counts["false_kept"],
                lower_bound=bound,
                null=self._nulls.missed,
                since=rfc3339(self._since_s),
                pending=self.source.pending,
                is_well=trouble is None,
                text=trouble or self._words(bound),
            )

    @property
    def state(self) -> dict[str, Any]:
        """Of the pipeline that serves: what the next service goes on from."""
        with self._lock:
            evidence = {name: one.state for name, one in self._watched().items()}
            return {"since_s": self._since_s, "counts": dict(self._counts), "evidence": evidence}

    # Under the lock, but for the first two.

    def _note(self, outcome: Outcome) -> None:
        if outcome.canary.kind == "yours":
            return
        result, judged, now_s = outcome.result, outcome.judged, self._clock.wall_s()
        self._metrics.canary.labels(result).inc()
        with self._lock:
            if judged is not None and judged.decision.judge.pipeline != self.pipeline:
                return  # by what served before
            self._counts[result], self._fresh[result] = self._counts[result] + 1, self._fresh[result] + 1
            self._lost.observe(result == "lost", now_s)
            if self._nulls.is_awaited:
                return  # of what this network does by itself nothing is known yet
            if result in ("found", "missed"):
                self._burst_missed += result == "missed" and outcome.canary.burst == self._burst > 0
                is_told = self._burst_missed >= self._burst_limit
                if self._missed.observe(result == "missed", now_s, is_told):
                    self._counts, self._since_s = Counter[CanaryResult](), now_s
                    self._burst, self._burst_missed = self.source.burst(), 0  # soon it is known whether it lasts
            elif result != "lost":
                self._kept.observe(result == "false_kept", now_s)

    def _serve(self, judge: Judge, nulls: Nulls, state: Mapping[str, Any] | None) -> None:
        with self._lock:
            self.pipeline = judge.pipeline
            is_configured = judge.cut.origin == "configured" and nulls.is_counted
            self._is_bold = is_configured and nulls.missed > _MOST_BY_ITSELF
            self._begin(nulls)
            with suppress(KeyError, TypeError, ValueError):  # of another version: begun anew
                if state is not None:
                    self._restore(state)

    def _begin(self, nulls: Nulls) -> None:
        self._nulls, self._burst_limit = nulls, burst_limit(nulls.missed, BURST)
        self._missed, self._kept, self._lost = Alarm(nulls.missed, BURST), Alarm(nulls.kept, 40), Alarm(None, 20)
        self._counts = Counter[CanaryResult]()
        self._since_s = self._clock.wall_s()
        self._bound: tuple[int, int, float | None] = (0, 0, None)

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, alarm in self._watched().items():
            alarm.restore(state["evidence"][name])
        self._counts.update({name: int(count) for name, count in state["counts"].items()})
        self._since_s = float(state["since_s"])

    def _watched(self) -> dict[str, Alarm]:
        return {"missed": self._missed, "kept": self._kept}

    def _lower_bound(self) -> float | None:
        missed = self._counts["missed"]
        events = self._counts["found"] + missed
        if self._bound[:2] != (events, missed):
            self._bound = (events, missed, recall_lower_bound(events, missed) if events else None)
        return self._bound[2]

    def _words(self, bound: float | None) -> str:
        if bound is None:
            return "no simulated event has come out of the line yet"
        found, since = self._counts["found"], minute_of(rfc3339(self._since_s))
        events, least = found + self._counts["missed"], percent_down(bound)
        said = f"{found:,} of {events:,} simulated events found since {since}: at least {least} are (95 %)"
        return said if self._nulls.is_counted else f"{said}; what the cut misses by itself is not counted yet"

    def _finding(self) -> str | None:
        nulls, found, since = self._nulls, self._counts["found"], minute_of(rfc3339(self._since_s))
        cut = "this" if nulls.is_counted else "a usual"
        watched = {
            "curves were lost on the way through readers and engine: look into the log": self._lost,
            f"events are discarded, of which {cut} cut discards {nulls.missed:.1%} at most: {_LOOK}": self._missed,
            f"curves without an event are kept, usually {nulls.kept:.1%} at most: {_LOOK}": self._kept,
        }
        said = [_said(alarm, what) for what, alarm in watched.items() if alarm.since_s is not None]
        if self._is_bold:
            bold = (
                f"since {since} {found:,} of {found + self._counts['missed']:,} simulated events found, as the "
                f"configured discard threshold gives up as many as {nulls.missed:.0%} of them by itself: {_RAISED}"
            )
            said.insert(0, bold)
        return "; ".join(said) or None


def _said(alarm: Alarm, what: str) -> str:
    since = minute_of(rfc3339(alarm.since_s or 0.0))
    return f"since {since} {sum(alarm.recent)} of the last {len(alarm.recent)} simulated {what}"
