"""A child process at the other end of a socket: confined, quiet, and gone with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.common import ending

MEMORY_BYTES = 2 << 30
_KILLED_S = 5.0  # a share that hangs may hold a process in the kernel
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True, slots=True)
class Child:
    """A running process and our end of its socket."""

    process: subprocess.Popen[bytes]
    connection: socket.socket

    def end(self) -> None:
        """Kill it, and wait until it is gone or the kernel does not let it go."""
        self.connection.close()
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_KILLED_S)


def spawn(module: str, *descriptors: int) -> Child:
    """Start ``python -m module FD DESCRIPTORS…`` on one thread; a fresh process with nothing of the parent's in it."""
    quiet = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
    return launch([sys.executable, "-P", "-m", module], quiet, *descriptors)


def launch(command: Sequence[str], environment: Mapping[str, str], *descriptors: int) -> Child:
    """Start ``command`` with the number of its socket, and those of ``descriptors``, behind its words."""
    ours, theirs = socket.socketpair()
    with theirs:
        path = os.pathsep.join(filter(None, [_PACKAGE_ROOT, os.environ.get("PYTHONPATH")]))
        handed_down = (theirs.fileno(), *descriptors)
        process = subprocess.Popen(
            [*command, *map(str, handed_down)],
            env={**os.environ, **environment, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=handed_down,
            process_group=0,  # Ctrl-C is for the parent, also before the child can say so itself
        )
    return Child(process, ours)


def confine(memory_bytes: int | None = MEMORY_BYTES) -> None:
    """Called by the child: little memory, no core files, no new rights, and no life after the parent's.

    None leaves memory as it is: a GPU's driver maps far more addresses than there is memory.
    """
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


# ---- The errand: a command that is run to its end, and that is ended with us.

_TERM_S, _KILL_S = 2.0, 5.0


def run_errand(
    command: Sequence[str], *, said: str | None = None, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run with its output captured; ``said`` goes to its standard input.

    Raises KeyboardInterrupt when the process is asked to end meanwhile; the command has then been ended.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=env) as process:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    out, err = process.communicate(said, timeout=ending.LOOK_S)
                    return subprocess.CompletedProcess(command, process.returncode, out, err)
                said = None  # it is given once
                ending.check()
        except BaseException:
            ending.allow(_TERM_S + _KILL_S)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_TERM_S)
            process.kill()
            raise
