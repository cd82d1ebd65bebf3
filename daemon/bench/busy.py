"""Busy neighbours: processes that do nothing but compute, as an acquisition program may."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Ends with whoever started it, even if that one is killed before this begins.
_SPIN = """
import os, sys
parent = int(sys.argv[1])
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def neighbours(count: int) -> Iterator[list[int]]:
    """``count`` processes that spin, as long as the block lasts; their ids."""
    command = [sys.executable, "-c", _SPIN, str(os.getpid())]
    quiet = subprocess.DEVNULL
    spinning = [subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) for _ in range(count)]
    try:
        yield [process.pid for process in spinning]
    finally:
        for process in spinning:
            process.kill()
        for process in spinning:
            process.wait(10.0)
