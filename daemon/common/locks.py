"""The locks: one process at a time on a state folder, a work folder, an output file.

The kernel frees a lock with its process, even after kill -9: nothing is ever left behind that has to be cleared away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.common.errors import ALREADY_RUNNING, INPUT_OUTPUT, UserError


def lock(descriptor: int) -> None:
    """Hold an open file or folder until it is closed. Raises BlockingIOError while another process holds it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_where_possible(descriptor: int) -> None:
    """As :func:`lock`, but on a network share that knows no locks there is none."""
    try:
        lock(descriptor)
    except BlockingIOError:
        raise
    except OSError:
        pass


class StateLock:
    """Holds ``state/lock`` for the life of the process: one service a state folder.

    Raises UserError 73 for a second service, 74 where the folder cannot be made or written.
    """

    def __init__(self, state: Path) -> None:
        try:
            state.mkdir(parents=True, exist_ok=True)
            self._descriptor = hold(state / "lock")
        except BlockingIOError:
            raise UserError(
                ALREADY_RUNNING,
                f"a service (pid {_holder(state / 'lock')}) already runs on the state folder {state};"
                " stop it or choose another --state",
            ) from None
        except OSError as error:
            what = f"the state folder {state} cannot be written ({error.strerror})"
            advice = "check its free space and permissions, or give --state another"
            raise UserError(INPUT_OUTPUT, f"{what}: {advice}") from None

    def release(self) -> None:
        os.close(self._descriptor)


def hold(file: Path) -> int:
    """The open file that is the lock, with the number of this process in it. Raises OSError, BlockingIOError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        lock(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _holder(file: Path) -> str:
    with suppress(OSError):
        return file.read_bytes()[:32].decode("ascii", "replace").strip() or "unknown"
    return "unknown"


def holder_of(state: Path) -> int | None:
    """The number of the process that holds the state folder, as the kernel tells it; None where nobody does."""
    try:
        found = os.stat(state / "lock")
        told = Path("/proc/locks").read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    written = _holder(state / "lock")
    for kind, _, _, holder, place in (line.split()[1:6] for line in told if len(line.split()) >= 6):
        device, _, inode = place.rpartition(":")
        is_here = device == f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}" or holder == written
        if kind == "FLOCK" and inode == str(found.st_ino) and is_here:
            return int(holder) if int(holder) > 0 else None
    return None


@contextmanager
def lock_work_folder(work: Path, busy: str = "another training run is making this model") -> Iterator[None]:
    """Hold a work folder, made if need be, while the block runs; UserError 73 while another process does: ``busy``.

    The folder itself is locked, and stays so when :func:`clear` empties it.
    """
    work.mkdir(parents=True, exist_ok=True)
    held = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            lock(held)
        except BlockingIOError:
            raise UserError(ALREADY_RUNNING, f"{busy} (its work folder is {work}); wait until it has ended") from None
        yield
    finally:
        os.close(held)


def clear(work: Path) -> None:
    """Everything in the folder goes."""
    for entry in work.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
