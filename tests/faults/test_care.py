"""What happens while the state is looked after: kill -9, a disk that is full, and a disk that fills."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from urllib.request import urlopen

import pytest

from daemon.common.errors import UserError
from daemon.judging.audit import LEAST, draw
from daemon.ledger import Ledger, LedgerView
from daemon.ledger.care import look_through
from daemon.ledger.snapshot import known, take, verify
from daemon.ledger.space import Pruner
from tests.faults.lab import Lab, mounted, put, until
from tests.ledgerhelp import decision, ledger_with

HERE = Path(__file__).parent
HITS = 5


def killed(work: Callable[[], object], after_s: float) -> bool:
    """Whether ``work``, in a process of its own, was still at it when it was killed."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, "it failed by itself"
    return os.WIFSIGNALED(status)


def took_s(work: Callable[[], object]) -> float:
    begun_s = time.monotonic()
    work()
    return time.monotonic() - begun_s


def kills(prepare: Callable[[], Callable[[], object]], check: Callable[[], None]) -> None:
    """``prepare()`` gives what to do; it is killed at moments all over its time, and looked at each time."""
    whole_s, hits, tries = min(took_s(prepare()) for _ in range(2)), 0, 0
    rng = random.Random(15)
    while hits < HITS:
        tries += 1
        assert tries < 10 * HITS, "it is never met at work"
        hits += killed(prepare(), rng.uniform(0, whole_s))
        check()


def test_kill_9_in_a_snapshot_leaves_a_whole_one_or_none(tmp_path: Path) -> None:
    state, home = tmp_path / "state", tmp_path / "there"
    ledger_with(state_of(state), 2_000).close()
    (state / "models").mkdir()
    (state / "models" / "weights.safetensors").write_bytes(os.urandom(3 << 20))
    number = count_from()

    def check() -> None:
        for one in known(home):
            assert verify(one).last_seq == 2_000
        assert look_through(state / "ledger.sqlite") == "sound"

    def work() -> object:
        return take(state, home, "afm1", keep=2, wall_s=1.8e9 + 10 * next(number))

    kills(lambda: work, check)
    folder, _ = take(state, home, "afm1", keep=2, wall_s=1.9e9)
    assert known(home)[-1] == folder
    assert list(home.glob(".*")) == [], "what was left behind has gone"


def state_of(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "ledger.sqlite"


def test_kill_9_while_copies_go_costs_no_decision(tmp_path: Path) -> None:
    made, state = tmp_path / "made", tmp_path / "state"
    drawn = (one for one in map(decision, count_from(1)) if draw(one.identity) < LEAST)
    discards = [replace(one, verdict="discard", score=0.01, compact_copy=bytes(10_000)) for one in islice(drawn, 300)]
    ledger = Ledger(state_of(made), "afm1")
    ledger.record([*discards, decision(3, identity="kept#0", verdict="keep", compact_copy=bytes(10))])
    ledger.tend(lambda database: database.execute("update audits set night = '2026-01-01'"))
    ledger.close()

    def prepare() -> Callable[[], object]:
        shutil.rmtree(state, ignore_errors=True)
        shutil.copytree(made, state)
        return work

    def work() -> None:
        opened = Ledger(state / "ledger.sqlite", "afm1")
        Pruner(state, opened).copies(0)
        opened.close()

    def check() -> None:
        Ledger(state / "ledger.sqlite", "afm1").close()
        assert look_through(state / "ledger.sqlite") == "sound"
        with LedgerView(state / "ledger.sqlite") as view:
            assert view.last_seq == 301
            assert view.compact_copy(301) == bytes(10)

    kills(prepare, check)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_kill_9_in_a_migration_leaves_a_version_whole(tmp_path: Path, version: int) -> None:
    kept, path = HERE / f"ledger-schema-{version}.sqlite", tmp_path / "ledger.sqlite"
    with contextlib.closing(sqlite3.connect(kept)) as database:
        bodies = database.execute("select body from decisions order by seq").fetchall()

    def prepare() -> Callable[[], object]:
        for old in tmp_path.iterdir():
            old.unlink()
        shutil.copy(kept, path)
        return lambda: Ledger(path, "afm1").close()

    def check() -> None:
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("pragma quick_check").fetchone() == ("ok",)
            assert database.execute("select body from decisions order by seq").fetchall() == bodies
        Ledger(path, "afm1").close()

    kills(prepare, check)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_disk_that_is_full_in_a_migration_loses_nothing(tmp_path: Path, version: int) -> None:
    """On a disk with room for the ledger and next to nothing else; it goes on once there is room."""
    small = tmp_path / "small"
    kept = HERE / f"ledger-schema-{version}.sqlite"
    with contextlib.closing(sqlite3.connect(kept)) as database:
        (count,) = database.execute("select count(*) from decisions").fetchone()
    with mounted(small, "-t", "tmpfs", "-o", "size=1m", "none"):
        path = Path(shutil.copy(kept, small / "ledger.sqlite"))
        filler, refusals = small / "filler", []
        for left in range(20_000, 140_000, 8_192):
            filler.write_bytes(b"")
            free = os.statvfs(small)
            filler.write_bytes(bytes(max(free.f_bavail * free.f_frsize - left, 0)))
            try:
                Ledger(path, "afm1").close()
                break
            except UserError as error:
                refusals.append(error)
            with contextlib.suppress(sqlite3.OperationalError):  # no room for its -shm either
                assert look_through(path) == "sound"
        assert len(refusals) >= 2
        assert {one.exit_code for one in refusals} == {74}
        assert not any("\n" in str(one) for one in refusals)
        filler.unlink()
        ledger = Ledger(path, "afm1")
        assert ledger.last_seq == count
        assert ledger.record([decision(7_000)]) == [count + 1]
        ledger.close()
        assert look_through(path) == "sound"


def test_a_disk_without_room_for_a_snapshot_keeps_those_before(tmp_path: Path) -> None:
    state = tmp_path / "state"
    ledger_with(state_of(state), 500).close()
    size = (state / "ledger.sqlite").stat().st_size
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", f"size={int(2.5 * size)}", "none"):
        home = tmp_path / "small" / "afm1"
        first, _ = take(state, home, "afm1", keep=1, wall_s=1.8e9)
        ledger = Ledger(state / "ledger.sqlite", "afm1")
        ledger.record([decision(one, identity=f"more{one}#0") for one in range(400)])
        ledger.close()
        with pytest.raises(UserError, match="make room there") as refusal:
            take(state, home, "afm1", keep=1, wall_s=1.81e9)
        assert refusal.value.exit_code == 74
        assert known(home) == [first]
        assert verify(first).last_seq == 500
        assert list(home.glob(".*")) == []


@pytest.mark.long
@pytest.mark.timeout(700)
def test_a_disk_that_others_fill_is_told_and_a_snapshot_is_taken_meanwhile(tmp_path: Path) -> None:
    """A real service on a real disk of 300 MB, filled in some seven minutes; what was told goes when there is room."""
    small = tmp_path / "small"
    with mounted(small, "-t", "tmpfs", "-o", "size=300m", "none"):
        lab = Lab(small, watch=tmp_path / "w")
        lab.watch.mkdir()
        filled = threading.Event()

        def fill() -> None:
            with (small / "others").open("wb") as file:
                while not filled.wait(1.0) and file.tell() < 250 << 20:
                    file.write(os.urandom(600_000))
                    file.flush()

        def metric(name: str) -> float:
            with urlopen(f"http://127.0.0.1:{lab.metrics_port}/metrics") as answer:
                found = [line for line in answer.read().decode().splitlines() if line.startswith(f"afm_triage_{name} ")]
            return float(found[0].split()[1])

        def told() -> str:
            return " ".join(one for one in lab.troubles() if one.startswith("disk space"))

        with lab:
            assert metric("disk_full_seconds") == float("inf")
            threading.Thread(target=fill, daemon=True).start()
            for number in range(40):
                put(lab.watch, number)
            until(lambda: bool(told()), 400)
            assert "is full in" in told()
            assert 0 < metric("disk_full_seconds") < 600
            assert lab.status()["disk"]["full_s"] < 600
            done = lab.run("ledger", "snapshot", "--state", lab.state, "--to", tmp_path, "--json")
            assert done.returncode == 0, done.stderr
            snapshot = json.loads(done.stdout)
            assert verify(Path(snapshot["snapshot"])).last_seq == 40
            filled.set()
            until(lambda: not (small / "others").unlink(missing_ok=True) and not told(), 60)
