"""The lab: a real service on real folders and mounts, and what a fault test asks of it. All of it stays on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from daemon.client.service_file import TemporaryService
from tests.faults.harness import CURVES, fresh

_JPK = (CURVES / "fmt-jpk-fd_spot3-0192.jpk-force").read_bytes()
_SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")


def put(folder: Path, number: int, prefix: str = "c") -> Path:
    """One new curve in ``folder``, with a content of its own."""
    path = folder / f"{prefix}{number:06d}.jpk-force"
    path.write_bytes(fresh(_JPK, hash((str(folder), prefix, number)) & 0xFFFFFFFF))
    return path


def until(is_so: Callable[[], bool], limit_s: float) -> float:
    """Seconds until it is so; fails the test where that takes longer than ``limit_s``."""
    begun_s = time.monotonic()
    while not is_so():
        waited_s = time.monotonic() - begun_s
        assert waited_s < limit_s, f"not within {limit_s:g} s"
        time.sleep(0.02)
    return time.monotonic() - begun_s


class Lab(TemporaryService):
    """A service with more folders than one, a configuration file and options of ``subprocess.Popen``."""

    def __init__(
        self,
        folder: Path,
        *,
        also: Sequence[Path] = (),
        watch: Path | None = None,
        toml: str = "",
        options: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        popen: Mapping[str, Any] | None = None,
    ) -> None:
        for other in also:
            options += ("--watch", str(other))
        if toml:
            file = folder / "afm.toml"
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(toml, encoding="utf-8")
            options += ("--config", str(file))
        super().__init__(folder, options=options, instrument="afm1")
        self.watch = watch or self.watch
        self._environment, self._popen = dict(environment or {}), dict(popen or {})

    def start(self) -> None:
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path, **self._environment}
        with self.log.open("ab") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.process = subprocess.Popen(self.command(), **{**streams, "env": environment, **self._popen})

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def history(self) -> list[dict[str, Any]]:
        """Every decision on disk, read beside the service."""
        file = self.state / "ledger.sqlite"
        if not file.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as database:
            return [json.loads(body) for (body,) in database.execute("select body from decisions order by seq")]

    def count(self) -> int:
        file = self.state / "ledger.sqlite"
        try:
            with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as database:
                return int(database.execute("select coalesce(max(seq), 0) from decisions").fetchone()[0])
        except sqlite3.Error:
            return -1

    def wait_decided(self, count: int, limit_s: float) -> float:
        """Seconds until so many curves are decided; fails where the service has ended or it takes too long."""

        def enough() -> bool:
            assert self.process is None or self.process.poll() is None, f"the service ended: {self.last_words()}"
            return self.count() >= count

        return until(enough, limit_s)

    def run(self, *words: str | Path, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A verb, as a user would type it."""
        command = [sys.executable, "-m", "daemon", *map(str, words)]
        root = Path(__file__).resolve().parents[2]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, env=environment, check=False)

    def status(self) -> dict[str, Any]:
        """``status --json`` of it."""
        answer = self.run("status", "--state", self.state, "--json")
        found: dict[str, Any] = json.loads(answer.stdout)
        return found

    def troubles(self) -> list[str]:
        """What is not well, as ``status`` tells it: "name: text"."""
        return [f"{one['name']}: {one['text']}" for one in self.status().get("health", []) if not one["ok"]]

    def is_well(self) -> bool:
        """As ``status`` tells whoever asks, by its exit code."""
        return self.run("status", "--state", self.state).returncode == 0

    def processes(self) -> list[int]:
        """The service and all that it has started."""
        children: dict[int, list[int]] = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
        found, waiting = [], [self.pid]
        while waiting:
            found.append(waiting.pop())
            waiting += children.get(found[-1], [])
        return found

    def pss_mb(self) -> float:
        """Memory of all of them, shared pages by their share."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0])
        return total / 1024

    def cpu_s(self) -> float:
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def idle_cpu_percent(self, seconds: float) -> float:
        begun_s = self.cpu_s()
        time.sleep(seconds)
        return (self.cpu_s() - begun_s) / seconds * 100


class Share:
    """``remote`` mounted at ``point`` by sshfs; after ``stall`` whoever touches it hangs in the kernel."""

    def __init__(self, remote: Path, point: Path) -> None:
        self.remote, self.point = remote, point
        for folder in (remote, point):
            folder.mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._server = subprocess.Popen([_SFTP_SERVER], stdin=ours, stdout=ours, stderr=subprocess.DEVNULL)
            words = ["sshfs", "-f", "-o", "passive,dir_cache=no", f"x:{remote}", str(point)]
            self._client = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL)
        try:
            until(lambda: os.path.ismount(point), 10)
        except AssertionError:
            self.close()
            pytest.skip("nothing can be mounted with sshfs here")

    def stall(self) -> None:
        self._server.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._server.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.resume()
        for process in (self._client, self._server):
            process.kill()
            process.wait(10)
        subprocess.run(["umount", "-l", str(self.point)], stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def share(folder: Path) -> Iterator[Share]:
    """A share that can be stalled; skips the test where there is no sshfs, or no right to mount."""
    if shutil.which("sshfs") is None or not _SFTP_SERVER.exists() or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("sshfs, sftp-server and the right to use /dev/fuse are needed")
    mounted = Share(folder / "remote", folder / "share")
    try:
        yield mounted
    finally:
        mounted.close()


@contextlib.contextmanager
def mounted(point: Path, *words: str) -> Iterator[None]:
    """``mount WORDS point`` as long as the block lasts (or somebody unmounts it); skips the test without root."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    point.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *words, str(point)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(point)], stderr=subprocess.DEVNULL, check=False)
