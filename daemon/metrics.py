"""The metrics: every number Prometheus sees, in one list, with the sentence that explains it.

Base units, few label values, never a path as a label. What counts curves lives in :class:`daemon.accounts.Accounts`.
"""

from __future__ import annotations

import errno
import logging
import platform
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from socketserver import BaseServer
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from daemon import __version__
from daemon.accounts import Accounts
from daemon.clock import CLOCK, Clock
from daemon.errors import UNREACHABLE, UserError
from daemon.judging import Decision, Judge
from daemon.reading import UNREADABLE
from deploy.classifier import FaultKind

__all__ = ["SECONDS", "STATES", "Accounts", "Metrics"]

log = logging.getLogger(__name__)

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
CURVES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DEVICES = ("cpu", "cuda")
STATES = ["starting", "ready", "degraded", "paused", "stopping"]


class Metrics:
    """One registry a service. Attributes are the metrics; methods say what happened."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # one series more for every counter and histogram
        self.registry, self._clock = CollectorRegistry(), clock
        self.accounts = Accounts()
        self.registry.register(self.accounts)
        ProcessCollector(registry=self.registry)

        self.stage_duration = self._histogram("stage_duration_seconds", "Time a curve spent in a stage", "stage")
        self.decision_latency = self._histogram("decision_latency_seconds", "Finished file noticed to decision on disk")
        self.batch_size = self._histogram("batch_size_curves", "Curves decided in one transaction", buckets=CURVES)
        self.ledger_commit = self._histogram("ledger_commit_seconds", "One commit of the ledger, disk included")

        self.last_decision = self._gauge("last_decision_timestamp_seconds", "When the last decision was recorded")
        self.heartbeat = self._gauge("heartbeat_timestamp_seconds", "When a stage last turned", "stage")
        self.review_queue = self._gauge("review_queue_curves", "Flagged curves that nobody has labelled yet")
        self.oldest_pending = self._gauge("oldest_pending_seconds", "Age of the oldest finished file not yet decided")
        self.ledger_bytes = self._gauge("ledger_bytes", "Size of a file of the state folder", "file")
        self.selftest_pass = self._gauge("selftest_pass", "1 when known curves scored right at the last self-test")
        self.classifier_device = self._gauge("classifier_device", "1 for the device that classifies", "device")
        self.reload_successful = self._gauge("config_last_reload_successful", "0 when the last reload was refused")
        self.reload_successful.set(1)

        self.classifier_faults = self._counter(
            "classifier_faults", "Curves the classifier failed on; decided as review"
        )
        self.engine_faults = self._counter("engine_faults", "Times a device failed on a batch or a canary", "kind")
        for kind in get_args(FaultKind):
            self.engine_faults.labels(kind)
        self.events_published = self._counter("events_published", "Events sent on the live feed", "type")
        self.replay_requests = self._counter("replay_requests", "Requests on the replay socket", "outcome")

        self.model = Info("afm_triage_model", "The model that judges", registry=self.registry)
        self._state = self._gauge("state", "1 for what the service is doing", "state")
        self.entered("starting")
        build = Info("afm_triage_build", "Versions of what runs here", registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version})

    def recorded(self, decisions: Sequence[Decision], commit_s: float | None = None) -> None:
        """A batch is in the ledger."""
        if not decisions:
            return
        now_s = self._clock.steady_s()
        for decision in decisions:
            reason = next((reason for reason in decision.reasons if reason in UNREADABLE), None)
            self.accounts.decided(decision.verdict, unreadable=reason)
            self.classifier_faults.inc("engine_fault" in decision.reasons)
            self.decision_latency.observe(max(now_s - decision.noticed_s, 0.0))
            for stage, seconds in decision.latency_s.items():
                self.stage_duration.labels(stage).observe(seconds)
        self.batch_size.observe(len(decisions))
        self.last_decision.set(self._clock.wall_s())
        if commit_s is not None:
            self.ledger_commit.observe(commit_s)

    def serving(self, judge: Judge, device: str) -> None:
        """This model judges from now on, on this device."""
        self.model.info({"model": judge.model, "pipeline": judge.pipeline, "engine": judge.engine})
        for known in {*DEVICES, device}:
            self.classifier_device.labels(known).set(known == device)

    def entered(self, state: str) -> None:
        """The service is in this one of STATES from now on."""
        for known in STATES:
            self._state.labels(known).set(known == state)

    def published(self, kind: str, times: int = 1) -> None:
        self.events_published.labels(kind).inc(times)

    def replayed(self, outcome: str) -> None:
        self.replay_requests.labels(outcome).inc()

    def watch_files(self, files: Mapping[str, Path]) -> None:
        """Sizes are looked up at each scrape; a file that is not there has none."""
        for name, path in files.items():
            self.ask(self.ledger_bytes.labels(name), partial(_size_bytes, path))

    def ask(self, gauge: Gauge, value: Callable[[], float], keep_s: float = 5.0) -> None:
        """Have ``gauge`` ask for its value when scraped, at most once in ``keep_s``; a failure costs no scrape."""
        gauge.set_function(_Asked(value, keep_s))

    def serve(self, port: int) -> BaseServer | None:
        """Answer on 127.0.0.1:``port`` from threads of its own; 0 = off. Raises UserError 69 when it is taken."""
        if port == 0:
            return None
        try:
            server, _thread = start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except OSError as error:
            taken = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error})"
            hint = "choose another with --metrics-port or metrics_port = …, 0 is off"
            raise UserError(UNREACHABLE, f"--metrics-port {port} {taken}: {hint}") from None
        return server

    def _histogram(self, name: str, help_text: str, *labels: str, buckets: Sequence[float] = SECONDS) -> Histogram:
        return Histogram(f"afm_triage_{name}", help_text, labels, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"afm_triage_{name}", help_text, labels, registry=self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"afm_triage_{name}", help_text, labels, registry=self.registry)


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class _Asked:
    """A value that is looked up when wanted and kept for a moment."""

    def __init__(self, value: Callable[[], float], keep_s: float) -> None:
        self._value, self._keep_s = value, keep_s
        self._last, self._until_s = float("nan"), 0.0

    def __call__(self) -> float:
        now_s = time.monotonic()
        if now_s >= self._until_s:
            self._until_s = now_s + self._keep_s
            try:
                self._last = float(self._value())
            except Exception as error:
                log.warning("a metric could not be looked up: %s", error)
        return self._last
