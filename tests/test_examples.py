"""The examples for users: each does what it says, on what `collect` and `events` really write."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.formats.afmcurve import pack
from daemon.labels.curve_name import sha256_of
from daemon.ledger import Ledger
from models.simulate import simulate
from tests.ledgerhelp import decision
from tests.makers import make_ibw_pair
from tests.reviewhelp import CURVES

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "deploy" / "examples"
EVENTS, CURVES_IN_ALL = 10, 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A night of 300 curves with 10 events, and what was kept of it handed over."""
    folder = tmp_path_factory.mktemp("night")
    (folder / "afm").mkdir()
    (folder / "state").mkdir()
    for number, one in enumerate(simulate(EVENTS - 2, 7, 1.0)):
        (folder / "afm" / f"event-{number}.afmcurve").write_bytes(pack(one.curve))
    shutil.copy(CURVES / "fmt-jpk-fd_spot3-0192.jpk-force", folder / "afm")
    for name, half in zip(("Defl", "ZSnsr"), make_ibw_pair(), strict=True):
        (folder / "afm" / f"Line0Point0{name}.ibw").write_bytes(half)
    files = sorted(file for file in (folder / "afm").iterdir() if "ZSnsr" not in file.name)
    made = [
        decision(number, verdict="discard", compact_copy=None, score=0.01)
        for number in range(len(files), CURVES_IN_ALL)
    ]
    for number, file in enumerate(files):
        digest = sha256_of(file)
        of = {"identity": f"{digest}#0", "sha256": digest, "path": file.name, "folder": str(file.parent)}
        made.append(decision(number, verdict="keep", compact_copy=None, **of))
    ledger = Ledger(folder / "state" / "ledger.sqlite", "afm1")
    ledger.record(made)
    ledger.close()
    words = ["--csv", str(folder / "kept.csv"), "--copy", str(folder / "kept")]
    assert main(["collect", "--state", str(folder / "state"), *words]) == 0
    return folder


def run(name: str, *words: str | Path, **more: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


def test_five_lines_of_pandas_make_a_histogram_of_rupture_forces(folder: Path) -> None:
    said = run("ruptures.py", folder / "kept.csv").splitlines()
    rows = list(csv.DictReader((folder / "kept.csv").read_text("utf-8-sig").splitlines()))
    forces = [float(force) for row in rows for force in row["rupture_forces_pn"].split() if force != "nan"]
    assert len(rows) == EVENTS
    assert len(forces) > EVENTS  # every simulated event has one at least, and most have several
    assert said[-1].startswith(f"{len(forces)} ruptures of {EVENTS} curves, median ")
    counts = [int(line.split()[-1]) for line in said[:-1]]
    assert sum(counts) == sum(0 <= force <= 500 for force in forces)
    assert counts[4] == sum(100 < force <= 125 for force in forces)


def test_the_copies_open_in_afmformats(folder: Path) -> None:
    said = run("curves.py", folder / "kept").splitlines()
    assert any(line.startswith("fmt-jpk-fd_spot3-0192.jpk-force curve 0: 2000 samples, ") for line in said)
    assert sum("not read by afmformats" in line for line in said) == EVENTS - 1  # our own format, and a pair


def test_a_run_is_stopped_after_so_many_kept(folder: Path) -> None:
    stop = folder / "STOP"
    words = ["-m", "daemon", "events", "--state", str(folder / "state"), "--since", "0", "--verdict", "keep"]
    events = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        said = run("stop_after.py", "5", "touch", stop, stdin=events.stdout)
    finally:
        assert events.stdout is not None
        events.stdout.close()
        events.wait(30)
    assert stop.exists()
    assert said.splitlines()[-1].startswith("5 of 5: ")
    assert len(said.splitlines()) == 5
