"""`events`: decisions as JSON lines, gap-free; from the running service, or from its ledger when it is down.

With ``--to`` they go into tables instead, of one instrument or of many, with labels and sessions beside them.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from daemon.client.feed import PATIENCE, Feed, SilenceLimit, Silent, ask_status, patience_of, seconds, why_deaf
from daemon.client.folders import refuse_watched
from daemon.client.service_file import Place, ServiceFile, find, read_places
from daemon.common.errors import UNREACHABLE, USAGE, UserError, need_folder
from daemon.common.options import Group, Option
from daemon.common.stdio import write_bytes
from daemon.common.text import clean, many
from daemon.config import Config, Flags, Keys, load
from daemon.judging import VERDICTS
from daemon.ledger.events import instrument_of, kind_of
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event, decode, encode
from daemon.tables import LABELS, SESSIONS, need

if TYPE_CHECKING:
    from daemon.tables.collector import Tables

TABLES = ("parquet", "duckdb")
_TABLES = Group("into tables")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    since: Annotated[int | None, Option("begin behind this seq; 0 is the whole history", "SEQ", unless="now")] = None
    follow: Annotated[bool, Option("go on with what comes; ends with Ctrl-C")] = False
    verdict: Annotated[str | None, Option("only these decisions", choices=VERDICTS)] = None
    service: Annotated[Flags, Keys("state", "instrument", "publish", "replay", "key")]
    patience: Annotated[float | None, PATIENCE] = None
    to: Annotated[str | None, Option("into tables instead, all of them, each once", choices=TABLES, group=_TABLES)] = (
        None
    )
    out: Annotated[
        Path | None, Option("of parquet the folder, of duckdb the file; there already: goes on", "PATH", group=_TABLES)
    ] = None
    instruments: Annotated[
        Path | None, Option("TOML: of each a table [NAME] with publish, replay, key", "FILE", group=_TABLES)
    ] = None
    every: Annotated[
        float | None,
        Option("write so often while curves come", "SECONDS", parse=seconds, unless="10 or 5", group=_TABLES),
    ] = None


def run(options: Options) -> int:
    if options.to is not None or options.out is not None or options.instruments is not None:
        return _into_tables(options)
    if options.since is not None and options.since < 0:
        raise UserError(USAGE, "--since counts from 0: 0 is the whole history")
    if options.since is None and not options.follow:
        print("nothing to print: --since 0 is the history, --follow waits for what comes", file=sys.stderr)
    config = load(options.service)
    place, ledger = find(config), _ledger_of(config, options.service)
    other = _stranger(config, place)
    if other is None:
        found = _events(place, ledger, options)
    elif ledger is not None and not options.follow and _is_of_another(ledger, other):
        found = _stored(ledger, options.since)
    else:
        raise _another(other, place, config)
    for event in found:
        if options.verdict in (None, event["data"]["verdict"]):
            write_bytes(encode(event) + b"\n")
    return 0


def _ledger_of(config: Config, service: Flags) -> Path | None:
    """The one on this computer, which may be read while its service is down; None where that is not meant."""
    is_elsewhere = _looks_elsewhere(service) or (config.key is not None and "state" not in config.origins)
    return None if is_elsewhere else config.ledger_file


def _another(other: Event, place: ServiceFile, config: Config) -> UserError:
    name, wanted = clean(instrument_of(other)), config.instrument
    what = f"{name} answers at {place.replay}, not {wanted}"
    return UserError(UNREACHABLE, f"{what}: start the service of {wanted}, or give its --config, --state or --replay")


def _stranger(config: Config, place: ServiceFile) -> Event | None:
    """The status of the service that answers, where an instrument was named and this one is of another."""
    if "instrument" not in config.origins:
        return None
    event = ask_status(place.replay, key=place.key)
    return None if event is None or event.get("source") == f"/{config.instrument}" else event


def _is_of_another(ledger: Path, stranger: Event) -> bool:
    """Whether there is a ledger, and the stranger does not write it: then it is that of the service that is down."""
    if not ledger.exists():
        return False
    with LedgerView(ledger) as view:
        return view.stream != stranger.get("stream")


def _looks_elsewhere(service: Flags) -> bool:
    """Endpoints alone name a service that may be anywhere: the ledger of this machine is then not meant."""
    return bool(service.keys) and not (service.file or service.keys.keys() & {"state", "instrument"})


def _events(place: ServiceFile, ledger: Path | None, options: Options) -> Iterator[Event]:
    stream, since = None, options.since
    silence = SilenceLimit(patience_of(options.patience), place.replay, place.key)
    answer_s = 3.0 if place.is_alive or ledger is None else 1.0
    if options.patience is not None and (ledger is None or not ledger.exists()):
        answer_s = options.patience  # there is nothing else to read
    with Feed(place.publish, place.replay, since=since, answer_s=answer_s, key=place.key) as feed:
        try:
            for event in feed.history():
                since, stream = event["seq"], event["stream"]
                yield event
        except Silent:
            if why := why_deaf(place.replay, place.key):
                raise UserError(UNREACHABLE, why) from None
            if ledger is None or not ledger.exists():
                where = f"nothing answers at {place.replay}" + (f", and no ledger at {ledger}" if ledger else "")
                raise UserError(UNREACHABLE, f"{where}: start the service, or give --state or --replay") from None
        else:
            if options.follow:
                yield from _follow(feed, silence)
            return
    since, stream = yield from _stored(ledger, since)
    if options.follow:
        with Feed(place.publish, place.replay, since=since, stream=stream, key=place.key) as feed:
            yield from _follow(feed, silence)


def _stored(ledger: Path, since: int | None) -> Generator[Event, None, tuple[int, str]]:
    """The history from the file itself; where it ended, for whoever goes on from there."""
    with LedgerView(ledger) as view:
        last = view.last_seq if since is None else since
        while rows := view.since(last):
            yield from (decode(row.body) for row in rows)
            last = rows[-1].seq
        return last, view.stream


def _follow(feed: Feed, silence: SilenceLimit) -> Iterator[Event]:
    """Decisions as they come, also across restarts of the service, as long as it is not silent for too long."""
    while True:
        found = feed.read(1.0)
        silence.note(heard=bool(found))
        yield from (event for event in found if kind_of(event) == "decision")


def _into_tables(options: Options) -> int:
    if options.to is None or options.out is None:
        raise UserError(USAGE, "tables need both: --to parquet --out DIR, or --to duckdb --out FILE")
    if options.since is not None or options.verdict is not None:
        raise UserError(USAGE, "--since and --verdict do not go with --to: tables hold every decision, and go on")
    if options.instruments is not None and (options.service.file or options.service.keys or options.patience):
        raise UserError(USAGE, "--instruments says where its services are: leave --config and the like away")
    need("events --to", "tables", "pyarrow", *["duckdb"] * (options.to == "duckdb"))
    need_folder("--out", options.out)
    config = load(options.service)
    refuse_watched({"--out": options.out}, None if _looks_elsewhere(options.service) else config)
    from daemon.tables.collector import FileTables, FolderTables

    places = None if options.instruments is None else read_places(options.instruments)
    with FolderTables(options.out) if options.to == "parquet" else FileTables(options.out) as tables:
        tables.every_s = tables.every_s if options.every is None else options.every
        try:
            if places is not None:
                _collect(tables, places, options)
            else:
                _collect_one(tables, config, options)
        except KeyboardInterrupt:  # as --follow ends
            _tell(tables)
            raise
        _tell(tables)
    return 0


def _tell(tables: Tables) -> None:
    """What has come in this run; of labels and sessions all that there are now come anew each time."""
    labels, sessions = (sum(len(said[what]) for said in tables.said.values()) for what in (LABELS, SESSIONS))
    came = f"{many(tables.known.came, 'new decision')}, {many(labels, 'label')} and {many(sessions, 'session')}"
    print(clean(f"{came} in {tables.path}"), file=sys.stderr, flush=True)


def _collect_one(tables: Tables, config: Config, options: Options) -> None:
    place, ledger = find(config), _ledger_of(config, options.service)
    if (other := _stranger(config, place)) is not None:
        raise _another(other, place, config)
    name = config.instrument if "instrument" in config.origins else None
    _collect(tables, [Place(name, place.publish, place.replay, place.key)], options, ledger)


def _collect(tables: Tables, places: Sequence[Place], options: Options, ledger: Path | None = None) -> None:
    """``ledger``: of the one place, which is read where its service is down."""
    from daemon.tables.collector import Collector, take_stored

    is_one = options.instruments is None
    if ledger is not None and ledger.exists() and ask_status(places[0].replay, key=places[0].key) is None:
        with LedgerView(ledger) as view:
            take_stored(tables, view, ledger.with_name("labels.sqlite"))
        if not options.follow:
            return
    with Collector(tables, places) as collector:
        if options.follow:
            one = places[0]
            collector.follow(SilenceLimit(patience_of(options.patience), one.replay, one.key) if is_one else None)
        silent = collector.catch_up()
    if silent:
        said = "; ".join(silent.values() if is_one else (f"{name}: {why}" for name, why in silent.items()))
        raise UserError(UNREACHABLE, said if is_one else f"{said}; what the others have is in {options.out}")
