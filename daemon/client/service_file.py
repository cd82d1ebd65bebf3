"""The service file: the addresses of the running service, as it wrote them into ``state/service.json`` at its start.

A review page leaves its own in ``state/review-page.json``, so that a console can open a curve on it. A temporary
service, in a process and a folder of its own, is started here too: for `demo`, `bench` and the tests.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from daemon.client.feed import ask
from daemon.common import ending, keys
from daemon.common.errors import BAD_CONFIG, INTERNAL, UNREACHABLE, UserError, grouped
from daemon.common.keys import Key
from daemon.config import KEYS, Config
from daemon.config.origin import SERVICE_FILE, is_running, parse
from daemon.config.rule import Address, Folder, Name
from models.files import write_whole


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """``pid`` is None when no service has left a service file here (or it did not get that far)."""

    publish: str
    replay: str
    pid: int | None = None
    started_at: str | None = None
    key: Key | None = None  # that the service asks for, where it asks for one
    why_silent: str = ""  # as the service itself has written it, where it knows that nobody can reach it

    @property
    def is_alive(self) -> bool:
        """Whether the process that wrote them still runs; a later one may have got its number, so ask it too."""
        return self.pid is not None and is_running(self.pid)


def leave(state: Path, publish: str, replay: str, started_at: str, local: Key | None = None) -> None:
    """The service writes where it speaks; whole or not at all, so that nobody reads half of it.

    ``local``: the key for verbs of this computer. Whoever may look into the state folder as its group may read it.
    """
    said = {"pid": os.getpid(), "publish": publish, "replay": replay, "started_at": started_at}
    if local is not None:
        said["server_key"] = local.server
        keys.make_folder(state / KEYS, like=state)
        keys.write(state / KEYS / _LOCAL, local, 0o640, like=state)
    write_whole(state / SERVICE_FILE, (json.dumps(said, indent=1) + "\n").encode())


def leave_word(state: Path, why_silent: str) -> None:
    """The service writes why whoever asks it now gets no answer; "" when it answers again."""
    with suppress(OSError):  # the state folder has other troubles, which are told elsewhere
        said = {**_read(state / SERVICE_FILE), "why_silent": why_silent}
        write_whole(state / SERVICE_FILE, (json.dumps(said, indent=1) + "\n").encode())


def is_left(state: Path) -> bool:
    """Whether what this process wrote is still there."""
    return _read(state / SERVICE_FILE).get("pid") == os.getpid()


def forget(state: Path) -> None:
    """The service ends: nobody shall look for it there."""
    (state / SERVICE_FILE).unlink(missing_ok=True)


def find(config: Config) -> ServiceFile:
    """What was asked for by flag or environment, else what the service wrote, else what it is configured to use."""
    said = _read(config.state / SERVICE_FILE)
    chosen = {}
    for name in ("publish", "replay"):
        written = said.get(name) if config.origins.get(name) not in ("flag", "environment") else None
        chosen[name] = written if isinstance(written, str) else getattr(config, name)
    key = keys.read_client(config.key, "--key") if config.key is not None else _local_key(config, said)
    pid, started_at, why_silent = said.get("pid"), said.get("started_at"), said.get("why_silent")
    return ServiceFile(
        **chosen,
        pid=pid if isinstance(pid, int) and pid > 0 else None,
        started_at=started_at if isinstance(started_at, str) else None,
        key=key,
        why_silent=why_silent if isinstance(why_silent, str) else "",
    )


_LOCAL = f"local{keys.SUFFIX}"


def _local_key(config: Config, said: Mapping[str, Any]) -> Key | None:
    """The key that the service has made for verbs of this computer; None where it asks for none, or not us."""
    is_elsewhere = any(config.origins.get(key) in ("flag", "environment") for key in ("publish", "replay"))
    if is_elsewhere or not isinstance(said.get("server_key"), str):
        return None
    with suppress(UserError):  # of a user who may not read it; why nothing is heard is said then
        key = keys.read_client(config.state / KEYS / _LOCAL, "key")
        return replace(key, is_given=False) if key.server == said["server_key"] else None
    return None


# The services of a facility: where each of them speaks, as a person has written it down.


@dataclass(frozen=True, slots=True)
class Place:
    """Where the service of an instrument speaks; ``name``: what a collector calls it, None: as it says itself."""

    name: str | None
    publish: str
    replay: str
    key: Key | None = None

    def __str__(self) -> str:
        return self.name or self.replay


def read_places(file: Path) -> list[Place]:
    """The instruments of a TOML file: of each a table ``[NAME]`` with ``publish``, ``replay`` and perhaps ``key``.

    Raises UserError 78 with every finding.
    """
    findings: list[str] = []
    found: list[Place] = []
    for name, said in parse(file).items():
        try:
            found.append(_place(Name()(name, file.parent), said, file.parent))
        except (ValueError, UserError) as error:
            findings.append(f"[{name}]: {error}")
    replays = Counter(one.replay for one in found)
    findings += [f"[{one}]: another instrument has {one.replay} too" for one in found if replays[one.replay] > 1]
    if not found and not findings:
        findings.append("names no instrument; write a table [afm1] with publish = and replay =")
    if findings:
        count = f"{len(findings)} errors: " if len(findings) > 1 else ""
        raise UserError(BAD_CONFIG, f"{file}: {count}" + " | ".join(grouped(findings)))
    return found


def _place(name: str, said: object, folder: Path) -> Place:
    """Raises ValueError and UserError with what to write instead."""
    known = ("publish", "replay", "key")
    if not isinstance(said, dict):
        raise ValueError("is a table; write [NAME] on a line of its own, and below it publish = and replay =")
    if unknown := said.keys() - set(known):
        raise ValueError(f"{', '.join(sorted(unknown))}: unknown key; {', '.join(known)} are known")
    if missing := [key for key in known[:2] if key not in said]:
        raise ValueError(f"{' and '.join(missing)} is missing: the address that its service has, tcp://HOST:PORT")
    publish, replay = (Address()(said[key], folder) for key in known[:2])
    key = keys.read_client(Path(Folder()(said["key"], folder)), "key") if "key" in said else None
    return Place(name, publish, replay, key)


_PAGE_FILE = "review-page.json"


def leave_page(state: Path, address: str) -> None:
    """The review page writes where it is, without its token; a state that cannot be written has none that is known."""
    with suppress(OSError):
        write_whole(state / _PAGE_FILE, (json.dumps({"pid": os.getpid(), "address": address}) + "\n").encode())


def forget_page(state: Path) -> None:
    """The page ends; what another one has left stays."""
    if _read(state / _PAGE_FILE).get("pid") == os.getpid():
        with suppress(OSError):
            (state / _PAGE_FILE).unlink(missing_ok=True)


def find_page(state: Path) -> str | None:
    """``http://127.0.0.1:8795/`` of the review page on this state; None where none runs."""
    said = _read(state / _PAGE_FILE)
    pid, address = said.get("pid"), said.get("address")
    is_there = isinstance(pid, int) and pid > 0 and isinstance(address, str) and is_running(pid)
    return str(address) if is_there else None


def _read(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        said = json.loads(file.read_bytes())
        if isinstance(said, dict):
            return said
    return {}


_NAMING = "name it with --state, --config or --instrument"


def none_runs(config: Config) -> UserError:
    """What a verb says that needs a service."""
    if not config.state.is_dir():
        gone = "as far as can be seen, for it is not there; if it was moved, put it back"
        return UserError(UNREACHABLE, f"no service runs on {config.state} {gone}; else {_NAMING}")
    return UserError(UNREACHABLE, f"no service runs on {config.state}; {_NAMING}")


# A temporary service: a real one, started from here.

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
