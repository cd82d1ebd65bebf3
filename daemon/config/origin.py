"""The origin: what the file, the environment and the flags say, before any rule has judged it.

And the home of a service: the state folder and the ports that are meant when nobody names them.
"""

from __future__ import annotations

import difflib
import grp
import json
import os
import stat
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from daemon.common.errors import BAD_CONFIG, INPUT_OUTPUT, UserError
from daemon.common.mounts import local
from daemon.common.options import this_user
from daemon.config.rule import Rule

PREFIX = "AFM_TRIAGE_"


@dataclass(frozen=True, slots=True)
class Flags:
    """What a command line says of the configuration: its file, and keys as they were typed ("metrics_port": 0)."""

    file: str | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Given:
    """One raw value and where it came from; ``name`` is what the person who gave it calls it."""

    raw: Any
    folder: Path  # relative paths start here
    name: str
    origin: str  # "file", "environment" or "flag"


def _similar(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def parse(file: Path) -> dict[str, Any]:
    """What a TOML file says. Raises UserError 78 where it is none."""
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        is_installed = file.parent == Path("/etc/afm-triage")  # where the units have theirs
        remedy = f"make it: sudo deploy/install {file.stem} FOLDER" if is_installed else "name one that exists"
        raise UserError(BAD_CONFIG, f"{file}: no such file; {remedy}") from None
    except UnicodeDecodeError as error:
        raise UserError(BAD_CONFIG, f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(BAD_CONFIG, f"{file}: not valid TOML: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(BAD_CONFIG, f"{file}: cannot be read: {reason}") from None


def from_file(file: Path, rules: Mapping[str, Rule], findings: list[str]) -> dict[str, Given]:
    """Every known key of the file; unknown ones are findings. Raises UserError (78) when it is no TOML at all."""
    tables = {key.partition(".")[0] for key in rules if "." in key}
    top = {key for key in rules if "." not in key} | tables
    given: dict[str, Given] = {}
    for key, value in parse(file).items():
        if key not in top:
            home = next((path for path in rules if path.endswith(f".{key}")), None)
            hint = f"; it belongs into the table [{home.partition('.')[0]}]" if home else _similar(key, top)
            findings.append(f"{key}: unknown key{hint}")
        elif key not in tables:
            given[key] = Given(value, file.parent, key, "file")
        elif not isinstance(value, dict):
            findings.append(f"{key}: is a table; write [{key}] on a line of its own")
        else:
            for name, inner in value.items():
                path = f"{key}.{name}"
                if path in rules:
                    given[path] = Given(inner, file.parent, path, "file")
                elif name in top - tables:
                    findings.append(f"{path}: unknown key; {name} belongs above the first [table] line")
                else:
                    siblings = [one.partition(".")[2] for one in rules if one.startswith(f"{key}.")]
                    findings.append(f"{path}: unknown key{_similar(name, siblings)}")
    return given


def from_environment(
    environment: Mapping[str, str], rules: Mapping[str, Rule], findings: list[str]
) -> dict[str, Given]:
    """AFM_TRIAGE_KEY and AFM_TRIAGE_TABLE__KEY; what looks like a misspelt one is a finding."""
    names = {PREFIX + key.replace(".", "__").upper(): key for key in rules}
    given: dict[str, Given] = {}
    for name, text in environment.items():
        if name in names:
            key = names[name]
            given[key] = Given(rules[key].read(text), Path.cwd(), name, "environment")
        elif name.startswith(PREFIX) and difflib.get_close_matches(name, names, n=1, cutoff=0.9):
            findings.append(f"{name}: unknown variable{_similar(name, names)}")
    return given


def from_flags(flags: Flags) -> dict[str, Given]:
    """The keys that were given as flags."""
    return {key: Given(value, Path.cwd(), "--" + key.replace("_", "-"), "flag") for key, value in flags.keys.items()}


UNITS = Path("/var/lib/afm-triage")
LEDGER_FILE = "ledger.sqlite"  # which only a service makes
SERVICE_FILE = "service.json"  # a service leaves its process number in it, and takes it away at its end


class Homeless(Exception):
    """Nobody named a state folder, and this user has no home folder in which one could be."""


def default_state(instrument: str, *, serves: bool, units: Path = UNITS) -> Path:
    """What systemd gives, else the user's state folder.

    A verb that only looks (not ``serves``) finds the folder of the system's service when that one runs or the user
    has no ledger: its labels belong to the service that is there, not to a trial of last month or to a `run` that was
    refused. Raises Homeless.
    """
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    unit = units / instrument
    try:
        mine = _home() / instrument
    except RuntimeError:
        if serves or not unit.is_dir():
            raise Homeless from None
        return unit
    if serves or not unit.is_dir() or _is_served(mine):
        return mine
    return unit if _is_served(unit) or not (mine / LEDGER_FILE).exists() else mine


def served(units: Path = UNITS) -> list[str]:
    """The instruments that services of the system run for, as far as this user may look."""
    return [state.name for state in _served_in(units)]


def served_states(units: Path = UNITS) -> list[Path]:
    """The state folders of services that run: of the system's, and of this user's where they usually stand."""
    with suppress(RuntimeError):
        return [*_served_in(units), *_served_in(_home())]
    return _served_in(units)


def _home() -> Path:
    """Where the states of a user stand. Raises RuntimeError for one without a home folder."""
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "afm-triage"


def _served_in(home: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(state for state in home.iterdir() if _is_served(state))
    return []


def share_with_group(state: Path) -> None:
    """Where the state folder is a group's (setgid, and the group writes, as systemd makes it), so is what we make.

    Else a label of one person would lie in a file that neither the service nor anybody else can write. Raises UserError
    74 for somebody who is not of the group.
    """
    if local(state) is None:
        return  # a share, which may not answer
    with suppress(OSError):
        found = state.stat()
        if not (found.st_mode & stat.S_ISGID and found.st_mode & stat.S_IWGRP):
            return
        if not os.access(state, os.R_OK | os.X_OK):
            group = _name_of(found.st_gid)
            how = f"sudo usermod -aG {group} {this_user() or 'NAME'}, and log in anew"
            raise UserError(INPUT_OUTPUT, f"{state} is for the group {group} alone: {how}")
        os.umask(os.umask(0o077) & ~0o070)


def _name_of(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


def is_running(pid: int) -> bool:
    """Whether there is a process of this number; a later one may have got it."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # alive, and another user's
    except OSError:
        return False
    return True


def _is_served(state: Path) -> bool:
    with suppress(OSError, ValueError, TypeError, KeyError):
        pid = json.loads((state / SERVICE_FILE).read_bytes())["pid"]
        return isinstance(pid, int) and pid > 0 and is_running(pid)
    return False


#: Key of a port -> the usual one of the first instrument of a computer; each further instrument's lie 10 higher.
PORTS: Mapping[str, int] = MappingProxyType({"publish": 5795, "replay": 5796, "metrics_port": 9795, "review": 8795})
MOST_INSTRUMENTS = 99


def usual_port(key: str, number: int = 1) -> int:
    """The port that a key of PORTS stands for on the instrument of this number (1 to 99)."""
    return PORTS[key] + 10 * (number - 1)


def usual_places(number: int) -> dict[str, Any]:
    """What the keys are that say where a service speaks, where nobody gives them."""
    local = {key: f"tcp://127.0.0.1:{usual_port(key, number)}" for key in ("publish", "replay")}
    return {**local, "metrics_port": usual_port("metrics_port", number)}
