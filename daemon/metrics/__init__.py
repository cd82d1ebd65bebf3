"""The metrics: every number Prometheus sees, in one list, with the sentence that explains it.

Base units, few label values, never a path as a label. A new metric is one line of :class:`Metrics`; what counts curves
is a line of :class:`Accounts`, where they must add up.
"""

from __future__ import annotations

import collections
import logging
import math
import os
import platform
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from socketserver import BaseServer
from typing import Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon import __version__
from daemon.config import MetricsConfig
from daemon.judging import VERDICTS, Decision, Judge, Verdict
from daemon.metrics.endpoint import ALONE, serve
from daemon.sources import CANARY, REASONS, Ignored, Source, oldest_pending_s
from deploy.classifier import Device, FaultKind
from models.clock import CLOCK, Clock
from models.reasons import UNREADABLE

log = logging.getLogger(__name__)

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
CURVES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: How long a scrape waits for a look at a disk, and how old a number may be that stands in for it.
_PATIENCE_S, _OLDEST_S = 0.3, 60.0
STATES = ["starting", "ready", "degraded", "paused", "stopping"]
#: What the service looks after, each by one word whatever folder or format it is about; the last line is of the run.
CONDITIONS = (
    *("source", "silence", "folder", "pending", "judging", "ledger", "disk", "log", "connections", "messages"),
    *("engine", "model", "promotion", "guard", "path", "thresholds", "second opinion", "contact", "orientation"),
    *("noise", "tilt", "wave", "slope", "adhesion", "unit", "reason", "yield", "configuration"),
)
#: What became of a canary: an event that is not discarded, one that is, a curve that brought no score, and of curves
#: without an event one that is kept and one that is not.
CanaryResult = Literal["found", "missed", "lost", "false_kept", "quiet"]


class Metrics:
    """One registry a service. Attributes are the metrics; methods say what happened."""

    def __init__(self, clock: Clock = CLOCK) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # untyped; one series more for every counter and histogram
        self.registry, self._clock = CollectorRegistry(), clock
        self.accounts = Accounts()
        self.registry.register(self.accounts)
        ProcessCollector(registry=self.registry)
        self._of_the_line()
        self._of_the_service()
        self._of_the_guard()

    def _of_the_line(self) -> None:
        self.stage_duration = self._histogram("stage_duration_seconds", "Time a curve spent in a stage", "stage")
        for stage in ("read", "raster", "infer"):  # there from the start, so that the first curves count in a rate
            self.stage_duration.labels(stage)
        self.decision_latency = self._histogram("decision_latency_seconds", "Finished file noticed to decision on disk")
        self.batch_size = self._histogram("batch_size_curves", "Curves decided in one transaction", buckets=CURVES)
        self.ledger_commit = self._histogram("ledger_commit_seconds", "One commit of the ledger, disk included")
        self.last_decision = self._gauge("last_decision_timestamp_seconds", "When the last decision was recorded")
        self.classifier_device = self._gauge("classifier_device", "1 for the device that classifies", "device")
        self.classifier_faults = self._counter(
            "classifier_faults", "Curves the classifier failed on; decided as review"
        )
        self.engine_faults = self._counter("engine_faults", "Times a device failed on a batch or a canary", "kind")
        for kind in get_args(FaultKind):
            self.engine_faults.labels(kind)

    def _of_the_service(self) -> None:
        self.heartbeat = self._gauge("heartbeat_timestamp_seconds", "When a stage last turned", "stage")
        self.review_queue = self._gauge("review_queue_curves", "Flagged curves that nobody has labelled yet")
        self.oldest_pending = self._gauge(
            "oldest_pending_seconds", "Age of the oldest finished file that is not decided; 0 when there is none"
        )
        self.ledger_bytes = self._gauge(
            "ledger_bytes", "Size of a file of the state folder, or of what lies in its spool", "file"
        )
        self.ledger_sound = self._gauge("ledger_sound", "0 when the ledger is damaged, or its files are not in place")
        self.ledger_sound.set(1)
        self.ledger_check = self._gauge("ledger_check_timestamp_seconds", "When every decision was last found sound")
        self.ledger_check_duration = self._gauge("ledger_check_duration_seconds", "How long that look through it took")
        self.disk_free = self._gauge("disk_free_bytes", "Free on the disk of the state folder")
        self.disk_full = self._gauge("disk_full_seconds", "Until that is full at the present rate; +Inf: it fills not")
        self.disk_full.set(math.inf)
        self.snapshot = self._gauge("snapshot_timestamp_seconds", "When the last one was taken; NaN: there is none")
        self.snapshot.set(math.nan)
        self.pruned = self._counter("pruned", "Curves whose copy or spooled file went, to keep a budget", "what")
        for what in ("copies", "spool"):
            self.pruned.labels(what)
        self.selftest_pass = self._gauge("selftest_pass", "1 when known curves scored right at the last self-test")
        self.reload_successful = self._gauge("config_last_reload_successful", "0 when the last reload was refused")
        self.reload_successful.set(1)
        self.events_published = self._counter("events_published", "Events sent on the live feed", "type")
        self.replay_requests = self._counter("replay_requests", "Requests on the replay socket", "outcome")
        self.clients_refused = self._counter(
            "clients_refused", "Clients of other machines whose key is not on the list"
        )
        self.notifications = self._counter(
            "notifications", "Messages to a person: sent, tries that failed, and faults that no message told", "result"
        )
        for result in ("sent", "failed", "held"):
            self.notifications.labels(result)
        self._log_lines = self._counter("log_lines", "Lines of the log, also those that nobody took", "level")
        self._log_lines_dropped = self._counter("log_lines_dropped", "Lines of the log that nobody took in time")
        self._logged: dict[str, int] = {}
        self.logged({"info": 0, "warning": 0, "error": 0}, 0)
        self.model = Info("afm_triage_model", "The model that judges", registry=self.registry)
        self._state = self._gauge("state", "1 for what the service is doing", "state")
        self.entered("starting")
        self._condition = self._gauge(
            "condition", "How it is with one thing: 0 well, 1 advice, 2 degraded, 3 alarm", "kind"
        )
        self.felt({})
        self.session_open = self._gauge("session_open", "1 while a session goes on that a person has begun")
        build = Info("afm_triage_build", "Versions of what runs here", registry=self.registry)
        build.info({"version": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version})

    def _of_the_guard(self) -> None:
        self.canary = self._counter("canary", "Simulated curves sent down the line; of data they are none", "result")
        for result in get_args(CanaryResult):
            self.canary.labels(result)
        self.recall_lower_bound = self._gauge(
            "recall_lower_bound", "At least this share of simulated events is found, 95 %; NaN: not known"
        )
        self.confirmed_events = self._gauge("confirmed_events", "Real events that people confirmed")
        self.shown_live = self._gauge(
            "confirmed_events_shown", "Of these, kept or sent to review when they were decided"
        )
        self.kept_live = self._gauge("confirmed_events_kept", "Of these, kept when they were decided")
        self.lost_at_most = self._gauge(
            "lost_events_at_most", "Events among the discards of this model and cut, 95 %; NaN: not known"
        )
        self.guarded(0, 0, 0, None, None)

    def guarded(
        self, confirmed: int, shown_live: int, kept_live: int, recall: float | None, lost_at_most: int | None
    ) -> None:
        """The guard's numbers, as they are now; None: not known."""
        self.confirmed_events.set(confirmed)
        self.shown_live.set(shown_live)
        self.kept_live.set(kept_live)
        self.recall_lower_bound.set(math.nan if recall is None else recall)
        self.lost_at_most.set(math.nan if lost_at_most is None else lost_at_most)

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

    def ledger_checked(self, is_sound: bool, took_s: float) -> None:
        """The whole ledger was looked through."""
        if is_sound:
            self.ledger_check.set(self._clock.wall_s())
            self.ledger_check_duration.set(took_s)

    def serving(self, judge: Judge) -> None:
        """This model judges from now on, on this engine."""
        self.model.info({"model": judge.model, "pipeline": judge.pipeline, "engine": str(judge.engine)})
        for known in get_args(Device):
            self.classifier_device.labels(known).set(known == judge.engine.device)

    def entered(self, state: str) -> None:
        """The service is in this one of STATES from now on."""
        for known in STATES:
            self._state.labels(known).set(known == state)

    def felt(self, grave: Mapping[str, int]) -> None:
        """What is not well now: 1 advice, 2 degraded, 3 alarm, by one of CONDITIONS."""
        for kind in {*CONDITIONS, *grave}:
            self._condition.labels(kind).set(grave.get(kind, 0))

    def published(self, kind: str, times: int = 1) -> None:
        self.events_published.labels(kind).inc(times)

    def replayed(self, outcome: str) -> None:
        self.replay_requests.labels(outcome).inc()

    def logged(self, lines: Mapping[str, int], dropped: int) -> None:
        """So many since the start, by level, and so many that nobody took."""
        for level, count in {**lines, "": dropped}.items():
            counter = self._log_lines.labels(level) if level else self._log_lines_dropped
            counter.inc(count - self._logged.get(level, 0))
            self._logged[level] = count

    def disk(self, free_bytes: int, full_s: float | None) -> None:
        """``full_s``: until it is full; None: it does not fill."""
        self.disk_free.set(free_bytes)
        self.disk_full.set(math.inf if full_s is None else full_s)

    def prune(self, what: str, curves: int) -> None:
        """The ``copies`` of so many curves in the ledger went, or their files in the ``spool``."""
        self.pruned.labels(what).inc(curves)

    def messaged(self, result: str, times: int = 1) -> None:
        """``sent`` or ``failed``, on one channel each, or ``held``."""
        self.notifications.labels(result).inc(times)

    def watch_sources(self, sources: Sequence[Source]) -> None:
        """They are asked at each scrape, of what they have in memory: what stands still shows, and holds nothing up."""
        self.oldest_pending.set_function(lambda: oldest_pending_s(sources) or 0.0)
        self.registry.register(_Folders(sources, self._clock))

    def watch_files(self, files: Mapping[str, Path]) -> None:
        """Sizes are looked up at each scrape; a file that is not there has none, of a folder its files count."""
        for name, path in files.items():
            self.ask(self.ledger_bytes.labels(name), partial(_size_bytes, path))

    def ask(self, gauge: Gauge, value: Callable[[], float], keep_s: float = 5.0) -> None:
        """Have ``gauge`` ask for its value when scraped, at most once in ``keep_s``; a failure costs no scrape."""
        gauge.set_function(_Asked(value, keep_s))

    def serve(self, port: int, access: MetricsConfig = ALONE) -> BaseServer | None:
        """Answer on ``port`` from threads of its own; 0 = off. Raises UserError 69 when it is taken."""
        return serve(self.registry, port, access)

    def _histogram(self, name: str, help_text: str, *labels: str, buckets: Sequence[float] = SECONDS) -> Histogram:
        return Histogram(f"afm_triage_{name}", help_text, labels, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"afm_triage_{name}", help_text, labels, registry=self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"afm_triage_{name}", help_text, labels, registry=self.registry)


class Accounts(Collector):
    """Where every curve is that was ever seen: seen = decided + duplicate + backlog, at every scrape.

    The backlog is a number of its own, moved by the same transitions as the others and never computed from them: were a
    curve lost between two stages, the sum would show it. All under one lock, exported as one snapshot. Counts begin
    at 0 with the process. Canaries are nobody's curves and are passed over.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: collections.Counter[str] = collections.Counter({"watch": 0, "ingest": 0})
        self._decided: collections.Counter[str] = collections.Counter(dict.fromkeys(VERDICTS, 0))
        self._unreadable: collections.Counter[str] = collections.Counter(dict.fromkeys(sorted(UNREADABLE), 0))
        self._ignored = Ignored(REASONS)
        self._duplicate = 0
        self._backlog = 0

    def seen(self, source: str, curves: int = 1) -> None:
        """A file was handed over (1), or opened and found to hold more curves (the rest)."""
        if source == CANARY:
            return
        with self._lock:
            self._seen[source] += curves
            self._backlog += curves

    def decided(self, verdict: Verdict, curves: int = 1, unreadable: str | None = None) -> None:
        """In the ledger; ``unreadable`` is the reason when there was no curve to judge."""
        with self._lock:
            self._decided[verdict] += curves
            self._backlog -= curves
            if unreadable is not None:
                self._unreadable[unreadable] += curves

    def duplicate(self, curves: int = 1) -> None:
        """Decided before, under this name or another."""
        with self._lock:
            self._duplicate += curves
            self._backlog -= curves

    def unseen(self, source: str) -> None:
        """A file whose name had promised a curve holds none: it counts as ignored, and is not seen after all."""
        self.seen(source, -1)

    def ignored(self, reason: str, name: str = "") -> None:
        """A file of this name is passed over; it does not count as seen. ``reason``: see daemon.sources."""
        with self._lock:
            self._ignored.note(reason, name)

    def ignored_kinds(self) -> dict[str, int]:
        """Files passed over, by kind, for whoever wants to know more than the number."""
        with self._lock:
            return dict(self._ignored.kinds)

    def snapshot(self) -> dict[str, int]:
        """The numbers of one moment: seen, decided, duplicate, backlog, unreadable, ignored.

        The second half of a pair is no file that somebody has to look after: it is not among the ignored here.
        """
        with self._lock:
            return {
                "seen": self._seen.total(),
                "decided": self._decided.total(),
                "duplicate": self._duplicate,
                "backlog": self._backlog,
                "unreadable": self._unreadable.total(),
                "ignored": self._ignored.total,
            }

    def verdicts(self) -> dict[str, int]:
        """Decisions since the process started."""
        with self._lock:
            return dict(self._decided)

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            seen, decided, unreadable = map(dict, (self._seen, self._decided, self._unreadable))
            ignored = dict(self._ignored.reasons)
            duplicate, backlog = self._duplicate, self._backlog
        yield _family("curves_seen", "Curves handed over by a source", "source", seen)
        yield _family("decisions", "Decisions in the ledger", "verdict", decided)
        yield _family("curves_unreadable", "Curves that could not be read; decided as review", "reason", unreadable)
        yield _family("files_ignored", "Files passed over", "reason", ignored)
        yield CounterMetricFamily("afm_triage_curves_duplicate", "Curves that had been decided before", value=duplicate)
        yield GaugeMetricFamily("afm_triage_backlog_curves", "Curves seen and not decided yet", value=backlog)


def _family(name: str, help_text: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"afm_triage_{name}", help_text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _size_bytes(path: Path) -> int:
    if path.is_dir():
        return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    return path.stat().st_size if path.exists() else 0


class _Folders(Collector):
    """How the watched folders are, each by its number in the configuration, from 0."""

    def __init__(self, sources: Sequence[Source], clock: Clock) -> None:
        self._sources, self._clock = sources, clock

    def collect(self) -> Iterable[Metric]:
        now_s = self._clock.wall_s()
        up = GaugeMetricFamily(
            "afm_triage_folder_up", "1 when a folder was seen lately, and is well", labels=["folder"]
        )
        seen = GaugeMetricFamily(
            "afm_triage_folder_last_seen_timestamp_seconds",
            "When a folder last answered; 0 when it never has",
            labels=["folder"],
        )
        for found in (one for source in self._sources for one in source.health() if one.folder is not None):
            up.add_metric([str(found.folder)], found.is_up(now_s))
            seen.add_metric([str(found.folder)], found.last_seen_s or 0.0)
        yield from (up, seen)


class _Asked:
    """A value that is looked up beside the scrape when wanted, and kept for a moment.

    A disk or a lock that does not answer holds no scrape up: the value is then the last one, and soon none at all.
    """

    def __init__(self, value: Callable[[], float], keep_s: float) -> None:
        self._value, self._keep_s = value, keep_s
        self._last, self._until_s, self._known_s = math.nan, 0.0, 0.0
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None

    def __call__(self) -> float:
        with self._lock:
            looking = self._looking
            if looking is None and time.monotonic() >= self._until_s:
                looking = self._looking = threading.Thread(target=self._look, name="figure", daemon=True)
                looking.start()
        if looking is not None:
            looking.join(_PATIENCE_S)
        return self._last if time.monotonic() - self._known_s < self._keep_s + _OLDEST_S else math.nan

    def _look(self) -> None:
        try:
            self._last = float(self._value())
            self._known_s = time.monotonic()
        except Exception as error:
            log.warning("a metric could not be looked up: %s", error)
        finally:
            self._until_s = time.monotonic() + self._keep_s
            self._looking = None
