"""A child process at the other end of a socket: confined, quiet, and gone with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.common import ending

MEMORY_BYTES = 2 << 30
_MOST_FILES = 1024
_GONE_S = 1.0  # a share or a driver that hangs may hold a killed process in the kernel for longer, or for ever
_LOOK_S = 0.25
_NICE = 15
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True, slots=True)
class Pulse:
    """``state`` as in proc(5), and the time on a core so far."""

    state: str
    ticks: int  # 1/100 s

    @property
    def is_stopped(self) -> bool:
        return self.state in "tT"

    @property
    def is_waiting(self) -> bool:
        """For a disk or a share, interruptibly or not: it has something in hand, and does not compute."""
        return self.state in "DS"


@dataclass(frozen=True, slots=True)
class Child:
    """A running process and our end of its socket.

    The kernel ends the process with the thread that started it.
    """

    process: subprocess.Popen[bytes]
    connection: socket.socket

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self) -> str:
        """How it ended, once it has hung up."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(_GONE_S)
            return f"ended by signal {-code}" if code < 0 else f"ended with {code}"
        return "hung up"

    def end(self) -> bool:
        """Kill it, and wait until it is gone (True) or the kernel does not let it go (False); from any thread.

        A thread that waits for its answer wakes up.
        """
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GONE_S)
            return True
        return False

    def kill(self) -> None:
        """Without waiting for it."""
        self.process.kill()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def outlast(self) -> None:
        """Wait until it is gone, for as long as the kernel likes: on a thread of its own."""
        while self.process.poll() is None:
            time.sleep(_LOOK_S)

    def pulse(self) -> Pulse:
        """What it does now, as the kernel tells without asking the process; never waits."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return Pulse("X", 0)
        return Pulse(fields[0], int(fields[11]) + int(fields[12]))

    def stand_back(self) -> None:
        """From now on it works when the others leave it time, at the disk too; there is no way back."""
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, _NICE)


class _Connection(socket.socket):
    """Closed with the last one who holds it: another thread must not close it under one that waits in it."""

    def __del__(self) -> None:
        self.close()


_words: list[int] = []  # where the standard error of children goes; ours where it is empty


def words_go_to(descriptor: int | None) -> None:
    """From the next child on; None: where our own standard error goes."""
    _words[:] = [] if descriptor is None else [descriptor]


def spawn(module: str, *descriptors: int, may_be_left: bool = False) -> Child:
    """Start ``python -m module FD DESCRIPTORS…`` on one thread; a fresh process with nothing of the parent's in it.

    ``may_be_left`` as for :func:`launch`.
    """
    quiet = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
    # a module that its own package imports makes runpy warn, on the terminal of whoever asked
    words = ["-P", "-W", "ignore::RuntimeWarning:runpy", "-m", module]
    return launch([sys.executable, *words], quiet, *descriptors, may_be_left=may_be_left)


def launch(
    command: Sequence[str], environment: Mapping[str, str], *descriptors: int, may_be_left: bool = False
) -> Child:
    """Start ``command`` with the number of its socket, and those of ``descriptors``, behind its words.

    ``may_be_left``: the kernel may hold it for ever. Then it holds nothing that anybody waits for: no stream of ours,
    and no folder that somebody wants to unmount.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        path = os.pathsep.join(filter(None, [_PACKAGE_ROOT, os.environ.get("PYTHONPATH")]))
        handed_down = (theirs.fileno(), *descriptors)
        process = subprocess.Popen(
            [*command, *map(str, handed_down)],
            env={**os.environ, **environment, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if may_be_left else _words[0] if _words else None,
            cwd="/" if may_be_left else None,
            pass_fds=handed_down,
            process_group=0,  # Ctrl-C is for the parent, also before the child can say so itself
        )
    return Child(process, _Connection(fileno=ours.detach()))


@contextlib.contextmanager
def serving(descriptor: int, memory_bytes: int | None = MEMORY_BYTES) -> Iterator[socket.socket]:
    """The child's own side: confined, with the socket to its parent, until the parent hangs up.

    Little memory, no core files, no new rights, and no life after the parent's. ``memory_bytes`` None leaves memory as
    it is: a GPU's driver maps far more addresses than there is memory. Raises SystemExit where the parent has gone
    already.
    """
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or files > _MOST_FILES:  # the service has raised its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_FILES, most_files))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(EOFError, ConnectionError):
        if _has_hung_up(connection):  # before the kernel was told to end us with it
            sys.exit()
        yield connection


def _has_hung_up(connection: socket.socket) -> bool:
    return _has_news(connection, 0, 0.0)  # a hang-up is told unasked


def has_come(connection: socket.socket, timeout_s: float = 0.0) -> bool:
    """Whether there is something to receive, waiting so long at most."""
    return _has_news(connection, select.POLLIN, timeout_s)


def _has_news(connection: socket.socket, kinds: int, timeout_s: float) -> bool:
    poll = select.poll()  # unlike select, for descriptors of any number
    poll.register(connection, kinds)
    return bool(poll.poll(1000 * timeout_s))


def give_back_freed() -> None:
    """Give the memory that this process has freed back to the system; for a moment in which nobody waits."""
    with contextlib.suppress(OSError, AttributeError):  # another libc than glibc has its own ways
        ctypes.CDLL(None).malloc_trim(0)


class Note:
    """A few bytes of memory that both sides see: told as a frame they would wake the parent once more for every task.

    ``descriptor`` is handed down to the child, which makes a Note of it in turn.
    """

    _ENTRY = struct.Struct("<Q64s")  # the id of the request, and a word about it
    _PROGRESS = struct.Struct("<Q")  # grows with every piece of any request

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("afm-triage-note") if descriptor is None else descriptor

    def write(self, request: int, word: str) -> None:
        """``word`` has 64 characters of ASCII: a SHA-256."""
        os.pwrite(self.descriptor, self._ENTRY.pack(request, word.encode()), 0)

    def read(self, request: int) -> str | None:
        """What was written of this request; None where nothing was."""
        content = os.pread(self.descriptor, self._ENTRY.size, 0)
        if len(content) < self._ENTRY.size:
            return None
        noted, word = self._ENTRY.unpack(content)
        return str(word, "ascii") if noted == request else None

    def progress(self, count: int) -> None:
        """The request in hand has come further: ``count`` is larger than the last one."""
        os.pwrite(self.descriptor, self._PROGRESS.pack(count), self._ENTRY.size)

    def progress_so_far(self) -> int:
        """What was last noted as progress."""
        content = os.pread(self.descriptor, self._PROGRESS.size, self._ENTRY.size)
        return int(self._PROGRESS.unpack(content)[0]) if len(content) == self._PROGRESS.size else 0

    def close(self) -> None:
        os.close(self.descriptor)


# An errand needs no socket: a command that is run to its end, and that is ended with us.

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
