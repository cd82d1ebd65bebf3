"""The home of a service: the state folder that is meant when nobody names one."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

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
