"""`finetune` killed, short of disk, ended by a signal: one line, nothing half-written, and the next run goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon.judging.registry import Registry
from models.bundle import read
from tests.faults.lab import mounted

pytestmark = pytest.mark.faults
ROOT = Path(__file__).resolve().parents[2]
KILLS = (sys.executable, "-m", "tests.faults.tuned_kills")  # a process of its own: it forks, and has no threads then
SMALL = ("--events", "20", "--simulate", "100", "--held-out", "200", "--epochs", "1")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    subprocess.run([*KILLS, "--prepare", str(folder)], cwd=ROOT, check=True, timeout=120)
    return folder


def command(state: Path, base: Path) -> list[str]:
    (state.parent / "afm.toml").write_text(f'state = "{state}"\nmodel = "{base}"\n')
    return [sys.executable, "-m", "daemon", "finetune", "--config", str(state.parent / "afm.toml"), *SMALL]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("goes_on", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(labelled: Path, tmp_path: Path, goes_on: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    disk = tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=96m", "none"):
        state = Path(shutil.copytree(labelled / "lab" / "state", disk / "state"))
        words = command(state, labelled / "base")
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - (900_000 if goes_on else 100_000)))
        found = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100, check=False)
        assert found.returncode == 74, found.stderr
        said = [line for line in found.stderr.splitlines() if line.startswith("afm-triage: ")]
        assert len(said) == 1
        assert said[0].count("make room, then go on with the same command") == 1
        assert "Traceback" not in found.stderr
        assert not list((state / "finetune").glob("tuned-*"))
        assert Registry(state / "models").serving() is None
        if not goes_on:
            return
        filler.unlink()
        found = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=100, check=False)
        assert found.returncode == 0, found.stderr
        (candidate,) = (state / "finetune").glob("tuned-*")
        assert read(candidate).id in found.stdout
        assert not [one.name for one in (state / "finetune").iterdir() if one.name.startswith(".")]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_signal_ends_it_and_the_same_command_makes_the_same_network(labelled: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    digests = []
    for name, is_ended in (("whole", False), ("ended", True)):
        state = Path(shutil.copytree(labelled / "lab" / "state", tmp_path / name / "state"))
        words = command(state, labelled / "base")
        if is_ended:
            process = subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            while not (state / "finetune" / "cross-fit" / "fold-1").exists():
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) in (128 + signal.SIGTERM, -signal.SIGTERM)
            assert (state / "finetune" / "cross-fit").is_dir()
        subprocess.run(words, env=environment, capture_output=True, timeout=100, check=True)
        (candidate,) = (state / "finetune").glob("tuned-*")
        digests.append(read(candidate).weights_sha256)
    assert digests[0] == digests[1]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [3, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(3_600)])])
def test_killed_at_any_moment_the_old_network_serves_or_the_new_one(kills: int) -> None:
    words = [*KILLS, "--kills", str(kills), "--seed", "2"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=3_600, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.startswith(f"{kills} kills")
