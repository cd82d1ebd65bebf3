"""Odd surroundings: locales, terminals, names of files that steer a terminal, a ledger that is moved away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import CURVES, fresh
from tests.faults.lab import Lab, put, until

pytestmark = pytest.mark.timeout(150)
ROOT = Path(__file__).resolve().parents[2]
LOCALES: dict[str, dict[str, str]] = {
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "no such locale": {"LC_ALL": "xx_YY.nonsense"},
    "no terminal": {"TERM": ""},
}
SIZES = {"usual": (24, 80), "tiny": (3, 10), "none": (0, 0), "huge": (200, 500)}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A service that has judged curves under odd names."""
    with Lab(tmp_path_factory.mktemp("odd")) as lab:
        content = (CURVES / "fmt-jpk-fd_spot3-0192.jpk-force").read_bytes()
        names = (b"\xc3\x84pfel \xc2\xb5N", b"gr\xfc\xdfe", b"a\x1b[2J\x1b]0;pwned\x07\nkeep 1.0 fake")
        for number, name in enumerate(names):
            path = os.path.join(os.fsencode(lab.watch), name + b".jpk-force")
            Path(os.fsdecode(path)).write_bytes(fresh(content, number))
        lab.wait_decided(3, 30)
        yield lab


def verb(lab: Lab, words: tuple[str, ...], **variables: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "daemon", *words]
    return subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False, cwd=lab.folder)


@pytest.mark.parametrize("locale", LOCALES)
def test_no_locale_makes_a_verb_fail(odd: Lab, locale: str) -> None:
    state = ("--state", str(odd.state))
    for words in (("status", *state), ("status", "--json", *state), ("events", "--since", "0", *state)):
        answer = verb(odd, words, **LOCALES[locale])
        assert answer.returncode == 0, (words, answer.stderr)
        assert b"Traceback" not in answer.stderr


@pytest.mark.parametrize("words", [("status",), ("events", "--since", "0"), ("labels", "export")])
def test_no_name_of_a_file_steers_the_terminal(odd: Lab, words: tuple[str, ...]) -> None:
    answer = verb(odd, (*words, "--state", str(odd.state)))
    assert b"\x1b[2J" not in answer.stdout
    assert b"\nkeep 1.0 fake" not in answer.stdout
    assert "\x1b[2J" not in odd.log_text()


@pytest.mark.parametrize("size", SIZES)
def test_the_console_lives_in_a_terminal_of_any_size(odd: Lab, size: str) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZES[size], 0, 0))
    os.set_blocking(ours, False)
    command = [sys.executable, "-m", "daemon", "console", "--state", str(odd.state)]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    said = b""
    with subprocess.Popen(command, start_new_session=True, env=environment, **streams) as process:
        os.close(theirs)
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s:
            said += _read(ours)
            time.sleep(0.05)
        assert process.poll() is None, said[-500:]
        os.write(ours, b"q")
        until_s = time.monotonic() + 8
        while process.poll() is None and time.monotonic() < until_s:
            said += _read(ours)
            time.sleep(0.05)
        code = process.poll()
        process.kill()
    os.close(ours)
    assert code == 0
    assert b"Traceback" not in said


def _read(descriptor: int) -> bytes:
    with contextlib.suppress(OSError):
        return os.read(descriptor, 65536)
    return b""


def test_a_ledger_that_is_moved_away_is_told_in_few_lines_and_judging_goes_on_when_it_is_back(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        put(lab.watch, 0)
        lab.wait_decided(1, 20)
        os.rename(lab.state / "ledger.sqlite", lab.state / "away.sqlite")
        put(lab.watch, 1)
        until(lambda: "ledger" in " ".join(lab.troubles()), 20)
        lines = lab.log_text().count("\n")
        time.sleep(10)
        assert lab.log_text().count("\n") - lines <= 5
        assert max(map(len, lab.log_text().splitlines())) < 1_000
        os.rename(lab.state / "away.sqlite", lab.state / "ledger.sqlite")
        lab.wait_decided(2, 20)


def test_a_watched_file_is_refused_in_one_line(tmp_path: Path) -> None:
    lab = Lab(tmp_path, watch=tmp_path / "a.jpk-force")
    lab.watch.write_bytes(b"x")
    answer = lab.run("run", "--watch", lab.watch, "--state", lab.state, "--metrics-port", "0")
    assert answer.returncode == 78
    assert answer.stderr.count("\n") == 1
    assert "is a file; name the folder" in answer.stderr
