"""The tenancy: one training run a work folder. The kernel ends it with the process, even after kill -9."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.errors import ALREADY_RUNNING, UserError


@contextmanager
def occupy(work: Path) -> Iterator[None]:
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
