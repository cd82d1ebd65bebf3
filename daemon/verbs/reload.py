"""`reload`: the running service takes its configuration anew, as SIGHUP does, and says what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from daemon.client.service_file import reload
from daemon.config import Flags, Keys, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument")]


def run(options: Options) -> int:
    """Exit 0 when the new configuration is in force, 78 when it was refused, 69 without a running service."""
    print(reload(load(options.service)))
    return 0
