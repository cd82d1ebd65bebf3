"""The conflicts: settings that are each fine and together are not."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.config.rule import Endpoint

if TYPE_CHECKING:
    from daemon.config import Config


def conflicts(config: Config, *, serves: bool) -> list[str]:
    """One "key: what to do" each. Endpoints of a verb that only connects may lie anywhere."""
    found = _thresholds(config) + _state(config.state) + _folders(config)
    if serves:
        found += _bindings(config)
        if not config.watch and config.ingest is None:
            found.append('watch: nothing to watch; give --watch DIR or write watch = ["/data/afm1"]')
    return found


def _thresholds(config: Config) -> list[str]:
    discard, keep = config.thresholds.discard, config.thresholds.keep
    if discard is not None and keep is not None and discard >= keep:
        return [f"thresholds.keep: {keep:g} must lie above thresholds.discard, {discard:g}"]
    return []


def _state(state: Path) -> list[str]:
    nearest = next(place for place in (state, *state.parents) if os.path.lexists(place))
    return [] if nearest.is_dir() else [f"state: {nearest} is no folder; give --state another path, or move it away"]


def _folders(config: Config) -> list[str]:
    found = []
    state = config.state.resolve()
    watched = [(folder, folder.resolve()) for folder in config.watch]
    for folder, real in watched:
        if _holds(real, state):
            found.append(f"state: {config.state} lies inside the watched {folder}; keep the ledger outside of it")
        elif _holds(state, real):
            found.append(f"watch: {folder} lies inside the state folder {config.state}; give --state another one")
    for (one, real), (other, its) in combinations(watched, 2):
        if _holds(real, its) or _holds(its, real):
            inner, outer = (other, one) if _holds(real, its) else (one, other)
            found.append(f"watch: {inner} lies inside {outer}, which is watched with all its folders; remove one")
    return found


def _holds(outer: Path, inner: Path) -> bool:
    return inner.is_relative_to(outer)


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


# ---- The home of a service: the state folder that is meant when nobody names one.

UNITS = Path("/var/lib/afm-triage")
WHEREABOUTS = "service.json"  # a service leaves its process number in it, and takes it away at its end


class Homeless(Exception):
    """Nobody named a state folder, and this user has no home folder in which one could be."""


def default_state(instrument: str, *, serves: bool, units: Path = UNITS) -> Path:
    """What systemd gives, else the user's state folder.

    A verb that only looks (not ``serves``) finds the folder of the system's service when that one runs or the user
    has none: its labels belong to the service that is there, not to a trial of last month. Raises Homeless.
    """
    if given := os.environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    unit = units / instrument
    try:
        mine = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "afm-triage" / instrument
    except RuntimeError:
        if serves or not unit.is_dir():
            raise Homeless from None
        return unit
    if serves or not unit.is_dir() or _is_served(mine):
        return mine
    return unit if _is_served(unit) or not mine.is_dir() else mine


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
        pid = json.loads((state / WHEREABOUTS).read_bytes())["pid"]
        return isinstance(pid, int) and pid > 0 and is_running(pid)
    return False
