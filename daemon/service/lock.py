"""The lock: one service a state directory. The kernel frees it with the process, even after kill -9."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from daemon.errors import ALREADY_RUNNING, UserError


class StateLock:
    """Holds ``state/lock`` for the life of the process; a second service is refused (exit 73)."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise UserError(
                ALREADY_RUNNING,
                f"a service (pid {holder}) already runs on the state folder {state}; stop it or choose another --state",
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self._fd)
