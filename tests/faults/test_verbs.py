"""No verb waits for a share that does not answer; each says in one line what it could not look at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.lab import Lab, Share, put, share, until
from tests.pace import allowed

ROOT = Path(__file__).resolve().parents[2]
#: Besides the second in which Python and its libraries are loaded, on a machine with other work.
LIMIT_S = 3.0


@pytest.fixture
def stalled(tmp_path: Path) -> Iterator[Share]:
    """A share with one curve on it, whose server does not answer any more."""
    with share(tmp_path) as mounted:
        put(mounted.remote, 1)
        assert len(os.listdir(mounted.point)) == 1
        mounted.stall()
        yield mounted


def timed(*words: str | Path, limit_s: float = LIMIT_S) -> tuple[subprocess.CompletedProcess[str], float]:
    """A verb, and how long it took; the better of two, because others work here too."""
    best: tuple[subprocess.CompletedProcess[str], float] | None = None
    for _ in range(2):
        begun_s = time.monotonic()
        command = [sys.executable, "-m", "daemon", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=40, env=environment, check=False)
        took_s = time.monotonic() - begun_s
        if best is None or took_s < best[1]:
            best = done, took_s
        if took_s <= limit_s:
            break
    assert best is not None
    return best


def test_check_and_doctor_say_what_does_not_answer(tmp_path: Path, stalled: Share) -> None:
    file, local = tmp_path / "afm.toml", tmp_path / "local"
    local.mkdir()
    folders = json.dumps([str(local), str(stalled.point)])
    file.write_text(f'watch = {folders}\nstate = "state"\nmetrics_port = 0\n')
    done, took_s = timed("check", file)
    assert done.returncode == 0, done.stderr
    assert f"▲ watches {stalled.point} (fuse.sshfs, " in done.stdout
    assert "which does not answer; looked no further" in done.stdout
    assert f"watches {local} (" in done.stdout
    assert took_s <= allowed(LIMIT_S)
    done, took_s = timed("doctor", "--config", file, "--json", limit_s=2 * LIMIT_S)
    told = {one["text"]: one for one in json.loads(done.stdout)["findings"] if one["topic"] == "watch"}
    (silent,) = [one for text, one in told.items() if "does not answer; looked no further" in text]
    assert silent["level"] == "problem"
    assert str(stalled.point) in silent["text"]
    assert any(text.startswith(str(local)) for text in told)
    assert took_s <= allowed(2 * LIMIT_S)  # it loads the model and judges known curves


def test_a_link_into_a_share_is_no_way_round(tmp_path: Path, stalled: Share) -> None:
    (tmp_path / "link").symlink_to(stalled.point / "run")
    file = tmp_path / "afm.toml"
    file.write_text(f'watch = "{tmp_path / "link"}"\nstate = "state"\n[source]\nmounts = "local"\n')
    done, took_s = timed("check", file)
    assert done.returncode == 0, done.stderr
    assert "does not answer; looked no further" in done.stdout
    assert took_s <= allowed(LIMIT_S)


def test_a_state_folder_on_a_share_is_told_without_touching_it(tmp_path: Path, stalled: Share) -> None:
    done, took_s = timed("doctor", "--state", stalled.point / "state", "--json", limit_s=2 * LIMIT_S)
    (state,) = [one for one in json.loads(done.stdout)["findings"] if one["topic"] == "state"]
    assert state["level"] == "problem"
    assert "network share (fuse.sshfs)" in state["text"]
    assert "local disk" in state["advice"]
    assert took_s <= allowed(2 * LIMIT_S)
    file = tmp_path / "afm.toml"
    file.write_text(f'watch = "{tmp_path / "local"}"\nstate = "{stalled.point / "state"}"\n')
    done, took_s = timed("check", file)
    assert "a network share (fuse.sshfs): SQLite needs a local disk" in done.stdout
    assert took_s <= allowed(LIMIT_S)


@pytest.mark.timeout(180)
def test_status_events_and_labels_of_a_service_whose_share_stalls(tmp_path: Path) -> None:
    with share(tmp_path) as mounted:
        lab = Lab(tmp_path / "lab", also=[mounted.point])
        lab.watch.mkdir(parents=True, exist_ok=True)
        with lab:
            local = put(lab.watch, 1)
            put(mounted.remote, 2)
            lab.wait_decided(2, 30)
            mounted.stall()
            begun_s = time.monotonic()
            for words in (
                ("status", "--state", lab.state),
                ("events", "--state", lab.state, "--since", "0"),
                ("labels", "export", "--state", lab.state),
                ("labels", "add", local, "keep", "--rater", "r", "--state", lab.state),
            ):
                done, took_s = timed(*words)
                assert took_s <= allowed(LIMIT_S), words
                assert "Traceback" not in done.stderr, words
            # What nobody sees is not well: within 30 s, and one finds out from the status alone.
            until(lambda: not lab.is_well(), 35 - (time.monotonic() - begun_s))
            told, took_s = timed("status", "--state", lab.state)
            assert took_s <= allowed(LIMIT_S)
            assert "all well" not in told.stdout
            assert "last curve" in told.stdout
            assert str(mounted.point) in "\n".join(line for line in told.stdout.splitlines() if "▲" in line)
            put(lab.watch, 3)
            lab.wait_decided(3, 5)
            mounted.resume()
            until(lab.is_well, 40)


@pytest.mark.timeout(120)
def test_a_start_with_a_share_that_does_not_answer(tmp_path: Path, stalled: Share) -> None:
    lab = Lab(tmp_path / "lab", also=[stalled.point])
    put(lab.watch, 1)
    begun_s = time.monotonic()
    with lab:
        lab.wait_decided(1, 20)
        assert time.monotonic() - begun_s < 20
        until(lambda: any(str(stalled.point) in told for told in lab.troubles()), 35)
        stalled.resume()
        lab.wait_decided(2, 40)
        until(lab.is_well, 40)
        assert lab.stop() == 0


def test_score_of_a_file_on_a_stalled_share_ends_at_ctrl_c(tmp_path: Path, stalled: Share) -> None:
    (name,) = os.listdir(stalled.remote)
    command = [sys.executable, "-m", "daemon", "score", str(stalled.point / name)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        with process.stderr as told:
            assert "does not answer; waiting for it, Ctrl-C leaves" in told.readline()
            process.send_signal(signal.SIGINT)
            process.wait(2)
    finally:
        stalled.resume()
        process.kill()
        process.wait(10)
