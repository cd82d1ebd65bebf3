"""The configuration: one strict TOML file an instrument, below the environment, below the flags.

Top-level keys are the flags of ``run`` with ``_`` for ``-``; what has no flag stands in one table a topic. In the
environment a key is ``AFM_TRIAGE_KEY``, one of a table ``AFM_TRIAGE_TABLE__KEY``. Every error is reported at once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from daemon.common.errors import BAD_CONFIG, USAGE, UserError, grouped
from daemon.common.mounts import MountSetting, holds, local, resolve
from daemon.common.options import Argument, Group, Option, Place
from daemon.common.sockets import Endpoint
from daemon.config.origin import (
    MOST_INSTRUMENTS,
    PORTS,
    Flags,
    Given,
    Homeless,
    default_state,
    from_environment,
    from_file,
    from_flags,
    share_with_group,
    usual_places,
)
from daemon.config.rule import (
    MONTH_S,
    Address,
    Choice,
    Folder,
    Folders,
    FolderSettings,
    FolderTables,
    ModelName,
    Name,
    NotifyConfig,
    Number,
    Rule,
    SecretUrl,
    SpaceConfig,
    Switch,
    TextRules,
)
from daemon.formats.text_rule import TextRule
from deploy.classifier import Device
from deploy.engines import NAMES, PRECISIONS

__all__ = [
    "Config",
    "ConfigError",
    "Flags",
    "Keys",
    "changes",
    "load",
    "values",
]

INSTRUMENT = "afm1"
#: The state of a verb that can do without one.
NOWHERE = Path("/nonexistent/afm-triage")
HOMELESS = "this user has no home folder to keep it in; give --state DIR, or set HOME or XDG_STATE_HOME"

_SERVICE = Group("which service")
_ENDPOINTS = Group("where it speaks")


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """``[source]``: how watched folders are looked at."""

    mounts: MountSetting = "auto"
    text_quiet_s: Annotated[float, Number(0.1, 600)] = 2.0  # a text file has no end mark: it must be still so long
    unended_s: Annotated[float, Number(0, 86400)] = 20.0  # the same without a line end after its last row
    rescan_local_s: Annotated[float, Number(0.5, 3600)] = 30.0
    rescan_network_s: Annotated[float, Number(0.5, 3600)] = 2.0
    give_up_s: Annotated[float, Number(1, 86400)] = 60.0  # an unfinished single curve, without growth
    give_up_map_s: Annotated[float, Number(1, 86400)] = 600.0
    zero_tail_s: Annotated[float, Number(0, 3600)] = 10.0  # right size, but the end still zeros


@dataclass(frozen=True, slots=True)
class ThresholdsConfig:
    """``[thresholds]``: None leaves the model's own, which its calibration has evidence for."""

    discard: Annotated[float | None, Number(0, 1)] = None
    keep: Annotated[float | None, Number(0, 1)] = None


@dataclass(frozen=True, slots=True)
class AlarmConfig:
    """``[alarm]``: when somebody should look at the instrument."""

    no_contact_run: Annotated[int, Number(1, 100_000, whole=True)] = 20  # curves in a row that miss the surface
    unread_files: Annotated[int, Number(0, 100_000, whole=True)] = 20  # came into a folder, none a kind that is read
    unread_s: Annotated[float, Number(1, 86400)] = 300.0  # or so long after the first of them; unread_files 0: never
    silence_s: Annotated[float, Number(0, MONTH_S)] = 0.0  # no curve came for so long; 0: an instrument may rest


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """``[batch]``: a lone curve is never held back longer than ``wait_s``."""

    wait_s: Annotated[float, Number(0, 0.1)] = 0.005
    largest: Annotated[int, Number(1, 1024, whole=True)] = 32


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """``[engine]``: what runs the network; auto is the best that passes its self-test on ``device``."""

    name: Annotated[str, Choice(NAMES)] = "auto"
    precision: Annotated[str, Choice(PRECISIONS)] = "auto"
    threads: Annotated[int, Number(0, 1024, whole=True)] = 0  # 0: the cores less one, which is the instrument's
    deadline_s: Annotated[float, Number(0.05, 4)] = 2.0  # a GPU that takes longer is wedged; the CPU answers in 5 s


@dataclass(frozen=True, slots=True)
class GuardConfig:
    """``[guard]``: simulated curves go down the line too, which tells whether it works; they are never counted."""

    canaries: Annotated[bool, Switch()] = True
    canary_s: Annotated[float, Number(0.2, 3600)] = 5.0  # one so often while curves come,
    canary_rest_s: Annotated[float, Number(0.2, 86400)] = 30.0  # and at rest


@dataclass(frozen=True, slots=True)
class ReviewConfig:
    """``[review]``: by what the pile is ordered, and on which features a head on the labels stands."""

    order: Literal["head", "score"] = "head"  # score: as the network has it, whatever is labelled
    features: Literal["none", "pca", "autoencoder", "soft-kmeans"] = "none"


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """``[finetune]``: when people have said enough to teach the network itself."""

    events: Annotated[int, Number(20, 1_000_000, whole=True)] = 100  # confirmed; with fewer the cut alone is moved


@dataclass(frozen=True, slots=True)
class LogConfig:
    """``[log]``: lines on standard error; under systemd the journal adds the time."""

    level: Annotated[str, Choice(("debug", "info", "warning", "error"))] = "info"
    format: Literal["text", "json"] = "text"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a service needs to know, checked; paths are absolute.

    A key is one field: its rule, its default, and the ``Option`` that makes it a flag of ``run`` too.
    """

    state: Annotated[Path, Folder(), Option("where ledger and labels lie", "DIR", group=_SERVICE)]
    watch: Annotated[tuple[Path, ...], Folders(), Option("folder of the instrument (repeatable)", "DIR")] = ()
    instrument: Annotated[str, Name(), Option("short name, used in topics and folders", "NAME", group=_SERVICE)] = (
        INSTRUMENT
    )
    number: Annotated[
        int,
        Number(1, MOST_INSTRUMENTS, whole=True),
        Option("of the instrument on this computer: each takes usual ports of its own", "N", group=_ENDPOINTS),
    ] = 1
    publish: Annotated[str, Address(), Option("events, a ZeroMQ PUB socket", "ENDPOINT", group=_ENDPOINTS)] = (
        f"tcp://127.0.0.1:{PORTS['publish']}"
    )
    replay: Annotated[str, Address(), Option("stored events, a ZeroMQ ROUTER", "ENDPOINT", group=_ENDPOINTS)] = (
        f"tcp://127.0.0.1:{PORTS['replay']}"
    )
    ingest: Annotated[
        str | None, Address(), Option("take curves over a ZeroMQ ROUTER too", "ENDPOINT", unless="off")
    ] = None
    metrics_port: Annotated[int, Number(0, 65535, whole=True), Option("Prometheus on 127.0.0.1, 0 = off", "N")] = PORTS[
        "metrics_port"
    ]
    model: Annotated[str, ModelName(), Option("model that judges", "NAME-or-DIR")] = "shipped"
    device: Annotated[Literal["auto", Device], Option("where it runs")] = "auto"
    require_certificate: Annotated[
        bool,
        Switch(),
        Option("while the model has no certificate, a would-be discard becomes review", unless="off"),
    ] = False
    text: Annotated[tuple[TextRule, ...], TextRules()] = ()  # [[text]] tables, the first that matches counts
    folder: Annotated[tuple[FolderSettings, ...], FolderTables()] = ()  # [[folder]] tables, each of a watched folder
    source: SourceConfig = SourceConfig()
    thresholds: ThresholdsConfig = ThresholdsConfig()
    alarm: AlarmConfig = AlarmConfig()
    guard: GuardConfig = GuardConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    batch: BatchConfig = BatchConfig()
    engine: EngineConfig = EngineConfig()
    review: ReviewConfig = ReviewConfig()
    space: SpaceConfig = SpaceConfig()  # noqa: RUF009 - a frozen value
    log: LogConfig = LogConfig()
    notify: NotifyConfig = NotifyConfig()  # noqa: RUF009 - a frozen value
    file: Path | None = field(default=None, compare=False)  # what a reload reads again
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)  # key -> file, environment, flag

    def mounts_of(self, folder: Path) -> MountSetting:
        """How a watched folder is to be taken: its own setting, else that of all."""
        own = self._settings_of(folder)
        return self.source.mounts if own is None or own.mounts is None else own.mounts

    def silence_of(self, folder: Path) -> float:
        """After how many seconds without a curve in a watched folder an alarm is due; 0: never."""
        own = self._settings_of(folder)
        return 0.0 if own is None or own.silence_s is None else own.silence_s

    def _settings_of(self, folder: Path) -> FolderSettings | None:
        return next((one for one in self.folder if one.path == folder), None)

    @property
    def digest(self) -> str:
        """A short name of these values, for the `config` event: the same values, the same name."""
        return hashlib.sha256(json.dumps(values(self), sort_keys=True).encode()).hexdigest()[:12]


class ConfigError(UserError):
    """Everything that is wrong with a configuration; ``findings`` are "key: what to do", one each.

    ``config`` is what is right of it, for whoever looks further.
    """

    def __init__(self, where: str, findings: list[str], config: Config) -> None:
        self.findings, self.config = tuple(findings), config
        count = f"{len(findings)} errors: " if len(findings) > 1 else ""
        super().__init__(BAD_CONFIG, f"{where}: {count}" + " | ".join(grouped(findings)))


def _rules(kind: type, prefix: str = "") -> Iterator[tuple[str, Rule]]:
    for key, hint in get_type_hints(kind, include_extras=True).items():
        plain, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if is_dataclass(plain) and isinstance(plain, type):
            yield from _rules(plain, f"{key}.")
        elif get_origin(plain) is Literal:
            yield prefix + key, Choice(get_args(plain))
        else:
            yield from ((prefix + key, note) for note in notes if isinstance(note, Rule))


#: "watch" or "source.mounts" -> its rule, in the order of the file
RULES: Mapping[str, Rule] = MappingProxyType(dict(_rules(Config)))


class Keys(Argument):
    """The flag ``--config``, and those of some keys (without names: of all that have one); their value is ``Flags``."""

    def __init__(self, *keys: str) -> None:
        self._keys = keys

    def add(self, name: str, kind: Any, default: Any, place: Place) -> None:
        Option("TOML file of the instrument", "FILE", group=_SERVICE).add("config", str, None, place)
        for key, option, its, usual in self._options():
            option.add(key, its, usual, place)

    def take(self, name: str, default: Any, found: argparse.Namespace) -> Flags:
        given = {key: option.take(key, None, found) for key, option, _, _ in self._options()}
        return Flags(found.config, {key: value for key, value in given.items() if value is not None})

    def _options(self) -> Iterator[tuple[str, Option, Any, Any]]:
        """Key, flag, type and default of each; a path stays a text, which its rule is the first to read."""
        texts: dict[Any, Any] = {Path: str, tuple[Path, ...]: tuple[str, ...]}
        hints = get_type_hints(Config, include_extras=True)
        for one in fields(Config):
            kind, *notes = get_args(hints[one.name]) or (None,)
            for note in notes:
                if isinstance(note, Option) and (not self._keys or one.name in self._keys):
                    usual = None if one.default is MISSING else one.default
                    yield one.name, note, texts.get(kind, kind), usual


def load(flags: Flags, *, serves: bool = False, needs_state: bool = True) -> Config:
    """The configuration that a verb's flags, the environment and the file add up to.

    For a verb that ``serves`` the endpoints are checked as ones to bind, and something to watch is demanded. Without a
    home folder a state must be given, unless the verb can do without (not ``needs_state``): it is NOWHERE then. Raises
    ConfigError (78) with every finding.
    """
    file = Path(os.path.abspath(flags.file)) if flags.file else None
    findings: list[str] = []
    given: dict[str, Given] = from_file(file, RULES, findings) if file else {}
    given |= from_environment(os.environ, RULES, findings)
    given |= from_flags(flags)
    found, wrong = _judge(given, findings)
    if serves and not given.keys() & {"watch", "ingest"} and not file:
        raise UserError(USAGE, "nothing to watch; give --watch DIR or --config FILE")
    if "state" not in found:
        found["state"] = _default_state(found.get("instrument", INSTRUMENT), serves, needs_state, findings)
    if "watch" in wrong:
        wrong.add("folder")  # whose paths are compared with those of watch
    origins = {key: one.origin for key, one in given.items()}
    if (number := found.get("number", 1)) > 1:
        usual = {key: value for key, value in usual_places(number).items() if key not in given}
        found |= usual
        origins |= dict.fromkeys(usual, f"number {number}")
    config = _assemble(found, file, origins)
    findings += [one for one in conflicts(config, serves=serves) if one.partition(":")[0] not in wrong]
    if findings:
        raise ConfigError(str(file) if file else "configuration", findings, config)
    share_with_group(config.state)
    return config


def _default_state(instrument: str, serves: bool, needs_state: bool, findings: list[str]) -> Path:
    try:
        return default_state(instrument, serves=serves)
    except Homeless:
        if needs_state:
            findings.append(f"state: {HOMELESS}")
        return NOWHERE


def _judge(given: Mapping[str, Given], findings: list[str]) -> tuple[dict[str, Any], set[str]]:
    found: dict[str, Any] = {}
    for key, one in given.items():
        try:
            found[key] = RULES[key](one.raw, one.folder)
        except ValueError as error:
            findings += [f"{one.name}: {sentence}" for sentence in error.args]
    return found, given.keys() - found.keys()


def _assemble(found: Mapping[str, Any], file: Path | None, origins: Mapping[str, str]) -> Config:
    tables: dict[str, Any] = {}
    for one in fields(Config):
        if is_dataclass(one.default) and not isinstance(one.default, type):
            mine = {key.partition(".")[2]: found[key] for key in found if key.startswith(f"{one.name}.")}
            tables[one.name] = replace(one.default, **mine)
    top = {key: value for key, value in found.items() if "." not in key}
    return Config(**top, **tables, file=file, origins=origins)


def values(config: Config) -> dict[str, Any]:
    """Every resolved value by its key path, ready for JSON."""
    flat: dict[str, Any] = {}
    for key in RULES:
        table, _, name = key.rpartition(".")
        flat[key] = _plain(getattr(getattr(config, table) if table else config, name))
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {key: _plain(one) for key, one in asdict(value).items()}
    return str(value) if isinstance(value, Path | SecretUrl) else value


def changes(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """What a reload changes: key path -> (before, after)."""
    before, after = values(old), values(new)
    return {key: (before[key], after[key]) for key in RULES if before[key] != after[key]}


def conflicts(config: Config, *, serves: bool) -> list[str]:
    """Settings that are each fine and together are not, a "key: what to do" each.

    Endpoints of a verb that only connects may lie anywhere.
    """
    found = _thresholds(config) + _state(config.state) + _folders(config) + _settings(config)
    found += config.notify.conflicts()
    if serves:
        found += _bindings(config) + _files(config)
        if not config.watch and config.ingest is None:
            found.append('watch: nothing to watch; give --watch DIR or write watch = ["/data/afm1"]')
    return found


def _thresholds(config: Config) -> list[str]:
    discard, keep = config.thresholds.discard, config.thresholds.keep
    if discard is not None and keep is not None and discard >= keep:
        return [f"thresholds.keep: {keep:g} must lie above thresholds.discard, {discard:g}"]
    return []


def _state(state: Path) -> list[str]:
    for place in (state, *state.parents):
        if local(place) is None:
            return []  # a share may not answer: whoever opens the ledger finds out
        if os.path.lexists(place):
            advice = "give --state another path, or move it away"
            return [] if place.is_dir() else [f"state: {place} is no folder; {advice}"]
    return []


def _folders(config: Config) -> list[str]:
    found = []
    state = str(resolve(config.state))
    watched = [(folder, str(resolve(folder))) for folder in config.watch]
    for folder, real in watched:
        if holds(real, state):
            found.append(f"state: {config.state} lies inside the watched {folder}; keep the ledger outside of it")
        elif holds(state, real):
            found.append(f"watch: {folder} lies inside the state folder {config.state}; give --state another one")
    for (one, real), (other, its) in combinations(watched, 2):
        if holds(real, its) or holds(its, real):
            inner, outer = (other, one) if holds(real, its) else (one, other)
            found.append(f"watch: {inner} lies inside {outer}, which is watched with all its folders; remove one")
    return found


def _settings(config: Config) -> list[str]:
    paths = [one.path for one in config.folder]
    strangers = (path for path in paths if path not in config.watch)
    found = [f"folder: {path} is not watched; write path as it stands in watch" for path in strangers]
    twice = dict.fromkeys(path for place, path in enumerate(paths) if path in paths[:place])
    return found + [f"folder: {path} has two tables; write its settings into one" for path in twice]


def _files(config: Config) -> list[str]:
    files = (path for path in config.watch if (real := local(path)) and real.is_file())
    return [f"watch: {path} is a file; name the folder that curves are saved into" for path in files]


def _bindings(config: Config) -> list[str]:
    named = {"publish": config.publish, "replay": config.replay, "ingest": config.ingest}
    found: list[str] = []
    taken: dict[tuple[str, int | str], str] = {("tcp", config.metrics_port): "metrics_port"}
    for key, text in named.items():
        if text is None:
            continue
        place = Endpoint.parse(text)
        if not place.is_local:
            found.append(
                f"{key}: {text} could be reached from other machines, and no CURVE keys protect it;"
                " use tcp://127.0.0.1:PORT, or ipc:///PATH, with an SSH tunnel from elsewhere"
            )
        if place.port == 0:
            continue
        mark = (place.transport, place.port or place.host)
        if mark in taken:
            found.append(f"{key}: {text} is already taken by {taken[mark]}; choose another port")
        taken[mark] = key
    return found
