"""`stop`: ends the running service of a state folder, in order, and waits until it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from daemon.client.stopping import stop
from daemon.config import Flags, Keys, load


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument")]


def run(options: Options) -> int:
    """Exit 0 when it has ended, 69 when none runs there, it is another user's, or it does not end in time."""
    print(stop(load(options.service)))
    return 0
