"""`doctor`: looks at everything the service will need, and says of each problem what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import zmq
from rich.text import Text

from daemon import __version__
from daemon.client.feed import ask_status
from daemon.client.folders import is_share, names_in, standings
from daemon.client.service_file import find
from daemon.common.errors import UNREACHABLE, UserError
from daemon.common.keys import allowed_in, read
from daemon.common.mounts import lacks_share, local, mount_of, planned_mount, watched_mount
from daemon.common.options import Option
from daemon.common.sockets import Endpoint, is_free
from daemon.common.stdio import as_json
from daemon.common.text import clean, page, size
from daemon.config import NOWHERE, Config, Flags, Keys, load
from daemon.formats import NAMES
from daemon.notify.channels import channels_of, noted
from daemon.screens import BAD, KEEP, QUIET, REVIEW, Printer
from daemon.sources import Ignored, words
from models.clock import minute_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("watch", "state", "instrument", "model", "device")]
    json: Annotated[bool, Option("the same as one JSON object")] = False


def run(options: Options) -> int:
    """Exit 0 when nothing stands in the way, 69 when something does."""
    printer = Printer()
    findings = []
    for finding in examine(load(options.service, needs_state=False)):
        findings.append(finding)
        if not options.json:
            printer.print(line(finding))
    if options.json:
        print(as_json({"ok": is_well(findings), "findings": [asdict(one) for one in findings]}, indent=1))
    return 0 if is_well(findings) else UNREACHABLE


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``note``: good to know; ``problem``: ``advice`` says what to do about it."""

    topic: str
    level: Literal["ok", "note", "problem"]
    text: str
    advice: str = ""


# The engines: what could run the network here, what would, and whether it computes rightly.

_DRIVER = Path("/proc/driver/nvidia/version")


def engines(config: Config) -> Iterator[Finding]:
    """The whole way: every hash of the model, the best engine for it, and known curves judged right."""
    yield _gpu()
    try:
        from daemon.judging.judge import load_model, release, wish_of

        request = wish_of(config)
        yield _catalogue()
        begun_s = time.monotonic()
        model = load_model(config.model, request, config.state / "models")
    except (UserError, ImportError) as error:
        if isinstance(error, UserError) and error.exit_code == UNREACHABLE:
            yield Finding("engine", "problem", clean(str(error)), _instead(config))
            return
        yield Finding("model", "problem", clean(str(error)), "name another with --model, or install afm-triage again")
        return
    release(model)
    yield Finding("model", "ok", f"{model.id}: every hash is right ({time.monotonic() - begun_s:.1f} s to load)")
    for why in model.passed_over:
        advice = "see that nothing else uses the device; without it the next engine serves, with the same verdicts"
        yield Finding("engine", "problem", clean(why), advice)
    cores = len(os.sched_getaffinity(0))
    yield Finding("engine", "ok", f"{model.engine} would serve, on {cores} cores; known curves are judged right")


def _instead(config: Config) -> str:
    """What to do where nothing here can serve what the configuration asks for."""
    from deploy.openvino_engine import how

    wanted = {
        "device": config.device,
        "[engine] name": config.engine.name,
        "[engine] precision": config.engine.precision,
    }
    asked = [key for key, value in wanted.items() if value != "auto"]
    leave = f"leave {' and '.join(asked)} out, and the best engine that is here judges"
    if config.engine.precision != "int8":
        return leave
    return f"{how(config.model, config.state / 'engines')} (DIR: at least 100 curves of your own), or {leave}"


def _catalogue() -> Finding:
    from deploy.classifier import ANY
    from deploy.engines import ENGINES

    refusals = {engine.name: engine.refuses(ANY) for engine in ENGINES}
    usable = [name for name, why in refusals.items() if why is None]
    others = [f"{name}: {why}" for name, why in refusals.items() if why is not None]
    return Finding("engines", "ok", "; ".join([f"{', '.join(usable)} can be used", *others]))


def _gpu() -> Finding:
    if not _DRIVER.exists():
        return Finding("gpu", "ok", "no NVIDIA driver; the processor judges")
    found = _DRIVER.read_text(errors="replace").splitlines()[0]
    try:
        is_cpu_build = "+cpu" in version("torch")
    except PackageNotFoundError:
        is_cpu_build = False
    if is_cpu_build:
        return Finding("gpu", "note", f"{found}, but torch is its CPU build ({page('engines')}); the processor judges")
    return Finding("gpu", "ok", found)


# The symptoms: each examination of the machine, one function a topic.

#: Below, a full night of curves could end with a full disk.
LITTLE_SPACE_BYTES = 1_000_000_000
#: Folders that are counted before the doctor says "many".
MANY_FOLDERS = 20_000
#: Of a watched folder the doctor looks at so many names, for so long: on a share each costs a while.
MANY_FILES, LOOK_S = 50_000, 2.0


def versions() -> Iterator[Finding]:
    """What judges and what it stands on."""
    yield Finding("afm-triage", "ok", f"{__version__} in {Path(__file__).parents[1]}")
    yield _python()
    names = ("torch", "numpy", "watchdog", "rich", "prometheus-client", "safetensors", "h5py")
    found = {name: _version(name) for name in names}
    missing = [name for name, its in found.items() if its is None]
    text = ", ".join(f"{name} {its}" for name, its in found.items() if its) + f", ZeroMQ {zmq.zmq_version()}"
    advice = f"install what is missing ({', '.join(missing)}): pip install afm-triage" if missing else ""
    yield Finding("packages", "problem" if missing else "ok", text, advice)
    yield _sqlite()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _python() -> Finding:
    text = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2):
        text += "; its zip module accepts overlapping entries (CVE-2024-0450), the readers here refuse them"
        return Finding("python", "note", text)
    return Finding("python", "ok", text)


def _sqlite() -> Finding:
    number = sqlite3.sqlite_version_info
    fixed = {(3, 44): 6, (3, 50): 7, (3, 51): 3}  # the first patch of each line of releases that has no such bug
    if number >= (3, 52) or number[2] >= fixed.get(number[:2], 1000):
        return Finding("sqlite", "ok", sqlite3.sqlite_version)
    text = "has the WAL-reset bug, which needs two writers; this service is the only one of its ledger"
    return Finding("sqlite", "note", f"{sqlite3.sqlite_version} {text}; never write into it with another program")


def package_owners() -> Iterator[Finding]:
    """`daemon`, `models` and `deploy` are plain names, and pip overwrites without a word."""
    owners = packages_distributions()
    for name in ("daemon", "models", "deploy"):
        others = sorted(set(owners.get(name, ())) - {"afm-triage"})
        if others:
            text = f"the package {name} is also owned by {', '.join(others)}"
            yield Finding("names", "problem", text, f"pip uninstall {' '.join(others)}, then install afm-triage again")
            return
    yield Finding("names", "ok", "nobody else owns the packages daemon, models, deploy")


def inotify(config: Config) -> Iterator[Finding]:
    """Each folder below a watched one costs one watch of the user's."""
    limits = {name: _limit(name) for name in ("max_user_watches", "max_user_instances", "max_queued_events")}
    text = ", ".join(f"{name} {limit:,}" for name, limit in limits.items() if limit is not None)
    if limits["max_user_watches"] is None:
        yield Finding("inotify", "note", "not available here; new files are found by the scans alone")
        return
    local = [folder for folder in config.watch if is_heard(folder, config) and not is_share(folder)]
    folders = sum(1 for folder in local for _ in islice(os.walk(folder), MANY_FOLDERS))
    if folders > 0.8 * limits["max_user_watches"]:
        advice = f"sudo sysctl fs.inotify.max_user_watches={max(524288, 4 * folders)}, and the same in /etc/sysctl.d/"
        yield Finding("inotify", "problem", f"{text}; the watched folders need {folders:,} watches", advice)
    elif (limits["max_user_instances"] or 0) < 16:
        yield Finding("inotify", "problem", text, "sudo sysctl fs.inotify.max_user_instances=128")
    else:
        yield Finding("inotify", "ok", f"{text}; {folders:,} needed" if local else text)


def _limit(name: str) -> int | None:
    try:
        return int(Path("/proc/sys/fs/inotify", name).read_text())
    except (OSError, ValueError):
        return None


def is_heard(folder: Path, config: Config) -> bool:
    """Whether inotify is asked about it."""
    return not watched_mount(folder, config.mounts_of(folder)).is_network


def watched_folders(config: Config) -> Iterator[Finding]:
    """There, readable, and on what."""
    standing = standings(config.watch)
    for folder in config.watch:
        named = clean(str(folder))
        how = f"{watched_mount(folder).fstype}, "
        how += "local: inotify and scans" if is_heard(folder, config) else "network: scanned"
        if standing[folder] == "silent":
            advice = "is its server on? the service goes on with its other folders and takes this one up again"
            yield Finding("watch", "problem", f"{named} does not answer; looked no further ({how})", advice)
        elif standing[folder] == "missing":
            advice = "mount or make it, or correct watch; the service waits for it meanwhile"
            yield Finding("watch", "problem", f"{named} is not there ({how})", advice)
        elif standing[folder] == "file":
            advice = "name the folder that curves are saved into"
            yield Finding("watch", "problem", f"{named} is a file", advice)
        elif config.mounts_of(folder) == "network" and lacks_share(folder):
            advice = f'mount it: mount {named}; if it is no share, take mounts = "network" away'
            yield Finding("watch", "problem", f"{named} is configured as a share, and nothing is mounted there", advice)
        elif (point := planned_mount(folder)) is not None:
            advice = f"mount {point}; the service judges what it finds there once it is mounted"
            yield Finding("watch", "problem", f"{named}: /etc/fstab mounts {point}, and it is not mounted", advice)
        elif standing[folder] == "closed":
            advice = f"give this user read permission: setfacl -R -m u:{os.getuid()}:rX {folder}"
            yield Finding("watch", "problem", f"{named} may not be read by this user", advice)
        else:
            yield Finding("watch", "ok", f"{named} ({how})")
            yield _content(folder)
    if not config.watch:
        yield Finding("watch", "note", "no folder named; give --config FILE to have its folders looked at")


def _content(folder: Path) -> Finding:
    """What a first look finds, by the names alone: of text only a reader can say what it is."""
    begun_s, found, ignored, is_cut = time.monotonic(), 0, Ignored(), False
    for number, (name, oddity) in enumerate(names_in(folder)):
        if is_cut := number >= MANY_FILES or time.monotonic() - begun_s > LOOK_S:
            break
        reason = oddity or NAMES.why_ignored(name)
        found += reason is None
        if reason is not None:
            ignored.note(reason, name)
    what = "1 file that may be a curve" if found == 1 else f"{found:,} files that may be curves"
    text = f"{folder}: {what}" + (" in the part that was looked at" if is_cut or is_share(folder) else "")
    told = words(ignored.kinds)
    text += f"; ignored: {told}" if told else ""
    if found or not ignored.total:
        return Finding("files", "ok", clean(text))
    advice = f"is this the folder that the curves are saved into? {page('files')} names the kinds"
    return Finding("files", "note", clean(text), advice)


def state_folder(config: Config) -> Iterator[Finding]:
    """Writable, with room, and on a disk that SQLite can trust."""
    state = config.state
    if state == NOWHERE:
        yield Finding("state", "note", "this user has no home folder for it; give run and status --state DIR")
        return
    mount = mount_of(state)
    if mount.is_network:  # never touched: it may not answer
        advice = "give --state a folder on a local disk: SQLite's write-ahead log does not work over a network"
        yield Finding("state", "problem", f"{state} is on a network share ({mount.fstype})", advice)
        return
    nearest = next(folder for folder in (state, *state.parents) if folder.is_dir())
    free_bytes = shutil.disk_usage(nearest).free
    text = f"{state} ({mount.fstype}, {size(free_bytes)} free)"
    if not os.access(nearest, os.W_OK | os.X_OK):
        advice = f"sudo chown {os.getuid()} {nearest}, or give --state another folder"
        yield Finding("state", "problem", f"{text} may not be written by this user", advice)
    elif free_bytes < LITTLE_SPACE_BYTES:
        yield Finding("state", "problem", f"{text} is nearly full", "free some space, or give --state another disk")
    else:
        yield Finding("state", "ok", text)


def ports(config: Config) -> Iterator[Finding]:
    """Free, or taken by the very service that was asked about."""
    if mount_of(config.state).is_network:
        yield Finding("ports", "note", "not looked at: where a service speaks stands in the state folder")
        return
    where = find(config)
    event = ask_status(where.replay, timeout_s=1.0, key=where.key)
    if event is not None and event["data"].get("instrument") == config.instrument:
        pid = event["data"].get("pid")
        yield Finding("ports", "ok", f"{config.instrument} is running as process {pid} and answers")
        for why in event["data"].get("engine_reasons") or []:
            advice = "nothing is lost by it; curves take longer until the device is well"
            yield Finding("engine", "problem", clean(f"running on {event['data'].get('engine')}: {why}"), advice)
        return
    named = {"publish": config.publish, "replay": config.replay, "ingest": config.ingest}
    places = {key: (text, Endpoint.parse(text)) for key, text in named.items() if text}
    wanted = {key: place for key, (_, place) in places.items() if place.port}
    if config.metrics_port:
        wanted["metrics_port"] = Endpoint("tcp", "127.0.0.1", config.metrics_port)
    taken = {key: place.port for key, place in wanted.items() if not is_free(place)}
    for key, port in taken.items():
        advice = f"stop the program that has it (ss -ltnp 'sport = :{port}'), or give --{key.replace('_', '-')} another"
        yield Finding("ports", "problem", f"port {port} of {key} is taken", advice)
    if not taken:
        yield Finding("ports", "ok", ", ".join(f"{key} {place.port}" for key, place in wanted.items()) + " are free")


def said_of_keys(config: Config) -> tuple[bool, str]:
    """Whether all is well, and what other machines can reach and who of them is let in; no file of a share is read."""
    if not (places := config.open_endpoints):
        return True, "asks nobody for a key: only this computer can reach what it publishes"
    if local(config.allow) is None or local(config.own_key) is None:
        return False, f"keeps its keys on a network share ({config.allow}), which may not answer"
    try:
        own, names = read(config.own_key, "keys.secret"), sorted(allowed_in(config.allow).values())
    except (UserError, OSError) as error:
        return False, f"its keys cannot be read: {error}"
    asks = f"at {', '.join(places)} other machines are asked for a key (the service's own is {own.public})"
    if not names:
        return False, f"{asks}, and nobody may listen: afm-triage keys new NAME"
    return True, f"{asks}; {', '.join(names)} may listen, by {config.allow}"


def protection(config: Config) -> Iterator[Finding]:
    """Keys, for what other machines can reach."""
    is_well, said = said_of_keys(config)
    yield Finding("keys", "ok" if is_well else "note", clean(said))


def messages(config: Config) -> Iterator[Finding]:
    """Who is told of an alarm, and whether a message last arrived; nothing is sent."""
    channels = channels_of(config.notify)
    if not channels:
        yield Finding("messages", "note", "no person is told of an alarm: [notify] in the configuration names nobody")
        return
    last = noted(config.state)
    for name, channel in channels.items():
        told = last.get(name)
        try_it = "afm-triage notify --test, with the same --config"
        if told is None:
            yield Finding("messages", "note", f"{channel}: nothing was sent yet; try it: {try_it}")
        elif told["is_sent"]:
            yield Finding("messages", "ok", f"{channel}: the last message was taken {minute_of(told['time'])}")
        else:
            text = f"{channel}: the last message, {minute_of(told['time'])}, did not arrive: {told['text']}"
            yield Finding("messages", "problem", clean(text), f"mend it, then try: {try_it}")


_MARKS = {"ok": ("✓", KEEP), "note": ("·", REVIEW), "problem": ("✗", BAD)}


def examine(config: Config) -> Iterator[Finding]:
    """Every finding, as it is made; the slow ones (torch, the model) come last."""
    yield from versions()
    yield from package_owners()
    yield from inotify(config)
    yield from watched_folders(config)
    yield from state_folder(config)
    yield from ports(config)
    yield from protection(config)
    yield from messages(config)
    yield from engines(config)


def line(finding: Finding) -> Text:
    """One finding, and what to do when it is a problem."""
    mark, style = _MARKS[finding.level]
    advice = (f"\n            → {finding.advice}" if finding.advice else "", "bold")
    return Text.assemble((f"{mark} ", style), (f"{finding.topic:<9} ", QUIET), finding.text, advice)


def is_well(findings: Sequence[Finding]) -> bool:
    """No problem; notes are nothing to act on."""
    return all(one.level != "problem" for one in findings)
