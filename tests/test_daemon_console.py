"""The console as a process: in a terminal, without one, and when the service goes away and comes back."""

from __future__ import annotations

import fcntl
import math
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cli import main
from daemon.client.feed import patience_of
from daemon.client.service_file import free_port
from daemon.config import Config
from daemon.labels import Labels
from daemon.ledger import events
from daemon.screens.board import Attachment, Board, Entry
from daemon.verbs.console import snapshot
from tests.ledgerhelp import alarm
from tests.speaker import Speaker

ROOT = Path(__file__).resolve().parents[1]
SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


@pytest.fixture
def speaker(tmp_path: Path) -> Iterator[Speaker]:
    with Speaker(tmp_path / "state") as speaker:
        speaker.record(12)
        yield speaker


def command(speaker: Speaker, *words: str) -> list[str]:
    return [sys.executable, "-m", "daemon", "console", "--state", str(speaker.state), *words]


class Terminal:
    """A console in a pseudo-terminal of a given size."""

    def __init__(self, speaker: Speaker, width: int, height: int, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self._before = termios.tcgetattr(slave)
        self._slave = slave
        variables = {**os.environ, "TERM": "xterm-256color", **environment}
        variables.pop("COLUMNS", None), variables.pop("LINES", None)
        self.process = subprocess.Popen(
            command(speaker), cwd=ROOT, env=variables, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        self.output = ""
        self._bytes = b""

    def wait_for(self, text: str, timeout_s: float = 15.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while text not in self.output:
            assert time.monotonic() < deadline_s, f"{text!r} never came; last: {self.output[-2000:]}"
            self.read(0.1)

    def read(self, timeout_s: float) -> None:
        if select.select([self._master], [], [], timeout_s)[0]:
            self._bytes += os.read(self._master, 1 << 16)
            self.output = self._bytes.decode("utf-8", "ignore")

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self) -> int:
        deadline_s = time.monotonic() + 10
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, "the console does not end"
            self.read(0.05)
        self.read(0.1)
        return self.process.returncode

    def is_as_before(self) -> bool:
        return bool(termios.tcgetattr(self._slave) == self._before)

    def last_frame(self) -> list[str]:
        """The lines of the last whole frame; each frame begins at the home position."""
        frames = self.output.split("\x1b[H")
        return [SEQUENCE.sub("", line) for line in frames[-2].replace("\r", "").split("\n")]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
def test_in_a_terminal_it_fills_the_screen_and_gives_it_back(speaker: Speaker, width: int, height: int) -> None:
    terminal = Terminal(speaker, width, height)
    try:
        terminal.wait_for("curve-0012")
        speaker.record(1)
        terminal.wait_for("curve-0013")
        terminal.read(0.4), terminal.read(0.4), terminal.read(0.4)
        lines = terminal.last_frame()
        assert len(lines) == height
        assert {len(line) for line in lines if line.strip()} == {width}
        assert "● ready" in lines[0]
        terminal.type("q")
        assert terminal.end() == 0
        assert terminal.output.index("\x1b[?1049h") < terminal.output.rindex("\x1b[?1049l")
        assert terminal.is_as_before()
    finally:
        terminal.close()


def test_a_key_labels_the_curve_that_the_arrows_select(speaker: Speaker) -> None:
    terminal = Terminal(speaker, 120, 36, LOGNAME="ada")
    try:
        terminal.wait_for("curve-0012")
        terminal.type("\x1b[B\x1b[Bk")
        terminal.wait_for("z takes it back")
        terminal.type("q")
        assert terminal.end() == 0
        assert terminal.is_as_before()
    finally:
        terminal.close()
    with Labels(speaker.state / "labels.sqlite") as labels:
        assert [(one.seq, one.label, one.rater) for one in labels.current()] == [(11, "keep", "ada")]


def test_no_colour_when_the_user_wants_none(speaker: Speaker) -> None:
    terminal = Terminal(speaker, 80, 24, NO_COLOR="1")
    try:
        terminal.wait_for("curve-0012")
        assert not re.search(r"\x1b\[[0-9;]*\b[34][0-7]m", terminal.output)
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 0
        assert "\x1b[?1049l" in terminal.output
    finally:
        terminal.close()


def test_plain_lines_end_with_q_too(speaker: Speaker) -> None:
    terminal = Terminal(speaker, 80, 24, TERM="dumb")
    try:
        terminal.wait_for("attached to afm1, 12 decided so far")
        assert "q or Ctrl-C leaves" in terminal.output
        terminal.type("q")
        assert terminal.end() == 0
        assert "\x1b" not in terminal.output
        assert terminal.is_as_before()
    finally:
        terminal.close()


def test_without_a_terminal_it_prints_one_plain_line_a_decision(speaker: Speaker) -> None:
    # Variables that make rich believe in a terminal must not bring escapes into a log.
    variables = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command(speaker), cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert "attached to afm1, 12 decided so far" in process.stdout.readline()
        speaker.record(3, reasons=("no_contact",))
        lines = [process.stdout.readline() for _ in range(3)]
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d discard  0\.250 .* run7/curve-0013\.jpk-force#0  \(no_contact\)\n", lines[0]
        )
        assert ["keep" in lines[2], "review" in lines[1], any("\x1b" in line for line in lines)] == [True, True, False]
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_without_a_service_it_says_how_to_start_one(tmp_path: Path) -> None:
    nowhere = [word for name in ("publish", "replay") for word in (f"--{name}", f"tcp://127.0.0.1:{free_port()}")]
    words = [sys.executable, "-m", "daemon", "console", "--state", str(tmp_path / "state"), *nowhere]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "start one with: afm-triage run --watch DIR" in process.stderr.readline()
        process.terminate()
        assert process.wait(10) == 0


def test_without_a_service_and_a_terminal_it_gives_up(tmp_path: Path) -> None:
    nowhere = [word for name in ("publish", "replay") for word in (f"--{name}", f"tcp://127.0.0.1:{free_port()}")]
    words = [sys.executable, "-m", "daemon", "console", "--patience", "1", "--state", str(tmp_path / "state"), *nowhere]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (69, 1)
    assert "no service has answered at" in done.stderr


def test_in_a_terminal_it_waits_for_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert patience_of(None) == math.inf
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert patience_of(None) == 60.0


def test_it_survives_the_service_and_finds_it_again_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.screens.board.SILENCE_S", 0.8)
    board = Board()
    nowhere = {name: f"tcp://127.0.0.1:{free_port()}" for name in ("publish", "replay")}  # not where others may serve
    attachment = Attachment(Config(state=tmp_path, **nowhere), board, history=100)

    def until(is_there: object, what: str) -> list[object]:
        deadline_s, news = time.monotonic() + 10, []
        while not is_there():  # type: ignore[operator]
            assert time.monotonic() < deadline_s, what
            news += attachment.turn(0.05)
        return news

    try:
        news = until(lambda: board.link_text == "service not reachable, retrying", "nobody there yet")
        assert [kind for kind, _ in news] == ["lost"]  # type: ignore[misc]
        with Speaker(tmp_path) as speaker:
            speaker.record(5)
            until(lambda: len(board.recent) == 5, "history")
            speaker.fall_silent()
            until(lambda: not board.is_linked, "silence is noticed")
            speaker.record(4)
            speaker.speak()  # on other ports, as after a restart with port 0
            news = until(lambda: len(board.recent) == 9, "nothing is missed, nothing comes twice")
            assert [one.seq for one in news if isinstance(one, Entry)] == [6, 7, 8, 9]
            assert [entry.seq for entry in board.recent] == list(range(9, 0, -1))
    finally:
        attachment.close()


def test_an_alarm_is_told_when_it_comes_and_when_it_goes(speaker: Speaker) -> None:
    board = Board()
    attachment = Attachment(Config(state=speaker.state), board, history=0)
    try:
        attachment.turn(1.0)
        answered = board.version
        while board.version == answered:  # a status that was published: the subscription stands
            attachment.turn(0.1)
        speaker.health = [events.Health("contact", "alarm", "20 missed", "…", False)]
        speaker.publisher.emit(alarm("contact", "20 missed"))
        speaker.publisher.emit(alarm("contact", "fine", ok=True))
        news: list[object] = []
        deadline_s = time.monotonic() + 5
        while len(news) < 2 or not board.troubles():
            assert time.monotonic() < deadline_s
            news += attachment.turn(0.1)
        assert news == [("alarm", "contact: 20 missed"), ("alarm", "cleared: contact: fine")]
        assert board.troubles() == ["contact: 20 missed"]
    finally:
        attachment.close()


def test_a_snapshot_is_a_picture_of_now(speaker: Speaker, tmp_path: Path) -> None:
    file = tmp_path / "console.svg"
    done = subprocess.run(command(speaker, "--snapshot", str(file), "--size", "100x30"), cwd=ROOT, check=False)
    assert done.returncode == 0
    assert "curve-0012.jpk-force" in file.read_text()


def test_a_snapshot_into_a_folder_that_is_not_there_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "none" / "c.svg"
    assert main(["console", "--snapshot", str(file), "--state", str(tmp_path)]) == 64
    said = f"afm-triage: --snapshot {file}: its folder does not exist; make it first\n"
    assert capsys.readouterr().err == said
    assert list(tmp_path.iterdir()) == []


def test_no_snapshot_without_a_service(tmp_path: Path) -> None:
    config = Config(state=tmp_path, replay="ipc:///nowhere/at/all")
    assert not snapshot(config, tmp_path / "x.svg", 80, 24, patience_s=0.1)
    assert list(tmp_path.iterdir()) == []
