"""Training shows what it does within two seconds, on a terminal and in a log."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pace import allowed

from daemon.common import stdio

_SLOW = """
import time
from daemon.common.stdio import progress, telling, working
with telling():
    with working("loading"):
        time.sleep(0.2)
    for _ in progress((time.sleep(4) for _ in range(1)), "simulating", 1):
        pass
"""


def first_line_after_s(command: list[str], *, is_terminal: bool) -> tuple[float, str]:
    """When something that can be read first comes on standard error, and what."""
    ours, theirs = pty.openpty() if is_terminal else os.pipe()
    begun_s = time.monotonic()
    process = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL)
    os.close(theirs)
    try:
        seen = ""
        while not re.search(r"[a-z]{4}", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)):
            part = os.read(ours, 4096)
            assert part, "it ended, and said nothing"
            seen += part.decode(errors="replace")
        return time.monotonic() - begun_s, seen
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_lasts_is_shown_before_any_of_it_is_done(is_terminal: bool) -> None:
    start_s = 1.0  # of the interpreter, beside others' work
    waited_s, seen = first_line_after_s([sys.executable, "-c", _SLOW], is_terminal=is_terminal)
    assert waited_s < start_s + allowed(2.0)
    assert "simulating" in seen


@pytest.mark.parametrize("is_terminal", [True, False])
def test_training_shows_itself_within_two_seconds(tmp_path: Path, is_terminal: bool) -> None:
    """Also while its libraries are loaded, and while it simulates."""
    words = ["train", "--simulate", "100000", "--out", str(tmp_path / "m"), "--threads", "1"]
    waited_s, seen = first_line_after_s([sys.executable, "-m", "daemon", *words], is_terminal=is_terminal)
    assert waited_s < allowed(3.0), seen  # two, and the start of the interpreter beside others' work


def test_a_log_gets_a_line_now_and_then_and_no_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdio, "_FIRST_S", 0.05)
    monkeypatch.setattr(stdio, "_PAUSES_S", (0.1, 10.0))
    with stdio.telling():
        for _ in stdio.progress((time.sleep(0.1) for _ in range(6)), "simulating", 6):
            pass
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 3
    assert all(re.fullmatch(r"simulating: \d of 6, 0 s", line) for line in lines)


def test_without_a_reader_of_logs_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with stdio.working("anything"):
        time.sleep(stdio._FIRST_S + 0.3)
    assert capsys.readouterr().err == ""
