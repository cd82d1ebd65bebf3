"""The assembly: makes the parts of a service in order, and closes them in the reverse order.

The lock first (a second service is refused at once), then the ledger, the readers (which start while the model loads),
the model and its self-test (on what serves at once: a GPU takes over later), the sockets. The sources are made but not
started: the first curve shall find everything in its place.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from daemon.client.feed import ask_status
from daemon.client.folders import note
from daemon.client.service_file import find, forget, is_left, leave
from daemon.common import ending
from daemon.common.allowed import Allowed
from daemon.common.errors import ALREADY_RUNNING, UNREACHABLE, UserError
from daemon.common.keys import read
from daemon.common.locks import StateLock
from daemon.common.mounts import resolve
from daemon.common.sockets import Endpoint, is_free
from daemon.config import Config
from daemon.config.origin import MOST_INSTRUMENTS, PORTS, UNITS, usual_port
from daemon.formats import FORMATS, Names
from daemon.guard import Guard
from daemon.guard.canaries import CanarySource, PathWatch
from daemon.judging import Judge
from daemon.judging.judge import Serving, release
from daemon.judging.sentinel import Dispute, Sentinel
from daemon.labels.sessions import answers_of
from daemon.ledger import Ledger, LedgerView, snapshot
from daemon.ledger.care import LedgerCare
from daemon.ledger.space import SPOOL, SpaceCare
from daemon.metrics import Accounts, Metrics
from daemon.notify import Notifier
from daemon.pipeline import Backlog, Pace, Pipeline
from daemon.publish import Publisher
from daemon.reading.pool import ReaderPool
from daemon.service.health import EngineWatch, Health, Vigil
from daemon.service.reload import ModelReload, load, note_served, request_at_once
from daemon.service.report import StatusReport
from daemon.service.sessions import SessionWatch
from daemon.sources import Source
from daemon.sources.file_state import Timing
from daemon.sources.ingest import IngestSource
from daemon.sources.watch import FolderNeeds, WatchSource
from deploy.serving import Model

#: Where canaries lie on their way, in the state folder.
CANARIES = "canaries"

# Which sources a configuration asks for, wired to the ledger's memory and to the counters.


def open_sources(
    config: Config,
    ledger: Ledger,
    accounts: Accounts,
    wake: Callable[[], None],
    allowed: Allowed | None = None,
) -> list[Source]:
    """Not started yet. Raises UserError for folders that cannot be watched together, or a taken ingest port."""
    sources: list[Source] = []
    if config.watch:
        sources.append(_watch(config, ledger, accounts, wake))
    if config.ingest:
        sources.append(_ingest(config.ingest, config.state / SPOOL, accounts, wake, allowed))
    return sources


def _watch(config: Config, ledger: Ledger, accounts: Accounts, wake: Callable[[], None]) -> WatchSource:
    view, is_only = ledger.view(), len(config.watch) == 1
    timing = Timing(
        scan_s=config.source.rescan_local_s,
        scan_often_s=config.source.rescan_network_s,
        patience_s=config.source.give_up_s,
        patience_map_s=config.source.give_up_map_s,
        patience_zero_tail_s=config.source.zero_tail_s,
        patience_unended_s=config.source.unended_s,
    )
    needs = FolderNeeds(
        names=Names(FORMATS, text_quiet_s=config.source.text_quiet_s),
        wake=wake,
        finished=partial(view.finished, of_any=is_only),
        has_files=partial(_has_files, view),
        seen=lambda count: accounts.seen("watch", count),
        ignored=accounts.ignored,
    )
    mounts = [config.mounts_of(folder) for folder in config.watch]
    return WatchSource(config.watch, needs, mounts=mounts, timing=timing)


def _has_files(view: LedgerView, folder: str) -> bool:
    """Whether files of a folder were judged before; no where the ledger cannot say."""
    try:
        return view.has_files(folder)
    except UserError:
        return False


def _ingest(
    endpoint: str, folder: Path, accounts: Accounts, wake: Callable[[], None], allowed: Allowed | None
) -> IngestSource:
    return IngestSource(
        endpoint,
        folder,
        wake=wake,
        seen=lambda count: accounts.seen("ingest", count),
        refused=lambda reason: accounts.ignored("ingest_refused"),
        allowed=allowed,
    )


log = logging.getLogger(__name__)
T = TypeVar("T")
Stopped = TypeVar("Stopped", LedgerCare, SpaceCare, Guard, Notifier, SessionWatch)


@dataclass(slots=True)
class Parts(ending.Closing):
    """What a service is made of."""

    serving: Serving
    ledger: Ledger
    pipeline: Pipeline
    publisher: Publisher
    metrics: Metrics
    report: StatusReport
    engines: EngineWatch
    model_reload: ModelReload
    care: LedgerCare
    space: SpaceCare
    vigil: Vigil
    sessions: SessionWatch
    guard: Guard
    notifier: Notifier

    def leave_again(self) -> None:
        """The service file, where somebody has removed or overwritten it: without it nobody finds the service."""
        state, report = self.report.config.state, self.report
        if not is_left(state):
            with suppress(OSError, UserError):  # a disk that is full, or may not be written to
                leave(state, report.publish, report.replay, report.started_at, report.local_key)

    @property
    def model(self) -> Model:
        """That judges now."""
        return self.serving.model

    def close(self) -> None:
        """Let go of the model that judges at the end, and of one that is being built."""
        try:
            self.model_reload.close(self.model)
        finally:
            release(self.model)


def assemble(config: Config, reread: Callable[[], Config], health: Health, closing: ExitStack) -> Parts:
    """Everything but started sources; ``closing`` undoes it. A state folder that is only now made goes with a refusal.

    Raises UserError for what stands in the way, KeyboardInterrupt when the end is asked for meanwhile.
    """
    is_new, refusals = not config.state.exists(), list[UserError]()
    closing.callback(StateLock(config.state).release)
    if is_new and not config.ledger_file.exists():  # nobody was quicker; ours while locked
        closing.callback(lambda: _take_back(config.state) if refusals else None)
    try:
        need_places(config)
        return _assemble(config, reread, health, closing)
    except UserError as error:
        refusals.append(error)
        raise


def _take_back(state: Path) -> None:
    """The state of a refused start, in which every verb would look for the service; a person's words in it stay."""
    if not any((state / name).exists() for name in ("labels.sqlite", "models", SPOOL)):
        shutil.rmtree(state, ignore_errors=True)


def _assemble(config: Config, reread: Callable[[], Config], health: Health, closing: ExitStack) -> Parts:
    ledger = closing.enter_context(_beside(lambda: Ledger(config.ledger_file, config.instrument)))
    metrics, bell = Metrics(), threading.Event()
    reader = closing.enter_context(ReaderPool(wake=bell.set, is_live=True))
    ending.check()
    sessions = _stopped(SessionWatch(config.state, ledger.view()), closing)
    loaded = load(config, request_at_once(config))
    ending.check()
    serving = Serving(loaded.model, loaded.judge)
    note_served(loaded)
    allowed = _guarded(config, metrics, closing)
    sources = open_sources(config, ledger, metrics.accounts, bell.set, allowed)
    care = _stopped(LedgerCare(ledger, metrics.ledger_checked), closing)
    space = _stopped(SpaceCare(config, ledger, metrics.prune), closing)
    vigil = Vigil(config, sources, metrics.accounts, health)
    canaries, dispute = CanarySource(config.state / CANARIES, config.guard, bell.set), Dispute()
    path = PathWatch(canaries, metrics, config.state)
    guard = Guard(config.state, ledger.view(), serving, dispute, lambda: sessions.current, path=path)
    _stopped(guard, closing)
    notifier = Notifier(
        config.notify, config.state, instrument=config.instrument, about=sessions.words, count=metrics.messaged
    )
    _stopped(notifier, closing)
    report = StatusReport(
        config, metrics, health, serving, vigil, ledger, sessions, guard.status, messages=notifier.status, space=space
    )
    publisher = _speak(config, report, guard, metrics, closing, allowed)
    pipeline = Pipeline(
        Backlog([*sources, canaries]),
        reader,
        serving,
        ledger,
        publisher,
        metrics,
        bell=bell,
        pace=pace_of(config),
        rules=config.text,
        sentinel=Sentinel(),
        dispute=dispute,
        observe=guard.observe,
    )
    canaries.is_held = lambda: pipeline.is_held
    _measure(config, metrics, loaded.judge, report, vigil, closing)
    parts = Parts(
        serving,
        ledger,
        pipeline,
        publisher,
        metrics,
        report,
        EngineWatch(health, metrics),
        ModelReload(config, reread, loaded.chosen),
        care,
        space,
        vigil,
        sessions,
        guard,
        notifier,
    )
    return closing.enter_context(parts)


def _stopped(part: Stopped, closing: ExitStack) -> Stopped:
    """A thread beside the pipeline, which is stopped at the end."""
    closing.callback(part.stop)
    return part


def need_places(config: Config) -> None:
    """Raises UserError 69 that names every address which another program has, and what to give instead.

    73 where that program is the service of this instrument on these folders, with another state.
    """
    named = {"publish": config.publish, "replay": config.replay, "ingest": config.ingest}
    places = {key: (text, Endpoint.parse(text)) for key, text in named.items() if text}
    if config.metrics_port:
        places["metrics_port"] = (str(config.metrics_port), Endpoint("tcp", "127.0.0.1", config.metrics_port))
    taken = {key: text for key, (text, place) in places.items() if place.port != 0 and not is_free(place)}
    if not taken:
        return
    if pid := _same_service(config):
        advice = "one is enough, and two would judge everything twice; stop it, or leave it"
        raise UserError(ALREADY_RUNNING, f"{config.instrument} is already running as process {pid}: {advice}")
    said = ", ".join(f"{key} {text}" for key, text in taken.items())
    advice = "stop it, or choose others with " + " and ".join(f"--{key.replace('_', '-')}" for key in taken)
    number = next((one for one in range(1, MOST_INSTRUMENTS + 1) if _has_room(one)), None)
    if number is not None and not any(config.origins.get(key) in ("file", "environment", "flag") for key in taken):
        advice = f"is it another instrument's service? then give this one a number of its own: number = {number}"
    raise UserError(UNREACHABLE, f"another program has {said}; {advice}")


def _same_service(config: Config) -> int | None:
    """The process that serves this instrument and one of these folders already, by its own word."""
    unit = find(replace(config, state=UNITS / config.instrument))
    for place in [unit] if unit.is_alive else [find(config)]:
        said = (ask_status(place.replay, key=place.key) or {}).get("data", {})
        watched = {str(resolve(Path(one))) for one in said.get("watch") or () if isinstance(one, str)}
        is_of_folders = not config.watch or bool(watched & {str(resolve(one)) for one in config.watch})
        if said.get("instrument") == config.instrument and is_of_folders and isinstance(said.get("pid"), int):
            return int(said["pid"])
    return None


def _has_room(number: int) -> bool:
    return all(is_free(Endpoint("tcp", "127.0.0.1", usual_port(key, number))) for key in PORTS)


def _beside(open_it: Callable[[], T]) -> T:
    """What ``open_it`` returns. A disk may take its time over it: meanwhile it is heard when the end is asked for."""
    opened: Future[T] = Future()

    def work() -> None:
        try:
            opened.set_result(open_it())
        except BaseException as error:  # raised where the result is awaited
            opened.set_exception(error)

    threading.Thread(target=work, name="opening", daemon=True).start()
    while not wait([opened], ending.LOOK_S).done:
        ending.check()
    return opened.result()


def pace_of(config: Config) -> Pace:
    return Pace(config.batch.largest, config.batch.wait_s)


def _guarded(config: Config, metrics: Metrics, closing: ExitStack) -> Allowed | None:
    """Who may come from other machines, where an address is bound that they can reach. Raises UserError 78."""
    if not config.open_endpoints:
        return None
    allowed = Allowed(read(config.own_key, "keys.secret"), config.allow, metrics.clients_refused.inc)
    closing.callback(allowed.close)
    allowed.start()
    return allowed


def _speak(
    config: Config, report: StatusReport, guard: Guard, metrics: Metrics, closing: ExitStack, allowed: Allowed | None
) -> Publisher:
    publisher = Publisher(
        config.ledger_file,
        config.instrument,
        publish=config.publish,
        replay=config.replay,
        status=report.data,
        pulse=guard.pulse,
        counts=metrics,
        allowed=allowed,
        told=answers_of(config.state / "labels.sqlite"),
    )
    publisher.start()
    closing.callback(publisher.stop)
    report.publish, report.replay = publisher.publish_endpoint, publisher.replay_endpoint
    report.local_key = None if allowed is None else allowed.local
    leave(config.state, report.publish, report.replay, report.started_at, report.local_key)
    closing.callback(forget, config.state)
    note(config)
    return publisher


def _measure(
    config: Config, metrics: Metrics, judge: Judge, report: StatusReport, vigil: Vigil, closing: ExitStack
) -> None:
    metrics.serving(judge)
    metrics.selftest_pass.set(1)  # a model that fails it never comes this far
    if (newest_s := report.newest_s()) is not None:  # of the service before: a restart is no new beginning of the night
        metrics.last_decision.set(newest_s)
    metrics.ask(metrics.review_queue, report.waiting)
    metrics.watch_sources(vigil.sources)
    ledger = config.ledger_file
    files = {"ledger": ledger, "ledger-wal": ledger.with_name(f"{ledger.name}-wal")}
    metrics.watch_files({**files, "labels": config.state / "labels.sqlite", "spool": config.state / SPOOL})
    home = snapshot.home_of(config.state, config.space.snapshot_to, config.instrument)
    metrics.ask(metrics.snapshot, partial(snapshot.newest_s, home), keep_s=60.0)
    if (server := metrics.serve(config.metrics_port, config.metrics)) is not None:
        stop: Callable[[], None] = server.shutdown
        closing.callback(stop)
