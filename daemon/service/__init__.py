"""The service: runs the pipeline of one instrument, reacts to signals, and finishes what is in work at the end.

READY goes to systemd once the model has passed its self-test and the sources are open. The watchdog is fed from the
loop: a ping means that the loop turned, with or without traffic.
"""

from __future__ import annotations

import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from daemon.client.service_file import leave_word
from daemon.common import ending, sockets
from daemon.common.errors import BAD_CONFIG, INTERNAL, UserError
from daemon.common.mounts import local
from daemon.common.sockets import Connections
from daemon.config import Config, changes
from daemon.judging import Decision, Judge
from daemon.judging.judge import Chosen
from daemon.judging.sentinel import Sentinel
from daemon.ledger import NotRecorded, events
from daemon.ledger.numbers import ADVICE
from daemon.notify import OWN as MESSAGES
from daemon.service.assembly import Parts, assemble, pace_of
from daemon.service.health import Condition, ContactWatch, Health, Starting, alarm_of, notify, watchdog_interval_s
from daemon.service.log_lines import Log
from daemon.service.reload import Loaded, drop, note_served, retire_unless_shared
from daemon.sources.watch import WatchSource
from deploy.classifier import share_heaps
from deploy.serving import Model

log = logging.getLogger(__name__)

#: The loop turns at least this often, so that SIGTERM, the watchdog and deferred files never wait longer.
TURN_S = 0.25
#: What is in the line when SIGTERM comes is finished, for at most this long; the rest is found again at the next start.
DRAIN_S = 3.0
#: From SIGTERM to the end, whatever hangs; systemd loses patience after 10 s.
STOP_S = 8.0
#: While nothing can be recorded the same decisions are tried again this often.
PAUSE_S = 1.0
#: Keys that a reload takes in flight; the others need a restart.
LIVE_KEYS = frozenset(
    {"model", "device", "text", "require_certificate", "thresholds"}
    | {"alarm", "batch", "engine", "log", "guard", "notify", "space"}
)


class Service:
    """One instrument's service, in the foreground. ``reread`` gives the configuration anew (SIGHUP, `reload`)."""

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        self._config, self._reread = config, reread
        self._reload_asked = threading.Event()
        self._terminal = ending.Terminal()
        #: The session in a few lines, once it is over, for a terminal that is still there.
        self.farewell: list[str] = []
        self._health = Health(announce=self._announce)
        self._contact = ContactWatch(config.alarm.no_contact_run)
        self._parts: Parts | None = None
        self._log = Log(config.log.level, config.log.format, instrument=config.instrument)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; returns the exit code. Raises UserError for what keeps it from starting."""
        begun_s = time.monotonic()
        share_heaps()
        with ExitStack() as closing:
            self._log.open()
            closing.callback(self._log.close)
            closing.enter_context(ending.listening())
            ending.allow(STOP_S)
            ending.insist()
            ending.write_in_background()
            try:
                self._serve(closing, begun_s)
            except UserError as error:
                if self._config.log.format != "json":  # whoever collects objects gets the last word as one too
                    raise
                log.critical("%s", error)
                return error.exit_code
            except Exception as error:
                log.critical("the service ends by a mistake of its own: %s", error, exc_info=True)
                if self._config.log.format != "json":
                    raise
                return INTERNAL
        return 0

    def _serve(self, closing: ExitStack, begun_s: float) -> None:
        connections = Connections(apart=self._config.metrics_port)
        ending.also(signal.SIGHUP, self._hang_up)
        closing.callback(sockets.close)
        try:
            with Starting():
                parts = self._parts = assemble(self._config, self._reread, self._health, closing)
        except KeyboardInterrupt:
            log.info("stopped by %s before it was ready", ending.asked_by().name)
            return
        self._note_all(parts)  # what was announced before there was a guard to hear it
        for source in parts.vigil.sources:
            source.start()
            closing.callback(source.stop)
        self._say_ready(parts, time.monotonic() - begun_s)
        parts.care.start()
        parts.space.start()
        parts.sessions.start()
        parts.guard.start()
        parts.notifier.start()
        gc.freeze()  # half a million objects that stay to the end: no search for garbage goes through them
        self._loop(parts, connections)
        self._drain(parts)
        self._note_all(parts)  # as it is now: the words that were announced may be hours old
        log.info("stopped by %s; the ledger ends at seq %d", ending.asked_by().name, parts.report.last_seq())
        self.farewell = parts.report.farewell() if self._terminal.look() else []

    def _hang_up(self) -> bool:
        """SIGHUP: the terminal has gone, which ends us, or somebody wants a reload."""
        if self._terminal.has_just_gone():
            return True
        self._reload_asked.set()
        return False

    def _say_ready(self, parts: Parts, took_s: float) -> None:
        config, model = self._config, parts.model
        parts.report.state = "ready"
        self._health.report("model", "ok", f"{model.id} on {model.engine}, self-test passed")
        watched = ", ".join(f"{one}{_absence(one)}" for one in config.watch) or str(config.ingest)
        notify(f"READY=1\nSTATUS=watching {watched}")
        parts.publisher.emit(_model_event(model, parts.serving.judge, "the service started"))
        self._say_chosen(parts.model_reload.chosen)
        said = f"publishes on {parts.report.publish}, model {model.id} on {model.engine}"
        log.info("ready after %.1f s: %s watches %s, %s", took_s, config.instrument, watched, said)

    def _loop(self, parts: Parts, connections: Connections) -> None:
        ping_s = watchdog_interval_s()
        pinged_s = looked_s = time.monotonic()
        while not ending.is_asked():
            self._turn(parts, TURN_S)
            self._look_at_door(connections)
            parts.vigil.turned()
            now_s = time.monotonic()
            if ping_s is not None and now_s - pinged_s >= ping_s / 3:
                notify("WATCHDOG=1")
                pinged_s = now_s
            if now_s - looked_s >= 1.0:
                self._look_around(parts)
                looked_s = now_s
            self._renew(parts)

    def _turn(self, parts: Parts, wait_s: float) -> None:
        try:
            decisions = parts.pipeline.turn(wait_s)
        except NotRecorded as error:
            parts.report.is_held = error.condition == "ledger"
            self._health.report(error.condition, "alarm", f"{error}; until then nothing is announced, and nothing lost")
            ending.wait(PAUSE_S)
            return
        self._health.report("disk", "ok", "the ledger can be written")
        if decisions:
            self._take_note(parts, decisions)
        serving, is_building = parts.serving, parts.model_reload.is_building
        serving.engine, serving.engine_reasons = parts.engines.observe(serving.model, serving.judge, is_building)

    def _take_note(self, parts: Parts, decisions: list[Decision]) -> None:
        now_s = time.monotonic()
        parts.report.rates.observe((now_s - decision.noticed_s for decision in decisions), now_s)
        self._look_at_surface(parts.pipeline.sentinel, decisions)
        parts.sessions.observe([(one.path.rpartition("/")[0] if one.folder else "", one.verdict) for one in decisions])

    def _look_at_surface(self, sentinel: Sentinel, decisions: Sequence[Decision]) -> None:
        """The sign first: with a wrong one no curve seems to reach the surface, and nobody is to engage anew for it."""
        for name, is_well, text in sentinel.findings():
            self._health.report(f"orientation {name}", "ok" if is_well else "alarm", text)
        if not self._contact.observe(one.reasons for one in decisions):
            self._health.report("contact", "ok", "curves reach the surface")
        elif turned := sentinel.turned:
            self._health.report("contact", "ok", self._contact.explained_by(turned))
        else:
            self._health.report("contact", "alarm", self._contact.text)

    def _look_around(self, parts: Parts) -> None:
        """Once a second: report how the sources are, and bring systemd's one line up to date."""
        parts.vigil.look()
        for source in parts.vigil.sources:
            if isinstance(source, WatchSource):
                self._look_for_unread(source)
        self._report_log(parts)
        self._terminal.look()
        self._look_at_ledger(parts)
        self._look_at_space(parts)
        self._look_at_guard(parts)
        late = parts.notifier.trouble
        self._health.report(MESSAGES, "degraded" if late else "ok", late or "messages to a person arrive")
        parts.metrics.entered(parts.report.condition())
        parts.metrics.felt(self._health.grave())
        current = parts.sessions.current
        parts.metrics.session_open.set(current is not None and current.origin == "person")
        parts.metrics.heartbeat.labels("pipeline").set_to_current_time()
        notify(f"STATUS={self._health.line() or parts.report.line()}")

    def _look_at_door(self, connections: Connections) -> None:
        was_shut = connections.is_shut
        crowd = connections.look()
        self._health.report("connections", "degraded" if crowd else "ok", crowd or "the door is open")
        if connections.is_shut != was_shut:
            leave_word(self._config.state, crowd)

    def _report_log(self, parts: Parts) -> None:
        parts.metrics.logged(self._log.said, self._log.dropped)
        trouble = self._log.trouble
        self._health.report("log", "degraded" if trouble else "ok", trouble or "lines are taken")

    def _look_at_ledger(self, parts: Parts) -> None:
        found = parts.ledger.look()
        parts.report.is_held = found.is_held
        if found.is_well:
            parts.leave_again()
        parts.metrics.ledger_sound.set(found.is_well)
        text = f"{found.text}; until then nothing is announced, and nothing lost" if found.is_held else found.text
        self._health.report("ledger", "ok" if found.is_well else "alarm", text)

    def _look_at_space(self, parts: Parts) -> None:
        """The disk that is full holds everything up (`disk`); the one that will be is told a day before."""
        told = parts.space.text
        self._health.report("disk space", "alarm" if told else "ok", told or "there is room on the disk")
        parts.metrics.disk(parts.space.disk.free_bytes, parts.space.disk.full_s)

    def _look_at_guard(self, parts: Parts) -> None:
        for finding in parts.guard.findings():
            self._health.report(finding.name, finding.level, finding.text, is_advice=finding.is_advice)
        parts.guard.serve(str(parts.serving.engine), parts.metrics.accounts.ignored_kinds())
        pulse = parts.guard.pulse()
        parts.metrics.guarded(
            pulse.confirmed, pulse.shown_live, pulse.kept_live, pulse.recall_lower_bound, pulse.lost_at_most
        )

    def _look_for_unread(self, source: WatchSource) -> None:
        for unread in source.unread():
            text = alarm_of(unread, self._config.alarm, time.monotonic())
            said = text or "what comes is read"
            self._health.report(f"folder {unread.folder}", "ok" if text is None else "alarm", said)

    def _drain(self, parts: Parts) -> None:
        """Stop taking, finish what is in the line, within the time that systemd leaves us."""
        notify("STOPPING=1")
        parts.report.state = "stopping"
        deadline_s = time.monotonic() + DRAIN_S
        parts.pipeline.backlog.close()
        while not parts.pipeline.idle() and time.monotonic() < deadline_s:
            self._turn(parts, 0.05)

    def _renew(self, parts: Parts) -> None:
        """Between two batches: begin a reload that was asked for, let live what has become ready."""
        model_reload = parts.model_reload
        if self._reload_asked.is_set() and not model_reload.is_reloading:
            self._reload_asked.clear()
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            model_reload.begin_reload(parts.model)
        outcome = model_reload.take_reload()
        if outcome is not None and self._reload_asked.is_set():
            drop(outcome, parts.model)  # asked for again meanwhile: the next one answers both
        elif isinstance(outcome, UserError):
            self._refuse(parts, outcome)
        elif outcome is not None:
            self._apply(parts, outcome)
        self._follow_registry(parts)
        better = model_reload.take_better(parts.model)
        if better is not None:
            self._improve(parts, better)

    def _follow_registry(self, parts: Parts) -> None:
        """Let serve what was promoted, or what holds after a roll-back or in another session group."""
        parts.model_reload.look(parts.model)
        outcome = parts.model_reload.take_turn()
        if isinstance(outcome, UserError):
            text = f"what the registry says cannot serve, {parts.model.id} goes on judging: {outcome}"
            self._health.report("model", "degraded", text)
        elif outcome is not None:
            was = parts.model
            self._swap(parts, outcome)
            parts.model_reload.adopt_turn(outcome, was)

    def _say_chosen(self, chosen: Chosen) -> None:
        text = chosen.passed_over or f"{chosen.id} is to serve, and does"
        self._health.report("promotion", "degraded" if chosen.is_broken else "ok", text)
        if chosen.passed_over and not chosen.is_broken:
            log.warning("%s", chosen.passed_over)

    def _refuse(self, parts: Parts, error: UserError) -> None:
        """A configuration with errors, or a model that fails, changes nothing."""
        log.error("reload refused, the old settings stay: %s", error)
        parts.metrics.reload_successful.set(0)
        if error.exit_code == BAD_CONFIG:  # also who asked by a signal, which has no answer, shall see it in `status`
            self._health.report("configuration", "degraded", f"reload refused, the settings from before go on: {error}")
        else:
            self._health.report("model", "degraded", f"reload refused, {parts.model.id} goes on judging: {error}")
        parts.publisher.emit(events.ConfigOutcome(result="rejected", reason=str(error)))
        notify("READY=1")

    def _apply(self, parts: Parts, loaded: Loaded) -> None:
        """Take what can change in flight."""
        config, model = loaded.config, loaded.model
        changed = changes(self._config, config)
        live_keys = LIVE_KEYS | ({"folder"} if _has_same_mounts(self._config, config) else set())
        live = {key: values for key, values in changed.items() if key.split(".")[0] in live_keys}
        after_restart = sorted(changed.keys() - live.keys())
        if model.id != parts.model.id:
            live.setdefault("model", (parts.model.id, model.id))  # calibrated anew into the same folder
        if any(key.startswith("alarm.") for key in live):
            self._contact = ContactWatch(config.alarm.no_contact_run)
        self._config = parts.vigil.config = config
        self._swap(parts, loaded)
        parts.model_reload.adopt(loaded)
        parts.guard.reloaded(config.guard)
        parts.notifier.adopt(config.notify)
        parts.space.adopt(config.space)
        parts.metrics.reload_successful.set(1)
        self._health.report("configuration", "ok", "the one in force is the last that was asked for")
        self._log.adopt(config.log.level, config.log.format)
        log.info("reload: applied %s; needs a restart: %s", sorted(live) or "nothing", after_restart or "nothing")
        parts.publisher.emit(
            events.ConfigOutcome(result="applied", digest=config.digest, changed=live, needs_restart=after_restart)
        )
        notify("READY=1")

    def _improve(self, parts: Parts, better: Loaded | UserError) -> None:
        """The engine that the service began without: it takes over, or the reason why it cannot is told."""
        if isinstance(better, UserError):
            parts.model.passed_over = (str(better),)
        elif better.model.engine == parts.model.engine:
            parts.model.passed_over = better.model.passed_over
            retire_unless_shared(better.model, parts.model)
        else:
            self._swap(parts, better)

    def _swap(self, parts: Parts, loaded: Loaded) -> None:
        """Another model, another engine or other thresholds, from the next batch on."""
        config, model, old = self._config, loaded.model, parts.model
        note_served(loaded)
        parts.pipeline.swap(model, loaded.judge, pace_of(config), config.text)
        self._health.report("model", "ok", f"{model.id} on {model.engine}, self-test passed")
        self._say_chosen(loaded.chosen)
        if model is not old:
            log.info("from the next batch on %s judges, on %s (%s)", model.id, model.engine, loaded.why)
            parts.publisher.emit(_model_event(model, loaded.judge, loaded.why))
            retire_unless_shared(old, model)

    def _announce(self, condition: Condition) -> None:
        is_grave = logging.WARNING if condition.is_advice else logging.ERROR
        log.log(logging.INFO if condition.is_ok else is_grave, "%s: %s", condition.name, condition.text)
        if self._parts is not None:
            self._parts.publisher.emit(events.Alarm(**asdict(condition), ok=condition.is_ok))
            self._note(self._parts, condition)

    def _note_all(self, parts: Parts) -> None:
        for condition in self._health.conditions():
            if not condition.is_ok:
                self._note(parts, condition)

    def _note(self, parts: Parts, condition: Condition) -> None:
        """For the person who is told at once, and for the morning.

        Advice the guard notes by itself, with the time from when on it is so.
        """
        name, level, is_advice = condition.name, condition.level, condition.is_advice
        parts.notifier.hear(name, level, condition.text, condition.since, is_advice=is_advice)
        if not condition.name.startswith(ADVICE):
            parts.guard.hear(condition.name, condition.level, condition.text, condition.since)


def _model_event(model: Model, judge: Judge, why: str) -> events.Model:
    parent = model.bundle.manifest.parent
    return events.Model(model.id, str(model.engine), "live", parent=parent, cut=judge.cut, why=why)


def _absence(folder: Path) -> str:
    """What there is to say of a watched folder at once; of one on a share its source says it once it has answered."""
    real = local(folder)
    return "" if real is None or real.is_dir() else " (not there yet)"


def _has_same_mounts(old: Config, new: Config) -> bool:
    """Whether of the ``[[folder]]`` tables only alarms have changed: what a source was made with needs a restart."""
    return all(old.mounts_of(folder) == new.mounts_of(folder) for folder in old.watch)
