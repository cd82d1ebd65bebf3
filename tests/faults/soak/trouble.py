"""What happens to a soaked service: kills, swaps, full disks, lost shares; each with the time that it lasted."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq

from daemon.cli import VERBS
from daemon.client.feed import ask
from daemon.judging.registry import Registry
from daemon.ledger import wire
from models.bundle import CONFIRMED, SHIPPED, read
from tests.faults.lab import Lab, Share

_SETTLED_S = 30.0  # so long after a disturbance its backlog may still be seen in how late a verdict is
#: Of copies and of spool, so that the service has something to prune; and of batches, which a reload changes.
SETTINGS = """
[space]
copies_bytes = 20_000_000
spool_bytes = 20_000_000
[batch]
"""
_BATCHES = (1, 8, 64, 32)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what; where in the run it falls is in ``timeline``."""

    kills: int = 50
    reader_kills: int = 60
    swaps: int = 20
    reloads: int = 12
    fulls: int = 2
    losses: int = 5
    care: int = 3  # snapshots
    outage_s: float = 25.0  # that a disk is full, or a share away
    seed: int = 1

    def timeline(self) -> list[tuple[float, str]]:
        """(share of the run, what): kills first, so that one process lives through all the rest; quiet in between."""
        rng = random.Random(self.seed)
        falls = [(rng.uniform(0.04, 0.30), "kill -9") for _ in range(self.kills)]
        windows = ((0.05, 0.30), (0.45, 0.60))
        falls += [(rng.uniform(*windows[i % 2]), "a reader is killed") for i in range(self.reader_kills)]
        falls += [(0.46 + 0.34 * i / max(self.swaps, 1), "another model") for i in range(self.swaps)]
        falls += [(0.45 + 0.35 * i / max(self.reloads, 1), "reload") for i in range(self.reloads)]
        falls += [(0.50 + 0.22 * i, "the disk is full") for i in range(self.fulls)]
        falls += [(0.15 if i == 0 else 0.45 + 0.08 * i, "a share is lost") for i in range(self.losses)]
        falls += [(0.55 + 0.10 * i, "snapshot") for i in range(self.care)]
        return sorted([*falls, (0.42, "two subscribers stall")])


@dataclass(frozen=True, slots=True)
class Fall:
    """One disturbance, in time.time()."""

    what: str
    begun_s: float
    ended_s: float

    def touches(self, begun_s: float, ended_s: float) -> bool:
        return self.begun_s < ended_s and begun_s < self.ended_s + _SETTLED_S


class Trouble:
    """Does to ``lab`` what the plan says. ``far`` is its share, ``disk`` the small disk below its state; None: none."""

    def __init__(self, lab: SoakedLab, plan: Plan, far: FarShare | None, disk: Path | None) -> None:
        self._lab, self._plan, self._far, self._disk = lab, plan, far, disk
        self._rng = random.Random(plan.seed)
        self._stalled = [zmq.Context.instance().socket(zmq.SUB) for _ in range(2)]
        self.falls: list[Fall] = []
        self.done: Counter[str] = Counter()
        self.said: list[str] = []  # what did not go as it should
        self.told: list[str] = []  # what the verbs of care say
        self._acts: dict[str, Callable[[], None]] = {
            "kill -9": self._kill,
            "a reader is killed": self._kill_reader,
            "another model": self._swap,
            "reload": self._reload,
            "the disk is full": self._fill,
            "a share is lost": self._lose,
            "snapshot": self._snapshot,
            "two subscribers stall": self._stall,
        }

    def run(self, seconds: float) -> None:
        """One after another, each when its time has come, or when the one before is over."""
        begun_s = time.monotonic()
        for part, what in self._plan.timeline():
            time.sleep(max(begun_s + part * seconds - time.monotonic(), 0.0))
            fall_s = time.time()
            if what != "kill -9":
                self._lab.wait_ready()
            self._acts[what]()
            if what != "two subscribers stall":  # which lasts to the end, and must not be felt
                self.falls.append(Fall(what, fall_s, time.time()))

    def close(self) -> None:
        for one in self._stalled:
            one.close(linger=0)

    def _kill(self) -> None:
        if self._rng.random() < 0.8:
            self._lab.wait_ready()
            time.sleep(self._rng.uniform(0.0, 3.0))
        else:
            time.sleep(self._rng.uniform(0.0, 1.5))
        self._lab.kill()
        self._lab.start()
        self.done["kill -9"] += 1

    def _kill_reader(self) -> None:
        for pid in self._lab.processes()[1:]:
            with contextlib.suppress(OSError):
                if b"daemon.reading.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    self.done["a reader is killed"] += 1
                    return

    def _swap(self) -> None:
        """As `adapt` does once a person has accepted; up, and down again."""
        registry, base, number = Registry(self._lab.state / "models"), read(SHIPPED), self.done["another model"]
        share = (0.05, 0.10, 0.15, 0.20, 0.25)[number % 5]
        discard = base.discard + share * (base.keep - base.discard)
        evidence = {"basis": CONFIRMED, "events": 7, "band": [base.discard, discard], "group": ""}
        bundle = registry.write_cut(base, f"cut-{number}", discard, evidence)
        registry.promote(bundle.id, base=base, group="", why="seven confirmed events", by="soak")
        self.done["another model"] += 1

    def _reload(self) -> None:
        """Another size of batches; every fourth time a file with an error, which must be refused and change nothing."""
        number = self.done["reload"]
        is_wrong = number % 4 == 3
        largest = 0 if is_wrong else _BATCHES[number % len(_BATCHES)]
        self._lab.configure(f"{SETTINGS}largest = {largest}\n")
        answer = self._lab.run("reload", "--state", self._lab.state, limit_s=120)
        if answer.returncode != (78 if is_wrong else 0):
            self.said.append(f"reload {number}: exit {answer.returncode}: {answer.stderr.strip()}")
        self.done["reload"] += 1

    def _fill(self) -> None:
        if self._disk is None:
            return
        ballast = self._disk / "ballast"
        with filled(ballast):
            if not self._within(20.0, lambda: self._state() == "paused"):
                self.said.append("the disk was full, and the service was not paused within 20 s")
            time.sleep(self._plan.outage_s)
            filled_again = fill(ballast)
            if filled_again > 1 << 20:
                self.said.append(f"{filled_again} bytes came free while the disk was full")
        if not self._within(20.0, lambda: self._state() in ("ready", "degraded")):
            self.said.append("the disk has space again, and the service was paused for 20 s more")
        self.done["the disk is full"] += 1

    def _lose(self) -> None:
        if self._far is None:
            return
        with self._far.lost(("stalled", "unmounted", "client killed")[self.done["a share is lost"] % 3]):
            time.sleep(self._plan.outage_s)
        self.done["a share is lost"] += 1

    def _snapshot(self) -> None:
        if "ledger" not in VERBS:
            return
        into = self._lab.folder / "snapshots"
        into.mkdir(exist_ok=True)
        self._verb("snapshot", "ledger", "snapshot", "--to", into, "--state", self._lab.state)
        for one in sorted(into.glob("*/*/"))[-1:]:  # a folder an instrument, and in it one a snapshot
            self._verb("verify", "ledger", "verify", one, "--state", self._lab.state)

    def _verb(self, what: str, *words: str | Path) -> None:
        answer = self._lab.run(*words, limit_s=300)
        if answer.returncode:
            self.said.append(f"{what}: exit {answer.returncode}: {answer.stderr.strip()}")
        self.told.append(f"{what}: {' '.join(answer.stdout.split())[:160]}")
        self.done[what] += 1

    def _stall(self) -> None:
        for one in self._stalled:
            one.rcvhwm = 10
            one.subscribe(b"")
            one.connect(self._lab.publish)  # and nobody ever reads it
            self.done["a subscriber stalls"] += 1

    def _state(self) -> str:
        answer = ask(self._lab.replay, b"status", timeout_s=2.0)
        return "" if answer is None else str(wire.decode(answer[-1])["data"]["state"])

    def _within(self, seconds: float, is_so: Callable[[], bool]) -> bool:
        deadline_s = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.2)
        return True


class SoakedLab(Lab):
    """With a configuration that can be written anew."""

    def configure(self, toml: str) -> None:
        (self.folder / "afm.toml").write_text(toml, encoding="utf-8")


class FarShare:
    """A share by sshfs that can be lost in three ways, and comes back each time."""

    def __init__(self, folder: Path) -> None:
        self.remote, self.point = folder / "remote", folder / "share"
        self._share = Share(self.remote, self.point)

    @contextlib.contextmanager
    def lost(self, how: str) -> Iterator[None]:
        """As long as the block lasts."""
        if how == "stalled":
            self._share.stall()
        elif how == "unmounted":
            subprocess.run(["umount", "-l", str(self.point)], check=True)
        else:
            self._share._client.kill()
        try:
            yield
        finally:
            if how == "stalled":
                self._share.resume()
            else:
                self._share.close()
                self._share = Share(self.remote, self.point)

    def close(self) -> None:
        self._share.close()


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """``folder`` on an ext4 of its own, with real syncs; in memory where nothing can be mounted from a file."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder.with_name(f"{folder.name}.ext4")
    with image.open("wb") as file:
        file.truncate(size_bytes)
    made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], capture_output=True, check=False)
    on_file = (
        not made.returncode
        and not subprocess.run(
            ["mount", "-o", "loop", str(image), str(folder)], capture_output=True, check=False
        ).returncode
    )
    if not on_file:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(folder)], check=True)
    shutil.rmtree(folder / "lost+found", ignore_errors=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
        image.unlink()


def fill(file: Path) -> int:
    """Make ``file`` longer until not one block is left; how much longer it became."""
    begun = size = file.stat().st_size if file.exists() else 0
    step = 1 << 30
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY)
    try:
        while step >= 4096:
            try:
                os.posix_fallocate(descriptor, size, step)
                size += step
            except OSError:
                step //= 2
                os.ftruncate(descriptor, size)  # what was half taken
    finally:
        os.close(descriptor)
    return size - begun


@contextlib.contextmanager
def filled(file: Path) -> Iterator[None]:
    """The disk of ``file`` full as long as the block lasts."""
    fill(file)
    try:
        yield
    finally:
        file.unlink()
