"""The service: one instrument's line, kept turning, told of signals, and drained.

READY goes to systemd once the model has proved itself and the sources are open. The watchdog is fed from the loop: a
ping means that the loop turned, with or without traffic.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from types import FrameType

from daemon.config import Config, changes
from daemon.decision import Decision, Judge
from daemon.errors import UserError
from daemon.judging import is_outdated, judge_of, load_model, wish_of
from daemon.ledger import LedgerFull
from daemon.service import logs
from daemon.service.assembly import Parts, assemble, pace_of
from daemon.service.contact import ContactWatch
from daemon.service.health import Condition, Health, notify, watchdog_interval_s
from deploy.serving import Model

log = logging.getLogger(__name__)

#: The loop turns at least this often, so that SIGTERM, the watchdog and deferred files never wait longer.
TURN_S = 0.25
#: What is in the line when SIGTERM comes is finished, for at most this long; the rest is found again at the next start.
DRAIN_S = 3.0
#: While the disk is full the same decisions are tried again this often.
FULL_DISK_PAUSE_S = 1.0
#: Keys that a reload takes in flight; the others need a restart.
LIVE_KEYS = frozenset({"model", "device", "require_certificate", "thresholds", "alarm", "batch", "log"})


class Service:
    """One instrument's service, in the foreground. ``reread`` gives the configuration anew (SIGHUP, `reload`)."""

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        self._config, self._reread = config, reread
        self._stopping, self._reload_asked = threading.Event(), threading.Event()
        self._health = Health(announce=self._announce)
        self._contact = ContactWatch(config.alarm.no_contact_run)
        self._parts: Parts | None = None
        self._stopped_by = ""

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code. Raises UserError for what keeps it from starting."""
        logs.set_up(self._config.log.level, self._config.log.format)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, lambda *_: self._reload_asked.set())
        begun_s = time.monotonic()
        with ExitStack() as closing:
            parts = self._parts = assemble(self._config, self._health, closing)
            for source in parts.sources:
                source.start()
                closing.callback(source.stop)
            self._say_ready(parts, time.monotonic() - begun_s)
            self._loop(parts)
            self._drain(parts)
            log.info("stopped by %s; the ledger ends at seq %d", self._stopped_by, parts.ledger.last_seq)
        return 0

    def _stop(self, number: int, where: FrameType | None) -> None:
        self._stopped_by = signal.Signals(number).name
        self._stopping.set()

    def _say_ready(self, parts: Parts, took_s: float) -> None:
        config, model = self._config, parts.model
        parts.report.state = "ready"
        self._health.report("model", "ok", f"{model.id} on {model.engine}, self-test passed")
        watched = ", ".join(f"{one}{'' if one.is_dir() else ' (not there yet)'}" for one in config.watch)
        watched = watched or str(config.ingest)
        notify(f"READY=1\nSTATUS=watching {watched}")
        parts.publisher.emit("model", {"model": model.id, "engine": model.engine, "state": "live"})
        said = f"publishes on {parts.report.publish}, model {model.id} on {model.engine}"
        log.info("ready after %.1f s: %s watches %s, %s", took_s, config.instrument, watched, said)

    def _loop(self, parts: Parts) -> None:
        ping_s = watchdog_interval_s()
        pinged_s = looked_s = time.monotonic()
        while not self._stopping.is_set():
            self._turn(parts, TURN_S)
            now_s = time.monotonic()
            if ping_s is not None and now_s - pinged_s >= ping_s / 3:
                notify("WATCHDOG=1")
                pinged_s = now_s
            if now_s - looked_s >= 1.0:
                self._look_around(parts)
                looked_s = now_s
            if self._reload_asked.is_set():
                self._reload_asked.clear()
                self._reload(parts)

    def _turn(self, parts: Parts, wait_s: float) -> None:
        try:
            decisions = parts.pipeline.turn(wait_s)
        except LedgerFull as error:
            self._health.report("disk", "alarm", f"{error}; until then nothing is announced, and nothing lost")
            self._stopping.wait(FULL_DISK_PAUSE_S)
            return
        self._health.report("disk", "ok", "the ledger can be written")
        if decisions:
            self._take_note(parts, decisions)

    def _take_note(self, parts: Parts, decisions: list[Decision]) -> None:
        now_s = time.monotonic()
        parts.report.tempo.observe((now_s - decision.noticed_s for decision in decisions), now_s)
        if self._contact.observe(decisions):
            self._health.report("contact", "alarm", self._contact.text)
        else:
            self._health.report("contact", "ok", "curves reach the surface")

    def _look_around(self, parts: Parts) -> None:
        """Once a second: are the sources well, and does systemd's one line still tell the truth?"""
        for source in parts.sources:
            for found in source.health():
                self._health.report(f"source {found.name}", "ok" if found.ok else "alarm", found.detail)
        parts.metrics.entered(parts.report.condition())
        parts.metrics.heartbeat.labels("pipeline").set_to_current_time()
        notify(f"STATUS={self._health.line() or parts.report.line()}")

    def _drain(self, parts: Parts) -> None:
        """Stop taking, finish what is in the line, within the time that systemd leaves us."""
        notify("STOPPING=1")
        parts.report.state = "stopping"
        deadline_s = time.monotonic() + DRAIN_S
        parts.backlog.close()
        while not parts.pipeline.idle() and time.monotonic() < deadline_s:
            self._turn(parts, 0.05)

    def _reload(self, parts: Parts) -> None:
        """Take what can change in flight; a configuration with errors changes nothing."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config = self._reread()
            model = parts.model
            models = config.state / "models"
            if config.model != self._config.model or is_outdated(model, config.model, models):
                model = load_model(config.model, wish_of(config), models)
            judge = judge_of(model, config.thresholds, require_certificate=config.require_certificate)
        except UserError as error:
            log.error("reload refused, the old settings stay: %s", error)
            parts.metrics.reload_successful.set(0)
            parts.publisher.emit("config", {"result": "rejected", "reason": str(error)})
        else:
            self._apply(parts, config, model, judge)
        notify("READY=1")

    def _apply(self, parts: Parts, config: Config, model: Model, judge: Judge) -> None:
        changed = changes(self._config, config)
        live = {key: values for key, values in changed.items() if key.split(".")[0] in LIVE_KEYS}
        after_restart = sorted(changed.keys() - live.keys())
        if model is not parts.model:
            live.setdefault("model", (parts.model.id, model.id))  # calibrated anew into the same folder
            parts.publisher.emit("model", {"model": model.id, "engine": model.engine, "state": "live"})
        if any(key.startswith("alarm.") for key in live):
            self._contact = ContactWatch(config.alarm.no_contact_run)
        self._config, parts.model, parts.report.judge = config, model, judge
        parts.pipeline.swap(model, judge, pace_of(config))
        parts.metrics.serving(judge, device="cpu")
        parts.metrics.reload_successful.set(1)
        logs.set_up(config.log.level, config.log.format)
        log.info("reload: applied %s; needs a restart: %s", sorted(live) or "nothing", after_restart or "nothing")
        outcome = {"result": "applied", "digest": config.digest, "changed": live, "needs_restart": after_restart}
        parts.publisher.emit("config", outcome)

    def _announce(self, condition: Condition) -> None:
        level = logging.INFO if condition.is_ok else logging.ERROR
        log.log(level, "%s: %s", condition.name, condition.text)
        if self._parts is not None:
            self._parts.publisher.emit("alarm", asdict(condition) | {"ok": condition.is_ok})
