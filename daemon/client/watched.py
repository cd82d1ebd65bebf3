"""The watched folders: the service's own, also for a verb that was not told of them.

The service leaves a note of them in its state folder. The note outlives it: what is put into such a folder while it
rests is judged at its next start.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from daemon.client import status
from daemon.client.running import find
from daemon.common.files import write_whole
from daemon.config import Config

NOTE = "watched.json"


def note(config: Config) -> None:
    """The service writes which folders it watches; whole or not at all."""
    folders = [str(folder) for folder in config.watch]
    write_whole(config.state / NOTE, (json.dumps({"watch": folders}, indent=1) + "\n").encode())


def watched_folders(config: Config) -> list[Path]:
    """Resolved: those of ``config``, and those of the service on its state folder, be it running or at rest."""
    known = _ask(config) or _read(config.state / NOTE)
    folders = [*config.watch, *(Path(text) for text in known if isinstance(text, str))]
    return list(dict.fromkeys(folder.resolve() for folder in folders))


def _ask(config: Config) -> list[object]:
    # Waiting for an answer takes a second: only where somebody may give one.
    if not find(config).is_alive and "replay" not in config.origins:
        return []
    return _list(status.gather(config).get("watch"))


def _read(file: Path) -> list[object]:
    with suppress(OSError, ValueError, RecursionError):
        said = json.loads(file.read_bytes())
        return _list(said.get("watch")) if isinstance(said, dict) else []
    return []


def _list(said: object) -> list[object]:
    return said if isinstance(said, list) else []
