"""The lock: one service a state directory. The kernel frees it with the process, even after kill -9."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from daemon.errors import ALREADY_RUNNING, INPUT_OUTPUT, UserError


class StateLock:
    """Holds ``state/lock`` for the life of the process.

    Raises UserError 73 for a second service, 74 where the folder cannot be made or written.
    """

    def __init__(self, state: Path) -> None:
        try:
            state.mkdir(parents=True, exist_ok=True)
            self._fd = _hold(state)
        except BlockingIOError:
            raise UserError(
                ALREADY_RUNNING,
                f"a service (pid {_holder(state)}) already runs on the state folder {state};"
                " stop it or choose another --state",
            ) from None
        except OSError as error:
            what = f"the state folder {state} cannot be written ({error.strerror})"
            advice = "check its free space and permissions, or give --state another"
            raise UserError(INPUT_OUTPUT, f"{what}: {advice}") from None

    def release(self) -> None:
        os.close(self._fd)


def _hold(state: Path) -> int:
    """The open file that is the lock. Raises BlockingIOError when another process has it."""
    descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _holder(state: Path) -> str:
    with suppress(OSError):
        return (state / "lock").read_bytes()[:32].decode("ascii", "replace").strip() or "unknown"
    return "unknown"
