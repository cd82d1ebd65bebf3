"""A training run that is killed outright, twice, ends in the very weights of one that was left alone."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from daemon.cli import main
from models.bundle import read

ROOT = Path(__file__).resolve().parents[1]
WORDS = ["train", "--simulate", "500", "--width", "8", "--size", "64", "--epochs", "4", "--held-out", "100"]
WORDS += ["--threads", "1", "--out"]


def kill_when(happened, out):
    """Start the run as a process of its own and end it, unasked, as soon as ``happened()``."""
    process = subprocess.Popen([sys.executable, "-m", "daemon", *WORDS, str(out)], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not happened() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_killed_in_the_middle_and_between_epochs(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main([*WORDS, str(whole)]) == 0
    work = tmp_path / ".broken.training"
    progress = work / "checkpoint" / "progress.json"

    kill_when((work / "simulated-labels.npy").is_file, broken)  # in the middle of the first epoch
    assert not progress.exists()
    kill_when(progress.is_file, broken)  # an epoch is done
    assert 1 <= json.loads(progress.read_text())["epochs"] < 4
    assert not broken.exists()

    assert main([*WORDS, str(broken)]) == 0
    one, other = read(whole), read(broken)
    assert one.weights.keys() == other.weights.keys()
    assert all(np.array_equal(one.weights[name], other.weights[name]) for name in one.weights)
    assert one.calibration == other.calibration
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
