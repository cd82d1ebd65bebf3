"""The assembly: the parts of a service, made in order and undone in the reverse one.

The lock first (a second service is refused at once), then the ledger, the readers (which start while the model loads),
the model and its self-test (on what serves at once: a GPU takes over later), the sockets. The sources are made but not
started: the first curve shall find everything in its place.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from daemon.backlog import Backlog
from daemon.config import Config
from daemon.engine import device_of
from daemon.judging import Judge
from daemon.judging.judge import release
from daemon.ledger import Ledger
from daemon.metrics import Metrics
from daemon.pipeline import Pace, Pipeline
from daemon.publish import Publisher
from daemon.reader import ReaderPool
from daemon.sentinel import Sentinel
from daemon.service.engine_watch import EngineWatch
from daemon.service.health import Health
from daemon.service.lock import StateLock
from daemon.service.renewal import Renewal, load, wish_at_once
from daemon.service.report import Report
from daemon.sources import Source
from daemon.sources.open import open_sources
from daemon.status.watched import note
from daemon.status.whereabouts import forget, leave
from deploy.serving import Model

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Parts:
    """What a service is made of."""

    model: Model
    ledger: Ledger
    sources: list[Source]
    backlog: Backlog
    pipeline: Pipeline
    publisher: Publisher
    metrics: Metrics
    sentinel: Sentinel
    report: Report
    engines: EngineWatch
    renewal: Renewal


def assemble(config: Config, reread: Callable[[], Config], health: Health, closing: ExitStack) -> Parts:
    """Everything but started sources; ``closing`` undoes it. Raises UserError for what stands in the way."""
    closing.callback(StateLock(config.state).release)
    ledger = Ledger(config.state / "ledger.sqlite", config.instrument)
    closing.callback(ledger.close)
    metrics, bell = Metrics(), threading.Event()
    reader = ReaderPool(wake=bell.set)
    closing.callback(reader.close)
    loaded = load(config, wish_at_once(config))
    model, judge = loaded.model, loaded.judge
    sources = open_sources(config, ledger, metrics.accounts, bell.set)
    report = Report(config, metrics, health, judge, sources)
    publisher = _speak(config, report, metrics, closing)
    backlog, sentinel = Backlog(sources), Sentinel()
    pipeline = Pipeline(
        backlog, reader, model, judge, ledger, publisher, metrics, sentinel, bell, pace_of(config), config.text
    )
    _measure(config, metrics, judge, report, closing)
    engines, renewal = EngineWatch(health, metrics), Renewal(config, reread)
    parts = Parts(model, ledger, sources, backlog, pipeline, publisher, metrics, sentinel, report, engines, renewal)
    closing.callback(lambda: release(parts.model))
    closing.callback(lambda: renewal.close(parts.model))
    return parts


def pace_of(config: Config) -> Pace:
    return Pace(config.batch.largest, config.batch.wait_s)


def _speak(config: Config, report: Report, metrics: Metrics, closing: ExitStack) -> Publisher:
    publisher = Publisher(
        config.state / "ledger.sqlite",
        config.instrument,
        publish=config.publish,
        replay=config.replay,
        status=report.data,
        counts=metrics,
    )
    publisher.start()
    closing.callback(publisher.stop)
    report.publish, report.replay = publisher.publish_endpoint, publisher.replay_endpoint
    leave(config.state, report.publish, report.replay, report.started_at)
    closing.callback(forget, config.state)
    note(config)
    return publisher


def _measure(config: Config, metrics: Metrics, judge: Judge, report: Report, closing: ExitStack) -> None:
    metrics.serving(judge, device_of(judge.engine))
    metrics.selftest_pass.set(1)  # a model that fails it never comes this far
    metrics.ask(metrics.review_queue, report.waiting)
    metrics.ask(metrics.oldest_pending, report.oldest_waiting_s)
    metrics.watch_files({name: config.state / f"{name}.sqlite" for name in ("ledger", "labels")})
    if (server := metrics.serve(config.metrics_port)) is not None:
        stop: Callable[[], None] = server.shutdown
        closing.callback(stop)
