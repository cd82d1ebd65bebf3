"""Handing over while the disk is full, and while the process is killed: what has its name is whole, nothing is lost."""

from __future__ import annotations

import csv
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon.labels.curve_name import sha256_of
from daemon.ledger import Ledger
from tests.ledgerhelp import decision
from tests.makers import make_ibw_pair

ROOT = Path(__file__).resolve().parents[2]
PAIRS = 60


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Pairs of an Asylum instrument, all kept; of the size of a real one."""
    first, second = make_ibw_pair()
    (tmp_path / "afm").mkdir()
    made = []
    for number in range(PAIRS):
        file = tmp_path / "afm" / f"Line{number:04}Point0000Defl.ibw"
        file.write_bytes(first + bytes([number]) * 300_000)
        file.with_name(f"Line{number:04}Point0000ZSnsr.ibw").write_bytes(second + bytes([number]) * 300_000)
        digest = sha256_of(file)
        of = {"identity": f"{digest}#0", "sha256": digest, "path": file.name, "folder": str(file.parent)}
        made.append(decision(number, verdict="keep", compact_copy=None, **of))
    (tmp_path / "state").mkdir()
    ledger = Ledger(tmp_path / "state" / "ledger.sqlite", "afm1")
    ledger.record(made)
    ledger.close()
    return tmp_path / "state"


def start(state: Path, target: Path, limit_bytes: int | None = None) -> subprocess.Popen[str]:
    def before() -> None:
        if limit_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.Popen(
        [sys.executable, "-m", "daemon", "collect", "--state", str(state), "--copy", str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=before,  # noqa: PLW1509 - no thread of this test holds a lock
    )


def wholes(state: Path, target: Path) -> int:
    """Pairs that are there; each file that has its name is what it is a copy of."""
    for file in target.glob("*.ibw"):
        assert file.read_bytes() == (state.parent / "afm" / file.name).read_bytes()
    firsts = sorted(target.glob("*Defl.ibw"))
    assert all(first.with_name(first.name.replace("Defl", "ZSnsr")).exists() for first in firsts)
    return len(firsts)


@pytest.mark.timeout(180)
def test_kill_9_leaves_nothing_half_and_the_same_command_goes_on(state: Path, tmp_path: Path) -> None:
    target, chance, seen = tmp_path / "out", random.Random(1), 0
    for _ in range(4):
        process, before = start(state, target), seen
        deadline_s = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline_s:
            seen = len(list(target.glob("*Defl.ibw")))
            if seen > before:
                break
            time.sleep(0.002)
        time.sleep(chance.random() * 0.03)
        process.kill()
        process.communicate(timeout=30)
        seen = wholes(state, target)
    assert seen >= 4
    process = start(state, target)
    said, wrong = process.communicate(timeout=120)
    assert (process.returncode, wrong) == (0, "")
    assert f"{PAIRS} new, 0 there already" in said
    assert wholes(state, target) == PAIRS
    assert {path.suffix for path in target.iterdir()} == {".ibw", ".csv"}  # nor what the killed ones left
    table = list(csv.DictReader((target / "curves.csv").read_text("utf-8-sig").splitlines()))
    assert len(table) == PAIRS


def test_a_disk_that_takes_no_more_is_told_and_what_is_there_is_whole(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    process = start(state, target, limit_bytes=250_000)
    _, wrong = process.communicate(timeout=60)
    assert process.returncode == 74
    assert wrong.startswith(f"afm-triage: {target}: ")
    assert wrong.count("\n") == 1
    assert "the same command goes on from there" in wrong
    assert wholes(state, target) == 0
    assert not list(target.glob(".*"))


FULL = """
import resource, signal, sys
from dataclasses import replace
from pathlib import Path
from daemon.archive import Origin
from daemon.archive.writer import ArchiveWriter
from models.simulate import simulate
(one,) = simulate(1, 1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with ArchiveWriter(Path(sys.argv[1])) as writer:
    writer.add(Origin("c", 0, 1, None, 0, 0, "N"), replace(one.curve, force=one.curve.force[:300]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        writer.finish()
    except OSError as error:
        print(error.strerror)
"""


def test_an_archive_of_few_curves_on_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """HDF5 ends the process (SIGSEGV) when what it holds back for small curves cannot be written at the end."""
    ran = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "kept.h5"],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "File too large\n", "")
    assert not list(tmp_path.iterdir())
