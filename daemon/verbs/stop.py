"""`stop`: ends the running service of a state folder, in order, and waits until it has ended; and no other process.

The number in the service's files may be another program's by now, after a crash or a power failure. So a process is
signalled only when it is known as ours: it holds the lock of the state folder, or answers as this service. From then on
it is held by a descriptor, which no later process of the same number can take over.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from typing import Annotated

from daemon.client.feed import ask_status
from daemon.client.service_file import find, none_runs
from daemon.common import ending
from daemon.common.errors import UNREACHABLE, UserError
from daemon.common.locks import holder_of
from daemon.config import Config, Flags, Keys, load

#: It finishes what it has in hand within 8 s; this is for a machine that is busy, or a share that hangs.
PATIENCE_S = 30.0
_QUIET_S = 1.0  # before we say that we wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    service: Annotated[Flags, Keys("state", "instrument")]


def run(options: Options) -> int:
    """Exit 0 when it has ended, 69 when none runs there, it is another user's, or it does not end in time."""
    print(stop(load(options.service)))
    return 0


def stop(config: Config, patience_s: float = PATIENCE_S) -> str:
    """What came of it, in words.

    Raises UserError 69 when no service runs there, when it belongs to another user, or does not end in time.
    """
    number = _service_of(config)
    try:
        process = os.pidfd_open(number)
    except ProcessLookupError:
        raise none_runs(config) from None
    begun_s = time.monotonic()
    try:
        if _service_of(config) != number:  # asked again: from the descriptor on its number is its own
            raise none_runs(config)
        signal.pidfd_send_signal(process, signal.SIGTERM)
        _wait(process, number, patience_s)
    except PermissionError:
        raise UserError(UNREACHABLE, f"process {number} belongs to another user; ask for it with sudo") from None
    except ProcessLookupError:  # it ended by itself in this very moment
        pass
    finally:
        os.close(process)
    return (
        f"process {number} has ended after {time.monotonic() - begun_s:.1f} s; what comes now waits for the next start"
    )


def _service_of(config: Config) -> int:
    """The number of its process. Raises UserError 69 without one."""
    if config.state.is_dir() and not os.access(config.state, os.X_OK):
        raise UserError(UNREACHABLE, f"{config.state} belongs to another user; ask for it with sudo")
    where = find(config)
    holder = holder_of(config.state)
    if holder is not None:
        return holder
    if where.pid is None or not where.is_alive:
        raise none_runs(config)
    # On some file systems locks are not told of; else the number is an old one, and now somebody else's.
    event = ask_status(where.replay, key=where.key)
    if event is None or event["data"].get("pid") != where.pid:
        raise none_runs(config)
    return where.pid


def _wait(process: int, number: int, patience_s: float) -> None:
    """Until it has ended, with a word about it after a second."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    begun_s, is_told = time.monotonic(), False
    while not poll.poll(1000 * ending.LOOK_S):
        ending.check()
        waited_s = time.monotonic() - begun_s
        if waited_s > patience_s:
            advice = f"its log says more. kill -9 {number} ends it at once, and loses nothing"
            raise UserError(UNREACHABLE, f"process {number} has not ended within {patience_s:g} s: {advice}")
        if waited_s > _QUIET_S and not is_told:
            is_told = True
            with contextlib.suppress(OSError):
                print(f"process {number} finishes what it has in hand …", file=sys.stderr, flush=True)
