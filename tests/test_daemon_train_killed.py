"""A training run that is killed outright, twice, ends in the very weights of one that was left alone."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from daemon.cli import main
from daemon.common.locks import lock_work_folder
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


@pytest.mark.faults
@pytest.mark.timeout(150)
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


def test_what_a_power_failure_left_is_made_anew(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    work = tmp_path / ".broken.training"
    few = [word if word != "500" else "70" for word in WORDS]
    assert main([*few, str(whole)]) == 0
    process = subprocess.Popen([sys.executable, "-m", "daemon", *few, str(broken)], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (work / "checkpoint" / "progress.json").is_file() and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()
    (work / "simulated-edges.npy").write_bytes(b"")
    (work / "held-out-labels.npy").write_bytes(b"\x93NUMPY")
    checkpoint = work / "checkpoint" / json.loads((work / "checkpoint" / "progress.json").read_text())["file"]
    save_file({"network.fc.bias": np.zeros(1, np.float32)}, checkpoint)
    assert main([*few, str(broken)]) == 0
    assert all(np.array_equal(tensor, read(broken).weights[name]) for name, tensor in read(whole).weights.items())


def test_two_runs_never_share_a_work_folder(tmp_path, capsys):
    out, work = tmp_path / "m", tmp_path / ".m.training"
    with lock_work_folder(work):
        (work / "plan.json").write_text("of the other run")
        assert main([*WORDS, str(out)]) == 73
        assert "another training run is making this model" in capsys.readouterr().err
        assert (work / "plan.json").read_text() == "of the other run"
    assert main([*[word if word != "500" else "70" for word in WORDS], str(out)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_training_that_runs_away_is_said_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    def explode(network, *given):
        with torch.no_grad():
            network.fc.weight.fill_(float("nan"))

    monkeypatch.setattr("models.train.store", lambda folder, network, *given: explode(network))
    assert main([*[word if word != "500" else "70" for word in WORDS], str(tmp_path / "m")]) == 65
    assert "try a smaller --rate" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
