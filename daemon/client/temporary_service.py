"""The temporary service: a real one in a process and a folder of its own, for `demo`, `bench` and the tests."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from daemon.client.feed import ask
from daemon.common import ending
from daemon.common.errors import INTERNAL, UserError

#: A start takes 3 s on two idle cores; this is for a machine that is busy with other things.
START_S = 60.0
_DRAINED_S, _KILLED_S = 20.0, 10.0
#: Linux gives outgoing connections ports from 32768 on, others from 49152 on.
PORTS = range(10_000, 32_000)


class TemporaryService:
    """``with TemporaryService() as service:`` starts one on ``service.watch``; both are gone after it."""

    def __init__(self, folder: Path | None = None, *, options: tuple[str, ...] = (), instrument: str = "demo") -> None:
        self._owned = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="afm-triage-"))
        self.watch, self.state, self.log = self.folder / "watch", self.folder / "state", self.folder / "service.log"
        self.watch.mkdir(parents=True, exist_ok=True)
        self.publish, self.replay = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
        self.metrics_port = free_port()
        self._options, self.instrument = options, instrument
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What a user would type."""
        words = [sys.executable, "-m", "daemon", "run", "--watch", self.watch, "--state", self.state]
        words += ["--instrument", self.instrument, "--publish", self.publish, "--replay", self.replay]
        words += ["--metrics-port", self.metrics_port, *self._options]
        return [str(word) for word in words]

    def start(self) -> None:
        """Return at once; ``wait_ready`` waits until the model has passed its self-test."""
        ending.allow(_DRAINED_S + _KILLED_S)  # it is ended before us
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )

    def wait_ready(self, timeout_s: float = START_S) -> float:
        """Seconds until the service answered. Raises UserError with the end of its log when it stops instead."""
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < timeout_s:
            if self.process is None or self.process.poll() is not None:
                break
            if (self.state / "service.json").exists() and self._answers():
                return time.monotonic() - begun_s
            ending.pause(0.02)
        raise UserError(INTERNAL, f"the service did not start: {self.last_words()}")

    def _answers(self) -> bool:
        return ask(self.replay, b"status", timeout_s=1.0) is not None

    def last_words(self) -> str:
        """The end of its log, in one line."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return " | ".join(text.strip().splitlines()[-3:])

    def kill(self) -> None:
        """End it as a power cut would: kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code once it has drained."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            code = self.process.wait(_DRAINED_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait(_KILLED_S)
        self.process = None
        return code

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the service; the folder goes too, if it was made here."""
        self.stop()
        if self._owned:
            shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on right now.

    From below those that a system gives to outgoing connections, so that none of them has it when the service binds it.
    """
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as ZeroMQ does: a closed one may linger
            probe.bind(("127.0.0.1", port))
            return port
