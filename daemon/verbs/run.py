"""`run`: the service, in the foreground."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

from daemon.common.stdio import is_stopped
from daemon.config import Flags, Keys, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Every flag has its key in the TOML file."""

    configuration: Annotated[Flags, Keys()]


def run(options: Options) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    config = load(options.configuration, serves=True)
    # torch's OpenMP threads spin while they wait; beside an acquisition program that costs a factor of ten in the
    # slowest decisions (GOMP_SPINCOUNT is read when torch is loaded, so it is set before the service is imported).
    from daemon.service import Service

    service = Service(config, lambda: load(options.configuration, serves=True))
    code = service.run()
    screen = next((stream for stream in (sys.stdout, sys.stderr) if stream.isatty()), None)
    if screen is not None and service.farewell and not is_stopped(screen, 0.5):
        print("", *service.farewell, sep="\n", file=screen)
    return code
