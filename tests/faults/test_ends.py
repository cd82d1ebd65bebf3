"""How a service ends: by `stop`, by Ctrl-C, with its terminal; and what does not end it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.lab import Lab, put, until

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def in_a_terminal(folder: Path, *before: str) -> Iterator[tuple[Lab, Terminal]]:
    """A service whose controlling terminal is ours; ``before``: words in front of the command."""
    terminal = Terminal()
    lab = Lab(folder)
    lab.process = subprocess.Popen(
        [*before, *lab.command()],
        cwd=folder,  # nohup leaves its nohup.out there
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=terminal.theirs,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no other thread is at work here
    )
    os.close(terminal.theirs)
    try:
        lab.wait_ready()
        put(lab.watch, 0)
        lab.wait_decided(1, 20)
        time.sleep(1.5)  # once round: the terminal has been seen
        yield lab, terminal
    finally:
        if lab.process is not None:
            lab.process.kill()
            lab.process.wait(20)
        terminal.close()


class Terminal:
    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        os.set_blocking(self.ours, False)
        self._said = b""

    def read(self) -> str:
        with contextlib.suppress(OSError):
            while found := os.read(self.ours, 65536):
                self._said += found
        return self._said.decode(errors="replace")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.ours)


def ended(lab: Lab, limit_s: float = 12.0) -> int:
    assert lab.process is not None
    return lab.process.wait(limit_s)


def still_runs(lab: Lab, decided: int) -> None:
    put(lab.watch, decided)
    lab.wait_decided(decided + 1, 10)


def test_ctrl_c_in_a_terminal_prints_the_session(tmp_path: Path) -> None:
    with in_a_terminal(tmp_path) as (lab, terminal):
        os.write(terminal.ours, b"\x03")
        assert ended(lab) == 0
        said = terminal.read()
        assert "1 curves seen in" in said
        assert "1 decided" in said
        assert all(f"  {verdict}" in said for verdict in ("keep", "review", "discard"))
        assert "the ledger ends at seq 1" in said


def test_without_a_terminal_one_line_tells_the_end(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        put(lab.watch, 0)
        lab.wait_decided(1, 20)
        assert lab.process is not None
        lab.process.send_signal(signal.SIGINT)
        assert ended(lab) == 0
        assert "stopped by SIGINT" in lab.log_text()
        assert "curves seen in" not in lab.log_text()


def test_a_terminal_that_goes_ends_the_service_in_order(tmp_path: Path) -> None:
    with in_a_terminal(tmp_path) as (lab, terminal):
        terminal.close()
        assert ended(lab) == 0
        assert not (lab.state / "service.json").exists(), "it has drained and closed"


def test_under_nohup_the_terminal_may_go(tmp_path: Path) -> None:
    with in_a_terminal(tmp_path, "nohup") as (lab, terminal):
        terminal.close()
        time.sleep(2)
        still_runs(lab, 1)
        os.kill(lab.pid, signal.SIGHUP)
        time.sleep(2)
        still_runs(lab, 2)


def test_a_reload_long_after_the_terminal_went_is_a_reload(tmp_path: Path) -> None:
    """``disown``: the shell has not told it of the end."""
    terminal = Terminal()
    popen = {"stdin": terminal.theirs, "start_new_session": True}
    with Lab(tmp_path, popen=popen) as lab:
        os.close(terminal.theirs)
        terminal.close()
        time.sleep(8)
        answer = lab.run("reload", "--state", lab.state)
        assert answer.returncode == 0, answer.stderr
        still_runs(lab, 0)


def test_sighup_with_a_terminal_that_is_there_is_a_reload(tmp_path: Path) -> None:
    with in_a_terminal(tmp_path) as (lab, terminal):
        os.kill(lab.pid, signal.SIGHUP)
        until(lambda: "reload: applied" in terminal.read(), 10)
        still_runs(lab, 1)


@pytest.mark.smoke
def test_stop_ends_it_and_says_so(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        put(lab.watch, 0)
        lab.wait_decided(1, 20)
        answer = lab.run("stop", "--state", lab.state)
        assert answer.returncode == 0, answer.stderr
        assert f"process {lab.pid} has ended after" in answer.stdout
        assert ended(lab, 1.0) == 0
        again = lab.run("stop", "--state", lab.state)
        assert again.returncode == 69
        assert again.stderr.startswith(f"afm-triage: no service runs on {lab.state}")
        assert again.stderr.count("\n") == 1


def test_stop_ends_one_that_has_only_begun(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.start()
    try:
        until(lambda: (lab.state / "lock").exists() and bool((lab.state / "lock").read_text()), 20)
        answer = lab.run("stop", "--state", lab.state)
        assert answer.returncode == 0, answer.stderr
        assert ended(lab, 1.0) == 0
    finally:
        assert lab.process is not None
        lab.process.kill()
        lab.process.wait(20)


def test_stop_knows_a_number_that_another_process_has_got(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        said = json.loads((lab.state / "service.json").read_text())
        lab.kill()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (lab.state / "service.json").write_text(json.dumps({**said, "pid": stranger.pid}))
        (lab.state / "lock").write_text(str(stranger.pid))
        answer = lab.run("stop", "--state", lab.state)
        assert answer.returncode == 69
        assert "no service runs on" in answer.stderr
        time.sleep(0.5)
        assert stranger.poll() is None, "a stranger was ended"
    finally:
        stranger.kill()
        stranger.wait(10)


def test_stop_may_not_end_another_users(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("another user takes root and setpriv")
    with Lab(tmp_path) as lab:
        for folder in (tmp_path, *tmp_path.parents):
            if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
                folder.chmod(folder.stat().st_mode | 0o055)
        lab.state.chmod(0o755)
        root = Path(__file__).resolve().parents[2]
        nobody = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
        words = [*nobody, sys.executable, "-m", "daemon", "stop", "--state", str(lab.state)]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        answer = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment, check=False)
        assert answer.returncode == 69, answer.stderr
        assert "belongs to another user; ask for it with sudo" in answer.stderr
        still_runs(lab, 0)


@pytest.mark.long
def test_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        os.kill(lab.pid, signal.SIGSTOP)
        try:
            begun_s = time.monotonic()
            answer = lab.run("stop", "--state", lab.state)
            assert answer.returncode == 69
            assert f"process {lab.pid} finishes what it has in hand" in answer.stderr
            assert f"kill -9 {lab.pid}" in answer.stderr
            assert time.monotonic() - begun_s < 45
        finally:
            os.kill(lab.pid, signal.SIGCONT)
        assert ended(lab) == 0
