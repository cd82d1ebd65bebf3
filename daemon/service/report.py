"""The report: how the running service is, for `status`, the console and systemd's one line."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from daemon import __version__
from daemon.client.status import lines
from daemon.common.errors import UserError
from daemon.common.keys import Key
from daemon.common.text import duration
from daemon.config import Config
from daemon.judging.judge import Serving
from daemon.ledger import Ledger, LedgerView, numbers, wire
from daemon.ledger.events import Messages, ServingModel, State, Status
from daemon.ledger.space import SpaceCare
from daemon.metrics import Metrics
from daemon.service.health import Health, Vigil
from daemon.service.sessions import SessionWatch
from daemon.sources import SourceHealth, oldest_pending_s
from models.clock import since_1970, utc_now

# The rates: how fast decisions come, and how long a curve waits for one; over the last thousand.

_WINDOW_S = 60.0


class Rates:
    """Fed by the pipeline's thread, read by whoever asks for the status."""

    def __init__(self, begun_s: float, longest: int = 1_000) -> None:
        self._begun_s = begun_s  # time.monotonic()
        self._lock = threading.Lock()
        self._taken: deque[tuple[float, float]] = deque(maxlen=longest)  # (when, latency), seconds

    def observe(self, latencies_s: Iterable[float], now_s: float) -> None:
        """One latency a decision, from the finished file being noticed to the commit."""
        with self._lock:
            self._taken.extend((now_s, latency_s) for latency_s in latencies_s)

    def latency_s(self) -> dict[str, float | None]:
        """The median and the 99th percentile, None before the first decision."""
        with self._lock:
            ordered = sorted(latency_s for _, latency_s in self._taken)
        if not ordered:
            return {"p50": None, "p99": None}
        return {"p50": ordered[len(ordered) // 2], "p99": ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]}

    def rate_per_s(self, now_s: float) -> float:
        """Decisions a second over the last minute, or over as much of it as there has been."""
        with self._lock:
            recent = [when_s for when_s, _ in self._taken if now_s - when_s <= _WINDOW_S]
        span_s = now_s - recent[0] if len(recent) == self._taken.maxlen else min(_WINDOW_S, now_s - self._begun_s)
        return len(recent) / max(span_s, 1e-3)


#: So many of the last decisions are looked through for the last one of each folder.
LOOKED_BACK = 200
_COUNT_S = 0.5  # so long the number of before must do instead


def seconds_of(event: wire.Event) -> float:
    """Since 1970, when it was sent."""
    return since_1970(event["time"])


class LastCurves:
    """When the last curve of each folder was decided, of the last few decisions at every look."""

    def __init__(self) -> None:
        self.newest_s: float | None = None  # of all of them
        self._by_folder: dict[str | None, float] = {}
        self._seq = 0

    def look(self, view: LedgerView, last_seq: int) -> None:
        """A damaged ledger is told of by others, and shall not silence the status."""
        with suppress(UserError):
            for event in map(wire.decode, (row.body for row in view.since(max(self._seq, last_seq - LOOKED_BACK)))):
                self._seq, self.newest_s = event["seq"], seconds_of(event)
                self._by_folder[event["data"].get("folder")] = self.newest_s

    def completed(self, found: SourceHealth) -> SourceHealth:
        """The same, with what the ledger knows where nothing has come since the start."""
        known_s = self._by_folder.get(found.name)
        return found if found.last_curve_s is not None or known_s is None else replace(found, last_curve_s=known_s)


class StatusReport:
    """``data`` is asked for by the publisher's thread, everything else is told by the pipeline's."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        health: Health,
        serving: Serving,
        vigil: Vigil,
        ledger: Ledger,
        sessions: SessionWatch,
        guard: Callable[[], numbers.GuardNumbers] | None = None,
        *,
        messages: Callable[[], Messages | None] = lambda: None,
        space: SpaceCare | None = None,
    ) -> None:
        self.config, self._serving, self._sessions, self._guard = config, serving, sessions, guard
        self._messages, self._space = messages, space
        self.publish, self.replay = config.publish, config.replay
        self.local_key: Key | None = None  # for verbs of this computer, where keys are asked for
        self.state: Literal["starting", "ready", "stopping"] = "starting"
        self._metrics, self._health, self._vigil = metrics, health, vigil
        self._ledger, self._labels = ledger, config.state / "labels.sqlite"
        self._view = ledger.view()
        self._counts, self._last_seq, self._waiting = self._view.verdict_counts(), self._view.last_seq, 0
        self._begun_s, self.started_at = time.monotonic(), utc_now()
        self.is_held = False  # nothing can be recorded: the ledger's files are gone, locked or damaged
        self.rates = Rates(self._begun_s)
        self._curves, self._counting = LastCurves(), threading.Lock()

    def data(self) -> Status:
        """The ``data`` of a status event."""
        config, serving, judge = self.config, self._serving, self._serving.judge
        last_seq = self.last_seq()
        with suppress(UserError):
            self._counts = self._view.verdict_counts()
        self._curves.look(self._view, last_seq)
        found = [self._curves.completed(one) for one in self._vigil.look()]
        came_s = [one_s for one_s in (self._curves.newest_s, *(one.last_curve_s for one in found)) if one_s is not None]
        return Status(
            instrument=config.instrument,
            stream=self._ledger.stream,
            last_seq=last_seq,
            pid=os.getpid(),
            version=__version__,
            started_at=self.started_at,
            uptime_s=round(time.monotonic() - self._begun_s, 1),
            state=self.condition(),
            health=self._health.for_status(),
            sources=found,
            oldest_pending_s=oldest_pending_s(self._vigil.sources),
            last_curve_s=max(came_s, default=None),
            counts=self._counts,
            session=self._metrics.accounts.snapshot(),
            current_session=self._sessions.status(self._counts),
            ignored=self._metrics.accounts.ignored_kinds(),
            review_queue=self.waiting(),
            model=ServingModel(
                id=judge.model,
                score_basis=judge.score_basis,
                thresholds=judge.thresholds,
                prevalence=judge.prevalence,
                certificate=judge.certificate,
                cut=judge.cut,
            ),
            engine=str(serving.engine),
            device=serving.engine.device,
            engine_reasons=serving.engine_reasons,
            latency_s=self.rates.latency_s(),
            rate_per_s=round(self.rates.rate_per_s(time.monotonic()), 3),
            watch=[str(folder) for folder in config.watch],
            metrics_port=config.metrics_port,
            publish=self.publish,
            replay=self.replay,
            guard=self._guard() if self._guard else None,
            goal=self._sessions.goal,
            messages=self._messages(),
            disk=self._space.disk if self._space else None,
        )

    def farewell(self) -> list[str]:
        """The session in a few lines, for a terminal."""
        session, model = self._metrics.accounts.snapshot(), self._serving.judge.model
        known = f", {session['duplicate']:,} were known" if session["duplicate"] else ""
        waiting = f", {session['backlog']:,} wait for the next start" if session["backlog"] else ""
        took = duration(time.monotonic() - self._begun_s)
        head = f"{session['seen']:,} curves seen in {took}, {session['decided']:,} decided{known}{waiting}:"
        rows = lines(self._metrics.accounts.verdicts(), self.rates.latency_s(), model, str(self._serving.engine))
        return [
            head,
            *rows,
            f"the ledger ends at seq {self.last_seq():,}; what comes meanwhile is judged at the next start",
        ]

    def last_seq(self) -> int:
        """As last known: how a service is must be told above all when its ledger cannot be read."""
        with suppress(UserError):
            self._last_seq = self._view.last_seq
        return self._last_seq

    def newest_s(self) -> float | None:
        """When the last decision of the ledger was made, since 1970; None where there is none."""
        self._curves.look(self._view, self.last_seq())
        return self._curves.newest_s

    def waiting(self) -> int:
        """Flagged curves that nobody has labelled yet."""
        if self._counting.acquire(timeout=_COUNT_S):  # a scrape and a status ask over one connection
            try:
                with suppress(UserError):
                    self._waiting = self._view.unlabelled_count(self._labels)
            finally:
                self._counting.release()
        return self._waiting

    def line(self) -> str:
        """What systemd shows when all is well."""
        session, model = self._metrics.accounts.snapshot(), self._serving.judge.model
        return f"{session['decided']} decided since the start, {session['backlog']} waiting, model {model}"

    def condition(self) -> State:
        """One word."""
        if self.state != "ready":
            return self.state
        conditions = {condition.name: condition for condition in self._health.conditions()}
        if ("disk" in conditions and not conditions["disk"].is_ok) or self.is_held:
            return "paused"
        return "ready" if self._health.level == "ok" else "degraded"
