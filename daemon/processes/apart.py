"""Questions about files, asked in a process of their own: a share whose server hangs holds whoever touches it.

A thread that waits for such a share cannot be ended, and keeps its whole process from ending, even after SIGKILL. So
whatever may lie on a share is asked for in a child, which is killed and left to the kernel when it does not answer.

``python -m MODULE FD`` calls ``serve``. Messages are a length (uint32) and JSON: a question ``[number, word, paths]``,
and its answers in parts ``[number, answers, is_last]``, so that long work is not taken for silence.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from daemon.processes.child import launch

_LENGTH = struct.Struct("<I")
_PART_S, _PART_ANSWERS = 0.3, 2000  # an answer is sent after so long, or so many


class Silent(TimeoutError):
    """Nobody answers: the share hangs, or the child cannot be started."""


def ask(word: str, *paths: str | Path, limit_s: float) -> list[Any]:
    """One answer for each path, in order: what the question gives, or the OSError that it met.

    Words: ``stat`` and ``lstat`` (an ``os.stat_result``), ``names`` (sorted), ``real`` (a path without links), ``free``
    (bytes free and in all, of the file system), ``may_list`` (whether this user may). Raises Silent when there is no
    answer for ``limit_s``; the child is then left behind.
    """
    asker = Asker()
    try:
        answers = list(asker.ask(word, [str(path) for path in paths], limit_s))
    finally:
        asker.end()
    return [_restored(word, answer) for answer in answers]


class Asker:
    """A child that answers one question after the other. For one thread, plus ``end`` from any.

    After silence ``is_silent`` is true and every question raises Silent at once, until ``look`` finds that the child
    has answered after all, or has gone: then the next question starts another.
    """

    def __init__(self, module: str = __name__) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._number = self._answered = 0
        self._is_ended = False
        self.is_silent = False

    def ask(self, word: str, paths: Sequence[Any], limit_s: float) -> Iterator[Any]:
        """The answers as they come. Raises Silent when there is none for ``limit_s``."""
        self._finish(limit_s)
        self._number += 1
        self._send([self._number, word, paths], limit_s)
        yield from self._answers(limit_s)

    def look(self) -> bool:
        """After silence: whether it is over, by an answer that came late or by the end of the child."""
        process = self._process
        if process is not None and process.poll() is None:
            try:
                while self._answered < self._number and self._is_heard():
                    self._part(_PART_S)
            except Silent:
                return not self.is_silent
            self.is_silent = self._answered < self._number
        else:
            self._forget()
        return not self.is_silent

    def kill(self) -> None:
        """It has been silent for too long; the kernel may hold it until the share is back."""
        if self._process is not None:
            self._process.kill()

    def abandon(self) -> None:
        """Leave it behind, whether it ends or not: what it waits for is nobody's concern any more."""
        self.kill()
        self._forget()

    def end(self) -> None:
        """End it, without waiting for the kernel; whoever waits for an answer wakes up."""
        self._is_ended = True
        self.kill()
        with contextlib.suppress(OSError):
            if self._connection is not None:
                self._connection.shutdown(socket.SHUT_RDWR)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.2)

    def _finish(self, limit_s: float) -> None:
        """Take what is left of the answers before, which nobody wanted to the end."""
        if self.is_silent:
            raise Silent("no answer")
        if self._process is not None and self._process.poll() is not None:
            self._forget()
        for _ in self._answers(limit_s):
            pass

    def _answers(self, limit_s: float) -> Iterator[Any]:
        while self._answered < self._number:
            yield from self._part(limit_s)

    def _part(self, limit_s: float) -> list[Any]:
        number, answers, is_last = json.loads(self._take(_LENGTH.unpack(self._take(_LENGTH.size, limit_s))[0], limit_s))
        if is_last:
            self._answered = number
        return list(answers) if number == self._number else []

    def _is_heard(self) -> bool:
        if self._connection is None:
            return False
        poll = select.poll()  # unlike select, for any number of open files
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(0))

    def _send(self, message: list[Any], limit_s: float) -> None:
        if self._process is None:
            self._start()
        content = json.dumps(message).encode()
        assert self._connection is not None
        try:
            self._connection.settimeout(limit_s)
            self._connection.sendall(_LENGTH.pack(len(content)) + content)
        except OSError as error:
            raise self._silence() from error

    def _take(self, count: int, limit_s: float) -> bytes:
        parts = bytearray()
        try:
            while len(parts) < count:
                if self._connection is None:
                    raise ConnectionError
                self._connection.settimeout(limit_s)
                part = self._connection.recv(min(count - len(parts), 1 << 20))
                if not part:
                    raise ConnectionError
                parts += part
        except OSError as error:
            raise self._silence() from error
        return bytes(parts)

    def _silence(self) -> Silent:
        self.is_silent = True
        return Silent("no answer")

    def _start(self) -> None:
        if self._is_ended:
            raise Silent("ended")
        try:
            child = launch([sys.executable, "-P", "-S", "-m", self._module], {}, may_be_left=True)
        except OSError as error:
            raise Silent(f"no process can be started: {error.strerror}") from error
        self._process, self._connection = child.process, child.connection

    def _forget(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None
        self._answered = self._number
        self.is_silent = False


# The child's side.

Question = Callable[[list[Any]], Iterable[Any]]


def _each(answer: Callable[[str], Any]) -> Question:
    def answers(paths: list[str]) -> Iterator[Any]:
        for path in paths:
            try:
                yield answer(path)
            except OSError as error:
                yield {"errno": error.errno}

    return answers


def _free(path: str) -> list[int]:
    found = os.statvfs(path)
    return [found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize]


def _stat(path: str) -> list[int]:
    return _numbers(os.stat(path))


def _lstat(path: str) -> list[int]:
    return _numbers(os.lstat(path))


def _numbers(found: os.stat_result) -> list[int]:
    """What ``os.stat_result`` is made from again: its ten first fields, then times in s and in ns."""
    times_ns = [found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns]
    return [*found, *(time_ns / 1e9 for time_ns in times_ns), *times_ns]  # type: ignore[list-item]  # JSON has both


QUESTIONS: Mapping[str, Question] = {
    "stat": _each(_stat),
    "lstat": _each(_lstat),
    "names": _each(lambda path: sorted(os.listdir(path))),
    "real": _each(os.path.realpath),
    "free": _each(_free),
    "may_list": _each(lambda path: os.access(path, os.R_OK | os.X_OK)),
}


def _restored(word: str, answer: Any) -> Any:
    if isinstance(answer, dict):
        return OSError(answer["errno"], os.strerror(answer["errno"]))
    return os.stat_result(answer) if word in ("stat", "lstat") else answer


def serve(descriptor: int, questions: Mapping[str, Question] = QUESTIONS) -> None:
    """Answer until the parent hangs up."""
    connection = socket.socket(fileno=descriptor)
    with connection, connection.makefile("rb") as stream, contextlib.suppress(ConnectionError):
        while len(header := stream.read(_LENGTH.size)) == _LENGTH.size:
            number, word, paths = json.loads(stream.read(_LENGTH.unpack(header)[0]))
            for answers, is_last in _parts(questions[word](paths)):
                content = json.dumps([number, answers, is_last]).encode()
                connection.sendall(_LENGTH.pack(len(content)) + content)


def _parts(answers: Iterable[Any]) -> Iterator[tuple[list[Any], bool]]:
    part: list[Any] = []
    due_s = time.monotonic() + _PART_S
    for answer in answers:
        part.append(answer)
        if len(part) >= _PART_ANSWERS or time.monotonic() >= due_s:
            yield part, False
            part, due_s = [], time.monotonic() + _PART_S
    yield part, True


if __name__ == "__main__":
    serve(int(sys.argv[1]))
