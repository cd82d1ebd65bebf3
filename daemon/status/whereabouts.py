"""The whereabouts: where the running service speaks, as it wrote them into ``state/service.json`` at its start."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.config.home import WHEREABOUTS, is_running


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """``pid`` is None when no service has left its whereabouts here (or it did not get that far)."""

    publish: str
    replay: str
    pid: int | None = None
    started_at: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the process that wrote them still runs; a later one may have got its number, so ask it too."""
        return self.pid is not None and is_running(self.pid)


def leave(state: Path, publish: str, replay: str, started_at: str) -> None:
    """The service writes where it speaks; whole or not at all, so that nobody reads half of it."""
    said = {"pid": os.getpid(), "publish": publish, "replay": replay, "started_at": started_at}
    fresh = state / f".{WHEREABOUTS}.{os.getpid()}"
    fresh.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    fresh.replace(state / WHEREABOUTS)


def forget(state: Path) -> None:
    """The service ends: nobody shall look for it there."""
    (state / WHEREABOUTS).unlink(missing_ok=True)


def find(config: Config) -> Whereabouts:
    """What was asked for by flag or environment, else what the service wrote, else what it is configured to use."""
    said = _read(config.state / WHEREABOUTS)
    chosen = {}
    for key in ("publish", "replay"):
        written = said.get(key) if config.origins.get(key) not in ("flag", "environment") else None
        chosen[key] = written if isinstance(written, str) else getattr(config, key)
    pid, started_at = said.get("pid"), said.get("started_at")
    return Whereabouts(
        **chosen,
        pid=pid if isinstance(pid, int) and pid > 0 else None,
        started_at=started_at if isinstance(started_at, str) else None,
    )


def _read(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        said = json.loads(file.read_bytes())
        if isinstance(said, dict):
            return said
    return {}
