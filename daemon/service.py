"""The service: everything a pipeline needs, brought up in order, kept turning, and drained.

Order of start: the lock (a second service is refused at once), the ledger, the readers, the model and its
self-test, the sockets, and last the sources, so that the first curve finds everything in its place; READY goes to
systemd only then. The watchdog is fed from the loop: a ping means that the loop turned, with or without traffic.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from types import FrameType

from daemon import logs
from daemon.backlog import Backlog
from daemon.config import Config, changes
from daemon.contact import ContactWatch
from daemon.decision import Decision, Judge
from daemon.errors import UserError
from daemon.flagged import count_waiting
from daemon.health import Condition, Health, notify, watchdog_interval_s
from daemon.judging import judge_of, load_model
from daemon.ledger import Ledger, LedgerFull
from daemon.lock import StateLock
from daemon.metrics import Metrics
from daemon.pipeline import Pace, Pipeline
from daemon.publish import Publisher
from daemon.reader import ReaderPool
from daemon.report import Report
from daemon.sources import Source
from daemon.sources.open import open_sources
from daemon.whereabouts import forget, leave
from deploy.serving import Model

log = logging.getLogger(__name__)

#: The loop turns at least this often, so that SIGTERM, the watchdog and deferred files never wait longer.
TURN_S = 0.25
#: What is in the line when SIGTERM comes is finished, for at most this long; the rest is found again at the next start.
DRAIN_S = 3.0
#: Keys that a reload takes in flight; the others need a restart.
LIVE_KEYS = frozenset({"model", "device", "thresholds", "alarm", "batch", "log"})
#: While the disk is full the same decisions are tried again this often.
FULL_DISK_PAUSE_S = 1.0


class Service:
    """One instrument's service, in the foreground. ``reread`` gives the configuration anew (SIGHUP, `reload`)."""

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        self._config, self._reread = config, reread
        self._stopping = threading.Event()
        self._reload_asked = threading.Event()
        self._health = Health(announce=self._announce)
        self._contact = ContactWatch(config.alarm.no_contact_run)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code. Raises UserError for what keeps it from starting."""
        logs.set_up(self._config.log.level, self._config.log.format)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        with ExitStack() as closing:
            self._start(closing)
            try:
                self._loop()
            finally:
                notify("STOPPING=1")
                self._report.state = "stopping"
        log.info("stopped; the ledger ends at seq %d", self._last_seq)
        return 0

    def _start(self, closing: ExitStack) -> None:
        config, begun_s = self._config, time.monotonic()
        closing.callback(StateLock(config.state).release)
        self._ledger = Ledger(config.state / "ledger.sqlite", config.instrument)
        closing.callback(self._ledger.close)
        self._metrics = Metrics()
        bell = threading.Event()
        reader = ReaderPool(wake=bell.set)
        closing.callback(reader.close)
        self._model = load_model(config.model, config.device)
        judge = judge_of(self._model, config.thresholds)
        self._metrics.serving(judge, device="cpu")
        self._sources: list[Source] = open_sources(config, self._ledger, self._metrics.accounts, bell.set)
        ledger_file = config.state / "ledger.sqlite"
        self._report = Report(config, ledger_file, self._metrics, self._health, judge, self._sources)
        self._publisher = Publisher(
            ledger_file,
            config.instrument,
            publish=config.publish,
            replay=config.replay,
            status=self._report.data,
            counts=self._metrics,
        )
        self._publisher.start()
        closing.callback(self._publisher.stop)
        self._backlog = Backlog(self._sources)
        pace = Pace(config.batch.largest, config.batch.wait_s)
        self._pipeline = Pipeline(
            self._backlog, reader, self._model, judge, self._ledger, self._publisher, self._metrics, bell, pace
        )
        self._metrics.ask(self._metrics.review_queue, partial(count_waiting, ledger_file))
        self._metrics.watch_files({name: config.state / f"{name}.sqlite" for name in ("ledger", "labels")})
        self._metrics.serve(config.metrics_port)
        leave(config.state, self._publisher.publish_endpoint, self._publisher.replay_endpoint, self._report.started_at)
        closing.callback(forget, config.state)
        for source in self._sources:
            source.start()
            closing.callback(source.stop)
        self._ready(time.monotonic() - begun_s)

    def _ready(self, took_s: float) -> None:
        config = self._config
        self._report.state = "ready"
        self._health.report("model", "ok", f"{self._model.id} on {self._model.engine}, self-test passed")
        notify(f"READY=1\nSTATUS=watching {', '.join(map(str, config.watch)) or config.ingest}")
        self._publisher.emit("model", {"model": self._model.id, "engine": self._model.engine, "state": "live"})
        watched = ", ".join(map(str, config.watch)) or "no folder"
        log.info(
            "ready after %.1f s: %s watches %s, publishes on %s, model %s on %s, ledger at seq %d",
            took_s,
            config.instrument,
            watched,
            self._publisher.publish_endpoint,
            self._model.id,
            self._model.engine,
            self._ledger.last_seq,
        )

    def _loop(self) -> None:
        ping_s = watchdog_interval_s()
        pinged_s = looked_s = time.monotonic()
        while not self._stopping.is_set():
            self._turn(TURN_S)
            now_s = time.monotonic()
            if ping_s is not None and now_s - pinged_s >= ping_s / 3:
                notify("WATCHDOG=1")
                pinged_s = now_s
            if now_s - looked_s >= 1.0:
                self._look_around()
                looked_s = now_s
            if self._reload_asked.is_set():
                self._reload_asked.clear()
                self._reload()
        self._drain()

    def _turn(self, wait_s: float) -> None:
        try:
            self._after(self._pipeline.turn(wait_s))
            self._health.report("disk", "ok", "the ledger can be written")
        except LedgerFull as error:
            self._health.report("disk", "alarm", f"{error}; nothing is lost or announced, free some space")
            self._stopping.wait(FULL_DISK_PAUSE_S)

    def _after(self, decisions: list[Decision]) -> None:
        if not decisions:
            return
        self._report.tempo.observe((time.monotonic() - decision.noticed_s for decision in decisions), time.monotonic())
        if self._contact.observe(decisions):
            self._health.report("contact", "alarm", self._contact.text)
        else:
            self._health.report("contact", "ok", "curves reach the surface")

    def _look_around(self) -> None:
        """Once a second: are the sources well, and does systemd's one line still tell the truth?"""
        for source in self._sources:
            for found in source.health():
                self._health.report(f"source {found.name}", "ok" if found.ok else "alarm", found.detail)
        notify(f"STATUS={self._health.line() or self._report.line()}")

    def _drain(self) -> None:
        """Stop taking, finish what is in the line, within the time that systemd leaves us."""
        deadline_s = time.monotonic() + DRAIN_S
        self._backlog.close()
        while not self._pipeline.idle() and time.monotonic() < deadline_s:
            self._turn(0.05)
        self._last_seq = self._ledger.last_seq

    def _reload(self) -> None:
        """Take what can change in flight; a configuration with errors changes nothing."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config = self._reread()
            model = self._model if config.model == self._config.model else load_model(config.model, config.device)
            judge = judge_of(model, config.thresholds)
        except UserError as error:
            log.error("reload refused, the old settings stay: %s", error)
            self._publisher.emit("config", {"result": "rejected", "reason": str(error)})
        else:
            self._apply(config, model, judge)
        notify("READY=1")

    def _apply(self, config: Config, model: Model, judge: Judge) -> None:
        changed = changes(self._config, config)
        live = {key: values for key, values in changed.items() if key.split(".")[0] in LIVE_KEYS}
        self._config, self._model = config, model
        self._contact = ContactWatch(config.alarm.no_contact_run)
        self._pipeline.swap(model, judge, Pace(config.batch.largest, config.batch.wait_s))
        self._report.judge = judge
        self._metrics.serving(judge, device="cpu")
        logs.set_up(config.log.level, config.log.format)
        after_restart = sorted(changed.keys() - live.keys())
        log.info("reload: applied %s; needs a restart: %s", sorted(live) or "nothing", after_restart or "nothing")
        outcome = {"result": "applied", "digest": config.digest, "changed": live, "needs_restart": after_restart}
        self._publisher.emit("config", outcome)

    def _announce(self, condition: Condition) -> None:
        level = logging.INFO if condition.is_ok else logging.ERROR
        log.log(level, "%s: %s", condition.name, condition.text)
        if (publisher := getattr(self, "_publisher", None)) is not None:
            publisher.emit("alarm", asdict(condition) | {"ok": condition.is_ok})

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping.set()

    def _on_reload(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_asked.set()
