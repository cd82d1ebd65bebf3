"""Writing: a file that is there whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.common.errors import ALREADY_RUNNING, INPUT_OUTPUT, USAGE, UserError


def write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing, under its name; what is no regular file (a pipe, /dev/stdout) is written into instead.

    The unfinished file has a name that nobody who watches the folder takes for a curve.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


# ---- The destination: where a verb is told to write, looked at before the work begins and not when it is done.


def need_folder(option: str, file: Path) -> None:
    """UserError 64 when the folder that ``file`` shall lie in is not there; it may be a slip of the pen."""
    if not file.absolute().parent.is_dir():
        raise UserError(USAGE, f"{option} {file}: its folder does not exist; make it first")


# ---- The tenancy: one training run a work folder. The kernel ends it with the process, even after kill -9.


@contextmanager
def lock_work_folder(work: Path) -> Iterator[None]:
    """Hold ``work``, made if need be, as long as the block runs; UserError (73) while another run holds it.

    The folder itself is locked, so nothing is left behind that would have to be cleared away.
    """
    work.mkdir(parents=True, exist_ok=True)
    held = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        said = f"another training run is making this model (its work folder is {work}); wait, or choose another --out"
        raise UserError(ALREADY_RUNNING, said) from None
    finally:
        os.close(held)


def clear(work: Path) -> None:
    """Everything in the folder goes, the folder stays held."""
    for entry in work.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


# ---- The lock: one service a state directory. The kernel frees it with the process, even after kill -9.


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
