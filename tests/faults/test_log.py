"""Whoever reads the log may stop, sleep or go: judging, status and the end never wait for it."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import scrape
from tests.faults.lab import Lab, put, until

pytestmark = pytest.mark.timeout(150)
_XOFF, _XON = b"\x13", b"\x11"


class Ending:
    """Our end of what the service writes its log onto; ``theirs`` is given to it."""

    def __init__(self, kind: str) -> None:
        if kind == "terminal":
            self.ours, self.theirs = pty.openpty()
        elif kind == "journal":  # a stream socket, as systemd hands one down
            self.ours, self.theirs = (one.detach() for one in socket.socketpair())
        else:
            self.ours, self.theirs = os.pipe()
        os.set_blocking(self.ours, False)
        self.kind, self.said = kind, b""

    def read(self) -> str:
        with contextlib.suppress(OSError):
            while found := os.read(self.ours, 65536):
                self.said += found
        return self.said.decode(errors="replace")

    def stop(self) -> None:
        """From now on it takes nothing."""
        if self.kind == "terminal":
            os.write(self.ours, _XOFF)
            time.sleep(0.2)
            return
        os.set_blocking(self.theirs, False)  # of both who hold it; made as it was below
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.theirs, b"x" * 64)
        os.set_blocking(self.theirs, True)

    def go_on(self) -> None:
        if self.kind == "terminal":
            os.write(self.ours, _XON)


@contextlib.contextmanager
def logging_onto(kind: str, folder: Path) -> Iterator[tuple[Lab, Ending]]:
    ending = Ending(kind)
    lab = Lab(folder, popen={"stderr": ending.theirs, "start_new_session": True})
    try:
        lab.start()
        until(lambda: "ready after" in ending.read(), 60)
        put(lab.watch, 0)
        lab.wait_decided(1, 20)
        yield lab, ending
    finally:
        if lab.process is not None:
            lab.process.kill()
            lab.process.wait(20)
        for descriptor in (ending.ours, ending.theirs):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def say_something(lab: Lab, times: int = 3) -> None:
    """A reload is a line of the log."""
    for _ in range(times):
        os.kill(lab.pid, signal.SIGHUP)
        time.sleep(0.4)


def ends(lab: Lab) -> float:
    """Seconds until it has drained, after SIGTERM."""
    assert lab.process is not None
    begun_s = time.monotonic()
    lab.process.send_signal(signal.SIGTERM)
    assert lab.process.wait(20) == 0
    return time.monotonic() - begun_s


@pytest.mark.parametrize("kind", ["terminal", pytest.param("pipe", marks=pytest.mark.long), "journal"])
def test_a_reader_that_takes_nothing_delays_nothing(kind: str, tmp_path: Path) -> None:
    with logging_onto(kind, tmp_path) as (lab, ending):
        ending.stop()
        say_something(lab)
        os.rename(lab.watch, tmp_path / "away")  # the share goes and comes: an alarm
        time.sleep(4)
        os.rename(tmp_path / "away", lab.watch)
        put(lab.watch, 1)
        lab.wait_decided(2, 20)
        put(lab.watch, 2)
        assert lab.wait_decided(3, 10) < 3
        assert lab.status()["running"]
        assert ends(lab) < 5


def test_after_ctrl_q_the_lines_are_there(tmp_path: Path) -> None:
    with logging_onto("terminal", tmp_path) as (lab, ending):
        ending.stop()
        say_something(lab, times=4)
        assert "reload" not in ending.read()
        ending.go_on()
        until(lambda: ending.read().count("reload: applied") >= 2, 10)
        assert ends(lab) < 5
        assert "stopped by SIGTERM" in ending.read()


def test_a_reader_that_has_gone_is_counted_and_told(tmp_path: Path) -> None:
    """``run 2>&1 | head -1``."""
    with logging_onto("pipe", tmp_path) as (lab, ending):
        os.close(ending.theirs)
        os.close(ending.ours)
        say_something(lab)
        put(lab.watch, 1)
        lab.wait_decided(2, 10)
        until(lambda: scrape(lab)["afm_triage_log_lines_dropped_total"] >= 2, 10)
        assert any("log" in one and "dropped" in one for one in lab.troubles())
        assert ends(lab) < 5


def test_a_log_on_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    lab = Lab(tmp_path, popen={"stderr": os.open("/dev/full", os.O_WRONLY)})
    with lab:
        say_something(lab)
        put(lab.watch, 0)
        lab.wait_decided(1, 10)
        until(lambda: scrape(lab)["afm_triage_log_lines_dropped_total"] >= 2, 10)
        assert ends(lab) < 5


@pytest.mark.parametrize("closed", ["2>&-", pytest.param(">&- 2>&-", marks=pytest.mark.long), "<&- >&- 2>&-"])
def test_streams_may_be_closed(closed: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    words = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *lab.command()]
    lab.process = subprocess.Popen(words)
    try:
        lab.wait_ready()
        say_something(lab)
        put(lab.watch, 0)
        lab.wait_decided(1, 10)
        assert ends(lab) < 5
    finally:
        lab.process.kill()
        lab.process.wait(20)


@pytest.mark.parametrize("reader", ["head -n 1", "sleep 60", pytest.param("cat", marks=pytest.mark.long)])
def test_in_a_shells_pipe(reader: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.process = subprocess.Popen(
        ["/bin/bash", "-c", f'set -o pipefail; "$@" 2>&1 | {reader} >/dev/null', "bash", *lab.command()],
        start_new_session=True,
    )
    try:
        lab.wait_ready()
        service = next(pid for pid in lab.processes() if _words(pid).startswith(sys.executable))
        for _ in range(3):
            os.kill(service, signal.SIGHUP)
            time.sleep(0.4)
        put(lab.watch, 0)
        lab.wait_decided(1, 10)
        os.kill(service, signal.SIGTERM)
        until(lambda: not os.path.exists(f"/proc/{service}") or not _words(service), 6)
    finally:
        os.killpg(lab.pid, signal.SIGKILL)
        lab.process.wait(20)


def _words(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def test_a_background_job_of_a_terminal_that_forbids_it_writes_and_lives(tmp_path: Path) -> None:
    """``stty tostop``: else the first line stops the whole service."""
    code = (
        "import fcntl, os, signal, sys, termios\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "mode = termios.tcgetattr(0); mode[3] |= termios.TOSTOP; termios.tcsetattr(0, termios.TCSANOW, mode)\n"
        "job = os.fork()\n"
        "if job == 0: os.setpgid(0, 0); os.execv(sys.argv[1], sys.argv[1:])\n"
        "os.setpgid(job, job); signal.signal(signal.SIGTERM, lambda *_: os.kill(job, 15)); \n"
        "while True:\n"
        "    pid, status = os.waitpid(job, os.WUNTRACED)\n"
        "    if not os.WIFSTOPPED(status): sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    ending = Ending("terminal")
    lab = Lab(tmp_path)
    words = [*lab.command()]
    lab.process = subprocess.Popen(
        [words[0], "-c", code, *words],
        stdin=ending.theirs,
        stdout=ending.theirs,
        stderr=ending.theirs,
        start_new_session=True,
    )
    try:
        lab.wait_ready()
        put(lab.watch, 0)
        lab.wait_decided(1, 10)
        until(lambda: "ready after" in ending.read(), 10)
        assert ends(lab) < 8
    finally:
        lab.process.kill()
        lab.process.wait(20)
