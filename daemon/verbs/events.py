"""`events`: decisions as JSON lines, gap-free; from the running service, or from its ledger when it is down."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from daemon.client.feed import PATIENCE, Feed, SilenceLimit, Silent, ask_status, patience_of, why_deaf
from daemon.client.service_file import ServiceFile, find
from daemon.common.errors import UNREACHABLE, USAGE, UserError
from daemon.common.options import Option
from daemon.common.stdio import write_bytes
from daemon.common.text import clean
from daemon.config import Config, Flags, Keys, load
from daemon.judging import VERDICTS
from daemon.ledger.events import kind_of
from daemon.ledger.view import LedgerView
from daemon.ledger.wire import Event, decode, encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    since: Annotated[int | None, Option("begin behind this seq; 0 is the whole history", "SEQ", unless="now")] = None
    follow: Annotated[bool, Option("go on with what comes; ends with Ctrl-C")] = False
    verdict: Annotated[str | None, Option("only these decisions", choices=VERDICTS)] = None
    service: Annotated[Flags, Keys("state", "instrument", "publish", "replay", "key")]
    patience: Annotated[float | None, PATIENCE] = None


def run(options: Options) -> int:
    if options.since is not None and options.since < 0:
        raise UserError(USAGE, "--since counts from 0: 0 is the whole history")
    if options.since is None and not options.follow:
        print("nothing to print: --since 0 is the history, --follow waits for what comes", file=sys.stderr)
    config = load(options.service)
    place = find(config)
    is_elsewhere = _looks_elsewhere(options.service) or (config.key is not None and "state" not in config.origins)
    ledger = None if is_elsewhere else config.state / "ledger.sqlite"
    other = _stranger(config, place)
    if other is None:
        found = _events(place, ledger, options)
    elif ledger is not None and not options.follow and _is_of_another(ledger, other):
        found = _stored(ledger, options.since)
    else:
        name, wanted = clean(str(other.get("source", "")).removeprefix("/")), config.instrument
        what = f"{name} answers at {place.replay}, not {wanted}"
        raise UserError(
            UNREACHABLE, f"{what}: start the service of {wanted}, or give its --config, --state or --replay"
        )
    for event in found:
        if options.verdict in (None, event["data"]["verdict"]):
            write_bytes(encode(event) + b"\n")
    return 0


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
