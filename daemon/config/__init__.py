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

from daemon.common import keys
from daemon.common.errors import BAD_CONFIG, USAGE, UserError, grouped
from daemon.common.mounts import MountSetting, holds, local, resolve
from daemon.common.options import Argument, Group, Option, Place
from daemon.common.sockets import Endpoint, unprotected
from daemon.config.origin import (
    LEDGER_FILE,
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
from daemon.config.tables import (
    AlarmConfig,
    BatchConfig,
    EngineConfig,
    FinetuneConfig,
    GuardConfig,
    KeysConfig,
    LogConfig,
    MetricsConfig,
    ReviewConfig,
    SourceConfig,
    ThresholdsConfig,
    tried,
)
from daemon.formats.text_rule import TextRule
from deploy.classifier import Device

__all__ = [
    "AlarmConfig",
    "BatchConfig",
    "Config",
    "ConfigError",
    "EngineConfig",
    "FinetuneConfig",
    "Flags",
    "GuardConfig",
    "Keys",
    "KeysConfig",
    "LogConfig",
    "MetricsConfig",
    "ReviewConfig",
    "SourceConfig",
    "ThresholdsConfig",
    "changes",
    "load",
    "values",
]

INSTRUMENT = "afm1"
#: In the state folder: the service's own key, and those of who may listen.
KEYS = "keys"
#: Keys of a client alone, which are no flags of ``run``.
CLIENTS = frozenset({"key"})
#: The state of a verb that can do without one.
NOWHERE = Path("/nonexistent/afm-triage")
HOMELESS = "this user has no home folder to keep it in; give --state DIR, or set HOME or XDG_STATE_HOME"

_SERVICE = Group("which service")
_ENDPOINTS = Group("where it speaks")


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
    key: Annotated[Path | None, Folder(), Option("the key that its service has given me", "FILE", group=_ENDPOINTS)] = (
        None
    )
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
    keys: KeysConfig = KeysConfig()
    metrics: MetricsConfig = MetricsConfig()
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
    def ledger_file(self) -> Path:
        """Where the decisions lie, or would."""
        return self.state / LEDGER_FILE

    @property
    def own_key(self) -> Path:
        """Where the service's own key lies, or would."""
        return self.keys.secret or self.state / KEYS / f"service{keys.SUFFIX}"

    @property
    def allow(self) -> Path:
        """The folder of those who may listen."""
        return self.keys.allow or self.state / KEYS / "allowed"

    @property
    def is_client(self) -> bool:
        """Whether it is for those who listen alone: a key to show, and nothing to judge."""
        return self.key is not None and not self.watch and self.ingest is None

    @property
    def open_endpoints(self) -> dict[str, str]:
        """Key -> endpoint, of those that other machines can reach, and keys must protect."""
        named = {"publish": self.publish, "replay": self.replay, "ingest": self.ingest}
        return {key: text for key, text in named.items() if text is not None and not Endpoint.parse(text).is_local}

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
        texts: dict[Any, Any] = {Path: str, Path | None: str, tuple[Path, ...]: tuple[str, ...]}
        hints = get_type_hints(Config, include_extras=True)
        for one in fields(Config):
            kind, *notes = get_args(hints[one.name]) or (None,)
            for note in notes:
                if isinstance(note, Option) and (one.name in self._keys if self._keys else one.name not in CLIENTS):
                    usual = None if one.default is MISSING else one.default
                    yield one.name, note, texts.get(kind, kind), usual


def load(flags: Flags, *, serves: bool = False, looks: bool = False, needs_state: bool = True) -> Config:
    """The configuration that a verb's flags, the environment and the file add up to.

    For a verb that ``serves`` the endpoints are checked as ones to bind, and something to watch is demanded; one that
    only ``looks`` at that takes the state where the system's service keeps it. Without a home folder a state must be
    given, unless the verb can do without (not ``needs_state``): it is NOWHERE then. ConfigError (78) has all findings.
    """
    config, findings = _add_up(flags, serves=serves, looks=looks, needs_state=needs_state)
    if findings:
        raise ConfigError(str(config.file) if config.file else "configuration", findings, config)
    share_with_group(config.state)
    return config


def assumed() -> Config:
    """What holds for a verb that nobody has told of a service, as far as it makes sense; no state is touched."""
    return _add_up(Flags(), serves=False, looks=False, needs_state=False)[0]


def _add_up(flags: Flags, *, serves: bool, looks: bool, needs_state: bool) -> tuple[Config, list[str]]:
    """What is right, and everything that is wrong."""
    file = Path(os.path.abspath(flags.file)) if flags.file else None
    findings: list[str] = []
    given: dict[str, Given] = from_file(file, RULES, findings) if file else {}
    given |= from_environment(os.environ, RULES, findings)
    given |= from_flags(flags)
    found, wrong = _judge(given, findings)
    if serves and not given.keys() & {"watch", "ingest"} and not file:
        raise UserError(USAGE, "nothing to watch; give --watch DIR or --config FILE")
    if "state" not in found:
        name = found.get("instrument", INSTRUMENT)
        found["state"] = _default_state(name, serves and not looks, needs_state, findings)
    if "watch" in wrong:
        wrong.add("folder")  # whose paths are compared with those of watch
    origins = {key: one.origin for key, one in given.items()}
    if (number := found.get("number", 1)) > 1:
        found |= (usual := {key: value for key, value in usual_places(number).items() if key not in given})
        origins |= dict.fromkeys(usual, f"number {number}")
    config = _assemble(found, file, origins)
    findings += [one for one in conflicts(config, serves=serves) if one.partition(":")[0] not in wrong]
    return config, findings


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
        found += _bindings(config) + _files(config) + _secrets(config)
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


def _secrets(config: Config) -> list[str]:
    """Keys and tokens that are asked for and cannot be used."""
    found = list(config.metrics.conflicts(config.metrics_port))
    if config.open_endpoints and (config.keys.secret or os.path.lexists(config.own_key)):
        found += tried(lambda: keys.read(config.own_key, "keys.secret"))
    return found


def _bindings(config: Config) -> list[str]:
    named = {"publish": config.publish, "replay": config.replay, "ingest": config.ingest}
    found: list[str] = []
    taken: dict[tuple[str, int | str], str] = {("tcp", config.metrics_port): "metrics_port"}
    for key, text in named.items():
        if text is None:
            continue
        place = Endpoint.parse(text)
        if not place.is_local and config.keys.secret is None and not os.path.lexists(config.own_key):
            found.append(f"{key}: {unprotected(text, place)}")
        if place.port == 0:
            continue
        mark = (place.transport, place.port or place.host)
        if mark in taken:
            found.append(f"{key}: {text} is already taken by {taken[mark]}; choose another port")
        taken[mark] = key
    return found


def engine_cache() -> Path | None:
    """Where engines that were compiled for this computer lie, for whoever serves no instrument."""
    try:
        return default_state(INSTRUMENT, serves=False) / "engines"
    except Homeless:
        return None
