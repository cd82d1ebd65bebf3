"""Hosts: computers of their own as far as network and processes go, on this one, and a Ray cluster of them.

Each host is a network namespace with one cable to a switch (a bridge in another namespace), so nothing of it meets the
network of this computer or another test's. A host can be killed (all that runs on it), hung (SIGSTOP), cut off (its
cable), bound to one core, and may see another folder than the others at the same path. Needs root; what a killed test
left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pytest

from tests.faults.lab import until

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")
_PREFIX = "afmhost"  # of namespaces: afmhost-PID-SWITCH-NAME, so that one can see whose it is
_SWITCHES = count(1)
_NET = "10.93.0"
PORT = 6379
#: A host begins its programs so: it mounts, then becomes what was asked for. ``$0`` is the number of mounts.
_MOUNT_AND_GO = 'n=$0; while [ $n -gt 0 ]; do mount --bind "$1" "$2" || exit 99; shift 2; n=$((n-1)); done; exec "$@"'


def need_hosts() -> None:
    """Skip the test where no hosts can be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("taskset") is None:
        pytest.skip("hosts need root, ip and taskset")
    probe = f"{_PREFIX}-{os.getpid()}-probe"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, timeout=10, check=False).returncode:
        pytest.skip("no network namespaces can be made here")
    _ip("netns", "del", probe)


def need_ray() -> None:
    """Skip the test where the extra is not installed."""
    for package in ("ray", "pyarrow"):
        if find_spec(package) is None:
            pytest.skip("needs the extra cluster")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


def _pids(space: str) -> list[int]:
    answer = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, timeout=10, check=False)
    return [int(word) for word in answer.stdout.split()]


def _empty(space: str) -> None:
    """End everything that runs there at once."""

    def is_empty() -> bool:
        for pid in (pids := _pids(space)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    until(is_empty, 20)


def _sweep() -> None:
    """Remove what tests that were killed have left."""
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=10, check=False).stdout
    for line in names.splitlines():
        space = line.split()[0] if line.strip() else ""
        owner = space.removeprefix(f"{_PREFIX}-").partition("-")[0]
        if space.startswith(f"{_PREFIX}-") and owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _empty(space)
            _ip("netns", "del", space)


class Host:
    """One computer: an address, perhaps one core, and perhaps other folders than the others see."""

    def __init__(self, switch: str, name: str, number: int, core: int | None = None) -> None:
        self.name, self.address, self.core = name, f"{_NET}.{number}", core
        self.is_touched = False  # by a kill and the like
        self.space, self._switch, self._port = f"{switch}-{name}", switch, f"port{number}"
        _ip("netns", "add", self.space)
        _ip("-n", self.space, "link", "set", "lo", "up")
        wire = ["link", "add", "name", "eth0", "type", "veth", "peer", "name", self._port, "netns", switch]
        _ip("-n", self.space, *wire)
        _ip("-n", switch, "link", "set", self._port, "master", "switch", "up")
        _ip("-n", self.space, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self.space, "link", "set", "eth0", "up")

    def start(
        self,
        *words: str | Path,
        log: IO[Any] | None = None,
        sees: Mapping[Path, Path] | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> subprocess.Popen[str]:
        """A program on it. ``sees``: path -> folder that this program finds there instead, and nobody else."""
        mounts = [str(path) for there, instead in (sees or {}).items() for path in (instead, there)]
        pinned = ["taskset", "-c", str(self.core)] if self.core is not None else []
        command = ["ip", "netns", "exec", self.space, "sh", "-c", _MOUNT_AND_GO, str(len(mounts) // 2), *mounts]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "GOMP_SPINCOUNT": "0"}
        return subprocess.Popen(
            [*command, *pinned, *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.PIPE,
            stderr=log or subprocess.PIPE,
            text=True,
            env={**variables, **(environment or {})},
            cwd=cwd,
            start_new_session=True,
        )

    def pids(self) -> list[int]:
        """Everything that runs on it."""
        return _pids(self.space)

    def commands(self) -> list[bytes]:
        """How its programs were begun."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        return found

    def kill(self) -> None:
        """The power goes."""
        self.is_touched = True
        _empty(self.space)

    def hang(self) -> None:
        """It answers nobody, and nobody is told: its connections stay open."""
        self.is_touched = True

        def stands() -> bool:
            moving = [pid for pid in self.pids() if _state(pid) not in "TZX"]
            for pid in moving:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            return not moving

        until(stands, 20)

    def wake(self) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def pull_cable(self) -> None:
        self.is_touched = True
        _ip("-n", self._switch, "link", "set", self._port, "down")

    def plug_in(self) -> None:
        _ip("-n", self._switch, "link", "set", self._port, "up")

    def memory_mb(self) -> float:
        """Of all that runs on it; pages that processes share count once."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def cpu_s(self) -> dict[int, float]:
        """What each process that runs on it has computed so far, by its number."""
        computed_s = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                computed_s[pid] = (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        return computed_s


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "X"


class Switch:
    """What the hosts are plugged into; when it goes, all of them go, with everything that runs on them."""

    def __init__(self) -> None:
        need_hosts()
        self.hosts: list[Host] = []
        self.space = f"{_PREFIX}-{os.getpid()}-{next(_SWITCHES)}"

    def __enter__(self) -> Self:
        try:
            _sweep()
            _ip("netns", "add", self.space)
            _ip("-n", self.space, "link", "add", "name", "switch", "type", "bridge")
            _ip("-n", self.space, "link", "set", "switch", "up")
            self.set_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def set_up(self) -> None:
        """What else it begins with."""

    def add(self, name: str, core: int | None = None) -> Host:
        """One more host; numbered from 1, as the last part of its address."""
        self.hosts.append(Host(self.space, name, len(self.hosts) + 1, core))
        return self.hosts[-1]

    def close(self) -> None:
        for host in self.hosts:
            host.kill()
        for space in [*(host.space for host in self.hosts), self.space]:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", space)


class Cluster(Switch):
    """A head without a core, on which a driver runs, and nodes of one core each.

    >>> with Cluster(2) as cluster:
    ...     cluster.nodes[0].kill()
    """

    def __init__(
        self,
        nodes: int = 2,
        *,
        store_mb: int = 100,
        spill: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """``store_mb``: of each host's object store; ``spill``: where Ray writes what does not fit into it.

        ``settings``: variables of the environment in which Ray starts.
        """
        need_ray()
        super().__init__()
        self._count, self._store, self._spill, self._settings = nodes, store_mb << 20, spill, settings
        self._folder = Path(tempfile.mkdtemp(prefix="afmray", dir="/tmp"))  # short, for the sockets below it
        self._started: list[subprocess.Popen[str]] = []

    def set_up(self) -> None:
        head = self.add("head")
        logs = [self._start_ray(head, "--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")]
        logs += [self._join(self.add(f"node{i}", core=core_of(i))) for i in range(1, self._count + 1)]
        for log in logs:
            self._await(log)

    @property
    def head(self) -> Host:
        return self.hosts[0]

    @property
    def nodes(self) -> list[Host]:
        return self.hosts[1:]

    @property
    def address(self) -> str:
        """What ``score --cluster`` is given."""
        return f"{self.head.address}:{PORT}"

    def start(self, *words: str | Path, **also: Any) -> subprocess.Popen[str]:
        """A verb on the head, as a user would type it there."""
        return self.head.start(sys.executable, "-m", "daemon", *words, **also)

    def run(self, *words: str | Path, limit_s: float = 60.0, **also: Any) -> subprocess.CompletedProcess[str]:
        """The same, awaited; fails the test, and ends the verb, after ``limit_s``."""
        return end_of(self.start(*words, **also), limit_s)

    def switch_on(self, node: Host, sees: Mapping[Path, Path] | None = None) -> None:
        """A node that was killed joins again; it sees what is said now."""
        self._await(self._join(node, sees))
        node.is_touched = sees is not None

    def logs(self) -> str:
        """The last words of every part, for whoever wonders why a test failed."""
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(self._folder.glob("*.log")))

    def close(self) -> None:
        super().close()
        for process in self._started:
            process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _join(self, node: Host, sees: Mapping[Path, Path] | None = None) -> Path:
        return self._start_ray(node, f"--address={self.address}", "--num-cpus=1", sees=sees)

    def _start_ray(self, host: Host, *words: str, sees: Mapping[Path, Path] | None = None) -> Path:
        log = self._folder / f"{host.name}-{time.monotonic_ns()}.log"
        own = ["--disable-usage-stats", "--include-log-monitor=false", f"--object-store-memory={self._store}"]
        own += [f"--node-ip-address={host.address}", f"--temp-dir={self._folder / host.name}", "--block"]
        own += [f"--object-spilling-directory={self._spill}"] if self._spill else []
        with log.open("wb") as into:
            self._started.append(
                host.start(RAY, "start", *words, *own, log=into, sees=sees, environment=self._settings)
            )
        return log

    def _await(self, log: Path) -> None:
        def is_up() -> bool:
            said = log.read_text()
            assert all(one.poll() is None for one in self._started[-1:]), said
            return "Ray runtime started" in said

        until(is_up, 120)


def end_of(process: subprocess.Popen[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    """What it said, once it has ended; fails the test, and ends it, after ``limit_s``."""
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as late:
        os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate(timeout=10)
        raise AssertionError(f"not within {limit_s:g} s: {err[-2000:]}") from late
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def core_of(number: int) -> int:
    """Nodes share the cores of this computer evenly."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[(number - 1) % len(usable)]
