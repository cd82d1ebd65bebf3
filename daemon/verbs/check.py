"""`check`: what a configuration will do, and every error in it at once."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from daemon.client.folders import Standing, standings
from daemon.common import keys
from daemon.common.errors import BAD_CONFIG, UserError, grouped
from daemon.common.mounts import lacks_share, local, mount_of, planned_mount, watched_mount
from daemon.common.options import Option
from daemon.common.sockets import is_loopback
from daemon.common.stdio import as_json
from daemon.common.text import clean, duration, latency, size
from daemon.config import HOMELESS, NOWHERE, Config, ConfigError, Flags, load, values
from daemon.config.origin import usual_port
from daemon.judging.registry import Registry
from daemon.verbs.doctor import LITTLE_SPACE_BYTES, said_of_keys
from deploy.classifier import EngineRequest, NoEngine
from deploy.engines import ENGINES, candidates
from models.bundle import BadBundle, certificate_in, read
from models.clock import minute_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    config: Annotated[str, Option("TOML file of the instrument", "FILE", is_positional=True)]


def run(options: Options) -> int:
    """Exit 0 when `run` would take it (or, of who listens, `events`); 78 with one line an error otherwise."""
    try:
        config = _load(Flags(options.config))
    except ConfigError as error:
        if error.config.is_client:
            return _wrong(options.config, list(error.findings))
        return _wrong(options.config, [*error.findings, *_model_problems(error.config)])
    if config.is_client:
        return _client(options.config, config)
    if problems := _model_problems(config):
        return _wrong(options.config, problems)
    print(f"{clean(options.config)}: good")
    for sentence in describe(config):
        print(f"  {clean(sentence)}")
    _resolved(config, values(config))
    return 0


def _load(flags: Flags) -> Config:
    """As `run` would take it, or as who listens would. Raises ConfigError."""
    try:
        return load(flags, serves=True, looks=True, needs_state=False)
    except ConfigError as error:
        if not error.config.is_client:
            raise
    return load(flags, needs_state=False)


def _resolved(config: Config, wanted: Mapping[str, Any]) -> None:
    print("\nresolved values")
    for key, value in wanted.items():
        origin = config.origins.get(key, "default")
        print(f"  {key} = {'(none)' if value is None else as_json(value)}  # {origin}")


def _client(file: str, config: Config) -> int:
    """What the file of another computer says: a key, and nothing to judge."""
    try:
        key = keys.read_client(config.key or NOWHERE, "key")
    except UserError as error:
        return _wrong(file, [str(error)])
    name = clean(file)
    print(f"{name}: good, for who listens (afm-triage events --follow --config {name}); it judges nothing")
    print(f"  listens to the service of {config.instrument} at {config.publish}, and asks {config.replay} for history")
    print(f"  shows the key {clean(key.name)} of {clean(str(config.key))}, and trusts only the service of {key.server}")
    _resolved(config, {key: values(config)[key] for key in ("instrument", "publish", "replay", "key")})
    return 0


def _wrong(file: str, findings: list[str]) -> int:
    print(f"{clean(file)}: {len(findings)} to correct", file=sys.stderr)
    for finding in grouped(findings):
        print(f"  ✗ {clean(finding)}", file=sys.stderr)
    return BAD_CONFIG


def _model_problems(config: Config) -> list[str]:
    """Why `run` could not take the model that is named: not there, not as its manifest says, or at odds with a key."""
    try:
        bundle = read(_folder_of(config))
    except BadBundle as error:
        return [f"model: {error}"]
    except OSError as error:
        return [f"model: {config.model} cannot be read ({error.strerror}); give this user read permission"]
    given = config.thresholds
    if (given.discard is None) != (given.keep is None):  # of both the configuration itself says that
        discard = bundle.discard if given.discard is None else given.discard
        keep = bundle.keep if given.keep is None else given.keep
        if not discard < keep:
            return [f"thresholds: discard ({discard:g}) must lie below keep ({keep:g}), where one is the model's own"]
    return []


def _folder_of(config: Config) -> Path:
    return Registry(_models(config)).find(config.model)


def _models(config: Config) -> Path:
    """Where the laboratory's own models lie; nowhere where that is a share, which may not answer and is told of."""
    return (NOWHERE if local(config.state) is None else config.state) / "models"


def describe(config: Config) -> list[str]:
    """What a configuration will do, in words that the person at the microscope understands; ▲: needs attention."""
    sentences = [f"the instrument is called {config.instrument}; its topics begin with afm.{config.instrument}"]
    sentences += [_watching(folder, standing, config) for folder, standing in standings(config.watch).items()]
    sentences += [rule.sentence() for rule in config.text]
    if config.ingest:
        sentences.append(f"takes curves over ZeroMQ at {config.ingest}; each is answered once it is on disk")
    sentences.append(_judging(config))
    sentences += _promoted(config)
    sentences.append(_thresholds(config))
    if config.require_certificate:
        sentences.append(_certificate(config))
    batch = config.batch
    sentences.append(f"takes up to {batch.largest} curves a batch; a lone one waits {latency(batch.wait_s)} at most")
    sentences.append(f"publishes at {config.publish}, replays history at {config.replay}")
    is_well, said = said_of_keys(config)
    sentences.append(said if is_well else f"▲ {said}")
    sentences.append(_metrics(config))
    sentences.append(_page(config))
    sentences.append(_state(config.state))
    sentences.append(_space(config))
    sentences.append(
        f"raises an alarm after {config.alarm.no_contact_run} curves in a row that do not reach the surface"
    )
    sentences.append(_silence(config))
    sentences.append(_person(config))
    sentences.append(_canaries(config))
    sentences.append(_pile(config))
    if config.watch:
        sentences.append(_unread(config))
    sentences.append(_learning(config))
    return sentences


def _metrics(config: Config) -> str:
    metrics, port = config.metrics, config.metrics_port
    if not port:
        return "metrics are off"
    host = f"[{metrics.bind}]" if ":" in metrics.bind else metrics.bind
    said = f"metrics at {'https' if metrics.certificate_file else 'http'}://{host}:{port}/metrics"
    if metrics.token_file is None:
        return said
    said += f", for whoever shows the token in {metrics.token_file}"
    is_open = not is_loopback(metrics.bind) and metrics.certificate_file is None
    return f"▲ {said}, which can be read on the way: [metrics] certificate_file is TLS" if is_open else said


def _page(config: Config) -> str:
    from daemon.review.request import page_token

    review = config.review
    said = f"shows the review page at {review.bind}:{usual_port('review', config.number)}"
    if review.token_file is None:
        return said if is_loopback(review.bind) else f"{said}, for whoever shows the token that it makes"
    try:
        page_token(review.token_file, "review.token_file")
    except UserError as error:
        return f"▲ {said}, which will not start: {error}"
    return f"{said}, for whoever shows the token in {review.token_file}"


def _space(config: Config) -> str:
    space = config.space
    limits = [
        f"{what} at {size(limit)}"
        for what, limit in (("copies in the ledger", space.copies_bytes), ("the ingest spool", space.spool_bytes))
        if limit
    ]
    told = f"raises an alarm {duration(space.full_s)} before the disk of the state is full" if space.full_s else ""
    kept = f"keeps {space.snapshots} snapshots in {space.snapshot_to or config.state / 'snapshots'}, where a timer asks"
    held = f"holds {' and '.join(limits)}, by discards that nobody waits for" if limits else ""
    return "; ".join(filter(None, [told, held, kept]))


def _learning(config: Config) -> str:
    order = "the network's score" if config.review.order == "score" else "a head on your labels, from 8 of them on"
    is_plain = config.review.order == "score" or config.review.features == "none"
    features = "" if is_plain else f" ({config.review.features} features)"
    return (
        f"shows the pile in the order of {order}{features}; `finetune` teaches the network itself from"
        f" {config.finetune.events:,} confirmed events on"
    )


def _canaries(config: Config) -> str:
    guard = config.guard
    if not guard.canaries:
        return "sends no simulated curves down the line; [guard] canaries = true does, and tells whether it works"
    return (
        f"sends a simulated curve down the line every {duration(guard.canary_s)} while curves come and every"
        f" {duration(guard.canary_rest_s)} at rest, and raises an alarm when too many are missed; none is ever counted"
    )


def _pile(config: Config) -> str:
    if config.review.order == "score":
        return 'shows the review queue by score, whatever is labelled; [review] order = "head" lets labels order it'
    features = "" if config.review.features == "none" else f" on features by {config.review.features}"
    return f"shows the review queue in the order that labels teach{features}, once there are enough of both kinds"


def _person(config: Config) -> str:
    from daemon.notify.channels import NotSent, channels_of, noted, secret_in

    told, channels = config.notify, channels_of(config.notify)
    if not channels:
        return "tells no person of an alarm; [notify] does, by mail, ntfy or a webhook"
    try:
        for key in ("password_file", "ntfy_token_file"):
            if (file := getattr(told, key)) is not None:
                secret_in(file, key)
    except NotSent as error:
        return f"▲ can tell no person of an alarm: {error}"
    more = {"alarm": "", "degraded": " or a trouble", "advice": ", a trouble or advice"}[told.level]
    which = f" on {', '.join(told.kinds)}" if told.kinds else ""
    last = [one["time"] for one in noted(config.state).values() if one.get("is_sent")]
    arrived = f"the last message was taken {minute_of(max(last))}" if last else "try it with: afm-triage notify --test"
    return (
        f"tells a person of an alarm{more}{which} by {', '.join(map(str, channels.values()))}, at most"
        f" {told.most_a_night} times a night for each kind; {arrived}"
    )


def _silence(config: Config) -> str:
    if config.alarm.silence_s:
        return f"raises an alarm when no curve came for {duration(config.alarm.silence_s)}"
    own = sum(config.silence_of(folder) > 0 for folder in config.watch)
    if own and own == len(config.watch):
        return "raises an alarm when no curve comes, for each folder as said above"
    return (
        f"raises no alarm while no curve comes{' into the other folders' if own else ''};"
        " [alarm] silence_s = 3600 raises one after an hour"
    )


def _watching(folder: Path, standing: Standing, config: Config) -> str:
    source, kind = config.source, watched_mount(folder).fstype
    how = (
        f"{kind}, a scan every {source.rescan_network_s:g} s because shares do not tell of changes"
        if watched_mount(folder, config.mounts_of(folder)).is_network
        else f"{kind}, inotify + scan every {source.rescan_local_s:g} s"
    )
    if (trouble := _trouble(folder, standing, config)) is not None:
        return f"▲ watches {folder} ({how}), {trouble}"
    silence_s = config.silence_of(folder)
    quiet = f"; an alarm when no curve came into it for {duration(silence_s)}" if silence_s else ""
    return f"watches {folder} ({how}), reads only; {_text(config)}{quiet}"


def _trouble(folder: Path, standing: Standing, config: Config) -> str | None:
    told = {
        "silent": "which does not answer; looked no further",
        "missing": "which is not there now; it is taken up when it comes",
        "file": "which is a file; name the folder that curves are saved into",
        "closed": "which this user may not read; give it read permission",
    }.get(standing)
    if standing == "there" and config.mounts_of(folder) == "network" and lacks_share(folder):
        told = "which is configured as a share, and nothing is mounted there: mount it"
    elif standing == "there" and (point := planned_mount(folder)) is not None:
        told = f"where /etc/fstab mounts {point}, and it is not mounted now"
    return told


def _text(config: Config) -> str:
    ended, unended = config.source.text_quiet_s, config.source.unended_s
    return (
        f"text files count as finished after {ended:g} s of rest,"
        f" without a line end after their last row after {max(ended, unended):g} s"
    )


def _unread(config: Config) -> str:
    if not config.alarm.unread_files:
        return "raises no alarm where the files that come into a folder are of no kind that is read"
    return (
        f"raises an alarm where {config.alarm.unread_files} files come into a folder and none is a kind that is read,"
        f" or {duration(config.alarm.unread_s)} after the first of them"
    )


def _judging(config: Config) -> str:
    what = f"judges with the model {config.model} on {_device(config.device)}{_engine(config)}"
    if why := _lacking(config):
        return f"▲ {what}, which this machine does not have: run will refuse; {why}"
    return f"{what}{_deadline(config)}"


def _promoted(config: Config) -> list[str]:
    """What serves in the place of the configured model, or why something promoted does not."""
    from daemon.judging.judge import choose

    with suppress(BadBundle):  # that is told already
        chosen = choose(config.model, _models(config), config.thresholds)
        if (one := chosen.promotion) is not None:
            sample = f" for the sample {one.group}" if one.group else ""
            return [f"in its place {one.id} serves{sample}, promoted {one.time} by {one.by}: {one.why}"]
        return [f"▲ {chosen.passed_over}"] if chosen.passed_over else []
    return []


def _lacking(config: Config) -> str | None:
    """Why the engine that was asked for cannot run here."""
    if (config.device, config.engine.name, config.engine.precision) == ("auto", "auto", "auto"):
        return None  # torch on the processor is always there
    from daemon.judging.judge import wish_of
    from deploy.openvino_engine import find

    wish = wish_of(config)
    try:
        list(candidates(wish))
        if wish.precision == "int8":
            find(read(_folder_of(config)), wish.cache)
    except NoEngine as error:
        return str(error)
    except BadBundle:
        pass  # of that `run` tells
    return None


def _device(device: str) -> str:
    return {"auto": "the best device there is", "cpu": "the CPU", "cuda": "the GPU"}[device]


def _engine(config: Config) -> str:
    engine = config.engine
    wanted = [part for part in (engine.name, engine.precision) if part != "auto"]
    return f", by {' in '.join(wanted)} alone" if wanted else ""


def _deadline(config: Config) -> str:
    engine = config.engine
    wish = EngineRequest(config.device, engine.name, engine.precision)
    if not any(one.device == "cuda" and one.differs(wish) is None for one in ENGINES):
        return ""
    return f"; what a GPU does not answer in {engine.deadline_s:g} s, the CPU judges"


def _thresholds(config: Config) -> str:
    discard, keep = config.thresholds.discard, config.thresholds.keep
    if discard is None and keep is None:
        return "takes the thresholds of the model"
    own = "the model's own"
    return (
        f"▲ takes thresholds of yours: discard at {own if discard is None else f'{discard:g}'} and below,"
        f" keep at {own if keep is None else f'{keep:g}'} and above;"
        " a certificate covers no discard threshold above the model's own"
    )


def _certificate(config: Config) -> str:
    from daemon.judging.judge import choose

    rule = "discards only under a certificate; without one a would-be discard becomes review"
    try:
        found = certificate_in(choose(config.model, config.state / "models", config.thresholds).folder)
    except BadBundle as error:
        return f"▲ {rule}; {error}"
    if found is None:
        return f"{rule}, and the model has none: nothing is discarded until `afm-triage calibrate` has earned it"
    return f"{rule}; the model has one: {found.sentence()}, judged by {found.engine}"


def _state(state: Path) -> str:
    if state == NOWHERE:
        return f"▲ run will refuse to start, as nobody names the folder of ledger and labels: {HOMELESS}"
    if (kind := mount_of(state)).is_network:
        return f"▲ keeps ledger and labels in {state}, a network share ({kind.fstype}): SQLite needs a local disk"
    nearest = next(folder for folder in (state, *state.parents) if folder.exists())
    if shutil.disk_usage(nearest).free < LITTLE_SPACE_BYTES:
        return f"▲ keeps ledger and labels in {state}, on a disk that is nearly full"
    if not os.access(nearest, os.W_OK):
        return f"▲ keeps ledger and labels in {state}, where this user may not write"
    return f"keeps ledger and labels in {state}" + ("" if state.is_dir() else " (made at the first start)")
